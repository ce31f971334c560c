//! Who this device is, how others are addressed, and what of it is stored.
//!
//! This module does not enrol; `net::enrol` asks and `driver` stores.

use chancery_protocol::{
    client::Partner,
    identity::{
        Authority, Chain, Contact, DeviceIdentity, DeviceKey, Handle, Invitee, Organisation, PersonalRoot, Role,
        Ticket, TicketKind, certificate::At, link::AccountRoot, verify_chain,
    },
    ids::{AccountId, DeviceId, RootHash},
    secret::Secret32,
    time::Timestamp,
    wire::registrar::Place,
};
use serde::{Deserialize, Serialize};

use crate::error::Error;

const PERSONAL: &str = "personal:";

/// Who this device is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// What others type to invite this account: the handle (within the same organisation), or `personal:` and 64
    /// hexadecimal digits.
    pub address: String,
    /// The account.
    pub account: AccountId,
    /// Its handle; personal accounts have none.
    pub handle: Option<Handle>,
    /// Who vouches for the account.
    pub authority: Authority,
    /// Of a personal account: the text with a check that others verify it by, as a link or QR code.
    pub contact: Option<Contact>,
    /// Of an organisation's account: the text by which people of other organisations invite it, with its root and a check.
    pub invitee: Option<Invitee>,
    /// This device.
    pub device: DeviceId,
    /// Its Ed25519 public key.
    pub public_key: [u8; 32],
    /// What it is for.
    pub role: Role,
    /// Last moment at which the device certificate is valid.
    pub not_after: Timestamp,
}

impl Identity {
    fn of(device: &DeviceIdentity) -> Self {
        Self {
            address: match device.handle() {
                Some(handle) => handle.to_string(),
                None => format!("{PERSONAL}{}", device.account()),
            },
            account: device.account(),
            handle: device.handle().cloned(),
            authority: device.authority(),
            contact: (device.authority() == Authority::Personal).then(|| Contact(device.account())),
            invitee: device.handle().map(|handle| Invitee { root: device.root(), handle: handle.clone() }),
            device: device.device(),
            public_key: *device.public_key(),
            role: device.role(),
            not_after: device.not_after(),
        }
    }

    /// The account behind an address, as this identity sees it: with the organisations that it has pinned.
    pub(crate) fn resolve(&self, address: &str, partners: &[Partner]) -> Result<AccountId, Error> {
        if let Ok(invitee) = address.parse::<Invitee>() {
            let pinned = partners.iter().any(|partner| partner.organisation.root == invitee.root);
            if pinned || self.authority == Authority::Tenant(invitee.root) {
                return Ok(invitee.account());
            }
            return Err(Error::NotAllowed(format!(
                "{} is of an organisation with the root {}, which is not pinned here: fetch https://DOMAIN/.well-known/chancery \
                 of that organisation, and add it as a partner",
                invitee.handle, invitee.root
            )));
        }
        if let Some((handle, domain)) = address.split_once('@') {
            let partner = partners.iter().find(|partner| partner.organisation.domain.as_str() == domain);
            let partner = partner.ok_or_else(|| {
                Error::Invalid(format!(
                    "no organisation is pinned with the domain {domain:?}: fetch https://{domain}/.well-known/chancery, and \
                     add it as a partner"
                ))
            })?;
            let handle: Handle = handle.parse().map_err(|error| Error::Invalid(format!("not an address: {error}")))?;
            return Ok(handle.account(partner.organisation.root));
        }
        if let Ok(contact) = address.parse::<Contact>() {
            return Ok(contact.0);
        }
        if let Some(digits) = address.strip_prefix(PERSONAL) {
            return digits
                .parse()
                .map_err(|_| Error::Invalid(format!("{PERSONAL:?} is followed by 64 lower-case hexadecimal digits")));
        }
        let handle: Handle = address.parse().map_err(|error| Error::Invalid(format!("not an address: {error}")))?;
        match self.authority {
            Authority::Tenant(root) => Ok(handle.account(root)),
            Authority::Personal => Err(Error::Invalid(
                "a personal account belongs to no organisation and cannot look up a name there: use an address that \
                 begins with \"personal:\""
                    .to_owned(),
            )),
        }
    }
}

/// What is stored once a device is enrolled. It holds secrets.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Enrolment {
    /// Where the relay is.
    pub(crate) relay: Place,
    /// Where the registrar is: the same, or another server.
    pub(crate) registrar: Place,
    /// The organisation that runs the relay.
    pub(crate) tenant: RootHash,
    /// What that organisation says of itself, if it is not the one that has certified this device: then the relay is this
    /// one, whatever the registrar says.
    pub(crate) host: Option<Organisation>,
    /// The device's certificate.
    pub(crate) chain: Chain,
    /// The device's keys.
    pub(crate) keys: EnrolmentKeys,
}

impl Enrolment {
    /// Reads the identity out of the stored chain. Validity is the relay's and the gate's question.
    pub(crate) fn identity(&self) -> Result<Identity, Error> {
        verify_chain(&self.chain, At::NotBefore)
            .map(|device| Identity::of(&device))
            .map_err(|error| Error::Damaged(format!("the own certificate: {error}")))
    }
}

impl Enrolment {
    /// With a later certificate, if it is one of the same device.
    pub(crate) fn renewed(self, granted: Granted) -> Result<Self, Error> {
        let read = |chain: &Chain| verify_chain(chain, At::NotBefore).map_err(|error| unusable(&error.to_string()));
        let (before, after) = (read(&self.chain)?, read(&granted.chain)?);
        if !after.is_same_device(&before) {
            return Err(unusable("it is for another device"));
        }
        if after.not_after() <= before.not_after() {
            return Err(Error::NotAllowed(
                "the registrar gave no later certificate: check this device's clock".to_owned(),
            ));
        }
        // identity.enrol.2: the newest answer says where the relay is.
        let relay = granted.relay.filter(|_| self.host.is_none()).unwrap_or_else(|| match before.authority() {
            Authority::Tenant(_) if self.host.is_none() => self.registrar.clone(),
            _ => self.relay.clone(),
        });
        Ok(Self { relay, chain: granted.chain, ..self })
    }
}

/// Keys of a device, drawn and stored before a ticket is redeemed, so that the same ticket can be shown again by the
/// same device after any crash.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct EnrolmentKeys {
    pub(crate) device: Secret32,
    /// Of a personal account: its root. It signs further devices of the account.
    pub(crate) account: Option<Secret32>,
    /// When they were drawn: certificates made from them are the same each time.
    pub(crate) made_at: Timestamp,
}

impl EnrolmentKeys {
    /// Draws keys for what a ticket is good for.
    pub(crate) fn draw(
        kind: TicketKind,
        made_at: Timestamp,
        random: impl Fn() -> Result<Secret32, Error>,
    ) -> Result<Self, Error> {
        let account = match kind {
            TicketKind::Account | TicketKind::Link => None,
            TicketKind::Personal => Some(random()?),
        };
        Ok(Self { device: random()?, account, made_at })
    }

    pub(crate) fn device_key(&self) -> Result<DeviceKey, Error> {
        DeviceKey::from_seed(self.device.clone()).map_err(|error| Error::Internal(error.to_string()))
    }

    /// The root of the personal account that this device holds.
    pub(crate) fn account_root(&self) -> Result<AccountRoot, Error> {
        let seed = self.account.clone().ok_or_else(|| Error::Internal("no personal account".to_owned()))?;
        Ok(AccountRoot { seed, made_at: self.made_at })
    }

    /// The self-issued chain of a personal account, from this moment on.
    pub(crate) fn personal_chain(&self, from: Timestamp) -> Result<Chain, Error> {
        self.chain_below(self.account_root()?, from)
    }

    /// The chain of this device below the root of a personal account.
    pub(crate) fn chain_below(&self, account: AccountRoot, from: Timestamp) -> Result<Chain, Error> {
        let key = self.device_key()?;
        PersonalRoot::create(account.seed, account.made_at)
            .and_then(|root| root.certify(key.public(), from))
            .map_err(|error| Error::Internal(error.to_string()))
    }

    /// As [`Self::enrolled`], for the relay of another organisation. (identity.partner.2)
    pub(crate) fn enrolled_at(
        self,
        host: Organisation,
        ticket: &Ticket,
        granted: Granted,
        now: Timestamp,
    ) -> Result<Enrolment, Error> {
        let enrolment = self.enrolled(ticket, granted, now)?;
        Ok(Enrolment { relay: host.relay.clone(), tenant: host.root, host: Some(host), ..enrolment })
    }

    /// Turns the registrar's answer into an enrolment, if it certifies this device under the ticket's organisation.
    pub(crate) fn enrolled(mut self, ticket: &Ticket, granted: Granted, now: Timestamp) -> Result<Enrolment, Error> {
        let Granted { chain, account, relay } = granted;
        if let Some(account) = account {
            (self.account, self.made_at) = (Some(account.seed), account.made_at);
        }
        let device = verify_chain(&chain, At::Moment(now)).map_err(|error| unusable(&error.to_string()))?;
        let expected = match ticket.kind {
            TicketKind::Account => Authority::Tenant(ticket.tenant),
            TicketKind::Personal | TicketKind::Link => Authority::Personal,
        };
        if device.authority() != expected {
            return Err(unusable("it is of another organisation than the ticket"));
        }
        if device.device() != self.device_key()?.device() {
            return Err(unusable("it is for another device"));
        }
        Ok(Enrolment {
            // identity.enrol.2
            relay: relay.unwrap_or_else(|| ticket_place(ticket)),
            registrar: ticket_place(ticket),
            tenant: ticket.tenant,
            host: None,
            chain,
            keys: self,
        })
    }
}

/// What a registrar has answered.
pub(crate) struct Granted {
    /// The device's certificate.
    pub(crate) chain: Chain,
    /// The root of the personal account, if another device of it has left it.
    pub(crate) account: Option<AccountRoot>,
    /// The relay, if it is another server than the registrar.
    pub(crate) relay: Option<Place>,
}

fn ticket_place(ticket: &Ticket) -> Place {
    Place { addresses: ticket.addresses.clone(), pin: ticket.server }
}

fn unusable(why: &str) -> Error {
    Error::NotAllowed(format!(
        "the certificate that was issued cannot be used: {why}; check this device's clock, then ask for another ticket"
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use chancery_protocol::{
        identity::{CertificateAuthority, Role, TenantRoot},
        ids::SpkiPin,
    };

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn issuing(seed: u8) -> CertificateAuthority {
        let root = TenantRoot::create(Secret32::new([seed; 32]), NOW).unwrap();
        root.issuing(Secret32::new([seed + 1; 32]), NOW).unwrap()
    }

    fn granted(chain: Chain) -> Granted {
        Granted { chain, account: None, relay: None }
    }

    fn ticket(kind: TicketKind, tenant: RootHash) -> Ticket {
        Ticket {
            kind,
            addresses: vec!["127.0.0.1:1".parse().unwrap()],
            server: SpkiPin([1; 32]),
            tenant,
            secret: Secret32::new([2; 32]),
        }
    }

    fn keys(kind: TicketKind) -> EnrolmentKeys {
        EnrolmentKeys::draw(kind, NOW, || Ok(Secret32::new([3; 32]))).unwrap()
    }

    #[test]
    fn a_member_of_an_organisation_resolves_names_of_it_and_personal_addresses() {
        let issuing = issuing(10);
        let keys = keys(TicketKind::Account);
        let chain =
            issuing.certify(&"李雷".parse().unwrap(), keys.device_key().unwrap().public(), Role::Human, NOW).unwrap();
        let enrolment = keys.enrolled(&ticket(TicketKind::Account, issuing.root()), granted(chain), NOW).unwrap();
        let identity = enrolment.identity().unwrap();
        assert_eq!(identity.address, "李雷");
        assert_eq!(identity.resolve("李雷", &[]).unwrap(), identity.account);
        let handle: Handle = "محمد".parse().unwrap();
        assert_eq!(identity.resolve("محمد", &[]).unwrap(), handle.account(issuing.root()));
        assert_eq!(identity.resolve(&format!("personal:{}", AccountId([9; 32])), &[]).unwrap(), AccountId([9; 32]));
        assert_eq!(identity.resolve("personal:12", &[]).unwrap_err().code(), "invalid");
        assert_eq!(identity.resolve("two words", &[]).unwrap_err().code(), "invalid");
    }

    #[test]
    fn a_personal_account_resolves_personal_addresses_only_and_says_so() {
        let keys = keys(TicketKind::Personal);
        let chain = keys.personal_chain(NOW).unwrap();
        assert_eq!(chain, keys.personal_chain(NOW).unwrap());
        let enrolment = keys.enrolled(&ticket(TicketKind::Personal, RootHash([4; 32])), granted(chain), NOW).unwrap();
        let identity = enrolment.identity().unwrap();
        assert_eq!(identity.resolve(&identity.address, &[]).unwrap(), identity.account);
        assert!(identity.resolve("ana", &[]).unwrap_err().to_string().contains("personal account"));
    }

    #[test]
    fn a_certificate_of_another_organisation_or_device_is_refused() {
        let (ours, theirs) = (issuing(10), issuing(20));
        let key = keys(TicketKind::Account).device_key().unwrap();
        let foreign = theirs.certify(&"ana".parse().unwrap(), key.public(), Role::Human, NOW).unwrap();
        let other = ours.certify(&"ana".parse().unwrap(), issuing_key().public(), Role::Human, NOW).unwrap();
        for chain in [foreign, other, Chain(Vec::new())] {
            let ticket = ticket(TicketKind::Account, ours.root());
            let refused = keys(TicketKind::Account).enrolled(&ticket, granted(chain), NOW);
            assert_eq!(refused.err().unwrap().code(), "not_allowed");
        }
    }

    fn issuing_key() -> DeviceKey {
        DeviceKey::from_seed(Secret32::new([77; 32])).unwrap()
    }
}
