//! The archive of runs with an escrow node: its policies, and its keys, which one dealer has made, so that what is sealed can be
//! opened and compared.
//!
//! This module does not compare; `check::archive` does. It seals nothing: the product's machine does.

use chancery_protocol::{
    capture::{
        BACKUP_SPACES,
        group::{Place, SegmentRecord},
        log::{ArchiveLog, public_key},
        seal_entry::record_key,
    },
    client::{Command, Reply, RowWrite, Space},
    escrow::{
        ArchiveKey, KeyShare, Opening, Record, Scope, ScopeHeader, ScopeKey, SealedRecord,
        retention::{Period, RetentionKey},
        threshold::{combine, deal},
    },
    identity::{DeviceIdentity, DeviceKey},
    ids::{GroupId, OpeningHash, PolicyHash, SegmentId, Seq, SpkiPin},
    mls::{
        EscrowPolicy, PolicyCertificate, SignedPolicy,
        policy::{PolicyMode, PolicyNotice, escrow_key_hash},
    },
    secret::{Random, Secret32},
    time::Timestamp,
    wire::{Blob, decode_exact, encode},
};

use super::{
    super::{Attack, Bug, disk::Rows, generate::below},
    World,
};

/// Seed of the key of the organisation's root.
const ROOT: u8 = 1;
/// Archive keys that follow one another.
const GENERATIONS: u32 = 2;

/// A segment that was opened.
pub(in crate::world) struct Opened {
    pub header: ScopeHeader,
    pub row: SegmentRecord,
    pub key: ScopeKey,
    pub records: Vec<Record>,
}

pub(in crate::world) struct Archive {
    /// The node that the policies name.
    pub node: usize,
    keys: Vec<(ArchiveKey, Vec<KeyShare>)>,
    policies: Vec<SignedPolicy>,
    /// One that names another node, and follows none.
    swap: SignedPolicy,
    /// The first row of the node, by which its log has a key that a policy can name.
    pub born: RowWrite,
}

fn first_policy(node: &DeviceIdentity, key: &ArchiveKey, log_key: [u8; 32]) -> EscrowPolicy {
    EscrowPolicy {
        layout: 1,
        id: "desk".to_owned(),
        version: 1,
        previous: None,
        tenant: node.root(),
        effective_from: Timestamp(0),
        document_hash: [3; 32],
        document_url: "https://home.example/policy".to_owned(),
        purpose: "Records of the desk.".to_owned(),
        retention_class: "seven-years".to_owned(),
        mode: PolicyMode::Required,
        escrow: node.handle().unwrap().clone(),
        escrow_key: escrow_key_hash(node.public_key()),
        archive_key: key.public().to_bytes(),
        archive_generation: key.generation(),
        quorum: 2,
        seats: 3,
        seats_hash: [4; 32],
        log_key,
        endpoint: "archive.home.example:4433".parse().unwrap(),
        endpoint_pin: SpkiPin([6; 32]),
        notices: vec![PolicyNotice { language: "en".to_owned(), text: "This group is archived.".to_owned() }],
    }
}

/// The header of a segment, from under the retention key of its period.
fn header(segment: &SegmentRecord, kept: impl Fn(Vec<u8>) -> Option<Vec<u8>>) -> Option<ScopeHeader> {
    let period = Period::of(&Scope::from_bytes(&segment.scope)?);
    let key: RetentionKey = decode_exact("a retention key", &kept(period.to_bytes())?).ok()?;
    key.open(segment.header, &segment.sealed_header)
}

impl Archive {
    /// Of the node that is certified so; the other one is named by no policy that follows.
    pub fn new(number: usize, node: &DeviceIdentity, other: &DeviceIdentity) -> Self {
        let random = &mut Random::new([5; 32]);
        let keys: Vec<_> = (1..=GENERATIONS).map(|generation| deal(generation, 2, 3, random).unwrap()).collect();
        let root = DeviceKey::from_seed(Secret32::new([ROOT; 32])).unwrap();
        let signer = DeviceKey::from_seed(Secret32::new([8; 32])).unwrap();
        let certificate = PolicyCertificate::issue(&root, signer.public(), 1);
        let mut policies: Vec<SignedPolicy> = Vec::new();
        let (_, born) = ArchiveLog::open(&[], random).unwrap();
        let born = born.unwrap();
        let log_key = public_key(born.value.as_ref().unwrap()).unwrap();
        let mut next = first_policy(node, &keys[0].0, log_key);
        let swap = EscrowPolicy {
            version: 3,
            previous: Some(PolicyHash([1; 32])),
            ..first_policy(other, &keys[0].0, log_key)
        };
        let swap = swap.sign(&signer, &certificate).unwrap();
        let changes: [fn(&mut EscrowPolicy, &ArchiveKey); 4] = [
            |_, _| {},
            |policy, _| policy.purpose.push_str(" And of its customers."),
            |policy, _| policy.notices[0].text.push_str(" Its records are kept for seven years."),
            |policy, key| {
                policy.archive_key = key.public().to_bytes();
                policy.archive_generation = key.generation();
            },
        ];
        for (version, change) in (1..).zip(changes) {
            next.version = version;
            next.previous = policies.last().map(SignedPolicy::hash);
            change(&mut next, &keys[1].0);
            policies.push(next.sign(&signer, &certificate).unwrap());
        }
        Self { node: number, keys, policies, swap, born }
    }

    /// The policy of that version.
    fn policy(&self, version: u64) -> Option<Blob> {
        let policy = self.policies.iter().find(|policy| policy.policy().version == version)?;
        Some(Blob(policy.bytes().to_vec()))
    }

    /// What an administrator tries to bring in, who attacks.
    pub(super) fn forged(&self, attack: Attack) -> Blob {
        let policy = if attack == Attack::Swap { &self.swap } else { &self.policies[0] };
        Blob(policy.bytes().to_vec())
    }

    /// What two of three seats open.
    fn scope_key(&self, header: &ScopeHeader) -> Result<ScopeKey, String> {
        let (key, shares) = self
            .keys
            .iter()
            .find(|(key, _)| key.public() == header.archive())
            .ok_or("a segment is sealed to a key that is none of the archive's")?;
        let opening = Opening { request: OpeningHash([6; 32]), log_index: 0 };
        let random = &mut Random::new([7; 32]);
        let parts: Result<Vec<_>, _> =
            shares.iter().take(2).map(|share| share.decrypt(header, opening, random)).collect();
        let parts = parts.map_err(|error| error.to_string())?;
        Ok(combine(key, header, opening, &parts).map_err(|error| error.to_string())?.key)
    }

    /// All segments of a node's disk, opened, in the order of their ids.
    ///
    /// # Errors
    /// What does not open, or is missing.
    pub fn open(&self, rows: &Rows) -> Result<Vec<Opened>, String> {
        let all = rows.range((Space::Segment, Vec::new())..).take_while(|((space, _), _)| *space == Space::Segment);
        all.map(|((_, key), value)| self.open_segment(rows, key, value)).collect()
    }

    fn open_segment(&self, rows: &Rows, id: &[u8], row: &[u8]) -> Result<Opened, String> {
        let id = SegmentId::from_slice(id).ok_or("a segment without an id")?;
        let row: SegmentRecord = decode_exact("a segment", row).map_err(|error| error.to_string())?;
        let kept = |key: Vec<u8>| rows.get(&(Space::Retention, key)).cloned();
        let header = header(&row, kept).ok_or("the header of a segment does not come from under its retention key")?;
        let key = self.scope_key(&header)?;
        let record = |index: u64| -> Result<Record, String> {
            let missing = || format!("record {index} of a segment with {} is not there", row.records);
            let bytes = rows.get(&(Space::Record, record_key(id, index))).ok_or_else(missing)?;
            let sealed = SealedRecord::from_bytes(bytes).map_err(|error| error.to_string())?;
            let opened = sealed.open(&key, &header).map_err(|error| error.to_string())?;
            Record::from_bytes(&opened).map_err(|error| error.to_string())
        };
        let records = (0..row.records).map(record).collect::<Result<_, _>>()?;
        Ok(Opened { header, row, key, records })
    }

    /// What a node with a seeded bug writes of the segments of a transaction: their keys.
    pub(super) fn keys_of(&self, rows: &[RowWrite], disk: &Rows) -> Vec<RowWrite> {
        let kept = |key: Vec<u8>| {
            let fresh = rows.iter().find(|row| row.space == Space::Retention && row.key == key);
            fresh.and_then(|row| row.value.clone()).or_else(|| disk.get(&(Space::Retention, key)).cloned())
        };
        let of = |row: &&RowWrite| row.space == Space::Segment;
        let kept = rows.iter().filter(of).filter_map(|row| {
            let record: SegmentRecord = decode_exact("a segment", row.value.as_ref()?).ok()?;
            let key = self.scope_key(&header(&record, kept)?).ok()?;
            let value = Some(key.expose().to_vec());
            Some(RowWrite { space: Space::Host, key: row.key.clone(), value })
        });
        kept.collect()
    }
}

impl World {
    /// Whether a node archives.
    pub fn archives(&self, who: usize) -> bool {
        self.archive.as_ref().is_some_and(|archive| archive.node == who)
    }

    pub(super) fn found_escrowed(&mut self, who: usize, name: String) {
        if let Some(policy) = self.archive.as_ref().and_then(|archive| archive.policy(1)) {
            self.command(who, Command::FoundEscrowed { name, policy });
        }
    }

    /// What a client shows of a group's policy: its version, and its first notice if that is to be acknowledged.
    fn shown_policy(&mut self, who: usize, group: GroupId) -> Option<(u64, Option<PolicyNotice>)> {
        let id = self.command(who, Command::Policy { group });
        let Some(Ok(Reply::Policy(shown))) = self.done.remove(&id) else { return None };
        let notice = shown.policy.notices.first().filter(|_| shown.notice_due).cloned();
        Some((shown.policy.version, notice))
    }

    /// Brings in the policy behind the one that the client shows.
    pub(super) fn set_policy(&mut self, who: usize, group: GroupId) {
        let Some((version, _)) = self.shown_policy(who, group) else { return };
        if let Some(policy) = self.archive.as_ref().and_then(|archive| archive.policy(version + 1)) {
            self.command(who, Command::SetPolicy { group, policy });
        }
    }

    /// A user reads the notice that waits, if one does.
    pub(super) fn acknowledge(&mut self, who: usize, group: GroupId) {
        if let Some((_, Some(notice))) = self.shown_policy(who, group) {
            self.command(who, Command::Acknowledge { group, notice: notice.hash() });
        }
    }

    /// All who are honest do.
    pub fn acknowledge_all(&mut self) {
        if self.archive.is_none() {
            return;
        }
        for who in (0..self.nodes.len()).filter(|who| self.is_honest(*who) && !self.archives(*who)).collect::<Vec<_>>()
        {
            for group in self.groups.clone() {
                self.acknowledge(who, group);
            }
        }
    }

    /// A copy of the archive as it is, without MLS state and without retention keys.
    pub(super) fn back_up(&mut self) {
        let Some(archive) = &self.archive else { return };
        let mut rows = self.nodes[archive.node].disk.rows.clone();
        rows.retain(|(space, _), _| BACKUP_SPACES.contains(space));
        let has_log = rows.keys().any(|(space, _)| *space == Space::ArchiveEntry);
        self.backup = has_log.then_some(rows).or(self.backup.take());
    }

    /// The node's disk is lost; what its operator keeps elsewhere is the backup, and retention keys as they are now.
    pub(super) fn lose_state(&mut self) {
        let (Some(node), Some(mut rows)) = (self.archive.as_ref().map(|archive| archive.node), self.backup.clone())
        else {
            return;
        };
        let wake = self.soon(20_000);
        self.stop_client(node, 0, wake, None);
        let lost = std::mem::take(&mut self.nodes[node].disk.rows);
        for group in self.disk.groups() {
            let place = lost.get(&(Space::ArchiveGroup, group.as_bytes().to_vec()));
            let read = place.map_or(Seq(0), |row| decode_exact::<Place>("a place", row).unwrap().head.seq);
            self.evidence.stuck.insert((node, group, read.next()));
        }
        rows.extend(lost.into_iter().filter(|((space, _), _)| *space == Space::Retention));
        if self.bug == Some(Bug::HidesLoss) {
            for ((space, key), row) in &mut rows {
                let Some(head) = GroupId::from_slice(key).and_then(|group| self.disk.head(group)) else { continue };
                if *space == Space::ArchiveGroup {
                    let place: Place = decode_exact("a place", row).unwrap();
                    *row = encode(&Place { head, ..place });
                }
            }
        }
        let size = rows.keys().filter(|(space, _)| *space == Space::ArchiveEntry).count() as u64;
        self.evidence.restored_at.push(size);
        self.evidence.lost_at = Some(self.now);
        self.nodes[node].disk.rows = rows;
    }

    /// What a node's driver with a seeded bug makes of a transaction.
    pub(super) fn spoil_rows(&mut self, who: usize, rows: &mut Vec<RowWrite>) {
        let Some(archive) = self.archive.as_ref().filter(|archive| archive.node == who) else { return };
        match self.bug {
            Some(Bug::KeepsKeys) => rows.extend(archive.keys_of(rows, &self.nodes[who].disk.rows)),
            Some(Bug::KeepsEvents) => {
                let told = format!("{:?}", self.nodes[who].told).into_bytes();
                let key = self.now.0.to_be_bytes().to_vec();
                rows.push(RowWrite { space: Space::Host, key, value: Some(told) });
            }
            Some(Bug::LosesRecords) if below(&mut self.random, 16) == 0 => {
                rows.retain(|row| row.space != Space::Record);
            }
            Some(Bug::LosesReceipts) if below(&mut self.random, 16) == 0 => {
                rows.retain(|row| row.space != Space::Receipt);
            }
            Some(Bug::TwoTransactions) => {
                let (sealed, others) = std::mem::take(rows).into_iter().partition(|row| row.space >= Space::Archive);
                self.nodes[who].disk.write_through(sealed);
                *rows = others;
            }
            _ => {}
        }
    }
}
