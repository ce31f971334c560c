//! The insider: an honest client whose crypto changes what it encrypts, and signs it again with the insider's key.
//!
//! Layouts are those of RFC 9420: sections 6.1 (FramedContentTBS), 6.3.1 (PrivateMessageContent), 10 (KeyPackage),
//! 12.4.3 (GroupInfo).

use std::sync::Mutex;

use chancery_protocol::{
    identity::{DeviceKey, key::Purpose},
    mls::{self, Core, Group, OfferedPackage, Prepared},
    wire::vector::{push_vector, take, take_vector},
};
use chancery_test_crypto::Tap;
use rcgen::{KeyPair, SigningKey};

use super::fixture::{Fixture, NOW, fixture};
use crate::fuzz::input::Input;

/// Where contents are changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Layer {
    /// A message's or commit's content, signed again.
    Content,
    /// The same and all behind it, not signed again.
    Unsigned,
    /// Leaf index and generation of the sender.
    Sender,
    /// A GroupInfo, signed again.
    GroupInfo,
    /// A notice, signed again.
    Notice,
}

/// One change of some bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patch {
    kind: u8,
    at: u16,
    value: u8,
}

impl Patch {
    /// None to four of them.
    pub(super) fn some(input: &mut Input<'_>) -> Vec<Self> {
        let count = input.below(5);
        (0..count).map(|_| Self { kind: input.byte() % 6, at: input.number(), value: input.byte() }).collect()
    }

    pub(super) fn apply(self, bytes: &mut Vec<u8>) {
        let at = usize::from(self.at) % (bytes.len() + 1);
        match self.kind {
            0 if at < bytes.len() => bytes[at] ^= 1 << (self.value % 8),
            1 if at < bytes.len() => bytes[at] = self.value,
            2 => bytes.insert(at, self.value),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            4 => bytes.truncate(at),
            _ => {
                let end = (at + usize::from(self.value)).min(bytes.len());
                let twice = bytes[at..end].to_vec();
                bytes.splice(end..end, twice);
            }
        }
    }
}

/// What the tap does.
pub(super) type Change = (Layer, Vec<Patch>);

/// Watches what is encrypted, and changes it if it has a plan.
#[derive(Default)]
pub(super) struct Tapped {
    plan: Option<Change>,
    context: Mutex<Option<Vec<u8>>>,
}

impl Tapped {
    pub(super) fn planning(plan: Change) -> Self {
        Self { plan: Some(plan), context: Mutex::default() }
    }

    /// The GroupContext of the last GroupInfo.
    pub(super) fn context(&self) -> Option<Vec<u8>> {
        self.context.lock().unwrap().clone()
    }
}

/// The signature at the end: a vector of 64 bytes.
const SIGNATURE: usize = 2 + 64;
/// The confirmation tag behind a commit's signature.
const TAG: usize = 1 + 32;
/// Leaf index, generation and reuse guard.
const SENDER: usize = 12;

impl Tap for Tapped {
    fn encrypting(&self, _key: &[u8], _nonce: &[u8], plaintext: &mut Vec<u8>) {
        let is_info = is_group_info(plaintext);
        if is_info {
            *self.context.lock().unwrap() = group_context(plaintext).map(<[u8]>::to_vec);
        }
        let Some((layer, patches)) = &self.plan else { return };
        let is_sender = plaintext.len() == SENDER;
        match layer {
            Layer::Content if !is_info && !is_sender => resign_content(plaintext, patches),
            Layer::Unsigned if !is_info && !is_sender => patches.iter().for_each(|patch| patch.apply(plaintext)),
            // The reuse guard goes into the nonce besides; what stands in front of it is the sender's.
            Layer::Sender if is_sender => {
                let mut claimed = plaintext[..8].to_vec();
                patches.iter().for_each(|patch| patch.apply(&mut claimed));
                claimed.resize(8, 0);
                plaintext[..8].copy_from_slice(&claimed);
            }
            Layer::GroupInfo if is_info => resign(plaintext, plaintext.len() - SIGNATURE, patches, "GroupInfoTBS"),
            Layer::Notice => resign_notice(plaintext, patches),
            _ => {}
        }
    }
}

fn is_group_info(plaintext: &[u8]) -> bool {
    plaintext.starts_with(&[0, 1, 0, 1, 32]) && plaintext.len() > 300
}

/// Version, ciphersuite, group id, epoch, tree hash, transcript hash, extensions.
fn group_context(group_info: &[u8]) -> Option<&[u8]> {
    let mut rest = group_info;
    take::<4>(&mut rest)?;
    take_vector(&mut rest)?;
    take::<8>(&mut rest)?;
    for _ in 0..3 {
        take_vector(&mut rest)?;
    }
    Some(&group_info[..group_info.len() - rest.len()])
}

fn signature(key: &DeviceKey, label: &str, content: &[u8]) -> Vec<u8> {
    let mut signed = Vec::new();
    push_vector(&mut signed, format!("MLS 1.0 {label}").as_bytes());
    push_vector(&mut signed, content);
    KeyPair::try_from(key.to_pkcs8().as_slice()).unwrap().sign(&signed).unwrap()
}

/// Changes the first `len` bytes and puts another signature behind them.
fn resign(bytes: &mut Vec<u8>, len: usize, patches: &[Patch], label: &str) {
    let mut content = bytes[..len].to_vec();
    patches.iter().for_each(|patch| patch.apply(&mut content));
    let signature = signature(&fixture_key(), label, &content);
    push_vector(&mut content, &signature);
    content.extend_from_slice(&bytes[len + SIGNATURE..]);
    *bytes = content;
}

fn fixture_key() -> DeviceKey {
    fixture().key(2)
}

/// Content, signature, for a commit the confirmation tag; no padding.
fn resign_content(plaintext: &mut Vec<u8>, patches: &[Patch]) {
    let is_commit = plaintext.len() > SIGNATURE + TAG
        && plaintext[plaintext.len() - TAG] == 32
        && plaintext[plaintext.len() - TAG - SIGNATURE..].starts_with(&[0x40, 0x40]);
    let tail = if is_commit { SIGNATURE + TAG } else { SIGNATURE };
    let content = plaintext.len() - tail;
    let fixture = fixture();
    // version, wire format, group id, epoch, sender (member, leaf index), authenticated data, content type
    let mut head = vec![0, 1, 0, 2];
    push_vector(&mut head, fixture.group.as_bytes());
    head.extend_from_slice(&fixture.context[37..45]);
    head.extend_from_slice(&[1, 0, 0, 0, 2, 0, if is_commit { 3 } else { 1 }]);
    let mut changed = plaintext[..content].to_vec();
    patches.iter().for_each(|patch| patch.apply(&mut changed));
    let signed = [head.as_slice(), &changed, &fixture.context].concat();
    let signature = signature(&fixture_key(), "FramedContentTBS", &signed);
    push_vector(&mut changed, &signature);
    changed.extend_from_slice(&plaintext[content + SIGNATURE..]);
    *plaintext = changed;
}

/// Notice and signature; what is signed has group and epoch in front.
fn resign_notice(plaintext: &mut Vec<u8>, patches: &[Patch]) {
    let content = plaintext.len() - (1 + 64);
    let mut changed = plaintext[..content].to_vec();
    patches.iter().for_each(|patch| patch.apply(&mut changed));
    let fixture = fixture();
    let signed = [fixture.group.as_bytes().as_slice(), &fixture.context[37..45], &changed].concat();
    let signature = fixture_key().sign(Purpose::Notice, &signed);
    changed.push(64);
    changed.extend_from_slice(&signature);
    *plaintext = changed;
}

/// An `MLSMessage` with a KeyPackage that is changed: in its leaf, which is signed again with all around it; in what
/// stands around the leaf, signed again; or anywhere, not signed again.
pub(super) fn resigned_package(message: &[u8], patches: &[Patch], key: &DeviceKey, which: usize) -> Vec<u8> {
    let mut changed = message.to_vec();
    let sign = |bytes: &mut Vec<u8>, label: &str| {
        let signature = signature(key, label, bytes);
        push_vector(bytes, &signature);
    };
    // mls10, mls_key_package; version, ciphersuite, init key, leaf, extensions, signature
    let Some((front, leaf, extensions)) = split_package(message) else { return changed };
    let (mut front, mut leaf, mut extensions) = (front.to_vec(), leaf.to_vec(), extensions.to_vec());
    match which {
        0 | 1 => patches.iter().for_each(|patch| patch.apply(&mut leaf)),
        2 => {
            patches.iter().for_each(|patch| patch.apply(if patch_front(*patch) { &mut front } else { &mut extensions }))
        }
        _ => {
            patches.iter().for_each(|patch| patch.apply(&mut changed));
            return changed;
        }
    }
    sign(&mut leaf, "LeafNodeTBS");
    let mut package = [front, leaf, extensions].concat();
    sign(&mut package, "KeyPackageTBS");
    [&message[..4], &package].concat()
}

fn patch_front(patch: Patch) -> bool {
    patch.at < 0x8000
}

/// What stands before the leaf; the leaf without its signature; the extensions behind it.
fn split_package(message: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let body = message.get(4..)?;
    let mut rest = body;
    take::<4>(&mut rest)?;
    take_vector(&mut rest)?;
    let front = body.len() - rest.len();
    // encryption key, signature key; credential: x509, one vector of certificates; capabilities: five vectors; source and
    // lifetime; extensions
    take_vector(&mut rest)?;
    take_vector(&mut rest)?;
    take::<2>(&mut rest)?;
    for _ in 0..6 {
        take_vector(&mut rest)?;
    }
    take::<17>(&mut rest)?;
    take_vector(&mut rest)?;
    let leaf = body.len() - rest.len();
    take_vector(&mut rest)?;
    let behind = body.len() - rest.len();
    take_vector(&mut rest)?;
    Some((&body[..front], &body[front..leaf], &body[behind..body.len() - rest.len()]))
}

/// eve, with her group and a crypto that lies.
pub(super) struct Insider {
    pub core: Core,
    pub group: Group,
    key: DeviceKey,
}

impl Insider {
    pub(super) fn load(fixture: &Fixture, plan: Option<Change>) -> Self {
        let (core, group) = fixture.load(2, plan);
        Self { core, group, key: fixture.key(2) }
    }

    pub(super) fn encrypt(&mut self, plaintext: &[u8]) -> Vec<u8> {
        self.group.encrypt(&self.core, &self.key, plaintext).unwrap()
    }

    pub(super) fn commit(&mut self, change: &mls::Change) -> Prepared {
        self.group.commit(&self.core, &self.key, change).unwrap()
    }

    pub(super) fn offered(&self, package: &[u8]) -> OfferedPackage {
        OfferedPackage::parse(&self.core, package, NOW).unwrap()
    }
}
