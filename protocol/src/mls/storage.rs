//! Storage of MLS state: a map in memory that remembers what changed, so that a driver can write the difference.
//!
//! This module does not write to disk, and does not know what the rows mean.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use openmls_traits::storage::{CURRENT_VERSION, StorageProvider, traits};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::rows::{RowWrite, Space};

/// A row could not be encoded or decoded, or a thread died while it held the map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("MLS state could not be {0}")]
pub struct StorageError(&'static str);

type Value = Zeroizing<Vec<u8>>;

#[derive(Default)]
struct Rows {
    map: BTreeMap<Vec<u8>, Value>,
    /// The value before the first change since the last delta.
    before: BTreeMap<Vec<u8>, Option<Value>>,
    /// Whether the secrets of messages are written later.
    defers: bool,
    /// Whether they have changed since they were written.
    unwritten: bool,
}

/// Rows of one group, or of the device (KeyPackages).
#[derive(Default)]
pub struct Storage(Mutex<Rows>);

impl core::fmt::Debug for Storage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Storage(..)")
    }
}

/// First byte of each key.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Row {
    JoinConfig = 1,
    OwnLeafNodes = 2,
    Tree = 3,
    InterimTranscriptHash = 4,
    Context = 5,
    ConfirmationTag = 6,
    GroupState = 7,
    MessageSecrets = 8,
    ResumptionPsks = 9,
    OwnLeafIndex = 10,
    EpochSecrets = 11,
    SignatureKeyPair = 12,
    EncryptionKeyPair = 13,
    EpochKeyPairs = 14,
    KeyPackage = 15,
    Psk = 16,
}

fn key<K: Serialize>(row: Row, key: &K) -> Result<Vec<u8>, StorageError> {
    postcard::to_extend(key, vec![row as u8]).map_err(|_| StorageError("encoded"))
}

impl Storage {
    /// From rows that an earlier delta gave.
    #[must_use]
    pub fn from_rows(rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        let map = rows.into_iter().map(|(key, value)| (key, Zeroizing::new(value))).collect();
        Self(Mutex::new(Rows { map, ..Rows::default() }))
    }

    fn rows(&self) -> Result<MutexGuard<'_, Rows>, StorageError> {
        self.0.lock().map_err(|_| StorageError("locked"))
    }

    /// Takes the difference since the last call, as rows of [`Space::Mls`] whose keys begin with `scope`.
    pub fn take_delta(&self, scope: &[u8], out: &mut Vec<RowWrite>) {
        let Ok(mut rows) = self.rows() else { return };
        let changed = core::mem::take(&mut rows.before);
        for (key, before) in changed {
            let now = rows.map.get(&key);
            if now == before.as_ref() {
                continue;
            }
            out.push(RowWrite {
                space: Space::Mls,
                key: [scope, &key].concat(),
                value: now.map(|value| value.to_vec()),
            });
        }
    }

    /// Undoes every change since the last delta.
    pub fn roll_back(&self) {
        let Ok(mut rows) = self.rows() else { return };
        rows.unwritten = false;
        for (key, before) in core::mem::take(&mut rows.before) {
            match before {
                Some(value) => rows.map.insert(key, value),
                None => rows.map.remove(&key),
            };
        }
    }

    /// Runs something that writes the secrets of messages, and does not write them: they are as long as the group is large,
    /// and the next message of the same batch would write them again.
    pub fn deferring<T>(&self, run: impl FnOnce() -> T) -> T {
        let set = |defers: bool| drop(self.rows().map(|mut rows| rows.defers = defers));
        set(true);
        let result = run();
        set(false);
        result
    }

    /// Whether there are secrets of messages that were not written.
    #[must_use]
    pub fn has_unwritten(&self) -> bool {
        self.rows().is_ok_and(|rows| rows.unwritten)
    }

    /// Deletes every row.
    pub fn clear(&self) {
        drop(self.rows().map(|mut rows| rows.unwritten = false));
        let keys: Vec<Vec<u8>> = self.rows().map(|rows| rows.map.keys().cloned().collect()).unwrap_or_default();
        for key in keys {
            let _ = self.remove(key);
        }
    }

    /// The row of a KeyPackage by its reference, to be moved to the storage of the group that it joins.
    #[must_use]
    pub fn key_package_row<K: Serialize>(&self, reference: &K) -> Option<(Vec<u8>, Vec<u8>)> {
        let key = key(Row::KeyPackage, reference).ok()?;
        let rows = self.rows().ok()?;
        rows.map.get(&key).map(|value| (key.clone(), value.to_vec()))
    }

    /// Whether a row is there.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.rows().is_ok_and(|rows| rows.map.contains_key(key))
    }

    /// Deletes a row by its key.
    ///
    /// # Errors
    /// If the map cannot be locked.
    pub fn remove(&self, key: Vec<u8>) -> Result<(), StorageError> {
        let mut rows = self.rows()?;
        let before = rows.map.remove(&key);
        rows.before.entry(key).or_insert(before);
        Ok(())
    }

    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> Result<(), StorageError> {
        let mut rows = self.rows()?;
        let before = rows.map.insert(key.clone(), Zeroizing::new(value));
        rows.before.entry(key).or_insert(before);
        Ok(())
    }

    fn write<V: Serialize>(&self, key: Vec<u8>, value: &V) -> Result<(), StorageError> {
        if key == [Row::MessageSecrets as u8] {
            let mut rows = self.rows()?;
            rows.unwritten = rows.defers;
            if rows.defers {
                return Ok(());
            }
        }
        self.put(key, postcard::to_allocvec(value).map_err(|_| StorageError("encoded"))?)
    }

    fn read<V: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<V>, StorageError> {
        let rows = self.rows()?;
        rows.map.get(key).map(|value| postcard::from_bytes(value).map_err(|_| StorageError("decoded"))).transpose()
    }
}

/// Methods for a value that a group has once.
macro_rules! once_per_group {
    ($($row:ident: $entity:ident, $write:ident, $read:ident, $delete:ident;)*) => {$(
        fn $write<GroupId: traits::GroupId<CURRENT_VERSION>, V: traits::$entity<CURRENT_VERSION>>(
            &self, _: &GroupId, value: &V,
        ) -> Result<(), StorageError> {
            self.write(vec![Row::$row as u8], value)
        }

        fn $read<GroupId: traits::GroupId<CURRENT_VERSION>, V: traits::$entity<CURRENT_VERSION>>(
            &self, _: &GroupId,
        ) -> Result<Option<V>, StorageError> {
            self.read(&[Row::$row as u8])
        }

        fn $delete<GroupId: traits::GroupId<CURRENT_VERSION>>(&self, _: &GroupId) -> Result<(), StorageError> {
            self.remove(vec![Row::$row as u8])
        }
    )*};
}

/// Methods for a value that is found by a key of its own.
macro_rules! by_key {
    ($($row:ident: $key:ident $entity:ident, $write:ident, $delete:ident;)*) => {$(
        fn $write<K: traits::$key<CURRENT_VERSION>, V: traits::$entity<CURRENT_VERSION>>(
            &self, by: &K, value: &V,
        ) -> Result<(), StorageError> {
            self.write(key(Row::$row, by)?, value)
        }

        fn $delete<K: traits::$key<CURRENT_VERSION>>(&self, by: &K) -> Result<(), StorageError> {
            self.remove(key(Row::$row, by)?)
        }
    )*};
}

impl StorageProvider<CURRENT_VERSION> for Storage {
    type Error = StorageError;

    once_per_group! {
        Tree: TreeSync, write_tree, tree, delete_tree;
        InterimTranscriptHash: InterimTranscriptHash, write_interim_transcript_hash, interim_transcript_hash, delete_interim_transcript_hash;
        Context: GroupContext, write_context, group_context, delete_context;
        ConfirmationTag: ConfirmationTag, write_confirmation_tag, confirmation_tag, delete_confirmation_tag;
        MessageSecrets: MessageSecrets, write_message_secrets, message_secrets, delete_message_secrets;
        ResumptionPsks: ResumptionPskStore, write_resumption_psk_store, resumption_psk_store, delete_all_resumption_psk_secrets;
        OwnLeafIndex: LeafNodeIndex, write_own_leaf_index, own_leaf_index, delete_own_leaf_index;
        EpochSecrets: GroupEpochSecrets, write_group_epoch_secrets, group_epoch_secrets, delete_group_epoch_secrets;
    }

    by_key! {
        SignatureKeyPair: SignaturePublicKey SignatureKeyPair, write_signature_key_pair, delete_signature_key_pair;
        EncryptionKeyPair: EncryptionKey HpkeKeyPair, write_encryption_key_pair, delete_encryption_key_pair;
        KeyPackage: HashReference KeyPackage, write_key_package, delete_key_package;
        Psk: PskId PskBundle, write_psk, delete_psk;
    }

    // The order of type parameters differs from the others for these four.
    fn write_group_state<V: traits::GroupState<CURRENT_VERSION>, G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
        value: &V,
    ) -> Result<(), StorageError> {
        self.write(vec![Row::GroupState as u8], value)
    }

    fn group_state<V: traits::GroupState<CURRENT_VERSION>, G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<Option<V>, StorageError> {
        self.read(&[Row::GroupState as u8])
    }

    fn delete_group_state<G: traits::GroupId<CURRENT_VERSION>>(&self, _: &G) -> Result<(), StorageError> {
        self.remove(vec![Row::GroupState as u8])
    }

    fn signature_key_pair<
        K: traits::SignaturePublicKey<CURRENT_VERSION>,
        V: traits::SignatureKeyPair<CURRENT_VERSION>,
    >(
        &self,
        by: &K,
    ) -> Result<Option<V>, StorageError> {
        self.read(&key(Row::SignatureKeyPair, by)?)
    }

    fn encryption_key_pair<V: traits::HpkeKeyPair<CURRENT_VERSION>, K: traits::EncryptionKey<CURRENT_VERSION>>(
        &self,
        by: &K,
    ) -> Result<Option<V>, StorageError> {
        self.read(&key(Row::EncryptionKeyPair, by)?)
    }

    fn key_package<K: traits::HashReference<CURRENT_VERSION>, V: traits::KeyPackage<CURRENT_VERSION>>(
        &self,
        by: &K,
    ) -> Result<Option<V>, StorageError> {
        self.read(&key(Row::KeyPackage, by)?)
    }

    fn psk<V: traits::PskBundle<CURRENT_VERSION>, K: traits::PskId<CURRENT_VERSION>>(
        &self,
        by: &K,
    ) -> Result<Option<V>, StorageError> {
        self.read(&key(Row::Psk, by)?)
    }

    // This row has fields that are left out when empty: it needs a self-describing codec.
    fn write_mls_join_config<G: traits::GroupId<CURRENT_VERSION>, V: traits::MlsGroupJoinConfig<CURRENT_VERSION>>(
        &self,
        _: &G,
        value: &V,
    ) -> Result<(), StorageError> {
        let mut bytes = Vec::new();
        ciborium::into_writer(value, &mut bytes).map_err(|_| StorageError("encoded"))?;
        self.put(vec![Row::JoinConfig as u8], bytes)
    }

    fn mls_group_join_config<G: traits::GroupId<CURRENT_VERSION>, V: traits::MlsGroupJoinConfig<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<Option<V>, StorageError> {
        let rows = self.rows()?;
        let value = rows.map.get([Row::JoinConfig as u8].as_slice());
        value.map(|value| ciborium::from_reader(value.as_slice()).map_err(|_| StorageError("decoded"))).transpose()
    }

    fn delete_group_config<G: traits::GroupId<CURRENT_VERSION>>(&self, _: &G) -> Result<(), StorageError> {
        self.remove(vec![Row::JoinConfig as u8])
    }

    fn append_own_leaf_node<G: traits::GroupId<CURRENT_VERSION>, V: traits::LeafNode<CURRENT_VERSION>>(
        &self,
        group: &G,
        leaf: &V,
    ) -> Result<(), StorageError> {
        // The leaves as they are kept, then one more: both encode as elements of one list.
        let leaves: Vec<V> = self.own_leaf_nodes(group)?;
        let all: Vec<&V> = leaves.iter().chain([leaf]).collect();
        self.write(vec![Row::OwnLeafNodes as u8], &all)
    }

    fn own_leaf_nodes<G: traits::GroupId<CURRENT_VERSION>, V: traits::LeafNode<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<Vec<V>, StorageError> {
        Ok(self.read(&[Row::OwnLeafNodes as u8])?.unwrap_or_default())
    }

    fn delete_own_leaf_nodes<G: traits::GroupId<CURRENT_VERSION>>(&self, _: &G) -> Result<(), StorageError> {
        self.remove(vec![Row::OwnLeafNodes as u8])
    }

    fn write_encryption_epoch_key_pairs<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::EpochKey<CURRENT_VERSION>,
        V: traits::HpkeKeyPair<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        epoch: &E,
        leaf: u32,
        pairs: &[V],
    ) -> Result<(), StorageError> {
        self.write(key(Row::EpochKeyPairs, &(epoch, leaf))?, &pairs)
    }

    fn encryption_epoch_key_pairs<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::EpochKey<CURRENT_VERSION>,
        V: traits::HpkeKeyPair<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        epoch: &E,
        leaf: u32,
    ) -> Result<Vec<V>, StorageError> {
        Ok(self.read(&key(Row::EpochKeyPairs, &(epoch, leaf))?)?.unwrap_or_default())
    }

    fn delete_encryption_epoch_key_pairs<G: traits::GroupId<CURRENT_VERSION>, E: traits::EpochKey<CURRENT_VERSION>>(
        &self,
        _: &G,
        epoch: &E,
        leaf: u32,
    ) -> Result<(), StorageError> {
        self.remove(key(Row::EpochKeyPairs, &(epoch, leaf))?)
    }

    // Proposals by reference are refused by the judge (mls.judge.6), so that none is ever queued.
    fn queue_proposal<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
        P: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        _: &R,
        _: &P,
    ) -> Result<(), StorageError> {
        Err(StorageError("queued: proposals by reference are not used"))
    }

    fn queued_proposal_refs<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<Vec<R>, StorageError> {
        Ok(Vec::new())
    }

    fn queued_proposals<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
        P: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<Vec<(R, P)>, StorageError> {
        Ok(Vec::new())
    }

    fn remove_proposal<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>>(
        &self,
        _: &G,
        _: &R,
    ) -> Result<(), StorageError> {
        Ok(())
    }

    fn clear_proposal_queue<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        Ok(())
    }
}
