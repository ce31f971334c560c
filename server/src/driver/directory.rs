//! The registrar's directory, kept signed and fresh: what other processes wrote is signed at once, and the relay of this
//! process is told.
//!
//! This module does not decide what is signed; [`Directory`] does.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::Duration,
};

use chancery_protocol::{ids::RootHash, relay::DirectoryUpdate};
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use crate::{clock::Clock, driver::Notice, registrar::directory::Directory};

/// How often the database is asked whether it has changed: how long a revocation may wait for its signature.
const POLL: Duration = Duration::from_millis(200);

/// A thread that watches the directory. It ends when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct DirectoryWatch {
    refresh: Sender<oneshot::Sender<()>>,
}

impl DirectoryWatch {
    /// Signs what is there, tells the relay if there is one in this process, and watches from then on.
    pub(crate) fn start(
        directory: Arc<Directory>,
        tenant: RootHash,
        notices: Option<UnboundedSender<Notice>>,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let (refresh, requests) = channel();
        let mut watched = Watched { directory, tenant, notices, clock, told: None };
        watched.look();
        std::thread::Builder::new().name("directory".to_owned()).spawn(move || watched.watch(&requests))?;
        Ok(Self { refresh })
    }

    /// Returns when everything that was written before is signed and on its way to the relay of this process.
    pub(crate) async fn refresh(&self) {
        let (done, waits) = oneshot::channel();
        if self.refresh.send(done).is_ok() {
            // If the thread has ended, the server is stopping.
            let _ = waits.await;
        }
    }
}

struct Watched {
    directory: Arc<Directory>,
    tenant: RootHash,
    notices: Option<UnboundedSender<Notice>>,
    clock: Clock,
    /// How many entries the relay was told of; none if of nothing yet.
    told: Option<u64>,
}

impl Watched {
    fn watch(mut self, requests: &Receiver<oneshot::Sender<()>>) {
        loop {
            let request = match requests.recv_timeout(POLL) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.look();
            if let Some(done) = request {
                let _ = done.send(());
            }
        }
    }

    fn look(&mut self) {
        match self.directory.refresh(self.clock.now()) {
            Ok(false) if self.told.is_some() => return,
            Ok(_) => {}
            Err(error) => {
                // What was signed before is still served, and grows old: clients warn of it within the hour.
                tracing::error!(%error, "the directory cannot be signed");
                return;
            }
        }
        let Some(notices) = &self.notices else { return };
        let Some((checkpoint, entries)) = self.directory.shown_from(self.told.unwrap_or(0)) else { return };
        let from = self.told.replace(checkpoint.size()).unwrap_or(0);
        let update = DirectoryUpdate { tenant: self.tenant, from, entries, checkpoint: Some(checkpoint) };
        // A closed channel means that the server has ended.
        let _ = notices.send(Notice::Directory(update));
    }
}
