//! What happens in a run, one thing after the other.
//!
//! This module does not carry it out. What makes no sense where it comes (a removal of nobody) does nothing.

use core::fmt;

use chancery_protocol::mls::Class;

use super::network::Weather;

/// What somebody is certified as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A person of the relay's organisation.
    Tenant,
    /// A person of another one, who visits.
    Visitor,
    /// A person for whom no organisation vouches.
    Personal,
    /// A service of the organisation.
    Service,
    /// An escrow node of the organisation.
    Escrow,
}

/// Who may take part, each with one device; at the end, for runs with registrars, second devices of the first three, and people
/// of another organisation; a second escrow node, which no policy names; and the second device of a visitor. A seed calls up some of them.
pub const CAST: [(&str, Kind); 18] = [
    ("ana", Kind::Tenant),
    ("李雷", Kind::Tenant),
    ("omar", Kind::Tenant),
    ("zoë", Kind::Tenant),
    ("🦊", Kind::Tenant),
    ("mila", Kind::Personal),
    ("佐藤", Kind::Personal),
    ("nils", Kind::Personal),
    ("ñandú", Kind::Personal),
    ("büro", Kind::Service),
    ("ohr", Kind::Escrow),
    ("ana's other device", Kind::Tenant),
    ("李雷's other device", Kind::Tenant),
    ("omar's other device", Kind::Tenant),
    ("bea", Kind::Visitor),
    ("陈晨", Kind::Visitor),
    ("lauscher", Kind::Escrow),
    ("bea's other device", Kind::Visitor),
];

/// Of the cast, those who are in runs without registrars.
pub(super) const ACCOUNTS: usize = 11;
/// Of the cast, the escrow node that archives where one does, and the one that no policy names.
pub(super) const ESCROW: usize = 10;
pub(super) const SECOND_ESCROW: usize = 16;
/// Of the cast, those who have second devices; and the visitor that has one.
const DOUBLES: usize = 3;
const DOUBLED_VISITOR: (usize, usize) = (14, 17);

/// The second device of one of the cast, if it has one.
pub(super) fn other_device(who: usize) -> Option<usize> {
    match who {
        _ if who < DOUBLES => Some(who + ACCOUNTS),
        _ if who == DOUBLED_VISITOR.0 => Some(DOUBLED_VISITOR.1),
        _ => None,
    }
}

/// The handle of one of the cast.
pub(super) fn handle(who: usize) -> &'static str {
    let first = match who {
        _ if who == DOUBLED_VISITOR.1 => Some(DOUBLED_VISITOR.0),
        _ => who.checked_sub(ACCOUNTS).filter(|who| *who < DOUBLES),
    };
    CAST[first.unwrap_or(who)].0
}

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

/// What an insider appends that no member can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garbage {
    /// A commit, and with it a token that only the insider knows.
    Commit,
    /// A message.
    Message,
    /// A message that claims to be of the next epoch.
    Ahead,
    /// A notice.
    Notice,
}

/// One operation. People and groups are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Founds a group.
    Create(usize, Class),
    /// Founds an escrowed group under the first policy.
    FoundEscrowed(usize),
    /// Brings the next policy into a group.
    SetPolicy(usize, usize),
    /// Acknowledges the notice of a group's policy.
    Acknowledge(usize, usize),
    /// Who, into which group, whom.
    Invite(usize, usize, usize),
    /// Who, from which group, whom.
    Remove(usize, usize, usize),
    /// Who, which group.
    Leave(usize, usize),
    /// Who, into which group, how many.
    Send(usize, usize, usize),
    /// The network is like this from now on.
    Weather(Weather),
    /// A client ends its connection, and comes back by itself.
    Cut(usize),
    /// Nothing of a client's goes through until `Heal`.
    Part(usize),
    /// It has a network again.
    Heal(usize),
    /// A client's process dies and is started again.
    CrashClient(usize, ClientCrash),
    /// A client's disk takes so many milliseconds for its next transaction.
    SlowClient(usize, u64),
    /// It says that its next transaction has failed.
    FailClient(usize),
    /// A client's disk loses the private keys by which it opens the commits of a group.
    LosePathKeys(usize, usize),
    /// Who hands a file over, in which group.
    HandOver(usize, usize),
    /// A backup of the escrow node is made.
    BackUp,
    /// Its disk is lost, and it goes on from the newest backup.
    LoseState,
    /// The relay's process dies and is started again.
    CrashRelay(RelayCrash),
    /// The relay's disk takes so many milliseconds for its next transaction.
    SlowRelay(u64),
    /// It says that its next transaction has failed.
    FailRelay,
    /// The relay's disk is full for the next transaction.
    FullDisk,
    /// An account is cut off, for good.
    Disable(usize),
    /// An insider appends what nobody can read.
    Garbage(usize, usize, Garbage),
    /// An insider, or who was one, shows all tokens of a group that it ever had, and appends with them.
    OldTokens(usize, usize),
    /// An insider appends what it once made for a group and what has no place: a commit of an epoch long past, perhaps.
    Resubmit(usize, usize),
    /// An insider whose client has no judge invites somebody.
    Smuggle(usize, usize, usize),
    /// An insider whose client has no judge removes the escrow member of a group.
    Expel(usize, usize),
    /// An accomplice shows the token of an insider's garbage, so that the relay takes it for confirmed.
    Confirm(usize, usize),
    /// The device starts, once its registrar, if it has one, has certified it.
    Enrol(usize),
    /// It certifies a device anew.
    Renew(usize),
    /// It takes a device back.
    Revoke(usize),
    /// It lets an account in again.
    Enable(usize),
    /// A client pins an organisation.
    Pin(usize, usize),
    /// It forgets it.
    Unpin(usize, usize),
    /// The process of an organisation's registrar dies, and is not there for so many milliseconds.
    CrashRegistrar(usize, u64),
    /// From now on the relay hides what the registrar says: it keeps to whom it lets in, and shows the directory as it is now to
    /// those whose bits are set.
    Hide(u32),
    /// A device starts whose certificate is in no directory: somebody has misused the key of its registrar.
    Invent(usize),
    /// From now on the registrar shows another log to those of its organisation whose bits are set: it has an entry more, and
    /// nobody goes out by it.
    Fork(u32),
    /// Milliseconds go by.
    Run(u64),
    /// Days go by.
    Absence(u64),
}

impl Op {
    /// The people whom it concerns.
    pub(super) fn people(&self) -> Vec<usize> {
        match *self {
            Self::Invite(who, _, whom) | Self::Remove(who, _, whom) | Self::Smuggle(who, _, whom) => vec![who, whom],
            Self::Create(who, _)
            | Self::FoundEscrowed(who)
            | Self::SetPolicy(who, _)
            | Self::Acknowledge(who, _)
            | Self::Expel(who, _)
            | Self::Leave(who, _)
            | Self::Send(who, ..)
            | Self::HandOver(who, _)
            | Self::Cut(who)
            | Self::Part(who)
            | Self::Heal(who)
            | Self::CrashClient(who, _)
            | Self::SlowClient(who, _)
            | Self::FailClient(who)
            | Self::LosePathKeys(who, _)
            | Self::Disable(who)
            | Self::Enrol(who)
            | Self::Invent(who)
            | Self::Renew(who)
            | Self::Revoke(who)
            | Self::Enable(who)
            | Self::Pin(who, _)
            | Self::Unpin(who, _)
            | Self::Garbage(who, ..)
            | Self::OldTokens(who, _)
            | Self::Resubmit(who, _)
            | Self::Confirm(who, _) => vec![who],
            _ => Vec::new(),
        }
    }

    /// Who by it ceases to be honest.
    pub(super) fn insider(&self) -> Option<usize> {
        match *self {
            Self::Garbage(who, ..)
            | Self::OldTokens(who, _)
            | Self::Resubmit(who, _)
            | Self::Smuggle(who, ..)
            | Self::Expel(who, _)
            | Self::Invent(who)
            | Self::Confirm(who, _) => Some(who),
            _ => None,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |who: usize| CAST.get(who).map_or("?", |(name, _)| *name);
        match *self {
            Self::Create(who, class) => write!(f, "{} founds a {class:?} group", name(who)),
            Self::FoundEscrowed(who) => write!(f, "{} founds an escrowed group", name(who)),
            Self::SetPolicy(who, group) => write!(f, "{} brings the next policy into group {group}", name(who)),
            Self::Acknowledge(who, group) => write!(f, "{} acknowledges the notice of group {group}", name(who)),
            Self::Expel(who, group) => write!(f, "{} removes the escrow member of group {group}", name(who)),
            Self::Invite(who, group, whom) => write!(f, "{} invites {} into group {group}", name(who), name(whom)),
            Self::Remove(who, group, whom) => write!(f, "{} removes {} from group {group}", name(who), name(whom)),
            Self::Leave(who, group) => write!(f, "{} leaves group {group}", name(who)),
            Self::Send(who, group, count) => write!(f, "{} sends {count} into group {group}", name(who)),
            Self::Weather(weather) => write!(f, "the network is {weather:?}"),
            Self::Cut(who) => write!(f, "{}'s connection breaks", name(who)),
            Self::Part(who) => write!(f, "{} loses the network", name(who)),
            Self::Heal(who) => write!(f, "{} has a network again", name(who)),
            Self::CrashClient(who, at) => write!(f, "{} will crash at its next effect: {at:?}", name(who)),
            Self::SlowClient(who, ms) => write!(f, "{}'s disk will take {ms} ms", name(who)),
            Self::FailClient(who) => write!(f, "{}'s disk will fail", name(who)),
            Self::LosePathKeys(who, group) => write!(f, "{} loses its private keys of group {group}", name(who)),
            Self::HandOver(who, group) => write!(f, "{} hands a file over in group {group}", name(who)),
            Self::BackUp => write!(f, "the escrow node is backed up"),
            Self::LoseState => write!(f, "the escrow node's disk is lost"),
            Self::CrashRelay(at) => write!(f, "the relay will crash at its next transaction: {at:?}"),
            Self::SlowRelay(ms) => write!(f, "the relay's disk will take {ms} ms"),
            Self::FailRelay => write!(f, "the relay's disk will fail"),
            Self::FullDisk => write!(f, "the relay's disk is full for once"),
            Self::Disable(who) => write!(f, "{} is cut off", name(who)),
            Self::Garbage(who, group, what) => write!(f, "{} puts garbage into group {group}: {what:?}", name(who)),
            Self::OldTokens(who, group) => write!(f, "{} appends with old tokens to group {group}", name(who)),
            Self::Resubmit(who, group) => write!(f, "{} appends old drafts to group {group}", name(who)),
            Self::Smuggle(who, group, whom) => {
                write!(f, "{} smuggles {} into group {group}, without a judge", name(who), name(whom))
            }
            Self::Confirm(who, group) => write!(f, "{} confirms the garbage in group {group}", name(who)),
            Self::Enrol(who) => write!(f, "{} enrols", name(who)),
            Self::Renew(who) => write!(f, "{} renews its certificate", name(who)),
            Self::Revoke(who) => write!(f, "the device of {} is revoked", name(who)),
            Self::Enable(who) => write!(f, "{} is let in again", name(who)),
            Self::Pin(who, whom) => write!(f, "{} pins organisation {whom}", name(who)),
            Self::Unpin(who, whom) => write!(f, "{} forgets organisation {whom}", name(who)),
            Self::CrashRegistrar(whose, ms) => write!(f, "the registrar of organisation {whose} crashes for {ms} ms"),
            Self::Hide(from) => write!(f, "the relay hides the directory from {from:b}"),
            Self::Invent(who) => write!(f, "{} starts, and no directory has it", name(who)),
            Self::Fork(to) => write!(f, "the registrar shows another log to {to:b}"),
            Self::Run(ms) => write!(f, "{ms} ms go by"),
            Self::Absence(days) => write!(f, "{days} days go by"),
        }
    }
}
