//! Requests out of an input's bytes, and what can be said of them without a store: headers and rates.

use std::collections::BTreeMap;

use chancery_protocol::{
    error::Refusal,
    ids::{AccountId, AppendId, Epoch, GroupId, MailId, PackageHash, RequestId, Seq},
    secret::AccessToken,
    time::Timestamp,
    wire::{
        Blob, Frame,
        notice::NoticeHeader,
        relay::{self, Append, Bundle, EntryKind, WelcomeCopy, package_hash},
    },
};

use super::{Device, GROUPS, cast, message, model::Model};
use crate::fuzz::input::Input;

/// A token by its number.
pub(super) fn token(number: u8) -> AccessToken {
    AccessToken::new([number; 32])
}

/// The newest token of each group that a commit has named.
pub(super) type Newest = BTreeMap<GroupId, u8>;

pub(super) fn open(input: &mut Input<'_>, newest: &Newest) -> Frame {
    let group = input.choose(&GROUPS);
    let number = match input.below(8) {
        back @ 0..5 => newest.get(&group).copied().unwrap_or(1).saturating_sub([0, 0, 1, 2, 4][back]),
        _ => input.byte(),
    };
    let from = match input.below(4) {
        0 => None,
        1 | 2 => Some(Seq(0)),
        _ => Some(Seq(u64::from(input.byte() % 32))),
    };
    Frame::Open(relay::Open { group, token: token(number), from })
}

pub(super) fn append(
    input: &mut Input<'_>,
    kind: EntryKind,
    who: &Device,
    model: &Model,
    newest: &mut Newest,
) -> Frame {
    let group = input.choose(&GROUPS);
    let after = match input.byte() {
        byte @ 0xe0.. => Seq(u64::from(byte - 0xe0)),
        _ if kind == EntryKind::Notice => Seq(0),
        _ => model.group(group).map_or(Seq(0), |(_, newest_commit, _)| newest_commit),
    };
    let behind = match input.byte() {
        byte @ 0xc0.. => model.ids().nth(usize::from(byte - 0xc0)).or(Some(AppendId([byte; 32]))),
        _ => None,
    };
    let shape = input.byte();
    let inner = vec![input.byte(); if shape & 0x70 == 0x70 { 64 * 1024 } else { 40 }];
    let epoch = u64::from(shape & 0x0f == 0x0f);
    let of = if shape & 0x8f == 0x8e { GROUPS[0] } else { group };
    let mut body = match kind {
        EntryKind::Application => message(of, epoch, 1, &inner),
        EntryKind::Commit => message(of, epoch, 3, &inner),
        EntryKind::Notice => {
            let header = NoticeHeader { group: of, epoch: Epoch(epoch), nonce: [7; 12] };
            Blob([header.to_bytes().as_slice(), &inner].concat())
        }
    };
    if shape & 0x8f == 0x8d {
        body.0.pop();
    }
    let bundled = (kind == EntryKind::Commit) != (shape & 0x8f == 0x8c);
    let bundle = bundled.then(|| bundle(input, group, who, model, newest));
    Frame::Append(Append { group, kind, after, behind, body, bundle })
}

fn bundle(input: &mut Input<'_>, group: GroupId, who: &Device, model: &Model, newest: &mut Newest) -> Bundle {
    let number = match input.byte() {
        byte @ 0xe0.. => byte - 0xe0,
        _ => newest.get(&group).copied().unwrap_or(0).saturating_add(1),
    };
    newest.insert(group, number);
    let taken = model.taken(who.account);
    let mut welcomes = Vec::new();
    for _ in 0..[0, 0, 1, 2][input.below(4)] {
        let choice = input.byte();
        let (device, package) = match taken.get(usize::from(choice) % taken.len().max(1)) {
            Some(package) if choice < 0xf0 => (package.device, package_hash(&package.body)),
            _ => (cast().devices[input.below(4)].device, PackageHash([choice; 32])),
        };
        welcomes.push(WelcomeCopy { device, package, body: Blob(vec![choice; 50]) });
    }
    Bundle { next_token: token(number).hash(), welcomes }
}

pub(super) fn publish(input: &mut Input<'_>) -> Frame {
    let packages = (0..input.below(4)).map(|_| Blob(vec![input.byte(); 30])).collect();
    let last_resort = (input.below(3) == 0).then(|| Blob(vec![input.byte(); 31]));
    Frame::PublishKeyPackages(relay::PublishKeyPackages { packages, last_resort })
}

pub(super) fn take(input: &mut Input<'_>) -> Frame {
    let account = cast().devices[input.below(5)].account;
    Frame::TakeKeyPackages(relay::TakeKeyPackages { request: RequestId([input.byte() % 8; 16]), account })
}

pub(super) fn ack_mail(input: &mut Input<'_>) -> Frame {
    let ids = (0..input.below(4)).map(|_| MailId(u64::from(input.byte() % 16))).collect();
    Frame::AckMail(relay::AckMail { ids })
}

/// A burst, then one at each interval, for each account in each group.
#[derive(Debug)]
struct Rate {
    burst_ms: u64,
    interval_ms: u64,
    /// When it was last asked for, and the milliseconds of work that were owed then.
    owed: BTreeMap<(GroupId, AccountId), (Timestamp, u64)>,
}

impl Rate {
    fn refuses(&mut self, key: (GroupId, AccountId), now: Timestamp) -> Option<Refusal> {
        let (asked, owed) = self.owed.get(&key).copied().unwrap_or((now, 0));
        let owed = owed.saturating_sub(now.0 - asked.0) + self.interval_ms;
        if owed > self.burst_ms {
            return Some(Refusal::RateLimited { retry_after_ms: owed - self.burst_ms });
        }
        self.owed.insert(key, (now, owed));
        None
    }
}

/// How often an account may commit and give notice. A restart forgets it.
#[derive(Debug)]
pub(super) struct Rates {
    notices: Rate,
    commits: Rate,
}

impl Rates {
    pub(super) fn new() -> Self {
        let rate =
            |burst: u64, interval_ms: u64| Rate { burst_ms: burst * interval_ms, interval_ms, owed: BTreeMap::new() };
        Self { notices: rate(3, 600_000), commits: rate(20, 200) }
    }

    /// Why an append does not come as far as the store.
    pub(super) fn refuse(&mut self, append: &Append, who: AccountId, now: Timestamp) -> Option<Refusal> {
        let whole = match append.kind {
            EntryKind::Notice if append.body.len() > 512 => return Some(Refusal::TooLarge { bytes_max: 512 }),
            EntryKind::Notice => append.body.len() >= 70 && append.body[2..34] == append.group.0,
            // Its last vector ends with the message.
            EntryKind::Application | EntryKind::Commit => {
                append.body[5..37] == append.group.0
                    && append.body.len() != 4 + 33 + 8 + 1 + 1 + 21 + 40
                    && append.body.len() != 4 + 33 + 8 + 1 + 1 + 21 + 3 + 64 * 1024
            }
        };
        let founds_late = append.kind == EntryKind::Commit && append.after == Seq(0) && append.body[44] != 0;
        if !whole || founds_late {
            return Some(Refusal::HeaderMismatch);
        }
        match append.kind {
            EntryKind::Notice => self.notices.refuses((append.group, who), now),
            EntryKind::Commit => self.commits.refuses((append.group, who), now),
            EntryKind::Application => None,
        }
    }
}
