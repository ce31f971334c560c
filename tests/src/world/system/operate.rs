//! Carries out operations.
//!
//! This module does not draw them.

use chancery_protocol::{
    client::{Command, CommandId, Input},
    ids::GroupId,
    relay::Input as RelayInput,
};

use super::{
    super::{Bug, Op, network::Weather},
    CANARY, DAY, Mood, World,
};

impl World {
    pub fn operate(&mut self, op: &Op) {
        self.tell(format!("* {op}"));
        if let Some(who) = op.insider() {
            self.evidence.insiders.insert(who);
        }
        match *op {
            Op::Create(who, class) => {
                let name = format!("{CANARY} parlour");
                self.command(who, Command::CreateGroup { class, name });
            }
            Op::FoundEscrowed(who) => self.found_escrowed(who, format!("{CANARY} desk")),
            Op::SetPolicy(who, group) => self.in_group(group, |world, group| world.set_policy(who, group)),
            Op::Acknowledge(who, group) => self.in_group(group, |world, group| world.acknowledge(who, group)),
            Op::Expel(who, group) => self.in_group(group, |world, group| world.expel(who, group)),
            Op::Invite(who, group, whom) => {
                let account = self.nodes[whom].account;
                self.in_group(group, |world, group| _ = world.command(who, Command::Invite { group, account }));
            }
            Op::Remove(who, group, whom) => {
                let account = self.nodes[whom].account;
                self.in_group(group, |world, group| _ = world.command(who, Command::Remove { group, account }));
            }
            Op::Leave(who, group) => {
                self.in_group(group, |world, group| _ = world.command(who, Command::Leave { group }));
            }
            Op::Send(who, group, count) => self.in_group(group, |world, group| {
                for _ in 0..count {
                    world.say(who, group);
                }
            }),
            Op::Disable(who) if !self.registrars.is_empty() => self.disable_account(who),
            Op::Disable(who) => self.disable(who),
            Op::Enrol(who) => self.enrol(who),
            Op::Invent(who) => self.invent(who),
            Op::Fork(to) => self.fork(to),
            Op::Renew(who) => self.renew(who),
            Op::Revoke(who) => self.revoke(who),
            Op::Enable(who) => self.enable_account(who),
            Op::Pin(who, whom) => self.pin(who, whom),
            Op::Unpin(who, whom) => self.unpin(who, whom),
            Op::CrashRegistrar(whose, ms) => self.crash_registrar(whose, ms),
            Op::Hide(from) => self.hide(from),
            Op::Garbage(who, group, what) => self.in_group(group, |world, group| world.garbage(who, group, what)),
            Op::OldTokens(who, group) => self.in_group(group, |world, group| world.old_tokens(who, group)),
            Op::Resubmit(who, group) => self.in_group(group, |world, group| world.resubmit(who, group)),
            Op::Smuggle(who, group, whom) => self.in_group(group, |world, group| world.smuggle(who, group, whom)),
            Op::Confirm(who, group) => self.in_group(group, |world, group| world.confirm(who, group)),
            Op::LosePathKeys(who, group) => self.in_group(group, |world, group| world.lose_path_keys(who, group)),
            Op::HandOver(who, group) => self.in_group(group, |world, group| world.hand_over(who, group)),
            Op::BackUp => self.back_up(),
            Op::LoseState => self.lose_state(),
            Op::Weather(weather) => {
                self.weather = weather;
                self.trouble_at = self.now;
            }
            Op::Cut(who) => self.cut(who),
            Op::Part(who) => self.part(who),
            Op::Heal(who) => self.rejoin(who),
            Op::CrashClient(who, at) => self.nodes[who].crash = Some(at),
            Op::SlowClient(who, ms) => self.nodes[who].mood = Mood::Slow(ms),
            Op::FailClient(who) => self.nodes[who].mood = Mood::Failing,
            Op::CrashRelay(at) => self.relay_crash = Some(at),
            Op::SlowRelay(ms) => self.mood = Mood::Slow(ms),
            Op::FailRelay => self.mood = Mood::Failing,
            Op::FullDisk => self.full = true,
            Op::Run(ms) => self.advance(ms),
            Op::Absence(days) => self.advance(days * DAY),
        }
    }

    fn in_group(&mut self, number: usize, what: impl FnOnce(&mut Self, GroupId)) {
        if let Some(group) = self.groups.get(number).copied() {
            what(self, group);
        }
    }

    /// Sends the next text.
    pub fn say(&mut self, who: usize, group: GroupId) -> CommandId {
        self.last_text += 1;
        let text = format!("{CANARY} {}", self.last_text);
        self.evidence.said.insert(self.last_text, group);
        if self.bug == Some(Bug::CopiesToArchive)
            && let Some(other) = self.evidence.escrowed.first().copied()
        {
            self.command(who, Command::Send { group: other, text: text.clone() });
        }
        self.command(who, Command::Send { group, text })
    }

    /// From now on the relay lets an account in no more. What it has given to its store before is still done.
    fn disable(&mut self, who: usize) {
        let account = self.nodes[who].account;
        self.admission.disabled.insert(account);
        self.evidence.disabled.insert(who, self.last_op);
        if self.bug != Some(Bug::KeepsDisabled) {
            let admission = self.admission.clone();
            self.relay_input(RelayInput::Admission(admission));
        }
    }

    /// Gives a command to a client, if it runs.
    pub fn command(&mut self, who: usize, command: Command) -> CommandId {
        self.last_command += 1;
        let id = CommandId(self.last_command);
        match &command {
            Command::Send { group, .. } => drop(self.sends.insert(id, (self.last_text, *group))),
            Command::Leave { group } => {
                self.leaving.insert(id, (who, *group));
                *self.evidence.leaves.entry((who, *group)).or_default() += 1;
            }
            _ => {}
        }
        self.input(who, Input::Command(id, command), None);
        id
    }

    /// Ends all faults that an operation has begun and that no event ends.
    pub(super) fn end_faults(&mut self) {
        self.relay_crash = None;
        self.full = false;
        self.mood = Mood::Well;
        self.weather = Weather::Fair;
        self.trouble_at = self.now;
        self.registrars_are_back();
        for who in 0..self.nodes.len() {
            self.rejoin(who);
            self.nodes[who].crash = None;
            self.nodes[who].mood = Mood::Well;
        }
    }
}
