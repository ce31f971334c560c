//! What insiders do: they have a modified client, keep what they should forget, and send what no honest machine makes.
//!
//! This module does not say what it may lead to; the evidence does.

use chancery_protocol::{
    client::{Command, Space},
    ids::{Epoch, GroupId, Seq},
    mls::judge::without_judge,
    secret::AccessToken,
    time::Timestamp,
    wire::{
        Blob, Frame,
        mls_header::MlsHeader,
        notice::NoticeHeader,
        relay::{Append, Bundle, Entry, EntryKind, Open, append_id},
    },
};

use super::{
    super::{network::Stream, ops::Garbage},
    World,
};

/// Correlations of frames that no machine has made.
const INJECTED: u32 = 0x8000_0000;

/// An MLS PrivateMessage (RFC 9420, section 6.3) with a true header, and nothing true behind it.
fn private_message(group: GroupId, epoch: u64, kind: EntryKind, noise: [u8; 32]) -> Blob {
    let content_type = if kind == EntryKind::Commit { 3 } else { 1 };
    let mut bytes = vec![0, 1, 0, 2, 32];
    bytes.extend_from_slice(group.as_bytes());
    bytes.extend_from_slice(&epoch.to_be_bytes());
    bytes.extend_from_slice(&[content_type, 0, 32]);
    bytes.extend_from_slice(&noise);
    bytes.push(32);
    bytes.extend_from_slice(&noise);
    Blob(bytes)
}

impl World {
    /// Sends a frame that the machine of a client has not made.
    fn inject(&mut self, who: usize, frame: &Frame) {
        let Some(id) = self.nodes[who].conn else { return };
        self.last_injected = self.last_injected.wrapping_add(1);
        let correlation = INJECTED | self.last_injected;
        self.write(id, Stream::Up, frame.to_bytes(correlation));
    }

    /// The newest commit of a group, and the epoch that honest members are in, by what they wrote.
    fn newest(&self, group: GroupId) -> (Seq, u64) {
        let epoch = |entry: &Entry| {
            let header = MlsHeader::parse(&entry.body).ok().filter(|_| !self.is_insiders(group, entry.seq))?;
            Some(header.epoch.0 + u64::from(entry.kind == EntryKind::Commit))
        };
        (self.disk.newest_commit(group), self.disk.entries(group).iter().filter_map(epoch).max().unwrap_or(0))
    }

    pub(super) fn garbage(&mut self, who: usize, group: GroupId, what: Garbage) {
        let (after, epoch) = self.newest(group);
        let noise = self.random.bytes();
        let (kind, body) = match what {
            Garbage::Commit => (EntryKind::Commit, private_message(group, epoch, EntryKind::Commit, noise)),
            Garbage::Message => (EntryKind::Application, private_message(group, epoch, EntryKind::Application, noise)),
            Garbage::Ahead => {
                (EntryKind::Application, private_message(group, epoch + 1, EntryKind::Application, noise))
            }
            Garbage::Notice => {
                let header = NoticeHeader { group, epoch: Epoch(epoch), nonce: [7; 12] }.to_bytes();
                (EntryKind::Notice, Blob([header.as_slice(), &noise, &noise].concat()))
            }
        };
        let bundle = (kind == EntryKind::Commit).then(|| {
            let token = AccessToken::new(self.random.bytes());
            let next_token = token.hash();
            self.loot.push((group, token));
            Bundle { next_token, welcomes: Vec::new() }
        });
        let after = if kind == EntryKind::Notice { Seq(0) } else { after };
        self.inject(who, &Frame::Append(Append { group, kind, after, behind: None, body, bundle }));
    }

    /// Shows every token that it ever had of a group, and appends with whatever still appends.
    pub(super) fn old_tokens(&mut self, who: usize, group: GroupId) {
        let tokens: Vec<AccessToken> =
            self.nodes[who].tokens.iter().filter(|(of, _)| *of == group).map(|(_, token)| token.clone()).collect();
        for token in tokens {
            self.inject(who, &Frame::Open(Open { group, token, from: Some(Seq(0)) }));
        }
        self.garbage(who, group, Garbage::Message);
    }

    /// Appends what it made for a group and what has no place, as if it came behind the newest commit.
    pub(super) fn resubmit(&mut self, who: usize, group: GroupId) {
        let (after, _) = self.newest(group);
        let placed: Vec<_> =
            self.disk.entries(group).iter().map(|entry| append_id(group, entry.kind, &entry.body)).collect();
        let drafts: Vec<Append> = self.nodes[who]
            .drafts
            .iter()
            .filter(|draft| draft.group == group && !placed.contains(&append_id(group, draft.kind, &draft.body)))
            .cloned()
            .collect();
        for draft in drafts.into_iter().rev().take(2) {
            self.inject(who, &Frame::Append(Append { after, behind: None, ..draft }));
        }
    }

    /// Invites, and looks at no rule.
    pub(super) fn smuggle(&mut self, who: usize, group: GroupId, whom: usize) {
        self.nodes[who].lawless = true;
        let account = self.nodes[whom].account;
        without_judge(|| self.command(who, Command::Invite { group, account }));
    }

    /// Removes the escrow member, and looks at no rule.
    pub(super) fn expel(&mut self, who: usize, group: GroupId) {
        let Some(node) = self.archive.as_ref().map(|archive| archive.node) else { return };
        self.nodes[who].lawless = true;
        let account = self.nodes[node].account;
        without_judge(|| self.command(who, Command::Remove { group, account }));
    }

    /// The accomplice shows the token of the newest garbage: from then on the group is lost.
    pub(super) fn confirm(&mut self, who: usize, group: GroupId) {
        let Some((_, token)) = self.loot.iter().rev().find(|(of, _)| *of == group).cloned() else { return };
        self.evidence.doomed.insert(group);
        self.evidence.handed.insert((who, group));
        self.inject(who, &Frame::Open(Open { group, token, from: None }));
    }

    /// The process dies, its disk loses the private keys by which it opens the paths of commits, and it starts again.
    pub(super) fn lose_path_keys(&mut self, who: usize, group: GroupId) {
        const EPOCH_KEY_PAIRS: u8 = 14;
        self.evidence.sabotaged.insert((who, group));
        let wake = Timestamp(self.now.0 + 500);
        self.stop_client(who, 0, wake, None);
        let scope = [[0].as_slice(), group.as_bytes()].concat();
        self.nodes[who].disk.rows.retain(|(space, key), _| {
            *space != Space::Mls || !key.starts_with(&scope) || key.get(33) != Some(&EPOCH_KEY_PAIRS)
        });
    }
}
