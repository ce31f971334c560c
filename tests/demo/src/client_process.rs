//! A client process as the controller holds it: start, order, kill, start again, stop.
//!
//! This module does not decide when. A kill waits until no change of a group is under way and every text that was
//! ordered is safe in the outbox, so that nobody has to guess what a dead process had promised; messages on their way to
//! and from the relay are what the kill hits.

use std::{
    collections::HashMap,
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chancery_protocol::ids::{AccountId, GroupId, MessageId};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{OwnedRwLockReadGuard, RwLock, mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    ledger::Ledger,
    plan::Person,
    talk::{Answer, Order, Told, What},
};

/// How long a process may take to open its state, or to close it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum ClientFault {
    /// It said so.
    #[error("{who}: {reason}")]
    Refused {
        /// Who.
        who: String,
        /// In the SDK's words.
        reason: String,
    },
    /// Its process is gone.
    #[error("the process of {who} ended by itself: its output is in {log}")]
    Gone {
        /// Who.
        who: String,
        /// Where its standard error is.
        log: PathBuf,
    },
    /// It does not answer.
    #[error("the process of {who} did not {what} within {} s: its output is in {log}", PATIENCE.as_secs())]
    Silent {
        /// Who.
        who: String,
        /// What it should have done.
        what: &'static str,
        /// Where its standard error is.
        log: PathBuf,
    },
    /// It said something else.
    #[error("{who}: an answer that does not fit the order")]
    Confused {
        /// Who.
        who: String,
    },
    /// The operating system refuses.
    #[error("the process of {who} cannot be started: {error}")]
    Spawn {
        /// Who.
        who: String,
        /// Why.
        error: io::Error,
    },
}

/// One identity's process.
#[derive(Debug)]
pub struct ClientProcess {
    person: Arc<Person>,
    home: PathBuf,
    log: PathBuf,
    ledger: Ledger,
    /// Held for reading while the process decides on a change of a group.
    changes: Arc<RwLock<()>>,
    /// Held for reading while a text is on its way into the outbox.
    sends: Arc<RwLock<()>>,
    line: Arc<Mutex<Line>>,
    life: tokio::sync::Mutex<Option<Life>>,
}

#[derive(Debug)]
struct Life {
    child: Child,
    reader: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Line {
    to_child: Option<mpsc::UnboundedSender<Vec<u8>>>,
    waiting: HashMap<u64, oneshot::Sender<Result<Answer, String>>>,
    ready: Option<oneshot::Sender<Option<AccountId>>>,
    orders: u64,
    receipts: u64,
    /// The controller itself ends the process.
    ending: bool,
}

/// A text that a client was told to send.
#[derive(Debug)]
pub struct Sending {
    client: Arc<ClientProcess>,
    answer: oneshot::Receiver<Result<Answer, String>>,
    _guard: OwnedRwLockReadGuard<()>,
}

impl Sending {
    /// Its id, when it is safe in the outbox.
    ///
    /// # Errors
    /// The client refuses or is gone.
    pub async fn id(self) -> Result<MessageId, ClientFault> {
        match self.client.answered(self.answer).await? {
            Answer::Message(id) => Ok(id),
            _ => Err(self.client.confused()),
        }
    }
}

impl ClientProcess {
    /// Starts a process with its folder below `people`, its standard error below `logs`.
    ///
    /// # Errors
    /// It cannot be started, or does not open its state.
    pub async fn start(
        person: &Arc<Person>,
        people: &Path,
        logs: &Path,
        ledger: &Ledger,
    ) -> Result<Arc<Self>, ClientFault> {
        let name = format!("client-{}", person.index);
        let process = Self {
            person: Arc::clone(person),
            home: people.join(&name),
            log: logs.join(format!("{name}.log")),
            ledger: ledger.clone(),
            changes: Arc::default(),
            sends: Arc::default(),
            line: Arc::default(),
            life: tokio::sync::Mutex::default(),
        };
        process.spawn().await?;
        Ok(Arc::new(process))
    }

    /// Whose it is.
    #[must_use]
    pub fn person(&self) -> &Arc<Person> {
        &self.person
    }

    /// Redeems a ticket; `at` is what the organisation says of itself whose relay is another than the ticket's.
    ///
    /// # Errors
    /// The client refuses or is gone.
    pub async fn enroll(&self, ticket: String, at: Option<String>) -> Result<AccountId, ClientFault> {
        match self.change(What::Enroll { ticket, at }).await? {
            Answer::Account(account) => Ok(account),
            _ => Err(self.confused()),
        }
    }

    /// Changes a group or the identity. A kill waits for it.
    ///
    /// # Errors
    /// The client refuses or is gone.
    pub async fn change(&self, what: What) -> Result<Answer, ClientFault> {
        let _guard = self.changes.read().await;
        self.ask(what).await
    }

    /// Asks something that may be cut off and asked again.
    ///
    /// # Errors
    /// The client refuses or is gone.
    pub async fn ask(&self, what: What) -> Result<Answer, ClientFault> {
        let answer = self.order(what);
        self.answered(answer).await
    }

    /// Gives a text to the client; it is in line when this returns, and safe when [`Sending::id`] does.
    pub async fn send(self: &Arc<Self>, group: GroupId, text: String) -> Sending {
        let guard = Arc::clone(&self.sends).read_owned().await;
        Sending { client: Arc::clone(self), answer: self.order(What::Send { group, text }), _guard: guard }
    }

    /// Kills the process while messages are on their way, and starts it again after a pause.
    ///
    /// # Errors
    /// It does not come back.
    pub async fn crash(&self, pause: Duration) -> Result<(), ClientFault> {
        let _changes = self.changes.write().await;
        let _sends = self.sends.write().await;
        self.kill().await;
        tokio::time::sleep(pause).await;
        self.spawn().await
    }

    /// Lets the client close its state and end.
    ///
    /// # Errors
    /// It does not.
    pub async fn stop(&self) -> Result<(), ClientFault> {
        self.line().ending = true;
        let stopped = self.ask(What::Stop).await.map(|_| ());
        let Some(mut life) = self.life.lock().await.take() else { return stopped };
        self.line().to_child = None;
        match timeout(PATIENCE, life.child.wait()).await {
            Ok(Ok(status)) if status.success() => {
                // What the process wrote last is in the pipe, and counts.
                let _ = life.reader.await;
                stopped
            }
            Ok(_) => stopped.and(Err(self.gone())),
            Err(_) => Err(self.silent("stop")),
        }
    }

    async fn kill(&self) {
        let Some(mut life) = self.life.lock().await.take() else { return };
        self.line().ending = true;
        // An error means that the process is gone already, which the reader reports.
        let _ = life.child.kill().await;
        // What the process wrote before it died is in the pipe, and counts.
        let _ = life.reader.await;
    }

    async fn spawn(&self) -> Result<(), ClientFault> {
        let failed = |error| ClientFault::Spawn { who: self.person.label(), error };
        let log = OpenOptions::new().create(true).append(true).open(&self.log).map_err(failed)?;
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .arg("client")
            .arg(&self.home)
            .arg("--after")
            .arg(self.line().receipts.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(io::Error::other("no pipes")));
        };
        let (to_child, orders) = mpsc::unbounded_channel();
        let (ready, opened) = oneshot::channel();
        {
            let mut line = self.line();
            line.to_child = Some(to_child);
            line.ready = Some(ready);
            line.ending = false;
        }
        tokio::spawn(write_orders(stdin, orders));
        let reader = tokio::spawn(read_told(stdout, Reader::new(self)));
        *self.life.lock().await = Some(Life { child, reader });
        match timeout(PATIENCE, opened).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(self.gone()),
            Err(_) => Err(self.silent("open its state")),
        }
    }

    fn order(&self, order: What) -> oneshot::Receiver<Result<Answer, String>> {
        let (answer, answered) = oneshot::channel();
        let mut line = self.line();
        line.orders += 1;
        let id = line.orders;
        // Nothing in an order can fail to be written as JSON; if it did, the channel would close and say "gone".
        if let (Ok(mut bytes), Some(to_child)) = (serde_json::to_vec(&Order { id, order }), &line.to_child) {
            bytes.push(b'\n');
            if to_child.send(bytes).is_ok() {
                line.waiting.insert(id, answer);
            }
        }
        answered
    }

    async fn answered(&self, answer: oneshot::Receiver<Result<Answer, String>>) -> Result<Answer, ClientFault> {
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(reason)) => Err(ClientFault::Refused { who: self.person.label(), reason }),
            Err(_) => Err(self.gone()),
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        lock(&self.line)
    }

    fn gone(&self) -> ClientFault {
        ClientFault::Gone { who: self.person.label(), log: self.log.clone() }
    }

    fn silent(&self, what: &'static str) -> ClientFault {
        ClientFault::Silent { who: self.person.label(), what, log: self.log.clone() }
    }

    fn confused(&self) -> ClientFault {
        ClientFault::Confused { who: self.person.label() }
    }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write_orders(mut stdin: ChildStdin, mut orders: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(order) = orders.recv().await {
        if stdin.write_all(&order).await.is_err() {
            return;
        }
    }
}

/// What the reading task needs of a process; not the process itself, which owns the task.
struct Reader {
    person: Arc<Person>,
    ledger: Ledger,
    line: Arc<Mutex<Line>>,
    gone: ClientFault,
}

impl Reader {
    fn new(process: &ClientProcess) -> Self {
        Self {
            person: Arc::clone(&process.person),
            ledger: process.ledger.clone(),
            line: Arc::clone(&process.line),
            gone: process.gone(),
        }
    }

    fn told(&self, told: Told) {
        match told {
            Told::Ready { account } => {
                let ready = lock(&self.line).ready.take();
                // The other end has gone away if the start was given up.
                let _ = ready.map(|ready| ready.send(account));
            }
            Told::Done { id, answer } => self.answer(id, Ok(answer)),
            Told::Failed { id, reason } => self.answer(id, Err(reason)),
            Told::Receipt { number, receipt } => {
                let mut line = lock(&self.line);
                let expected = line.receipts;
                line.receipts = expected.max(number + 1);
                drop(line);
                if number == expected {
                    self.ledger.receipt(&self.person, receipt.what);
                } else if number > expected {
                    self.ledger.broken(format!("the book of {} skips an entry", self.person.label()));
                }
            }
        }
    }

    fn answer(&self, id: u64, answer: Result<Answer, String>) {
        self.ledger.moved();
        let waiting = lock(&self.line).waiting.remove(&id);
        // Nobody waits any more if the demo has given up.
        let _ = waiting.map(|waiting| waiting.send(answer));
    }
}

async fn read_told(stdout: ChildStdout, reader: Reader) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(told) => reader.told(told),
            Err(error) => reader.ledger.broken(format!("{} says {line:?}: {error}", reader.person.label())),
        }
    }
    let mut line = lock(&reader.line);
    line.waiting.clear();
    line.ready = None;
    line.to_child = None;
    let ending = line.ending;
    drop(line);
    if !ending {
        reader.ledger.over(reader.gone.to_string());
    }
}
