//! Blobs over real connections, on a real folder.

use std::{path::Path, sync::Arc};

use chancery_protocol::{
    error::Refusal,
    identity::{Chain, DeviceKey},
    limits::{BLOB_BYTES_MAX, BLOB_PART_BYTES_MAX},
    wire::{
        Blob, Frame,
        blobs::{BlobRef, GetBlob, PutBlob},
    },
};
use chancery_quic::{FrameReader, FrameWriter, Protocol, connect};
use chancery_server::{Admin, Config, Server};

use crate::client::{deployment, enrol, handle, key, start};

const PART: usize = BLOB_PART_BYTES_MAX as usize;

struct Line {
    writer: FrameWriter,
    reader: FrameReader,
}

impl Line {
    async fn open(server: &Server, identity: Option<(&Chain, &DeviceKey)>) -> Self {
        let connection = connect(&[server.local_addr()], server.pin(), identity, Protocol::Blobs).await.unwrap();
        let (writer, reader) = connection.open_blobs().await.unwrap();
        Self { writer, reader }
    }

    async fn ask(&mut self, frame: Frame) -> Result<Frame, Refusal> {
        self.writer.write(&[Arc::from(frame.to_bytes(5))]).await.unwrap();
        let taken = self.reader.next().await.unwrap().unwrap();
        assert_eq!(taken.correlation, 5);
        match taken.frame.unwrap() {
            Frame::BlobRefused(refusal) => Err(refusal),
            answer => Ok(answer),
        }
    }

    async fn put(&mut self, blob: BlobRef, offset: u64, bytes: &[u8]) -> Result<u64, Refusal> {
        match self.ask(Frame::PutBlob(PutBlob { blob, offset, bytes: Blob(bytes.to_vec()) })).await? {
            Frame::BlobStands(stands) => Ok(stands.have),
            other => panic!("{other:?}"),
        }
    }

    async fn get(&mut self, blob: BlobRef, offset: u64) -> Result<Vec<u8>, Refusal> {
        match self.ask(Frame::GetBlob(GetBlob { blob, offset })).await? {
            Frame::BlobPart(part) => Ok(part.bytes.0),
            other => panic!("{other:?}"),
        }
    }
}

async fn device(config: &Config, name: &str, seed: u8) -> (Chain, DeviceKey) {
    let ticket = Admin::open(config).unwrap().add_account(&handle(name)).unwrap();
    let key = key(seed);
    (enrol(&ticket, &key).await.unwrap(), key)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 251 + at) as u8).collect()
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    found
}

// proves blobs.name.1, blobs.part.1, blobs.put.3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_is_stored_in_parts_goes_on_after_a_restart_and_is_read_by_whoever_knows_its_name() {
    let (_folder, config) = deployment(|_| {});
    let server = start(&config).await;
    let (ana, li) = (device(&config, "ana", 1).await, device(&config, "李雷", 2).await);
    let all = bytes(2 * PART + 10);
    let blob = BlobRef::to(&all);
    let mut line = Line::open(&server, Some((&ana.0, &ana.1))).await;
    assert_eq!(line.put(blob, 0, &[]).await, Ok(0));
    assert_eq!(line.put(blob, 0, &all[..PART]).await, Ok(PART as u64));
    // A part that is not the next one is not stored.
    assert_eq!(line.put(blob, 0, &all[..PART]).await, Ok(PART as u64));
    assert_eq!(line.put(blob, 2 * PART as u64, &all[2 * PART..]).await, Ok(PART as u64));
    server.shutdown().await;

    let server = start(&config).await;
    let mut line = Line::open(&server, Some((&ana.0, &ana.1))).await;
    assert_eq!(line.put(blob, 0, &[]).await, Ok(PART as u64));
    assert_eq!(line.put(blob, PART as u64, &all[PART..2 * PART]).await, Ok(2 * PART as u64));
    let mut other = Line::open(&server, Some((&li.0, &li.1))).await;
    assert_eq!(other.get(blob, 0).await, Err(Refusal::UnknownBlob), "not whole yet");
    assert_eq!(line.put(blob, 2 * PART as u64, &all[2 * PART..]).await, Ok(blob.size));

    let mut other = Line::open(&server, Some((&li.0, &li.1))).await;
    let mut read = Vec::new();
    while let Some(len) = blob.part(read.len() as u64) {
        let part = other.get(blob, read.len() as u64).await.unwrap();
        assert_eq!(part.len() as u64, len);
        read.extend(part);
    }
    assert_eq!(BlobRef::to(&read), blob);
    // Whoever stores it again learns that it is there; no part is left.
    assert_eq!(other.put(blob, 0, &[]).await, Ok(blob.size));
    assert_eq!(files(&config.blobs()).len(), 1);
    server.shutdown().await;
}

// proves blobs.put.1, blobs.put.2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_what_its_name_says_goes_and_nobody_spoils_what_another_stores() {
    let (_folder, config) = deployment(|_| {});
    let server = start(&config).await;
    let (ana, li) = (device(&config, "ana", 1).await, device(&config, "李雷", 2).await);
    let all = bytes(PART + 1);
    let blob = BlobRef::to(&all);
    let mut wrong = all.clone();
    wrong[7] ^= 1;
    let mut other = Line::open(&server, Some((&li.0, &li.1))).await;
    assert_eq!(other.put(blob, 0, &wrong[..PART]).await, Ok(PART as u64));
    let mut line = Line::open(&server, Some((&ana.0, &ana.1))).await;
    assert_eq!(line.put(blob, 0, &[]).await, Ok(0), "what li has begun is li's");
    assert_eq!(other.put(blob, PART as u64, &wrong[PART..]).await, Err(Refusal::BlobMismatch));
    assert_eq!(files(&config.blobs()), Vec::<std::path::PathBuf>::new());
    assert_eq!(line.put(blob, 0, &all[..PART]).await, Ok(PART as u64));
    assert_eq!(line.put(blob, PART as u64, &all[PART..]).await, Ok(blob.size));
    server.shutdown().await;
}

// proves blobs.access.1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_refused_and_so_is_who_is_not_let_in() {
    let (_folder, config) = deployment(|_| {});
    let server = start(&config).await;
    let ana = device(&config, "ana", 1).await;
    let all = bytes(PART);
    let blob = BlobRef::to(&all);
    let open = async || Line::open(&server, Some((&ana.0, &ana.1))).await;
    assert_eq!(open().await.put(blob, 0, &all[1..]).await, Err(Refusal::Malformed));
    assert_eq!(
        open().await.put(BlobRef { size: 0, ..blob }, 0, &[]).await,
        Err(Refusal::TooLarge { bytes_max: BLOB_BYTES_MAX })
    );
    let long = BlobRef { size: BLOB_BYTES_MAX + 1, ..blob };
    assert_eq!(open().await.put(long, 0, &[]).await, Err(Refusal::TooLarge { bytes_max: BLOB_BYTES_MAX }));
    assert_eq!(open().await.put(blob, 0, &all).await, Ok(blob.size));
    let longer = BlobRef { size: blob.size + 1, ..blob };
    assert_eq!(open().await.put(longer, 0, &[]).await, Err(Refusal::BlobMismatch));
    assert_eq!(open().await.get(longer, 0).await, Err(Refusal::UnknownBlob));
    assert_eq!(open().await.get(blob, 1).await, Err(Refusal::Malformed));
    assert_eq!(open().await.get(blob, blob.size).await, Err(Refusal::Malformed));

    assert_eq!(Line::open(&server, None).await.get(blob, 0).await, Err(Refusal::CertificateMissing));
    let mut line = open().await;
    assert_eq!(line.get(blob, 0).await, Ok(all));
    Admin::open(&config).unwrap().disable(&handle("ana")).unwrap();
    let mut refused = Ok(vec![]);
    for _ in 0..50 {
        refused = line.get(blob, 0).await;
        if refused.is_err() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(refused, Err(Refusal::AccountDisabled), "also on a connection that stands");
    server.shutdown().await;
}
