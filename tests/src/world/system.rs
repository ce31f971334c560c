//! The world itself: clock, relay, clients, and what happens next.
//!
//! This module does not judge what happens; it hands it to the evidence.

mod clients;
mod relay;

use std::collections::{BTreeMap, VecDeque};

use chancery_protocol::{
    client::{ClientFault, ClientMachine, Command, CommandId, Input, Reply},
    identity::{Chain, DeviceKey, Role, TenantRoot},
    ids::{AccountId, DeviceId, GroupId},
    mls::Class,
    relay::{Admission, ConnId, Input as RelayInput, OpId, RelayMachine, StoreOp},
    secret::{Random, Secret32},
    time::Timestamp,
    wire::Frame,
};

use super::{
    Bug, Op, Outcome, Setting,
    disk::{ClientDisk, RelayDisk},
    evidence::Evidence,
    network::{Conn, STREAMS, Stream, ends_with_commit},
    ops::{ClientCrash, NAMES, RelayCrash},
};

const START: u64 = 1_800_000_000_000;
const DAY: u64 = 86_400_000;
/// Clocks of clients are wrong by up to ten minutes.
const SKEW_MAX: u64 = 600_000;
/// What is in every text and group name.
pub(super) const CANARY: &str = "canary";
/// Steps of the healing stage.
const HEAL_STEPS_MAX: usize = 60_000;

pub(super) struct Node {
    pub name: &'static str,
    seed: [u8; 32],
    chain: Chain,
    pub account: AccountId,
    pub device: DeviceId,
    /// Its clock is ahead by this, less [`SKEW_MAX`].
    skew: u64,
    pub disk: ClientDisk,
    pub machine: Option<ClientMachine>,
    conn: Option<Conn>,
    parted: bool,
    /// When it starts again or connects again.
    wake: Option<Timestamp>,
    crash: Option<ClientCrash>,
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
    queue: VecDeque<(OpId, StoreOp)>,
    disk_due: Option<Timestamp>,
    admission: Admission,
    /// Connections that are gone, and when the relay notices.
    hangups: Vec<(Timestamp, ConnId)>,
    pub nodes: Vec<Node>,
    last_conn: u64,
    last_command: u64,
    last_text: u64,
    sends: BTreeMap<CommandId, u64>,
    leaving: BTreeMap<CommandId, (usize, GroupId)>,
    pub done: BTreeMap<CommandId, Result<Reply, ClientFault>>,
    pub groups: Vec<GroupId>,
    in_flight: BTreeMap<(ConnId, u32), GroupId>,
    bug: Option<Bug>,
    pub evidence: Evidence,
    story: Vec<String>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Disk,
    RelayStart,
    Hangup(usize),
    Wake(usize),
    Stream(usize, Stream),
    Timer(usize),
}

impl World {
    pub fn new(mut random: Random, Setting { bug, only }: Setting) -> Self {
        let now = Timestamp(START);
        let before = Timestamp(START - DAY);
        let root = TenantRoot::create(Secret32::new([1; 32]), before).unwrap();
        let issuing = root.issuing(Secret32::new([2; 32]), before).unwrap();
        let nodes = NAMES
            .into_iter()
            .map(|name| {
                let seed = random.bytes();
                let key = DeviceKey::from_seed(Secret32::new(seed)).unwrap();
                let device = key.device();
                let chain = issuing.certify(&name.parse().unwrap(), key.public(), Role::Human, before).unwrap();
                let skew = random.number() % (2 * SKEW_MAX);
                let machine = ClientMachine::open(key, chain.clone(), [], random.bytes(), now).unwrap();
                Node {
                    name,
                    seed,
                    chain,
                    account: machine.identity().account(),
                    device,
                    skew,
                    disk: ClientDisk::default(),
                    machine: Some(machine),
                    conn: None,
                    parted: false,
                    wake: Some(now),
                    crash: None,
                }
            })
            .collect();
        Self {
            random,
            start: now,
            now,
            relay: None,
            relay_wake: Some(now),
            relay_crash: None,
            disk: RelayDisk::new(bug),
            full: false,
            queue: VecDeque::new(),
            disk_due: None,
            admission: Admission { tenants: [issuing.root()].into(), ..Admission::default() },
            hangups: Vec::new(),
            nodes,
            last_conn: 0,
            last_command: 0,
            last_text: 0,
            sends: BTreeMap::new(),
            leaving: BTreeMap::new(),
            done: BTreeMap::new(),
            groups: Vec::new(),
            in_flight: BTreeMap::new(),
            bug,
            evidence: Evidence { only, ..Evidence::default() },
            story: Vec::new(),
        }
    }

    pub fn tell(&mut self, what: String) {
        let at = self.now.since(self.start);
        self.story.push(format!("{:>12.3} s  {what}", at.as_secs_f64()));
    }

    pub fn broken(&self) -> bool {
        !self.evidence.violations.is_empty()
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

    // --- operations ---

    pub fn operate(&mut self, op: &Op) {
        self.tell(format!("* {op}"));
        match *op {
            Op::Create(who) => {
                let name = format!("{CANARY} parlour");
                self.command(who, Command::CreateGroup { class: Class::Work, name });
            }
            Op::Invite(who, group, whom) => {
                let account = self.nodes[whom].account;
                if let Some(group) = self.groups.get(group).copied() {
                    self.command(who, Command::Invite { group, account });
                }
            }
            Op::Remove(who, group, whom) => {
                let account = self.nodes[whom].account;
                if let Some(group) = self.groups.get(group).copied() {
                    self.command(who, Command::Remove { group, account });
                }
            }
            Op::Leave(who, group) => {
                if let Some(group) = self.groups.get(group).copied() {
                    self.command(who, Command::Leave { group });
                }
            }
            Op::Send(who, group, count) => {
                let Some(group) = self.groups.get(group).copied() else { return };
                for _ in 0..count {
                    self.last_text += 1;
                    let text = format!("{CANARY} {}", self.last_text);
                    self.command(who, Command::Send { group, text });
                }
            }
            Op::Cut(who) => self.cut(who),
            Op::Part(who) => {
                self.nodes[who].parted = true;
                self.cut(who);
            }
            Op::Heal(who) => self.nodes[who].parted = false,
            Op::CrashClient(who, at) => self.nodes[who].crash = Some(at),
            Op::CrashRelay(at) => self.relay_crash = Some(at),
            Op::FullDisk => self.full = true,
            Op::Run(ms) => self.advance(ms),
            Op::Absence(days) => self.advance(days * DAY),
        }
    }

    /// Gives a command to a client, if it runs.
    pub fn command(&mut self, who: usize, command: Command) -> CommandId {
        self.last_command += 1;
        let id = CommandId(self.last_command);
        match &command {
            Command::Send { .. } => drop(self.sends.insert(id, self.last_text)),
            Command::Leave { group } => {
                self.leaving.insert(id, (who, *group));
                *self.evidence.leaves.entry((who, *group)).or_default() += 1;
            }
            _ => {}
        }
        self.input(who, Input::Command(id, command), None);
        id
    }

    // --- what comes next ---

    /// Lets time go by.
    pub fn advance(&mut self, ms: u64) {
        let until = Timestamp(self.now.0 + ms);
        while !self.broken() && self.step(until) {}
        self.now = until;
    }

    /// Ends all faults and lets everything come to rest.
    pub fn heal(&mut self, count: usize) {
        self.tell("* all faults are over".to_owned());
        self.relay_crash = None;
        self.full = false;
        for who in 0..count {
            self.nodes[who].parted = false;
            self.nodes[who].crash = None;
        }
        let until = Timestamp(self.now.0 + 3_600_000);
        for _ in 0..HEAL_STEPS_MAX {
            if self.broken() || !self.step(until) {
                break;
            }
        }
        if !self.broken() && self.step(until) {
            self.evidence.violate("comes_to_rest", "there is no end of frames and timers".to_owned());
        }
    }

    /// The next thing, if it comes before `until`.
    fn step(&mut self, until: Timestamp) -> bool {
        let mut next: Option<(Timestamp, Next)> = None;
        let mut consider = |at: Option<Timestamp>, what: Next| {
            if let Some(at) = at
                && next.is_none_or(|known| (at, what) < known)
            {
                next = Some((at, what));
            }
        };
        consider(self.disk_due, Next::Disk);
        consider(self.relay_wake, Next::RelayStart);
        for (number, (at, _)) in self.hangups.iter().enumerate() {
            consider(Some(*at), Next::Hangup(number));
        }
        for (who, node) in self.nodes.iter().enumerate() {
            consider(node.wake.filter(|_| !node.parted || node.machine.is_none()), Next::Wake(who));
            for stream in STREAMS {
                consider(node.conn.as_ref().and_then(|conn| conn.due(stream)), Next::Stream(who, stream));
            }
            let timer = node.machine.as_ref().and_then(ClientMachine::next_timeout);
            consider(timer.map(|at| Timestamp((at.0 + SKEW_MAX).saturating_sub(node.skew) + 1)), Next::Timer(who));
        }
        let Some((at, what)) = next.filter(|(at, _)| *at <= until) else { return false };
        self.now = self.now.max(at);
        match what {
            Next::Disk => self.transaction(),
            Next::RelayStart => self.start_relay(),
            Next::Hangup(number) => {
                let (_, conn) = self.hangups.remove(number);
                self.relay_input(RelayInput::Disconnected { conn });
            }
            Next::Wake(who) => self.wake(who),
            Next::Stream(who, stream) => self.arrive(who, stream),
            Next::Timer(who) => {
                let now = self.local(who);
                if let Some(machine) = &mut self.nodes[who].machine {
                    machine.handle_timeout(now);
                }
                self.drain_client(who, None);
            }
        }
        true
    }

    fn arrive(&mut self, who: usize, stream: Stream) {
        let now = self.now;
        let Some(conn) = &mut self.nodes[who].conn else { return };
        let id = conn.id;
        let packets = conn.take(stream, now);
        if stream == Stream::Up {
            for packet in packets {
                self.reach_relay(id, packet.correlation, packet.frame);
            }
            return;
        }
        let commit = packets.last().filter(|last| ends_with_commit(&last.frame)).and_then(|last| match &last.frame {
            Frame::Entries(entries) => entries.entries.last().map(|entry| (entries.group, entry.seq)),
            _ => None,
        });
        let frames = packets.into_iter().map(|packet| (packet.correlation, packet.frame)).collect();
        self.input(who, Input::Frames(frames), commit);
    }
}
