//! A group on this device: founding, joining, messages, commits. The only module that merges. `spec/mls-profile.md`.
//!
//! This module does not know the relay's log; [`crate::client`] gives it entries in order.

use std::{collections::BTreeMap, sync::Arc};

use openmls::{
    group::{
        GroupId as MlsGroupId, MlsGroup, PastEpochDeletion, ProcessMessageError, StageCommitError, StagedCommit,
        StagedWelcome,
    },
    prelude::{ApplyUpdatePathError, LeafNodeIndex, MlsMessageBodyIn, MlsMessageIn, ProcessedMessageContent, Sender},
};
use tls_codec::Deserialize;
use zeroize::Zeroizing;

use crate::{
    identity::{Chain, DeviceKey, name::device_id},
    ids::{AccountId, DeviceId, Epoch, GroupId, TokenHash},
    limits::{GROUP_INFO_BYTES_MAX, WELCOME_BYTES_MAX},
    mls::{
        charter::Charter,
        judge::{self, Accepted, Rule, judge},
        key_package::OfferedPackage,
        policy::SignedPolicy,
        profile::{
            ACCESS_LABEL, Core, DeviceSigner, NOTICE_LABEL, context_extensions, create_config, credential, join_config,
        },
        state::GroupState,
        storage::Storage,
        view::{self, CommitView, GroupView, LeafView},
        welcome::{self, Copies},
    },
    rows::RowWrite,
    secret::{AccessToken, Secret32},
    wire::relay::WelcomeCopy,
};

/// OpenMLS failed where it should not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// Our bug, or a broken store.
    #[error("{0}")]
    Internal(String),
}

impl GroupError {
    pub(super) fn of(error: impl core::fmt::Display) -> Self {
        Self::Internal(error.to_string())
    }
}

/// Why this device does not join by a Welcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// It is for a KeyPackage that this device does not hold (any more).
    #[error("the invitation is for a key package that this device does not hold")]
    UnknownPackage,
    /// It does not decode, open or verify (RFC 9420, section 12.4.3.1).
    #[error("the invitation is not valid: {0}")]
    Invalid(String),
    /// The group breaks a rule.
    #[error("{0}")]
    Judged(Rule),
}

/// Why a commit was not made. The group is as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// It would break a rule.
    #[error("{0}")]
    Judged(Rule),
    /// OpenMLS failed.
    #[error("{0}")]
    Group(#[from] GroupError),
}

/// Why an entry was not processed. The group is as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// Every member refuses it alike: skip it.
    #[error("{0}")]
    Void(String),
    /// It is signed by a member, but this device cannot follow it.
    #[error("{reason}")]
    Stuck {
        /// Who signed it.
        by: Option<AccountId>,
        /// What failed.
        reason: String,
    },
    /// It names this device's leaf as its author: a replay by a member, or a copy of this device.
    #[error("it names this device as its author, which did not send it")]
    OwnLeaf,
    /// It is of a later epoch than this device's.
    #[error("the entry is of epoch {0}, which is ahead of this device")]
    Ahead(Epoch),
    /// The store failed: load the group again.
    #[error("{0}")]
    Storage(String),
}

/// What an entry was.
#[derive(Debug)]
pub enum Processed {
    /// An application message.
    Application {
        /// Who sent it.
        sender: Arc<LeafView>,
        /// Padded envelope.
        plaintext: Vec<u8>,
    },
    /// A commit that the judge accepted; [`Group::merge`] takes it.
    Commit(Box<StagedChange>),
}

/// A judged commit that waits to be merged.
#[derive(Debug)]
pub struct StagedChange {
    accepted: Accepted,
    staged: StagedCommit,
    committer: Arc<LeafView>,
    added: Vec<DeviceId>,
    after: GroupView,
}

/// A merged commit.
#[derive(Debug)]
pub struct Merged {
    /// Who committed.
    pub committer: Arc<LeafView>,
    /// The devices that it added, those included that were in the group before.
    pub added: Vec<DeviceId>,
    /// The group before it.
    pub before: GroupView,
    /// Whether this device is out.
    pub removed: bool,
}

/// What a commit should change.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Devices to add.
    pub adds: Vec<OfferedPackage>,
    /// Devices to remove.
    pub removes: Vec<DeviceId>,
    /// Another group state.
    pub state: Option<GroupState>,
    /// Another escrow policy.
    pub policy: Option<SignedPolicy>,
}

/// A commit that waits for its place in the log.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// MLS PrivateMessage.
    pub commit: Vec<u8>,
    /// Hash of the token of the epoch that it begins.
    pub next_token: TokenHash,
    /// One for each device that it adds.
    pub welcomes: Vec<WelcomeCopy>,
    /// What they name instead of holding it: `encrypted_group_info`. (mls.welcome.2)
    pub group_info: Option<Vec<u8>>,
}

/// A group on this device.
pub struct Group {
    id: GroupId,
    mls: MlsGroup,
    storage: Storage,
    view: GroupView,
    own: DeviceId,
}

impl core::fmt::Debug for Group {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Group({}, epoch {})", self.id, self.epoch())
    }
}

fn member_view(mls: &MlsGroup) -> Result<BTreeMap<DeviceId, Arc<LeafView>>, Rule> {
    let mut leaves = BTreeMap::new();
    for member in mls.members() {
        let leaf = mls.public_group().leaf(member.index).ok_or(Rule::LeafCredential)?;
        let view = LeafView::of(leaf)?;
        if leaves.insert(view.identity.device(), Arc::new(view)).is_some() {
            return Err(Rule::DeviceTwice);
        }
    }
    Ok(leaves)
}

fn device_at(mls: &MlsGroup, index: LeafNodeIndex) -> Option<DeviceId> {
    let key: [u8; 32] = mls.member_at(index)?.signature_key.as_slice().try_into().ok()?;
    Some(device_id(&key))
}

impl Group {
    /// Founds a group in epoch 0, with this device alone. Its first commit makes it exist for others.
    ///
    /// # Errors
    /// The rule that the group would break.
    pub fn found(
        core: &Core,
        key: &DeviceKey,
        chain: &Chain,
        charter: Charter,
        state: &GroupState,
        policy: Option<&SignedPolicy>,
    ) -> Result<Self, CommitError> {
        let storage = Storage::default();
        let extensions = context_extensions(&charter.to_bytes(), policy.map(SignedPolicy::bytes), state.to_bytes())
            .ok_or_else(|| GroupError::Internal("extensions".to_owned()))?;
        let id = charter.group();
        let mls = MlsGroup::new_with_group_id(
            &core.with(&storage),
            &DeviceSigner(key),
            &create_config(extensions),
            MlsGroupId::from_slice(id.as_bytes()),
            credential(chain, key),
        )
        .map_err(GroupError::of)?;
        let view = Self::read(&mls).map_err(CommitError::Judged)?;
        judge(None, &view).map_err(CommitError::Judged)?;
        Ok(Self { id, mls, storage, view, own: key.device() })
    }

    fn read(mls: &MlsGroup) -> Result<GroupView, Rule> {
        GroupView::of(mls.public_group().group_context(), member_view(mls)?, None)
    }

    /// Loads a group from the rows of its deltas, a pending commit included.
    ///
    /// # Errors
    /// If the rows are not whole.
    pub fn load(
        id: GroupId,
        own: DeviceId,
        rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<Self, GroupError> {
        Self::from_storage(id, own, Storage::from_rows(rows))
    }

    fn from_storage(id: GroupId, own: DeviceId, storage: Storage) -> Result<Self, GroupError> {
        let mls = MlsGroup::load(&storage, &MlsGroupId::from_slice(id.as_bytes()))
            .map_err(GroupError::of)?
            .ok_or_else(|| GroupError::Internal("the group's MLS state is not whole".to_owned()))?;
        let view = Self::read(&mls).map_err(GroupError::of)?;
        Ok(Self { id, mls, storage, view, own })
    }

    /// mls.joining.1: joins by a Welcome for a KeyPackage whose private part is in `device`. The KeyPackage is used up there unless it
    /// is the last-resort one; nothing is changed if this fails.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub fn join(core: &Core, device: &Storage, own: DeviceId, welcome: &[u8]) -> Result<Self, JoinError> {
        let invalid = |error: &dyn core::fmt::Display| JoinError::Invalid(error.to_string());
        if welcome.len() > WELCOME_BYTES_MAX + GROUP_INFO_BYTES_MAX {
            return Err(invalid(&"too large"));
        }
        let message = MlsMessageIn::tls_deserialize_exact(welcome).map_err(|error| invalid(&error))?;
        let MlsMessageBodyIn::Welcome(welcome) = message.extract() else {
            return Err(invalid(&"not a Welcome"));
        };
        let [secret] = welcome.secrets() else {
            return Err(invalid(&"not for one device"));
        };
        let (key, value) = device.key_package_row(&secret.new_member()).ok_or(JoinError::UnknownPackage)?;
        let storage = Storage::from_rows([(key.clone(), value)]);
        let provider = core.with(&storage);
        let staged = StagedWelcome::build_from_welcome(&provider, &join_config(), welcome)
            .map_err(|error| invalid(&error))?
            .skip_lifetime_validation()
            .replace_old_group()
            .build()
            .map_err(|error| invalid(&error))?;
        let mls = staged.into_group(&provider).map_err(|error| invalid(&error))?;
        let view = Self::read(&mls).map_err(JoinError::Judged)?;
        judge(None, &view).map_err(JoinError::Judged)?;
        if device_at(&mls, mls.own_leaf_index()) != Some(own) {
            return Err(invalid(&"for another device"));
        }
        if !storage.contains(&key) {
            device.remove(key.clone()).map_err(|error| invalid(&error))?;
        }
        storage.remove(key).map_err(|error| invalid(&error))?;
        Ok(Self { id: view.group, mls, storage, view, own })
    }

    /// The group.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// Its epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.mls.epoch().as_u64())
    }

    /// Who is in it, and its state.
    #[must_use]
    pub fn view(&self) -> &GroupView {
        &self.view
    }

    /// Whether this device is (still) a member.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.mls.is_active()
    }

    /// Equal for all members of an epoch; unequal means a fork (RFC 9420, section 8.7).
    #[must_use]
    pub fn epoch_authenticator(&self) -> Vec<u8> {
        self.mls.epoch_authenticator().as_slice().to_vec()
    }

    /// The access token of this epoch: `MLS-Exporter("chancery relay access", group_id, 32)` (mls.token.1).
    ///
    /// # Errors
    /// If OpenMLS fails.
    pub fn token(&self, core: &Core) -> Result<AccessToken, GroupError> {
        let bytes =
            self.mls.export_secret(core.crypto(), ACCESS_LABEL, self.id.as_bytes(), 32).map_err(GroupError::of)?;
        token(bytes)
    }

    /// The key of this epoch's notices: `MLS-Exporter("chancery notice", group_id, 32)` (mls.notice.1).
    ///
    /// # Errors
    /// If OpenMLS fails.
    pub fn notice_key(&self, core: &Core) -> Result<Secret32, GroupError> {
        let bytes = self.mls.export_secret(core.crypto(), NOTICE_LABEL, self.id.as_bytes(), 32);
        let bytes = Zeroizing::new(bytes.map_err(GroupError::of)?);
        Secret32::from_slice(&bytes).ok_or_else(|| GroupError::Internal("exporter".to_owned()))
    }

    /// Encrypts a padded envelope. Persist the delta before the bytes leave the process.
    ///
    /// # Errors
    /// If this device is not a member or OpenMLS fails.
    pub fn encrypt(&mut self, core: &Core, key: &DeviceKey, plaintext: &[u8]) -> Result<Vec<u8>, GroupError> {
        let message = self
            .mls
            .create_message(&core.with(&self.storage), &DeviceSigner(key), plaintext)
            .map_err(GroupError::of)?;
        message.to_bytes().map_err(GroupError::of)
    }

    /// Processes an entry of another device. On an error memory and rows are as before.
    ///
    /// # Errors
    /// See [`ProcessError`].
    pub fn process(&mut self, core: &Core, body: &[u8]) -> Result<Processed, ProcessError> {
        let void = |error: &dyn core::fmt::Display| ProcessError::Void(error.to_string());
        let message = MlsMessageIn::tls_deserialize_exact(body).map_err(|error| void(&error))?;
        let message = message.try_into_protocol_message().map_err(|error| void(&error))?;
        let epoch = Epoch(message.epoch().as_u64());
        if epoch > self.epoch() {
            return Err(ProcessError::Ahead(epoch));
        }
        core.crypto().take_sender();
        let (mls, storage) = (&mut self.mls, &self.storage);
        let processed = storage.deferring(|| mls.process_message(&core.with(storage), message)).map_err(|error| {
            // mls.notice.8: the path comes after the signature, so whom the sender data name has signed a commit whose
            // path fails.
            let leaf = core.crypto().take_sender().and_then(|index| device_at(&self.mls, LeafNodeIndex::new(index)));
            let by = leaf.and_then(|device| self.view.leaves.get(&device)).map(|leaf| leaf.identity.account());
            classify(&error, by)
        })?;
        let sender = match processed.sender() {
            Sender::Member(index) => device_at(&self.mls, *index),
            _ => None,
        };
        let leaf = sender.and_then(|device| self.view.leaves.get(&device)).cloned();
        match (processed.into_content(), leaf) {
            (ProcessedMessageContent::ApplicationMessage(message), Some(sender)) => {
                judge::may_speak(&sender).map_err(|rule| void(&rule))?;
                Ok(Processed::Application { sender, plaintext: message.into_bytes() })
            }
            (ProcessedMessageContent::StagedCommitMessage(staged), Some(committer)) => {
                let (accepted, commit, after) = self.judged(sender, &staged).map_err(|rule| void(&rule))?;
                let added = commit.added;
                Ok(Processed::Commit(Box::new(StagedChange { accepted, staged: *staged, committer, added, after })))
            }
            (ProcessedMessageContent::OwnPrivateMessage, _) => Err(ProcessError::OwnLeaf),
            _ => Err(void(&Rule::NotAMember)),
        }
    }

    fn judged(
        &self,
        committer: Option<DeviceId>,
        staged: &StagedCommit,
    ) -> Result<(Accepted, CommitView, GroupView), Rule> {
        let at = |index| device_at(&self.mls, LeafNodeIndex::new(index));
        let (commit, after) = view::staged(&self.view, committer, staged, at)?;
        let accepted = judge(Some((&self.view, &commit)), &after)?;
        Ok((accepted, commit, after))
    }

    /// Merges a judged commit.
    ///
    /// # Errors
    /// If OpenMLS fails; then load the group again.
    pub fn merge(&mut self, core: &Core, change: StagedChange) -> Result<Merged, GroupError> {
        let StagedChange { accepted: _accepted, staged, committer, added, after } = change;
        let removed = staged.self_removed();
        // The judge's proof is consumed here: the one place where another's commit is merged.
        #[allow(clippy::disallowed_methods, reason = "this is the module that merges")]
        self.mls.merge_staged_commit(&core.with(&self.storage), staged).map_err(GroupError::of)?;
        let before = core::mem::replace(&mut self.view, after);
        Ok(Merged { committer, added, before, removed })
    }

    /// Makes a commit and keeps it pending. Persist the delta before the bytes leave the process.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn commit(&mut self, core: &Core, key: &DeviceKey, change: &Change) -> Result<Prepared, CommitError> {
        let prepared = self.try_commit(core, key, change);
        if prepared.is_err() {
            // OpenMLS may have staged it before a rule spoke: forget that, in memory and in rows.
            let _ = self.mls.clear_pending_commit(&self.storage);
        }
        prepared
    }

    fn try_commit(&mut self, core: &Core, key: &DeviceKey, change: &Change) -> Result<Prepared, CommitError> {
        let indexes: Vec<LeafNodeIndex> = self
            .mls
            .members()
            .filter(|member| {
                let key: Option<[u8; 32]> = member.signature_key.as_slice().try_into().ok();
                key.is_some_and(|key| change.removes.contains(&device_id(&key)))
            })
            .map(|member| member.index)
            .collect();
        let provider = core.with(&self.storage);
        let mut builder = self
            .mls
            .commit_builder()
            .consume_proposal_store(false)
            .force_self_update(true)
            .propose_adds(change.adds.iter().map(|offered| offered.package.clone()))
            .propose_removals(indexes);
        if change.state.is_some() || change.policy.is_some() {
            let state = change.state.as_ref().unwrap_or(&self.view.state);
            let policy = change.policy.as_ref().or(self.view.policy.as_deref()).map(SignedPolicy::bytes);
            let extensions = context_extensions(&self.view.charter.to_bytes(), policy, state.to_bytes())
                .ok_or_else(|| GroupError::Internal("extensions".to_owned()))?;
            builder = builder.propose_group_context_extensions(extensions).map_err(GroupError::of)?;
        }
        let rand = openmls_traits::OpenMlsProvider::rand(&provider);
        let bundle = builder
            .load_psks(&self.storage)
            .map_err(GroupError::of)?
            .build(rand, core.crypto(), &DeviceSigner(key), |_| true)
            .map_err(GroupError::of)?
            .stage_commit(&provider)
            .map_err(GroupError::of)?;
        let commit = bundle.commit().to_bytes().map_err(GroupError::of)?;
        let Copies { copies: welcomes, group_info } = match bundle.welcome() {
            Some(welcome) => welcome::split(core, welcome, &change.adds)?,
            None => Copies::default(),
        };
        let pending = self.pending()?;
        self.judged(Some(self.own), pending).map_err(CommitError::Judged)?;
        let next =
            pending.export_secret(core.crypto(), ACCESS_LABEL, self.id.as_bytes(), 32).map_err(GroupError::of)?;
        Ok(Prepared { commit, next_token: token(next)?.hash(), welcomes, group_info })
    }

    fn pending(&self) -> Result<&StagedCommit, GroupError> {
        self.mls.pending_commit().ok_or_else(|| GroupError::Internal("no commit is pending".to_owned()))
    }

    /// Whether a commit of this device waits for its place.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.mls.pending_commit().is_some()
    }

    /// Merges this device's own commit, which has got its place.
    ///
    /// # Errors
    /// If none is pending or OpenMLS fails.
    pub fn merge_pending(&mut self, core: &Core) -> Result<Merged, GroupError> {
        let (accepted, commit, after) = self.judged(Some(self.own), self.pending()?).map_err(GroupError::of)?;
        let _proof: Accepted = accepted;
        let committer = self
            .view
            .leaves
            .get(&self.own)
            .cloned()
            .ok_or_else(|| GroupError::Internal("this device is not a member".to_owned()))?;
        #[allow(clippy::disallowed_methods, reason = "this is the module that merges")]
        self.mls.merge_pending_commit(&core.with(&self.storage)).map_err(GroupError::of)?;
        let before = core::mem::replace(&mut self.view, after);
        Ok(Merged { committer, added: commit.added, before, removed: false })
    }

    /// Forgets this device's own commit, whose place another one took.
    ///
    /// # Errors
    /// If OpenMLS fails.
    pub fn clear_pending(&mut self) -> Result<(), GroupError> {
        self.mls.clear_pending_commit(&self.storage).map_err(GroupError::of)
    }

    /// Deletes every row, secrets included; the group cannot be used after it.
    pub fn erase(&mut self) {
        self.storage.clear();
    }

    /// Takes what has changed since the last call.
    pub fn take_delta(&mut self, core: &Core, out: &mut Vec<RowWrite>) {
        if self.storage.has_unwritten() {
            // There are no past epochs: of all that OpenMLS offers this writes the secrets and changes nothing. If it fails,
            // which no working storage does, a crash lets a message be opened again, and it is known then.
            let _ = self.mls.delete_past_epoch_secrets(&core.with(&self.storage), PastEpochDeletion::delete_all());
        }
        self.storage.take_delta(&[[0].as_slice(), self.id.as_bytes()].concat(), out);
    }

    /// Forgets what has changed since the last delta and loads the group as it was then.
    ///
    /// # Errors
    /// If the rows are not whole.
    pub fn roll_back(self) -> Result<Self, GroupError> {
        self.storage.roll_back();
        Self::from_storage(self.id, self.own, self.storage)
    }
}

fn token(bytes: Vec<u8>) -> Result<AccessToken, GroupError> {
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| GroupError::Internal("exporter".to_owned()))?;
    Ok(AccessToken::new(bytes))
}

/// VOID, STUCK or neither, by `spec/mls-profile.md#outcomes` (mls.outcome.1); `by` is whom the sender data name.
fn classify<E: core::fmt::Display>(error: &ProcessMessageError<E>, by: Option<AccountId>) -> ProcessError {
    let stuck = |by, commit: &StageCommitError| ProcessError::Stuck { by, reason: commit.to_string() };
    match error {
        ProcessMessageError::StorageError(error) => ProcessError::Storage(error.to_string()),
        ProcessMessageError::InvalidCommit(commit) => match commit {
            // My path secret is absent, does not open or does not match: others may be able to follow.
            StageCommitError::UpdatePathError(
                ApplyUpdatePathError::UnableToDecrypt
                | ApplyUpdatePathError::PathMismatch
                | ApplyUpdatePathError::MissingCiphertext,
            ) => stuck(by, commit),
            // This device holds no key for the path (OpenMLS says `MissingSender`, too): that is nobody's fault.
            StageCommitError::UpdatePathError(
                ApplyUpdatePathError::MissingSender | ApplyUpdatePathError::MissingOwnLeaf,
            )
            | StageCommitError::MissingDecryptionKey
            | StageCommitError::OwnKeyNotFound => stuck(None, commit),
            _ => ProcessError::Void(commit.to_string()),
        },
        other => ProcessError::Void(other.to_string()),
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests;
