//! What comes next, and how time goes by.
//!
//! This module does not say what follows from it.

use chancery_protocol::{relay::RelayMachine, time::Timestamp};

use super::{SKEW_MAX, World, node::Machine};

/// Steps of the healing stage.
const HEAL_STEPS_MAX: usize = 40_000;
/// Steps between two operations.
const ADVANCE_STEPS_MAX: usize = 20_000;
/// How long the healing stage takes.
const HEAL_MS: u64 = 3_600_000;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Next {
    Disk,
    RelayStart,
    RelayTimer,
    Registrar(usize),
    Answer,
    Blob,
    Ending(usize),
    Wake(usize),
    Synced(usize),
    Packet,
    Timer(usize),
}

impl World {
    /// Lets time go by.
    pub fn advance(&mut self, ms: u64) {
        self.go_on(ms, ADVANCE_STEPS_MAX);
    }

    /// Ends all faults and lets everything come to rest.
    pub fn heal(&mut self) {
        self.tell("* all faults are over".to_owned());
        self.end_faults();
        self.acknowledge_all();
        self.rest(HEAL_MS);
    }

    /// Groups of which an escrow node has no record at all are added after an hour, and once more if that used what it had lost.
    pub fn await_readding(&mut self) {
        if self.evidence.lost_at.is_some() {
            self.rest(3 * HEAL_MS);
        }
    }

    /// Lets time go by, in which everything must come to rest.
    pub fn rest(&mut self, ms: u64) {
        self.go_on(ms, HEAL_STEPS_MAX);
    }

    fn go_on(&mut self, ms: u64, steps_max: usize) {
        let until = Timestamp(self.now.0 + ms);
        for _ in 0..steps_max {
            if self.broken() || !self.step(until) {
                self.now = self.now.max(until);
                return;
            }
        }
        self.restless = true;
        let what = format!("there is no end of frames and timers; the last one is {:?}", self.last);
        self.evidence.violate("comes_to_rest", what);
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
        consider(self.relay.as_ref().and_then(RelayMachine::next_timeout), Next::RelayTimer);
        for (number, desk) in self.registrars.iter().enumerate() {
            consider(desk.next(), Next::Registrar(number));
        }
        consider(self.next_answer(), Next::Answer);
        consider(self.next_blob(), Next::Blob);
        for (number, ending) in self.endings.iter().enumerate() {
            consider(Some(ending.at), Next::Ending(number));
        }
        consider(self.air.first_key_value().map(|((at, _), _)| *at), Next::Packet);
        for (who, node) in self.nodes.iter().enumerate() {
            consider(node.wake.filter(|_| !node.parted || node.machine.is_none()), Next::Wake(who));
            consider(node.busy.as_ref().map(|busy| busy.until), Next::Synced(who));
            let timer = node.machine.as_ref().filter(|_| node.busy.is_none()).and_then(Machine::next_timeout);
            consider(timer.map(|at| Timestamp((at.0 + SKEW_MAX).saturating_sub(node.skew) + 1)), Next::Timer(who));
        }
        let Some((at, what)) = next.filter(|(at, _)| *at <= until) else { return false };
        self.now = self.now.max(at);
        self.last = Some(what);
        match what {
            Next::Disk => self.transaction(),
            Next::RelayStart => self.start_relay(),
            Next::RelayTimer => self.relay_timer(),
            Next::Registrar(number) => self.registrar_due(number),
            Next::Answer => self.answer_question(),
            Next::Blob => self.answer_blob(),
            Next::Ending(number) => self.end(number),
            Next::Wake(who) => self.wake(who),
            Next::Synced(who) => self.resume(who),
            Next::Packet => self.packet(),
            Next::Timer(who) => self.client_timer(who),
        }
        true
    }
}
