//! Counters, and the page on which Prometheus reads them.
//!
//! This module does not label anything by account, device, group or address.

use std::{net::SocketAddr, sync::OnceLock, time::Duration};

use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// Entries that were placed.
const APPENDS: &str = "chancery_appends_total";
/// Requests that were refused, by wire code.
const REFUSALS: &str = "chancery_refusals_total";
/// Operations in one transaction.
const BATCH: &str = "chancery_commit_batch_operations";
/// Time of one durable transaction.
const COMMIT: &str = "chancery_commit_seconds";
/// Connections of devices.
const CONNECTIONS: &str = "chancery_connections";
/// Frames on delivery streams.
const DELIVERIES: &str = "chancery_deliveries_total";
/// Bytes of frames, by direction.
const BYTES: &str = "chancery_frame_bytes_total";
/// Lines between registrars and relays of other processes.
const LINES: &str = "chancery_registrar_lines";
/// Bytes of blobs that were stored or read.
const BLOB_BYTES: &str = "chancery_blob_bytes_total";
/// Requests on the enrolment protocol, by outcome.
const ENROLMENTS: &str = "chancery_enrolments_total";

/// Longest request to the metrics page.
const REQUEST_BYTES_MAX: usize = 4096;
/// Readers of the metrics page at the same time.
const READERS_MAX: usize = 8;
/// How long one reader may take.
const READER_TIMEOUT: Duration = Duration::from_secs(5);

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

pub(crate) fn appended() {
    counter!(APPENDS).increment(1);
}

pub(crate) fn refused(code: u16) {
    counter!(REFUSALS, "code" => code.to_string()).increment(1);
}

#[allow(clippy::cast_precision_loss, reason = "a batch has at most a thousand operations")]
pub(crate) fn committed(operations: usize, took: Duration) {
    histogram!(BATCH).record(operations as f64);
    histogram!(COMMIT).record(took.as_secs_f64());
}

pub(crate) fn connected() {
    gauge!(CONNECTIONS).increment(1.0);
}

pub(crate) fn disconnected() {
    gauge!(CONNECTIONS).decrement(1.0);
}

pub(crate) fn delivered(frames: usize) {
    counter!(DELIVERIES).increment(frames as u64);
}

pub(crate) fn sent(bytes: usize) {
    counter!(BYTES, "direction" => "sent").increment(bytes as u64);
}

pub(crate) fn received(bytes: usize) {
    counter!(BYTES, "direction" => "received").increment(bytes as u64);
}

pub(crate) fn blob_bytes(how: &'static str, bytes: usize) {
    counter!(BLOB_BYTES, "how" => how).increment(bytes as u64);
}

/// A line between registrar and relay stands, or is gone.
pub(crate) fn line(stands: bool) {
    gauge!(LINES).set(if stands { 1.0 } else { 0.0 });
}

pub(crate) fn enrolment(outcome: &'static str) {
    counter!(ENROLMENTS, "outcome" => outcome).increment(1);
}

/// Counts from now on, and gives the text of the page. All servers of one process count together.
fn recorder() -> Option<&'static PrometheusHandle> {
    RECORDER
        .get_or_init(|| {
            let seconds = [0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0];
            let operations = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
            let builder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Full(COMMIT.to_owned()), &seconds)
                .and_then(|b| b.set_buckets_for_metric(Matcher::Full(BATCH.to_owned()), &operations));
            let recorder = builder.ok()?.build_recorder();
            let handle = recorder.handle();
            // Another recorder in the same process is the host's choice; its counters are then elsewhere.
            metrics::set_global_recorder(recorder).ok()?;
            Some(handle)
        })
        .as_ref()
}

/// Serves `GET /metrics` until the returned task is dropped or aborted.
///
/// # Errors
/// If the address cannot be listened on.
pub(crate) async fn serve(address: SocketAddr) -> std::io::Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let handle = recorder();
    let task = tokio::spawn(async move {
        static READERS: Semaphore = Semaphore::const_new(READERS_MAX);
        loop {
            let Ok(permit) = READERS.acquire().await else { return };
            let Ok((stream, _)) = listener.accept().await else { continue };
            tokio::spawn(async move {
                // A reader that is too slow is dropped; it comes again at its next scrape.
                let _ = tokio::time::timeout(READER_TIMEOUT, respond(stream, handle)).await;
                drop(permit);
            });
        }
    });
    Ok((address, task))
}

async fn respond(mut stream: TcpStream, handle: Option<&PrometheusHandle>) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() > REQUEST_BYTES_MAX || stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let (status, body) = match handle {
        Some(handle) if request.starts_with(b"GET /metrics ") => {
            handle.run_upkeep();
            ("200 OK", handle.render())
        }
        _ => ("404 Not Found", String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
