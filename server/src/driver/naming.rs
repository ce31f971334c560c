//! Partners that were pinned before the directory named them: it names them once their own web servers say where they are.
//!
//! This module pins nobody: who is asked is pinned, and what is said must be of the same root. `spec/directory.md#partners`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chancery_protocol::identity::{Domain, Organisation};
use chancery_quic::https::{self, FetchError};

use crate::{clock::Clock, registrar::store::RegistrarStore};

/// How soon a web server that did not give the file is asked again.
const AGAIN: Duration = Duration::from_secs(15 * 60);

/// Asks until all are named; it ends with the process.
pub(crate) async fn name_partners(store: RegistrarStore, clock: Clock) {
    let store = Arc::new(Mutex::new(store));
    loop {
        let (store, clock) = (Arc::clone(&store), clock.clone());
        let named = tokio::task::spawn_blocking(move || {
            let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
            name_all(&mut store, &clock, https::fetch)
        });
        if matches!(named.await, Ok(true) | Err(_)) {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Whether nobody is left.
fn name_all(
    store: &mut RegistrarStore,
    clock: &Clock,
    fetch: impl Fn(&Domain) -> Result<Organisation, FetchError>,
) -> bool {
    let unnamed = match store.partners_unnamed() {
        Ok(unnamed) => unnamed,
        Err(error) => {
            store.failure().of(&error);
            return false;
        }
    };
    let mut left = false;
    for partner in unnamed {
        let domain = &partner.domain;
        match fetch(domain) {
            // identity.partner.1
            Ok(organisation) if organisation.root != partner.root => {
                left = true;
                tracing::error!(%domain, pinned = %partner.root, shown = %organisation.root, "ALARM: a partner's web server \
                    shows another root than is pinned: ask the partner over another channel");
            }
            Ok(organisation) => match store.name_partner(&organisation, clock.now()) {
                Ok(_) => tracing::info!(%domain, "the directory names a partner that was pinned before it named any"),
                Err(error) => {
                    left = true;
                    store.failure().of(&error);
                }
            },
            Err(error) => {
                left = true;
                tracing::warn!(%domain, %error, "a partner is pinned and not named in the directory, so that people who have not \
                    pinned it do not follow its directory: `partner add` it again, or wait until its file can be fetched");
            }
        }
    }
    !left
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::cell::RefCell;

    use chancery_protocol::{
        identity::directory::{DirectoryEntry, DirectoryEvent},
        ids::{RootHash, SpkiPin},
        time::Timestamp,
        wire::registrar::Place,
    };

    use super::*;

    const B: RootHash = RootHash([2; 32]);

    fn organisation(domain: &Domain, root: RootHash) -> Organisation {
        let place = Place { addresses: vec!["192.0.2.7:4433".parse().unwrap()], pin: SpkiPin([5; 32]) };
        Organisation { domain: domain.clone(), root, relay: place.clone(), registrar: place }
    }

    /// What the directory tells.
    fn told(path: &std::path::Path) -> Vec<DirectoryEvent> {
        let database = rusqlite::Connection::open(path).unwrap();
        let mut entries = database.prepare("SELECT entry FROM directory ORDER BY seq").unwrap();
        let entries = entries.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
        entries.map(|entry| DirectoryEntry::from_bytes(&entry.unwrap()).unwrap().event).collect()
    }

    // proves directory.partner.5, identity.partner.1
    #[test]
    fn a_partner_without_an_entry_gets_one_by_its_own_word_if_the_root_is_the_one_that_is_pinned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registrar.db");
        let mut store = RegistrarStore::open(&path).unwrap();
        let (b, c): (Domain, Domain) = ("b.example".parse().unwrap(), "c.example".parse().unwrap());
        store.add_partner(&organisation(&c, RootHash([3; 32])), 9, Timestamp(1)).unwrap();
        // As a release wrote it whose directories named nobody.
        let insert = "INSERT INTO partners (root, domain, connections_max, added_at) VALUES (?1, ?2, 9, 1)";
        rusqlite::Connection::open(&path).unwrap().execute(insert, rusqlite::params![B.0, b.as_str()]).unwrap();
        let clock = Clock::default();
        let asked = RefCell::new(Vec::new());
        let fetch = |root: Option<RootHash>| {
            let asked = &asked;
            move |domain: &Domain| {
                asked.borrow_mut().push(domain.clone());
                root.map(|root| organisation(domain, root)).ok_or_else(|| FetchError::Late(domain.clone()))
            }
        };
        assert!(!name_all(&mut store, &clock, fetch(None)));
        assert!(!name_all(&mut store, &clock, fetch(Some(RootHash([4; 32])))));
        assert_eq!(told(&path).len(), 1, "c.example alone");
        assert!(name_all(&mut store, &clock, fetch(Some(B))));
        assert_eq!(told(&path).last(), Some(&DirectoryEvent::PartnerAdmitted(organisation(&b, B))));
        assert_eq!(asked.take(), [b.clone(), b.clone(), b.clone()], "c.example is named already");
        assert!(name_all(&mut store, &clock, fetch(None)));
        // One that was removed and pinned again is named by that.
        store.remove_partner(B, Timestamp(2)).unwrap();
        assert!(name_all(&mut store, &clock, fetch(None)));
        assert!(asked.take().is_empty() && !store.name_partner(&organisation(&b, B), Timestamp(3)).unwrap());
    }
}
