//! That the proxy does what it is told, counted.

use std::{collections::BTreeMap, time::Duration};

use tokio::net::UdpSocket;

use super::{
    ANY, Faults, Proxy, Way,
    fate::{Counts, Fates},
};

const MANY: u64 = 20_000;

/// Fates of many datagrams, and how many copies arrive of all of them.
fn fates(seed: u64, faults: &Faults) -> (Counts, usize) {
    let mut fates = Fates::new(seed, 0);
    let arrived = (0..MANY).map(|number| fates.decide(faults, &number.to_be_bytes()).len()).sum();
    (fates.counts, arrived)
}

fn is_about(count: u64, share: f64) -> bool {
    (count as f64 / MANY as f64 - share).abs() < 0.02
}

#[test]
fn each_fault_happens_as_often_as_it_was_asked_for_and_no_other_does() {
    let none = Counts { taken: MANY, ..Counts::default() };
    assert_eq!(fates(1, &Faults::NONE), (none, MANY as usize));

    let (counts, arrived) = fates(1, &Faults { loss: 0.3, ..Faults::NONE });
    assert!(is_about(counts.lost, 0.3), "{counts:?}");
    assert_eq!(arrived as u64, MANY - counts.lost);
    assert_eq!(counts, Counts { lost: counts.lost, ..none });

    let (counts, arrived) = fates(1, &Faults { duplication: 0.2, ..Faults::NONE });
    assert!(is_about(counts.doubled, 0.2), "{counts:?}");
    assert_eq!(arrived as u64, MANY + counts.doubled);
    assert_eq!(counts, Counts { doubled: counts.doubled, ..none });

    let (counts, arrived) = fates(1, &Faults { reordering: 0.1, ..Faults::NONE });
    assert!(is_about(counts.held, 0.1), "{counts:?}");
    assert_eq!((counts, arrived as u64), (Counts { held: counts.held, ..none }, MANY));

    let (counts, arrived) = fates(1, &Faults { corruption: 0.05, ..Faults::NONE });
    assert!(is_about(counts.corrupted, 0.05), "{counts:?}");
    assert_eq!((counts, arrived as u64), (Counts { corrupted: counts.corrupted, ..none }, MANY));
}

#[test]
fn a_seed_repeats_its_fates_and_directions_differ() {
    let faults = Faults { loss: 0.3, duplication: 0.2, reordering: 0.2, corruption: 0.2, ..Faults::NONE };
    let play = |seed, direction| {
        let mut fates = Fates::new(seed, direction);
        (0_u32..200).map(|number| fates.decide(&faults, &number.to_be_bytes())).collect::<Vec<_>>()
    };
    assert_eq!(play(7, 0), play(7, 0));
    assert_ne!(play(7, 0), play(7, 1));
    assert_ne!(play(7, 0), play(8, 0));
}

#[test]
fn corruption_changes_bytes_and_holding_back_is_bounded() {
    let faults = Faults { reordering: 1.0, corruption: 1.0, ..Faults::NONE };
    let mut fates = Fates::new(3, 0);
    for _ in 0..1_000 {
        let datagram = [0x55; 40];
        for copy in fates.decide(&faults, &datagram) {
            // Two changes of one byte may undo one another, so none at all is rare and not forbidden.
            let changed = copy.bytes.iter().zip(datagram).filter(|(now, before)| **now != *before).count();
            assert!(copy.bytes.len() == datagram.len() && changed <= 3);
            assert!(copy.after <= faults.held_max);
        }
    }
    assert_eq!(fates.counts.corrupted, 1_000);
}

/// A server that says to whoever writes what it wrote and from where it was seen.
struct Echo {
    client: UdpSocket,
    server: UdpSocket,
    proxy: Proxy,
}

/// How long a datagram that comes is waited for.
const ARRIVES: Duration = Duration::from_secs(20);
/// How long one is waited for that must not come.
const STAYS_AWAY: Duration = Duration::from_millis(200);

impl Echo {
    async fn start() -> Self {
        let echo = Self {
            client: UdpSocket::bind(ANY).await.unwrap(),
            server: UdpSocket::bind(ANY).await.unwrap(),
            proxy: Proxy::start(1).await,
        };
        echo.proxy.forward_to(echo.server.local_addr().unwrap());
        echo
    }

    async fn say(&self, text: &str) {
        self.client.send_to(text.as_bytes(), self.proxy.address()).await.unwrap();
    }

    /// Waits until so many datagrams of a direction were lost.
    async fn lost(&self, way: Way, count: u64) {
        let waiting = async {
            while self.proxy.counts(way).lost < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(ARRIVES, waiting).await.unwrap();
    }

    async fn hear(socket: &UdpSocket, patience: Duration) -> Option<(String, std::net::SocketAddr)> {
        let mut buffer = [0; 100];
        let (len, from) = tokio::time::timeout(patience, socket.recv_from(&mut buffer)).await.ok()?.unwrap();
        Some((String::from_utf8(buffer[..len].to_vec()).unwrap(), from))
    }
}

#[tokio::test]
async fn datagrams_go_up_and_down_and_a_dark_network_carries_none() {
    let echo = Echo::start().await;
    echo.say("你好").await;
    let (text, seen_at) = Echo::hear(&echo.server, ARRIVES).await.unwrap();
    assert_eq!(text, "你好");
    assert_ne!(seen_at, echo.client.local_addr().unwrap());
    echo.server.send_to("🦊".as_bytes(), seen_at).await.unwrap();
    assert_eq!(Echo::hear(&echo.client, ARRIVES).await.unwrap(), ("🦊".to_owned(), echo.proxy.address()));

    echo.proxy.set_dark(true);
    echo.say("nobody hears this").await;
    echo.server.send_to(b"nor this", seen_at).await.unwrap();
    echo.lost(Way::Up, 1).await;
    echo.lost(Way::Down, 1).await;
    assert_eq!(Echo::hear(&echo.server, STAYS_AWAY).await, None);
    assert_eq!(Echo::hear(&echo.client, STAYS_AWAY).await, None);
    echo.proxy.set_dark(false);
    echo.say("again").await;
    assert_eq!(Echo::hear(&echo.server, ARRIVES).await.unwrap(), ("again".to_owned(), seen_at));
    assert_eq!(echo.proxy.counts(Way::Up), Counts { taken: 3, lost: 1, ..Counts::default() });
    assert_eq!(echo.proxy.counts(Way::Down), Counts { taken: 2, lost: 1, ..Counts::default() });
}

#[tokio::test]
async fn a_client_is_seen_at_another_address_and_its_old_one_is_dead() {
    let echo = Echo::start().await;
    echo.say("one").await;
    let (_, before) = Echo::hear(&echo.server, ARRIVES).await.unwrap();
    echo.proxy.change_addresses();
    echo.server.send_to(b"to the old address", before).await.unwrap();
    echo.lost(Way::Down, 1).await;
    assert_eq!(Echo::hear(&echo.client, STAYS_AWAY).await, None);
    echo.say("two").await;
    let (_, after) = Echo::hear(&echo.server, ARRIVES).await.unwrap();
    assert_ne!(before, after);
    echo.server.send_to(b"to the old address", before).await.unwrap();
    assert_eq!(Echo::hear(&echo.client, STAYS_AWAY).await, None);
    echo.server.send_to(b"to the right address", after).await.unwrap();
    assert_eq!(Echo::hear(&echo.client, ARRIVES).await.unwrap().0, "to the right address");
}

#[tokio::test]
async fn directions_are_spoiled_apart_and_doubled_datagrams_arrive_twice() {
    let echo = Echo::start().await;
    echo.proxy.spoil(Way::Up, Faults { duplication: 1.0, reordering: 1.0, ..Faults::NONE });
    echo.proxy.spoil(Way::Down, Faults { loss: 1.0, ..Faults::NONE });
    for number in 0..10 {
        echo.say(&number.to_string()).await;
    }
    let mut heard: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..20 {
        let (text, from) = Echo::hear(&echo.server, ARRIVES).await.unwrap();
        echo.server.send_to(b"lost", from).await.unwrap();
        *heard.entry(text).or_default() += 1;
    }
    assert!(heard.len() == 10 && heard.values().all(|copies| *copies == 2), "{heard:?}");
    echo.lost(Way::Down, 20).await;
    assert_eq!(Echo::hear(&echo.client, STAYS_AWAY).await, None);
    assert_eq!(echo.proxy.counts(Way::Up), Counts { taken: 10, doubled: 10, held: 20, ..Counts::default() });
}
