//! What happens in a run: operations, drawn from the seed before the run begins, so that some can be left out of it.
//!
//! This module does not carry them out. One that makes no sense where it comes (a removal of nobody) does nothing.

use core::fmt;

use chancery_protocol::secret::Random;

/// Devices in a run, each of an account of its own.
pub const NAMES: [&str; 5] = ["ana", "李雷", "omar", "zoë", "🦊"];

/// Where a client's process dies: at its next effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCrash {
    /// Before it writes rows.
    Unwritten,
    /// Written, not synced.
    Unsynced,
    /// Synced, nothing sent.
    Unsent,
}

/// Where the relay dies: at its next store transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayCrash {
    /// Applied, not synced.
    Unsynced,
    /// Synced, nobody was told.
    Untold,
}

/// One operation. People and groups are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Founds a group.
    Create(usize),
    /// Who, into which group, whom.
    Invite(usize, usize, usize),
    /// Who, from which group, whom.
    Remove(usize, usize, usize),
    /// Who, which group.
    Leave(usize, usize),
    /// Who, into which group, how many.
    Send(usize, usize, usize),
    /// A connection breaks; the client comes back by itself.
    Cut(usize),
    /// A client has no network until `Heal`.
    Part(usize),
    /// It has one again.
    Heal(usize),
    /// A client's process dies and is started again.
    CrashClient(usize, ClientCrash),
    /// The relay's process dies and is started again.
    CrashRelay(RelayCrash),
    /// The relay's disk is full for the next transaction.
    FullDisk,
    /// Milliseconds go by.
    Run(u64),
    /// Days go by.
    Absence(u64),
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |who: usize| NAMES.get(who).copied().unwrap_or("?");
        match *self {
            Self::Create(who) => write!(f, "{} founds a group", name(who)),
            Self::Invite(who, group, whom) => write!(f, "{} invites {} into group {group}", name(who), name(whom)),
            Self::Remove(who, group, whom) => write!(f, "{} removes {} from group {group}", name(who), name(whom)),
            Self::Leave(who, group) => write!(f, "{} leaves group {group}", name(who)),
            Self::Send(who, group, count) => write!(f, "{} sends {count} into group {group}", name(who)),
            Self::Cut(who) => write!(f, "{}'s connection breaks", name(who)),
            Self::Part(who) => write!(f, "{} loses the network", name(who)),
            Self::Heal(who) => write!(f, "{} has a network again", name(who)),
            Self::CrashClient(who, at) => write!(f, "{} will crash at its next effect: {at:?}", name(who)),
            Self::CrashRelay(at) => write!(f, "the relay will crash at its next transaction: {at:?}"),
            Self::FullDisk => write!(f, "the relay's disk is full for once"),
            Self::Run(ms) => write!(f, "{ms} ms go by"),
            Self::Absence(days) => write!(f, "{days} days go by"),
        }
    }
}

/// A number below `below`.
pub(super) fn below(random: &mut Random, below: usize) -> usize {
    usize::try_from(random.number() % below.max(1) as u64).unwrap_or(0)
}

/// The operations of a seed.
#[must_use]
pub fn generate(random: &mut Random) -> Vec<Op> {
    let mut ops = vec![Op::Create(0), Op::Run(300)];
    for whom in 1..4 {
        ops.extend([Op::Invite(whom - 1, 0, whom), Op::Run(300)]);
    }
    for _ in 0..40 + below(random, 80) {
        let (who, whom) = (below(random, NAMES.len()), below(random, NAMES.len()));
        let group = below(random, 8).saturating_sub(6);
        ops.push(match below(random, 40) {
            0 => Op::Create(who),
            1..=4 => Op::Invite(who, group, whom),
            5 | 6 => Op::Remove(who, group, whom),
            7 => Op::Leave(who, group),
            8..=10 => Op::Cut(who),
            11 => Op::Part(who),
            12 | 13 => Op::Heal(who),
            14 => Op::CrashClient(who, ClientCrash::Unwritten),
            15 => Op::CrashClient(who, ClientCrash::Unsynced),
            16 => Op::CrashClient(who, ClientCrash::Unsent),
            17 => Op::CrashRelay(RelayCrash::Unsynced),
            18 => Op::CrashRelay(RelayCrash::Untold),
            19 => Op::FullDisk,
            20..=27 => Op::Run(1 + random.number() % 400),
            28 => Op::Absence(1 + random.number() % 4),
            _ => Op::Send(who, group, 1 + below(random, 4)),
        });
    }
    ops
}
