//! The node's folder for officers: what they hand in, and what they are handed. `spec/operations/officers.md`.
//!
//! This module decides nothing: the machine in `chancery-protocol` takes in what is signed by who may, and logs it first.
//! A file that was half done when the node ended is done again; nothing is logged twice.

mod hand_out;
pub mod retention;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use chancery_client::Client;
use chancery_protocol::{
    capture::{EscrowMachine, office::Accepted},
    escrow::{
        dossier::{Catalogue, Dossier},
        opening::{Answer, Request},
        submission::Submission,
    },
    identity::Authority,
    ids::{HeaderHash, RootHash},
    limits::{DOSSIER_BYTES_MAX, OPENING_BYTES_MAX},
    merkle::with_cosignatures,
    time::Timestamp,
    wire::{Blob, decode_exact, encode},
};
use serde::{Deserialize, Serialize};

use crate::{
    endpoint::Desk,
    officers::files::{at, private_dir, read, replace},
};

/// The folder, within the node's.
pub(crate) const FOLDER: &str = "officers";
/// How often it is looked into.
const EVERY: Duration = Duration::from_secs(1);
/// A file that does not decode may still be copied for so long.
const COPYING: Duration = Duration::from_secs(10);
/// The folders within.
const IN: &str = "in";
const OUT: &str = "out";
pub(crate) const CERTIFICATES: &str = "certificates";
pub(crate) const SHOWN: &str = "shown";
/// Who may ask: a key and a name in each line.
pub(crate) const REQUESTERS: &str = "requesters";

/// What the machine is handed: a submission, and who may ask.
#[derive(Serialize, Deserialize)]
pub(crate) struct HandedIn {
    pub submission: Blob,
    pub requesters: Vec<[u8; 32]>,
}

/// What it says.
pub(crate) type Said = Result<Accepted, String>;

/// Hands a submission in to the machine.
pub(crate) fn submit(machine: &mut EscrowMachine, handed_in: &[u8], now: Timestamp) -> Said {
    let undecodable = "it does not decode: hand in a file that `chancery-escrow` wrote";
    let handed: HandedIn = decode_exact("what was handed in", handed_in).map_err(|_| undecodable)?;
    let submission = Submission::from_bytes(&handed.submission).ok_or(undecodable)?;
    machine.submit(&submission, &handed.requesters, now).map_err(|error| error.to_string())
}

/// The folder of a node that serves.
pub(crate) struct Intake {
    dir: PathBuf,
    client: Client,
    desk: Desk,
    tenant: RootHash,
    retention: retention::Folder,
}

impl Intake {
    /// Makes the folder if it is missing.
    ///
    /// # Errors
    /// Why not, in words.
    pub(crate) fn open(node: &Path, client: Client, authority: Authority) -> Result<Self, String> {
        let Authority::Tenant(tenant) = authority else {
            return Err("an escrow node is an organisation's".to_owned());
        };
        let dir = node.join(FOLDER);
        for folder in [IN, OUT, CERTIFICATES, SHOWN] {
            private_dir(&dir.join(folder))?;
        }
        let requesters = dir.join(REQUESTERS);
        if !requesters.exists() {
            replace(&requesters, b"# Who may ask for openings and give orders: a key and a name in each line.\n")?;
        }
        let retention = retention::Folder::open(node).map_err(at(node))?;
        Ok(Self { dir, desk: Desk::new(client.clone(), authority), client, tenant, retention })
    }

    /// Looks into the folder, again and again.
    pub(crate) async fn run(self) {
        let mut every = tokio::time::interval(EVERY);
        let mut certified = BTreeSet::new();
        loop {
            every.tick().await;
            if let Err(error) = self.look(&mut certified).await {
                tracing::warn!(error, "the officers' folder could not be worked through");
            }
        }
    }

    /// `certified` are the certificates that were handed in since the node was started.
    async fn look(&self, certified: &mut BTreeSet<Vec<u8>>) -> Result<(), String> {
        let requesters = self.requesters()?;
        for path in files(&self.dir.join(CERTIFICATES))? {
            let bytes = read(&path, OPENING_BYTES_MAX as u64)?;
            if certified.contains(&bytes) {
                continue;
            }
            let certificate = Submission::Certificate(Blob(bytes.clone()));
            match self.submit(&certificate, &requesters).await? {
                Ok(_) => drop(certified.insert(bytes)),
                // It may still be copied.
                Err(_) if is_fresh(&path) => {}
                Err(error) => tracing::warn!(file = %path.display(), error, "a certificate is not taken"),
            }
        }
        for path in files(&self.dir.join(IN))? {
            self.take(&path, &requesters).await?;
        }
        Ok(())
    }

    fn requesters(&self) -> Result<Vec<[u8; 32]>, String> {
        let path = self.dir.join(REQUESTERS);
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let key = |line: &str| {
            let digits = line.split_whitespace().next().unwrap_or_default();
            let key = data_encoding::HEXLOWER.decode(digits.as_bytes()).ok().and_then(|key| key.try_into().ok());
            key.ok_or_else(|| format!("{}: {line:?} begins with no key of 64 hexadecimal digits", path.display()))
        };
        lines.map(key).collect()
    }

    async fn submit(&self, submission: &Submission, requesters: &[[u8; 32]]) -> Result<Said, String> {
        let handed = HandedIn { submission: Blob(submission.to_bytes()), requesters: requesters.to_vec() };
        let said = self.client.submit(encode(&handed)).await.map_err(|error| error.to_string())?;
        decode_exact("an answer of the machine", &said).map_err(|error| error.to_string())
    }

    async fn take(&self, path: &Path, requesters: &[[u8; 32]]) -> Result<(), String> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file").to_owned();
        let submission = match read(path, OPENING_BYTES_MAX as u64 + 16) {
            Ok(bytes) => Submission::from_bytes(&bytes),
            Err(_) if !path.exists() => return Ok(()),
            Err(_) => None,
        };
        let said = match submission {
            None if is_fresh(path) => return Ok(()),
            None => Err("it does not decode: hand in a file that `chancery-escrow` wrote".to_owned()),
            Some(Submission::Certificate(_)) => {
                Err(format!("the node's operator puts certificates into {FOLDER}/{CERTIFICATES}"))
            }
            Some(ref submission) => self.submit(submission, requesters).await?,
        };
        let said = match (said, submission) {
            (Ok(accepted), Some(Submission::Answer(answer))) => {
                let kept = self.keep_cosigned(&answer)?;
                self.hand_out(&name, accepted).await.map(|said| Ok(said + kept))?
            }
            (Ok(accepted), _) => self.hand_out(&name, accepted).await.map(Ok)?,
            (Err(refused), _) => Err(refused),
        };
        let (end, text) = match said {
            Ok(text) => ("done", text),
            Err(text) => ("refused", text),
        };
        tracing::info!(file = name, outcome = end, "handed in by an officer");
        replace(&self.out(&name, end), format!("{text}\n").as_bytes())?;
        fs::remove_file(path).map_err(at(path))
    }

    fn out(&self, name: &str, end: &str) -> PathBuf {
        self.dir.join(OUT).join(format!("{name}.{end}"))
    }

    /// The checkpoint that an answer cosigns is kept with that cosignature; later dossiers show it. (opening.cosigned.1)
    fn keep_cosigned(&self, answer: &[u8]) -> Result<&'static str, String> {
        let cosigned = Answer::cosigned_of(answer).unwrap_or_default();
        let size = core::str::from_utf8(&cosigned).ok().and_then(|note| note.lines().nth(1)?.parse::<u64>().ok());
        let Some(size) = size else { return Ok("") };
        let path = self.dir.join(SHOWN).join(size.to_string());
        if !path.exists() {
            return Ok("; its checkpoint is none that a dossier had");
        }
        match with_cosignatures(&read(&path, 1 << 20)?, &cosigned) {
            Some(note) => replace(&path, &note).map(|()| "; its checkpoint is cosigned"),
            None => Ok("; but the seat has cosigned another log of that size: find out what it was shown"),
        }
    }

    /// What an officer gets for it, and a line that says so.
    async fn hand_out(&self, name: &str, accepted: Accepted) -> Result<String, String> {
        Ok(match accepted {
            Accepted::Requested { request, log_index, segments } => {
                let mut log = self.log().await?;
                let dossier = self.dossier(&mut log, request, log_index, &segments).await?;
                replace(&self.out(&request.to_string(), "dossier"), &dossier.to_bytes())?;
                self.material(&mut log, &dossier, &segments).await?;
                format!(
                    "entry {log_index} of the archive's log: request {request}; the dossier is for the seats, the material for the workstation"
                )
            }
            Accepted::Answered { request, approvals, quorum } => {
                format!("the answer to {request} is logged; {approvals} of {quorum} seats have approved")
            }
            Accepted::Closed { request, log_index, from } => {
                let closing = self.closing(log_index, from).await?;
                replace(&self.out(&request.to_string(), "closing"), &encode(&closing))?;
                format!("entry {log_index} of the archive's log closes {request}")
            }
            Accepted::Held(id) => format!("hold {id} is logged"),
            Accepted::Expired { expired, held, segments } => {
                forget(&self.dir.join(OUT), &segments)?;
                let list = |list: Vec<String>| if list.is_empty() { "nothing".to_owned() } else { list.join(", ") };
                format!(
                    "expired: {}; {} segments do not open any more; kept by holds, or not over: {}",
                    list(expired),
                    segments.len(),
                    list(held)
                )
            }
            Accepted::NoticeGiven(request) => format!("it is logged that the people concerned by {request} were told"),
            Accepted::Catalogue(segments) => {
                let count = segments.len();
                replace(&self.out(name, "catalogue"), &Catalogue::new(self.tenant, crate::now(), segments).to_bytes())?;
                format!("a catalogue of {count} segments")
            }
            Accepted::Canary(segment) => {
                let header = segment.header;
                let catalogue = Catalogue::new(self.tenant, crate::now(), vec![segment]);
                replace(&self.out(name, "catalogue"), &catalogue.to_bytes())?;
                format!("segment {header} is sealed for a drill")
            }
            Accepted::KeyMade(key) => format!("archive key {key} is logged"),
        })
    }
}

/// Dossiers and material hold headers: those of segments that have expired go too. (retention.expire.4)
fn forget(out: &Path, gone: &[HeaderHash]) -> Result<(), String> {
    for path in files(out)?.iter().filter(|path| path.extension().is_some_and(|end| end == "dossier")) {
        let dossier = Dossier::from_bytes(&read(path, DOSSIER_BYTES_MAX as u64)?).ok();
        let request = dossier.and_then(|dossier| Request::of_signed(&dossier.request));
        if request.is_some_and(|request| request.segments.iter().any(|header| gone.contains(header))) {
            let material = path.with_extension("material");
            if material.exists() {
                fs::remove_file(&material).map_err(at(&material))?;
            }
            fs::remove_file(path).map_err(at(path))?;
        }
    }
    Ok(())
}

fn is_fresh(path: &Path) -> bool {
    let modified = fs::metadata(path).and_then(|data| data.modified());
    modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < COPYING))
}

/// The files of a folder by name, without those that are being written.
fn files(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(dir).map_err(at(dir))?;
    let visible = |path: &PathBuf| {
        path.is_file() && path.file_name().and_then(|name| name.to_str()).is_some_and(|name| !name.starts_with('.'))
    };
    let mut paths: Vec<PathBuf> =
        entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(visible).collect();
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use chancery_protocol::{
        escrow::{export::LoggedEntry, hpke::HpkePublicKey},
        identity::DeviceKey,
        ids::ArchiveKeyHash,
        secret::Secret32,
    };

    use super::*;

    fn dossier(header: HeaderHash) -> Vec<u8> {
        let request = Request {
            version: 1,
            tenant: RootHash([1; 32]),
            key: ArchiveKeyHash([2; 32]),
            case: "case".to_owned(),
            legal_basis: "order".to_owned(),
            purpose: "evidence".to_owned(),
            requester: "legal".to_owned(),
            segments: vec![header],
            people: Vec::new(),
            first: 1,
            last: 1,
            workstation: HpkePublicKey([3; 32]),
            made_at: Timestamp(1),
            expires_at: Timestamp(2),
        };
        let signed = request.sign(&DeviceKey::from_seed(Secret32::new([4; 32])).unwrap()).unwrap();
        let requested = LoggedEntry { entry: Blob::default(), index: 0, inclusion: Vec::new() };
        let dossier = Dossier {
            version: Dossier::VERSION,
            request: Blob(signed),
            requested,
            checkpoint: Blob::default(),
            earlier: Vec::new(),
            segments: Vec::new(),
            before: Vec::new(),
        };
        dossier.to_bytes()
    }

    // proves retention.expire.4
    #[test]
    fn what_was_put_out_for_expired_segments_is_deleted() {
        let out = tempfile::tempdir().unwrap();
        let (gone, stays) = (HeaderHash([7; 32]), HeaderHash([8; 32]));
        for (name, header) in [("a", gone), ("b", stays)] {
            fs::write(out.path().join(format!("{name}.dossier")), dossier(header)).unwrap();
            fs::write(out.path().join(format!("{name}.material")), "sealed").unwrap();
        }
        fs::write(out.path().join("q.done"), "a line").unwrap();
        forget(out.path(), &[gone]).unwrap();
        let left: Vec<String> = files(out.path())
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(left, ["b.dossier", "b.material", "q.done"]);
    }
}
