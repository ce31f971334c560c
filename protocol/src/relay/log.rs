//! The decision over one append: pure, the same in every store's transaction. `spec/relay.md#append`.
//!
//! This module does not store and does not look into messages.

use serde::{Deserialize, Serialize};

use crate::{
    error::Refusal,
    ids::{KindTag, PackageHash, Seq},
    limits::{WELCOME_BYTES_MAX, WELCOMES_MAX},
    relay::{
        store::{AppendOp, AppendedRow, OpenedRow},
        tokens::{By, TokenRow, advance, confirm},
    },
    time::Timestamp,
    wire::relay::{Appended, EntryKind, Head, WelcomeCopy},
};

/// What a relay keeps of a group, entries aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GroupRow {
    /// The newest entry.
    pub head: Head,
    /// When it was placed.
    pub received_at: Timestamp,
    /// The newest commit.
    pub newest_commit: Seq,
    /// The first entry that is left.
    pub first: Seq,
    /// What kind of account founded it.
    pub founder: KindTag,
}

/// Everything that the decision depends on, read in the same transaction.
#[derive(Clone, Copy, Debug)]
pub struct AppendContext<'a> {
    /// The group, if it exists.
    pub group: Option<&'a GroupRow>,
    /// Where this append id was placed before, if it was.
    pub known: Option<Appended>,
    /// The token that the author showed, if the group knows it.
    pub token: Option<&'a TokenRow>,
    /// With a commit: the group's tokens without a deadline.
    pub live: &'a [TokenRow],
    /// With a commit: whether the group knows the token that would begin.
    pub next_known: bool,
    /// Which of the KeyPackages that the bundle's Welcomes name are taken by the author and not used yet.
    pub taken: &'a [PackageHash],
    /// Whether the append that this one names as its predecessor has its place, or none is named.
    pub behind_placed: bool,
    /// Whether a device of the bundle has a full mailbox.
    pub mailbox_full: bool,
    /// The clock.
    pub now: Timestamp,
}

/// What to do.
#[allow(clippy::large_enum_variant, reason = "made once for each append and matched at once")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it was placed before.
    Known(Appended),
    /// Nothing: say why.
    Refuse(Refusal),
    /// Write all of this, or nothing.
    Place(Placement),
}

/// What an accepted append writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The answer, and the new entry's place.
    pub appended: Appended,
    /// The group's row from now on.
    pub group: GroupRow,
    /// With a commit: the rows of tokens that are new or changed.
    pub tokens: Vec<TokenRow>,
    /// Welcomes to put into mailboxes; their packages are used up.
    pub welcomes: Vec<WelcomeCopy>,
}

/// Decides over one append. The order of the checks is part of the protocol.
#[must_use]
pub fn decide(context: &AppendContext<'_>, op: &AppendOp) -> Decision {
    // relay.append.1: a repeated append is answered as the first one was, before anything else is looked at.
    if let Some(appended) = context.known {
        return Decision::Known(appended);
    }
    match check(context, op).and_then(|()| place(context, op)) {
        Ok(placement) => Decision::Place(placement),
        Err(refusal) => Decision::Refuse(refusal),
    }
}

fn check(context: &AppendContext<'_>, op: &AppendOp) -> Result<(), Refusal> {
    // relay.append.2: a bundle comes with a commit, and only with one.
    let bundle = match (op.kind, &op.bundle) {
        (EntryKind::Commit, Some(bundle)) => Some(bundle),
        (EntryKind::Application | EntryKind::Notice, None) => None,
        _ => return Err(Refusal::Malformed),
    };
    match (context.group, op.after) {
        // relay.append.3: the first append creates the group; it is the commit of epoch 0.
        (None, Seq(0)) if op.kind == EntryKind::Commit => {}
        (None, _) => return Err(Refusal::UnknownGroup),
        (Some(_), Seq(0)) if op.token.is_none() && op.kind == EntryKind::Commit => return Err(Refusal::GroupExists),
        (Some(group), after) => {
            // relay.append.4: the author was a member in some epoch.
            let Some(token) = context.token else {
                return Err(if op.token.is_none() { Refusal::NotOpen } else { Refusal::TokenRefused });
            };
            // relay.notice.1: who cannot follow any more has a token of the past, and no newest commit to name.
            if op.kind == EntryKind::Notice {
                return if after == Seq(0) && op.behind.is_none() { Ok(()) } else { Err(Refusal::Malformed) };
            }
            // relay.append.5: nothing is placed after a commit that its author has not seen.
            if after != group.newest_commit {
                let newest_commit = group.newest_commit;
                return Err(match op.kind {
                    EntryKind::Commit => Refusal::Conflict { newest_commit },
                    EntryKind::Application | EntryKind::Notice => Refusal::Stale { newest_commit },
                });
            }
            // relay.append.6: the token has not reached its deadline.
            if !token.has_rights(context.now) {
                return Err(Refusal::TokenRefused);
            }
        }
    }
    // relay.append.8: what was sent behind an append that was refused does not overtake it.
    if !context.behind_placed {
        return Err(Refusal::OutOfOrder);
    }
    let Some(bundle) = bundle else { return Ok(()) };
    // relay.append.9: nobody gives an epoch the token of another.
    if context.next_known {
        return Err(Refusal::TokenRefused);
    }
    if bundle.welcomes.len() > WELCOMES_MAX {
        return Err(Refusal::TooLarge { bytes_max: WELCOME_BYTES_MAX as u64 });
    }
    for (at, welcome) in bundle.welcomes.iter().enumerate() {
        if welcome.body.len() > WELCOME_BYTES_MAX {
            return Err(Refusal::TooLarge { bytes_max: WELCOME_BYTES_MAX as u64 });
        }
        // relay.append.7: each Welcome uses up a KeyPackage that this account took.
        let repeated = bundle.welcomes.iter().skip(at + 1).any(|other| other.package == welcome.package);
        if repeated || !context.taken.contains(&welcome.package) {
            return Err(Refusal::PackageNotTaken);
        }
    }
    if context.mailbox_full { Err(Refusal::MailboxFull) } else { Ok(()) }
}

fn place(context: &AppendContext<'_>, op: &AppendOp) -> Result<Placement, Refusal> {
    let old = context.group;
    // relay.clock.1
    let received_at = old.map_or(context.now, |group| context.now.max(group.received_at));
    let before = old.map_or_else(|| Head::empty(op.group), |group| group.head);
    let head = before.append(op.kind, received_at, &op.body);
    let mut group = GroupRow {
        head,
        received_at,
        newest_commit: old.map_or(Seq(0), |group| group.newest_commit),
        first: old.map_or(Seq(1), |group| group.first),
        founder: old.map_or(op.by.kind, |group| group.founder),
    };
    let (mut tokens, mut welcomes) = (Vec::new(), Vec::new());
    if let Some(bundle) = &op.bundle {
        tokens = advance(context.live, context.token, bundle.next_token, head, op.by, group.founder)?;
        welcomes = bundle.welcomes.clone();
        group.newest_commit = head.seq;
    }
    Ok(Placement { appended: Appended { head, received_at }, group, tokens, welcomes })
}

/// What a token opens, for `StoreOp::Open`, and the rows of tokens that change by it.
///
/// # Errors
/// `UnknownGroup`, `TokenRefused`.
pub fn open(
    group: Option<&GroupRow>,
    token: Option<&TokenRow>,
    live: &[TokenRow],
    by: Option<By>,
    now: Timestamp,
) -> Result<(OpenedRow, Vec<TokenRow>), Refusal> {
    let group = group.ok_or(Refusal::UnknownGroup)?;
    let token = token.ok_or(Refusal::TokenRefused)?;
    let changed = by.map(|by| confirm(live, token, by, group.founder, now)).unwrap_or_default();
    let confirmed_now = !changed.is_empty();
    let ended = (!token.has_rights(now)).then(|| token.reads_to());
    let row = OpenedRow {
        head: group.head,
        newest_commit: group.newest_commit,
        read_to: ended.map(|head| head.seq),
        readable: ended.unwrap_or(group.head),
        ends_at: token.ends_at,
        confirmed: confirmed_now || token.is_confirmed(),
        confirmed_now,
        may_confirm: by.is_some_and(|by| by.kind == group.founder),
        began: token.made_at,
        first: group.first,
    };
    Ok((row, changed))
}

/// Which of several tokens that were shown on one connection counts, the highest: the newest that may append, and if none may,
/// the one that reads farthest, for that leads to the commit that others have followed. (relay.open.1)
#[must_use]
pub fn rank(read_to: Option<Seq>, began: Seq) -> (bool, Seq) {
    (read_to.is_none(), read_to.unwrap_or(began))
}

impl From<Appended> for AppendedRow {
    fn from(appended: Appended) -> Self {
        Self { appended, placed: true }
    }
}

#[cfg(test)]
#[allow(clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::{
        ids::{AccountId, AccountTag, GroupId, KindTag, TokenHash},
        wire::{Blob, relay::Bundle},
    };

    // proves relay.clock.1
    #[test]
    fn a_clock_that_was_set_back_does_not_turn_the_log_around() {
        let bundle = Bundle { next_token: TokenHash([1; 32]), welcomes: Vec::new() };
        let mut op = AppendOp {
            group: GroupId([1; 32]),
            token: None,
            author: AccountId([2; 32]),
            by: By { tag: AccountTag([2; 16]), kind: KindTag([1; 16]) },
            kind: EntryKind::Commit,
            after: Seq(0),
            behind: None,
            body: Blob(vec![1]),
            bundle: Some(bundle),
        };
        let mut context = AppendContext {
            group: None,
            known: None,
            token: None,
            live: &[],
            next_known: false,
            taken: &[],
            behind_placed: true,
            mailbox_full: false,
            now: Timestamp(1000),
        };
        let Decision::Place(first) = decide(&context, &op) else { panic!("refused") };
        assert_eq!(first.appended.received_at, Timestamp(1000));
        let token = first.tokens.first().copied();
        op = AppendOp {
            kind: EntryKind::Application,
            after: Seq(1),
            bundle: None,
            token: Some(TokenHash([1; 32])),
            ..op
        };
        context = AppendContext { group: Some(&first.group), token: token.as_ref(), now: Timestamp(400), ..context };
        let Decision::Place(second) = decide(&context, &op) else { panic!("refused") };
        assert_eq!(second.appended.received_at, Timestamp(1000));
    }
}
