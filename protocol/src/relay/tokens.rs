//! Access tokens: which one may append, and until when. Pure, the same in every store's transaction.
//! `spec/relay.md#tokens`.
//!
//! This module does not store, and does not know who anybody is: committers are keyed hashes.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    error::Refusal,
    ids::{AccountTag, KindTag, TokenHash},
    limits::{TOKENS_UNCONFIRMED_MAX, TOKENS_UNCONFIRMED_OTHERS_MAX},
    time::Timestamp,
    wire::relay::Head,
};

/// How long a token keeps its rights once another one is confirmed. (relay.token.6)
pub(super) const DEADLINE: Duration = Duration::from_secs(24 * 3_600);

/// Who commits or opens, as far as confirmation asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct By {
    /// The account, by a keyed hash that is different in each group.
    pub tag: AccountTag,
    /// Whether it is a personal account, of which anybody may make many: by a keyed hash that is different in each group.
    pub kind: KindTag,
}

/// An access token of a group, by its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenRow {
    /// Hash of the token.
    pub hash: TokenHash,
    /// The token with which its commit was appended; none for the first of a group.
    pub parent: Option<TokenHash>,
    /// The commit that began its epoch, with the head there.
    pub made_at: Head,
    /// The last commit that was made with it, or with one after it that was superseded, with the head there.
    pub last_commit: Option<Head>,
    /// Who made its commit; none once it is confirmed or has a deadline.
    pub by: Option<By>,
    /// When its rights end, if they do; from then on it only reads, up to `last_commit`.
    pub ends_at: Option<Timestamp>,
}

impl TokenRow {
    /// Whether it appends, and reads on. (relay.token.1)
    #[must_use]
    pub fn has_rights(&self, now: Timestamp) -> bool {
        self.ends_at.is_none_or(|ends_at| now < ends_at)
    }

    /// Whether another account than its committer's has shown it, and nothing has superseded it.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.by.is_none() && self.ends_at.is_none()
    }

    /// The last entry that it reads once its rights have ended.
    #[must_use]
    pub fn reads_to(&self) -> Head {
        self.last_commit.unwrap_or(self.made_at)
    }

    fn end(&mut self, at: Timestamp) {
        self.ends_at = Some(at);
        self.by = None;
    }
}

/// Somebody shows a token: the rows that change if that confirms it. `live` are the group's rows without a deadline,
/// `founder` is the kind of the account that founded the group: who has an account of that kind has no second one at will, or
/// all that are in the group may. (relay.token.5)
#[must_use]
pub fn confirm(live: &[TokenRow], token: &TokenRow, by: By, founder: KindTag, now: Timestamp) -> Vec<TokenRow> {
    let Some(committer) = token.by.filter(|_| token.ends_at.is_none()) else { return Vec::new() };
    if committer.tag == by.tag || by.kind != founder {
        return Vec::new();
    }
    let mut changed = vec![TokenRow { by: None, ..*token }];
    for row in live.iter().filter(|row| row.hash != token.hash && !descends(live, row, token.hash)) {
        let mut row = *row;
        row.end(now.plus(DEADLINE));
        changed.push(row);
    }
    changed
}

fn descends(live: &[TokenRow], row: &TokenRow, from: TokenHash) -> bool {
    let mut parent = row.parent;
    // No path is longer than there are rows.
    for _ in 0..=live.len() {
        match parent {
            Some(hash) if hash == from => return true,
            Some(hash) => parent = live.iter().find(|row| row.hash == hash).and_then(|row| row.parent),
            None => return false,
        }
    }
    false
}

/// A commit is placed with `token`: the rows that change, the row of the token that begins included.
///
/// # Errors
/// `Unconfirmed` at the bound.
pub fn advance(
    live: &[TokenRow],
    token: Option<&TokenRow>,
    begins: TokenHash,
    head: Head,
    by: By,
    founder: KindTag,
) -> Result<Vec<TokenRow>, Refusal> {
    let mut begun = TokenRow {
        hash: begins,
        parent: token.map(|token| token.hash),
        made_at: head,
        last_commit: None,
        by: Some(by),
        ends_at: None,
    };
    let Some(token) = token else { return Ok(vec![begun]) };
    let token = TokenRow { last_commit: Some(head), ..*token };
    // relay.token.7: what descends from a token with a deadline has the same one.
    if let Some(ends_at) = token.ends_at {
        begun.end(ends_at);
        return Ok(vec![token, begun]);
    }
    let mut rows: Vec<TokenRow> =
        live.iter().map(|row| if row.hash == token.hash { token } else { *row }).chain([begun]).collect();
    // relay.token.8: of an account's unconfirmed tokens the newest counts; the others only lead to it.
    let is_older =
        |row: &TokenRow| row.hash != begins && row.parent.is_some() && row.by.is_some_and(|other| other.tag == by.tag);
    while let Some(old) = rows.iter_mut().find(|row| is_older(row)) {
        let (hash, parent) = (old.hash, old.parent);
        old.end(Timestamp(0));
        let mut begun_last = None;
        for row in rows.iter_mut().filter(|row| row.parent == Some(hash)) {
            row.parent = parent;
            begun_last = begun_last.max(Some((row.made_at.seq, row.made_at.hash)));
        }
        // Who has the parent and sleeps must be led to these commits: one of them may be the one that is followed.
        if let Some((seq, hash)) = begun_last
            && let Some(above) = rows.iter_mut().find(|row| Some(row.hash) == parent)
            && above.last_commit.is_none_or(|last| last.seq < seq)
        {
            above.last_commit = Some(Head { seq, hash });
        }
    }
    let unconfirmed: Vec<By> = rows.iter().filter(|row| row.ends_at.is_none()).filter_map(|row| row.by).collect();
    let others = unconfirmed.iter().filter(|other| other.kind != founder).count();
    // Whoever makes accounts at will does not take the room of those who cannot.
    if unconfirmed.len() > TOKENS_UNCONFIRMED_MAX || (by.kind != founder && others > TOKENS_UNCONFIRMED_OTHERS_MAX) {
        return Err(Refusal::Unconfirmed);
    }
    rows.retain(|row| !live.contains(row));
    Ok(rows)
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests;
