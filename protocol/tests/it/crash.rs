//! A device that dies between any two of its effects and starts again from its rows: no key encrypts two things that left
//! it, and nothing that it was told is safe is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

use chancery_protocol::{
    client::{Command, Event},
    ids::GroupId,
    mls::Class,
    wire::relay::EntryKind,
};
use chancery_test_crypto::Tap;

use crate::net::{Crash, Net};

/// What each key of a device has encrypted, over all its lives.
#[derive(Default)]
struct Keys(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Tap for Keys {
    fn encrypted(&self, key: &[u8], ciphertext: &[u8]) {
        self.0.lock().unwrap().insert(ciphertext.to_vec(), key.to_vec());
    }
}

const NAMES: [&str; 3] = ["ana", "bo", "李雷"];

/// bo founds nothing, but does everything else: it is told, invites at the same time as another, is overtaken by a commit
/// with messages in flight, renews nothing, sees somebody off. What it was told is safe in its outbox is given back.
fn play(seed: u64, crash: Option<Crash>) -> (Net, GroupId, Vec<String>, Arc<Keys>) {
    let mut net = Net::new(seed);
    let keys = Arc::new(Keys::default());
    net.tenant("ana");
    net.tapped("bo", keys.clone());
    net.tenant("李雷");
    for name in ["di", "eve"] {
        net.tenant(name);
    }
    let desk = net.create("ana", Class::Work, "desk");
    net.crash = crash;
    net.invite("ana", desk, "bo");
    net.invite("ana", desk, "李雷");
    let mut safe = Vec::new();
    let mut say = |net: &mut Net, text: &str| {
        let id = net.command("bo", Command::Send { group: desk, text: text.to_owned() });
        if net.nodes["bo"].done.get(&id).is_some_and(Result::is_ok) {
            safe.push(text.to_owned());
        }
    };
    say(&mut net, "one");
    say(&mut net, "two");
    net.settle();
    let (di, eve) = (net.account("di"), net.account("eve"));
    say(&mut net, "in flight");
    net.command("李雷", Command::Invite { group: desk, account: di });
    net.command("bo", Command::Invite { group: desk, account: eve });
    say(&mut net, "behind an invitation");
    net.send("ana", desk, "meanwhile");
    net.settle();
    net.command("bo", Command::Remove { group: desk, account: di });
    say(&mut net, "and another");
    net.settle();
    say(&mut net, "the end");
    net.settle();
    (net, desk, safe, keys)
}

/// No key of bo has encrypted two things that left it.
fn no_key_is_used_twice(net: &Net, keys: &Keys, when: &str) {
    let keys = keys.0.lock().unwrap();
    let mut bodies: BTreeMap<&[u8], BTreeSet<&[u8]>> = BTreeMap::new();
    for (_, append) in net.left.iter().filter(|(name, append)| name == "bo" && append.kind != EntryKind::Notice) {
        // A PrivateMessage ends with its ciphertext.
        let key = (0..append.body.len()).find_map(|at| keys.get(&append.body[at..])).expect("bo has encrypted it");
        bodies.entry(key).or_default().insert(&append.body);
    }
    assert!(!bodies.is_empty());
    for (key, bodies) in bodies {
        assert_eq!(bodies.len(), 1, "{when}: the key {key:02x?} has encrypted several things");
    }
}

// proves mls.commit.1, mls.flush.1
#[test]
fn a_device_that_dies_between_any_two_effects_uses_no_key_twice_and_loses_nothing() {
    let mut deaths = 0;
    for sent_arrives in [true, false] {
        for effects in 0.. {
            let when = format!("after {effects} effects, what was sent arrives: {sent_arrives}");
            let crash = Crash { name: "bo".to_owned(), effects, sent_arrives };
            let (mut net, desk, safe, keys) = play(700, Some(crash));
            let died = net.crash.take().is_none();
            no_key_is_used_twice(&net, &keys, &when);
            for name in NAMES {
                let texts = net.texts(name, desk);
                for text in &safe {
                    assert_eq!(texts.iter().filter(|one| *one == text).count(), 1, "{when}: {name}: {text}");
                }
                let told = net.events(name);
                assert!(!told.iter().any(|event| matches!(event, Event::Alarm { .. })), "{when}: {name}: {told:?}");
                let summary = net.summary(name, desk);
                assert_eq!((summary.alarm, summary.waiting), (None, 0), "{when}: {name}");
            }
            if !died {
                // The story ended before so many effects.
                break;
            }
            deaths += 1;
        }
    }
    assert!(deaths > 100, "{deaths} deaths");
}

#[test]
fn a_key_that_is_used_twice_would_be_noticed() {
    let (mut net, desk, _, keys) = play(701, None);
    no_key_is_used_twice(&net, &keys, "without a crash");
    // What no device may do: it has sent something that got lost, and forgets it.
    let old = net.rows("bo");
    net.send("bo", desk, "one future");
    net.restore("bo", old);
    net.send("bo", desk, "another future");
    net.settle();
    let noticed = catch_unwind(AssertUnwindSafe(|| no_key_is_used_twice(&net, &keys, "forgotten")));
    assert!(noticed.is_err());
}
