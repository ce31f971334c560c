//! Entries of directories.

use std::net::SocketAddr;

use chancery_protocol::{
    identity::{
        Organisation,
        directory::{DirectoryEntry, DirectoryEvent, PublishedKey, PublishedPolicy, entry::Issued},
    },
    ids::{AccountId, CertificateHash, DeviceId, PolicyHash, RootHash, SpkiPin},
    limits::LOG_ENTRY_BYTES_MAX,
    time::Timestamp,
    wire::{Blob, registrar::Place},
};
use serde_json::json;

use super::{super::json::hex, Set};

/// 2027-01-15T08:00:00Z.
const NOW: Timestamp = Timestamp(1_800_000_000_000);

pub(super) fn add(set: &mut Set) {
    let (account, device) = (AccountId([0x11; 32]), DeviceId([0x33; 32]));
    let issued = Issued {
        account,
        device,
        certificate: CertificateHash([0x44; 32]),
        not_after: Timestamp(NOW.0 + 90 * 86_400_000),
    };
    let bytes = |event| DirectoryEntry { at: NOW, event }.to_bytes();
    let mut add = |name: &str, title: &str, bytes: &[u8], expect: &str| {
        let proves = ["directory.entry.1", "directory.entry.2"];
        let path = format!("directory/entry-{name}");
        set.add(&path, "directory_entry", title, &proves, json!({"bytes": hex(bytes)}), expect);
    };
    let certified = bytes(DirectoryEvent::CertificateIssued(issued));
    add("issued", "a certificate", &certified, "ok");
    add("revoked", "a device that is revoked", &bytes(DirectoryEvent::DeviceRevoked { account, device }), "ok");
    add("disabled", "an account that is disabled", &bytes(DirectoryEvent::AccountDisabled { account }), "ok");
    add("enabled", "an account that is enabled again", &bytes(DirectoryEvent::AccountEnabled { account }), "ok");
    let place = |pin: u8, port: u16| Place {
        pin: SpkiPin([pin; 32]),
        addresses: vec![SocketAddr::from(([192, 0, 2, 1], port))],
    };
    let partner = Organisation {
        domain: "partner.example".parse().unwrap(),
        root: RootHash([0x22; 32]),
        relay: place(0x55, 4433),
        registrar: place(0x66, 4434),
    };
    add("partner-admitted", "a partner", &bytes(DirectoryEvent::PartnerAdmitted(partner)), "ok");
    let ended = DirectoryEvent::PartnerEnded { root: RootHash([0x22; 32]) };
    add("partner-ended", "a partner that is none any more", &bytes(ended), "ok");
    let policy = PublishedPolicy {
        id: "desk-archive".to_owned(),
        version: 2,
        hash: PolicyHash([0x77; 32]),
        key_number: 1,
        effective_from: Timestamp(NOW.0 + 86_400_000),
    };
    let published = bytes(DirectoryEvent::PolicyPublished(policy));
    add("policy", "a version of an escrow policy", &published, "ok");
    let key = PublishedKey { id: "desk-archive".to_owned(), generation: 3, key: [0x88; 32], quorum: 3, seats: 5 };
    add("archive-key", "a key of an archive", &bytes(DirectoryEvent::ArchiveKeyMade(key)), "ok");
    let unknown = |kind, len: usize| bytes(DirectoryEvent::Unknown { kind, content: Blob(vec![7; len]) });
    add("unknown", "a kind that is not known", &unknown(900, 5), "ok");
    add("bad-empty", "no bytes", &[], "entry");
    add("bad-truncated", "the end is missing", &certified[..certified.len() - 1], "entry");
    add("bad-trailing", "a byte too many", &[certified.as_slice(), &[0]].concat(), "entry");
    add("bad-content", "a revocation that names nobody", &unknown(2, 5), "entry");
    add("bad-policy", "an escrow policy without a hash", &unknown(5, 9), "entry");
    add("bad-archive-key", "an archive key that is too short", &unknown(6, 20), "entry");
    add("bad-long", "longer than any entry", &unknown(900, LOG_ENTRY_BYTES_MAX), "entry");
    let mut newer = certified;
    newer[0] = 2;
    add("bad-version", "another version", &newer, "entry");
}
