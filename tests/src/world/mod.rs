//! World: a relay and its clients, the real machines, on a virtual clock, with disks and a network that fail when the seed
//! says so, and with insiders who do what no honest client does. A run draws operations, carries them out, heals everything,
//! founds anew what insiders have ended, lets everybody speak, and compares what is left with a reference model; each promise
//! that is compared has a name ([`INVARIANTS`]), and a seeded bug that breaks it ([`Bug`]).
//!
//! In runs with registrars ([`Setting::identity`]) people enrol, link second devices, renew, and are cut off, people of another
//! organisation and guests visit, clients follow the directories, and the relay may hide its own from them, or the registrar show some of them another one; an
//! insider, whose client has no gate, brings in who is out, and devices that no directory has.
//!
//! In runs with an escrow node ([`Setting::escrow`]) people talk and hand over files in escrowed groups beside others, the node
//! archives and crashes, and in some runs it loses its state and goes on from a backup; at the end its archive is opened. Or one of them, or the relay, attacks the archive ([`Attack`]).
//!
//! World opens no socket and no file, and does not check sizes, wire formats or certificates: the vectors and the end-to-end
//! tests do. Its relay is honest, but for what it hides of the directory.

mod attack;
mod campaign;
mod check;
mod disk;
mod evidence;
mod generate;
mod network;
mod ops;
mod run;
#[path = "../../../protocol/tests/it/store.rs"]
mod store;
mod system;

pub use self::{
    attack::Attack,
    campaign::{Campaign, Progress},
    evidence::{INVARIANTS, Violation},
    network::Weather,
    ops::{CAST, Garbage, Kind, Op},
    run::{Failure, Outcome, Setting, operations, run, shrink},
};

/// A fault that is put into the world on purpose, so that the invariants can be seen to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The relay's disk says that it has synced, and has not.
    ForgetfulDisk,
    /// The relay's store takes an append whatever commits its author has seen.
    NoCompareAndSwap,
    /// The relay's store does not look whether an append's predecessor has its place.
    NoPredecessor,
    /// The relay's disk keeps the part of a transaction that was written when a crash cut it off.
    TornTransaction,
    /// A client's disk does.
    TornRows,
    /// A client's driver sends before it persists.
    SendsFirst,
    /// A receiver takes a packet again that it has had.
    KeepsDuplicates,
    /// A receiver takes packets in the order in which they come.
    NoReordering,
    /// Late packets of a dead connection reach the next one.
    LatePackets,
    /// The network delivers an entry a second time, in the next place.
    DoubledEntry,
    /// The network swallows a commit on its way to a client.
    SwallowedCommit,
    /// A client's driver adds the text to the ciphertext.
    Talkative,
    /// Clients do not judge.
    NoJudge,
    /// The relay is not told that an account was disabled.
    KeepsDisabled,
    /// The relay's store takes appends as if no time went by, so that no token ends.
    EndlessTokens,
    /// The relay's store keeps an author's account with what it keeps of a group.
    RemembersAuthors,
    /// A client that cannot follow a commit does not get its notice through.
    SilentStuck,
    /// A client's driver does not ask the registrar, so that the client knows what the relay shows it.
    TrustsRelay,
    /// The registrar takes a device back and does not write so into its directory.
    SilentRevocation,
    /// Clients of escrowed groups do not judge.
    LawlessDesk,
    /// A client sends everything into an escrowed group as well.
    CopiesToArchive,
    /// The escrow node's driver makes two transactions of one: what is sealed is durable first.
    TwoTransactions,
    /// It loses sealed records.
    LosesRecords,
    /// It loses receipts.
    LosesReceipts,
    /// It keeps what the machine tells.
    KeepsEvents,
    /// It keeps the keys of segments.
    KeepsKeys,
    /// Its operator brings back a backup as if nothing had come behind it.
    HidesLoss,
    /// It states nothing of gaps.
    HidesMissing,
    /// Its driver reads no files.
    LosesFiles,
    /// Members' drivers do not ask the escrow node.
    DropsQuestions,
    /// Clients' drivers lose what a registrar says that shows them another log than the relay has.
    HidesSplit,
    /// A registrar goes on to show to partners what it showed before it took anybody back.
    OldForPartners,
}

impl Bug {
    /// All of them, with the name on the command line and the invariant that must find it.
    pub const ALL: [(Self, &'static str, &'static str); 32] = [
        (Self::ForgetfulDisk, "forgetful-disk", "acked_is_durable"),
        (Self::NoCompareAndSwap, "no-compare-and-swap", "dense_log"),
        (Self::NoPredecessor, "no-predecessor", "sender_fifo"),
        (Self::TornTransaction, "torn-transaction", "equal_epochs"),
        (Self::TornRows, "torn-rows", "delivered_once_in_order"),
        (Self::SendsFirst, "sends-first", "no_false_alarm"),
        (Self::KeepsDuplicates, "keeps-duplicates", "streams_are_whole"),
        (Self::NoReordering, "no-reordering", "streams_are_whole"),
        (Self::LatePackets, "late-packets", "streams_are_whole"),
        (Self::DoubledEntry, "doubled-entry", "no_false_alarm"),
        (Self::SwallowedCommit, "swallowed-commit", "equal_epochs"),
        (Self::Talkative, "talkative", "plaintext_never_at_relay"),
        (Self::NoJudge, "no-judge", "personal_stays_personal"),
        (Self::KeepsDisabled, "keeps-disabled", "disabled_is_cut_off"),
        (Self::EndlessTokens, "endless-tokens", "removed_has_no_rights"),
        (Self::RemembersAuthors, "remembers-authors", "relay_keeps_no_roster"),
        (Self::SilentStuck, "silent-stuck", "stuck_is_healed"),
        (Self::TrustsRelay, "trusts-relay", "revocation_is_noticed"),
        (Self::SilentRevocation, "silent-revocation", "same_roster"),
        (Self::HidesSplit, "hides-split", "split_is_noticed"),
        (Self::OldForPartners, "old-for-partners", "same_roster"),
        (Self::LawlessDesk, "lawless-desk", "one_escrow_member"),
        (Self::CopiesToArchive, "copies-to-archive", "archive_is_scoped"),
        (Self::TwoTransactions, "two-transactions", "archived_once"),
        (Self::LosesRecords, "loses-records", "archived_once"),
        (Self::LosesReceipts, "loses-receipts", "archive_proves_itself"),
        (Self::KeepsEvents, "keeps-events", "sealed_at_rest"),
        (Self::KeepsKeys, "keeps-keys", "archive_keys_are_gone"),
        (Self::HidesLoss, "hides-loss", "archived_once"),
        (Self::HidesMissing, "hides-missing", "archived_once"),
        (Self::LosesFiles, "loses-files", "archived_once"),
        (Self::DropsQuestions, "drops-questions", "attack_is_noticed"),
    ];

    /// The runs that it shows in.
    #[must_use]
    pub fn setting(self) -> Setting {
        let identity =
            matches!(self, Self::TrustsRelay | Self::SilentRevocation | Self::OldForPartners | Self::HidesSplit);
        let escrow = matches!(
            self,
            Self::LawlessDesk
                | Self::CopiesToArchive
                | Self::TwoTransactions
                | Self::LosesRecords
                | Self::LosesReceipts
                | Self::KeepsEvents
                | Self::KeepsKeys
                | Self::HidesLoss
                | Self::HidesMissing
                | Self::LosesFiles
        );
        let attack = (self == Self::DropsQuestions).then_some(Attack::Withhold);
        Setting { bug: Some(self), only: None, identity, escrow: escrow || attack.is_some(), attack }
    }

    /// By its name on the command line.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == name).map(|(bug, _, _)| *bug)
    }
}
