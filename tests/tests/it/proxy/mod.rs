//! A UDP proxy that stands for a bad network: it loses, doubles, holds back and corrupts datagrams by a seed, goes dark,
//! and changes the addresses from which clients are seen, as a NAT does that has forgotten its bindings.
//!
//! This module does not know QUIC. What happens to the nth datagram of a direction follows from the seed; which datagram is
//! the nth, and when it comes, the nodes and the machine decide.

mod fate;
mod tests;

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{
    net::UdpSocket,
    task::{AbortHandle, JoinHandle},
};

use self::fate::{Copy, Fates};
pub use self::fate::{Counts, Faults};

/// No datagram is longer.
const DATAGRAM_MAX: usize = 65_536;

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From a client to the server.
    Up,
    /// From the server to a client.
    Down,
}

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A bad network in front of one server. It ends when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    network: Arc<Mutex<Network>>,
    task: JoinHandle<()>,
}

struct Network {
    server: Option<SocketAddr>,
    dark: bool,
    /// Clients have one address per number, behind which the server sees them.
    binding: u64,
    faults: [Faults; 2],
    fates: [Fates; 2],
}

impl Proxy {
    /// Listens on a port of its own. What comes before [`Self::forward_to`] is lost.
    pub async fn start(seed: u64) -> Self {
        let front = Arc::new(UdpSocket::bind(ANY).await.unwrap());
        let network = Arc::new(Mutex::new(Network {
            server: None,
            dark: false,
            binding: 0,
            faults: [Faults::NONE; 2],
            fates: [Fates::new(seed, 0), Fates::new(seed, 1)],
        }));
        let address = front.local_addr().unwrap();
        let task = tokio::spawn(serve(front, Arc::clone(&network)));
        Self { address, network, task }
    }

    /// Where clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn forward_to(&self, server: SocketAddr) {
        lock(&self.network).server = Some(server);
    }

    /// From here on one direction has these faults.
    pub fn spoil(&self, way: Way, faults: Faults) {
        lock(&self.network).faults[way as usize] = faults;
    }

    /// From here on both directions have these faults.
    pub fn spoil_both(&self, faults: Faults) {
        lock(&self.network).faults = [faults; 2];
    }

    /// Whether nothing comes across in any direction.
    pub fn set_dark(&self, dark: bool) {
        lock(&self.network).dark = dark;
    }

    /// The server sees each client at another address from its next datagram on; what is sent to the old one is lost.
    pub fn change_addresses(&self) {
        lock(&self.network).binding += 1;
    }

    pub fn counts(&self, way: Way) -> Counts {
        lock(&self.network).fates[way as usize].counts
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(network: &Mutex<Network>) -> MutexGuard<'_, Network> {
    network.lock().unwrap()
}

/// The address behind which the server sees a client.
struct Binding {
    number: u64,
    socket: Arc<UdpSocket>,
    down: AbortHandle,
}

impl Binding {
    async fn new(number: u64, client: SocketAddr, front: &Arc<UdpSocket>, network: &Arc<Mutex<Network>>) -> Self {
        let socket = Arc::new(UdpSocket::bind(ANY).await.unwrap());
        let down = carry_down(number, client, Arc::clone(front), Arc::clone(&socket), Arc::clone(network));
        Self { number, socket, down: tokio::spawn(down).abort_handle() }
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        self.down.abort();
    }
}

async fn serve(front: Arc<UdpSocket>, network: Arc<Mutex<Network>>) {
    let mut bindings: HashMap<SocketAddr, Binding> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let Some((len, client)) = taken(front.recv_from(&mut buffer).await) else { continue };
        let (number, server, copies) = {
            let mut network = lock(&network);
            let copies = network.carry(Way::Up, &buffer[..len]);
            (network.binding, network.server, copies)
        };
        let Some(server) = server else { continue };
        if bindings.get(&client).is_none_or(|binding| binding.number != number) {
            bindings.insert(client, Binding::new(number, client, &front, &network).await);
        }
        for copy in copies {
            deliver(copy, Arc::clone(&bindings[&client].socket), server).await;
        }
    }
}

async fn carry_down(
    number: u64,
    client: SocketAddr,
    front: Arc<UdpSocket>,
    socket: Arc<UdpSocket>,
    network: Arc<Mutex<Network>>,
) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let Some((len, from)) = taken(socket.recv_from(&mut buffer).await) else { continue };
        let copies = {
            let mut network = lock(&network);
            if network.server != Some(from) {
                continue;
            }
            if network.binding == number {
                network.carry(Way::Down, &buffer[..len])
            } else {
                network.fates[Way::Down as usize].lose();
                Vec::new()
            }
        };
        for copy in copies {
            deliver(copy, Arc::clone(&front), client).await;
        }
    }
}

impl Network {
    fn carry(&mut self, way: Way, datagram: &[u8]) -> Vec<Copy> {
        let fates = &mut self.fates[way as usize];
        if self.dark || self.server.is_none() {
            fates.lose();
            return Vec::new();
        }
        fates.decide(&self.faults[way as usize], datagram)
    }
}

/// A peer that is not there is told by ICMP on the next call; to a network that is nothing.
fn taken(received: io::Result<(usize, SocketAddr)>) -> Option<(usize, SocketAddr)> {
    received.ok()
}

async fn deliver(copy: Copy, socket: Arc<UdpSocket>, to: SocketAddr) {
    if copy.after.is_zero() {
        // A datagram that cannot be sent is lost, as on any network.
        let _ = socket.send_to(&copy.bytes, to).await;
        return;
    }
    tokio::spawn(async move {
        tokio::time::sleep(copy.after).await;
        let _ = socket.send_to(&copy.bytes, to).await;
    });
}
