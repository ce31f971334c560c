//! What a relay was told by a registrar of another process, and handed to the machine: who is let in, and the copy of the
//! directory, both kept in a database of its own.
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

const SCHEMA: Schema = Schema { application: 0x4348_4f31, version: 3, sql: include_str!("orders.sql") };

/// Where orders go. Clones share one database.
#[derive(Clone)]
pub(crate) struct OrdersDesk {
    store: Arc<Mutex<OrdersStore>>,
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
        let mut store = OrdersStore::open(path, tenant)?;
        let heard = watch::Sender::new(store.head.is_some());
        if store.head.is_some() {
            let _ = notices.send(Notice::Admission(store.admission.clone()));
        }
        // relay.directory.5: what was shown before is shown, whether the registrar is there or not.
        if let Some(update) = store.load_copy().map_err(|error| failed(&error))? {
            let _ = notices.send(Notice::Directory(update));
        }
        Ok(Self { store: Arc::new(Mutex::new(store)), tenant, registrar, notices, heard })
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
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let is_question = told.entries.is_empty() && told.checkpoint.is_none();
        let anew = told.from == 0 && !told.entries.is_empty();
        let before = if anew { Frontier::default() } else { store.copy.clone() };
        if told.from == before.size() && !is_question {
            let mut grown = before;
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
            if let Err(error) = store.write_copy(&told, checkpoint.as_ref()) {
                // The registrar connects again and asks how far the copy is.
                tracing::error!(%error, "the copy of the directory could not be stored");
                return None;
            }
            store.copy = grown;
            let entries = told.entries.into_iter().map(|entry| entry.0).collect();
            let update = DirectoryUpdate { tenant: self.tenant, from: told.from, entries, checkpoint };
            // A closed channel means that the server has ended.
            let _ = self.notices.send(Notice::Directory(update));
        }
        Some(DirectoryKept { size: store.copy.size(), root: store.copy.root() })
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
    /// How far the copy of the directory is.
    copy: Frontier,
}

fn failed(error: &rusqlite::Error) -> OpenError {
    OpenError::Failed { file: "orders.db".to_owned(), reason: error.to_string() }
}

impl OrdersStore {
    fn open(path: &Path, tenant: RootHash) -> Result<Self, OpenError> {
        let database = open(path, SCHEMA, Sharing::Exclusive)?;
        let mut store = Self { database, head: None, admission: Admission::default(), copy: Frontier::default() };
        store.admission.tenants.insert(tenant);
        store.read().map_err(|error| failed(&error))?;
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

    /// Keeps what continues the copy of the directory, or begins it anew.
    fn write_copy(&mut self, told: &TellDirectory, checkpoint: Option<&Checkpoint>) -> rusqlite::Result<()> {
        let tx = self.database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if told.from == 0 {
            tx.execute_batch("DELETE FROM copy; DELETE FROM copy_head")?;
        }
        for (seq, entry) in (told.from..).zip(&told.entries) {
            tx.execute("INSERT INTO copy (seq, entry) VALUES (?1, ?2)", params![int(seq), entry.0])?;
        }
        if let Some(checkpoint) = checkpoint {
            tx.execute(
                "INSERT OR REPLACE INTO copy_head (one, key, note) VALUES (1, ?1, ?2)",
                params![told.key, checkpoint.note()],
            )?;
        }
        tx.commit()
    }

    /// The copy as it was shown last; none, and nothing is kept, if there is none, or it is not what was signed.
    fn load_copy(&mut self) -> rusqlite::Result<Option<DirectoryUpdate>> {
        let tenant = self.admission.tenants.iter().next().copied();
        let head: Option<([u8; 32], String)> = self
            .database
            .query_row("SELECT key, note FROM copy_head", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let opened = tenant.zip(head).and_then(|(tenant, (key, note))| {
            Checkpoint::open(note.as_bytes(), &origin(tenant), &key).ok().map(|shown| (tenant, shown))
        });
        if let Some((tenant, checkpoint)) = opened {
            let mut statement = self.database.prepare("SELECT entry FROM copy WHERE seq < ?1 ORDER BY seq")?;
            let entries: Vec<Vec<u8>> =
                statement.query_map([int(checkpoint.size())], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            drop(statement);
            let mut copy = Frontier::default();
            let whole = entries.iter().all(|entry| copy.append(leaf_hash(entry)).is_some());
            if whole && (copy.size(), copy.root()) == (checkpoint.size(), checkpoint.root()) {
                // What no checkpoint covered yet, the registrar tells again.
                self.database.execute("DELETE FROM copy WHERE seq >= ?1", [int(checkpoint.size())])?;
                self.copy = copy;
                return Ok(Some(DirectoryUpdate { tenant, from: 0, entries, checkpoint: Some(checkpoint) }));
            }
            tracing::error!("the stored copy of the directory is damaged: it is asked for anew");
        }
        self.database.execute_batch("DELETE FROM copy; DELETE FROM copy_head")?;
        Ok(None)
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
