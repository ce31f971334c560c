//! Other organisations that this one works with: their devices may use the relay, and are shown the directory.
//!
//! This module does not fetch what they say of themselves. `spec/identity.md#organisations`.

use std::collections::BTreeSet;

use chancery_protocol::{
    identity::{Domain, Organisation, directory::DirectoryEvent},
    ids::RootHash,
    time::Timestamp,
    wire::registrar::Order,
};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::{directory, orders, store::RegistrarStore};
use crate::store::{int, uint};

/// A partner as `partner list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartnerRow {
    /// Its root.
    pub root: RootHash,
    /// Where it was found.
    pub domain: Domain,
    /// How many connections its devices may hold together.
    pub connections_max: u32,
    /// When it was added.
    pub added_at: Timestamp,
}

/// What became of adding a partner.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Added {
    /// It is one, with this number of connections.
    Done,
    /// Its domain or its root is pinned together with another one. Nothing has changed. (identity.partner.1)
    Changed(PartnerRow),
}

/// Whom the directory names.
fn named(connection: &Connection) -> rusqlite::Result<BTreeSet<RootHash>> {
    let mut named = BTreeSet::new();
    for (entry, _) in directory::entries(connection)? {
        match entry {
            DirectoryEvent::PartnerAdmitted(organisation) => drop(named.insert(organisation.root)),
            DirectoryEvent::PartnerEnded { root } => drop(named.remove(&root)),
            _ => {}
        }
    }
    Ok(named)
}

impl RegistrarStore {
    /// Pins a partner, or gives one that is pinned another number of connections.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn add_partner(
        &mut self,
        organisation: &Organisation,
        connections_max: u32,
        now: Timestamp,
    ) -> rusqlite::Result<Added> {
        let (root, domain) = (organisation.root, &organisation.domain);
        let other = |partner: &PartnerRow| (partner.root == root) != (partner.domain == *domain);
        if let Some(pinned) = self.partners()?.into_iter().find(other) {
            return Ok(Added::Changed(pinned));
        }
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute(
            "INSERT INTO partners (root, domain, connections_max, added_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (root) DO UPDATE SET connections_max = ?3",
            params![root.as_bytes(), domain.as_str(), connections_max, int(now.0)],
        )?;
        orders::give(&tx, &Order::AdmitPartner { root, connections_max })?;
        // directory.partner.5: so the organisation's own devices follow the partner's directory.
        directory::tell(&tx, DirectoryEvent::PartnerAdmitted(organisation.clone()), now)?;
        tx.commit()?;
        Ok(Added::Done)
    }

    /// Forgets a partner; false if it is none.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn remove_partner(&mut self, root: RootHash, now: Timestamp) -> rusqlite::Result<bool> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let removed = tx.execute("DELETE FROM partners WHERE root = ?1", [root.as_bytes()])? == 1;
        if removed {
            orders::give(&tx, &Order::EndPartner(root))?;
            directory::tell(&tx, DirectoryEvent::PartnerEnded { root }, now)?;
        }
        tx.commit()?;
        Ok(removed)
    }

    /// Partners that the directory does not name: a release pinned them whose directories named nobody.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn partners_unnamed(&self) -> rusqlite::Result<Vec<PartnerRow>> {
        let named = named(&self.connection)?;
        Ok(self.partners()?.into_iter().filter(|partner| !named.contains(&partner.root)).collect())
    }

    /// Names a partner in the directory that is pinned and not named; false if it is none.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn name_partner(&mut self, organisation: &Organisation, now: Timestamp) -> rusqlite::Result<bool> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let is_pinned = tx
            .query_row(
                "SELECT 1 FROM partners WHERE root = ?1 AND domain = ?2",
                params![organisation.root.as_bytes(), organisation.domain.as_str()],
                |_| Ok(()),
            )
            .optional()?;
        if is_pinned.is_none() || named(&tx)?.contains(&organisation.root) {
            return Ok(false);
        }
        directory::tell(&tx, DirectoryEvent::PartnerAdmitted(organisation.clone()), now)?;
        tx.commit()?;
        Ok(true)
    }

    /// All partners, by domain.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn partners(&self) -> rusqlite::Result<Vec<PartnerRow>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT root, domain, connections_max, added_at FROM partners ORDER BY domain")?;
        let rows = statement.query_map([], |row| {
            let domain: Option<Domain> = row.get::<_, String>(1)?.parse().ok();
            Ok(domain.map(|domain| {
                Ok(PartnerRow {
                    root: RootHash(row.get(0)?),
                    domain,
                    connections_max: row.get(2)?,
                    added_at: Timestamp(uint(row.get(3)?)),
                })
            }))
        })?;
        rows.filter_map(Result::transpose).map(|row| row.and_then(|row| row)).collect()
    }

    /// Whether an organisation is a partner.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn has_partner(&self, root: RootHash) -> rusqlite::Result<bool> {
        let found = self
            .connection
            .query_row("SELECT 1 FROM partners WHERE root = ?1", [root.as_bytes()], |_| Ok(()))
            .optional()?;
        Ok(found.is_some())
    }
}
