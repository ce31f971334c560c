//! The devices of the own account: linking another one, listing, naming, revoking.
//!
//! This module does not touch groups but to add the own account's devices; the machine does that.

use std::time::Duration;

use chancery_protocol::{
    client::{Command, GroupStatus},
    identity::{Authority, Ticket, TicketKind, link},
    ids::DeviceId,
    time::Timestamp,
    wire::{
        Frame,
        registrar::{Deposit, Link, ListDevices, ListedDevice, Place, RenameDevice, RevokeDevice},
    },
};

use crate::{
    client::Client,
    driver::{self, Job},
    error::Error,
    identity::Enrolment,
    net::{ask_as, unreadable},
    store::random_secret,
};

/// How often it is asked whether the other device is there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the other device is given: by typing, or as a QR code.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkCode {
    /// The code: [`Client::enroll`] takes it. Whoever sees it can become a device of this account until it expires.
    pub code: String,
    /// Until when.
    pub expires_at: Timestamp,
    /// The devices that the account has without the one to come; of a personal account no registrar knows them.
    known: Option<Vec<DeviceId>>,
}

impl core::fmt::Debug for LinkCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LinkCode").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// A device of the own account, as the registrar lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// Its id.
    pub device: DeviceId,
    /// What the account calls it; may be empty.
    pub label: String,
    /// Whether it is this one.
    pub own: bool,
    /// Whether this device has been told of it; if not, it is the user's or an intruder.
    pub known: bool,
    /// When it was enrolled.
    pub enrolled_at: Timestamp,
    /// Until when its newest certificate is valid.
    pub not_after: Timestamp,
    /// Since when it is cut off.
    pub revoked_at: Option<Timestamp>,
}

impl Client {
    /// Asks for a code with which another device becomes one of this account, for ten minutes. An earlier code that was
    /// not used is not good any more. Of a personal account the other device gets the root, sealed under the code, and can
    /// do from then on what this one can.
    ///
    /// # Errors
    /// `NotEnrolled`; `Offline`; `Refused`, with `DeviceLimit` if the account has as many devices as it may.
    pub async fn link_code(&self) -> Result<LinkCode, Error> {
        let enrolment = self.enrolment().await?;
        let secret = random_secret()?;
        let (kind, request, known) = match enrolment.identity()?.authority {
            Authority::Tenant(_) => {
                let listed = self.listed(&enrolment, &Frame::ListDevices(ListDevices)).await?;
                let link = Link { secret_hash: Ticket::secret_hash(&secret) };
                let known = listed.iter().map(|device| device.device).collect();
                (TicketKind::Account, Frame::Link(link), Some(known))
            }
            Authority::Personal => {
                let sealed = link::seal(&secret, &enrolment.keys.account_root()?)
                    .map_err(|error| Error::Internal(error.to_string()))?;
                (TicketKind::Link, Frame::Deposit(Deposit { id: link::deposit_id(&secret), sealed }), None)
            }
        };
        let Frame::Linkable(linkable) = self.ask_registrar(&enrolment, &request).await? else {
            return Err(unreadable());
        };
        let Place { addresses, pin } = enrolment.registrar;
        let ticket = Ticket { kind, addresses, server: pin, tenant: enrolment.tenant, secret };
        Ok(LinkCode { code: ticket.to_string(), expires_at: linkable.expires_at, known })
    }

    /// Waits until another device has used the code, and returns it; cancel safe. It is known to this device from then on. Its
    /// KeyPackages may take a moment more: [`Client::add_own_devices`] follows.
    ///
    /// # Errors
    /// `Refused` with `TicketRefused` when the code has expired unused; as [`Client::devices`].
    pub async fn linked(&self, code: &LinkCode) -> Result<Device, Error> {
        let known = code.known.clone().unwrap_or_default();
        loop {
            let found = self.devices().await;
            match found {
                Ok(devices) => {
                    if let Some(mut device) = devices.into_iter().find(|device| !known.contains(&device.device)) {
                        self.acknowledge_device(device.device).await?;
                        device.known = true;
                        return Ok(device);
                    }
                }
                Err(error) if !error.is_retryable() => return Err(error),
                Err(_) => {}
            }
            if driver::wall_clock() > code.expires_at {
                return Err(Error::Refused(chancery_protocol::error::Refusal::TicketRefused));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Adds all devices of the own account to every group that this device is in, and returns in how many groups. Where
    /// all are members already nothing is done.
    ///
    /// # Errors
    /// As [`Client::invite`]; `NotAllowed` also if it is about a device that this one does not know
    /// ([`Client::acknowledge_device`]), or that the organisation's directory does not show yet, which it does within a second
    /// of its enrolment: try again.
    pub async fn add_own_devices(&self) -> Result<usize, Error> {
        let own = self.identity().ok_or(Error::NotEnrolled)?.account;
        let groups = self.groups().await?;
        let active: Vec<_> = groups.into_iter().filter(|group| group.status == GroupStatus::Active).collect();
        for group in &active {
            self.command_at_relay(Command::Invite { group: group.group, account: own }).await?;
        }
        Ok(active.len())
    }

    /// The devices of the own account, the oldest first, revoked ones included.
    ///
    /// # Errors
    /// `NotEnrolled`; `NotAllowed` for a personal account, of whose devices no registrar knows; `Offline`, `Refused`.
    pub async fn devices(&self) -> Result<Vec<Device>, Error> {
        let enrolment = self.tenant_enrolment().await?;
        self.listed(&enrolment, &Frame::ListDevices(ListDevices)).await
    }

    /// Cuts another device of the own account off, at once and for good, and returns what is listed then. It reads
    /// nothing more, and members remove it from their groups.
    ///
    /// # Errors
    /// As [`Client::devices`]; `Refused` with `UnknownDevice` for a device of another account, and for this one.
    pub async fn revoke_device(&self, device: DeviceId) -> Result<Vec<Device>, Error> {
        let enrolment = self.tenant_enrolment().await?;
        self.listed(&enrolment, &Frame::RevokeDevice(RevokeDevice { device })).await
    }

    /// Says what the own account calls one of its devices (at most 64 bytes), and returns what is listed then.
    ///
    /// # Errors
    /// As [`Client::devices`]; `Refused` with `UnknownDevice`, `TooLarge` or `Malformed`.
    pub async fn rename_device(&self, device: DeviceId, label: &str) -> Result<Vec<Device>, Error> {
        let enrolment = self.tenant_enrolment().await?;
        let label = label.to_owned();
        self.listed(&enrolment, &Frame::RenameDevice(RenameDevice { device, label })).await
    }

    async fn listed(&self, enrolment: &Enrolment, request: &Frame) -> Result<Vec<Device>, Error> {
        let own = enrolment.identity()?.device;
        let answer = self.ask_registrar(enrolment, request).await?;
        let unknown = self.directory().await?.map(|directory| directory.unknown_devices).unwrap_or_default();
        let device = |listed: &ListedDevice| Device {
            device: listed.device,
            label: listed.label.clone(),
            own: listed.device == own,
            known: !unknown.contains(&listed.device),
            enrolled_at: listed.enrolled_at,
            not_after: listed.not_after,
            revoked_at: listed.revoked_at,
        };
        Ok(list(&answer)?.iter().map(device).collect())
    }

    async fn ask_registrar(&self, enrolment: &Enrolment, request: &Frame) -> Result<Frame, Error> {
        ask_as(enrolment, request, self.config().connect_timeout).await
    }

    async fn enrolment(&self) -> Result<Enrolment, Error> {
        self.ask(Job::Enrolment).await?.ok_or(Error::NotEnrolled)
    }

    async fn tenant_enrolment(&self) -> Result<Enrolment, Error> {
        let enrolment = self.enrolment().await?;
        match enrolment.identity()?.authority {
            Authority::Tenant(_) => Ok(enrolment),
            Authority::Personal => Err(Error::NotAllowed(
                "nobody but its own devices knows the devices of a personal account: look at the members of a group"
                    .to_owned(),
            )),
        }
    }
}

fn list(answer: &Frame) -> Result<&[ListedDevice], Error> {
    match answer {
        Frame::Devices(devices) => Ok(&devices.devices),
        _ => Err(unreadable()),
    }
}
