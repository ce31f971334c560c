//! One connection: two readers, one writer, and the commands that concern it.
//!
//! This module does not reconnect.

use std::{
    sync::{Arc, mpsc::Sender},
    time::Duration,
};

use chancery_protocol::{
    error::Malformed,
    wire::{Frame, FrameHeader, relay::Ping},
};
use chancery_quic::{CloseCode, Connection, FrameReader, FrameWriter};
use tokio::{
    sync::{
        Semaphore,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        watch,
    },
    task::JoinSet,
    time::Instant,
};

use super::{ConnectionState, INBOUND_BYTES_MAX, NetCommand, Network, Work};
use crate::driver::Job;

/// On the slowest network that a large request shall get through, bytes per second.
const UPLOAD_RATE_MIN: u64 = 8 * 1024;
/// How long a client that is shut down waits for answers to what it has asked: published KeyPackages and acknowledged
/// invitations need not be sent again then.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Frames that are handed to the driver at once.
const FRAMES_PER_JOB_MAX: usize = 256;
/// Frames that are written at once.
const FRAMES_PER_WRITE_MAX: usize = 1024;

/// What the parts of a session know of one another.
#[derive(Clone)]
struct Shared {
    session: u64,
    jobs: Sender<Job>,
    state: watch::Sender<ConnectionState>,
    inbound: Arc<Semaphore>,
    heard: watch::Sender<Heard>,
}

/// What has come from the relay in this session.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// Answers to what was asked.
    answers: u64,
    /// When it last said anything.
    at: Instant,
}

impl Network {
    /// Serves a connection until it is gone, and says why in words.
    pub(super) async fn serve(&mut self, connection: Connection) -> String {
        self.session += 1;
        let session = self.session;
        let (writer, reader) = match self.unless_interrupted(connection.open_control()).await {
            Work::Finished(Ok(control)) => control,
            Work::Finished(Err(error)) => return error.to_string(),
            Work::Interrupted => return "the connection was closed".to_owned(),
        };
        if self.jobs.send(Job::Connected(session)).is_err() {
            self.stopped = true;
            return String::new();
        }
        let shared = Shared {
            session,
            jobs: self.jobs.clone(),
            state: self.state.clone(),
            inbound: Arc::clone(&self.inbound),
            heard: watch::Sender::new(Heard { answers: 0, at: Instant::now() }),
        };
        let mut heard = shared.heard.subscribe();
        let (outgoing, queue) = unbounded_channel();
        let mut parts = JoinSet::new();
        parts.spawn(write(writer, queue));
        parts.spawn(read(reader, shared.clone()));
        parts.spawn(read_deliveries(connection.clone(), shared.clone()));

        let lost = self.converse(session, &outgoing, &mut parts, &mut heard).await;
        // Waited for: a reader that is still at work must not say "online" afterwards.
        parts.shutdown().await;
        let _ = self.jobs.send(Job::Disconnected(session));
        connection.close(CloseCode::Done).await;
        lost
    }

    async fn converse(
        &mut self,
        session: u64,
        outgoing: &UnboundedSender<Vec<(u32, Frame)>>,
        parts: &mut JoinSet<String>,
        heard: &mut watch::Receiver<Heard>,
    ) -> String {
        // `Ready`, and the answer to the `Ping` that opened the stream.
        let mut asked = 2;
        let mut asked_at = Instant::now();
        let patience_min = self.patience.get();
        let mut patience = patience_min;
        let mut probed_at = asked_at;
        let mut end_by: Option<Instant> = None;
        loop {
            let Heard { answers, at } = *heard.borrow_and_update();
            let owed = asked > answers;
            let now = Instant::now();
            let given_up = at.max(asked_at) + patience;
            if owed && given_up <= now {
                self.patience.grow();
                return "the relay does not answer".to_owned();
            }
            // Asked while answers are owed, too: a relay that was killed with a request in its hands, and started again,
            // says that it does not know the connection only when something comes on it.
            let probe = at.max(probed_at) + self.probe_after;
            if probe <= now {
                if !owed {
                    (asked, asked_at, patience) = (answers, now, patience_min);
                }
                asked += 1;
                probed_at = now;
                let _ = outgoing.send(vec![(0, Frame::Ping(Ping))]);
                continue;
            }
            let deadline = if owed { given_up.min(probe) } else { probe };
            if end_by.is_some_and(|end_by| !owed || end_by <= now) {
                return closed();
            }
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(NetCommand::Send { session: of, frames }) if of == session => {
                        if !owed {
                            (asked, asked_at, patience) = (answers, now, patience_min);
                        }
                        let bytes: usize = frames.iter().map(|(_, frame)| weight(frame)).sum();
                        patience += Duration::from_secs(bytes as u64 / UPLOAD_RATE_MIN);
                        asked += count_requests(&frames);
                        let _ = outgoing.send(frames);
                    }
                    Some(NetCommand::Resume) => {}
                    Some(NetCommand::Stop) if end_by.is_none() => {
                        self.stopped = true;
                        end_by = Some(now + LAST_ANSWERS);
                    }
                    command => {
                        let own = matches!(&command, Some(NetCommand::Close { session: of, .. }) if *of == session);
                        if self.obey(command) || own {
                            return closed();
                        }
                    }
                },
                ended = parts.join_next() => {
                    return match ended {
                        Some(Ok(why)) => why,
                        _ => "the connection was lost".to_owned(),
                    };
                }
                _ = heard.changed(), if end_by.is_some() => {}
                () = tokio::time::sleep_until(end_by.unwrap_or(deadline).min(deadline)) => {}
            }
        }
    }
}

fn closed() -> String {
    "the connection was closed".to_owned()
}

/// Requests of the machine carry a correlation, and so do their answers.
fn count_requests(frames: &[(u32, Frame)]) -> u64 {
    frames.iter().filter(|(correlation, _)| *correlation != 0).count() as u64
}

/// What is told without being asked carries correlation 0; of that, `Ready` and the answers to this task's own `Ping`s are
/// owed.
fn count_answers(frames: &[(u32, Frame)]) -> u64 {
    let answers = frames
        .iter()
        .filter(|(correlation, frame)| *correlation != 0 || matches!(frame, Frame::Ready(_) | Frame::Pong(_)));
    answers.count() as u64
}

async fn write(mut writer: FrameWriter, mut queue: UnboundedReceiver<Vec<(u32, Frame)>>) -> String {
    while let Some(first) = queue.recv().await {
        let mut frames: Vec<Arc<[u8]>> = Vec::new();
        let mut next = Some(first);
        while let Some(batch) = next {
            frames.extend(batch.iter().map(|(correlation, frame)| Arc::from(frame.to_bytes(*correlation))));
            next = if frames.len() < FRAMES_PER_WRITE_MAX { queue.try_recv().ok() } else { None };
        }
        if let Err(error) = writer.write(&frames).await {
            return error.to_string();
        }
    }
    String::new()
}

async fn read_deliveries(connection: Connection, shared: Shared) -> String {
    match connection.accept_delivery().await {
        Ok(reader) => read(reader, shared).await,
        Err(error) => error.to_string(),
    }
}

async fn read(mut reader: FrameReader, shared: Shared) -> String {
    loop {
        let mut taken = match reader.next().await {
            Ok(taken) => taken,
            Err(error) => return error.to_string(),
        };
        if taken.is_none() {
            // Its last frame may say why, and the driver, which is reading it, then ends the session with that reason.
            tokio::time::sleep(LAST_ANSWERS).await;
            return "the relay has closed the connection".to_owned();
        }
        let mut frames = Vec::new();
        let mut bytes = 0;
        let mut end = None;
        while let Some(frame) = taken.take() {
            match frame.frame {
                Ok(decoded) => {
                    bytes += weight(&decoded);
                    frames.push((frame.correlation, decoded));
                }
                // A later version may say more than this one understands.
                Err(Malformed::UnknownFrame(number)) => tracing::debug!(number, "an unknown frame was skipped"),
                Err(error) => end = Some(error.to_string()),
            }
            if end.is_some() || frames.len() >= FRAMES_PER_JOB_MAX || bytes >= INBOUND_BYTES_MAX / 8 {
                break;
            }
            match reader.take() {
                Ok(more) => taken = more,
                Err(error) => end = Some(error.to_string()),
            }
        }
        shared.note(&frames);
        if let Some(why) = shared.hand_over(frames, bytes).await.or(end) {
            return why;
        }
    }
}

impl Shared {
    fn note(&self, frames: &[(u32, Frame)]) {
        self.heard.send_modify(|heard| {
            heard.answers += count_answers(frames);
            heard.at = Instant::now();
        });
    }

    /// Waits until the driver has room, which makes the relay wait. Returns why the session cannot go on, if so.
    async fn hand_over(&self, frames: Vec<(u32, Frame)>, bytes: usize) -> Option<String> {
        if frames.is_empty() {
            return None;
        }
        let online = frames.iter().any(|(_, frame)| matches!(frame, Frame::Ready(_)));
        let permits = u32::try_from(bytes.min(INBOUND_BYTES_MAX)).unwrap_or(u32::MAX);
        let Ok(permit) = Arc::clone(&self.inbound).acquire_many_owned(permits).await else {
            return Some("the client was shut down".to_owned());
        };
        let job = Job::Frames { session: self.session, frames, permit };
        if self.jobs.send(job).is_err() {
            return Some("the client was shut down".to_owned());
        }
        if online {
            self.state.send_replace(ConnectionState::Online);
        }
        None
    }
}

/// About how much memory a frame takes.
fn weight(frame: &Frame) -> usize {
    let content = match frame {
        Frame::Entries(entries) => entries.entries.iter().map(|entry| entry.body.len() + 64).sum(),
        Frame::Mail(mail) => mail.body.len(),
        Frame::Append(append) => {
            let welcomes = append.bundle.iter().flat_map(|bundle| &bundle.welcomes);
            append.body.len() + welcomes.map(|welcome| welcome.body.len() + 64).sum::<usize>()
        }
        Frame::PublishKeyPackages(publish) => publish.packages.iter().map(|package| package.len()).sum(),
        Frame::KeyPackages(packages) => packages.packages.iter().map(|package| package.body.len() + 64).sum(),
        _ => 64,
    };
    FrameHeader::LEN + content
}
