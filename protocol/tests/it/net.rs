//! One relay and some clients in one process; frames are delivered in a seeded order, connections and clients can fail.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use chancery_protocol::{
    capture::{
        EscrowMachine,
        log::{EDGE, public_key},
        office::{Accepted, SubmitError},
    },
    client::{
        ArchiveQuestion, ClientMachine, Command, CommandId, Event, GroupSummary, Heard, HeardEntry, Input, Message,
        Outcome, Output, Reply, Space, message_key,
    },
    escrow::{CaptureStatement, submission::Submission},
    identity::{
        CertificateAuthority, Chain, DeviceIdentity, DeviceKey, PersonalRoot, Role, TenantRoot,
        certificate::{At, verify_chain},
        directory::{DirectoryEntry, DirectoryEvent, entry::Issued, origin},
    },
    ids::{AccountId, GroupId, RootHash, Seq},
    merkle::{LogKey, ServedLog},
    mls::{Class, Core},
    relay::{
        Admission, ConnId, DirectoryUpdate, Input as RelayInput, Lane, Output as RelayOutput, RelayMachine, RelayStore,
        StoreOp, StoreReply,
    },
    secret::{Random, Secret32},
    time::Timestamp,
    wire::{
        Blob, Direction, Frame,
        capture::StatementTold,
        decode_exact,
        envelope::{Body, Envelope},
        frame::take_frame,
        relay::{Append, EntryKind},
    },
};
use chancery_test_crypto::{Tap, TestCrypto};
use sha2::{Digest, Sha256};

use crate::store::MemoryStore;

pub type Rows = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

/// What a node runs.
#[allow(clippy::large_enum_variant, reason = "a handful of them")]
enum Machine {
    Client(ClientMachine),
    Escrow(EscrowMachine),
}

impl Machine {
    fn identity(&self) -> &DeviceIdentity {
        match self {
            Self::Client(machine) => machine.identity(),
            Self::Escrow(machine) => machine.identity(),
        }
    }

    fn handle(&mut self, input: Input, now: Timestamp) {
        match self {
            Self::Client(machine) => machine.handle(input, now),
            Self::Escrow(machine) => machine.handle(input, now),
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        match self {
            Self::Client(machine) => machine.handle_timeout(now),
            Self::Escrow(machine) => machine.handle_timeout(now),
        }
    }

    fn poll(&mut self) -> Option<Output> {
        match self {
            Self::Client(machine) => machine.poll(),
            Self::Escrow(machine) => machine.poll(),
        }
    }

    fn next_timeout(&self) -> Option<Timestamp> {
        match self {
            Self::Client(machine) => machine.next_timeout(),
            Self::Escrow(machine) => machine.next_timeout(),
        }
    }
}

pub struct Node {
    seed: [u8; 32],
    chain: Chain,
    pub account: AccountId,
    rows: Rows,
    tap: Arc<dyn Tap>,
    machine: Machine,
    /// Whether it is an escrow node.
    archives: bool,
    /// What a client heard that only listens, and what it was told.
    heard: Vec<(GroupId, Body)>,
    told: Vec<Event>,
    pub conn: Option<ConnId>,
    /// Frames on their way to this client, by lane.
    lanes: BTreeMap<Lane, VecDeque<(u32, Frame)>>,
    up: VecDeque<(u32, Frame)>,
    pub done: BTreeMap<CommandId, Result<Reply, chancery_protocol::client::ClientFault>>,
    events_read: u64,
}

pub struct Net {
    pub now: Timestamp,
    pub random: Random,
    relay: RelayMachine,
    pub store: MemoryStore,
    issuing: CertificateAuthority,
    pub admission: Admission,
    pub nodes: BTreeMap<String, Node>,
    last_conn: u64,
    last_command: u64,
    /// What a lying relay does to what it sends.
    pub tamper: Option<fn(&mut Frame)>,
    /// Every append that reached the relay.
    pub appends: Vec<Append>,
    /// Over all bytes that reached the relay.
    pub trace: Sha256,
    /// The tenant's directory, if it has one, and the key that signs it.
    pub directory: Option<(LogKey, ServedLog)>,
    /// Other organisations, by their roots.
    pub partners: BTreeMap<RootHash, crate::partners::Partner>,
    /// Whether the relay is given nothing of it.
    pub hides_directory: bool,
    /// Whether the registrar answers nobody.
    pub registrar_is_down: bool,
    /// What the relay has of blobs.
    pub blobs: crate::blobs::Blobs,
    /// How long [`Self::settle`] lets timers run.
    horizon: Duration,
    /// When a process dies: consumed by its death.
    pub crash: Option<Crash>,
    /// A device to which the relay delivers no entries.
    pub withholds_from: Option<String>,
    /// A device whose notices get lost on their way to the relay.
    pub loses_notices_of: Option<String>,
    /// Whether escrow nodes answer nobody.
    pub archive_is_silent: bool,
    /// What a lying escrow node says instead of the truth.
    pub archive_lies: Option<fn(&mut CaptureStatement)>,
    /// Questions that reached escrow nodes.
    pub questions: usize,
    /// Every append that left a process, by whom, whether it reached the relay or not.
    pub left: Vec<(String, Append)>,
}

/// A process dies between two of its effects.
#[derive(Clone, Debug)]
pub struct Crash {
    pub name: String,
    /// How many more of its effects are carried out.
    pub effects: usize,
    /// Whether what it has sent still reaches the relay.
    pub sent_arrives: bool,
}

/// A core that repeats: HPKE is seeded, too.
fn core(seed: [u8; 32], tap: &Arc<dyn Tap>) -> Core {
    Core::with_crypto(Box::new(TestCrypto::tapped(seed, tap.clone())), Random::new(seed))
}

impl Net {
    pub fn new(seed: u64) -> Self {
        Self::of(seed, None, Duration::MAX)
    }

    /// A tenant with a directory. Clients look at it for ever, so settling takes a minute at most.
    pub fn with_directory(seed: u64) -> Self {
        let key = LogKey::from_seed(&Secret32::new([9; 32])).unwrap();
        Self::of(seed, Some(key), Duration::from_secs(60))
    }

    fn of(seed: u64, log: Option<LogKey>, horizon: Duration) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let now = Timestamp(1_800_000_000_000);
        let root = TenantRoot::create(Secret32::new([1; 32]), now).unwrap();
        let issuing = match &log {
            Some(key) => root.issuing_with_log(Secret32::new([2; 32]), key.public(), now).unwrap(),
            None => root.issuing(Secret32::new([2; 32]), now).unwrap(),
        };
        let admission = Admission { tenants: [issuing.root()].into(), ..Admission::default() };
        let mut net = Self {
            now,
            random: Random::new(bytes),
            relay: RelayMachine::new(None, &Secret32::new([7; 32])),
            store: MemoryStore::default(),
            issuing,
            admission,
            nodes: BTreeMap::new(),
            last_conn: 0,
            last_command: 0,
            tamper: None,
            appends: Vec::new(),
            trace: Sha256::new(),
            directory: log.map(|key| (key, ServedLog::default())),
            partners: BTreeMap::new(),
            hides_directory: false,
            registrar_is_down: true,
            blobs: crate::blobs::Blobs::default(),
            horizon,
            crash: None,
            withholds_from: None,
            loses_notices_of: None,
            archive_is_silent: false,
            archive_lies: None,
            questions: 0,
            left: Vec::new(),
        };
        net.relay.handle(RelayInput::Admission(net.admission.clone()), now);
        net
    }

    pub fn tenant(&mut self, name: &str) {
        self.unlogged(name);
        if self.directory.is_some() {
            self.log_issued(name);
            self.show();
            self.settle();
        }
    }

    pub fn identity(&self, name: &str) -> DeviceIdentity {
        verify_chain(&self.nodes[name].chain, At::NotBefore).unwrap()
    }

    pub fn log_issued(&mut self, name: &str) {
        let device = self.identity(name);
        self.log(DirectoryEvent::CertificateIssued(Issued {
            account: device.account(),
            device: device.device(),
            certificate: device.certificate(),
            not_after: device.not_after(),
        }));
    }

    pub fn log(&mut self, event: DirectoryEvent) {
        let (_, log) = self.directory.as_mut().unwrap();
        assert!(log.append(DirectoryEntry { at: self.now, event }.to_bytes()));
    }

    /// Signs the directory, and gives the relay what it does not have.
    pub fn show(&mut self) {
        let tenant = self.issuing.root();
        let (key, log) = self.directory.as_mut().unwrap();
        let from = log.checkpoint().map_or(0, |shown| shown.size());
        let checkpoint = key.sign(&origin(tenant), log.size(), log.root(), self.now);
        assert!(log.show(checkpoint.clone()));
        let entries = log.entries_from(from).to_vec();
        if !self.hides_directory {
            let update = DirectoryUpdate { tenant, from, entries, checkpoint: Some(checkpoint) };
            self.relay.handle(RelayInput::Directory(update), self.now);
            self.drain_relay();
        }
    }

    /// The operator disables an account: the relay is told, and what is signed about it is shown.
    pub fn disable(&mut self, name: &str) {
        let account = self.account(name);
        self.admission.disabled.insert(account);
        self.relay.handle(RelayInput::Admission(self.admission.clone()), self.now);
        self.drain_relay();
        self.log(DirectoryEvent::AccountDisabled { account });
        self.show();
    }

    /// The operator lets an account in again.
    pub fn enable(&mut self, name: &str) {
        let account = self.account(name);
        self.admission.disabled.remove(&account);
        self.relay.handle(RelayInput::Admission(self.admission.clone()), self.now);
        self.log(DirectoryEvent::AccountEnabled { account });
        self.show();
    }

    /// From here on the registrar shows another history than the relay has.
    pub fn fork_directory(&mut self) {
        let tenant = self.issuing.root();
        let mut fork = ServedLog::default();
        let (key, log) = self.directory.as_mut().unwrap();
        let count = log.entries_from(0).len();
        for (at, entry) in log.entries_from(0).iter().enumerate() {
            let other = DirectoryEvent::AccountDisabled { account: AccountId([0xee; 32]) };
            let last = DirectoryEntry { at: self.now, event: other }.to_bytes();
            fork.append(if at + 1 == count { last } else { entry.clone() });
        }
        fork.show(key.sign(&origin(tenant), fork.size(), fork.root(), self.now));
        *log = fork;
    }

    /// The relay begins its copy anew with what the registrar shows.
    pub fn relay_takes_the_registrars_directory(&mut self) {
        let tenant = self.issuing.root();
        let (_, log) = self.directory.as_ref().unwrap();
        let entries = log.entries_from(0).to_vec();
        let update = DirectoryUpdate { tenant, from: 0, entries, checkpoint: log.checkpoint().cloned() };
        self.relay.handle(RelayInput::Directory(update), self.now);
        self.drain_relay();
    }

    /// Time goes by, an hour at a time.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while self.now < end {
            self.now = self.now.plus(Duration::from_secs(3_600)).min(end);
            let names: Vec<String> = self.nodes.keys().cloned().collect();
            for name in names {
                self.nodes.get_mut(&name).unwrap().machine.handle_timeout(self.now);
                self.drain_client(&name);
            }
            self.settle();
        }
    }

    /// Certified, and not in the directory.
    pub fn unlogged(&mut self, name: &str) {
        self.tapped(name, Arc::new(()));
    }

    /// A device of role escrow. Its members ask for ever how far it is, so settling takes a minute at most from here on.
    pub fn escrow(&mut self, name: &str) {
        self.horizon = self.horizon.min(Duration::from_secs(60));
        self.certified(name, Role::Escrow, Arc::new(()));
        if self.directory.is_some() {
            self.log_issued(name);
            self.show();
            self.settle();
        }
    }

    /// The same, with somebody who watches the device's crypto.
    pub fn tapped(&mut self, name: &str, tap: Arc<dyn Tap>) {
        self.certified(name, Role::Human, tap);
    }

    fn certified(&mut self, name: &str, role: Role, tap: Arc<dyn Tap>) {
        let seed = self.random.bytes();
        let key = DeviceKey::from_seed(Secret32::new(seed)).unwrap();
        // What stands behind "#" tells the devices of one account apart.
        let handle = name.split('#').next().unwrap().parse().unwrap();
        let chain = self.issuing.certify(&handle, key.public(), role, self.now).unwrap();
        self.node(name, seed, chain, tap);
    }

    /// A second device of an account, under a name of its own.
    pub fn other_device(&mut self, name: &str, of: &str) {
        let seed = self.random.bytes();
        let key = DeviceKey::from_seed(Secret32::new(seed)).unwrap();
        let role = chancery_protocol::identity::Role::Human;
        let chain = self.issuing.certify(&of.parse().unwrap(), key.public(), role, self.now).unwrap();
        self.node(name, seed, chain, Arc::new(()));
    }

    /// An escrow node, which archives.
    pub fn archive_node(&mut self, name: &str) {
        self.escrow(name);
        let node = self.nodes.get_mut(name).unwrap();
        node.archives = true;
        self.kill(name);
        self.connect(name);
        self.settle();
    }

    /// The key of an escrow node's log.
    pub fn log_key(&self, name: &str) -> [u8; 32] {
        public_key(&self.nodes[name].rows[&(Space::Archive, EDGE.to_vec())]).unwrap()
    }

    /// Hash of the tenant's root.
    pub fn tenant_root(&self) -> RootHash {
        self.issuing.root()
    }

    pub fn personal(&mut self, name: &str) {
        let seed = self.random.bytes();
        let key = DeviceKey::from_seed(Secret32::new(seed)).unwrap();
        let root = PersonalRoot::create(Secret32::new(self.random.bytes()), self.now).unwrap();
        self.admission.personal.insert(root.hash());
        let admission = self.admission.clone();
        self.relay.handle(RelayInput::Admission(admission), self.now);
        let chain = root.certify(key.public(), self.now).unwrap();
        self.node(name, seed, chain, Arc::new(()));
    }

    pub fn node(&mut self, name: &str, seed: [u8; 32], chain: Chain, tap: Arc<dyn Tap>) {
        let key = DeviceKey::from_seed(Secret32::new(seed)).unwrap();
        let client = ClientMachine::open_with(core(self.random.bytes(), &tap), key, chain.clone(), []).unwrap();
        let machine = Machine::Client(client);
        let node = Node {
            seed,
            chain,
            account: machine.identity().account(),
            rows: Rows::new(),
            tap,
            machine,
            archives: false,
            heard: Vec::new(),
            told: Vec::new(),
            conn: None,
            lanes: BTreeMap::new(),
            up: VecDeque::new(),
            done: BTreeMap::new(),
            events_read: 0,
        };
        self.nodes.insert(name.to_owned(), node);
        self.connect(name);
        self.settle();
    }

    pub fn let_in(&mut self, admission: Admission) {
        self.relay.handle(RelayInput::Admission(admission.clone()), self.now);
        self.admission = admission;
        self.drain_relay();
    }

    pub fn connect(&mut self, name: &str) {
        self.last_conn += 1;
        let conn = ConnId(self.last_conn);
        let node = self.nodes.get_mut(name).unwrap();
        node.conn = Some(conn);
        let chain = Some(node.chain.clone());
        self.input(name, Input::Connected);
        self.relay.handle(RelayInput::Connected { conn, chain }, self.now);
        self.drain_relay();
    }

    /// The connection breaks: what is on its way is lost.
    pub fn cut(&mut self, name: &str) {
        let node = self.nodes.get_mut(name).unwrap();
        let Some(conn) = node.conn.take() else { return };
        node.lanes.clear();
        node.up.clear();
        self.relay.handle(RelayInput::Disconnected { conn }, self.now);
        self.drain_relay();
        self.input(name, Input::Disconnected);
    }

    /// The process dies and is started again from its rows.
    pub fn kill(&mut self, name: &str) {
        let node = self.nodes.get_mut(name).unwrap();
        if let Some(conn) = node.conn.take() {
            node.lanes.clear();
            node.up.clear();
            self.relay.handle(RelayInput::Disconnected { conn }, self.now);
            self.drain_relay();
        }
        let seed = self.random.bytes();
        let node = self.nodes.get_mut(name).unwrap();
        let rows: Vec<_> = node
            .rows
            .iter()
            .filter(|((space, _), _)| !matches!(space, Space::Message | Space::Event | Space::Replacement))
            .map(|((space, key), value)| (*space, key.clone(), value.clone()))
            .collect();
        let key = DeviceKey::from_seed(Secret32::new(node.seed)).unwrap();
        let chain = node.chain.clone();
        node.machine = if node.archives {
            Machine::Escrow(EscrowMachine::open(key, chain, rows, seed, self.now).unwrap())
        } else {
            Machine::Client(ClientMachine::open_with(core(seed, &node.tap), key, chain, rows).unwrap())
        };
    }

    /// The process dies, its disk loses the private keys by which it opens the paths of commits, and it starts again.
    pub fn lose_path_keys(&mut self, name: &str, group: GroupId) {
        const EPOCH_KEY_PAIRS: u8 = 14;
        let node = self.nodes.get_mut(name).unwrap();
        let scope = [[0].as_slice(), group.as_bytes()].concat();
        node.rows.retain(|(space, key), _| {
            *space != Space::Mls || !key.starts_with(&scope) || key.get(33) != Some(&EPOCH_KEY_PAIRS)
        });
        self.kill(name);
        self.connect(name);
    }

    /// A copy of a device's folder is started under another name; the certificate is the same.
    pub fn copy(&mut self, name: &str, copy: &str) {
        let node = &self.nodes[name];
        let (seed, chain, rows) = (node.seed, node.chain.clone(), node.rows.clone());
        self.node(copy, seed, chain, Arc::new(()));
        self.cut(copy);
        self.nodes.get_mut(copy).unwrap().rows = rows;
        self.kill(copy);
        self.connect(copy);
    }

    /// The device's folder is another one at its next start.
    pub fn put_rows(&mut self, name: &str, rows: Rows) {
        self.nodes.get_mut(name).unwrap().rows = rows;
    }

    /// The relay deletes the entries that there are.
    pub fn expire_entries(&mut self) {
        let op = StoreOp::Expire {
            entries_before: self.now.plus(Duration::from_millis(1)),
            append_ids_before: self.now,
            traces_before: self.now,
        };
        self.store.apply(&[op], self.now).unwrap();
    }

    /// The device goes back to an older copy of its folder, which [`Self::rows`] gave.
    pub fn restore(&mut self, name: &str, rows: Rows) {
        self.cut(name);
        self.nodes.get_mut(name).unwrap().rows = rows;
        self.kill(name);
        self.connect(name);
    }

    pub fn rows(&self, name: &str) -> Rows {
        self.nodes[name].rows.clone()
    }

    pub fn command(&mut self, name: &str, command: Command) -> CommandId {
        self.last_command += 1;
        let id = CommandId(self.last_command);
        self.input(name, Input::Command(id, command));
        id
    }

    fn input(&mut self, name: &str, input: Input) {
        self.nodes.get_mut(name).unwrap().machine.handle(input, self.now);
        self.drain_client(name);
    }

    /// An officer hands something in at an escrow node.
    pub fn submit(
        &mut self,
        name: &str,
        submission: &Submission,
        requesters: &[[u8; 32]],
    ) -> Result<Accepted, SubmitError> {
        let Machine::Escrow(machine) = &mut self.nodes.get_mut(name).unwrap().machine else { panic!("{name}") };
        let accepted = machine.submit(submission, requesters, self.now);
        self.drain_client(name);
        accepted
    }

    /// Whether the process dies here, rather than carry out its next effect.
    fn crashes(&mut self, name: &str) -> bool {
        match &mut self.crash {
            Some(crash) if crash.name == name && crash.effects == 0 => true,
            Some(crash) if crash.name == name => {
                crash.effects -= 1;
                false
            }
            _ => false,
        }
    }

    fn die(&mut self, name: &str) {
        let sent_arrives = self.crash.take().is_some_and(|crash| crash.sent_arrives);
        let node = self.nodes.get_mut(name).unwrap();
        if let Some(conn) = node.conn.filter(|_| sent_arrives) {
            for (correlation, frame) in core::mem::take(&mut node.up) {
                self.relay.handle(RelayInput::Frame { conn, correlation, frame: Ok(frame) }, self.now);
            }
            self.drain_relay();
        }
        self.kill(name);
        self.connect(name);
    }

    fn drain_client(&mut self, name: &str) {
        let mut disconnect = false;
        let node = self.nodes.get_mut(name).unwrap();
        if let Machine::Client(machine) = &mut node.machine {
            let (heard, told) = machine.take_heard();
            node.told.extend(told);
            node.heard.extend(heard.into_iter().filter_map(|heard| match heard {
                Heard::Entry(HeardEntry {
                    group, outcome: Outcome::Message { envelope, repeated: false, .. }, ..
                }) => Some((group, Envelope::from_bytes(&envelope).unwrap().body)),
                _ => None,
            }));
        }
        let (mut asked, mut asked_of, mut questions, mut blobs) = (None, Vec::new(), Vec::new(), Vec::new());
        while let Some(output) = self.nodes.get_mut(name).unwrap().machine.poll() {
            if self.crashes(name) {
                return self.die(name);
            }
            let node = self.nodes.get_mut(name).unwrap();
            match output {
                Output::Persist(rows) => {
                    for row in rows {
                        let key = (row.space, row.key.clone());
                        match &row.value {
                            Some(value) => node.rows.insert(key, value.clone()),
                            None => node.rows.remove(&key),
                        };
                    }
                }
                Output::Send(correlation, frame) => {
                    if let Frame::Append(append) = &frame {
                        self.left.push((name.to_owned(), append.clone()));
                    }
                    if node.conn.is_some() {
                        node.up.push_back((correlation, frame));
                    }
                }
                Output::Done(id, outcome) => {
                    node.done.insert(id, outcome);
                }
                Output::Events | Output::Truncate => {}
                Output::StoreBlob(blob, bytes) => {
                    blobs.push(Input::BlobStored(blob.name, self.blobs.store(blob, bytes)))
                }
                Output::ReadBlob(blob) => blobs.push(Input::BlobRead(blob.name, self.blobs.read(blob))),
                Output::AskRegistrar(resource) => asked = Some(resource),
                Output::AskPartner { root, resource, .. } => asked_of.push((root, resource)),
                Output::AskArchive(question) => questions.push(question),
                Output::Disconnect { .. } => disconnect = true,
            }
        }
        for question in questions {
            let answer = self.archive_answer(&question);
            self.input(name, Input::ArchiveSaid(question.number, answer));
        }
        if disconnect {
            self.cut(name);
        }
        for input in blobs {
            self.input(name, input);
        }
        if let Some(resource) = asked {
            let shown = if self.registrar_is_down { None } else { self.directory.as_mut() };
            let bytes = shown.and_then(|(_, log)| log.read(&resource));
            self.input(name, Input::RegistrarSaid(bytes));
        }
        for (root, resource) in asked_of {
            let bytes = self.partners.get_mut(&root).and_then(|partner| partner.read(&resource));
            self.input(name, Input::PartnerSaid(root, bytes));
        }
    }

    /// What the node at an endpoint, whose first label is its name, answers.
    fn archive_answer(&mut self, question: &ArchiveQuestion) -> Option<Frame> {
        let name = question.endpoint.as_str().split('.').next().unwrap();
        let node = self.nodes.get(name).filter(|node| node.archives && !self.archive_is_silent)?;
        self.questions += 1;
        match &question.frame {
            Frame::AskStatement(ask) => {
                let row = node.rows.get(&(Space::Statement, ask.lookup.as_bytes().to_vec()));
                let key = DeviceKey::from_seed(Secret32::new(node.seed)).unwrap();
                let said = |row: &Vec<u8>| {
                    let Some(lies) = self.archive_lies else { return Blob(row.clone()) };
                    let mut told = CaptureStatement::open(row, key.public(), ask.lookup).unwrap();
                    lies(&mut told);
                    Blob(told.sign(&key))
                };
                Some(Frame::StatementTold(StatementTold { statement: row.map(said) }))
            }
            #[cfg(feature = "single-dealer")]
            Frame::AskReceipt(ask) => {
                let receipt = crate::capture::receipt(&node.rows, ask.lookup, ask.seq);
                let receipt = receipt.map(|receipt| Blob(receipt.to_bytes()));
                Some(Frame::ReceiptTold(chancery_protocol::wire::capture::ReceiptTold { receipt }))
            }
            other => panic!("{other:?}"),
        }
    }

    fn drain_relay(&mut self) {
        loop {
            let mut ops = Vec::new();
            let mut progress = false;
            while let Some(output) = self.relay.poll() {
                progress = true;
                match output {
                    RelayOutput::Store { op, request } => ops.push((op, request)),
                    RelayOutput::Send { conn, lane, bytes } => {
                        let direction = if lane == Lane::Control { Direction::ToClient } else { Direction::Delivery };
                        let (taken, len) = take_frame(direction, &bytes).unwrap().unwrap();
                        assert_eq!(len, bytes.len());
                        if let Some((name, node)) = self.nodes.iter_mut().find(|(_, node)| node.conn == Some(conn)) {
                            let mut frame = taken.frame.unwrap();
                            if matches!(frame, Frame::Entries(_)) && self.withholds_from.as_ref() == Some(name) {
                                let written = RelayInput::Written { conn, bytes: bytes.len() };
                                self.relay.handle(written, self.now);
                                continue;
                            }
                            if let Some(tamper) = self.tamper {
                                tamper(&mut frame);
                            }
                            node.lanes.entry(lane).or_default().push_back((taken.correlation, frame));
                        }
                        let written = RelayInput::Written { conn, bytes: bytes.len() };
                        self.relay.handle(written, self.now);
                    }
                    RelayOutput::Close { conn, refusal } => {
                        if let Some(node) = self.nodes.values_mut().find(|node| node.conn == Some(conn)) {
                            node.lanes.entry(Lane::Control).or_default().push_back((0, Frame::Refused(refusal)));
                        }
                    }
                }
            }
            if !ops.is_empty() {
                let requests: Vec<_> = ops.iter().map(|(_, request)| request.clone()).collect();
                let replies = self.store.apply(&requests, self.now).unwrap();
                for ((op, _), reply) in ops.into_iter().zip(replies) {
                    self.relay.handle(RelayInput::Stored { op, reply: Ok(reply) }, self.now);
                }
            }
            if !progress {
                return;
            }
        }
    }

    /// Delivers one batch somewhere; false if nothing is on its way.
    pub fn step(&mut self) -> bool {
        let mut choices: Vec<(String, Option<Lane>)> = Vec::new();
        for (name, node) in &self.nodes {
            if !node.up.is_empty() {
                choices.push((name.clone(), None));
            }
            for (lane, frames) in &node.lanes {
                if !frames.is_empty() {
                    choices.push((name.clone(), Some(*lane)));
                }
            }
        }
        if choices.is_empty() {
            return false;
        }
        let at = usize::try_from(self.random.number() % choices.len() as u64).unwrap();
        let (name, lane) = choices.swap_remove(at);
        let count = usize::try_from(1 + self.random.number() % 5).unwrap();
        let node = self.nodes.get_mut(&name).unwrap();
        match lane {
            None => {
                let conn = node.conn.unwrap();
                let take = count.min(node.up.len());
                let frames: Vec<_> = node.up.drain(..take).collect();
                for (correlation, frame) in frames {
                    self.trace.update(frame.to_bytes(correlation));
                    if let Frame::Append(append) = &frame {
                        if append.kind == EntryKind::Notice && self.loses_notices_of.as_ref() == Some(&name) {
                            continue;
                        }
                        self.appends.push(append.clone());
                    }
                    self.relay.handle(RelayInput::Frame { conn, correlation, frame: Ok(frame) }, self.now);
                }
                self.drain_relay();
            }
            Some(lane) => {
                let frames = node.lanes.get_mut(&lane).unwrap();
                let take = count.min(frames.len());
                let frames: Vec<_> = frames.drain(..take).collect();
                self.input(&name, Input::Frames(frames));
            }
        }
        true
    }

    /// Until nothing moves any more, timers included.
    pub fn settle(&mut self) {
        self.run_until(self.now.plus(self.horizon));
    }

    /// For so many milliseconds.
    pub fn run_for(&mut self, ms: u64) {
        let end = Timestamp(self.now.0 + ms);
        self.run_until(end);
        self.now = Timestamp(self.now.0.max(end.0));
    }

    fn run_until(&mut self, end: Timestamp) {
        for _ in 0..200_000 {
            if self.step() {
                continue;
            }
            let due = self.nodes.values().filter_map(|node| node.machine.next_timeout()).min();
            let Some(at) = due.filter(|at| *at <= end) else { return };
            self.now = Timestamp(self.now.0.max(at.0) + 1);
            let names: Vec<String> = self.nodes.keys().cloned().collect();
            for name in names {
                let node = self.nodes.get_mut(&name).unwrap();
                if node.machine.next_timeout().is_some_and(|at| at <= self.now) {
                    node.machine.handle_timeout(self.now);
                    self.drain_client(&name);
                }
            }
        }
        panic!("the system does not come to rest");
    }

    pub fn create(&mut self, name: &str, class: Class, title: &str) -> GroupId {
        let id = self.command(name, Command::CreateGroup { class, name: title.to_owned() });
        self.settle();
        match self.nodes[name].done.get(&id) {
            Some(Ok(Reply::Group(group))) => *group,
            other => panic!("{name} could not create {title}: {other:?}"),
        }
    }

    pub fn ok(&mut self, name: &str, command: Command) {
        let id = self.command(name, command);
        self.settle();
        let outcome = self.nodes[name].done.get(&id).unwrap_or_else(|| panic!("{name}: no answer"));
        assert!(outcome.is_ok(), "{name}: {outcome:?}");
    }

    pub fn refused(&mut self, name: &str, command: Command) -> chancery_protocol::client::ClientFault {
        let id = self.command(name, command);
        self.settle();
        self.nodes[name].done[&id].clone().unwrap_err()
    }

    /// A modified client sends a frame that its machine never made.
    pub fn inject(&mut self, name: &str, frame: Frame) {
        self.nodes.get_mut(name).unwrap().up.push_back((u32::MAX, frame));
        self.settle();
    }

    /// The same, but before anything that is on its way.
    pub fn overtake(&mut self, name: &str, frame: Frame) {
        let conn = self.nodes[name].conn.unwrap();
        self.relay.handle(RelayInput::Frame { conn, correlation: u32::MAX, frame: Ok(frame) }, self.now);
        self.drain_relay();
    }

    /// The seed of a device's key, which only a thief or the device itself has.
    pub fn device_seed(&self, name: &str) -> [u8; 32] {
        self.nodes[name].seed
    }

    /// The newest place in a group's log.
    pub fn newest(&mut self, group: GroupId) -> Seq {
        self.store.entries(group).last().unwrap().seq
    }

    /// How many commits a group's log holds.
    pub fn commits(&mut self, group: GroupId) -> usize {
        let (from, to) = (Seq(1), Seq(u64::MAX));
        let read = StoreOp::Read { group, from, to, entries_max: usize::MAX, bytes_max: usize::MAX };
        let replies = self.store.apply(&[read], self.now).unwrap();
        let [StoreReply::Entries(Ok(entries))] = replies.as_slice() else { panic!("no entries") };
        entries.iter().filter(|entry| entry.kind == EntryKind::Commit).count()
    }

    pub fn summary(&mut self, name: &str, group: GroupId) -> GroupSummary {
        let id = self.command(name, Command::Groups);
        let Some(Ok(Reply::Groups(groups))) = self.nodes[name].done.get(&id) else { panic!("no answer") };
        groups.iter().find(|summary| summary.group == group).unwrap().clone()
    }

    pub fn account(&self, name: &str) -> AccountId {
        self.nodes[name].account
    }

    pub fn invite(&mut self, name: &str, group: GroupId, other: &str) {
        let account = self.account(other);
        self.ok(name, Command::Invite { group, account });
    }

    pub fn send(&mut self, name: &str, group: GroupId, text: &str) {
        self.command(name, Command::Send { group, text: text.to_owned() });
    }

    /// History of a group at a client, in order of place.
    pub fn history(&self, name: &str, group: GroupId) -> Vec<Message> {
        let rows = &self.nodes[name].rows;
        let from = (Space::Message, message_key(group, Seq(0)));
        let to = (Space::Message, message_key(group, Seq(u64::MAX)));
        rows.range(from..=to).map(|(_, value)| decode_exact("a message", value).unwrap()).collect()
    }

    pub fn texts(&self, name: &str, group: GroupId) -> Vec<String> {
        self.history(name, group)
            .into_iter()
            .filter_map(|message| match message.body {
                Body::Text(text) => Some(text),
                _ => None,
            })
            .collect()
    }

    /// What a client heard in a group that only listens.
    pub fn heard(&self, name: &str, group: GroupId) -> Vec<Body> {
        let heard = self.nodes[name].heard.iter().filter(|(of, _)| *of == group);
        heard.map(|(_, body)| body.clone()).collect()
    }

    /// Events since the last call.
    pub fn events(&mut self, name: &str) -> Vec<Event> {
        let node = self.nodes.get_mut(name).unwrap();
        let all: Vec<(u64, Event)> = node
            .rows
            .iter()
            .filter(|((space, _), _)| *space == Space::Event)
            .map(|((_, key), value)| {
                (u64::from_be_bytes(key.as_slice().try_into().unwrap()), decode_exact("an event", value).unwrap())
            })
            .filter(|(id, _)| *id > node.events_read)
            .collect();
        node.events_read = all.last().map_or(node.events_read, |(id, _)| *id);
        let told = core::mem::take(&mut node.told);
        all.into_iter().map(|(_, event)| event).chain(told).collect()
    }
}
