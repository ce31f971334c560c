//! Frames: one of each type, one of each refusal, and those that must not decode.

use chancery_protocol::{
    error::Refusal,
    ids::{
        AccountId, AppendId, BlobName, DeviceId, GroupId, HeadHash, MailId, MerkleHash, OrderHash, OrderSeq,
        PackageHash, RequestId, RootHash, Seq, SpkiPin, StatementLookup, TokenHash,
    },
    limits::FRAME_BYTES_MAX,
    merkle::Resource,
    secret::{AccessToken, Secret32},
    time::Timestamp,
    wire::{
        Blob, Direction, Frame, FrameHeader,
        blobs::{BlobPart, BlobRef, BlobStands, GetBlob, PutBlob},
        capture::{AskLog, AskReceipt, AskStatement, LogTold, ReceiptTold, StatementTold},
        directory::{DirectoryGrew, DirectoryKept, DirectoryRead, ReadDirectory, TellDirectory},
        frame::FRAMES,
        registrar::{
            Admit, Admitted, Collect, Collected, Deposit, Devices, Enrol, Enrolled, Link, Linkable, ListDevices,
            ListedDevice, Order, OrderHead, Orders, OrdersTaken, Place, RenameDevice, Renew, RevokeDevice,
        },
        relay::{
            AckMail, Append, Appended, Bundle, Close, Closed, Entries, Entry, EntryKind, Head, KeyPackages, Mail,
            MailAcked, Open, Opened, Ping, Pong, PublishKeyPackages, Published, Ready, TakeKeyPackages, TakenPackage,
            WelcomeCopy,
        },
    },
};
use serde_json::json;

use super::{
    super::{json::hex, replay::DIRECTIONS},
    Set,
};

const GROUP: GroupId = GroupId([0x11; 32]);
const CORRELATION: u32 = 7;

fn blob(byte: u8, len: usize) -> Blob {
    Blob(vec![byte; len])
}

fn head() -> Head {
    Head { seq: Seq(300), hash: HeadHash([0x44; 32]) }
}

fn word(direction: Direction) -> &'static str {
    DIRECTIONS.iter().find(|(_, other)| *other == direction).map_or("", |(word, _)| *word)
}

fn direction_of(frame: &Frame) -> Direction {
    FRAMES.iter().find(|spec| spec.frame_type == frame.frame_type()).unwrap().direction
}

fn of_client() -> Vec<(&'static str, &'static str, Frame)> {
    let commit = Bundle {
        next_token: TokenHash([0x55; 32]),
        welcomes: vec![WelcomeCopy {
            device: DeviceId([0x66; 32]),
            package: PackageHash([0x77; 32]),
            body: blob(0xa5, 3),
        }],
    };
    let append = |kind, after, bundle| {
        let behind = (kind == EntryKind::Application).then_some(AppendId([0xa9; 32]));
        Frame::Append(Append { group: GROUP, kind, after, behind, body: blob(0xb6, 5), bundle })
    };
    let token = || AccessToken::new([0x22; 32]);
    vec![
        (
            "open",
            "opens a group and asks for the entries from 1 on",
            Frame::Open(Open { group: GROUP, token: token(), from: Some(Seq(1)) }),
        ),
        (
            "open-keep",
            "shows a newer token and keeps the subscription",
            Frame::Open(Open { group: GROUP, token: token(), from: None }),
        ),
        ("close", "ends a subscription", Frame::Close(Close { group: GROUP })),
        ("append", "appends an application message", append(EntryKind::Application, Seq(128), None)),
        ("append-commit", "appends a commit with one Welcome", append(EntryKind::Commit, Seq(16_384), Some(commit))),
        (
            "publish-key-packages",
            "adds two KeyPackages and a last-resort one",
            Frame::PublishKeyPackages(PublishKeyPackages {
                packages: vec![blob(1, 2), blob(2, 2)],
                last_resort: Some(blob(3, 2)),
            }),
        ),
        (
            "publish-nothing",
            "asks how many KeyPackages are left",
            Frame::PublishKeyPackages(PublishKeyPackages { packages: Vec::new(), last_resort: None }),
        ),
        (
            "take-key-packages",
            "takes KeyPackages of an account",
            Frame::TakeKeyPackages(TakeKeyPackages { request: RequestId([0x88; 16]), account: AccountId([0x99; 32]) }),
        ),
        (
            "ack-mail",
            "acknowledges three Welcomes",
            Frame::AckMail(AckMail { ids: vec![MailId(1), MailId(127), MailId(u64::MAX)] }),
        ),
        ("ping", "asks for a Pong", Frame::Ping(Ping)),
        (
            "read-directory",
            "asks for the checkpoint of the directory",
            Frame::ReadDirectory(ReadDirectory { resource: Resource::Checkpoint }),
        ),
        (
            "read-directory-tile",
            "asks for a tile of the directory",
            Frame::ReadDirectory(ReadDirectory { resource: "tile/1/x001/234.p/7".parse().unwrap() }),
        ),
        (
            "read-directory-entries",
            "asks for entries of the directory",
            Frame::ReadDirectory(ReadDirectory { resource: "tile/entries/000".parse().unwrap() }),
        ),
        (
            "enrol",
            "asks for a device certificate",
            Frame::Enrol(Enrol { secret: Secret32::new([0xaa; 32]), device_key: [0xbb; 32], proof: blob(0xcc, 64) }),
        ),
        (
            "admit",
            "asks for the admission of a personal account",
            Frame::Admit(Admit {
                secret: Secret32::new([0xaa; 32]),
                chain: vec![blob(0x30, 2), blob(0x31, 2)],
                proof: blob(0xcc, 64),
            }),
        ),
        (
            "ask-directory",
            "asks the registrar for a tile of the directory",
            Frame::AskDirectory(ReadDirectory { resource: "tile/0/000.p/9".parse().unwrap() }),
        ),
        (
            "directory-told",
            "a resource of the directory, from the registrar",
            Frame::DirectoryTold(DirectoryRead { bytes: Some(blob(0xd8, 4)) }),
        ),
        ("renew", "asks for a certificate with a later end", Frame::Renew(Renew)),
        ("link", "asks for the ticket of a link code", Frame::Link(Link { secret_hash: [0xaa; 32] })),
        (
            "deposit",
            "leaves a sealed root for another device",
            Frame::Deposit(Deposit { id: [0xab; 32], sealed: blob(0xcd, 3) }),
        ),
        (
            "collect",
            "asks for what another device has left",
            Frame::Collect(Collect { id: [0xab; 32], device_key: [0xbb; 32], proof: blob(0xcc, 64) }),
        ),
        ("list-devices", "asks which devices the account has", Frame::ListDevices(ListDevices)),
        (
            "revoke-device",
            "revokes a device of the account",
            Frame::RevokeDevice(RevokeDevice { device: DeviceId([0x66; 32]) }),
        ),
        (
            "rename-device",
            "names a device of the account",
            Frame::RenameDevice(RenameDevice { device: DeviceId([0x66; 32]), label: "书房 🦊".to_owned() }),
        ),
    ]
}

fn listed(device: DeviceId, label: &str, revoked_at: Option<Timestamp>) -> ListedDevice {
    ListedDevice {
        device,
        label: label.to_owned(),
        enrolled_at: Timestamp(1_800_000_000_000),
        not_after: Timestamp(1_807_776_000_000),
        revoked_at,
    }
}

fn place() -> Place {
    let addresses = vec!["192.0.2.1:4433".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap()];
    Place { addresses, pin: SpkiPin([0x55; 32]) }
}

fn of_orders() -> Vec<(&'static str, &'static str, Frame)> {
    let head = |seq, byte| Some(OrderHead { seq: OrderSeq(seq), hash: OrderHash([byte; 32]) });
    let orders = vec![
        Order::Admit(RootHash([0x22; 32])),
        Order::Disable(AccountId([0x99; 32])),
        Order::Enable(AccountId([0x9a; 32])),
        Order::Revoke(DeviceId([0x66; 32])),
    ];
    let partners = vec![
        Order::AdmitPartner { root: RootHash([0x77; 32]), connections_max: 300 },
        Order::EndPartner(RootHash([0x77; 32])),
    ];
    vec![
        (
            "orders-partners",
            "another organisation is let in, and is not any more",
            Frame::Orders(Orders { behind: head(300, 1), orders: partners, head: head(302, 2) }),
        ),
        (
            "orders",
            "four orders behind the 300th",
            Frame::Orders(Orders { behind: head(300, 1), orders, head: head(304, 2) }),
        ),
        (
            "orders-anew",
            "the first half of what a relay of unknown head is told",
            Frame::Orders(Orders { behind: None, orders: vec![Order::Revoke(DeviceId([0x66; 32]))], head: None }),
        ),
        ("orders-taken", "says how far the relay is", Frame::OrdersTaken(OrdersTaken { head: head(304, 2) })),
        ("orders-taken-nothing", "says that the relay knows nothing", Frame::OrdersTaken(OrdersTaken { head: None })),
        (
            "tell-directory",
            "the last two entries under a checkpoint",
            Frame::TellDirectory(TellDirectory {
                key: [0x77; 32],
                from: 298,
                entries: vec![blob(0xa5, 3), blob(0xa6, 4)],
                checkpoint: Some(Blob(b"a note".to_vec())),
            }),
        ),
        (
            "tell-directory-question",
            "asks how far the relay's copy is",
            Frame::TellDirectory(TellDirectory { key: [0x77; 32], from: 300, entries: vec![], checkpoint: None }),
        ),
        (
            "directory-kept",
            "says how far the relay's copy is",
            Frame::DirectoryKept(DirectoryKept { size: 300, root: MerkleHash([0x44; 32]) }),
        ),
    ]
}

fn of_capture() -> Vec<(&'static str, &'static str, Frame)> {
    let lookup = StatementLookup([0x21; 32]);
    vec![
        ("ask-statement", "asks how far a group is archived", Frame::AskStatement(AskStatement { lookup })),
        ("ask-receipt", "asks for the receipt of an entry", Frame::AskReceipt(AskReceipt { lookup, seq: Seq(300) })),
        (
            "ask-log",
            "asks for the checkpoint of the archive's log",
            Frame::AskLog(AskLog { resource: Resource::Checkpoint }),
        ),
        (
            "statement-told",
            "a capture statement",
            Frame::StatementTold(StatementTold { statement: Some(blob(0xa3, 6)) }),
        ),
        ("statement-told-none", "a group is not known", Frame::StatementTold(StatementTold { statement: None })),
        ("receipt-told", "a receipt", Frame::ReceiptTold(ReceiptTold { receipt: Some(blob(0xa1, 4)) })),
        ("receipt-told-none", "an entry is not archived", Frame::ReceiptTold(ReceiptTold { receipt: None })),
        ("log-told", "a resource of the log", Frame::LogTold(LogTold { bytes: Some(blob(0xa4, 7)) })),
        ("log-told-none", "a resource that is not here", Frame::LogTold(LogTold { bytes: None })),
    ]
}

fn of_blobs() -> Vec<(&'static str, &'static str, Frame)> {
    let at = BlobRef { name: BlobName([0x22; 32]), size: 1_048_579 };
    vec![
        (
            "put-blob",
            "stores the last part of a blob",
            Frame::PutBlob(PutBlob { blob: at, offset: 1_048_576, bytes: blob(0xb1, 3) }),
        ),
        (
            "put-blob-question",
            "asks how much of a blob is there",
            Frame::PutBlob(PutBlob { blob: at, offset: 0, bytes: blob(0, 0) }),
        ),
        ("get-blob", "reads the last part of a blob", Frame::GetBlob(GetBlob { blob: at, offset: 1_048_576 })),
        ("blob-stands", "says how much of a blob is there", Frame::BlobStands(BlobStands { have: 1_048_576 })),
        ("blob-part", "a part of a blob", Frame::BlobPart(BlobPart { bytes: blob(0xb1, 3) })),
        ("blob-refused", "a blob is not there", Frame::BlobRefused(Refusal::UnknownBlob)),
    ]
}

fn of_server() -> Vec<(&'static str, &'static str, Frame)> {
    let entry = |seq, kind, body| Entry { seq: Seq(seq), kind, received_at: Timestamp(1_800_000_000_000), body };
    vec![
        (
            "ready",
            "lets a device in",
            Frame::Ready(Ready { now: Timestamp(1_800_000_000_000), key_packages: 20, welcomes: 1 }),
        ),
        (
            "opened",
            "says what a token opens",
            Frame::Opened(Opened {
                group: GROUP,
                head: head(),
                began: Head { seq: Seq(299), hash: HeadHash([0x43; 32]) },
                newest_commit: Seq(299),
                may_append: true,
                confirmed: true,
            }),
        ),
        ("closed", "confirms the end of a subscription", Frame::Closed(Closed { group: GROUP })),
        (
            "appended",
            "acknowledges an append",
            Frame::Appended(Appended { head: head(), received_at: Timestamp(1_800_000_000_001) }),
        ),
        ("published", "says how many KeyPackages are there", Frame::Published(Published { available: 100 })),
        (
            "key-packages",
            "hands out one KeyPackage",
            Frame::KeyPackages(KeyPackages {
                packages: vec![TakenPackage { device: DeviceId([0x66; 32]), body: blob(1, 2) }],
            }),
        ),
        (
            "key-packages-none",
            "has no KeyPackage to hand out",
            Frame::KeyPackages(KeyPackages { packages: Vec::new() }),
        ),
        ("mail-acked", "confirms deletion of Welcomes", Frame::MailAcked(MailAcked)),
        ("pong", "answers a Ping", Frame::Pong(Pong)),
        (
            "directory-read",
            "a resource of the directory",
            Frame::DirectoryRead(DirectoryRead { bytes: Some(blob(0xc7, 6)) }),
        ),
        ("directory-read-none", "a resource that is not here", Frame::DirectoryRead(DirectoryRead { bytes: None })),
        ("directory-grew", "the directory has 300 entries", Frame::DirectoryGrew(DirectoryGrew { size: 300 })),
        (
            "entries",
            "delivers a commit and a message",
            Frame::Entries(Entries {
                group: GROUP,
                entries: vec![
                    entry(1, EntryKind::Commit, blob(0xb6, 3)),
                    entry(2, EntryKind::Application, blob(0xb7, 4)),
                ],
            }),
        ),
        ("mail", "delivers a Welcome", Frame::Mail(Mail { id: MailId(128), body: blob(0xa5, 3) })),
        (
            "enrolled",
            "issues a chain",
            Frame::Enrolled(Enrolled { chain: vec![blob(0x30, 2), blob(0x31, 2), blob(0x32, 2)], relay: None }),
        ),
        (
            "enrolled-apart",
            "issues a chain and says where the relay is",
            Frame::Enrolled(Enrolled { chain: vec![blob(0x30, 2)], relay: Some(place()) }),
        ),
        ("admitted", "admits a personal account", Frame::Admitted(Admitted { relay: None })),
        (
            "linkable",
            "says until when a link code is good",
            Frame::Linkable(Linkable { expires_at: Timestamp(1_800_000_600_000) }),
        ),
        (
            "devices",
            "lists two devices, one of them revoked",
            Frame::Devices(Devices {
                devices: vec![
                    listed(DeviceId([0x66; 32]), "书房 🦊", None),
                    listed(DeviceId([0x67; 32]), "", Some(Timestamp(1_800_000_000_001))),
                ],
            }),
        ),
        (
            "collected",
            "hands out what another device has left",
            Frame::Collected(Collected { sealed: blob(0xcd, 3), relay: Some(place()) }),
        ),
        ("not-enrolled", "refuses a ticket", Frame::NotEnrolled(Refusal::TicketRefused)),
    ]
}

fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::Malformed,
        Refusal::TooLarge { bytes_max: 163_840 },
        Refusal::UnknownGroup,
        Refusal::TokenRefused,
        Refusal::NotOpen,
        Refusal::Stale { newest_commit: Seq(300) },
        Refusal::Conflict { newest_commit: Seq(300) },
        Refusal::Gone { first: Seq(200) },
        Refusal::HeaderMismatch,
        Refusal::GroupExists,
        Refusal::PackageNotTaken,
        Refusal::UnknownAccount,
        Refusal::RateLimited { retry_after_ms: 60_000 },
        Refusal::StoreFull,
        Refusal::StoreFailed,
        Refusal::CertificateMissing,
        Refusal::CertificateInvalid,
        Refusal::CertificateExpired,
        Refusal::CertificateForeign,
        Refusal::AccountDisabled,
        Refusal::TicketRefused,
        Refusal::ShuttingDown,
        Refusal::TooMany,
        Refusal::MailboxFull,
        Refusal::AppendedAndGone,
        Refusal::OutOfOrder,
        Refusal::Unconfirmed,
        Refusal::DeviceRevoked,
        Refusal::DeviceLimit,
        Refusal::UnknownDevice,
        Refusal::UnknownBlob,
        Refusal::BlobMismatch,
    ]
}

fn raw(body_len: u32, frame_type: u16, body: &[u8]) -> Vec<u8> {
    let header = FrameHeader { body_len, frame_type, correlation: CORRELATION };
    [header.to_bytes().as_slice(), body].concat()
}

pub(super) fn add(set: &mut Set) {
    for (name, title, frame) in
        of_client().into_iter().chain(of_server()).chain(of_orders()).chain(of_capture()).chain(of_blobs())
    {
        let input = json!({"direction": word(direction_of(&frame)), "bytes": hex(frame.to_bytes(CORRELATION))});
        set.add(&format!("frames/{name}"), "frame", title, &["wire.postcard.1", "wire.frame.4"], input, "ok");
    }
    for refusal in refusals() {
        let path = format!("frames/refused-{:02}", refusal.code());
        let title = format!("refusal {}: {refusal}", refusal.code());
        let input = json!({"direction": "to_client", "bytes": hex(Frame::Refused(refusal).to_bytes(CORRELATION))});
        set.add(&path, "frame", &title, &["wire.refusal.1"], input, "ok");
    }
    malformed(set);
}

fn malformed(set: &mut Set) {
    let mut add = |name: &str, title: &str, proves: &str, direction: Direction, bytes: Vec<u8>, expect: &str| {
        let input = json!({"direction": word(direction), "bytes": hex(bytes)});
        set.add(&format!("frames/bad/{name}"), "frame", title, &[proves], input, expect);
    };
    let to_relay = Direction::ToRelay;
    let close = Frame::Close(Close { group: GROUP }).to_bytes(CORRELATION);
    let body = &close[FrameHeader::LEN..];
    let over = u32::try_from(FRAME_BYTES_MAX).unwrap() + 1;

    add("header-too-long", "a body one byte over the cap", "wire.frame.1", to_relay, raw(over, 2, &[]), "header");
    add(
        "header-longest",
        "the longest body, of which nothing came yet",
        "wire.frame.1",
        to_relay,
        raw(over - 1, 2, &[]),
        "incomplete",
    );
    add("header-short", "nine bytes of a header", "wire.frame.1", to_relay, close[..9].to_vec(), "incomplete");
    add(
        "body-short",
        "a body without its last byte",
        "wire.frame.1",
        to_relay,
        close[..close.len() - 1].to_vec(),
        "incomplete",
    );
    add("type-unknown", "a type that nobody defined", "wire.frame.4", to_relay, raw(32, 0x7fff, body), "type");
    add(
        "type-of-relay",
        "an answer sent to the relay",
        "wire.frame.4",
        to_relay,
        Frame::Pong(Pong).to_bytes(CORRELATION),
        "type",
    );
    add("type-of-client", "a request sent to the client", "wire.frame.4", Direction::ToClient, close.clone(), "type");
    add(
        "type-delivery-on-control",
        "a delivery on the control stream",
        "wire.frame.4",
        Direction::ToClient,
        Frame::Mail(Mail { id: MailId(1), body: blob(1, 1) }).to_bytes(CORRELATION),
        "type",
    );
    add("type-enrol-on-relay", "an enrolment on chancery/1", "wire.frame.4", to_relay, raw(2, 0x0301, &[0, 0]), "type");
    add(
        "body-trailing",
        "a Close with a byte left over",
        "wire.postcard.1",
        to_relay,
        raw(33, 2, &[body, &[0]].concat()),
        "body",
    );
    add("body-truncated", "a Close of 31 bytes", "wire.postcard.1", to_relay, raw(31, 2, &body[..31]), "body");
    add("body-empty", "a Close of no bytes", "wire.postcard.1", to_relay, raw(0, 2, &[]), "body");
    add(
        "option-tag",
        "an Open whose option begins with 2",
        "wire.postcard.1",
        to_relay,
        raw(65, 1, &[&[0x11; 64][..], &[2]].concat()),
        "body",
    );
    add(
        "enum-tag",
        "an Append of kind 2",
        "wire.postcard.1",
        to_relay,
        raw(36, 3, &[body, &[2, 0, 0, 0]].concat()),
        "body",
    );
    add(
        "varint-too-long",
        "an AckMail whose id has eleven bytes",
        "wire.postcard.1",
        to_relay,
        raw(12, 6, &[&[1][..], &[0x80; 10], &[0]].concat()),
        "body",
    );
    add(
        "varint-too-large",
        "an AckMail whose id is 2^64",
        "wire.postcard.1",
        to_relay,
        raw(11, 6, &[&[1][..], &[0x80; 9], &[2]].concat()),
        "body",
    );
    add(
        "length-beyond",
        "an AckMail that announces more ids than there are bytes",
        "wire.postcard.1",
        to_relay,
        raw(5, 6, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        "body",
    );
    add(
        "refusal-unknown",
        "a refusal that nobody defined",
        "wire.refusal.1",
        Direction::ToClient,
        raw(1, 0x0102, &[0x7f]),
        "body",
    );
    set.add(
        "frames/varint-not-shortest",
        "frame",
        "a number written with a byte more than needed is read",
        &["wire.postcard.1"],
        json!({"direction": "to_relay", "bytes": hex(raw(3, 6, &[1, 0x85, 0]))}),
        "ok",
    );
}
