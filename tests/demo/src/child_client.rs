//! One person's process: a client on the public SDK, told by the controller what to do.
//!
//! This module decides nothing. What the SDK tells it goes into the book first, is acknowledged second, and reaches the
//! controller third, so that a kill at any point loses nothing and doubles nothing.

use std::{
    future::{Future, poll_fn},
    io::{self, BufRead, Write, stdin, stdout},
    path::{Path, PathBuf},
    task::Poll,
    thread,
    time::Duration,
};

use chancery_client::{
    ArchiveReceipt, Body, Client, Config, ConnectionState, DeviceId, Event, EventId, FileKey, GroupId, GroupStatus,
    HostEvent, Message, MessageId, OfflineReason, Role,
};
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};

use crate::{
    receipts::{Book, Fingerprint, Happened, Receipt},
    talk::{Answer, GroupReport, Order, Told, What},
};

const EVENTS_PER_BATCH: usize = 512;
/// Messages of a history that are looked through.
const HISTORY: usize = 100_000;
/// How long a node that was killed is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_millis(200);
const ADD_ATTEMPTS: usize = 50;
/// A relay on this machine comes back within a second; a long pause would only make the demo slow.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// What the process is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Folder of this person.
    pub home: PathBuf,
    /// Receipts that the controller has already.
    #[arg(long, default_value_t = 0)]
    pub after: u64,
}

/// Why the process ended.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The SDK failed.
    #[error("{0}")]
    Client(#[from] chancery_client::Error),
    /// No key for the state.
    #[error("{0}")]
    Key(#[from] chancery_client::KeyUnavailable),
    /// The book cannot be kept, or nobody listens.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Runs until the controller says stop or goes away.
///
/// # Errors
/// The state cannot be opened, or the book cannot be kept.
pub async fn run(arguments: Arguments) -> Result<(), ChildError> {
    let home: &Path = &arguments.home;
    std::fs::create_dir_all(home)?;
    let (book, written) = Book::open(&home.join("receipts.jsonl"))?;
    let mut config = Config::new(home.join("state"));
    // The relay is killed midway: a person at a terminal shall not wait for the default's patience.
    config.probe_after = Duration::from_secs(1);
    config.backoff_max = BACKOFF_MAX;
    config.connect_timeout = CONNECT_TIMEOUT;
    let key = FileKey::create_or_open(home.join("host.key"))?;
    let client = Client::open(config, key).await?;
    let mouth = Mouth;
    mouth.tell(&Told::Ready { account: client.identity().map(|identity| identity.account) })?;
    for (number, receipt) in (0..).zip(written).skip_while(|(number, _)| *number < arguments.after) {
        mouth.tell(&Told::Receipt { number, receipt })?;
    }
    let pump = tokio::spawn(keep_book(client.clone(), book, mouth));
    obey(client, pump, mouth).await
}

/// Carries out orders. Texts go to the SDK in the order in which they come; everything else runs side by side.
async fn obey(client: Client, pump: JoinHandle<Result<(), ChildError>>, mouth: Mouth) -> Result<(), ChildError> {
    let mut orders = listen();
    while let Some(Order { id, order }) = orders.recv().await {
        if matches!(order, What::Stop) {
            client.shutdown().await?;
            // The pump ends with the client; what it has read is in the book and comes out before the answer.
            if let Ok(ended) = pump.await {
                ended?;
            }
            return mouth.tell(&Told::Done { id, answer: Answer::Done }).map_err(ChildError::from);
        }
        let client = client.clone();
        let mut work = Box::pin(async move {
            let told = match carry_out(&client, order).await {
                Ok(answer) => Told::Done { id, answer },
                Err(error) => Told::Failed { id, reason: format!("{error} ({})", error.code()) },
            };
            // If nobody listens, the controller is gone, and so is the reason to live: the next order will not come.
            drop(mouth.tell(&told));
        });
        // The first poll gives the order to the SDK, so that texts keep their order; the rest may take its time.
        if poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await.is_pending() {
            tokio::spawn(work);
        }
    }
    Ok(())
}

async fn carry_out(client: &Client, order: What) -> Result<Answer, chancery_client::Error> {
    loop {
        // A call that failed has changed nothing, so it may be made again.
        match once(client, &order).await {
            Err(error) if error.is_retryable() => sleep(RETRY_AFTER).await,
            outcome => return outcome,
        }
    }
}

async fn once(client: &Client, order: &What) -> Result<Answer, chancery_client::Error> {
    Ok(match order {
        What::Enroll { ticket, at: None } => Answer::Account(client.enroll(ticket).await?.account),
        What::Enroll { ticket, at: Some(at) } => {
            let account = client.enroll_at(ticket, at.as_bytes()).await?.account;
            let_in(client).await;
            Answer::Account(account)
        }
        What::Create { name, policy: Some(policy), .. } => {
            Answer::Group(client.create_escrowed_group(name, policy).await?)
        }
        What::Create { class, name, policy: None } => Answer::Group(client.create_group(*class, name).await?),
        What::Pin { organisation } => {
            client.add_partner(organisation.as_bytes()).await?;
            Answer::Done
        }
        What::Acknowledge { group } => Answer::Badge(acknowledge(client, *group).await?),
        What::Invite { group, account } => {
            client.invite(*group, *account).await?;
            Answer::Done
        }
        What::Leave { group } => {
            client.leave(*group).await?;
            Answer::Done
        }
        What::Send { group, text } => Answer::Message(client.send(*group, text).await?),
        What::LinkCode => Answer::Code(client.link_code().await?.code),
        What::Device => Answer::Device(client.identity().ok_or(chancery_client::Error::NotEnrolled)?.device),
        What::AddDevice { device } => {
            add_device(client, *device).await?;
            Answer::Done
        }
        What::AwaitCut => Answer::Cut(refusal(client).await),
        What::GoOn { group, text } => {
            client.resume().await;
            refusal(client).await;
            match client.send(*group, text).await {
                Ok(id) => Answer::Message(id),
                // It has seen that it was put out, before it was cut off.
                Err(chancery_client::Error::NotAllowed(_)) => Answer::Done,
                Err(error) => return Err(error),
            }
        }
        What::Receipt { group, id } => Answer::Receipt(is_archived(client, *group, *id).await?),
        What::Flush => {
            client.flush().await?;
            Answer::Done
        }
        What::Groups => {
            let report = |group: chancery_client::GroupSummary| GroupReport {
                group: group.group,
                epoch: group.epoch,
                active: group.status == GroupStatus::Active,
                waiting: group.waiting,
            };
            Answer::Groups(client.groups().await?.into_iter().map(report).collect())
        }
        What::Stop => Answer::Done,
    })
}

/// A running relay notices within a second whom its operator lets in.
async fn let_in(client: &Client) {
    while client.connection() != ConnectionState::Online {
        client.resume().await;
        sleep(RETRY_AFTER).await;
    }
}

/// As a person does who opens an archived group: sees who listens, tries to speak, reads the notice, says so.
async fn acknowledge(client: &Client, group: GroupId) -> Result<String, chancery_client::Error> {
    let broken = |what: &str| chancery_client::Error::Internal(what.to_owned());
    let listens = client.members(group).await?.iter().filter(|member| member.role == Role::Escrow).count();
    if listens != 1 {
        return Err(broken("an escrowed group does not show exactly one escrow member"));
    }
    let summary = client.policy(group).await?;
    let policy = summary.policy;
    if summary.notice_due {
        if client.send(group, "before the notice is acknowledged").await.is_ok() {
            return Err(broken("a text was taken before the notice was acknowledged"));
        }
        let notice = policy.notices.first().ok_or_else(|| broken("a policy without a notice"))?;
        client.acknowledge(group, notice.hash()).await?;
    }
    client.flush().await?;
    let notice = policy.notices.first().map(|notice| notice.text.clone()).unwrap_or_default();
    let (id, version, quorum, seats) = (policy.id, policy.version, policy.quorum, policy.seats);
    Ok(format!("archived under {id} {version}, opened by any {quorum} of {seats} seats; notice: {notice:?}"))
}

/// Whether the escrow node proves that a message of the history is in the archive.
async fn is_archived(client: &Client, group: GroupId, id: MessageId) -> Result<bool, chancery_client::Error> {
    let history = client.history(group, None, HISTORY).await?;
    match history.iter().find(|message| message.id == id) {
        Some(message) => Ok(matches!(client.archive_receipt(message).await?, ArchiveReceipt::Archived { .. })),
        None => Ok(false),
    }
}

/// Personal accounts are in no directory: there is nobody whom one would have to tell.
async fn add_device(client: &Client, device: DeviceId) -> Result<(), chancery_client::Error> {
    if client.directory().await?.is_some() {
        client.acknowledge_device(device).await?;
    }
    // The directory, as this client has read it, may be a moment behind the registrar.
    for _ in 1..ADD_ATTEMPTS {
        match client.add_own_devices().await {
            Err(chancery_client::Error::NotAllowed(_)) => sleep(RETRY_AFTER).await,
            outcome => return outcome.map(|_| ()),
        }
    }
    client.add_own_devices().await.map(|_| ())
}

/// Why the relay does not let this device in, once it does not.
async fn refusal(client: &Client) -> String {
    loop {
        let state = client.connection();
        if let ConnectionState::Offline { why: OfflineReason::Refused(refusal) } = &state {
            return refusal.to_string();
        }
        client.connection_changed(&state).await;
    }
}

async fn keep_book(client: Client, mut book: Book, mouth: Mouth) -> Result<(), ChildError> {
    let mut cursor = EventId(0);
    loop {
        let batch = match client.next_events(EVENTS_PER_BATCH, cursor).await {
            Ok(batch) => batch,
            Err(chancery_client::Error::Stopped) => return Ok(()),
            Err(error) => return Err(fatal(error.into())),
        };
        let receipts = batch.events.iter().filter_map(receipt).collect();
        let fresh = book.write(receipts).map_err(|error| fatal(error.into()))?;
        match client.ack(batch.cursor).await {
            Ok(()) | Err(chancery_client::Error::Stopped) => {}
            Err(error) => return Err(fatal(error.into())),
        }
        for (number, receipt) in fresh {
            mouth.tell(&Told::Receipt { number, receipt }).map_err(|error| fatal(error.into()))?;
        }
        cursor = batch.cursor;
    }
}

/// Without its book a client is of no use: the controller must see that it is gone.
fn fatal(error: ChildError) -> ChildError {
    eprintln!("the book cannot be kept: {error}");
    std::process::exit(1)
}

fn receipt(event: &HostEvent) -> Option<Receipt> {
    let what = match event {
        HostEvent::Message { message, .. } => of_message(message)?,
        HostEvent::Other { event, .. } => of_event(event)?,
        _ => return None,
    };
    Some(Receipt { event: event.id().0, what })
}

fn of_message(message: &Message) -> Option<Happened> {
    let (group, id) = (message.group, message.id);
    let Body::Text(text) = &message.body else { return None };
    if message.own {
        return Some(Happened::Sent { group, id });
    }
    let (from, seq, continuous) = (message.account, message.seq, message.continuous);
    Some(Happened::Received { group, id, from, text: Fingerprint::of(text), seq, continuous })
}

fn of_event(event: &Event) -> Option<Happened> {
    match event {
        Event::Joined { group, name, .. } => Some(Happened::Joined { group: *group, name: Fingerprint::of(name) }),
        Event::Left { group } => Some(Happened::Out { group: *group, by_choice: true }),
        Event::Removed { group } => Some(Happened::Out { group: *group, by_choice: false }),
        Event::MemberRemoved { group, account, .. } => Some(Happened::MemberOut { group: *group, account: *account }),
        Event::Skipped { group, reason, .. } => Some(Happened::Skipped { group: *group, reason: reason.clone() }),
        Event::Alarm { reason, .. } | Event::InvitationRefused { reason } => {
            Some(Happened::Alarm { reason: reason.clone() })
        }
        Event::DirectorySplit { .. } => Some(Happened::Alarm { reason: "the directory has two histories".to_owned() }),
        Event::UnknownOwnDevice { device, .. } => {
            Some(Happened::Alarm { reason: format!("the account has a device that it does not know: {device}") })
        }
        _ => None,
    }
}

/// Orders, read on a thread of its own: a read of standard input cannot be called off.
fn listen() -> mpsc::UnboundedReceiver<Order> {
    let (orders, taken) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in stdin().lock().lines() {
            let Ok(line) = line else { return };
            match serde_json::from_str(&line) {
                Err(error) => eprintln!("not an order: {error}"),
                Ok(order) => {
                    if orders.send(order).is_err() {
                        return;
                    }
                }
            }
        }
    });
    taken
}

/// Standard output, line by line; whole lines, whoever writes.
#[derive(Clone, Copy, Default)]
struct Mouth;

impl Mouth {
    fn tell(self, told: &Told) -> io::Result<()> {
        let mut line = serde_json::to_vec(told)?;
        line.push(b'\n');
        let mut out = stdout().lock();
        out.write_all(&line)?;
        out.flush()
    }
}
