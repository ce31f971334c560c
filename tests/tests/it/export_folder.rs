//! Exports as folders: files that were handed over are in them as files and in mails that others read, and whatever is
//! changed in the folder is named.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use chancery_escrow::officers::{render::Renderer, sealed_file, sealed_name, verify_folder};
use chancery_protocol::{
    escrow::{
        Record, RecordBody,
        export::ExportedFile,
        record::{Attachment, Members},
    },
    ids::{EnvelopeHash, Epoch, HeadHash, MessageId, Seq},
    secret::{Random, Secret32},
    time::Timestamp,
    wire::{
        Blob, encode,
        envelope::{Body, Envelope},
        file::File,
        relay::Head,
    },
};
use chancery_tests::vectors::generate::export::{TENANT, export_of, person};
use mail_parser::{MessageParser, MimeHeaders as _};
use sha2::{Digest as _, Sha256};

/// How large the parts are in which the node of this test seals files.
const PART: usize = 70_000;

/// A group's log as it grows.
struct Story {
    records: Vec<Record>,
    seq: u64,
}

impl Story {
    fn new(name: &str) -> Self {
        let members = Members { name: name.to_owned(), part: 0, parts: 1, members: vec![person("ana"), person("li")] };
        let mut story = Self { records: Vec::new(), seq: 0 };
        story.record(RecordBody::Members(members));
        story
    }

    fn record(&mut self, body: RecordBody) {
        let head = HeadHash([u8::try_from(self.seq).unwrap(); 32]);
        let received_at = Timestamp(1_800_000_000_000 + 1_000 * self.seq);
        self.records.push(Record { seq: Seq(self.seq), head, epoch: Epoch(1), received_at, body });
    }

    fn says(&mut self, from: &str, id: u8, body: Body) {
        self.seq += 1;
        let envelope = Envelope {
            id: MessageId([id; 16]),
            counter: self.seq,
            previous: EnvelopeHash([0; 32]),
            relay_head: Head { seq: Seq(0), hash: HeadHash([0; 32]) },
            sent_at: Timestamp(1_800_000_000_000),
            body,
        };
        let envelope = Blob(envelope.to_bytes());
        self.record(RecordBody::Message { sender: person(from), envelope });
    }

    fn hands_over(&mut self, from: &str, id: u8, name: &str, media_type: &str, bytes: &[u8]) {
        let (file, _) = File::encrypt(name, media_type, bytes, Secret32::new([id; 32])).unwrap();
        self.says(from, id, Body::File(Box::new(file)));
    }

    /// Some parts of a file; none: it is missing.
    fn sealed(&mut self, from: &str, id: u8, bytes: &[u8], which: impl IntoIterator<Item = usize>) {
        let (hash, parts): (_, Vec<&[u8]>) = (Sha256::digest(bytes).into(), bytes.chunks(PART).collect());
        let count = u32::try_from(parts.len()).unwrap();
        let sender = person(from);
        let attachment = |part, parts, content: &[u8]| {
            let (message, content) = (MessageId([id; 16]), Blob(content.to_vec()));
            RecordBody::Attachment(Attachment { sender: sender.clone(), message, hash, part, parts, content })
        };
        let which: Vec<usize> = which.into_iter().collect();
        if which.is_empty() {
            self.record(attachment(0, 0, &[]));
        }
        for at in which {
            self.record(attachment(u32::try_from(at).unwrap(), count, parts[at]));
        }
    }
}

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    let mut random = Random::new([seed; 32]);
    (0..len.div_ceil(32)).flat_map(|_| random.bytes::<32>()).take(len).collect()
}

const REPORT: &str = "年报 📎 “final”; filename=evil.pdf";

/// What is handed over: whole, behind and before its message; missing; in pieces; not there at all; not what it says.
fn stories() -> [Vec<Vec<Record>>; 2] {
    let report = bytes(3 * PART - 5, 1);
    let mut one = Story::new("desk 设计");
    one.hands_over("ana", 1, REPORT, "application/pdf", &report);
    one.says("li", 2, Body::Text("thanks".to_owned()));
    one.sealed("ana", 1, &report, 0..3);
    one.hands_over("li", 3, "gone.txt", "text/plain", b"gone");
    one.sealed("li", 3, b"gone", []);
    one.hands_over("li", 4, "half.bin", "application/x-half", &bytes(2 * PART, 4));
    one.sealed("li", 4, &bytes(2 * PART, 4), 1..2);
    one.hands_over("li", 5, "never.txt", "text/plain", b"never");
    // The same bytes once more, by somebody else; and only the word of a third.
    one.sealed("li", 6, &report, 0..3);
    one.hands_over("li", 6, "copy.pdf", "application/pdf", &report);
    one.hands_over("ana", 7, "claimed.pdf", "application/pdf", &report);
    let mut two = Story::new("two");
    let mail = b"From: nobody\r\n\r\nnot for this program\r\n";
    two.sealed("li", 8, mail, [0]);
    two.hands_over("li", 8, "forwarded.eml", "message/rfc822", mail);
    two.hands_over("ana", 9, "swapped.txt", "text/plain", b"what was said");
    let mut swapped = two.records.last().unwrap().clone();
    if let RecordBody::Message { envelope, .. } = &swapped.body {
        let Body::File(file) = Envelope::from_bytes(envelope).unwrap().body else { panic!() };
        let (sender, content) = (person("ana"), Blob(b"something else".to_vec()));
        let message = MessageId([9; 16]);
        swapped.body =
            RecordBody::Attachment(Attachment { sender, message, hash: file.hash, part: 0, parts: 1, content });
    }
    two.records.push(swapped);
    [vec![one.records], vec![two.records]]
}

struct Folder {
    dir: tempfile::TempDir,
    key: [u8; 32],
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (export, key) = export_of(&[], &stories(), |export| {
            let mut renderer = Renderer::new(dir.path(), true);
            for (scope, line, record) in &export.released {
                renderer.record(scope, line, record).unwrap();
            }
            let (mut files, unmade) = renderer.finish(&export.request, export.released.len() as u64).unwrap();
            assert!(unmade.is_empty());
            fs::create_dir(dir.path().join("sealed")).unwrap();
            for (segment, records) in export.sealed.iter().enumerate() {
                let (name, bytes) = (sealed_name(segment), sealed_file(records.iter().map(Vec::as_slice)));
                fs::write(dir.path().join(&name), &bytes).unwrap();
                let hash = Sha256::digest(&bytes).into();
                files.push(ExportedFile { name, bytes: bytes.len() as u64, hash });
            }
            files
        });
        fs::write(dir.path().join("manifest.bin"), &export.manifest).unwrap();
        fs::write(dir.path().join("closing.bin"), encode(&export.closing)).unwrap();
        Self { dir, key }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn faults(&self) -> Vec<String> {
        verify_folder(self.path(), TENANT, &self.key, &mut |_| {}).err().unwrap_or_default()
    }

    /// All of its files, by name within.
    fn files(&self) -> Vec<String> {
        let (mut left, mut files) = (vec![PathBuf::new()], Vec::new());
        while let Some(within) = left.pop() {
            for entry in fs::read_dir(self.path().join(&within)).unwrap() {
                let entry = entry.unwrap();
                let path = within.join(entry.file_name());
                if entry.file_type().unwrap().is_dir() {
                    left.push(path);
                } else {
                    files.push(path.to_str().unwrap().to_owned());
                }
            }
        }
        files.sort();
        files
    }
}

/// What a reader of mails that is not ours finds: text, and attachments by name.
type Read = (String, Vec<(String, String, Vec<u8>)>);

fn mails(folder: &Folder) -> BTreeMap<String, Read> {
    let mut mails = BTreeMap::new();
    for name in folder.files().into_iter().filter(|name| name.ends_with(".eml")) {
        let raw = fs::read(folder.path().join(&name)).unwrap();
        assert!(raw.split(|byte| *byte == b'\n').all(|line| line.len() <= 998 && line.is_ascii()), "{name}");
        let mail = MessageParser::default().parse(&raw).unwrap();
        assert!(mail.date().is_some_and(|date| date.tz_hour == 0 && date.is_valid()), "{name}");
        assert!(mail.from().is_some() && mail.message_id().is_some_and(|id| id.ends_with(".invalid")), "{name}");
        let attachments = mail.attachments().map(|part| {
            let kind = part.content_type().unwrap();
            let kind = format!("{}/{}", kind.ctype(), kind.subtype().unwrap());
            (part.attachment_name().unwrap().to_owned(), kind, part.contents().to_vec())
        });
        let attachments = attachments.collect();
        let subject = mail.subject().unwrap().to_owned();
        mails.insert(subject, (mail.body_text(0).unwrap().into_owned(), attachments));
    }
    mails
}

// proves export.files.1, export.files.2, export.files.3, export.folder.2
#[test]
fn files_that_were_handed_over_are_files_and_attachments() {
    let folder = Folder::new();
    assert_eq!(folder.faults(), Vec::<String>::new());
    let (report, mails) = (bytes(3 * PART - 5, 1), mails(&folder));
    let attached = |place: &str| mails[place].1.clone();
    let whole = (REPORT.to_owned(), "application/pdf".to_owned(), report.clone());
    assert!(attached("desk 设计 #1") == [whole], "{:?}", attached("desk 设计 #1")[0].0);
    assert_eq!(mails["desk 设计 #2"], ("thanks".to_owned(), Vec::new()));
    let copy = ("copy.pdf".to_owned(), "application/pdf".to_owned(), report.clone());
    assert!(attached("desk 设计 #6") == [copy]);
    let forwarded = b"From: nobody\r\n\r\nnot for this program\r\n".to_vec();
    let octets = "application/octet-stream".to_owned();
    assert_eq!(attached("two #1"), [("forwarded.eml".to_owned(), octets, forwarded)]);
    let page = fs::read_to_string(folder.path().join("README.txt")).unwrap();
    for (place, name, why) in [
        ("desk 设计 #3", "gone.txt", "it could not be archived"),
        ("desk 设计 #4", "half.bin", "the archive has pieces of it"),
        ("desk 设计 #5", "never.txt", "no record of it is in this export"),
        // Whoever names the hash of another's file has not handed it over.
        ("desk 设计 #7", "claimed.pdf", "no record of it is in this export"),
        ("two #2", "swapped.txt", "the archive has pieces of it"),
    ] {
        let (text, attachments) = &mails[place];
        assert!(attachments.is_empty() && text.contains(&format!("not attached: {why}")), "{place}: {text}");
        let number = place.rsplit('#').next().unwrap();
        assert!(page.contains(&format!("the file \"{name}\" of entry {number}: {why}")), "{page}");
    }
    let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(&report));
    assert!(fs::read(folder.path().join("files").join(&hash)).unwrap() == report);
    let files = folder.files();
    // Two whole files and two in pieces; names that people gave are the names of no file.
    assert_eq!(files.iter().filter(|name| name.starts_with("files/")).count(), 4, "{files:?}");
    assert_eq!(files.iter().filter(|name| name.contains(".parts-")).count(), 2, "{files:?}");
    let records = fs::read_to_string(folder.path().join("records.jsonl")).unwrap();
    assert!(records.contains(&hash) && !records.contains("base64"));
    let safe = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/.-".contains(&byte));
    assert!(files.iter().all(|name| safe(name)), "{files:?}");
}

/// `CHANCERY_FOLDER_CHANGES` sets another number.
fn changes() -> u32 {
    std::env::var("CHANCERY_FOLDER_CHANGES").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

// proves export.folder.1, export.folder.2, export.verify.1
#[test]
fn no_change_of_a_folder_goes_unseen() {
    let folder = Folder::new();
    let names = folder.files();
    let mut random = Random::new([5; 32]);
    for number in 0..changes() {
        let mut draw = |below: usize| usize::try_from(random.number()).unwrap() % below;
        let (one, other, what, at, bit) = (draw(names.len()), draw(names.len()), draw(6), draw(1 << 30), draw(8));
        let (path, second) = (folder.path().join(&names[one]), folder.path().join(&names[other]));
        let (before, of_second) = (fs::read(&path).unwrap(), fs::read(&second).unwrap());
        let more = path.with_extension("more");
        let what = match what {
            0..3 => {
                let mut changed = before.clone();
                let at = at % changed.len();
                changed[at] ^= 1 << bit;
                fs::write(&path, changed).unwrap();
                format!("byte {at} of {}", names[one])
            }
            3 => {
                fs::remove_file(&path).unwrap();
                format!("{} is gone", names[one])
            }
            4 if before != of_second => {
                fs::write(&path, &of_second).unwrap();
                fs::write(&second, &before).unwrap();
                format!("{} and {} change places", names[one], names[other])
            }
            _ => {
                fs::write(&more, &before).unwrap();
                format!("{} is added", more.display())
            }
        };
        let faults = folder.faults();
        let named = |name: &str| faults.iter().any(|fault| fault.contains(name));
        let name =
            if more.exists() { more.strip_prefix(folder.path()).unwrap().to_str().unwrap() } else { &names[one] };
        // Without manifest and closing nothing else is looked at.
        let basis = |name: &str| ["manifest.bin", "closing.bin"].contains(&name);
        let told = !faults.is_empty() && (named(name) || basis(name) || basis(&names[other]));
        assert!(told, "change {number}: {what}: {faults:?}");
        let _ = fs::remove_file(&more);
        fs::write(&path, before).unwrap();
        fs::write(&second, of_second).unwrap();
    }
    assert_eq!(folder.faults(), Vec::<String>::new());
}
