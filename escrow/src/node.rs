//! A running escrow node: the SDK's driver around the escrow machine, and the folder that both live in.
//!
//! This module does not seal or judge; the machine in `chancery-protocol` does. It reads what the machine has stored.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use chancery_client::{
    Client, Config, ConnectionState, Error, FileKey, Identity, KeyProvider as _, Role,
    machine::{Apart, CLIENT_SPACES, Input, Machine, Output, Row, Space},
};
use chancery_protocol::{
    capture::{
        EscrowMachine,
        group::{Place, SegmentRecord},
        log::{CHECKPOINT, EDGE, public_key},
        office::{CASE, CaseRecord},
    },
    client::ClientFault,
    escrow::{DayReport, Scope, ScopeHeader, retention::Period},
    identity::{Chain, DeviceKey},
    ids::{GroupId, OpeningHash, SegmentId},
    mls::policy::{endpoint_pin, escrow_key_hash},
    time::Timestamp,
    wire::{decode_exact, encode},
};
use serde::{Deserialize, Serialize};

use crate::intake;

/// File name of the key under which the node's state is sealed at rest.
pub(crate) const HOST_KEY: &str = "host.key";
/// File name of the key of the endpoint.
pub(crate) const ENDPOINT_KEY: &str = "endpoint.key";
/// Silence after which the relay is asked whether it is there, and the longest pause between two attempts to connect.
const PROBE_AFTER: Duration = Duration::from_secs(2);
/// Rows that are read at once.
const PAGE: usize = 1_000;

/// The escrow machine, as the SDK's driver takes it.
pub struct NodeMachine(EscrowMachine);

impl Machine for NodeMachine {
    const SPACES: &[Space] = &[
        Space::Device,
        Space::Mls,
        Space::Group,
        Space::Chain,
        Space::Outbox,
        Space::Intent,
        Space::Epoch,
        Space::Directory,
        Space::Partner,
        Space::Archived,
        Space::Archive,
        Space::ArchiveGroup,
        Space::Segment,
        Space::Office,
    ];

    fn open(key: DeviceKey, chain: Chain, rows: Vec<Row>, seed: [u8; 32], now: Timestamp) -> Result<Self, ClientFault> {
        EscrowMachine::open(key, chain, rows, seed, now).map(Self)
    }

    fn handle(&mut self, input: Input, now: Timestamp) {
        self.0.handle(input, now);
        self.log();
    }

    fn poll(&mut self) -> Option<Output> {
        self.0.poll()
    }

    fn renew(&mut self, chain: Chain, now: Timestamp) -> Result<(), ClientFault> {
        self.0.renew(chain, now)
    }

    fn next_timeout(&self) -> Option<Timestamp> {
        self.0.next_timeout()
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.0.handle_timeout(now);
        self.log();
    }

    fn submit(&mut self, handed_in: &[u8], now: Timestamp) -> Vec<u8> {
        encode(&intake::submit(&mut self.0, handed_in, now))
    }

    fn apart(dir: &Path) -> std::io::Result<Option<Box<dyn Apart>>> {
        Ok(Some(Box::new(intake::retention::Folder::open(dir)?)))
    }
}

impl NodeMachine {
    /// What operators are told; without names, titles and texts.
    fn log(&mut self) {
        for event in self.0.take_events() {
            match event {
                chancery_client::Event::Alarm { group, kind, .. } => {
                    tracing::warn!(%group, kind = kind.word(), "alarm");
                }
                chancery_client::Event::InvitationRefused { reason } => {
                    tracing::warn!(reason, "an invitation was refused");
                }
                chancery_client::Event::Joined { group, .. } => tracing::info!(%group, "joined"),
                chancery_client::Event::Removed { group } => tracing::warn!(%group, "removed from a group"),
                _ => {}
            }
        }
    }
}

// The spaces of the client must all be among those above.
const _: () = assert!(CLIENT_SPACES.len() + 4 == NodeMachine::SPACES.len());

/// An escrow node on its folder.
pub struct Node {
    client: Client,
    dir: PathBuf,
}

impl core::fmt::Debug for Node {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Node").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// How a node stands. It names no group's title and nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether the relay has accepted it.
    pub online: bool,
    /// Why not, if not.
    pub offline: Option<String>,
    /// Groups that it archives.
    pub groups: usize,
    /// Of those, groups that it cannot read on.
    pub stuck: usize,
    /// Entries of groups that are not in the archive, by the reason in words.
    pub missing: BTreeMap<String, u64>,
    /// Segments of the archive.
    pub segments: usize,
    /// Segments whose key is still in memory.
    pub open_segments: usize,
    /// Records that are sealed.
    pub records: u64,
    /// Entries of the archive's log under the newest checkpoint.
    pub log_size: u64,
    /// Openings of which the people concerned were not told yet, as far as the log says, by the hash of the request, and by
    /// when they are to be told. (opening.intake.2)
    pub to_tell: BTreeMap<String, Timestamp>,
    /// When the newest segment was sealed that is there for drills. (opening.drill.1)
    pub drilled_at: Option<Timestamp>,
}

/// What an escrow policy says of a node, but where members reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The account.
    pub account: String,
    /// SHA-256 over the SPKI of its device key.
    pub key: String,
    /// The same of the TLS key of its endpoint.
    pub pin: String,
    /// The key that signs checkpoints of the archive's log.
    pub log_key: String,
}

/// When a segment was sealed, if it is there for drills.
fn canary(segment: &SegmentRecord) -> Option<Timestamp> {
    Scope::from_bytes(&segment.scope)?.is_canary().then_some(segment.opened_at)
}

impl Node {
    /// Makes the folder if it is missing, opens it, and connects if the node is enrolled. Call it within a Tokio runtime.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub async fn open(dir: &Path) -> Result<Self, Error> {
        let key = FileKey::create_or_open(dir.join(HOST_KEY)).map_err(|error| Error::KeyUnavailable(error.0))?;
        let mut config = Config::new(dir);
        // It saves no battery, and members may have to wait for it: a dead relay is noticed soon.
        config.probe_after = PROBE_AFTER;
        config.backoff_max = PROBE_AFTER;
        let client = Client::open_machine::<NodeMachine>(config, key).await?;
        Ok(Self { client, dir: dir.to_owned() })
    }

    /// Redeems a ticket for an account of role escrow.
    ///
    /// # Errors
    /// As [`Client::enroll`]; `NotAllowed` if the account is not for an escrow node: its folder cannot be used then.
    pub async fn enrol(&self, ticket: &str) -> Result<Identity, Error> {
        let identity = self.client.enroll(ticket).await?;
        if identity.role != Role::Escrow {
            return Err(Error::NotAllowed(
                "the ticket is for a person or a program: add an account with `--role escrow` and use another folder"
                    .to_owned(),
            ));
        }
        Ok(identity)
    }

    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.client.identity()
    }

    /// The SDK's client that drives the machine.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Stops it. Segments that are open are closed at the next start: their keys are gone.
    ///
    /// # Errors
    /// As [`Client::shutdown`].
    pub async fn shutdown(self) -> Result<(), Error> {
        self.client.shutdown().await
    }

    /// All rows of a space.
    async fn rows(&self, space: Space) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Error> {
        let mut all: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        loop {
            // The first key behind the last one.
            let from = all.last().map(|(key, _)| [key.as_slice(), &[0]].concat()).unwrap_or_default();
            let page = self.client.rows(space, from, PAGE).await?;
            let done = page.len() < PAGE;
            all.extend(page);
            if done {
                return Ok(all);
            }
        }
    }

    /// The groups that are archived, and how far.
    ///
    /// # Errors
    /// `Damaged`, `Storage`, `Stopped`.
    pub async fn groups(&self) -> Result<Vec<(GroupId, Place)>, Error> {
        let damaged = || Error::Damaged("the archive of a group does not decode".to_owned());
        let rows = self.rows(Space::ArchiveGroup).await?;
        rows.iter()
            .map(|(key, value)| {
                let group = GroupId::from_slice(key).ok_or_else(damaged)?;
                decode_exact("", value).map(|place| (group, place)).map_err(|_| damaged())
            })
            .collect()
    }

    /// The segments of the archive.
    ///
    /// # Errors
    /// `Damaged`, `Storage`, `Stopped`.
    pub async fn segments(&self) -> Result<Vec<(SegmentId, SegmentRecord)>, Error> {
        let damaged = || Error::Damaged("a segment does not decode".to_owned());
        let rows = self.rows(Space::Segment).await?;
        rows.iter()
            .map(|(key, value)| {
                let id = SegmentId::from_slice(key).ok_or_else(damaged)?;
                decode_exact("", value).map(|segment| (id, segment)).map_err(|_| damaged())
            })
            .collect()
    }

    /// The header of a segment, from under its retention key.
    ///
    /// # Errors
    /// `Damaged`; `Storage` if the key is gone, as it is when the segment has expired.
    pub fn header(&self, segment: &SegmentRecord) -> Result<ScopeHeader, Error> {
        let damaged = || Error::Damaged("a segment does not decode".to_owned());
        let period = Period::of(&Scope::from_bytes(&segment.scope).ok_or_else(damaged)?);
        let folder = intake::retention::Folder::open(&self.dir).map_err(|error| Error::Storage(error.to_string()))?;
        let key = folder.key(&period).map_err(Error::Storage)?;
        let key = key.ok_or_else(|| Error::Storage(format!("the retention key of {period} is gone")))?;
        key.open(segment.header, &segment.sealed_header).ok_or_else(damaged)
    }

    /// Entries in gaps: of days that were reported, and of those that are not over. (escrow.gap.3)
    async fn missing(&self, groups: &[(GroupId, Place)]) -> Result<BTreeMap<String, u64>, Error> {
        let damaged = |_| Error::Damaged("the report of a day does not decode".to_owned());
        let mut missing = BTreeMap::new();
        let reports = self.rows(Space::Report).await?;
        let reports: Result<Vec<DayReport>, _> = reports.iter().map(|(_, row)| DayReport::from_bytes(row)).collect();
        let open = groups.iter().filter_map(|(_, place)| place.day.clone());
        for gap in reports.map_err(damaged)?.into_iter().chain(open).flat_map(|report| report.gaps) {
            *missing.entry(gap.reason.in_words().to_owned()).or_default() += gap.last.0 - gap.first.0 + 1;
        }
        Ok(missing)
    }

    /// Openings of which somebody is still to be told.
    async fn to_tell(&self) -> Result<BTreeMap<String, Timestamp>, Error> {
        let damaged = || Error::Damaged("a case does not decode".to_owned());
        let mut due = BTreeMap::new();
        for (key, value) in self.rows(Space::Office).await? {
            let Some(hash) = key.strip_prefix(&[CASE]) else { continue };
            let hash = OpeningHash::from_slice(hash).ok_or_else(damaged)?;
            let case: CaseRecord = decode_exact("", &value).map_err(|_| damaged())?;
            if let Some((at, false)) = case.notice {
                due.insert(hash.to_string(), at);
            }
        }
        Ok(due)
    }

    /// The sealed records of a segment, in order.
    ///
    /// # Errors
    /// `Damaged`, `Storage`, `Stopped`.
    pub async fn records(&self, segment: SegmentId) -> Result<Vec<Vec<u8>>, Error> {
        let mut records: Vec<Vec<u8>> = Vec::new();
        loop {
            let from = [segment.as_bytes().as_slice(), &(records.len() as u64).to_be_bytes()].concat();
            let page = self.client.rows(Space::Record, from, PAGE).await?;
            let before = records.len();
            let own = page.into_iter().take_while(|(key, _)| key.starts_with(segment.as_bytes()));
            records.extend(own.map(|(_, value)| value));
            if records.len() < before + PAGE {
                return Ok(records);
            }
        }
    }

    /// The newest checkpoint of the archive's log, as text.
    ///
    /// # Errors
    /// `Damaged`, `Storage`, `Stopped`.
    pub async fn checkpoint(&self) -> Result<Option<String>, Error> {
        let rows = self.client.rows(Space::Archive, CHECKPOINT.to_vec(), 1).await?;
        let found = rows.into_iter().find(|(key, _)| key == CHECKPOINT);
        let damaged = |_| Error::Damaged("the archive's checkpoint does not decode".to_owned());
        found.map(|(_, note)| String::from_utf8(note).map_err(damaged)).transpose()
    }

    /// The Ed25519 key that signs checkpoints of the archive's log; none before the node is enrolled.
    ///
    /// # Errors
    /// `Damaged`, `Storage`, `Stopped`.
    pub async fn log_key(&self) -> Result<Option<[u8; 32]>, Error> {
        let rows = self.client.rows(Space::Archive, EDGE.to_vec(), 1).await?;
        let damaged = || Error::Damaged("the archive's log does not decode".to_owned());
        let edge = rows.into_iter().find(|(key, _)| key == EDGE);
        edge.map(|(_, edge)| public_key(&edge).ok_or_else(damaged)).transpose()
    }

    /// How the node stands.
    ///
    /// # Errors
    /// `Damaged`, `Storage`, `Stopped`.
    pub async fn status(&self) -> Result<Status, Error> {
        let (groups, segments) = (self.groups().await?, self.segments().await?);
        let connection = self.client.connection();
        let size = |note: String| note.lines().nth(1).and_then(|line| line.parse().ok());
        Ok(Status {
            online: connection == ConnectionState::Online,
            offline: match connection {
                ConnectionState::Offline { why } => Some(why.to_string()),
                _ => None,
            },
            groups: groups.len(),
            missing: self.missing(&groups).await?,
            stuck: groups.iter().filter(|(_, place)| place.stopped.is_some()).count(),
            segments: segments.len(),
            open_segments: segments.iter().filter(|(_, segment)| segment.closed.is_none()).count(),
            records: segments.iter().map(|(_, segment)| segment.records).sum(),
            log_size: self.checkpoint().await?.and_then(size).unwrap_or(0),
            to_tell: self.to_tell().await?,
            drilled_at: segments.iter().filter_map(|(_, segment)| canary(segment)).max(),
        })
    }

    /// The key of its endpoint, which belongs to the folder from the beginning, so that a policy can name it.
    ///
    /// # Errors
    /// `KeyUnavailable`.
    pub fn endpoint_key(&self) -> Result<DeviceKey, Error> {
        let file = FileKey::create_or_open(self.dir.join(ENDPOINT_KEY));
        let seed = file.and_then(|file| file.host_key()).map_err(|error| Error::KeyUnavailable(error.0))?;
        DeviceKey::from_seed(seed).map_err(|error| Error::KeyUnavailable(error.to_string()))
    }

    /// What a policy says of this node; none before it is enrolled.
    ///
    /// # Errors
    /// `KeyUnavailable`, `Damaged`, `Storage`, `Stopped`.
    pub async fn terms(&self) -> Result<Option<Terms>, Error> {
        let (Some(identity), Some(log_key)) = (self.identity(), self.log_key().await?) else { return Ok(None) };
        Ok(Some(Terms {
            account: identity.address,
            key: escrow_key_hash(&identity.public_key).to_string(),
            pin: endpoint_pin(self.endpoint_key()?.public()).to_string(),
            log_key: data_encoding::HEXLOWER.encode(&log_key),
        }))
    }
}
