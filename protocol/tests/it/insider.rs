//! Insiders: members whose crypto a test watches and bends, and entries that no client makes.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use chancery_protocol::{
    client::{AlarmKind, Event},
    ids::{GroupId, TokenHash},
    wire::{
        Blob, Frame,
        relay::{Append, Bundle, EntryKind},
        vector::{push_vector, take, take_vector},
    },
};
use chancery_test_crypto::{
    HpkeCiphertext, Tap,
    private_message::{Claim, EpochSecrets, labelled},
};

use crate::net::Net;

/// How a path secret is spoiled.
#[derive(Clone, Copy, Debug)]
pub enum Spoil {
    /// It does not open.
    Garbled,
    /// It opens to another secret.
    Other,
    /// Nothing is there.
    Empty,
}

type Keys = BTreeSet<Vec<u8>>;
type Bend = Box<dyn FnOnce(&mut Vec<u8>) + Send>;

#[derive(Default)]
struct Seen {
    /// Of each epoch that was derived, in this order; a commit that is being made derives the next one.
    epochs: Vec<EpochSecrets>,
    /// Public keys of what this device can open.
    keys: Keys,
    /// Contents of messages that were opened.
    opened: Vec<Vec<u8>>,
    /// Leaf and generation that the newest message named.
    sender: (u32, u32),
    spoil: Option<(Spoil, Keys)>,
    bend: Option<Bend>,
}

/// What one member's crypto shows, and is told to do.
#[derive(Default)]
pub struct Watch(Mutex<Seen>);

/// Sender data: leaf, generation, reuse guard.
const SENDER_DATA: usize = 12;
/// A commit's tag, at the end: length and 32 bytes.
pub const TAG: usize = 33;
/// A signature before it: length and 64 bytes.
pub const SIGNATURE: usize = 66;

impl Tap for Watch {
    fn expanded(&self, info: &[u8], output: &[u8]) {
        let epochs = &mut self.0.lock().unwrap().epochs;
        match labelled(info) {
            Some((b"epoch", context)) => {
                epochs.push(EpochSecrets { context: context.to_vec(), ..EpochSecrets::default() });
            }
            Some((b"sender data", _)) => epochs.last_mut().unwrap().sender_data = output.to_vec(),
            Some((b"encryption", _)) => epochs.last_mut().unwrap().encryption = output.to_vec(),
            _ => {}
        }
    }

    fn derived(&self, public: &[u8]) {
        self.0.lock().unwrap().keys.insert(public.to_vec());
    }

    fn sealing(&self, public: &[u8], info: &[u8], plaintext: &mut Vec<u8>) {
        if self.spoils(public, info).is_some_and(|spoil| matches!(spoil, Spoil::Other)) {
            plaintext[0] ^= 1;
        }
    }

    fn sealed(&self, public: &[u8], info: &[u8], sealed: &mut HpkeCiphertext) {
        match self.spoils(public, info) {
            Some(Spoil::Garbled) => {
                let mut bytes = sealed.ciphertext.as_slice().to_vec();
                bytes[0] ^= 1;
                sealed.ciphertext = bytes.into();
            }
            Some(Spoil::Empty) => sealed.ciphertext = Vec::new().into(),
            Some(Spoil::Other) | None => {}
        }
    }

    fn encrypting(&self, _: &[u8], _: &[u8], plaintext: &mut Vec<u8>) {
        // A commit's GroupInfo is encrypted, too; it begins with the protocol's version and the suite.
        let other = plaintext.len() == SENDER_DATA || plaintext.starts_with(&[0, 1, 0, 1]);
        let bend = self.0.lock().unwrap().bend.take_if(|_| !other);
        if let Some(bend) = bend {
            bend(plaintext);
        }
    }

    fn decrypted(&self, _: &[u8], _: &[u8], plaintext: &[u8]) {
        let mut seen = self.0.lock().unwrap();
        if plaintext.len() == SENDER_DATA {
            let number = |at: usize| u32::from_be_bytes(plaintext[at..at + 4].try_into().unwrap());
            seen.sender = (number(0), number(4));
        } else {
            seen.opened.push(plaintext.to_vec());
        }
    }
}

impl Watch {
    fn spoils(&self, public: &[u8], info: &[u8]) -> Option<Spoil> {
        let seen = self.0.lock().unwrap();
        let (spoil, keys) = seen.spoil.as_ref()?;
        let path = take_vector(&mut &*info) == Some(b"MLS 1.0 UpdatePathNode");
        (path && keys.contains(public)).then_some(*spoil)
    }

    /// The newest epoch that this member knows, that of a commit it has made included.
    fn newest(&self) -> u64 {
        self.0.lock().unwrap().epochs.last().unwrap().epoch().unwrap()
    }

    /// What it knows of an epoch.
    pub fn at(&self, epoch: u64) -> EpochSecrets {
        let seen = self.0.lock().unwrap();
        seen.epochs.iter().rev().find(|secrets| secrets.epoch() == Some(epoch)).unwrap().clone()
    }

    /// Leaf and generation that the newest message from another named.
    pub fn sender(&self) -> (u32, u32) {
        self.0.lock().unwrap().sender
    }

    /// The content of the newest message that this member has opened.
    pub fn opened(&self) -> Vec<u8> {
        self.0.lock().unwrap().opened.last().unwrap().clone()
    }

    /// Path secrets for any of these are spoiled in the commits that this member makes.
    pub fn spoil(&self, spoil: Spoil, victims: &[&Watch]) {
        let keys = victims.iter().flat_map(|victim| victim.0.lock().unwrap().keys.clone()).collect();
        self.0.lock().unwrap().spoil = Some((spoil, keys));
    }

    /// The content of the next message that this member makes is bent before it is encrypted.
    pub fn bend(&self, bend: impl FnOnce(&mut Vec<u8>) + Send + 'static) {
        self.0.lock().unwrap().bend = Some(Box::new(bend));
    }

    /// This member is honest again.
    pub fn behave(&self) {
        let mut seen = self.0.lock().unwrap();
        seen.spoil = None;
        seen.bend = None;
    }
}

/// A group whose members are all watched, and stand in the leaves 0, 1, ... by their names.
pub struct Plot {
    pub net: Net,
    pub group: GroupId,
    pub names: Vec<&'static str>,
    watches: Vec<Arc<Watch>>,
    tokens: u8,
}

/// What became of an entry at one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Merged, or shown.
    Valid,
    Void,
    Stuck,
    OwnLeaf,
    /// Nothing was told.
    Silent,
}

impl Plot {
    pub fn new(seed: u64, names: &[&'static str]) -> Self {
        let mut net = Net::new(seed);
        let watches: Vec<Arc<Watch>> = names.iter().map(|_| Arc::default()).collect();
        for (name, watch) in names.iter().zip(&watches) {
            net.tapped(name, watch.clone());
        }
        let group = net.create(names[0], chancery_protocol::mls::Class::Work, "desk");
        for name in &names[1..] {
            net.invite(names[0], group, name);
        }
        net.settle();
        let mut plot = Self { net, group, names: names.to_vec(), watches, tokens: 0 };
        plot.quiet();
        plot
    }

    pub fn watch(&self, name: &str) -> &Watch {
        &self.watches[self.leaf(name) as usize]
    }

    pub fn leaf(&self, name: &str) -> u32 {
        u32::try_from(self.names.iter().position(|one| *one == name).unwrap()).unwrap()
    }

    /// Forgets what was told until here.
    pub fn quiet(&mut self) {
        for name in self.names.clone() {
            self.net.events(name);
        }
    }

    /// What has become of the one entry in question since the last look, by member.
    pub fn fates(&mut self) -> Vec<(&'static str, Fate)> {
        self.names.clone().into_iter().map(|name| (name, fate(&self.net.events(name)))).collect()
    }

    pub fn alarms(&mut self, name: &str) -> Vec<AlarmKind> {
        alarms(&self.net.events(name))
    }

    /// The epoch that all are in: one that a pending commit would begin is not.
    pub fn epoch(&self) -> u64 {
        self.names.iter().map(|name| self.watch(name).newest()).min().unwrap()
    }

    /// What each member knows of it.
    pub fn secrets(&self) -> EpochSecrets {
        self.watch(self.names[0]).at(self.epoch())
    }

    /// What a claim of `by` looks like that is true.
    pub fn claim(&self, by: &str, content_type: u8, generation: u32) -> Claim<'static> {
        let leaf = self.leaf(by);
        let group: &'static [u8] = Box::leak(Box::new(self.group.0));
        Claim { group, epoch: self.epoch(), content_type, leaf, generation, ratchet_of: leaf }
    }

    /// Encrypts what the claim says, with what every member knows.
    pub fn seal(&self, claim: &Claim<'_>, content: &[u8]) -> Vec<u8> {
        self.secrets().seal(u32::try_from(self.names.len()).unwrap(), claim, content)
    }

    /// A content of `by`, signed by the device of `signer` as one of `content_type`.
    pub fn signed(&self, claim: &Claim<'_>, content_type: u8, body: &[u8], signer: &str) -> Vec<u8> {
        let seed = self.net.device_seed(signer);
        let mut content = body.to_vec();
        push_vector(&mut content, &self.secrets().sign(&seed, claim, content_type, body));
        content
    }

    /// Appends over the connection of `insider`, before anything that is on its way.
    pub fn place(&mut self, insider: &'static str, body: Vec<u8>, kind: EntryKind) {
        let after = self.net.store.group(self.group).unwrap().newest_commit;
        let bundle = (kind == EntryKind::Commit).then(|| {
            self.tokens += 1;
            Bundle { next_token: TokenHash([self.tokens; 32]), welcomes: Vec::new() }
        });
        let append = Append { group: self.group, kind, after, behind: None, body: Blob(body), bundle };
        self.net.overtake(insider, Frame::Append(append));
    }

    /// Everybody says something, and everybody has it, once.
    pub fn all_is_well(&mut self, members: &[&'static str], round: &str) {
        for name in members {
            self.net.send(name, self.group, &format!("{name}: {round}"));
        }
        self.net.settle();
        for reader in members {
            let mut texts = self.net.texts(reader, self.group);
            texts.retain(|text| text.ends_with(round));
            texts.sort();
            let mut expected: Vec<String> = members.iter().map(|name| format!("{name}: {round}")).collect();
            expected.sort();
            assert_eq!(texts, expected, "{reader}");
        }
    }
}

pub fn alarms(events: &[Event]) -> Vec<AlarmKind> {
    let alarm = |event: &Event| match event {
        Event::Alarm { kind, .. } => Some(*kind),
        _ => None,
    };
    events.iter().filter_map(alarm).collect()
}

fn fate(events: &[Event]) -> Fate {
    let told = |kind| alarms(events).contains(&kind);
    if told(AlarmKind::Stuck) {
        Fate::Stuck
    } else if told(AlarmKind::OwnLeafReplay) {
        Fate::OwnLeaf
    } else if events.iter().any(|event| matches!(event, Event::Skipped { .. })) {
        Fate::Void
    } else if events
        .iter()
        .any(|event| matches!(event, Event::Received { .. } | Event::MemberAdded { .. } | Event::MemberRemoved { .. }))
    {
        Fate::Valid
    } else {
        Fate::Silent
    }
}

/// Cutting commits open (RFC 9420, sections 7.2, 7.6 and 12.4).
pub mod surgery {
    use super::{push_vector, take, take_vector};

    /// A Commit that lacks the last of the encrypted path secrets in the last node of its path that has some.
    pub fn without_last_secret(commit: &[u8]) -> Vec<u8> {
        let mut rest = commit;
        take_vector(&mut rest).unwrap();
        assert_eq!(take::<1>(&mut rest).unwrap(), [1], "a commit with a path");
        skip_leaf(&mut rest);
        let before = commit.len() - rest.len();
        let mut path = take_vector(&mut rest).unwrap();
        assert!(rest.is_empty());
        // Each node: its key, and its encrypted secrets.
        let mut nodes: Vec<(&[u8], &[u8])> = Vec::new();
        while !path.is_empty() {
            nodes.push((take_vector(&mut path).unwrap(), take_vector(&mut path).unwrap()));
        }
        let (_, secrets) = nodes.iter_mut().rev().find(|(_, secrets)| !secrets.is_empty()).unwrap();
        let (whole, mut left, mut last) = (*secrets, *secrets, 0);
        while !left.is_empty() {
            last = whole.len() - left.len();
            // kem_output, ciphertext
            assert!(take_vector(&mut left).is_some() && take_vector(&mut left).is_some());
        }
        *secrets = &whole[..last];
        let mut path = Vec::new();
        for (key, secrets) in nodes {
            push_vector(&mut path, key);
            push_vector(&mut path, secrets);
        }
        let mut bent = commit[..before].to_vec();
        push_vector(&mut bent, &path);
        bent
    }

    fn skip_leaf(rest: &mut &[u8]) {
        // encryption_key, signature_key
        take_vector(rest).unwrap();
        take_vector(rest).unwrap();
        assert_eq!(take::<2>(rest).unwrap(), [0, 2], "an x509 credential");
        take_vector(rest).unwrap();
        // versions, ciphersuites, extensions, proposals, credentials
        (0..5).for_each(|_| assert!(take_vector(rest).is_some()));
        assert_eq!(take::<1>(rest).unwrap(), [3], "a leaf of a commit");
        // parent_hash, extensions, signature
        (0..3).for_each(|_| assert!(take_vector(rest).is_some()));
    }
}
