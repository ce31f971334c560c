//! PrivateMessages as no client makes them: any sender, any generation, any content, under the secrets of an epoch that a
//! member holds (RFC 9420, sections 6.3 and 9).

use openmls_rust_crypto::RustCrypto;
use openmls_traits::{
    crypto::OpenMlsCrypto,
    types::{AeadType, HashType, SignatureScheme},
};

const HASH: HashType = HashType::Sha2_256;
const AEAD: AeadType = AeadType::Aes128Gcm;
const HASH_LEN: u16 = 32;
const KEY_LEN: u16 = 16;
const NONCE_LEN: u16 = 12;

/// `content_type` of application messages.
pub const APPLICATION: u8 = 1;
/// `content_type` of commits.
pub const COMMIT: u8 = 3;

/// What every member of an epoch holds, in the suite 0x0001.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochSecrets {
    /// The GroupContext, as it is signed.
    pub context: Vec<u8>,
    /// `sender_data_secret`.
    pub sender_data: Vec<u8>,
    /// `encryption_secret`, the root of the secret tree.
    pub encryption: Vec<u8>,
}

/// What a message claims, whoever makes it.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// `group_id`.
    pub group: &'a [u8],
    /// `epoch`.
    pub epoch: u64,
    /// `content_type` in the header.
    pub content_type: u8,
    /// The leaf that the sender data name.
    pub leaf: u32,
    /// The generation that the sender data name.
    pub generation: u32,
    /// The leaf whose ratchet gives the key.
    pub ratchet_of: u32,
}

/// A vector with its length in front (RFC 9420, section 2.1.2).
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "each length is checked to fit")]
pub fn vector(bytes: &[u8]) -> Vec<u8> {
    let len = bytes.len();
    let mut out = match len {
        0..=0x3f => vec![len as u8],
        0x40..=0x3fff => (len as u16 | 0x4000).to_be_bytes().to_vec(),
        _ => (len as u32 | 0x8000_0000).to_be_bytes().to_vec(),
    };
    out.extend_from_slice(bytes);
    out
}

/// The label and the context of an HKDF-Expand that MLS makes (RFC 9420, section 8): none for any other.
#[must_use]
pub fn labelled(info: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, mut rest) = info.split_first_chunk::<2>()?;
    let label = take_vector(&mut rest)?.strip_prefix(b"MLS 1.0 ")?;
    let context = take_vector(&mut rest)?;
    rest.is_empty().then_some((label, context))
}

/// Splits a vector off.
#[must_use]
pub fn take_vector<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let first = *rest.first()?;
    let width = 1_usize << (first >> 6);
    let (head, tail) = rest.split_at_checked(width)?;
    let len = head.iter().fold(0_usize, |len, byte| len << 8 | usize::from(*byte)) & ((1 << (8 * width - 2)) - 1);
    let (bytes, tail) = tail.split_at_checked(len)?;
    *rest = tail;
    Some(bytes)
}

struct Kdf(RustCrypto);

impl Kdf {
    fn expand(&self, secret: &[u8], label: &str, context: &[u8], len: u16) -> Vec<u8> {
        let label = [b"MLS 1.0 ", label.as_bytes()].concat();
        let info = [len.to_be_bytes().to_vec(), vector(&label), vector(context)].concat();
        self.0.hkdf_expand(HASH, secret, &info, usize::from(len)).map(|out| out.as_slice().to_vec()).unwrap_or_default()
    }
}

impl EpochSecrets {
    /// The epoch's number, which its context names.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        // ProtocolVersion, CipherSuite, then group_id<V> and epoch.
        let mut rest = self.context.get(4..)?;
        take_vector(&mut rest)?;
        rest.first_chunk().map(|epoch| u64::from_be_bytes(*epoch))
    }

    /// Encrypts `plaintext`, a PrivateMessageContent or what is to pass for one, in a group of at most `leaves` leaves.
    /// The outcome is an `MLSMessage`.
    ///
    /// # Panics
    /// If a secret is not of the suite.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a test fails by panicking")]
    pub fn seal(&self, leaves: u32, claim: &Claim<'_>, plaintext: &[u8]) -> Vec<u8> {
        let kdf = Kdf(RustCrypto::default());
        let guard = [1, 2, 3, 4];
        let (key, mut nonce) = self.ratchet(&kdf, leaves, claim);
        nonce.iter_mut().zip(guard).for_each(|(byte, guard)| *byte ^= guard);

        let header = [vector(claim.group), claim.epoch.to_be_bytes().to_vec(), vec![claim.content_type]].concat();
        let aad = [header.clone(), vector(&[])].concat();
        let ciphertext = kdf.0.aead_encrypt(AEAD, &key, plaintext, &nonce, &aad).expect("the content encrypts");

        let sample = ciphertext.get(..usize::from(HASH_LEN)).unwrap_or(&ciphertext);
        let key = kdf.expand(&self.sender_data, "key", sample, KEY_LEN);
        let nonce = kdf.expand(&self.sender_data, "nonce", sample, NONCE_LEN);
        let sender = [claim.leaf.to_be_bytes(), claim.generation.to_be_bytes(), guard].concat();
        let sender = kdf.0.aead_encrypt(AEAD, &key, &sender, &nonce, &header).expect("the sender data encrypt");
        // ProtocolVersion mls10, WireFormat mls_private_message
        [vec![0, 1, 0, 2], header, vector(&[]), vector(&sender), vector(&ciphertext)].concat()
    }

    fn ratchet(&self, kdf: &Kdf, leaves: u32, claim: &Claim<'_>) -> (Vec<u8>, Vec<u8>) {
        let mut secret = self.encryption.clone();
        let (mut width, mut at) = (leaves.next_power_of_two(), claim.ratchet_of);
        while width > 1 {
            width /= 2;
            let side = if at < width { "left" } else { "right" };
            secret = kdf.expand(&secret, "tree", side.as_bytes(), HASH_LEN);
            at %= width;
        }
        let kind = if claim.content_type == APPLICATION { "application" } else { "handshake" };
        secret = kdf.expand(&secret, kind, &[], HASH_LEN);
        for generation in 0..claim.generation {
            secret = kdf.expand(&secret, "secret", &generation.to_be_bytes(), HASH_LEN);
        }
        let at = claim.generation.to_be_bytes();
        (kdf.expand(&secret, "key", &at, KEY_LEN), kdf.expand(&secret, "nonce", &at, NONCE_LEN))
    }

    /// Signs a content as the member at `leaf` would, with whatever key (RFC 9420, section 6.1). `body` is what follows
    /// `content_type` in a FramedContent.
    ///
    /// # Panics
    /// If the key is none.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a test fails by panicking")]
    pub fn sign(&self, key: &[u8; 32], claim: &Claim<'_>, content_type: u8, body: &[u8]) -> Vec<u8> {
        let sender = [vec![1], claim.leaf.to_be_bytes().to_vec()].concat();
        let framed = [
            vec![0, 1, 0, 2],
            vector(claim.group),
            claim.epoch.to_be_bytes().to_vec(),
            sender,
            vector(&[]),
            vec![content_type],
            body.to_vec(),
            self.context.clone(),
        ]
        .concat();
        let content = [vector(b"MLS 1.0 FramedContentTBS"), vector(&framed)].concat();
        RustCrypto::default().sign(SignatureScheme::ED25519, &content, key).expect("the key signs")
    }
}
