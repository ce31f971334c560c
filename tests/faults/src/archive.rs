//! SIGKILL of a real escrow node, again and again, while people talk; then its archive is opened and compared with the
//! relay's log: each entry is there once, and every text that was accepted.
//!
//! One deployment, one group and one archive live through the whole run: what a kill spoils, a later one does not hide.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command},
    time::{Duration, Instant},
};

use chancery_client::{Client, Config, Error, FileKey, GroupId, MessageId};
use chancery_escrow::Node;
use chancery_protocol::{
    escrow::{
        KeyShare, Opening, Record, RecordBody, SealedRecord,
        threshold::{ArchiveKey, combine, deal},
    },
    identity::{DeviceKey, Role, key_file},
    ids::{EscrowKeyHash, OpeningHash, Seq, SpkiPin},
    mls::{
        EscrowPolicy, PolicyCertificate,
        policy::{PolicyMode, PolicyNotice},
    },
    secret::Random,
    time::Timestamp,
    wire::envelope::Envelope,
};
use chancery_server::Admin;
use tokio::time::{sleep, timeout};

use crate::{
    Common, Outcome,
    child::{PATIENCE, Relay, command},
    deployment::{found, seeded, ticket},
    disk::installed,
    progress,
    rounds::strace,
    say, store,
};

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Kills between two openings of the archive.
const LOOK_INTO_EVERY: u64 = 10;
/// How long nothing comes any more when all has come.
const REST: Duration = Duration::from_secs(2);
/// Numbers of texts that are said while a node is about to end within an fsync.
const BEHIND_ALL: u64 = 1_000;
const NOTICE: &str = "What is said here is archived.";

/// Plays all rounds; each is one kill, drawn from its seed.
pub(crate) async fn run(common: &Common) -> Outcome<()> {
    let dir = common.dir.join(format!("chancery-faults-{}-archive-{}", std::process::id(), common.seed));
    std::fs::create_dir_all(&dir)?;
    let began = Instant::now();
    let mut stage = Stage::open(&dir, common.relay.as_deref()).await?;
    let (mut checked, mut kills) = (Checked::default(), 0);
    for seed in common.seed..common.seed.saturating_add(common.rounds) {
        let round = seed - common.seed + 1;
        let (story, killed) = stage.round(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
        kills += killed;
        progress(&format!("round {round} of {}, seed {seed}: {story}", common.rounds));
        if round.is_multiple_of(LOOK_INTO_EVERY) || round == common.rounds {
            checked =
                stage.check().await.map_err(|error| format!("seed {seed}: {error}; files in {}", dir.display()))?;
            progress(&format!("the archive so far: {checked}"));
        }
    }
    stage.close().await?;
    let (last, took) = (common.seed + common.rounds.saturating_sub(1), began.elapsed().as_secs());
    say(&format!("archive: seeds {} to {last}, {kills} kills: {checked}; {took} s", common.seed));
    Ok(std::fs::remove_dir_all(&dir)?)
}

/// What the opened archive holds.
#[derive(Debug, Default)]
struct Checked {
    entries: usize,
    texts: usize,
    segments: usize,
}

impl core::fmt::Display for Checked {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { entries, texts, segments } = self;
        write!(f, "{entries} entries, each archived once, {texts} texts among them, in {segments} segments")
    }
}

struct Stage {
    dir: PathBuf,
    config: PathBuf,
    program: Option<PathBuf>,
    relay: Relay,
    node: Option<Process>,
    people: Vec<Client>,
    group: GroupId,
    sent: BTreeMap<MessageId, String>,
    key: ArchiveKey,
    shares: Vec<KeyShare>,
}

/// A node that serves, or is about to.
struct Process {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(dir: &Path) -> Outcome<Self> {
        Self::behind(&[], dir)
    }

    /// Behind a wrapper such as strace.
    fn behind(wrapper: &[OsString], dir: &Path) -> Outcome<Self> {
        let words = ["escrow", "--", "serve", "--json", "--listen", "127.0.0.1:0", "--dir"].map(OsString::from);
        let arguments: Vec<OsString> = words.into_iter().chain([node_dir(dir).into_os_string()]).collect();
        let mut child = command(wrapper, &std::env::current_exe()?, &arguments, &dir.join("node.log"))?.spawn()?;
        let out = child.stdout.take().map(BufReader::new);
        Ok(Self { child, out })
    }

    fn until_serving(&mut self) -> Outcome<()> {
        let mut line = String::new();
        self.out.as_mut().ok_or("no pipe")?.read_line(&mut line)?;
        if line.contains("listening") { Ok(()) } else { Err(format!("the node does not serve: {line:?}").into()) }
    }

    fn has_ended(&mut self) -> Outcome<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    fn kill(&mut self) -> Outcome<()> {
        if let Some(status) = self.child.try_wait()? {
            return Err(format!("broken: the node ended by itself ({status})").into());
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// As its operator stops it.
    fn stop(&mut self) -> Outcome<()> {
        let told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        let status = self.child.wait()?;
        if told.success() && status.success() {
            Ok(())
        } else {
            Err(format!("broken: the node ends with {status}").into())
        }
    }
}

fn node_dir(dir: &Path) -> PathBuf {
    dir.join("node")
}

/// One command of the node that ends by itself, and what it prints.
fn node_command(dir: &Path, words: &[&str], input: &str) -> Outcome<String> {
    let words = ["escrow", "--"].iter().chain(words).map(OsString::from);
    let arguments: Vec<OsString> = words.chain([node_dir(dir).into_os_string()]).collect();
    let mut child = command(&[], &std::env::current_exe()?, &arguments, &dir.join("node.log"))?.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        writeln!(stdin, "{input}")?;
    }
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => Err(format!("chancery-escrow {words:?} ends with {}", output.status, words = arguments).into()),
    }
}

impl Stage {
    async fn open(dir: &Path, program: Option<&Path>) -> Outcome<Self> {
        let config = found(&dir.join("deployment"))?;
        let relay = Relay::start(&[], program, &config, &dir.join("relay.log"))?;
        let admitted = Admin::open(&chancery_server::Config::load(&config)?)?
            .add_account_with(&"archive".parse()?, Role::Escrow, None)?
            .to_string();
        let enrolled = node_command(dir, &["enrol", "--json", "--dir"], &admitted)?;
        let escrow_key = enrolled.split('"').skip_while(|word| *word != "key").nth(2).ok_or("no escrow key")?;
        let (key, shares) = deal(1, 2, 3, &mut seeded(b"archive key", 1))?;
        let policy = policy(&config, escrow_key.parse()?, &key)?;
        let mut node = Process::start(dir)?;
        node.until_serving()?;
        let mut people = Vec::new();
        for name in ["ana", "李雷"] {
            people.push(person(&dir.join(name), &ticket(&config, name)?).await?);
        }
        let [ana, li] = people.as_slice() else { return Err("two people".into()) };
        let group = ana.create_escrowed_group("desk", &policy).await?;
        acknowledge(ana, group).await?;
        ana.invite(group, li.identity().ok_or("not enrolled")?.account).await?;
        acknowledge(li, group).await?;
        let sent = BTreeMap::new();
        let program = program.map(Path::to_owned);
        Ok(Self { dir: dir.to_owned(), config, program, relay, node: Some(node), people, group, sent, key, shares })
    }

    /// Texts, a kill at some moment among them, texts while nobody archives, and the node again; sometimes killed while it
    /// begins.
    async fn round(&mut self, seed: u64) -> Outcome<(String, u64)> {
        let mut random = seeded(b"archive kills", seed);
        let mut below = |bound: u64| random.number() % bound;
        let (live, before, delay, away) = (below(1_500), 1 + below(6), below(120), below(4));
        // Some nodes are killed while they catch up, most while they capture what is said.
        sleep(Duration::from_millis(live)).await;
        self.talk(seed, 0, before).await?;
        sleep(Duration::from_millis(delay)).await;
        self.node.as_mut().ok_or("no node")?.kill()?;
        self.talk(seed, before, away).await?;
        let mut story =
            format!("{live} ms of life, killed {delay} ms after {before} texts, {away} more while it was away");
        let mut kills = 1;
        if below(3) == 0 {
            kills += 1;
            let begun = below(400);
            let mut node = Process::start(&self.dir)?;
            sleep(Duration::from_millis(begun)).await;
            node.kill()?;
            story.push_str(&format!(", killed again {begun} ms after it was started"));
        }
        if below(3) == 0 && installed("strace") {
            kills += 1;
            let nth = 4 + below(16);
            self.killed_in_fsync(seed, nth).await?;
            story.push_str(&format!(", killed within its fsync {nth}"));
        }
        let mut node = Process::start(&self.dir)?;
        node.until_serving()?;
        self.node = Some(node);
        Ok((story, kills))
    }

    /// Another life of the node, which ends within one of its fsyncs: people talk until it has come to it.
    async fn killed_in_fsync(&mut self, seed: u64, nth: u64) -> Outcome<()> {
        let inject = format!("signal=SIGKILL:when={nth}");
        let mut node = Process::behind(&strace(&self.dir.join("strace.log"), &inject, None), &self.dir)?;
        let give_up = Instant::now() + PATIENCE;
        for number in BEHIND_ALL.. {
            if node.has_ended()? {
                return Ok(());
            }
            if Instant::now() > give_up {
                break;
            }
            self.talk(seed, number, 1).await?;
            sleep(LOOK_EVERY).await;
        }
        Err("the node does not come to its fsync".into())
    }

    async fn talk(&mut self, seed: u64, from: u64, count: u64) -> Outcome<()> {
        for number in from..from + count {
            let text = format!("{seed} {number} 你好");
            let speaker = usize::try_from(number)? % self.people.len();
            let client = self.people.get(speaker).ok_or("nobody speaks")?;
            self.sent.insert(client.send(self.group, &text).await?, text);
        }
        Ok(())
    }

    /// Where the group's log ends, by the relay's own rows: of a relay that was killed, and is started again.
    fn head(&mut self) -> Outcome<Seq> {
        self.relay.kill()?;
        let kept = store::read(&chancery_server::Config::load(&self.config)?.relay_database());
        self.relay = Relay::start(&[], self.program.as_deref(), &self.config, &self.dir.join("relay.log"))?;
        Ok(kept?.logs.get(&self.group).ok_or("the relay has lost the group")?.head.seq)
    }

    /// Everything is read and archived; then the archive is opened by two of three seats and compared.
    async fn check(&mut self) -> Outcome<Checked> {
        let mut said = Seq(0);
        for client in &self.people {
            client.flush().await?;
            let newest = client.history(self.group, None, 1).await?;
            said = newest.into_iter().map(|message| message.seq).fold(said, Seq::max);
        }
        self.node.take().ok_or("no node")?.stop()?;
        // The same node in this process: what a process of its own has stored is what it goes on from.
        let node = Node::open(&node_dir(&self.dir)).await?;
        let place = timeout(PATIENCE, self.at_rest(&node, said)).await;
        let place = place.map_err(|_| "broken: the node does not catch up")??;
        let head = self.head()?;
        let checked = match place == head {
            true => self.compare(&node, head).await,
            false => Err(format!("broken: the node is at {place}, the log at {head}").into()),
        };
        node.shutdown().await?;
        let mut again = Process::start(&self.dir)?;
        again.until_serving()?;
        self.node = Some(again);
        checked
    }

    /// Waits until the node has archived this place, and nothing comes any more: it renews its leaf when it begins, and that
    /// is an entry, too.
    async fn at_rest(&self, node: &Node, said: Seq) -> Outcome<Seq> {
        let (mut last, mut since) = (Seq(0), Instant::now());
        loop {
            let place = node.groups().await?.into_iter().find(|(group, _)| *group == self.group);
            let (_, place) = place.ok_or("broken: the node has lost the group")?;
            if place.stopped.is_some() {
                return Err("broken: the node is stuck".into());
            }
            if place.head.seq != last {
                (last, since) = (place.head.seq, Instant::now());
            }
            if last >= said && since.elapsed() > REST {
                return Ok(last);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn compare(&self, node: &Node, head: Seq) -> Outcome<Checked> {
        let (mut places, mut texts, mut segments) = (Vec::new(), BTreeMap::new(), 0);
        for (id, segment) in node.segments().await? {
            segments += 1;
            let header = node.header(&segment)?;
            let opening = Opening { request: OpeningHash([6; 32]), log_index: 0 };
            let random = &mut Random::new([7; 32]);
            let parts: Result<Vec<_>, _> =
                self.shares.iter().skip(1).map(|share| share.decrypt(&header, opening, random)).collect();
            let scope_key = combine(&self.key, &header, opening, &parts?)?.key;
            for sealed in node.records(id).await? {
                let plain = SealedRecord::from_bytes(&sealed)?.open(&scope_key, &header)?;
                let record = Record::from_bytes(&plain)?;
                match &record.body {
                    RecordBody::Members(_) => continue,
                    RecordBody::Gap { .. } => return Err(format!("broken: a gap at {}", record.seq).into()),
                    RecordBody::Message { envelope, .. } => {
                        let envelope = Envelope::from_bytes(envelope)?;
                        if let chancery_client::Body::Text(text) = envelope.body {
                            texts.insert(envelope.id, text);
                        }
                    }
                    _ => {}
                }
                places.push(record.seq);
            }
        }
        places.sort();
        // The first entry is the commit that has brought the node in: the list of members stands for it.
        let dense: Vec<Seq> = (2..=head.0).map(Seq).collect();
        if places != dense {
            let wrong = dense.iter().filter(|seq| places.iter().filter(|place| place == seq).count() != 1);
            return Err(format!("broken: not archived exactly once: {:?}", wrong.collect::<Vec<_>>()).into());
        }
        if texts != self.sent {
            return Err(format!("broken: {} texts were accepted, {} are archived", self.sent.len(), texts.len()).into());
        }
        Ok(Checked { entries: places.len(), texts: texts.len(), segments })
    }

    async fn close(mut self) -> Outcome<()> {
        self.node.take().ok_or("no node")?.stop()?;
        for client in self.people {
            client.shutdown().await?;
        }
        self.relay.kill()
    }
}

async fn person(dir: &Path, ticket: &str) -> Outcome<Client> {
    std::fs::create_dir_all(dir)?;
    let mut config = Config::new(dir);
    // The relay is killed now and then: nobody shall wait for it longer than needed.
    config.probe_after = Duration::from_millis(500);
    config.backoff_max = Duration::from_millis(500);
    let client = Client::open(config, FileKey::create_or_open(dir.join("host.key"))?).await?;
    client.enroll(ticket).await?;
    client.flush().await?;
    Ok(client)
}

fn notice() -> PolicyNotice {
    PolicyNotice { language: "en".to_owned(), text: NOTICE.to_owned() }
}

/// Once the group is there.
async fn acknowledge(client: &Client, group: GroupId) -> Outcome<()> {
    let acknowledged = async {
        loop {
            match client.acknowledge(group, notice().hash()).await {
                Err(Error::UnknownGroup | Error::NotAllowed(_)) => sleep(LOOK_EVERY).await,
                outcome => return outcome,
            }
        }
    };
    timeout(PATIENCE, acknowledged).await.map_err(|_| "the group does not come")??;
    Ok(client.flush().await?)
}

fn policy(config: &Path, escrow_key: EscrowKeyHash, key: &ArchiveKey) -> Outcome<String> {
    let offline = config.parent().ok_or("no folder")?.join("offline");
    let read = |name: &str| std::fs::read_to_string(offline.join(name));
    let seed = key_file::parse(&read("policy.key")?, "policy").ok_or("no policy key")?;
    let certificate: PolicyCertificate = read("policy.cert")?.trim().parse()?;
    let policy = EscrowPolicy {
        layout: 1,
        id: "desk".to_owned(),
        version: 1,
        previous: None,
        tenant: certificate.root(),
        effective_from: Timestamp(0),
        document_hash: [3; 32],
        document_url: "https://example.org/policy".to_owned(),
        purpose: "Records of the desk.".to_owned(),
        retention_class: "seven-years".to_owned(),
        mode: PolicyMode::BestEffort,
        escrow: "archive".parse()?,
        escrow_key,
        archive_key: key.public().to_bytes(),
        archive_generation: 1,
        quorum: 2,
        seats: 3,
        seats_hash: [4; 32],
        // Nobody listens there: what is archived is read in the node's folder.
        log_key: [0x0c; 32],
        endpoint: "127.0.0.1:9".parse()?,
        endpoint_pin: SpkiPin([0x0e; 32]),
        notices: vec![notice()],
    };
    let signed = policy.sign(&DeviceKey::from_seed(seed)?, &certificate)?;
    Admin::open(&chancery_server::Config::load(config)?)?.publish_policy(&signed)?;
    Ok(signed.to_string())
}
