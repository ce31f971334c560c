//! What a relay was told by a registrar of another process, and handed to the machine: who is let in, kept in a database of
//! its own, and the copy of the directory, in memory alone.
//!
//! This module does not verify chains; the machine does, with the admission that comes from here.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use chancery_protocol::{
    identity::{Chain, certificate::root_hash, directory::origin},
    ids::{AccountId, DeviceId, OrderHash, OrderSeq, RootHash, SpkiPin},
    limits::{DIRECTORY_ENTRIES_PER_FRAME_MAX, LOG_ENTRY_BYTES_MAX, ORDERS_PER_FRAME_MAX},
    merkle::{Checkpoint, Frontier, leaf_hash},
    relay::{Admission, DirectoryUpdate},
    wire::{
        Frame,
        directory::{DirectoryKept, TellDirectory},
        registrar::{Order, OrderHead, Orders, OrdersTaken},
    },
};
use chancery_quic::{CloseCode, Connection, Peer};
use rusqlite::{Connection as Database, OptionalExtension as _, TransactionBehavior, params};
use tokio::sync::{mpsc::UnboundedSender, watch};

use crate::{
    driver::Notice,
    metrics,
    store::{
        OpenError, int,
        open::{Schema, Sharing, open},
        uint,
    },
};

const SCHEMA: Schema = Schema { application: 0x4348_4f31, version: 2, sql: include_str!("orders.sql") };

/// Where orders go. Clones share one database.
#[derive(Clone)]
pub(crate) struct OrdersDesk {
    store: Arc<Mutex<OrdersStore>>,
    /// How far the machine's copy of the directory is; it begins anew with the process.
    copy: Arc<Mutex<Frontier>>,
    tenant: RootHash,
    registrar: SpkiPin,
    notices: UnboundedSender<Notice>,
    heard: watch::Sender<bool>,
}

impl OrdersDesk {
    /// Opens the database and hands on what was known before.
    pub(crate) fn open(
        path: &Path,
        tenant: RootHash,
        registrar: SpkiPin,
        notices: UnboundedSender<Notice>,
    ) -> Result<Self, OpenError> {
        let store = OrdersStore::open(path, tenant)?;
        let heard = watch::Sender::new(store.head.is_some());
        if store.head.is_some() {
            let _ = notices.send(Notice::Admission(store.admission.clone()));
        }
        let (store, copy) = (Arc::new(Mutex::new(store)), Arc::default());
        Ok(Self { store, copy, tenant, registrar, notices, heard })
    }

    /// Whether the registrar has ever said who is cut off. Before that nobody is let in. (relay.orders.5)
    pub(crate) fn has_heard(&self) -> bool {
        *self.heard.borrow()
    }

    /// Serves one connection on `chancery-orders/1`.
    pub(crate) async fn serve(&self, peer: Peer) {
        let connection = peer.connection;
        if !self.is_registrar(peer.chain.as_ref()) {
            tracing::warn!("somebody who is not the registrar has tried to give orders");
            return connection.abort(CloseCode::Refused);
        }
        metrics::line(true);
        self.obey(&connection).await;
        metrics::line(false);
        connection.abort(CloseCode::Done);
    }

    /// relay.orders.1: the registrar is known by its key; TLS has proven that the peer holds the one that it shows.
    fn is_registrar(&self, chain: Option<&Chain>) -> bool {
        let shown = chain.and_then(|chain| chain.0.first()).and_then(|certificate| root_hash(certificate).ok());
        shown.is_some_and(|hash| hash.as_bytes() == self.registrar.as_bytes())
    }

    async fn obey(&self, connection: &Connection) {
        let Ok((mut writer, mut reader)) = connection.accept_orders().await else { return };
        while let Ok(Some(taken)) = reader.next().await {
            let desk = self.clone();
            let answered = tokio::task::spawn_blocking(move || desk.answer(taken.frame.ok()?)).await;
            let Ok(Some(answer)) = answered else { return };
            if writer.write(&[Arc::from(answer.to_bytes(taken.correlation))]).await.is_err() {
                return;
            }
        }
    }

    /// The answer to a frame; none if it is none that a registrar sends, or cannot be stored.
    fn answer(&self, frame: Frame) -> Option<Frame> {
        match frame {
            Frame::Orders(orders) if orders.orders.len() <= ORDERS_PER_FRAME_MAX => match self.take(&orders) {
                Ok(head) => Some(Frame::OrdersTaken(OrdersTaken { head })),
                Err(error) => {
                    // The registrar connects again and repeats what was not acknowledged.
                    tracing::error!(%error, "orders could not be stored");
                    None
                }
            },
            Frame::TellDirectory(told) if told.entries.len() <= DIRECTORY_ENTRIES_PER_FRAME_MAX => {
                self.keep(told).map(Frame::DirectoryKept)
            }
            _ => None,
        }
    }

    /// Adds to the copy of the directory what continues it, or begins it anew. (relay.directory.3)
    fn keep(&self, told: TellDirectory) -> Option<DirectoryKept> {
        if told.entries.iter().any(|entry| entry.len() > LOG_ENTRY_BYTES_MAX) {
            return None;
        }
        // Held until the machine's queue has it: two lines of one registrar do not mix.
        let mut copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        if told.from == 0 && !told.entries.is_empty() {
            *copy = Frontier::default();
        }
        let is_question = told.entries.is_empty() && told.checkpoint.is_none();
        if told.from == copy.size() && !is_question {
            let mut grown = copy.clone();
            for entry in &told.entries {
                grown.append(leaf_hash(entry))?;
            }
            let checkpoint = match &told.checkpoint {
                None => None,
                Some(note) => Some(Checkpoint::open(note, &origin(self.tenant), &told.key).ok()?),
            };
            if checkpoint.as_ref().is_some_and(|shown| (shown.size(), shown.root()) != (grown.size(), grown.root())) {
                return None;
            }
            *copy = grown;
            let entries = told.entries.into_iter().map(|entry| entry.0).collect();
            let update = DirectoryUpdate { tenant: self.tenant, from: told.from, entries, checkpoint };
            // A closed channel means that the server has ended.
            let _ = self.notices.send(Notice::Directory(update));
        }
        Some(DirectoryKept { size: copy.size(), root: copy.root() })
    }

    fn take(&self, orders: &Orders) -> rusqlite::Result<Option<OrderHead>> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = store.take(orders)?;
        if store.head.is_some() {
            self.heard.send_replace(true);
        }
        if changed && store.head.is_some() {
            // A closed channel means that the server has ended.
            let _ = self.notices.send(Notice::Admission(store.admission.clone()));
        }
        Ok(store.head)
    }
}

struct OrdersStore {
    database: Database,
    head: Option<OrderHead>,
    admission: Admission,
}

impl OrdersStore {
    fn open(path: &Path, tenant: RootHash) -> Result<Self, OpenError> {
        let database = open(path, SCHEMA, Sharing::Exclusive)?;
        let mut store = Self { database, head: None, admission: Admission::default() };
        store.admission.tenants.insert(tenant);
        store.read().map_err(|error| OpenError::Failed { file: "orders.db".to_owned(), reason: error.to_string() })?;
        Ok(store)
    }

    fn read(&mut self) -> rusqlite::Result<()> {
        self.head = self
            .database
            .query_row("SELECT seq, hash FROM head", [], |row| {
                Ok(OrderHead { seq: OrderSeq(uint(row.get(0)?)), hash: OrderHash(row.get(1)?) })
            })
            .optional()?;
        let mut statement = self.database.prepare("SELECT kind, subject, number FROM subjects")?;
        let rows =
            statement.query_map([], |row| Ok((row.get::<_, u8>(0)?, row.get::<_, [u8; 32]>(1)?, row.get(2)?)))?;
        for row in rows {
            match row? {
                (0, root, _) => self.admission.obey(&Order::Admit(RootHash(root))),
                (1, account, _) => self.admission.obey(&Order::Disable(AccountId(account))),
                (3, root, connections_max) => {
                    self.admission.obey(&Order::AdmitPartner { root: RootHash(root), connections_max });
                }
                (_, device, _) => self.admission.obey(&Order::Revoke(DeviceId(device))),
            }
        }
        Ok(())
    }

    /// Does what is next, durably, and says whether anything is different afterwards. (relay.orders.2, relay.orders.3)
    fn take(&mut self, orders: &Orders) -> rusqlite::Result<bool> {
        if !orders.follow(self.head) {
            return Ok(false);
        }
        if orders.orders.is_empty() && orders.head == self.head {
            return Ok(false);
        }
        let tx = self.database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for order in &orders.orders {
            let add = "INSERT INTO subjects (kind, subject) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            match order {
                Order::Admit(root) => tx.execute(add, params![0, root.as_bytes()])?,
                Order::Disable(account) => tx.execute(add, params![1, account.as_bytes()])?,
                Order::Enable(account) => {
                    tx.execute("DELETE FROM subjects WHERE kind = 1 AND subject = ?1", [account.as_bytes()])?
                }
                Order::Revoke(device) => tx.execute(add, params![2, device.as_bytes()])?,
                Order::AdmitPartner { root, connections_max } => tx.execute(
                    "INSERT OR REPLACE INTO subjects (kind, subject, number) VALUES (3, ?1, ?2)",
                    params![root.as_bytes(), connections_max],
                )?,
                Order::EndPartner(root) => {
                    tx.execute("DELETE FROM subjects WHERE kind = 3 AND subject = ?1", [root.as_bytes()])?
                }
            };
        }
        tx.execute("DELETE FROM head", [])?;
        if let Some(head) = orders.head {
            tx.execute("INSERT INTO head (seq, hash) VALUES (?1, ?2)", params![int(head.seq.0), head.hash.as_bytes()])?;
        }
        tx.commit()?;
        self.head = orders.head;
        for order in &orders.orders {
            self.admission.obey(order);
        }
        Ok(true)
    }
}

#[cfg(test)]
#[path = "orders_tests.rs"]
mod tests;
