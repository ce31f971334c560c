//! What opening, exporting, verifying and searching a case cost: officers' commands as processes of their own, on segments
//! that are made here.

use std::{
    fs,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use chancery_escrow::officers::{read_certificate, search::Index};
use chancery_protocol::{
    escrow::{
        ArchiveEvent, ArchiveKey, Captured, Person, Record, RecordBody, RecordLine, Scope, Segment,
        dossier::{Catalogue, CatalogueSegment, Dossier, DossierSegment, MaterialItem},
        evidence::{ArchiveEntry, lines_root, origin},
        export::{Closing, LoggedEntry},
        opening::Request,
        scope::Day,
        submission::{Order, OrderBody, Submission},
    },
    identity::{DeviceName, Role},
    ids::{
        DeviceId, EnvelopeHash, Epoch, GroupId, HeadHash, HeaderHash, MessageId, PolicyHash, RootHash, SegmentId, Seq,
    },
    merkle::{LogKey, MemoryLog, consistency_proof, inclusion_proof, leaf_hash},
    secret::{Random, Secret32},
    time::Timestamp,
    wire::{
        Blob, encode,
        envelope::{Body, Envelope},
        relay::Head,
    },
};

use crate::{Outcome, progress, report::Report};

/// Records of the case, in so many segments, with so many in a capture.
const RECORDS: u64 = 10_000;
const SEGMENTS: u64 = 10;
const CAPTURE: u64 = 32;
/// Messages that are searched.
const SEARCHED: u64 = 1_000_000;
const TENANT: RootHash = RootHash([0x22; 32]);
/// 2027-01-15T08:00:00Z.
const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// Runs an officers' command, and leaves its peak of memory in the file.
pub(crate) fn escrow(peak: &Path, arguments: Vec<String>) -> Outcome<u8> {
    let program = core::iter::once("chancery-escrow".to_owned());
    let code = chancery_escrow::run_cli(program.chain(arguments).map(Into::into));
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("/proc is unreadable")?;
    fs::write(peak, line.trim().trim_end_matches("kB").trim())?;
    Ok(code)
}

struct Officers {
    dir: PathBuf,
}

impl Officers {
    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Time and peak of memory, in KiB.
    fn run(&self, arguments: &[&str], officer: Option<&str>) -> Outcome<(Duration, f64, String)> {
        let peak = self.path("peak");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["escrow", &peak, "--"]).args(arguments);
        if let Some(officer) = officer {
            let (own, passphrase) = (self.path(officer), self.path("passphrase"));
            command.args(["--officer", &own, "--passphrase-file", &passphrase]);
        }
        let begun = Instant::now();
        let output = command.output()?;
        let took = begun.elapsed();
        if !output.status.success() {
            return Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok((took, fs::read_to_string(&peak)?.parse()?, String::from_utf8(output.stdout)?))
    }

    fn ceremony(&self) -> Outcome<ArchiveKey> {
        fs::write(self.path("passphrase"), "correct horse battery\n")?;
        let seats = ["one", "two", "three"];
        for name in seats.iter().chain(["li"].iter()) {
            let seat = self.path(&format!("{name}.seat"));
            self.run(&["seat", "new", "--name", name, "--out", &seat, "--kdf-mib", "8"], Some(name))?;
        }
        let (folder, root) = (self.path("ceremony"), TENANT.to_string());
        let mut plan = vec!["seat", "plan", &folder, "--tenant", &root, "--generation", "1", "--quorum", "2"];
        let files: Vec<String> = seats.iter().map(|name| self.path(&format!("{name}.seat"))).collect();
        plan.extend(files.iter().map(String::as_str));
        self.run(&plan, None)?;
        for step in ["commit", "share", "confirm", "certify"] {
            for seat in seats {
                self.run(&["seat", step, &folder], Some(seat))?;
            }
        }
        Ok(read_certificate(&self.dir.join("ceremony/archive.cert"))?.1)
    }
}

struct Log {
    tree: MemoryLog,
    entries: Vec<Vec<u8>>,
    key: LogKey,
}

impl Log {
    fn append(&mut self, event: ArchiveEvent) -> u64 {
        let entry = ArchiveEntry { at: NOW, event }.to_bytes();
        self.tree.append(leaf_hash(&entry));
        self.entries.push(entry);
        self.tree.size() - 1
    }

    fn logged(&mut self, index: u64) -> Outcome<LoggedEntry> {
        let size = self.tree.size();
        let entry = self.entries.get(usize::try_from(index)?).ok_or("no entry")?.clone();
        let inclusion = inclusion_proof(index, size, &mut self.tree).ok_or("no proof")?;
        Ok(LoggedEntry { entry: Blob(entry), index, inclusion })
    }

    fn checkpoint(&self) -> Blob {
        let signed = self.key.sign(&origin(TENANT), self.tree.size(), self.tree.root(), NOW);
        Blob(signed.note().as_bytes().to_vec())
    }
}

/// A sentence of its own for each number.
fn sentence(number: u64) -> String {
    const WORDS: [&str; 8] = ["预算", "会议", "contract", "delivery", "来週", "서울", "confirmed", "price"];
    let word = |at: u64| WORDS.get(usize::try_from(at % 8).unwrap_or(0)).copied().unwrap_or_default();
    format!(
        "{} {} {} no {number} of the desk, see you at {}:00",
        word(number),
        word(number / 8),
        word(number / 64),
        number % 24
    )
}

struct Sealed {
    segment: Segment,
    opened: u64,
    captures: Vec<(u64, Vec<RecordLine>)>,
    closed: u64,
    records: Vec<Vec<u8>>,
}

fn seal(key: &ArchiveKey, log: &mut Log, random: &mut Random) -> Outcome<Vec<Sealed>> {
    let handle = "ana".parse()?;
    let sender = Person(DeviceName::tenant(TENANT, handle, DeviceId([1; 32]), Role::Human));
    let mut all = Vec::new();
    for number in 0..SEGMENTS {
        let scope = Scope {
            tenant: TENANT,
            group: GroupId([u8::try_from(number)?; 32]),
            day: Day(20_833),
            retention: "seven-years".parse()?,
            policy: PolicyHash([4; 32]),
            segment: SegmentId(random.bytes()),
        };
        let mut segment = Segment::open(scope.clone(), key.public(), random).ok_or("no segment")?;
        let header = segment.hash();
        let opened = log.append(ArchiveEvent::SegmentOpened { scope, header, generation: 1 });
        let (mut captures, mut records) = (Vec::new(), Vec::new());
        let mut lines = Vec::new();
        for index in 0..RECORDS / SEGMENTS {
            let (seq, head) = (Seq(index + 1), HeadHash(random.bytes()));
            let envelope = Envelope {
                id: MessageId(random.bytes()),
                counter: index,
                previous: EnvelopeHash([0; 32]),
                relay_head: Head { seq: Seq(index), hash: head },
                sent_at: NOW,
                body: Body::Text(sentence(number * 1_000 + index)),
            };
            let body = RecordBody::Message { sender: sender.clone(), envelope: Blob(envelope.to_bytes()) };
            let record = Record { seq, head, epoch: Epoch(1), received_at: NOW, body };
            let sealed = segment.seal(&record.to_bytes(), random)?;
            lines.push(RecordLine { index, seq, head, sealed: sealed.hash(header) });
            records.push(sealed.to_bytes());
            if lines.len() as u64 == CAPTURE || index + 1 == RECORDS / SEGMENTS {
                let root = lines_root(&lines).ok_or("no lines")?;
                let (first, count) = (index + 1 - lines.len() as u64, lines.len() as u64);
                let captured = Captured { header, first, count, root, head: Head { seq, hash: head }, epoch: Epoch(1) };
                captures.push((log.append(ArchiveEvent::Captured(captured)), core::mem::take(&mut lines)));
            }
        }
        let closed = log.append(ArchiveEvent::SegmentClosed { header, records: segment.records() });
        all.push(Sealed { segment, opened, captures, closed, records });
    }
    all.sort_by_key(|sealed| sealed.segment.hash());
    Ok(all)
}

fn listed(sealed: &Sealed) -> CatalogueSegment {
    let header = sealed.segment.header();
    let (scope, records) = (Blob(header.scope().to_bytes()), sealed.segment.records());
    CatalogueSegment { scope, header: HeaderHash(header.hash().0), records, closed_to: 0 }
}

/// What a node would hand out for the request.
fn hand_out(case: &Path, signed: &Blob, log: &mut Log, sealed: &[Sealed]) -> Outcome<u64> {
    let request = Request::of_signed(signed).ok_or("no request")?.hash();
    let requested = log.append(ArchiveEvent::Requested { request });
    let checkpoint = log.checkpoint();
    let dossier = Dossier {
        version: Dossier::VERSION,
        request: signed.clone(),
        requested: log.logged(requested)?,
        checkpoint: checkpoint.clone(),
        earlier: Vec::new(),
        segments: sealed
            .iter()
            .map(|one| {
                let header = Blob(one.segment.header().to_bytes());
                Ok(DossierSegment { header, closed: log.logged(one.closed)? })
            })
            .collect::<Outcome<_>>()?,
        before: Vec::new(),
    };
    fs::write(case.join("dossier"), dossier.to_bytes())?;
    let mut file = BufWriter::new(fs::File::create(case.join("material"))?);
    let mut put = |item: MaterialItem| file.write_all(&item.to_frame());
    let version = MaterialItem::VERSION;
    put(MaterialItem::Begin { version, request, requested: dossier.requested, checkpoint })?;
    for one in sealed {
        let header = Blob(one.segment.header().to_bytes());
        put(MaterialItem::Segment { header, opened: log.logged(one.opened)?, closed: log.logged(one.closed)? })?;
        let mut records = one.records.iter();
        for (index, lines) in &one.captures {
            put(MaterialItem::Capture { logged: log.logged(*index)?, lines: lines.clone() })?;
            for record in records.by_ref().take(lines.len()) {
                put(MaterialItem::Record(Blob(record.clone())))?;
            }
        }
    }
    put(MaterialItem::End)?;
    file.flush()?;
    Ok(log.tree.size())
}

/// What a node would put out for the order that closes the case.
fn closing(close: &Path, log: &mut Log, size: u64, requester: [u8; 32]) -> Outcome<Vec<u8>> {
    let Some(Submission::Order(signed)) = Submission::from_bytes(&fs::read(close)?) else {
        return Err("no order".into());
    };
    let (order, _) = Order::open(&signed, &[requester])?;
    let OrderBody::Close { request, segments, records, manifest, .. } = order.body else {
        return Err("another order".into());
    };
    let index = log.append(ArchiveEvent::Opened { request, segments, records, manifest });
    let consistency = consistency_proof(size, log.tree.size(), &mut log.tree).ok_or("no proof")?;
    Ok(encode(&Closing { logged: log.logged(index)?, checkpoint: log.checkpoint(), consistency }))
}

pub(crate) fn run(quick: bool, dir: &Path, report: &mut Report) -> Outcome<()> {
    let officers = Officers { dir: dir.to_owned() };
    progress("a ceremony of three seats, and 10,000 records");
    let key = officers.ceremony()?;
    let mut random = Random::new([7; 32]);
    let log_key = LogKey::from_seed(&Secret32::new([0x65; 32]))?;
    let log_public = data_encoding::HEXLOWER.encode(log_key.public());
    let mut log = Log { tree: MemoryLog::default(), entries: Vec::new(), key: log_key };
    let sealed = seal(&key, &mut log, &mut random)?;
    let catalogue = Catalogue::new(TENANT, NOW, sealed.iter().map(listed).collect());
    fs::write(dir.join("catalogue"), catalogue.to_bytes())?;

    let root = TENANT.to_string();
    let (_, _, li) = officers.run(&["seat", "trust", "--tenant", &root, "--log-key", &log_public], Some("li"))?;
    let requester = li.lines().find_map(|line| line.strip_prefix("key ")).ok_or("no key")?.to_owned();
    let may_ask = format!("{requester}=li");
    for seat in ["one", "two"] {
        officers.run(&["seat", "trust", "--log-key", &log_public, "--requester", &may_ask], Some(seat))?;
    }
    let (case, from, certificate) =
        (officers.path("case"), officers.path("catalogue"), officers.path("ceremony/archive.cert"));
    let open = ["case", "open", "--dir", &case, "--catalogue", &from, "--certificate", &certificate];
    let why = ["--case", "bench", "--legal-basis", "none", "--purpose", "figures"];
    officers.run(&[open.as_slice(), &why].concat(), Some("li"))?;
    let case_dir = dir.join("case");
    let Some(Submission::Request(signed)) = Submission::from_bytes(&fs::read(case_dir.join("request"))?) else {
        return Err("no request".into());
    };
    let size = hand_out(&case_dir, &signed, &mut log, &sealed)?;
    let dossier = officers.path("case/dossier");
    for seat in ["one", "two"] {
        let answer = officers.path(&format!("case/answers/{seat}"));
        let (took, _, _) = officers.run(&["seat", "approve", &dossier, "--out", &answer], Some(seat))?;
        if seat == "one" {
            report.figure(format!("seat approves {SEGMENTS} segments"), took.as_secs_f64(), "s");
        }
    }

    let mut measure = |name: &str, arguments: &[&str], officer: Option<&str>| -> Outcome<()> {
        progress(name);
        let (took, peak, _) = officers.run(arguments, officer)?;
        report.figure(format!("{name}, {RECORDS} records"), took.as_secs_f64(), "s");
        report.figure(format!("{name}, peak of memory"), peak / 1024.0, "MiB");
        Ok(())
    };
    measure("combine and index", &["case", "combine", "--dir", &case], Some("li"))?;
    let export = officers.path("export");
    measure("export", &["case", "export", "--dir", &case, "--out", &export], Some("li"))?;
    let public = data_encoding::HEXLOWER.decode(requester.as_bytes())?.try_into().map_err(|_| "no key")?;
    fs::write(dir.join("closing"), closing(&case_dir.join("close"), &mut log, size, public)?)?;
    let closed = officers.path("closing");
    measure("close", &["case", "close", "--dir", &case, "--closing", &closed], Some("li"))?;
    measure("verify", &["verify", &export, "--tenant", &root, "--log-key", &log_public], None)?;
    searched(if quick { SEARCHED / 10 } else { SEARCHED }, dir, report)
}

fn searched(messages: u64, dir: &Path, report: &mut Report) -> Outcome<()> {
    progress(&format!("an index of {messages} messages"));
    let path = dir.join("search.db");
    let begun = Instant::now();
    let mut index = Index::create(&path)?;
    for number in 0..messages {
        index.put("group", "desk", number, number, "ana", &sentence(number))?;
    }
    index.finish()?;
    report.figure(format!("{messages} messages indexed"), begun.elapsed().as_secs_f64(), "s");
    #[allow(clippy::cast_precision_loss, reason = "a figure")]
    report.figure("size of the index", fs::metadata(&path)?.len() as f64 / 1e6, "MB");
    let index = Index::open(&path)?;
    let rare = (messages / 2).to_string();
    for (name, what) in [
        ("a rare word", rare.as_str()),
        ("two characters", "预算"),
        ("one character", "预"),
        ("two words", "서울 contract"),
    ] {
        let begun = Instant::now();
        let (total, hits) = index.search(what, 50)?;
        report.figure(
            format!("search {name}: {total} found, {} shown", hits.len()),
            begun.elapsed().as_secs_f64() * 1e3,
            "ms",
        );
    }
    Ok(())
}
