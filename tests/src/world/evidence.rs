//! What was seen during a run: what the relay told, and what the clients told their hosts.
//!
//! This module does not judge, but for what is wrong wherever it is seen; `check` compares.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::{
    client::{AlarmKind, Event},
    error::Refusal,
    ids::{AccountId, AppendId, GroupId, HeadHash, MessageId, Seq},
    mls::Class,
    relay::OpId,
    time::Timestamp,
    wire::Frame,
};

/// The promises that every run is held to.
pub const INVARIANTS: &[(&str, &str)] = &[
    (
        "streams_are_whole",
        "what comes out of a stream is what was written to it, once and in order, whatever the network does",
    ),
    ("acked_is_durable", "what the relay acknowledged or served is in its log, whatever crashed since"),
    ("dense_log", "places are dense, heads chain, and each epoch has one commit"),
    ("delivered_once_in_order", "who was in the group at a message's place has it once, there; nobody else has it"),
    ("sender_fifo", "what a client took to send is placed once or given up, in the order in which it was taken"),
    (
        "no_false_alarm",
        "an honest client raises no alarm, skips no entry and refuses no invitation but for what an insider did",
    ),
    ("same_outcome", "an entry is valid for all members or for none, whoever made it"),
    ("equal_epochs", "members of the newest epoch have the same epoch and roster, the reference model's"),
    ("plaintext_never_at_relay", "no text and no group name is in anything that a client sends"),
    (
        "relay_keeps_no_roster",
        "no row of the relay ties an account or a device to a group, and none to a moment beyond 7 days",
    ),
    (
        "personal_stays_personal",
        "in a personal group are people's own devices and nothing else, whatever anybody tries",
    ),
    ("disabled_is_cut_off", "nothing of a disabled account is appended any more, and nothing is delivered to it"),
    (
        "removed_has_no_rights",
        "a day after the next epoch was opened, who was removed appends nothing and is sent nothing new",
    ),
    ("stuck_is_healed", "a member that cannot follow a commit is added again, if anybody is there to do it"),
    ("group_lives", "once all faults are over, every member of a group that is not lost can speak in it"),
    ("founded_anew", "a group that insiders have ended is founded anew, with its members, in one call"),
    (
        "revocation_is_noticed",
        "16 minutes after somebody is out, nobody who reaches relay and registrar says anything that he can read, whatever the relay hides",
    ),
    (
        "split_is_noticed",
        "an hour after a registrar began to show somebody another log than the relay does, whoever reaches both has raised the alarm",
    ),
    (
        "same_roster",
        "once all faults are over, the members of a group see the same devices, none that a directory which one of them follows says is \
         out, or say why not",
    ),
    (
        "archived_once",
        "each entry of an escrowed group is sealed once by its node, as it was sent, or stands in a gap of which the archive tells",
    ),
    ("archive_is_scoped", "nothing of a group that is not escrowed is in the archive"),
    ("archive_proves_itself", "receipts, reports and the archive's log name what is sealed, and how far it reaches"),
    ("sealed_at_rest", "no text is in a row of the escrow node but sealed, and no name of a group but in MLS state"),
    ("archive_keys_are_gone", "no row of the escrow node holds the key of a segment"),
    (
        "one_escrow_member",
        "an escrowed group has one escrow member, that of its policy, and no other group has one, whatever anybody tries",
    ),
    (
        "attack_is_noticed",
        "what relay, member, administrator or node do against the archive is noticed by a member within 90 minutes, and the archive \
         goes on; or nothing comes of it",
    ),
    ("comes_to_rest", "once all faults are over, nothing is left to do within an hour"),
];

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// One of [`INVARIANTS`].
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// A text that a client took to send.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub who: usize,
    pub id: MessageId,
    pub number: u64,
    pub group: GroupId,
    /// It was sent once all faults were over.
    pub probe: bool,
}

#[derive(Default)]
pub(super) struct Evidence {
    pub accepted: Vec<Accepted>,
    pub sent: BTreeMap<(usize, MessageId), Vec<(GroupId, Seq)>>,
    pub unsent: BTreeSet<(usize, MessageId)>,
    /// How often a host was told of the message at a place.
    pub received: BTreeMap<(usize, GroupId, Seq), usize>,
    /// Whom the commit at a place removed, as each client saw it.
    pub removed: BTreeMap<(GroupId, Seq), BTreeMap<usize, AccountId>>,
    /// Who ended a group for itself, being alone in it.
    pub quit: BTreeSet<(usize, GroupId)>,
    /// How often a device told its host that it is out of a group.
    pub outs: BTreeMap<(usize, GroupId), usize>,
    /// Requests to leave that were made.
    pub leaves: BTreeMap<(usize, GroupId), usize>,
    /// Heads that the relay acknowledged.
    pub acked: BTreeMap<(GroupId, Seq), HeadHash>,
    /// Entries that the relay served.
    pub served: BTreeMap<(GroupId, Seq), AppendId>,
    /// Who has done what no honest client does: their word counts for nothing.
    pub insiders: BTreeSet<usize>,
    /// Who has lost its private keys of a group.
    pub sabotaged: BTreeSet<(usize, GroupId)>,
    /// Groups that two insiders have ended: one has confirmed what the other made.
    pub doomed: BTreeSet<GroupId>,
    /// Insiders who have shown a token that another insider had made.
    pub handed: BTreeSet<(usize, GroupId)>,
    /// Who cannot go on in a group with nobody left to help, or by what an insider did.
    pub forsaken: BTreeSet<(usize, GroupId)>,
    /// Whom the branch of an insider, in which the escrow member was, has stopped.
    pub stopped: BTreeSet<(usize, GroupId)>,
    /// To whom their registrar shows another log than to the others, and who has noticed it.
    pub forked: BTreeSet<usize>,
    pub splits: BTreeSet<usize>,
    /// Accounts that were disabled, and the newest operation that the store was given before.
    pub disabled: BTreeMap<usize, OpId>,
    /// Who has skipped the entry at a place.
    pub skipped: BTreeMap<(GroupId, Seq), BTreeSet<usize>>,
    /// What insiders say of places at which nobody else was: who skipped, and whom the commit there removed.
    pub rumoured_skips: BTreeSet<(GroupId, Seq)>,
    pub rumoured_removals: BTreeMap<(GroupId, Seq), AccountId>,
    /// Groups that are archived.
    pub escrowed: BTreeSet<GroupId>,
    /// Where a text was said.
    pub said: BTreeMap<u64, GroupId>,
    /// When the escrow node last lost its state, and how many entries the log had with which it went on each time.
    pub lost_at: Option<Timestamp>,
    pub restored_at: Vec<u64>,
    /// Entries that a client has told its host are not archived: who, which group, the first and the last.
    pub missing: BTreeSet<(usize, GroupId, Seq, Seq)>,
    /// Commits that brought another policy.
    pub policies: BTreeSet<(GroupId, Seq)>,
    /// Who was ever let into a group.
    pub joined: BTreeSet<(usize, GroupId)>,
    /// Whom the commit at a place has left behind.
    pub stuck: BTreeSet<(usize, GroupId, Seq)>,
    /// Who was let in with the token that began at a place, and when.
    pub opened: Vec<(GroupId, Seq, usize, Timestamp)>,
    /// When the relay sent an insider an entry.
    pub sent_to: Vec<(usize, GroupId, Seq, Timestamp)>,
    pub violations: Vec<Violation>,
    /// The only promise that is held, if one is chosen.
    pub only: Option<&'static str>,
}

impl Evidence {
    pub fn violate(&mut self, invariant: &'static str, what: String) {
        if self.only.is_none_or(|only| only == invariant) {
            self.violations.push(Violation { invariant, what });
        }
    }

    /// The relay tells a client.
    pub fn told_by_relay(&mut self, who: usize, name: &str, frame: &Frame, now: Timestamp) {
        if self.disabled.contains_key(&who) && !matches!(frame, Frame::Refused(Refusal::AccountDisabled)) {
            self.violate("disabled_is_cut_off", format!("{name} is disabled, and the relay talks to it"));
        }
        match frame {
            Frame::Opened(opened) if opened.may_append => {
                self.opened.push((opened.group, opened.began.seq, who, now));
            }
            Frame::Entries(entries) if self.insiders.contains(&who) => {
                self.sent_to.extend(entries.entries.iter().map(|entry| (who, entries.group, entry.seq, now)));
            }
            _ => {}
        }
    }

    /// A client tells its host; `commit` is the place of the commit that it was reading, if it was reading one, `author`
    /// whoever made the entry that the event is about, or brought the client into the group.
    pub fn event(
        &mut self,
        who: usize,
        (name, own): (&str, AccountId),
        event: &Event,
        commit: Option<(GroupId, Seq)>,
        author: Option<usize>,
    ) {
        if let Event::Left { group } | Event::Removed { group } = event {
            *self.outs.entry((who, *group)).or_default() += 1;
        }
        if let Event::Joined { group, class, .. } = event {
            self.joined.insert((who, *group));
            self.escrowed.extend((*class == Class::Escrowed).then_some(*group));
        }
        if self.insiders.contains(&who) {
            return self.rumour(own, event, commit);
        }
        match event {
            Event::Archived { by: Some(_), .. } => self.policies.extend(commit),
            Event::NotArchived { group, first, last } => drop(self.missing.insert((who, *group, *first, *last))),
            Event::Received { group, seq } => *self.received.entry((who, *group, *seq)).or_default() += 1,
            Event::Sent { group, seq, id } => self.sent.entry((who, *id)).or_default().push((*group, *seq)),
            Event::Unsent { id, .. } => drop(self.unsent.insert((who, *id))),
            Event::MemberRemoved { account, .. } => self.removal(who, *account, commit),
            // A member that has become alone in the group ends it for itself; the commit that it read removed another.
            Event::Left { group }
                if commit.is_none_or(|at| self.removed.get(&at).is_some_and(|by| by.contains_key(&who))) =>
            {
                self.quit.insert((who, *group));
            }
            Event::Left { .. } | Event::Removed { .. } => self.removal(who, own, commit),
            Event::Skipped { group, seq, .. } => drop(self.skipped.entry((*group, *seq)).or_default().insert(who)),
            // An entry of an epoch ahead is skipped, too.
            Event::Alarm { group, kind: AlarmKind::Diverged, reason } => {
                let seq = reason.split(' ').nth(1).and_then(|seq| seq.parse().ok());
                if let Some(seq) = seq {
                    self.skipped.entry((*group, Seq(seq))).or_default().insert(who);
                }
            }
            Event::DirectorySplit { .. } => drop(self.splits.insert(who)),
            Event::Alarm { kind: AlarmKind::Stuck, .. } => {
                self.stuck.extend(commit.map(|(group, seq)| (who, group, seq)));
            }
            _ => {}
        }
        let alarm = match event {
            Event::Alarm { reason, .. } => format!("alarm at {name}: {reason}"),
            Event::Skipped { seq, reason, .. } => format!("{name} skipped entry {seq}: {reason}"),
            Event::InvitationRefused { reason } => format!("{name} refused an invitation: {reason}"),
            Event::DirectorySplit { .. } | Event::PartnerDirectorySplit { .. } | Event::PartnerChanged { .. } => {
                format!("{name} has seen two histories of a directory, or two roots of a domain")
            }
            _ => return,
        };
        if !self.is_provoked(who, event, author) {
            self.violate("no_false_alarm", alarm);
        } else if let Event::Alarm { group, kind: AlarmKind::ArchiveDiffers, .. } = event {
            self.stopped.insert((who, *group));
        } else if let Event::Alarm { group, kind: AlarmKind::Ended | AlarmKind::AccessLost, .. } = event {
            self.forsaken.insert((who, *group));
        }
    }

    fn rumour(&mut self, own: AccountId, event: &Event, commit: Option<(GroupId, Seq)>) {
        let account = match event {
            Event::Skipped { group, seq, .. } => {
                self.rumoured_skips.insert((*group, *seq));
                return;
            }
            Event::MemberRemoved { account, .. } => *account,
            Event::Left { .. } | Event::Removed { .. } => own,
            _ => return,
        };
        self.rumoured_removals.extend(commit.map(|at| (at, account)));
    }

    /// Whether somebody has done what leads to this: an alarm for it is true. Where all are honest nothing is provoked.
    fn is_provoked(&self, who: usize, event: &Event, author: Option<usize>) -> bool {
        match event {
            Event::Skipped { .. } => author.is_some_and(|author| self.insiders.contains(&author)),
            // Or a member has invited the escrow node with a KeyPackage that it has lost.
            Event::InvitationRefused { .. } => !self.insiders.is_empty() || self.lost_at.is_some(),
            Event::DirectorySplit { .. } => self.forked.contains(&who),
            Event::Alarm { group, kind, .. } => match kind {
                AlarmKind::Diverged => !self.insiders.is_empty(),
                // An insider has added the escrow member again, to a branch of its own.
                AlarmKind::ArchiveDiffers => author.is_some_and(|author| self.insiders.contains(&author)),
                AlarmKind::Stuck => self.sabotaged.contains(&(who, *group)),
                // Whoever an insider has brought in stands on that commit alone.
                AlarmKind::Ended | AlarmKind::AccessLost => {
                    self.doomed.contains(group) || author.is_some_and(|author| self.insiders.contains(&author))
                }
                _ => false,
            },
            _ => false,
        }
    }

    fn removal(&mut self, who: usize, account: AccountId, commit: Option<(GroupId, Seq)>) {
        match commit {
            Some(at) => drop(self.removed.entry(at).or_default().insert(who, account)),
            None => self.violate("equal_epochs", "a removal without a commit".to_owned()),
        }
    }
}
