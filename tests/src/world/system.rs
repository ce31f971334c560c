//! The world itself: clock, relay, network, clients, and what they have told.
//!
//! This module does not judge what happens; it hands it to the evidence.

mod archive;
mod blobs;
mod clients;
mod directories;
mod ends;
mod misdeeds;
mod node;
mod operate;
mod registrar;
mod relay;
mod siege;
mod statements;
mod time;
mod wires;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use chancery_protocol::{
    client::{ClientFault, CommandId, Event, Input, Output, Reply},
    identity::{Chain, DeviceKey, PersonalRoot, Role, TenantRoot, certificate::At, verify_chain},
    ids::{AccountId, BlobName, DeviceId, GroupId, Seq},
    limits::GROUP_INFO_INLINE_BYTES_MAX,
    relay::{Admission, ConnId, OpId, RelayMachine, StoreFault, StoreOp, StoreReply},
    secret::{AccessToken, Random, Secret32},
    time::Timestamp,
    wire::relay::Append,
};

use super::{
    Bug, Outcome, Setting,
    disk::{ClientDisk, RelayDisk, Rows},
    evidence::Evidence,
    network::{Conn, Packet, Weather},
    ops::{ACCOUNTS, CAST, ClientCrash, ESCROW, Kind, RelayCrash, SECOND_ESCROW, handle},
};

pub(super) use self::archive::Opened;
pub(super) use self::registrar::{ABROAD, HOME, NOTICED_MS, Out};
use self::{
    archive::Archive,
    node::Machine,
    registrar::Registrar,
    siege::{Notice, Siege, Watch},
    statements::Question,
};

/// When every run begins.
pub(super) const START: u64 = 1_800_000_000_000;
const DAY: u64 = 86_400_000;
/// Connections that the devices of the other organisation may hold.
const VISITORS_MAX: u32 = 100;
/// Clocks of clients are wrong by up to ten minutes.
const SKEW_MAX: u64 = 600_000;
/// What is in every text and group name.
pub(super) const CANARY: &str = "canary";

/// The place of a commit that is being read.
type Commit = Option<(GroupId, Seq)>;

/// What waits until a client's disk has done its work.
struct Busy {
    until: Timestamp,
    rest: VecDeque<Output>,
    commit: Commit,
    crash: Option<ClientCrash>,
}

/// How a disk treats its next transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Well,
    /// It takes so many milliseconds.
    Slow(u64),
    /// It says that it has failed.
    Failing,
}

pub(super) struct Node {
    pub name: &'static str,
    pub kind: Kind,
    seed: [u8; 32],
    chain: Chain,
    pub account: AccountId,
    pub device: DeviceId,
    /// Its clock is ahead by this, less [`SKEW_MAX`].
    skew: u64,
    pub disk: ClientDisk,
    mood: Mood,
    pub machine: Option<Machine>,
    /// What an escrow node tells once its rows are durable.
    told: Vec<Event>,
    /// What its crypto shows, and is told to do.
    watch: Arc<Watch>,
    /// The connection that stands.
    pub conn: Option<ConnId>,
    /// The connection that the machine knows of.
    session: Option<ConnId>,
    busy: Option<Busy>,
    /// What has happened while the disk was busy.
    inbox: VecDeque<(Input, Commit, Option<ConnId>)>,
    parted: bool,
    /// When something last kept it from relay and registrar.
    trouble_at: Timestamp,
    /// When it starts again or connects again.
    wake: Option<Timestamp>,
    crash: Option<ClientCrash>,
    /// Its client looks at no rule.
    lawless: bool,
    /// What a modified client keeps: the tokens that it ever showed, and the appends that it ever made.
    tokens: Vec<(GroupId, AccessToken)>,
    drafts: Vec<Append>,
}

impl Node {
    fn new(
        name: &'static str,
        kind: Kind,
        seed: [u8; 32],
        chain: Chain,
        disk: ClientDisk,
        skew: u64,
        wake: Option<Timestamp>,
    ) -> Self {
        let identity = verify_chain(&chain, At::NotBefore).unwrap();
        Self {
            name,
            kind,
            seed,
            chain,
            account: identity.account(),
            device: identity.device(),
            skew,
            disk,
            mood: Mood::Well,
            machine: None,
            told: Vec::new(),
            watch: Arc::default(),
            conn: None,
            session: None,
            busy: None,
            inbox: VecDeque::new(),
            parted: false,
            trouble_at: Timestamp(START),
            wake,
            crash: None,
            lawless: false,
            tokens: Vec::new(),
            drafts: Vec::new(),
        }
    }
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Relay,
}

/// One end of a connection notices that it is over.
struct Ending {
    at: Timestamp,
    side: Side,
    conn: ConnId,
    /// It does not if the network comes back before.
    by_silence: bool,
}

/// A transaction of the relay that is on its way to the disk.
struct Writing {
    ids: Vec<OpId>,
    replies: Vec<Result<StoreReply, StoreFault>>,
    crash: Option<RelayCrash>,
}

pub(super) struct World {
    pub random: Random,
    start: Timestamp,
    pub now: Timestamp,
    relay: Option<RelayMachine>,
    relay_wake: Option<Timestamp>,
    relay_crash: Option<RelayCrash>,
    pub disk: RelayDisk,
    full: bool,
    mood: Mood,
    queue: VecDeque<(OpId, StoreOp)>,
    writing: Option<Writing>,
    disk_due: Option<Timestamp>,
    admission: Admission,
    weather: Weather,
    conns: BTreeMap<ConnId, Conn>,
    endings: Vec<Ending>,
    /// Packets on their way, by when they arrive; the number makes the order of the others plain.
    air: BTreeMap<(Timestamp, u64), Packet>,
    last_packet: u64,
    pub nodes: Vec<Node>,
    last_conn: u64,
    last_command: u64,
    pub last_text: u64,
    sends: BTreeMap<CommandId, (u64, GroupId)>,
    /// Whether what is sent is to show that groups live.
    pub probing: bool,
    leaving: BTreeMap<CommandId, (usize, GroupId)>,
    pub done: BTreeMap<CommandId, Result<Reply, ClientFault>>,
    pub groups: Vec<GroupId>,
    /// Tokens of garbage commits, which no member has.
    loot: Vec<(GroupId, AccessToken)>,
    last_injected: u32,
    /// The newest store operation of the relay that runs.
    last_op: OpId,
    in_flight: BTreeMap<(ConnId, u32), GroupId>,
    bug: Option<Bug>,
    pub evidence: Evidence,
    /// In runs with them: of the relay's organisation, and of another one.
    pub registrars: Vec<Registrar>,
    /// In runs with an escrow node.
    pub archive: Option<Archive>,
    questions: Vec<Question>,
    /// Of the relay, by their names, and what is asked of it.
    blobs: BTreeMap<BlobName, Vec<u8>>,
    blob_requests: Vec<blobs::Request>,
    /// From how many bytes on trees stand as blobs.
    inline_max: usize,
    /// The newest backup of the escrow node.
    backup: Option<Rows>,
    /// What is done against it.
    pub siege: Option<Siege>,
    pub noticed: Vec<Notice>,
    /// When something last kept the relay from anybody.
    trouble_at: Timestamp,
    /// There was no end of frames and timers: nothing more can be learnt.
    restless: bool,
    /// What came last.
    last: Option<time::Next>,
    story: Vec<String>,
}

impl World {
    /// A world in which those of the cast are awake.
    pub fn new(
        mut random: Random,
        Setting { bug, only, identity, escrow, attack, .. }: Setting,
        cast: &BTreeSet<usize>,
    ) -> Self {
        let now = Timestamp(START);
        let before = Timestamp(START - DAY);
        let root = TenantRoot::create(Secret32::new([1; 32]), before).unwrap();
        let issuing = root.issuing(Secret32::new([2; 32]), before).unwrap();
        let mut admission = Admission { tenants: [issuing.root()].into(), ..Admission::default() };
        let registrars: Vec<Registrar> =
            (0..2).filter(|_| identity).map(|number| Registrar::new(number, before, now)).collect();
        admission.partners.extend(registrars.get(ABROAD).map(|desk| (desk.organisation.root, VISITORS_MAX)));
        let mut nodes: Vec<Node> = CAST
            .into_iter()
            .take(match (identity, escrow) {
                (true, _) => CAST.len(),
                (_, true) => SECOND_ESCROW + 1,
                _ => ACCOUNTS,
            })
            .enumerate()
            .map(|(who, (name, kind))| {
                let seed = random.bytes();
                let key = DeviceKey::from_seed(Secret32::new(seed)).unwrap();
                let role = match kind {
                    Kind::Tenant | Kind::Visitor | Kind::Personal => Role::Human,
                    Kind::Service => Role::Service,
                    Kind::Escrow => Role::Escrow,
                };
                let chain = if kind == Kind::Personal {
                    let root = PersonalRoot::create(Secret32::new(random.bytes()), before).unwrap();
                    admission.personal.insert(root.hash());
                    root.certify(key.public(), before).unwrap()
                } else if let Some(desk) = registrars.get(if kind == Kind::Visitor { ABROAD } else { HOME }) {
                    desk.certify(who, key.public(), before)
                } else {
                    issuing.certify(&handle(who).parse().unwrap(), key.public(), role, before).unwrap()
                };
                let skew = random.number() % (2 * SKEW_MAX);
                // Where there is a registrar, people start when they enrol.
                let wake = (cast.contains(&who) && !identity).then_some(now);
                Node::new(name, kind, seed, chain, ClientDisk::new(bug), skew, wake)
            })
            .collect();
        // An attack is on its group alone: what is founded for it has its people at the moments that it counts on.
        let has_blobs = escrow && attack.is_none() && random.number().is_multiple_of(2);
        let inline_max = if has_blobs { 0 } else { GROUP_INFO_INLINE_BYTES_MAX };
        let certified = |who: usize| verify_chain(&nodes[who].chain, At::NotBefore).unwrap();
        let archive = escrow.then(|| Archive::new(ESCROW, &certified(ESCROW), &certified(SECOND_ESCROW)));
        if let Some(archive) = &archive {
            nodes[ESCROW].disk.write_through(vec![archive.born.clone()]);
        }
        Self {
            random,
            start: now,
            now,
            relay: None,
            relay_wake: Some(now),
            relay_crash: None,
            disk: RelayDisk::new(bug),
            full: false,
            mood: Mood::Well,
            queue: VecDeque::new(),
            writing: None,
            disk_due: None,
            admission,
            weather: Weather::Fair,
            conns: BTreeMap::new(),
            endings: Vec::new(),
            air: BTreeMap::new(),
            last_packet: 0,
            nodes,
            last_conn: 0,
            last_command: 0,
            last_text: 0,
            sends: BTreeMap::new(),
            probing: false,
            leaving: BTreeMap::new(),
            done: BTreeMap::new(),
            groups: Vec::new(),
            loot: Vec::new(),
            last_injected: 0,
            last_op: OpId(0),
            in_flight: BTreeMap::new(),
            bug,
            evidence: Evidence { only, ..Evidence::default() },
            registrars,
            archive,
            questions: Vec::new(),
            blobs: BTreeMap::new(),
            blob_requests: Vec::new(),
            inline_max,
            backup: None,
            siege: None,
            noticed: Vec::new(),
            trouble_at: now,
            restless: false,
            last: None,
            story: Vec::new(),
        }
    }

    pub fn tell(&mut self, what: String) {
        let at = self.now.since(self.start);
        self.story.push(format!("{:>12.3} s  {what}", at.as_secs_f64()));
    }

    pub fn broken(&self) -> bool {
        self.restless || !self.evidence.violations.is_empty()
    }

    pub fn outcome(mut self) -> Outcome {
        let violation = self.evidence.violations.first().cloned();
        if let Some(violation) = &violation {
            self.tell(violation.to_string());
        }
        Outcome { story: self.story, entries: self.disk.placed.len(), violation }
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.random.number().is_multiple_of(one_in)
    }

    fn soon(&mut self, within: u64) -> Timestamp {
        Timestamp(self.now.0 + self.random.number() % within)
    }

    fn local(&self, who: usize) -> Timestamp {
        Timestamp(self.now.0 + self.nodes[who].skew - SKEW_MAX)
    }
}
