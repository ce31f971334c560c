//! Blobs: ciphertext that devices store by the hash of its bytes, part by part, in a folder. `spec/blobs.md`.
//!
//! This module does not know what a blob is of, nor for whom: whoever knows its name may read it.

use std::{
    collections::HashMap,
    io,
    path::Path as Folder,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chancery_protocol::{
    error::Refusal,
    identity::{Chain, DeviceIdentity, IdentityError, certificate::At, verify_chain},
    ids::{AccountId, BlobName},
    limits::{BLOB_BYTES_MAX, BLOB_BYTES_PER_DAY_MAX},
    relay::Admission,
    secret::Secret32,
    time::Timestamp,
    wire::{
        Blob, Frame,
        blobs::{BlobPart, BlobRef, BlobStands, GetBlob, PutBlob},
    },
};
use chancery_quic::{CloseCode, FrameReader, FrameWriter, Peer};
use hmac::{Hmac, KeyInit as _, Mac as _};
use object_store::{
    Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutPayload, local::LocalFileSystem, path::Path,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, watch};

use crate::{clock::Clock, metrics};

/// How long one request may take to come, or its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections that are served at the same time: each holds a part in memory.
const CONNECTIONS_MAX: usize = 64;
/// Requests of one connection: those of the longest blob, and some.
const REQUESTS_MAX: usize = 1_024;
/// How long a blob that is not whole is kept.
const PARTS_KEPT: Duration = Duration::from_secs(86_400);
/// How much longer than the entries of groups blobs are kept: they are stored before the entry that names them.
const BEYOND_RETENTION: Duration = Duration::from_secs(86_400);
const EXPIRE_EVERY: Duration = Duration::from_secs(3_600);
const DAY_MS: u64 = 86_400_000;
/// Blobs are written one after the other within each of so many classes.
const TURNS: usize = 16;

/// Serves blobs. Clones are the same desk.
#[derive(Clone, Debug)]
pub(crate) struct BlobDesk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: LocalFileSystem,
    admission: watch::Receiver<Admission>,
    clock: Clock,
    /// Makes of an account the name under which its unfinished blobs stand.
    tag_key: Secret32,
    retention: Duration,
    turns: [tokio::sync::Mutex<()>; TURNS],
    places: Semaphore,
    spent: Mutex<Spent>,
}

/// Bytes that accounts have stored today.
#[derive(Debug, Default)]
struct Spent {
    day: u64,
    bytes: HashMap<AccountId, u64>,
}

impl BlobDesk {
    /// Makes the folder if it is missing. `secret` stays the same for a deployment.
    ///
    /// # Errors
    /// If the folder cannot be made or used.
    pub(crate) fn open(
        folder: &Folder,
        secret: &Secret32,
        admission: watch::Receiver<Admission>,
        retention: Duration,
        clock: Clock,
    ) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        sweep(folder)?;
        // blobs.put.3: what is acknowledged is on the disk.
        let store = LocalFileSystem::new_with_prefix(folder).map_err(io::Error::other)?.with_fsync(true);
        let mut tag_key = Sha256::new();
        tag_key.update(b"chancery relay blobs");
        tag_key.update(secret.expose());
        Ok(Self(Arc::new(Inner {
            store: store.with_automatic_cleanup(true),
            admission,
            clock,
            tag_key: Secret32::new(tag_key.finalize().into()),
            retention: retention.saturating_add(BEYOND_RETENTION),
            turns: Default::default(),
            places: Semaphore::new(CONNECTIONS_MAX),
            spent: Mutex::default(),
        })))
    }

    /// Serves one connection on `chancery-blobs/1`.
    pub(crate) async fn serve(&self, peer: Peer) {
        let Ok(_place) = self.0.places.try_acquire() else { return peer.connection.abort(CloseCode::Refused) };
        if let Ok(Ok((mut writer, mut reader))) = tokio::time::timeout(PATIENCE, peer.connection.accept_blobs()).await {
            for _ in 0..REQUESTS_MAX {
                let served = self.request(peer.chain.as_ref(), &mut writer, &mut reader);
                if !tokio::time::timeout(PATIENCE, served).await.unwrap_or(false) {
                    break;
                }
            }
            writer.finish(PATIENCE).await;
        }
        peer.connection.abort(CloseCode::Done);
    }

    /// Whether another request may follow.
    async fn request(&self, chain: Option<&Chain>, writer: &mut FrameWriter, reader: &mut FrameReader) -> bool {
        let Ok(Some(taken)) = reader.next().await else { return false };
        let answer = match (taken.frame, self.0.admitted(chain)) {
            (_, Err(refusal)) => Err(refusal),
            (Ok(Frame::PutBlob(put)), Ok(identity)) => {
                self.0.put(identity.account(), put).await.map(|have| Frame::BlobStands(BlobStands { have }))
            }
            (Ok(Frame::GetBlob(get)), Ok(_)) => {
                self.0.get(get).await.map(|bytes| Frame::BlobPart(BlobPart { bytes: Blob(bytes) }))
            }
            _ => Err(Refusal::Malformed),
        };
        let goes_on = answer.is_ok();
        let frame = answer.unwrap_or_else(|refusal| {
            metrics::refused(refusal.code());
            Frame::BlobRefused(refusal)
        });
        writer.write(&[Arc::from(frame.to_bytes(taken.correlation))]).await.is_ok() && goes_on
    }

    /// Deletes what is over, once an hour, until the task is dropped.
    pub(crate) async fn expire(self) {
        loop {
            if let Err(error) = self.0.expire_once().await {
                tracing::error!(%error, "old blobs cannot be deleted");
            }
            tokio::time::sleep(EXPIRE_EVERY).await;
        }
    }
}

impl Inner {
    /// blobs.access.1: as on the relay's own connections.
    fn admitted(&self, chain: Option<&Chain>) -> Result<DeviceIdentity, Refusal> {
        let chain = chain.ok_or(Refusal::CertificateMissing)?;
        let identity = verify_chain(chain, At::Moment(self.clock.now())).map_err(|error| match error {
            IdentityError::Expired => Refusal::CertificateExpired,
            _ => Refusal::CertificateInvalid,
        })?;
        self.admission.borrow().admits(&identity)?;
        Ok(identity)
    }

    /// How many bytes of the blob there are now.
    async fn put(&self, account: AccountId, put: PutBlob) -> Result<u64, Refusal> {
        let PutBlob { blob, offset, bytes } = put;
        if !blob.is_sane() {
            return Err(Refusal::TooLarge { bytes_max: BLOB_BYTES_MAX });
        }
        let turn = blob.name.0.first().map_or(0, |first| usize::from(*first) % TURNS);
        let Some(turn) = self.turns.get(turn) else { return Err(Refusal::StoreFailed) };
        let _turn = turn.lock().await;
        if let Some(whole) = self.size(&whole(blob.name)).await? {
            return if whole == blob.size { Ok(whole) } else { Err(Refusal::BlobMismatch) };
        }
        // blobs.put.2: nobody adds to what another account has begun.
        let begun = self.begun(account, blob)?;
        let have = self.parts(&begun).await?.iter().map(|part| part.size).sum();
        if bytes.is_empty() || offset != have {
            return Ok(have);
        }
        if blob.part(offset) != Some(bytes.len() as u64) {
            return Err(Refusal::Malformed);
        }
        self.spend(account, bytes.len() as u64)?;
        metrics::blob_bytes("stored", bytes.len());
        let at = begun.clone().join(format!("{offset:012}"));
        self.store.put(&at, PutPayload::from(bytes.0)).await.map_err(|error| failed(&error))?;
        let have = have + blob.part(offset).unwrap_or(0);
        if have == blob.size {
            self.join(blob, &begun).await?;
        }
        Ok(have)
    }

    /// All parts are there: they become the blob, if they are what its name says. (blobs.put.1)
    async fn join(&self, blob: BlobRef, begun: &Path) -> Result<(), Refusal> {
        let parts = self.parts(begun).await?;
        let mut upload = self.store.put_multipart(&whole(blob.name)).await.map_err(|error| failed(&error))?;
        let mut hash = Sha256::new();
        for part in &parts {
            let bytes = self.store.get(&part.location).await.map_err(|error| failed(&error))?;
            let bytes = bytes.bytes().await.map_err(|error| failed(&error))?;
            hash.update(&bytes);
            upload.put_part(PutPayload::from(bytes)).await.map_err(|error| failed(&error))?;
        }
        let matches = hash.finalize()[..] == *blob.name.as_bytes();
        if matches {
            upload.complete().await.map_err(|error| failed(&error))?;
        } else {
            // What is left of it is deleted with the folder of parts that nobody asks for.
            let _ = upload.abort().await;
        }
        for part in &parts {
            self.store.delete(&part.location).await.map_err(|error| failed(&error))?;
        }
        if matches { Ok(()) } else { Err(Refusal::BlobMismatch) }
    }

    async fn get(&self, get: GetBlob) -> Result<Vec<u8>, Refusal> {
        let GetBlob { blob, offset } = get;
        let at = whole(blob.name);
        if self.size(&at).await? != Some(blob.size) {
            return Err(Refusal::UnknownBlob);
        }
        let len = blob.part(offset).ok_or(Refusal::Malformed)?;
        let bytes = self.store.get_range(&at, offset..offset + len).await.map_err(|error| failed(&error))?;
        metrics::blob_bytes("read", bytes.len());
        Ok(bytes.to_vec())
    }

    async fn size(&self, at: &Path) -> Result<Option<u64>, Refusal> {
        match self.store.head(at).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    /// The parts of a blob that is not whole, in order.
    async fn parts(&self, begun: &Path) -> Result<Vec<ObjectMeta>, Refusal> {
        let mut parts = self.store.list_with_delimiter(Some(begun)).await.map_err(|error| failed(&error))?.objects;
        parts.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(parts)
    }

    /// Where the parts of an account's blob stand.
    fn begun(&self, account: AccountId, blob: BlobRef) -> Result<Path, Refusal> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.tag_key.expose()).map_err(|_| Refusal::StoreFailed)?;
        mac.update(account.as_bytes());
        mac.update(blob.name.as_bytes());
        let tag = data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes());
        Ok(Path::from(format!("parts/{tag}")))
    }

    /// blobs.quota.1
    fn spend(&self, account: AccountId, bytes: u64) -> Result<(), Refusal> {
        let Timestamp(now) = self.clock.now();
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.day != now / DAY_MS {
            *spent = Spent { day: now / DAY_MS, bytes: HashMap::new() };
        }
        let spent = spent.bytes.entry(account).or_default();
        if spent.saturating_add(bytes) > BLOB_BYTES_PER_DAY_MAX {
            return Err(Refusal::RateLimited { retry_after_ms: DAY_MS - now % DAY_MS });
        }
        *spent += bytes;
        Ok(())
    }

    /// blobs.expiry.1
    async fn expire_once(&self) -> Result<(), StoreError> {
        let now = i64::try_from(self.clock.now().0).unwrap_or(i64::MAX);
        let before = |age: Duration| now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        for (folder, kept) in [("whole", self.retention), ("parts", PARTS_KEPT)] {
            let shelves = self.store.list_with_delimiter(Some(&Path::from(folder))).await?.common_prefixes;
            for shelf in shelves {
                for object in self.store.list_with_delimiter(Some(&shelf)).await?.objects {
                    if object.last_modified.timestamp_millis() < before(kept) {
                        self.store.delete(&object.location).await?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Deletes what a process left half written when it ended: the store writes into files of names that it does not list,
/// before it gives them their own, so that nothing else would ever find them. (blobs.expiry.2)
fn sweep(folder: &Folder) -> io::Result<()> {
    for kind in ["whole", "parts"] {
        for shelf in entries(&folder.join(kind))? {
            for file in entries(&shelf)? {
                let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                // A staged file has the name of its object, "#" and a number.
                let staged = name.rsplit_once('#').is_some_and(|(_, number)| number.parse::<u64>().is_ok());
                if staged {
                    std::fs::remove_file(&file)?;
                }
            }
        }
    }
    Ok(())
}

/// What is in a folder, if there is one.
fn entries(folder: &Folder) -> io::Result<Vec<std::path::PathBuf>> {
    match std::fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        found => found?.map(|entry| entry.map(|entry| entry.path())).collect(),
    }
}

/// Where a blob stands that is whole: 256 shelves.
fn whole(name: BlobName) -> Path {
    let name = name.to_string();
    Path::from(format!("whole/{}/{name}", name.get(..2).unwrap_or_default()))
}

fn failed(error: &StoreError) -> Refusal {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(one) = cause {
        if one.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::StorageFull) {
            return Refusal::StoreFull;
        }
        cause = one.source();
    }
    tracing::error!(%error, "the folder of blobs cannot be used");
    Refusal::StoreFailed
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{fs, time::SystemTime};

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn desk(folder: &Folder) -> BlobDesk {
        let (_, admission) = watch::channel(Admission::default());
        BlobDesk::open(folder, &Secret32::new([1; 32]), admission, 2 * DAY, Clock::default()).unwrap()
    }

    fn age(folder: &Folder, by: Duration) -> usize {
        let mut found = 0;
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                found += age(&entry.path(), by);
            } else {
                fs::File::options()
                    .write(true)
                    .open(entry.path())
                    .unwrap()
                    .set_modified(SystemTime::now() - by)
                    .unwrap();
                found += 1;
            }
        }
        found
    }

    fn files(folder: &Folder) -> usize {
        let below = entries(folder).unwrap();
        below.iter().map(|path| if path.is_dir() { files(path) } else { 1 }).sum()
    }

    // proves blobs.expiry.2
    #[tokio::test]
    async fn what_was_half_written_when_the_process_ended_is_gone_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let first = desk(folder.path());
        let whole_one = BlobRef::to(&[7; 10]);
        let put = PutBlob { blob: whole_one, offset: 0, bytes: Blob(vec![7; 10]) };
        first.0.put(AccountId([1; 32]), put).await.unwrap();
        for path in [whole(BlobName([9; 32])), Path::from("parts/tag/000000000000")] {
            let mut upload = first.0.store.put_multipart(&path).await.unwrap();
            upload.put_part(PutPayload::from(vec![1; 100])).await.unwrap();
            // The process ends here: nobody cleans up.
            core::mem::forget(upload);
        }
        drop(first);
        assert_eq!(files(folder.path()), 3);
        let again = desk(folder.path());
        assert_eq!(files(folder.path()), 1);
        assert_eq!(again.0.get(GetBlob { blob: whole_one, offset: 0 }).await, Ok(vec![7; 10]));
    }

    // proves blobs.quota.1
    #[test]
    fn an_account_stores_so_much_in_a_day_and_another_one_too() {
        let folder = tempfile::tempdir().unwrap();
        let desk = desk(folder.path());
        let (ana, li) = (AccountId([1; 32]), AccountId([2; 32]));
        assert_eq!(desk.0.spend(ana, BLOB_BYTES_PER_DAY_MAX - 1), Ok(()));
        assert_eq!(desk.0.spend(ana, 1), Ok(()));
        assert!(matches!(desk.0.spend(ana, 1), Err(Refusal::RateLimited { retry_after_ms: 1..=DAY_MS })));
        assert_eq!(desk.0.spend(li, 1), Ok(()));
        desk.0.spent.lock().unwrap().day -= 1;
        assert_eq!(desk.0.spend(ana, 1), Ok(()));
    }

    // proves blobs.expiry.1
    #[tokio::test]
    async fn a_blob_goes_a_day_after_entries_of_its_age_and_what_is_not_whole_after_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let desk = desk(folder.path());
        let part = usize::try_from(chancery_protocol::limits::BLOB_PART_BYTES_MAX).unwrap();
        let (whole, begun) = (BlobRef::to(&[7; 10]), BlobRef { name: BlobName([9; 32]), size: 2 << 20 });
        let put =
            |blob, bytes: Vec<u8>| desk.0.put(AccountId([1; 32]), PutBlob { blob, offset: 0, bytes: Blob(bytes) });
        put(whole, vec![7; 10]).await.unwrap();
        put(begun, vec![7; part]).await.unwrap();
        for (age_of_all, left) in [(DAY / 2, 2), (DAY * 2, 1), (DAY * 29 / 10, 1), (DAY * 31 / 10, 0)] {
            age(folder.path(), age_of_all);
            desk.0.expire_once().await.unwrap();
            assert_eq!(age(folder.path(), age_of_all), left, "{age_of_all:?}");
        }
    }
}
