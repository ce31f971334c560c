//! One person at work and in private: nothing that the two clients send links the one identity to the other.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use chancery_client::{Class, Client, FileKey, Identity};
use chancery_protocol::{
    identity::{
        CertificateAuthority, Chain, DeviceKey, Role, TenantRoot, Ticket, TicketKind, certificate::At, name::device_id,
        verify_chain,
    },
    ids::{DeviceId, RootHash, SpkiPin},
    relay::{Admission, ConnId, Input, Lane, Output, RelayMachine, RelayStore as _},
    secret::Secret32,
    time::Timestamp,
    wire::{
        Frame,
        registrar::{Admitted, Enrolled, Order},
    },
};
use chancery_quic::{CloseCode, ListenLimits, Listener, Peer, Protocol};
use chancery_server::store::{SqliteOptions, SqliteStore};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::deployment::{group_named, texts_when, within};

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}

/// Everything that each device has sent, certificates included, as it was under the transport's encryption.
type Recording = Arc<Mutex<BTreeMap<DeviceId, Vec<u8>>>>;

enum Happened {
    Admitted(RootHash),
    Connected(ConnId, Chain, UnboundedSender<Said>),
    Frame(ConnId, u32, Frame),
    Gone(ConnId),
}

enum Said {
    Frame(Lane, Arc<[u8]>),
    Close,
}

/// A relay with registrar around the real machine and the real store, that writes down what it is sent.
struct Recorder {
    address: SocketAddr,
    pin: SpkiPin,
    tenant: RootHash,
    heard: Recording,
}

impl Recorder {
    fn start(dir: &Path) -> Self {
        let root = TenantRoot::create(Secret32::new([11; 32]), now()).unwrap();
        let authority = Arc::new(root.issuing(Secret32::new([12; 32]), now()).unwrap());
        let limits = ListenLimits { connections_max: 64, connections_per_address_max: 64, retry_above: 64 };
        let key = DeviceKey::from_seed(Secret32::new([13; 32])).unwrap();
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &key, now(), limits).unwrap();
        let (address, pin) = (listener.local_addr().unwrap(), listener.pin());
        let store = SqliteStore::open(&SqliteOptions { path: dir.join("relay.db"), max_page_count: None }).unwrap();
        let (happened, happens) = unbounded_channel();
        let heard = Recording::default();
        tokio::spawn(drive(store, root.hash(), happens));
        let (recording, desk) = (Arc::clone(&heard), Arc::clone(&authority));
        tokio::spawn(async move {
            let mut last = 0;
            while let Some(arrival) = listener.accept().await {
                let Ok(peer) = arrival.handshake().await else { continue };
                last += 1;
                let (recording, happened) = (Arc::clone(&recording), happened.clone());
                match peer.protocol {
                    Protocol::Relay => drop(tokio::spawn(serve(ConnId(last), peer, happened, recording))),
                    _ => drop(tokio::spawn(enrol(peer, Arc::clone(&desk), happened, recording))),
                }
            }
        });
        Self { address, pin, tenant: root.hash(), heard }
    }

    async fn client(&self, dir: &Path, kind: TicketKind, name: &str) -> Client {
        std::fs::create_dir_all(dir).unwrap();
        let key = FileKey::create_or_open(dir.join("host.key")).unwrap();
        let client = Client::open(chancery_client::Config::new(dir), key).await.unwrap();
        // The stand-in for a registrar reads the name out of the secret.
        let mut secret = [0; 32];
        secret[..name.len()].copy_from_slice(name.as_bytes());
        let ticket = Ticket {
            kind,
            addresses: vec![self.address],
            server: self.pin,
            tenant: self.tenant,
            secret: Secret32::new(secret),
        };
        client.enroll(&ticket.to_string()).await.unwrap();
        within(client.flush()).await.unwrap();
        // Certificates of the same second are alike in their dates; time is not what is looked for here.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        client
    }

    fn of(&self, client: &Client) -> Vec<u8> {
        self.heard.lock().unwrap()[&client.identity().unwrap().device].clone()
    }
}

fn record(recording: &Recording, device: DeviceId, bytes: &[u8]) {
    recording.lock().unwrap().entry(device).or_default().extend_from_slice(bytes);
}

async fn enrol(
    peer: Peer,
    authority: Arc<CertificateAuthority>,
    happened: UnboundedSender<Happened>,
    recording: Recording,
) {
    let (mut writer, mut reader) = peer.connection.accept_enrolment().await.unwrap();
    let asked = reader.next().await.unwrap().unwrap();
    let frame = asked.frame.unwrap();
    let bytes = frame.to_bytes(asked.correlation);
    let answer = match frame {
        Frame::Enrol(enrol) => {
            record(&recording, device_id(&enrol.device_key), &bytes);
            let name = std::str::from_utf8(enrol.secret.expose()).unwrap().trim_end_matches(char::from(0)).to_owned();
            let chain = authority.certify(&name.parse().unwrap(), &enrol.device_key, Role::Human, now()).unwrap();
            Frame::Enrolled(Enrolled { chain: chain.0, relay: None })
        }
        Frame::Admit(admit) => {
            let identity = verify_chain(&Chain(admit.chain), At::Moment(now())).unwrap();
            record(&recording, identity.device(), &bytes);
            happened.send(Happened::Admitted(identity.root())).unwrap();
            Frame::Admitted(Admitted { relay: None })
        }
        other => panic!("{other:?}"),
    };
    writer.write(&[answer.to_bytes(asked.correlation).into()]).await.unwrap();
    writer.finish(Duration::from_secs(5)).await;
}

async fn serve(conn: ConnId, peer: Peer, happened: UnboundedSender<Happened>, recording: Recording) {
    let chain = peer.chain.unwrap();
    let device = verify_chain(&chain, At::Moment(now())).unwrap().device();
    chain.0.iter().for_each(|certificate| record(&recording, device, certificate));
    let Ok((mut control, mut reader)) = peer.connection.accept_control().await else { return };
    let (say, mut said) = unbounded_channel();
    happened.send(Happened::Connected(conn, chain, say)).unwrap();
    let connection = peer.connection.clone();
    let writing = tokio::spawn(async move {
        let mut delivery = None;
        while let Some(said) = said.recv().await {
            let written = match said {
                Said::Frame(Lane::Control, bytes) => control.write(&[bytes]).await,
                Said::Frame(Lane::Delivery, bytes) => {
                    if delivery.is_none() {
                        delivery = connection.open_delivery().await.ok();
                    }
                    match &mut delivery {
                        Some(delivery) => delivery.write(&[bytes]).await,
                        None => return,
                    }
                }
                Said::Close => return connection.abort(CloseCode::Refused),
            };
            if written.is_err() {
                return;
            }
        }
    });
    while let Ok(Some(taken)) = reader.next().await {
        let frame = taken.frame.unwrap();
        record(&recording, device, &frame.to_bytes(taken.correlation));
        if happened.send(Happened::Frame(conn, taken.correlation, frame)).is_err() {
            break;
        }
    }
    let _ = happened.send(Happened::Gone(conn));
    writing.abort();
}

/// The machine and its store, one input at a time.
async fn drive(mut store: SqliteStore, tenant: RootHash, mut happens: UnboundedReceiver<Happened>) {
    let mut machine = RelayMachine::new(None, &Secret32::new([14; 32]));
    let mut admission = Admission { tenants: [tenant].into(), ..Admission::default() };
    let mut lanes = BTreeMap::new();
    let mut inputs = VecDeque::from([Input::Admission(admission.clone())]);
    loop {
        while let Some(input) = inputs.pop_front() {
            machine.handle(input, now());
            while let Some(output) = machine.poll() {
                match output {
                    Output::Store { op, request } => {
                        let reply = store.apply(&[request], now()).map(|mut replies| replies.remove(0));
                        inputs.push_back(Input::Stored { op, reply });
                    }
                    Output::Send { conn, lane, bytes } => {
                        inputs.push_back(Input::Written { conn, bytes: bytes.len() });
                        lanes.get(&conn).map(|lanes: &UnboundedSender<Said>| lanes.send(Said::Frame(lane, bytes)));
                    }
                    Output::Close { conn, .. } => drop(lanes.get(&conn).map(|lanes| lanes.send(Said::Close))),
                }
            }
        }
        let Some(happened) = happens.recv().await else { return };
        inputs.push_back(match happened {
            Happened::Admitted(root) => {
                admission.obey(&Order::Admit(root));
                Input::Admission(admission.clone())
            }
            Happened::Connected(conn, chain, say) => {
                lanes.insert(conn, say);
                Input::Connected { conn, chain: Some(chain) }
            }
            Happened::Frame(conn, correlation, frame) => Input::Frame { conn, correlation, frame: Ok(frame) },
            Happened::Gone(conn) => {
                lanes.remove(&conn);
                Input::Disconnected { conn }
            }
        });
    }
}

/// As long as the shortest id: nothing but copying explains it twice.
const PART: usize = 16;
/// A part of which so many bytes in a row were sent by others, too, is of a form that all use.
const FORM: usize = 8;

fn parts(bytes: &[u8], len: usize) -> BTreeSet<&[u8]> {
    bytes.windows(len).collect()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn names(identity: &Identity) -> Vec<Vec<u8>> {
    let mut names = vec![
        identity.account.0.to_vec(),
        identity.account.to_string().into_bytes(),
        identity.device.0.to_vec(),
        identity.device.to_string().into_bytes(),
    ];
    if let Some(handle) = &identity.handle {
        names.push(handle.as_str().as_bytes().to_vec());
        names.push(b"%E6%9D%8E%E9%9B%B7".to_vec());
    }
    names
}

// proves identity.apart.1
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_person_sends_at_work_and_in_private_links_the_two() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(dir.path());
    let open = |name: &str| dir.path().join(name);
    let work = recorder.client(&open("work"), TicketKind::Account, "李雷").await;
    let private = recorder.client(&open("private"), TicketKind::Personal, "x").await;
    // Others of both kinds: what they send, too, is not about one person.
    let bo = recorder.client(&open("bo"), TicketKind::Account, "bo").await;
    let omar = recorder.client(&open("omar"), TicketKind::Personal, "y").await;

    for (one, other, class, name) in
        [(&work, &bo, Class::Work, "设计 desk at work"), (&private, &omar, Class::Personal, "朋友 friends and family")]
    {
        let group = within(one.create_group(class, name)).await.unwrap();
        within(one.invite(group, other.identity().unwrap().account)).await.unwrap();
        assert_eq!(group_named(other, name).await, group);
        for text in ["早上好", "see you"] {
            one.send(group, &format!("{text}, says {name}")).await.unwrap();
            other.send(group, &format!("{text}, answers {name}")).await.unwrap();
        }
        texts_when(one, group, 4).await;
        texts_when(other, group, 4).await;
        for client in [one, other] {
            within(client.flush()).await.unwrap();
            client.pause().await;
            client.resume().await;
            within(client.flush()).await.unwrap();
        }
    }
    let (at_work, in_private) = (recorder.of(&work), recorder.of(&private));
    let (of_bo, of_omar) = (recorder.of(&bo), recorder.of(&omar));
    let forms: BTreeSet<&[u8]> = parts(&of_bo, FORM).union(&parts(&of_omar, FORM)).copied().collect();
    let is_form = |part: &&&[u8]| part.windows(FORM).any(|piece| forms.contains(piece));
    let (of_work, of_private) = (parts(&at_work, PART), parts(&in_private, PART));
    let shared: Vec<_> = of_work.intersection(&of_private).filter(|part| !is_form(part)).collect();
    assert!(shared.is_empty(), "{} parts are the same, such as {:02x?}", shared.len(), shared[0]);
    let (work_names, private_names) = (names(&work.identity().unwrap()), names(&private.identity().unwrap()));
    assert!(work_names.iter().all(|name| !holds(&in_private, name)));
    assert!(private_names.iter().all(|name| !holds(&at_work, name)));
    // The same search does find what belongs together: a device in its two connections, and an account in its certificate.
    let encoded = b"%E6%9D%8E%E9%9B%B7";
    assert!(at_work.windows(encoded.len()).filter(|window| window == encoded).count() >= 2);
    assert!(holds(&in_private, private.identity().unwrap().account.to_string().as_bytes()));
    assert_ne!(
        std::fs::read(open("work").join("host.key")).unwrap(),
        std::fs::read(open("private").join("host.key")).unwrap()
    );
}
