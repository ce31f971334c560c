//! Escrow policies that groups of the organisation may be under, as its directory lists them.
//!
//! This module does not write policies, and keeps no text of them: the groups have it. `spec/directory.md#policies`.

use chancery_protocol::{
    identity::directory::{DirectoryEvent, PublishedKey, PublishedPolicy},
    mls::SignedPolicy,
    time::Timestamp,
};
use rusqlite::{Connection, TransactionBehavior};

use super::{directory, store::RegistrarStore};

/// A policy as `policy list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRow {
    /// What the directory says of it.
    pub policy: PublishedPolicy,
    /// When it was published.
    pub published_at: Timestamp,
}

/// What became of publishing a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Published {
    /// It is in the directory.
    Done,
    /// It was there before.
    Already,
    /// It is not the version after the newest one that is there. Nothing has changed. (directory.policy.1)
    OutOfOrder(PublishedPolicy),
    /// Its archive key is there with another generation, quorum or number of seats, or its generation with another key.
    /// Nothing has changed. (directory.policy.7)
    OtherKey(PublishedKey),
}

/// All that the directory says of policies and archive keys, in the order of the log.
fn listed(connection: &Connection) -> rusqlite::Result<(Vec<PolicyRow>, Vec<PublishedKey>)> {
    let (mut policies, mut keys) = (Vec::new(), Vec::new());
    for (event, published_at) in directory::entries(connection)? {
        match event {
            DirectoryEvent::PolicyPublished(policy) => policies.push(PolicyRow { policy, published_at }),
            DirectoryEvent::ArchiveKeyMade(key) => keys.push(key),
            _ => {}
        }
    }
    Ok((policies, keys))
}

impl RegistrarStore {
    /// Writes a policy into the directory, and before it the archive key that it names, if that is not there.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn publish_policy(&mut self, signed: &SignedPolicy, now: Timestamp) -> rusqlite::Result<Published> {
        let (policy, key) = signed.published();
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (policies, keys) = listed(&tx)?;
        let mut of_id = policies.into_iter().map(|row| row.policy).filter(|listed| listed.id == policy.id);
        if of_id.clone().any(|listed| listed == policy) {
            return Ok(Published::Already);
        }
        // policy.chain.1, as far as the directory tells.
        let follows = |newest: &PublishedPolicy| {
            newest.version.checked_add(1) == Some(policy.version)
                && signed.policy().previous == Some(newest.hash)
                && newest.key_number <= policy.key_number
        };
        if let Some(newest) = of_id.next_back().filter(|newest| !follows(newest)) {
            return Ok(Published::OutOfOrder(newest));
        }
        let same = |listed: &&PublishedKey| {
            listed.id == key.id && (listed.generation == key.generation || listed.key == key.key)
        };
        match keys.iter().find(same) {
            Some(listed) if *listed != key => return Ok(Published::OtherKey(listed.clone())),
            Some(_) => {}
            None => directory::tell(&tx, DirectoryEvent::ArchiveKeyMade(key), now)?,
        }
        directory::tell(&tx, DirectoryEvent::PolicyPublished(policy), now)?;
        tx.commit()?;
        Ok(Published::Done)
    }

    /// All policies in the directory, the oldest first.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn policies(&self) -> rusqlite::Result<Vec<PolicyRow>> {
        listed(&self.connection).map(|(policies, _)| policies)
    }
}
