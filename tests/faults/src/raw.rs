//! A raw client in a process of its own: it appends entries of random kinds and lengths to groups that it shares with
//! others, reads them, and says each step before it takes it.
//!
//! As a real client does, it sends what was not answered again after a lost connection, in order, before anything new. It
//! forgets everything with its process.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use chancery_client::{Blob, GroupId, Refusal, Seq};
use chancery_protocol::{
    ids::AppendId,
    secret::{AccessToken, Random},
    wire::{
        Frame,
        relay::{Append, Appended, Bundle, Entry, EntryKind, Open, Ping, append_id},
        vector::push_vector,
    },
};
use chancery_quic::{CloseCode, Connection, FrameReader, FrameWriter, Protocol, connect};
use clap::Args;
use tokio::sync::mpsc;

use crate::{
    Outcome,
    deployment::{Access, groups, seeded},
    lines::{Order, Says, orders, say},
};

/// Appends without an answer at a time.
const WINDOW: usize = 16;
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// After a refusal for lack of space there is no hurry.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// A relay that has said nothing for so long is asked whether it is there,
const PROBE_AFTER: Duration = Duration::from_millis(500);
/// and one that does not answer is called again.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3);
/// Without anything but answers to pings for so long at the end, a subscription has stalled, which no disk excuses.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// Correlation of a question whether it is there.
const PINGS: u32 = u32::MAX;
/// Correlations from here on are of `Open`, those below are numbers of appends.
const OPENS: u32 = 1 << 31;

#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// Configuration of the relay.
    config: PathBuf,
    /// Seed of the round.
    #[arg(long)]
    seed: u64,
    /// Which raw client; number 0 founds the groups.
    #[arg(long)]
    number: u32,
    /// How often its process was started before.
    #[arg(long)]
    life: u32,
    /// How many groups there are.
    #[arg(long)]
    groups: usize,
    /// Reads and appends nothing.
    #[arg(long)]
    reader: bool,
}

/// An MLS PrivateMessage as far as a relay looks (RFC 9420, section 6.3).
fn private_message(group: GroupId, kind: EntryKind, content: &[u8]) -> Blob {
    let mut out = vec![0, 1, 0, 2];
    push_vector(&mut out, group.as_bytes());
    out.extend_from_slice(&[0; 8]);
    // Content type, empty authenticated data, empty sender data.
    out.extend_from_slice(&[if kind == EntryKind::Commit { 3 } else { 1 }, 0, 0]);
    push_vector(&mut out, content);
    Blob(out)
}

/// The token of the epoch that a commit begins: everybody who reads the commit knows it.
fn token(commit: AppendId) -> AccessToken {
    AccessToken::new(commit.0)
}

fn founding(group: GroupId) -> Append {
    let body = private_message(group, EntryKind::Commit, b"founded");
    let next_token = token(append_id(group, EntryKind::Commit, &body)).hash();
    let bundle = Some(Bundle { next_token, welcomes: Vec::new() });
    Append { group, kind: EntryKind::Commit, after: Seq(0), behind: None, body, bundle }
}

struct Group {
    id: GroupId,
    newest_commit: Seq,
    next_read: Seq,
    /// The newest entry that the relay has told of on this connection.
    end: Option<Seq>,
    last: Option<AppendId>,
}

struct Raw {
    arguments: Arguments,
    access: Access,
    random: Random,
    groups: Vec<Group>,
    last: u32,
    /// Appends that were not answered, by number.
    waiting: BTreeMap<u32, Append>,
    opens: BTreeMap<u32, usize>,
    finishing: bool,
    pause: Option<Duration>,
}

pub(crate) async fn run(arguments: Arguments) -> Outcome<()> {
    let access = Access::of(&arguments.config, arguments.number)?;
    let groups = groups(arguments.seed, arguments.groups).into_iter();
    let life = u64::from(arguments.number) << 32 | u64::from(arguments.life);
    let mut raw = Raw {
        access,
        random: seeded(b"raw", arguments.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(life)),
        groups: groups
            .map(|id| Group { id, newest_commit: Seq(0), next_read: Seq(2), end: None, last: None })
            .collect(),
        last: 0,
        waiting: BTreeMap::new(),
        opens: BTreeMap::new(),
        finishing: false,
        pause: None,
        arguments,
    };
    let mut orders = orders();
    if raw.arguments.number == 0 && raw.arguments.life == 0 {
        for index in 0..raw.groups.len() {
            raw.enter(index, founding(raw.groups.get(index).ok_or("no group")?.id));
        }
    }
    while !raw.connected(&mut orders).await {
        // Whatever it was that broke: the next connection goes on from here.
        tokio::time::sleep(RETRY_AFTER).await;
        while let Ok(Order::Finish) = orders.try_recv() {
            raw.finishing = true;
        }
    }
    Ok(())
}

impl Raw {
    /// Lives on one connection. Whether everything is done.
    async fn connected(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>) -> bool {
        let identity = Some((&self.access.chain, &self.access.key));
        let Ok(connection) = connect(&[self.access.address], self.access.pin, identity, Protocol::Relay).await else {
            return false;
        };
        let Ok((mut writer, reader)) = connection.open_control().await else { return false };
        let (frames, mut heard) = mpsc::channel(64);
        tokio::spawn(listen(reader, frames.clone()));
        tokio::spawn(listen_to_deliveries(connection.clone(), frames));
        self.opens.clear();
        if self.greet(&mut writer).await.is_err() {
            return false;
        }
        let (mut heard_at, mut told_at) = (Instant::now(), Instant::now());
        loop {
            if self.work(&mut writer).await.is_err() {
                return false;
            }
            if self.is_done() {
                return true;
            }
            tokio::select! {
                heard = heard.recv() => match heard {
                    Some((correlation, frame)) => {
                        heard_at = Instant::now();
                        if !matches!(frame, Frame::Pong(_)) {
                            told_at = heard_at;
                        }
                        if self.hear(correlation, frame, &mut writer).await.is_err() {
                            return false;
                        }
                    }
                    None => return false,
                },
                order = orders.recv() => self.finishing |= matches!(order, Some(Order::Finish)),
                () = tokio::time::sleep(self.pause.unwrap_or(RETRY_AFTER)) => {
                    self.pause = None;
                    let ping = Frame::Ping(Ping).to_bytes(PINGS);
                    let stalled = self.finishing && told_at.elapsed() > STALLED_AFTER;
                    if stalled {
                        say(&Says::Trouble("the relay answers, and delivers nothing more".to_owned()));
                    }
                    let gone = heard_at.elapsed() > GIVE_UP_AFTER || stalled;
                    if gone || (heard_at.elapsed() > PROBE_AFTER && writer.write(&[ping.into()]).await.is_err()) {
                        connection.abort(CloseCode::Done);
                        return false;
                    }
                }
            }
        }
    }

    fn is_done(&self) -> bool {
        let read = |group: &Group| group.end.is_some_and(|end| group.next_read > end);
        self.finishing && self.waiting.is_empty() && self.groups.iter().all(read)
    }

    /// Founds again what was not answered, and opens all groups where reading has stopped.
    async fn greet(&mut self, writer: &mut FrameWriter) -> Outcome<()> {
        let mut frames: Vec<Arc<[u8]>> = Vec::new();
        for (number, append) in &self.waiting {
            if append.after == Seq(0) {
                say(&Says::Again { number: *number });
                frames.push(Frame::Append(append.clone()).to_bytes(*number).into());
            }
        }
        for index in 0..self.groups.len() {
            frames.push(self.open(index));
        }
        Ok(writer.write(&frames).await?)
    }

    /// The group is open: what was not answered goes first, in order.
    fn repeat(&self, group: GroupId) -> Vec<Arc<[u8]>> {
        let waiting = self.waiting.iter().filter(|(_, append)| append.group == group && append.after != Seq(0));
        waiting
            .map(|(number, append)| {
                say(&Says::Again { number: *number });
                Frame::Append(append.clone()).to_bytes(*number).into()
            })
            .collect()
    }

    /// Subscribes with the token of the founding, which reads everything.
    fn open(&mut self, index: usize) -> Arc<[u8]> {
        self.last += 1;
        let correlation = OPENS | self.last;
        self.opens.insert(correlation, index);
        let Some(group) = self.groups.get_mut(index) else { return Arc::from([]) };
        group.end = None;
        say(&Says::Reading { group: group.id, from: group.next_read });
        let commit = founding(group.id);
        let token = token(append_id(group.id, EntryKind::Commit, &commit.body));
        Frame::Open(Open { group: group.id, token, from: Some(group.next_read) }).to_bytes(correlation).into()
    }

    /// Sends as much as the window has room for.
    async fn work(&mut self, writer: &mut FrameWriter) -> Outcome<()> {
        let mut frames: Vec<Arc<[u8]>> = Vec::new();
        while !self.finishing && !self.arguments.reader && self.pause.is_none() && self.waiting.len() < WINDOW {
            let open: Vec<usize> = self
                .groups
                .iter()
                .enumerate()
                // relay.open.4: while a token is being shown, an append would count as one without.
                .filter(|(index, group)| group.end.is_some() && !self.opens.values().any(|opened| opened == index))
                .map(|(index, _)| index)
                .collect();
            let Some(index) = open.get(self.below(open.len().max(1))).copied() else { break };
            let Some(append) = self.draw(index) else { break };
            let number = self.enter(index, append.clone());
            frames.push(Frame::Append(append).to_bytes(number).into());
        }
        if frames.is_empty() { Ok(()) } else { Ok(writer.write(&frames).await?) }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.number() % bound as u64).unwrap_or(0)
    }

    fn draw(&mut self, index: usize) -> Option<Append> {
        let kind = if self.below(40) == 0 { EntryKind::Commit } else { EntryKind::Application };
        let (chained, long) = (self.below(2) == 0, self.below(30) == 0);
        let len = if long { 20_000 } else { 40 } + self.below(500);
        let mut content = vec![0; len];
        self.random.fill(&mut content);
        let group = self.groups.get(index)?;
        let body = private_message(group.id, kind, &content);
        let id = append_id(group.id, kind, &body);
        let bundle = (kind == EntryKind::Commit).then(|| Bundle { next_token: token(id).hash(), welcomes: Vec::new() });
        let behind = group.last.filter(|_| chained);
        Some(Append { group: group.id, kind, after: group.newest_commit, behind, body, bundle })
    }

    /// Says that it is about to be sent, and remembers it.
    fn enter(&mut self, index: usize, append: Append) -> u32 {
        self.last += 1;
        let number = self.last;
        let id = append_id(append.group, append.kind, &append.body);
        let Append { group, kind, after, behind, .. } = append;
        say(&Says::Sending { number, group, kind, after, behind, id });
        if let Some(group) = self.groups.get_mut(index) {
            group.last = Some(id);
        }
        self.waiting.insert(number, append);
        number
    }

    async fn hear(&mut self, correlation: u32, frame: Frame, writer: &mut FrameWriter) -> Outcome<()> {
        match frame {
            Frame::Entries(delivered) => {
                say(&Says::Read { group: delivered.group, entries: delivered.entries.clone() });
                let tokens = self.read(delivered.group, &delivered.entries);
                if !tokens.is_empty() {
                    writer.write(&tokens).await?;
                }
            }
            Frame::Opened(opened) => {
                if let Some(index) = self.opens.remove(&correlation)
                    && let Some(group) = self.groups.get_mut(index)
                {
                    let subscribed = group.end.is_none();
                    group.end = group.end.max(Some(opened.head.seq));
                    group.newest_commit = group.newest_commit.max(opened.newest_commit);
                    let repeated = if subscribed { self.repeat(opened.group) } else { Vec::new() };
                    if !repeated.is_empty() {
                        writer.write(&repeated).await?;
                    }
                }
            }
            Frame::Refused(refusal) if correlation >= OPENS => {
                let opened = self.opens.remove(&correlation);
                match (refusal, opened) {
                    // Its founder has not been heard yet.
                    (Refusal::UnknownGroup, Some(index)) => {
                        tokio::time::sleep(RETRY_AFTER).await;
                        let frame = self.open(index);
                        writer.write(&[frame]).await?;
                    }
                    (Refusal::StoreFailed | Refusal::ShuttingDown, _) => return Err("the relay is going down".into()),
                    (refusal, _) => say(&Says::Trouble(format!("a group cannot be opened: {refusal}"))),
                }
            }
            Frame::Appended(appended) => self.answered(correlation, Ok(appended)),
            Frame::Refused(refusal) if correlation > 0 => self.answered(correlation, Err(refusal)),
            Frame::Refused(refusal) => return Err(refusal.to_string().into()),
            _ => {}
        }
        Ok(())
    }

    fn answered(&mut self, number: u32, answer: Result<Appended, Refusal>) {
        let Some(append) = self.waiting.remove(&number) else { return };
        say(&Says::Answered { number, answer: answer.clone() });
        let Some(group) = self.groups.iter_mut().find(|group| group.id == append.group) else { return };
        match answer {
            Ok(appended) => {
                group.end = group.end.map(|end| end.max(appended.head.seq));
                if append.kind == EntryKind::Commit {
                    group.newest_commit = group.newest_commit.max(appended.head.seq);
                }
            }
            Err(refusal) => {
                group.last = None;
                match refusal {
                    Refusal::Stale { newest_commit } | Refusal::Conflict { newest_commit } => {
                        group.newest_commit = group.newest_commit.max(newest_commit);
                    }
                    Refusal::StoreFull | Refusal::StoreFailed => self.pause = Some(FULL_PAUSE),
                    _ => {}
                }
            }
        }
    }

    /// Takes note of entries. Each commit's token is shown, which confirms it.
    fn read(&mut self, id: GroupId, entries: &[Entry]) -> Vec<Arc<[u8]>> {
        let mut opens = Vec::new();
        let Some(index) = self.groups.iter().position(|group| group.id == id) else { return opens };
        for entry in entries {
            let Some(group) = self.groups.get_mut(index) else { continue };
            group.next_read = entry.seq.next();
            if entry.kind == EntryKind::Commit {
                group.newest_commit = group.newest_commit.max(entry.seq);
                self.last += 1;
                let correlation = OPENS | self.last;
                self.opens.insert(correlation, index);
                let token = token(append_id(id, entry.kind, &entry.body));
                opens.push(Frame::Open(Open { group: id, token, from: None }).to_bytes(correlation).into());
            }
        }
        opens
    }
}

async fn listen(mut reader: FrameReader, frames: mpsc::Sender<(u32, Frame)>) {
    while let Ok(Some(taken)) = reader.next().await {
        let Ok(frame) = taken.frame else { return };
        if frames.send((taken.correlation, frame)).await.is_err() {
            return;
        }
    }
}

async fn listen_to_deliveries(connection: Connection, frames: mpsc::Sender<(u32, Frame)>) {
    if let Ok(reader) = connection.accept_delivery().await {
        listen(reader, frames).await;
    }
}
