//! The relay's figures: a real relay in a child process, the load in this one, loopback between them.

use std::{
    ffi::OsStr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chancery_protocol::ids::GroupId;

use crate::{
    Outcome,
    child::Process,
    deployment::Relay,
    echo::Echo,
    idle, progress,
    report::{Report, median},
    store,
    traffic::{self, Member},
};

/// Bytes of an `Appended` frame, to within one.
const ANSWER: usize = 50;
/// Connections of the comparison with the echo, and what each has in flight.
const WRITERS: u32 = 8;
const WRITER_WINDOW: u64 = 64;
/// What the one author has in flight.
const AUTHOR_WINDOW: u64 = 512;
/// How long deliveries may lag behind the last answer.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn run(quick: bool, dir: &Path, report: &mut Report) -> Outcome<()> {
    store::run(quick, dir, report)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(network(quick, dir, report))
}

async fn network(quick: bool, dir: &Path, report: &mut Report) -> Outcome<()> {
    let (period, rounds, idle) =
        if quick { (Duration::from_secs(2), 3, 500) } else { (Duration::from_secs(5), 5, 1_000) };
    let relay = Relay::start(&dir.join("relay"))?;
    let certificate = dir.join("echo.der");
    let request = traffic::message(GroupId([1; 32]), 1, 2).len();
    let sizes = [request.to_string(), ANSWER.to_string()];
    let [request_text, answer_text] = sizes.each_ref().map(OsStr::new);
    let server = Process::start([OsStr::new("serve-echo"), request_text, answer_text, certificate.as_os_str()])?;
    let echo = Echo::new(server.address, &certificate, request, ANSWER)?;

    progress("memory per idle connection");
    idle::run(&relay, &server, &echo, idle, report).await?;
    cpu(&relay, &server, &echo, period, rounds, report).await?;
    for readers in [1, 100] {
        fan_out(&relay, readers, period, rounds, report).await?;
    }
    Ok(())
}

fn group_id(purpose: u8, round: u8, number: u8) -> GroupId {
    let mut id = [purpose; 32];
    let [first, second, ..] = &mut id;
    (*first, *second) = (round, number);
    GroupId(id)
}

/// What one period of load cost.
#[derive(Clone, Copy, Default)]
struct Load {
    messages: f64,
    seconds: f64,
    cpu: f64,
}

/// The same shape on both, alternately: requests of the same size, answers of the same size, as many in flight.
async fn cpu(
    relay: &Relay,
    server: &Process,
    echo: &Echo,
    period: Duration,
    rounds: u8,
    report: &mut Report,
) -> Outcome<()> {
    let (mut on_relay, mut on_echo) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        progress(&format!("append and echo, round {} of {rounds}", round + 1));
        let mut writers = Vec::new();
        for number in 0..WRITERS {
            let group = group_id(0xc0, round, u8::try_from(number)?);
            let mut member = relay.member(number).await?;
            member.found(group).await?;
            writers.push((member, group));
        }
        let until = Instant::now() + period;
        let work = writers
            .into_iter()
            .map(|(mut member, group)| tokio::spawn(async move { member.pump(group, WRITER_WINDOW, until).await }));
        on_relay.push(load(&relay.process, work.collect()).await?);

        let mut callers = Vec::new();
        for _ in 0..WRITERS {
            callers.push(echo.caller().await?);
        }
        let until = Instant::now() + period;
        let work =
            callers.into_iter().map(|mut caller| tokio::spawn(async move { caller.pump(WRITER_WINDOW, until).await }));
        on_echo.push(load(server, work.collect()).await?);
    }
    let each = |loads: &[Load]| median(loads.iter().map(|load| load.cpu * 1e6 / load.messages).collect());
    let rate = |loads: &[Load]| median(loads.iter().map(|load| load.messages / load.seconds).collect());
    report.ratio("CPU per message: relay (durable append) / quinn echo", each(&on_relay), each(&on_echo));
    report.figure("CPU per append, relay", each(&on_relay), "us");
    report.figure("CPU per request, quinn echo", each(&on_echo), "us");
    report.figure("appends, 8 connections, 64 in flight each", rate(&on_relay), "messages/s");
    report.figure("echo, 8 connections, 64 in flight each", rate(&on_echo), "messages/s");
    Ok(())
}

async fn load(process: &Process, work: Vec<tokio::task::JoinHandle<Outcome<u64>>>) -> Outcome<Load> {
    let (began, before) = (Instant::now(), process.cpu()?);
    let mut messages = 0;
    for one in work {
        messages += one.await??;
    }
    let cpu = process.cpu()?.saturating_sub(before).as_secs_f64();
    Ok(Load { messages: messages as f64, seconds: began.elapsed().as_secs_f64(), cpu })
}

/// One author, `readers` subscribers; over when the last entry has come to the last reader.
async fn fan_out(relay: &Relay, readers: u32, period: Duration, rounds: u8, report: &mut Report) -> Outcome<()> {
    let mut loads = Vec::new();
    for round in 0..rounds {
        progress(&format!("1->{readers}, round {} of {rounds}", round + 1));
        let group = group_id(0xfa, round, u8::try_from(readers)?);
        let delivered = Arc::new(AtomicU64::new(0));
        let mut author: Member = relay.member(0).await?;
        author.found(group).await?;
        for number in 1..=readers {
            relay.member(number).await?.count(group, Arc::clone(&delivered)).await?;
        }
        let (began, before) = (Instant::now(), relay.process.cpu()?);
        let messages = author.pump(group, AUTHOR_WINDOW, began + period).await?;
        let give_up = Instant::now() + PATIENCE;
        while delivered.load(Ordering::Relaxed) < messages * u64::from(readers) {
            if Instant::now() > give_up {
                return Err(format!("1->{readers}: entries did not arrive").into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let cpu = relay.process.cpu()?.saturating_sub(before).as_secs_f64();
        loads.push(Load { messages: messages as f64, seconds: began.elapsed().as_secs_f64(), cpu });
    }
    let rate = median(loads.iter().map(|load| load.messages / load.seconds).collect());
    let cpu = median(loads.iter().map(|load| load.cpu * 1e6 / load.messages).collect());
    report.figure(format!("1->{readers} end to end"), rate, "messages/s");
    report.figure(format!("1->{readers} end to end, all readers"), rate * f64::from(readers), "deliveries/s");
    report.figure(format!("1->{readers} CPU of the relay per delivery"), cpu / f64::from(readers), "us");
    Ok(())
}
