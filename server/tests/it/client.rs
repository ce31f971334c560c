//! A deployment in a throwaway folder, and a client that speaks frames by hand.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use chancery_protocol::{
    error::Refusal,
    identity::{CertificateAuthority, Chain, DeviceKey, Handle, PersonalRoot, Purpose, Ticket},
    ids::{GroupId, Seq, SpkiPin},
    secret::{AccessToken, Secret32},
    wire::{
        Blob, Frame,
        frame::TakenFrame,
        registrar::{Admit, Enrol},
        relay::{Append, Appended, Bundle, Entry, EntryKind, Open, Opened, WelcomeCopy},
    },
};
use chancery_quic::{CloseCode, Connection, FrameReader, FrameWriter, Protocol, connect};
use chancery_server::{Admin, Clock, Config, InitOptions, Server, init};
use tempfile::TempDir;

pub const PATIENCE: Duration = Duration::from_secs(10);

pub fn deployment(change: impl FnOnce(&mut Config)) -> (TempDir, Config) {
    let folder = tempfile::tempdir().unwrap();
    let options = InitOptions { listen: "127.0.0.1:0".parse().unwrap(), public: vec![] };
    let report = init(folder.path(), &options).unwrap();
    let mut config = Config::load(&report.config).unwrap();
    change(&mut config);
    (folder, config)
}

pub async fn start(config: &Config) -> Server {
    Server::start(config.clone()).await.unwrap()
}

pub fn handle(name: &str) -> Handle {
    name.parse().unwrap()
}

pub fn key(seed: u8) -> DeviceKey {
    DeviceKey::from_seed(Secret32::new([seed; 32])).unwrap()
}

/// The issuing key, to make certificates that no registrar would.
pub fn issuing(dir: &Path) -> CertificateAuthority {
    let text = std::fs::read_to_string(dir.join("registrar/keys/issuing.key")).unwrap();
    let seed = data_encoding::HEXLOWER.decode(text.split_whitespace().last().unwrap().as_bytes()).unwrap();
    let pem = std::fs::read_to_string(dir.join("registrar/keys/issuing.pem")).unwrap();
    let chain = pem
        .split("-----BEGIN CERTIFICATE-----")
        .skip(1)
        .map(|block| {
            let encoded: String = block.split("-----END").next().unwrap().split_whitespace().collect();
            Blob(data_encoding::BASE64.decode(encoded.as_bytes()).unwrap())
        })
        .collect();
    CertificateAuthority::restore(Secret32::from_slice(&seed).unwrap(), chain).unwrap()
}

/// One request on the enrolment protocol.
pub async fn request(ticket: &Ticket, request: Frame) -> Frame {
    let connection = connect(&ticket.addresses, ticket.server, None, Protocol::Enrol).await.unwrap();
    let (mut writer, mut reader) = connection.open_enrolment().await.unwrap();
    writer.write(&[Arc::from(request.to_bytes(7))]).await.unwrap();
    let taken = reader.next().await.unwrap().unwrap();
    assert_eq!(taken.correlation, 7);
    connection.close(CloseCode::Done).await;
    taken.frame.unwrap()
}

pub async fn enrol(ticket: &Ticket, key: &DeviceKey) -> Result<Chain, Refusal> {
    let proof = Blob(key.sign(Purpose::Enrol, &Ticket::proof_message(&ticket.secret, ticket.server)));
    let frame = Frame::Enrol(Enrol { secret: ticket.secret.clone(), device_key: *key.public(), proof });
    match request(ticket, frame).await {
        Frame::Enrolled(enrolled) => Ok(Chain(enrolled.chain)),
        Frame::NotEnrolled(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

pub async fn admit(ticket: &Ticket, key: &DeviceKey, chain: &Chain) -> Frame {
    let proof = Blob(key.sign(Purpose::Admit, &Ticket::proof_message(&ticket.secret, ticket.server)));
    request(ticket, Frame::Admit(Admit { secret: ticket.secret.clone(), chain: chain.0.clone(), proof })).await
}

/// A personal device that nobody admitted yet.
pub fn personal(seed: u8) -> (DeviceKey, Chain) {
    let key = key(seed);
    let now = Clock::default().now();
    let chain = PersonalRoot::create(Secret32::new([seed + 100; 32]), now).unwrap().certify(key.public(), now).unwrap();
    (key, chain)
}

/// A connected device that was let in.
pub struct Device {
    pub connection: Connection,
    pub writer: FrameWriter,
    pub reader: FrameReader,
    last: u32,
}

impl Device {
    /// Adds an account, enrols its device and connects.
    pub async fn of(config: &Config, server: &Server, name: &str, seed: u8) -> Self {
        let ticket = Admin::open(config).unwrap().add_account(&handle(name)).unwrap();
        let key = key(seed);
        let chain = enrol(&ticket, &key).await.unwrap();
        Self::connect(server.local_addr(), server.pin(), Some((&chain, &key))).await.unwrap()
    }

    /// Connects, and returns when the relay has said `Ready`, or why it did not.
    pub async fn connect(
        address: SocketAddr,
        pin: SpkiPin,
        identity: Option<(&Chain, &DeviceKey)>,
    ) -> Result<Self, Refusal> {
        let connection = connect(&[address], pin, identity, Protocol::Relay).await.unwrap();
        let (writer, reader) = connection.open_control().await.unwrap();
        let mut device = Self { connection, writer, reader, last: 0 };
        match device.next().await.frame.unwrap() {
            Frame::Ready(_) => Ok(device),
            Frame::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// The next frame but for the answer to the ping that opens a stream, and for news of the directory.
    pub async fn next(&mut self) -> TakenFrame {
        loop {
            let taken = tokio::time::timeout(PATIENCE, self.reader.next()).await.unwrap().unwrap().unwrap();
            if !(taken.correlation == 0 && matches!(taken.frame, Ok(Frame::Pong(_) | Frame::DirectoryGrew(_)))) {
                return taken;
            }
        }
    }

    /// Sends a request and returns the answer to it.
    pub async fn ask(&mut self, request: Frame) -> Frame {
        self.last += 1;
        self.writer.write(&[Arc::from(request.to_bytes(self.last))]).await.unwrap();
        loop {
            let taken = self.next().await;
            if taken.correlation == self.last {
                return taken.frame.unwrap();
            }
        }
    }

    pub async fn append(&mut self, append: Append) -> Result<Appended, Refusal> {
        match self.ask(Frame::Append(append)).await {
            Frame::Appended(appended) => Ok(appended),
            Frame::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    pub async fn open(&mut self, group: GroupId, token: AccessToken, from: Option<u64>) -> Result<Opened, Refusal> {
        match self.ask(Frame::Open(Open { group, token, from: from.map(Seq) })).await {
            Frame::Opened(opened) => Ok(opened),
            Frame::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// Reads `count` entries from the delivery stream.
    pub async fn entries(&self, delivery: &mut Option<FrameReader>, count: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        while entries.len() < count {
            match self.delivered(delivery).await {
                Frame::Entries(batch) => entries.extend(batch.entries),
                other => panic!("{other:?}"),
            }
        }
        entries
    }

    pub async fn delivered(&self, delivery: &mut Option<FrameReader>) -> Frame {
        let wait = async {
            if delivery.is_none() {
                *delivery = Some(self.connection.accept_delivery().await.unwrap());
            }
            delivery.as_mut().unwrap().next().await.unwrap().unwrap().frame.unwrap()
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("a delivery comes")
    }
}

pub const GROUP: GroupId = GroupId([0xab; 32]);

pub fn token(n: u8) -> AccessToken {
    AccessToken::new([n; 32])
}

/// A PrivateMessage by its outer form only (RFC 9420, section 6.3): a relay can look no deeper.
fn private_message(group: GroupId, kind: EntryKind, content: &[u8]) -> Blob {
    let mut bytes = vec![0, 1, 0, 2, 32];
    bytes.extend_from_slice(group.as_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.push(if kind == EntryKind::Commit { 3 } else { 1 });
    bytes.extend_from_slice(&[0, 0]);
    let len = u32::try_from(content.len()).unwrap();
    match len {
        0..64 => bytes.push(len as u8),
        64..16384 => bytes.extend_from_slice(&(len as u16 | 0x4000).to_be_bytes()),
        _ => bytes.extend_from_slice(&(len | 0x8000_0000).to_be_bytes()),
    }
    bytes.extend_from_slice(content);
    Blob(bytes)
}

pub fn application(after: u64, content: &[u8]) -> Append {
    Append {
        group: GROUP,
        kind: EntryKind::Application,
        after: Seq(after),
        behind: None,
        body: private_message(GROUP, EntryKind::Application, content),
        bundle: None,
    }
}

pub fn commit(after: u64, content: &[u8], next: &AccessToken, welcomes: Vec<WelcomeCopy>) -> Append {
    Append {
        kind: EntryKind::Commit,
        body: private_message(GROUP, EntryKind::Commit, content),
        bundle: Some(Bundle { next_token: next.hash(), welcomes }),
        ..application(after, content)
    }
}
