//! Entries that a member forges, and what each of the others makes of them: the outcomes of `spec/mls-profile.md`.

use std::sync::{Arc, Mutex};

use chancery_protocol::{
    client::{AlarmKind, Command, Event, GroupStatus, Reply},
    ids::MessageId,
    wire::{envelope::Body, relay::EntryKind, vector::push_vector},
};
use chancery_test_crypto::private_message::{APPLICATION, COMMIT, Claim};

use crate::insider::{Fate, Plot, SIGNATURE, Spoil, TAG, alarms, surgery};

/// `ana` invites `di`, and is gone as soon as that commit has its place: nobody is helped by whoever spoiled it.
fn spoiled_invitation(plot: &mut Plot) {
    plot.net.tenant("di");
    let (group, account) = (plot.group, plot.net.account("di"));
    let before = plot.net.commits(group);
    plot.net.command("ana", Command::Invite { group, account });
    while plot.net.commits(group) == before {
        assert!(plot.net.step());
    }
    plot.watch("ana").behave();
    plot.net.cut("ana");
    plot.net.settle();
}

// proves mls.outcome.1
#[test]
fn one_spoiled_path_secret_leaves_exactly_that_member_behind_and_two_commits_bring_it_back() {
    for (number, spoil) in [Spoil::Garbled, Spoil::Other, Spoil::Empty].into_iter().enumerate() {
        let mut plot = Plot::new(500 + number as u64, &["ana", "bo", "cy", "李雷"]);
        plot.watch("ana").spoil(spoil, &[plot.watch("bo")]);
        let before = plot.net.commits(plot.group);
        spoiled_invitation(&mut plot);
        plot.net.connect("ana");
        plot.net.settle();
        let fates = [("ana", Fate::Valid), ("bo", Fate::Stuck), ("cy", Fate::Valid), ("李雷", Fate::Valid)];
        assert_eq!(plot.fates(), fates, "{spoil:?}");
        assert_eq!(
            plot.net.commits(plot.group) - before,
            2,
            "{spoil:?}: the spoiled commit, and the one that brings bo back"
        );
        plot.all_is_well(&["ana", "bo", "cy", "李雷", "di"], "we are all here");
    }
}

#[test]
fn a_spoiled_secret_of_a_subtree_leaves_all_below_it_behind_and_nobody_else() {
    let mut plot = Plot::new(510, &["ana", "bo", "cy", "李雷", "zoë"]);
    // A commit of 李雷 gives cy and 李雷 a node in common, to which others then encrypt once.
    let zoë = plot.net.account("zoë");
    plot.net.ok("李雷", Command::Remove { group: plot.group, account: zoë });
    plot.quiet();
    plot.names.retain(|name| *name != "zoë");
    plot.watch("ana").spoil(Spoil::Garbled, &[plot.watch("cy")]);
    spoiled_invitation(&mut plot);
    let fates = [("ana", Fate::Silent), ("bo", Fate::Valid), ("cy", Fate::Stuck), ("李雷", Fate::Stuck)];
    assert_eq!(plot.fates(), fates);
    plot.net.connect("ana");
    plot.net.settle();
    plot.all_is_well(&["ana", "bo", "cy", "李雷", "di"], "both are back");
}

// proves mls.notice.7, mls.notice.8, mls.founding.2
#[test]
fn if_all_secrets_are_spoiled_the_others_learn_by_whom_and_found_the_group_anew_without_it() {
    let mut plot = Plot::new(520, &["ana", "bo", "cy", "李雷"]);
    let others = ["bo", "cy", "李雷"];
    plot.watch("ana").spoil(Spoil::Garbled, &others.map(|name| plot.watch(name)));
    spoiled_invitation(&mut plot);
    let (group, ana) = (plot.group, plot.net.account("ana"));
    for name in others {
        let told = plot.net.events(name);
        assert_eq!(alarms(&told), [AlarmKind::Stuck], "{name}");
        let overdue: Vec<_> = told.iter().filter(|event| matches!(event, Event::HelpOverdue { .. })).collect();
        assert_eq!(overdue, [&Event::HelpOverdue { group, by: Some(ana) }], "{name}");
    }
    plot.net.send("bo", group, "a word that waits");
    let id = plot.net.command("cy", Command::FoundAnew { group, without: vec![ana] });
    plot.net.settle();
    let Some(Ok(Reply::Group(anew))) = plot.net.nodes["cy"].done.get(&id).cloned() else { panic!("not founded") };
    for name in others {
        let summary = plot.net.summary(name, anew);
        assert_eq!((summary.status, summary.predecessor), (GroupStatus::Active, Some(group)), "{name}");
    }
    plot.group = anew;
    plot.all_is_well(&others, "here we are");
}

/// A commit of `ana` that is bent before it is encrypted; what the others make of it. Nobody helps but they.
fn bent(seed: u64, bend: impl FnOnce(&mut Vec<u8>) + Send + 'static) -> Plot {
    let mut plot = Plot::new(seed, &["ana", "bo", "cy", "李雷"]);
    plot.watch("ana").bend(bend);
    spoiled_invitation(&mut plot);
    plot
}

/// Whatever ana did, those who are left go on.
fn and_they_go_on(plot: &mut Plot) {
    plot.net.tenant("eve");
    plot.net.invite("bo", plot.group, "eve");
    plot.all_is_well(&["bo", "cy", "李雷", "eve"], "we go on");
}

#[test]
fn a_commit_with_a_wrong_confirmation_tag_or_signature_is_void_for_all_alike() {
    let bends: [fn(&mut Vec<u8>); 2] = [
        |content| *content.last_mut().unwrap() ^= 1,
        |content| {
            let at = content.len() - TAG - 1;
            content[at] ^= 1;
        },
    ];
    for (number, bend) in bends.into_iter().enumerate() {
        let mut plot = bent(530 + number as u64, bend);
        let fates = [("ana", Fate::Silent), ("bo", Fate::Void), ("cy", Fate::Void), ("李雷", Fate::Void)];
        assert_eq!(plot.fates(), fates);
        and_they_go_on(&mut plot);
    }
}

#[test]
fn a_commit_that_is_void_for_the_others_can_leave_one_behind_which_they_bring_back() {
    let mut plot = Plot::new(540, &["ana", "bo", "cy", "李雷"]);
    plot.watch("ana").spoil(Spoil::Other, &[plot.watch("bo")]);
    plot.watch("ana").bend(|content| *content.last_mut().unwrap() ^= 1);
    spoiled_invitation(&mut plot);
    let fates = [("ana", Fate::Silent), ("bo", Fate::Stuck), ("cy", Fate::Void), ("李雷", Fate::Void)];
    assert_eq!(plot.fates(), fates);
    and_they_go_on(&mut plot);
}

#[test]
fn a_commit_that_lacks_the_path_secret_of_one_member_leaves_that_one_behind() {
    let mut plot = Plot::new(550, &["ana", "bo", "cy", "李雷"]);
    let (secrets, claim, seed) = (plot.secrets(), plot.claim("ana", COMMIT, 0), plot.net.device_seed("ana"));
    plot.watch("ana").bend(move |content| {
        let body = surgery::without_last_secret(&content[..content.len() - TAG - SIGNATURE]);
        let tag = content[content.len() - TAG..].to_vec();
        *content = body.clone();
        push_vector(content, &secrets.sign(&seed, &claim, COMMIT, &body));
        // The tag is over another transcript: whoever can follow the path finds the commit void.
        content.extend_from_slice(&tag);
    });
    spoiled_invitation(&mut plot);
    let fates = [("ana", Fate::Silent), ("bo", Fate::Void), ("cy", Fate::Void), ("李雷", Fate::Stuck)];
    assert_eq!(plot.fates(), fates);
    and_they_go_on(&mut plot);
}

/// The kinds of entries with their content types.
const KINDS: [(EntryKind, u8); 2] = [(EntryKind::Application, APPLICATION), (EntryKind::Commit, COMMIT)];

// proves mls.replay.1
#[test]
fn a_forged_sender_is_void_and_an_alarm_to_whom_it_names() {
    const WORDS: &[u8] = b"\x05words";
    let signed = |plot: &Plot, claim: &Claim<'_>, signer: &str| {
        plot.seal(claim, &plot.signed(claim, claim.content_type, WORDS, signer))
    };
    // What is forged, and whom it names.
    type Forgery<'a> = (&'a str, &'a dyn Fn(&Plot, u8) -> Vec<u8>, &'a str);
    let forgeries: [Forgery<'_>; 5] = [
        ("another's key has signed", &|plot, kind| signed(plot, &plot.claim("bo", kind, 0), "ana"), "bo"),
        ("nobody has signed", &|plot, kind| plot.seal(&plot.claim("bo", kind, 0), &[5; 100]), "bo"),
        (
            "another's ratchet",
            &|plot, kind| signed(plot, &Claim { ratchet_of: 0, ..plot.claim("bo", kind, 0) }, "bo"),
            "bo",
        ),
        ("no such leaf", &|plot, kind| signed(plot, &Claim { leaf: 1_000, ..plot.claim("bo", kind, 0) }, "bo"), ""),
        ("out of reach", &|plot, kind| signed(plot, &plot.claim("bo", kind, 20_100), "ana"), "bo"),
    ];
    for (number, (what, forge, named)) in forgeries.into_iter().enumerate() {
        for (kind, content_type) in KINDS {
            let mut plot = Plot::new(560 + number as u64, &["ana", "bo", "cy", "李雷"]);
            let forged = forge(&plot, content_type);
            plot.place("ana", forged, kind);
            plot.net.settle();
            let fate = |name| (name, if name == named { Fate::OwnLeaf } else { Fate::Void });
            assert_eq!(plot.fates(), ["ana", "bo", "cy", "李雷"].map(fate), "{what}, {kind:?}");
            plot.all_is_well(&["ana", "bo", "cy", "李雷"], "nothing happened");
            plot.net.tenant("di");
            plot.net.invite("cy", plot.group, "di");
            plot.all_is_well(&["ana", "bo", "cy", "李雷", "di"], "somebody came");
        }
    }
}

/// The content of a commit that `ana` makes and that never reaches the relay.
fn unsent_commit(plot: &mut Plot) -> Vec<u8> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let into = kept.clone();
    plot.watch("ana").bend(move |content| into.lock().unwrap().clone_from(content));
    let (group, account) = (plot.group, plot.net.account("李雷"));
    plot.net.command("ana", Command::Remove { group, account });
    plot.net.cut("ana");
    let content = kept.lock().unwrap().clone();
    assert!(!content.is_empty());
    content
}

#[test]
fn what_is_signed_as_one_kind_is_void_as_another() {
    let mut plot = Plot::new(580, &["ana", "bo", "cy", "李雷"]);
    plot.net.send("ana", plot.group, "words");
    plot.net.settle();
    plot.quiet();
    // A message of ana, as it was signed, under ana's ratchet of handshakes.
    let message = plot.watch("bo").opened();
    let as_commit = plot.seal(&plot.claim("ana", COMMIT, 0), &message);
    plot.place("bo", as_commit.clone(), EntryKind::Commit);
    plot.net.settle();
    let fates = [("ana", Fate::OwnLeaf), ("bo", Fate::Void), ("cy", Fate::Void), ("李雷", Fate::Void)];
    assert_eq!(plot.fates(), fates);

    // A commit of ana, as it was signed, under its ratchet of messages; and the same commit signed as a message.
    let commit = unsent_commit(&mut plot);
    let body = &commit[..commit.len() - TAG - SIGNATURE];
    let claim = plot.claim("ana", COMMIT, 1);
    let mut wrongly = plot.signed(&claim, APPLICATION, body, "ana");
    wrongly.extend_from_slice(&commit[commit.len() - TAG..]);
    let as_message = plot.seal(&plot.claim("ana", APPLICATION, 0), &commit);
    for (forged, kind) in
        [(as_message.clone(), EntryKind::Application), (plot.seal(&claim, &wrongly), EntryKind::Commit)]
    {
        plot.place("bo", forged, kind);
        plot.net.settle();
        let fates = [("ana", Fate::Silent), ("bo", Fate::Void), ("cy", Fate::Void), ("李雷", Fate::Void)];
        assert_eq!(plot.fates(), fates, "{kind:?}");
    }

    // An entry of one kind with the header of another does not get past the relay.
    let head = plot.net.store.group(plot.group).unwrap().head;
    plot.place("bo", as_commit, EntryKind::Application);
    plot.place("bo", as_message, EntryKind::Commit);
    assert_eq!(plot.net.store.group(plot.group).unwrap().head, head);

    // ana comes back, makes its commit in the group as it is, and all go on.
    plot.net.connect("ana");
    plot.net.settle();
    plot.all_is_well(&["ana", "bo", "cy"], "we go on");
    assert!(!plot.net.texts("李雷", plot.group).contains(&"bo: we go on".to_owned()));
}

/// `ana` places the newest words of `bo` that it has read, signed as they are, under the key of bo's `generation`.
fn replay(plot: &mut Plot, generation: u32) {
    let content = plot.watch("ana").opened();
    let forged = plot.seal(&plot.claim("bo", APPLICATION, generation), &content);
    plot.place("ana", forged, EntryKind::Application);
}

/// Which messages with this text a member has.
fn ids(plot: &Plot, name: &str, text: &str) -> Vec<MessageId> {
    let messages = plot.net.history(name, plot.group).into_iter();
    messages.filter(|message| message.body == Body::Text(text.to_owned())).map(|message| message.id).collect()
}

// proves mls.replay.1, mls.replay.2
#[test]
fn words_that_are_replayed_under_the_next_keys_spoil_nothing_that_follows() {
    for (number, generation) in [1, 2, 15_000].into_iter().enumerate() {
        let mut plot = Plot::new(590 + number as u64, &["ana", "bo", "cy"]);
        let group = plot.group;
        plot.net.send("bo", group, "zero");
        plot.net.settle();
        plot.quiet();
        let before = plot.net.commits(group);
        // On their way, encrypted with the keys of the generations 1 to 3, when the replay gets its place before them.
        let sent = ["one", "two", "three"].map(|text| {
            let id = plot.net.command("bo", Command::Send { group, text: text.to_owned() });
            let Some(Ok(Reply::Message(id))) = plot.net.nodes["bo"].done.get(&id).cloned() else { panic!("not sent") };
            (text, id)
        });
        replay(&mut plot, generation);
        plot.net.settle();
        assert_eq!(plot.alarms("bo"), [AlarmKind::OwnLeafReplay]);
        assert_eq!(plot.net.commits(group) - before, 1, "bo renews its keys");
        for (text, id) in sent {
            for name in ["ana", "bo", "cy"] {
                assert_eq!(ids(&plot, name, text), [id], "{name} {text}, generation {generation}");
            }
        }
        plot.all_is_well(&["ana", "bo", "cy"], "good");
        assert_eq!(ids(&plot, "cy", "zero").len(), 1, "what was replayed is not shown twice");
    }
}

// proves mls.replay.1, mls.replay.2
#[test]
fn replays_within_the_hour_neither_freeze_a_device_nor_lose_its_words_and_it_renews_its_keys_once() {
    let mut plot = Plot::new(600, &["ana", "bo", "cy"]);
    let group = plot.group;
    plot.net.send("bo", group, "zero");
    plot.net.settle();
    let before = plot.net.commits(group);
    replay(&mut plot, 1);
    plot.net.settle();
    assert_eq!(plot.net.commits(group) - before, 1);
    let renewed = plot.net.now;
    for round in 0..3 {
        plot.net.send("bo", group, &format!("before {round}"));
        plot.net.run_for(5_000);
        plot.quiet();
        // The key of the next words, which go out at once and which nobody can open.
        let (_, generation) = plot.watch("ana").sender();
        replay(&mut plot, generation + 1);
        plot.net.send("bo", group, &format!("after {round}"));
        plot.net.run_for(5_000);
        assert_eq!(plot.alarms("bo"), [AlarmKind::OwnLeafReplay], "told each time");
    }
    assert_eq!(plot.net.commits(group) - before, 1, "not within the hour");
    assert!(plot.net.now.0 - renewed.0 < 3_600_000);
    plot.net.kill("bo");
    plot.net.connect("bo");
    plot.net.settle();
    assert_eq!(plot.net.commits(group) - before, 2, "an hour later");
    for name in ["ana", "bo", "cy"] {
        for text in (0..3).flat_map(|round| [format!("before {round}"), format!("after {round}")]) {
            assert_eq!(ids(&plot, name, &text).len(), 1, "{name}: {text}");
        }
    }
    plot.all_is_well(&["ana", "bo", "cy"], "good");
}
