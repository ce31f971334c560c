//! The registrar's orders to a relay of another process: each is written in the transaction of the change that it tells.
//!
//! This module does not send them; [`super::push`] does. `spec/relay.md#orders`.

use chancery_protocol::{
    ids::{AccountId, DeviceId, OrderHash, OrderSeq, RootHash},
    limits::ORDERS_PER_FRAME_MAX,
    wire::registrar::{Order, OrderHead, Orders},
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::store::RegistrarStore;
use crate::store::{int, uint};

/// Writes the row that begins the chain, if there is none.
pub(super) fn begin(connection: &Connection, random: [u8; 32]) -> rusqlite::Result<()> {
    connection
        .execute("INSERT INTO orders (seq, hash) VALUES (0, ?1) ON CONFLICT DO NOTHING", params![random])
        .map(|_| ())
}

/// Writes the next order.
pub(super) fn give(connection: &Connection, order: &Order) -> rusqlite::Result<()> {
    let head = head(connection)?.next(order);
    let (kind, subject, number) = parts(order);
    connection
        .execute(
            "INSERT INTO orders (seq, kind, subject, number, hash) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![int(head.seq.0), kind, subject, number, head.hash.as_bytes()],
        )
        .map(|_| ())
}

fn parts(order: &Order) -> (u8, [u8; 32], u32) {
    match order {
        Order::Admit(root) => (0, root.0, 0),
        Order::Disable(account) => (1, account.0, 0),
        Order::Enable(account) => (2, account.0, 0),
        Order::Revoke(device) => (3, device.0, 0),
        Order::AdmitPartner { root, connections_max } => (4, root.0, *connections_max),
        Order::EndPartner(root) => (5, root.0, 0),
    }
}

fn order(kind: u8, subject: [u8; 32], number: u32) -> Option<Order> {
    match kind {
        0 => Some(Order::Admit(RootHash(subject))),
        1 => Some(Order::Disable(AccountId(subject))),
        2 => Some(Order::Enable(AccountId(subject))),
        3 => Some(Order::Revoke(DeviceId(subject))),
        4 => Some(Order::AdmitPartner { root: RootHash(subject), connections_max: number }),
        5 => Some(Order::EndPartner(RootHash(subject))),
        _ => None,
    }
}

fn head(connection: &Connection) -> rusqlite::Result<OrderHead> {
    connection.query_row("SELECT seq, hash FROM orders ORDER BY seq DESC LIMIT 1", [], read_head)
}

fn read_head(row: &Row<'_>) -> rusqlite::Result<OrderHead> {
    Ok(OrderHead { seq: OrderSeq(uint(row.get(0)?)), hash: OrderHash(row.get(1)?) })
}

impl RegistrarStore {
    /// The newest order.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn orders_head(&self) -> rusqlite::Result<OrderHead> {
        head(&self.connection)
    }

    /// What a relay with this head is to be told next: the orders behind it; or, if this database does not know the head,
    /// all that holds, on top of whatever the relay knows. Several frames if it is much; none if the relay is up to date.
    /// (relay.orders.4)
    ///
    /// # Errors
    /// What SQLite says.
    pub fn orders_for(&self, relay: Option<OrderHead>) -> rusqlite::Result<Vec<Orders>> {
        match relay {
            Some(relay) if self.knows(relay)? => self.orders_behind(relay),
            _ => self.everything(),
        }
    }

    /// Whether this database has given an order of this number and history.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn knows(&self, head: OrderHead) -> rusqlite::Result<bool> {
        let hash: Option<[u8; 32]> = self
            .connection
            .query_row("SELECT hash FROM orders WHERE seq = ?1", [int(head.seq.0)], |row| row.get(0))
            .optional()?;
        Ok(hash == Some(head.hash.0))
    }

    fn orders_behind(&self, told: OrderHead) -> rusqlite::Result<Vec<Orders>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT seq, hash, kind, subject, number FROM orders WHERE seq > ?1 ORDER BY seq")?;
        let rows = statement
            .query_map([int(told.seq.0)], |row| Ok((read_head(row)?, order(row.get(2)?, row.get(3)?, row.get(4)?))))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut behind = told;
        let mut frames = Vec::new();
        for rows in rows.chunks(ORDERS_PER_FRAME_MAX) {
            let head = rows.last().map_or(behind, |(head, _)| *head);
            let orders = rows.iter().filter_map(|(_, order)| *order).collect();
            frames.push(Orders { behind: Some(behind), orders, head: Some(head) });
            behind = head;
        }
        Ok(frames)
    }

    /// No order to enable: what the relay has cut off, and this database does not know of, stays cut off.
    fn everything(&self) -> rusqlite::Result<Vec<Orders>> {
        let head = self.orders_head()?;
        let mut statement = self.connection.prepare_cached(
            "SELECT 0, root, 0 FROM personal
             UNION ALL SELECT 1, root, 0 FROM personal WHERE disabled_at IS NOT NULL
             UNION ALL SELECT 1, account, 0 FROM accounts WHERE disabled_at IS NOT NULL
             UNION ALL SELECT 3, device, 0 FROM devices WHERE revoked_at IS NOT NULL
             UNION ALL SELECT 4, root, connections_max FROM partners",
        )?;
        let orders = statement
            .query_map([], |row| Ok(order(row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let orders: Vec<Order> = orders.into_iter().flatten().collect();
        let mut frames: Vec<Orders> = orders
            .chunks(ORDERS_PER_FRAME_MAX)
            .map(|orders| Orders { behind: None, orders: orders.to_vec(), head: None })
            .collect();
        match frames.last_mut() {
            Some(last) => last.head = Some(head),
            None => frames.push(Orders { behind: None, orders: Vec::new(), head: Some(head) }),
        }
        Ok(frames)
    }
}
