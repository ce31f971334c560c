//! Who is let in: read from the registrar's database whenever it has changed, by whatever process.
//!
//! This module does not write there and does not decide.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::Duration,
};

use chancery_protocol::{ids::RootHash, relay::Admission};
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use crate::{driver::Notice, registrar::store::RegistrarStore};

/// How often the database is asked whether it has changed: how long a disabled account may still be served.
const POLL: Duration = Duration::from_millis(200);

/// A thread that watches the registrar's database. It ends when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct AdmissionWatch {
    refresh: Sender<oneshot::Sender<()>>,
}

impl AdmissionWatch {
    /// Reads once, passes it on, and watches from then on.
    pub(crate) fn start(
        store: RegistrarStore,
        tenant: RootHash,
        notices: UnboundedSender<Notice>,
    ) -> std::io::Result<Self> {
        let watched = Watched::begin(store, tenant, notices).map_err(std::io::Error::other)?;
        let (refresh, requests) = channel();
        std::thread::Builder::new().name("admission".to_owned()).spawn(move || watched.watch(&requests))?;
        Ok(Self { refresh })
    }

    /// Returns when the machine's next input is what the database says now.
    pub(crate) async fn refresh(&self) {
        let (done, waits) = oneshot::channel();
        if self.refresh.send(done).is_ok() {
            // If the thread has ended, the server is stopping.
            let _ = waits.await;
        }
    }
}

struct Watched {
    store: RegistrarStore,
    tenant: RootHash,
    notices: UnboundedSender<Notice>,
    version: i64,
    last: Admission,
}

impl Watched {
    fn begin(store: RegistrarStore, tenant: RootHash, notices: UnboundedSender<Notice>) -> rusqlite::Result<Self> {
        // The version is read first: a change between the two readings is then seen as one.
        let version = store.data_version()?;
        let last = store.admission(tenant)?;
        // A closed channel means that the server has ended; then the watch has no clone either.
        let _ = notices.send(Notice::Admission(last.clone()));
        Ok(Self { store, tenant, notices, version, last })
    }

    fn watch(mut self, requests: &Receiver<oneshot::Sender<()>>) {
        loop {
            let request = match requests.recv_timeout(POLL) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Err(error) = self.look(request.is_some()) {
                // Who was let in before still is, until this works again or the process ends.
                tracing::error!(%error, "the registrar's database cannot be read");
                self.store.failure().of(&error);
            }
            if let Some(done) = request {
                let _ = done.send(());
            }
        }
    }

    fn look(&mut self, asked: bool) -> rusqlite::Result<()> {
        let version = self.store.data_version()?;
        if version == self.version && !asked {
            return Ok(());
        }
        let admission = self.store.admission(self.tenant)?;
        self.version = version;
        if admission != self.last {
            self.last = admission.clone();
            let _ = self.notices.send(Notice::Admission(admission));
        }
        Ok(())
    }
}
