//! Memory of a connection on which nothing happens: relay against bare quinn with its default configuration.

use std::time::Duration;

use crate::{Outcome, child::Process, deployment::Relay, echo::Echo, report::Report};

/// Connections before the first look: what the first ones bring once shall not count.
const WARM: u32 = 50;
/// Until handshakes have left the memory.
const SETTLE: Duration = Duration::from_secs(1);
/// Numbers of the idle devices, away from those that write.
const FIRST: u32 = 10_000;

pub(crate) async fn run(
    relay: &Relay,
    server: &Process,
    echo: &Echo,
    connections: u32,
    report: &mut Report,
) -> Outcome<()> {
    let mut members = Vec::new();
    let mut before = 0.0;
    for number in 0..WARM + connections {
        if number == WARM {
            tokio::time::sleep(SETTLE).await;
            before = relay.process.resident_kib()?;
        }
        members.push(relay.member(FIRST + number).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let on_relay = (relay.process.resident_kib()? - before) / f64::from(connections);
    drop(members);

    let mut callers = Vec::new();
    for number in 0..WARM + connections {
        if number == WARM {
            tokio::time::sleep(SETTLE).await;
            before = server.resident_kib()?;
        }
        callers.push(echo.caller().await?);
    }
    tokio::time::sleep(SETTLE).await;
    let on_echo = (server.resident_kib()? - before) / f64::from(connections);
    drop(callers);

    report.ratio("memory per idle connection: relay / quinn", on_relay, on_echo);
    report.figure(format!("idle connection, relay, of {connections}"), on_relay, "KiB");
    report.figure(format!("idle connection, quinn, of {connections}"), on_echo, "KiB");
    Ok(())
}
