//! People talk over a bad network: whatever it does to datagrams, everything that was sent arrives once and in order,
//! without an alarm.
//!
//! `CHANCERY_PROXY_ROUNDS` plays each so often, with other seeds; times are printed (`--nocapture`).

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use chancery_client::{Class, Client, ConnectionState, Event, EventId, GroupId, HostEvent};
use tokio::task::JoinHandle;

use super::deployment::{Deployment, group_named, texts, within};
use crate::proxy::{Faults, Proxy, Way};

/// What three in ten datagrams lost mean for a machine that is busy as well is not known; a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(180);

/// Twice the 30 s that are promised, because other tests run beside this one.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);

const LOSSY: Faults = Faults { loss: 0.3, ..Faults::NONE };

/// Two people in a group behind the proxy.
struct Desk {
    proxy: Proxy,
    deployment: Deployment,
    people: [Client; 2],
    group: GroupId,
    sent: usize,
}

impl Desk {
    /// Everything is well so far.
    async fn open(seed: u64) -> Self {
        let proxy = Proxy::start(seed).await;
        let deployment = Deployment::behind(&proxy).await;
        let (ana, li) = (deployment.tenant("ana").await, deployment.tenant("李雷").await);
        let group = within(ana.create_group(Class::Work, "desk 🦊")).await.unwrap();
        within(ana.invite(group, ana.resolve("李雷").unwrap())).await.unwrap();
        group_named(&li, "desk 🦊").await;
        Self { proxy, deployment, people: [ana, li], group, sent: 0 }
    }

    /// Each says so much, in turns.
    async fn say(&mut self, count: usize) {
        for _ in 0..count {
            for person in &self.people {
                person.send(self.group, &format!("zoë says {}", self.sent)).await.unwrap();
            }
            self.sent += 1;
        }
    }

    /// Waits until both have read everything, and looks at what they have and at what they were told.
    async fn everything_arrives(&self) {
        let all = 2 * self.sent;
        for person in &self.people {
            wait_for(person, self.group, all).await;
        }
        let [ana, li] = &self.people;
        assert_eq!(histories(ana, self.group).await, histories(li, self.group).await);
        for person in &self.people {
            let history = histories(person, self.group).await;
            for author in [true, false] {
                let of_author = history.iter().filter(|(_, account)| (*account == own(person)) == author);
                let texts: Vec<String> = of_author.map(|(text, _)| text.clone()).collect();
                let expected: Vec<String> = (0..self.sent).map(|number| format!("zoë says {number}")).collect();
                assert_eq!(texts, expected, "once each, in the order of their author");
            }
            nothing_strange_happened(person).await;
        }
    }
}

fn own(client: &Client) -> chancery_client::AccountId {
    client.identity().unwrap().account
}

async fn wait_for(client: &Client, group: GroupId, count: usize) {
    let waiting = async {
        while texts(client, group).await.len() < count {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        panic!("{} of {count} texts have arrived", texts(client, group).await.len());
    }
}

/// Texts with their authors.
async fn histories(client: &Client, group: GroupId) -> Vec<(String, chancery_client::AccountId)> {
    let history = client.history(group, None, 10_000).await.unwrap();
    let text = |message: chancery_client::Message| match message.body {
        chancery_client::Body::Text(text) => Some((text, message.account)),
        _ => None,
    };
    history.into_iter().filter_map(text).collect()
}

/// What a network does to datagrams is nothing that a host has to be told.
async fn nothing_strange_happened(client: &Client) {
    let mut cursor = EventId(0);
    loop {
        let events = client.events_now(256, cursor).await.unwrap();
        let Some(last) = events.last() else { return };
        cursor = last.id();
        for event in events {
            let HostEvent::Other { event, .. } = event else { continue };
            assert!(matches!(event, Event::Joined { .. } | Event::MemberAdded { .. }), "{event:?}");
        }
    }
}

/// Every state that a client's connection takes from here on.
fn watch(client: &Client) -> (Arc<Mutex<Vec<ConnectionState>>>, JoinHandle<()>) {
    let states = Arc::new(Mutex::new(vec![client.connection()]));
    let (client, seen) = (client.clone(), Arc::clone(&states));
    let task = tokio::spawn(async move {
        loop {
            let last = seen.lock().unwrap().last().unwrap().clone();
            let next = client.connection_changed(&last).await;
            seen.lock().unwrap().push(next);
        }
    });
    (states, task)
}

/// Plays with as many seeds as were asked for, and prints how long each took.
async fn rounds<F: Future<Output = Duration>>(name: &str, play: impl Fn(u64) -> F) {
    let rounds = std::env::var("CHANCERY_PROXY_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    for seed in 1..=rounds {
        let took = play(seed).await;
        println!("{name}, seed {seed}: {:.1} s", took.as_secs_f64());
    }
}

/// Both talk while the network has these faults.
async fn talk_over(seed: u64, faults: Faults) -> Duration {
    let mut desk = Desk::open(seed).await;
    desk.proxy.spoil_both(faults);
    let began = Instant::now();
    desk.say(50).await;
    desk.everything_arrives().await;
    let took = began.elapsed();
    for way in [Way::Up, Way::Down] {
        let counts = desk.proxy.counts(way);
        println!("{way:?} {counts:?}");
        assert_eq!(counts.lost > 0, faults.loss > 0.0, "{counts:?}");
        assert_eq!(counts.doubled > 0, faults.duplication > 0.0, "{counts:?}");
        assert_eq!(counts.held > 0, faults.reordering > 0.0, "{counts:?}");
        assert_eq!(counts.corrupted > 0, faults.corruption > 0.0, "{counts:?}");
    }
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_although_three_in_ten_datagrams_are_lost() {
    rounds("loss", |seed| talk_over(seed, LOSSY)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_once_although_datagrams_are_doubled() {
    rounds("duplication", |seed| talk_over(seed, Faults { duplication: 0.3, ..Faults::NONE })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_in_order_although_datagrams_are_not() {
    rounds("reordering", |seed| talk_over(seed, Faults { reordering: 0.3, ..Faults::NONE })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_unharmed_although_datagrams_are_corrupted() {
    rounds("corruption", |seed| talk_over(seed, Faults { corruption: 0.3, ..Faults::NONE })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_outlives_changes_of_the_clients_address() {
    rounds("address change", |seed| async move {
        let mut desk = Desk::open(seed).await;
        for person in &desk.people {
            within(person.wait_online()).await.unwrap();
        }
        let watched: Vec<_> = desk.people.iter().map(watch).collect();
        let began = Instant::now();
        for _ in 0..5 {
            desk.say(5).await;
            desk.proxy.change_addresses();
            desk.say(5).await;
            desk.everything_arrives().await;
        }
        let took = began.elapsed();
        for (states, task) in watched {
            task.abort();
            assert_eq!(*states.lock().unwrap(), [ConnectionState::Online]);
        }
        took
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_over_a_network_with_all_faults_and_a_relay_that_restarts() {
    rounds("all faults, address change, restart", |seed| async move {
        let mut desk = Desk::open(seed).await;
        desk.proxy.spoil_both(Faults {
            loss: 0.2,
            duplication: 0.1,
            reordering: 0.2,
            corruption: 0.05,
            ..Faults::NONE
        });
        let began = Instant::now();
        for round in 0..6 {
            desk.say(10).await;
            desk.proxy.change_addresses();
            desk.say(5).await;
            if round == 2 {
                desk.deployment.restart().await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        desk.everything_arrives().await;
        began.elapsed()
    })
    .await;
}

/// What is sent while nothing comes across arrives after it, with three in ten datagrams lost before and after.
#[tokio::test(flavor = "multi_thread")]
async fn clients_catch_up_over_a_lossy_network_after_it_was_dark() {
    rounds("catch-up of 300 messages after 10 s of darkness", |seed| async move {
        let mut desk = Desk::open(seed).await;
        desk.proxy.spoil_both(LOSSY);
        desk.say(5).await;
        desk.everything_arrives().await;
        desk.proxy.set_dark(true);
        desk.say(150).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        desk.proxy.set_dark(false);
        let healed = Instant::now();
        desk.everything_arrives().await;
        let took = healed.elapsed();
        assert!(took < CATCH_UP_MAX, "{took:?}");
        took
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_given_up_comes_back_by_itself() {
    let mut desk = Desk::open(1).await;
    desk.proxy.set_dark(true);
    desk.say(5).await;
    for person in &desk.people {
        let offline = async {
            let mut state = person.connection();
            while state == ConnectionState::Online {
                state = person.connection_changed(&state).await;
            }
        };
        within(offline).await;
    }
    desk.proxy.set_dark(false);
    desk.everything_arrives().await;
}
