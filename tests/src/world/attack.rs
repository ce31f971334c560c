//! One attack on the archive of one escrowed group: what it does, that a member who is online notices within 90 minutes, what it
//! notices, and that the archive goes on afterwards.
//!
//! This module does not carry out attacks; the world does.

use chancery_protocol::{
    client::{Command, GroupSummary, Reply},
    ids::GroupId,
    secret::Random,
};

use super::{
    Op, Outcome, Setting, Weather,
    generate::below,
    ops::{ESCROW, SECOND_ESCROW},
    system::World,
};

const NAME: &str = "attack_is_noticed";
/// Within this somebody notices.
const NOTICED_MS: u64 = 90 * 60_000;
/// How long it takes until all is as it was.
const HEALED_MS: u64 = 45 * 60_000;
/// The same once somebody has spoken.
const SPOKEN_MS: u64 = 10 * 60_000;
/// Who is in the group, the founder first, and who turns against it.
const PEOPLE: [usize; 3] = [0, 1, 2];

/// What somebody does against the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// The relay drops an entry on its way to the escrow node.
    Drop,
    /// It withholds everything from an entry on.
    Withhold,
    /// It delivers an entry twice.
    Duplicate,
    /// It delivers an entry behind the next one.
    Reorder,
    /// It delivers another entry instead of one.
    Replace,
    /// A member spoils the escrow member's path secret, and nobody else's, in a commit.
    SpoilPath,
    /// A member removes the escrow member.
    Remove,
    /// A member adds a second one.
    Double,
    /// An administrator puts another one in its place, by a policy that does not follow.
    Swap,
    /// An administrator brings an earlier policy back.
    Downgrade,
    /// The node states a head that it has not.
    StateAhead,
    /// It states another head than the log's.
    StateOther,
    /// It says that it is stuck, and is not.
    StateStuck,
}

impl Attack {
    /// All of them, with the name on the command line.
    pub const ALL: [(Self, &'static str); 13] = [
        (Self::Drop, "drop"),
        (Self::Withhold, "withhold"),
        (Self::Duplicate, "duplicate"),
        (Self::Reorder, "reorder"),
        (Self::Replace, "replace"),
        (Self::SpoilPath, "spoil-path"),
        (Self::Remove, "remove"),
        (Self::Double, "double"),
        (Self::Swap, "swap"),
        (Self::Downgrade, "downgrade"),
        (Self::StateAhead, "state-ahead"),
        (Self::StateOther, "state-other"),
        (Self::StateStuck, "state-stuck"),
    ];

    /// By its name on the command line.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(attack, _)| *attack)
    }

    /// Whether it is on an entry on its way to the escrow member.
    #[must_use]
    pub fn is_on_entries(self) -> bool {
        self.who() == "the relay" || self == Self::SpoilPath
    }

    pub(super) fn who(self) -> &'static str {
        match self {
            Self::Drop | Self::Withhold | Self::Duplicate | Self::Reorder | Self::Replace => "the relay",
            Self::StateAhead | Self::StateOther | Self::StateStuck => "the node",
            _ => "a member",
        }
    }

    fn is_members(self) -> bool {
        self.who() == "a member"
    }

    /// Whether it may come to nothing: the node is told what it has had before, or in another order, and takes each entry once.
    fn may_be_vain(self) -> bool {
        matches!(self, Self::Duplicate | Self::Reorder)
    }

    /// Whether a notice is of what was done.
    fn fits(self, notice: &str) -> bool {
        match self {
            Self::Remove | Self::Double | Self::Swap | Self::Downgrade => {
                notice.starts_with("Skipped: ") && notice.contains("mls.judge.")
            }
            Self::SpoilPath | Self::StateStuck => notice == "MemberStuck",
            Self::StateAhead => notice == "ArchiveBehind: ahead" || notice.starts_with("Alarm: "),
            Self::StateOther => notice == "Alarm: archive_differs",
            Self::Drop | Self::Withhold | Self::Duplicate | Self::Reorder | Self::Replace => {
                !notice.starts_with("Skipped")
            }
        }
    }
}

/// Carries out the attack in the world of a seed.
pub(super) fn siege(random: Random, setting: Setting, attack: Attack) -> Outcome {
    let cast = PEOPLE.into_iter().chain([ESCROW, SECOND_ESCROW]).collect();
    let mut world = World::new(random, Setting { only: Some(NAME), ..setting }, &cast);
    if let Err(what) = world.besieged(attack) {
        world.evidence.violate(NAME, what);
    }
    world.tell_groups();
    world.outcome()
}

impl World {
    fn besieged(&mut self, attack: Attack) -> Result<(), String> {
        let group = self.desk()?;
        self.evidence.sabotaged.insert((ESCROW, group));
        let weather = [Weather::Fair, Weather::Rough][below(&mut self.random, 2)];
        self.operate(&Op::Weather(weather));
        self.begin_siege(attack, group);
        // Of the node's neighbour in the tree, who alone seals to the node alone.
        let traitor = if attack == Attack::SpoilPath { PEOPLE[0] } else { PEOPLE[1 + below(&mut self.random, 2)] };
        if attack.is_members() {
            self.evidence.insiders.insert(traitor);
        }
        let after = below(&mut self.random, 4);
        let mut rest = NOTICED_MS;
        for number in 0..5 {
            if attack.is_members() && number == after {
                self.betray(traitor);
            }
            let who = PEOPLE[below(&mut self.random, PEOPLE.len())];
            let count = 1 + below(&mut self.random, 2);
            self.operate(&Op::Send(who, 0, count));
            let pause = 1 + self.random.number() % 120_000;
            self.advance(pause);
            rest -= pause;
        }
        self.advance(rest);
        self.judge_siege(attack, group, traitor)?;
        self.operate(&Op::Weather(Weather::Fair));
        self.end_siege();
        self.rest(HEALED_MS);
        self.judge_healing(group)
    }

    /// An escrowed group in which everybody has said something.
    fn desk(&mut self) -> Result<GroupId, String> {
        self.advance(200);
        let mut ops = vec![Op::FoundEscrowed(PEOPLE[0]), Op::Run(500), Op::Acknowledge(PEOPLE[0], 0)];
        for whom in &PEOPLE[1..] {
            ops.extend([Op::Invite(PEOPLE[0], 0, *whom), Op::Run(400), Op::Acknowledge(*whom, 0), Op::Run(100)]);
        }
        ops.extend([Op::SetPolicy(PEOPLE[0], 0), Op::Run(400)]);
        ops.extend(PEOPLE.map(|who| Op::Send(who, 0, 1)));
        ops.push(Op::Run(20 * 60_000));
        ops.iter().for_each(|op| self.operate(op));
        self.groups.first().copied().ok_or_else(|| "the group was not founded".to_owned())
    }

    /// Somebody has noticed, in time, and what it was; or nothing has come of it.
    fn judge_siege(&mut self, attack: Attack, group: GroupId, traitor: usize) -> Result<(), String> {
        if self.siege.as_ref().is_none_or(|siege| !siege.done)
            || (attack == Attack::SpoilPath && self.spoiled(traitor) == 0)
        {
            return Err("the attack did not take place".to_owned());
        }
        let fits = |(_, who, what): &&(_, usize, String)| *who != traitor && attack.fits(what);
        if self.noticed.iter().any(|notice| fits(&notice)) {
            return Ok(());
        }
        match self.archive_of(group) {
            Ok(()) if attack.may_be_vain() => Ok(()),
            archived => Err(format!("nobody has noticed within 90 minutes; the archive: {archived:?}")),
        }
    }

    /// The archive goes on: of the group, with a gap that it tells of, or, where members have stopped, of the one that
    /// replaces it.
    fn judge_healing(&mut self, group: GroupId) -> Result<(), String> {
        self.escrow_members()?;
        let honest: Vec<usize> = PEOPLE.into_iter().filter(|who| !self.evidence.insiders.contains(who)).collect();
        let (mut group, mut before) = (group, self.last_text);
        // What a node has stated ahead of the log may show only when somebody speaks.
        for _ in 0..2 {
            if self.is_stopped(&honest, group) {
                group = self.replace(group, honest[0])?;
            }
            self.acknowledge_all();
            before = self.last_text;
            for who in &honest {
                self.say(*who, group);
            }
            self.rest(SPOKEN_MS);
            if !self.is_stopped(&honest, group) {
                break;
            }
        }
        self.archive_of(group).map_err(|what| format!("the archive does not go on: {what}"))?;
        let texts = self.sealed_texts(group, before);
        if texts < honest.len() { Err(format!("{texts} of {} texts are sealed", honest.len())) } else { Ok(()) }
    }

    /// Whether an alarm has stopped a group for somebody, or keeps it from sending.
    fn is_stopped(&mut self, people: &[usize], group: GroupId) -> bool {
        people.iter().any(|who| {
            let seen = self.summaries(*who).unwrap_or_default();
            let differs = |one: &GroupSummary| one.archive.is_some_and(|archive| archive.differs_since.is_some());
            seen.iter().any(|one| one.group == group && (one.alarm.is_some() || differs(one)))
        })
    }

    fn replace(&mut self, group: GroupId, founder: usize) -> Result<GroupId, String> {
        let without = self.evidence.insiders.iter().map(|who| self.nodes[*who].account).collect();
        let id = self.command(founder, Command::FoundAnew { group, without });
        self.rest(60_000);
        let Some(Ok(Reply::Group(anew))) = self.done.remove(&id) else {
            return Err("the group is not founded anew".to_owned());
        };
        self.acknowledge_all();
        self.rest(600_000);
        Ok(anew)
    }
}
