//! What a device of a personal account leaves for another one. The registrar cannot open it.
//!
//! This module does not verify proofs or certificates.

use chancery_protocol::{
    error::Refusal,
    ids::RootHash,
    time::Timestamp,
    wire::{Blob, registrar::Deposit},
};
use rusqlite::{OptionalExtension as _, TransactionBehavior, params};

use super::{devices::DeskError, store::RegistrarStore};
use crate::store::int;

impl RegistrarStore {
    /// Keeps a deposit of a personal account that is let in, in place of an earlier one.
    ///
    /// # Errors
    /// `CertificateForeign`, `AccountDisabled`, and what goes wrong.
    pub fn deposit(&mut self, root: RootHash, deposit: &Deposit, expires_at: Timestamp) -> Result<(), DeskError> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let disabled_at: Option<Option<i64>> = tx
            .query_row("SELECT disabled_at FROM personal WHERE root = ?1", [root.as_bytes()], |row| row.get(0))
            .optional()?;
        match disabled_at {
            None => return Err(Refusal::CertificateForeign.into()),
            Some(Some(_)) => return Err(Refusal::AccountDisabled.into()),
            Some(None) => {}
        }
        tx.execute(
            "INSERT INTO deposits (root, id, sealed, expires_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (root) DO UPDATE SET id = ?2, sealed = ?3, expires_at = ?4, collected_by = NULL",
            params![root.as_bytes(), deposit.id, deposit.sealed.0, int(expires_at.0)],
        )?;
        tx.commit()?;
        Ok(())
    }

    /// Hands a deposit out to the first device that asks, and to that one again. Those that are over are deleted.
    ///
    /// # Errors
    /// `TicketRefused`, and what goes wrong.
    pub fn collect(&mut self, id: &[u8; 32], device_key: &[u8; 32], now: Timestamp) -> Result<Blob, DeskError> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute("DELETE FROM deposits WHERE expires_at <= ?1", [int(now.0)])?;
        let found = tx
            .query_row("SELECT sealed, collected_by FROM deposits WHERE id = ?1", [id], |row| {
                let (sealed, by): (Vec<u8>, Option<[u8; 32]>) = (row.get(0)?, row.get(1)?);
                Ok((sealed, by))
            })
            .optional()?;
        let handed = match found {
            Some((sealed, by)) if by.is_none_or(|by| by == *device_key) => {
                tx.execute("UPDATE deposits SET collected_by = ?2 WHERE id = ?1", params![id, device_key])?;
                Ok(Blob(sealed))
            }
            _ => Err(Refusal::TicketRefused.into()),
        };
        tx.commit()?;
        handed
    }
}
