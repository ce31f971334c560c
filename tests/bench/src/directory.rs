//! Following a large tenant's directory: what a new client reads, keeps and writes, and what its later looks cost.
//!
//! This module does not use the network: its source is a log in memory, so the time is the client's own.

use std::{fs, path::Path, time::Instant};

use chancery_protocol::{
    identity::{
        Chain, DeviceIdentity, DeviceKey, Role, TenantRoot,
        certificate::At,
        directory::{
            DirectoryEntry, DirectoryEvent, DirectoryView, Follow, Outcome as Looked, Step, entry::Issued, origin,
        },
        verify_chain,
    },
    ids::{AccountId, CertificateHash, DeviceId},
    merkle::{LogKey, ServedLog},
    secret::Secret32,
    time::Timestamp,
};
use chancery_server::Clock;

use crate::{Outcome, progress, report::Report, rows::Rows};

/// Entries that come after the first look.
const LATER: u64 = 100;
/// One entry in so many is a revocation.
const REVOKED_EVERY: u64 = 50;

pub(crate) fn run(quick: bool, dir: &Path, report: &mut Report) -> Outcome<()> {
    let sizes: &[u64] = if quick { &[10_000, 100_000] } else { &[10_000, 100_000, 1_000_000] };
    for size in sizes {
        progress(&format!("a directory of {size}: building"));
        let mut tenant = Tenant::new()?;
        let before = resident()?;
        tenant.grow(*size)?;
        let served = resident()?.saturating_sub(before);
        progress(&format!("a directory of {size}: following"));
        follow(&mut tenant, *size, dir, report)?;
        report.figure(format!("memory of who serves it, {size}"), mib(served), "MiB");
    }
    Ok(())
}

fn follow(tenant: &mut Tenant, size: u64, dir: &Path, report: &mut Report) -> Outcome<()> {
    let before = resident()?;
    let mut view = DirectoryView::new(&tenant.own, tenant.now).ok_or("the chain names no log key")?;
    let (elapsed, read, requests) = look(&mut view, tenant)?;
    report.figure(format!("first look, {size}"), elapsed * 1e3, "ms");
    report.figure(format!("read for it, {size}"), mib(read), "MiB");
    report.figure(format!("requests for it, {size}"), f64::from(requests), "");
    let writes = view.take_writes();
    let began = Instant::now();
    let written = Rows::open(&dir.join(format!("directory-{size}.db")))?.write(&writes)?;
    report.figure(format!("its rows written durably, {size}"), began.elapsed().as_secs_f64() * 1e3, "ms");
    report.figure(format!("their values, {size}"), mib(written as u64), "MiB");
    let rows: Vec<(Vec<u8>, Vec<u8>)> =
        writes.iter().filter_map(|row| Some((row.key.clone(), row.value.clone()?))).collect();
    drop(writes);
    report.figure(format!("memory of the view, {size}"), mib(resident()?.saturating_sub(before)), "MiB");
    let began = Instant::now();
    let mut again = DirectoryView::load(&tenant.own, tenant.now, rows).ok_or("the view is not loaded")?;
    report.figure(format!("loaded at start, {size}"), began.elapsed().as_secs_f64() * 1e3, "ms");
    if again.size() != view.size() {
        return Err("the loaded view is another one".into());
    }
    tenant.grow(LATER)?;
    let (elapsed, read, _) = look(&mut again, tenant)?;
    report.figure(format!("look at {LATER} entries more, {size}"), elapsed * 1e3, "ms");
    report.figure(format!("read for it then, {size}"), mib(read), "MiB");
    Ok(())
}

/// Seconds, bytes, requests.
fn look(view: &mut DirectoryView, tenant: &mut Tenant) -> Outcome<(f64, u64, u32)> {
    let (mut bytes, mut requests) = (0, 0);
    let mut follow = Follow::new();
    let mut wanted = follow.wants().ok_or("nothing is wanted")?;
    let mut elapsed = 0.0;
    loop {
        let answer = tenant.log.read(&wanted);
        bytes += answer.as_ref().map_or(0, Vec::len) as u64;
        requests += 1;
        let began = Instant::now();
        let step = follow.answer(view, answer.as_deref(), tenant.now);
        elapsed += began.elapsed().as_secs_f64();
        match step {
            Step::Ask(next) => wanted = next,
            Step::Done(Looked::Followed(_)) => return Ok((elapsed, bytes, requests)),
            Step::Done(other) => return Err(format!("the look came to {other:?}").into()),
        }
    }
}

struct Tenant {
    own: DeviceIdentity,
    key: LogKey,
    log: ServedLog,
    now: Timestamp,
}

impl Tenant {
    fn new() -> Outcome<Self> {
        let now = Clock::default().now();
        let key = LogKey::from_seed(&Secret32::new([7; 32]))?;
        let issuing = TenantRoot::create(Secret32::new([1; 32]), now)?.issuing_with_log(
            Secret32::new([2; 32]),
            key.public(),
            now,
        )?;
        let device = DeviceKey::from_seed(Secret32::new([3; 32]))?;
        let chain: Chain = issuing.certify(&"ana".parse()?, device.public(), Role::Human, now)?;
        Ok(Self { own: verify_chain(&chain, At::NotBefore)?, key, log: ServedLog::default(), now })
    }

    /// Certificates, of which every other one has ended, and revocations.
    fn grow(&mut self, count: u64) -> Outcome<()> {
        for number in self.log.size()..self.log.size() + count {
            let event = if number == 0 { self.own_certificate() } else { self.event(number) };
            if !self.log.append(DirectoryEntry { at: self.now, event }.to_bytes()) {
                return Err("the log is full".into());
            }
        }
        let checkpoint = self.key.sign(&origin(self.own.root()), self.log.size(), self.log.root(), self.now);
        if self.log.show(checkpoint) { Ok(()) } else { Err("the checkpoint does not fit".into()) }
    }

    fn own_certificate(&self) -> DirectoryEvent {
        DirectoryEvent::CertificateIssued(Issued {
            account: self.own.account(),
            device: self.own.device(),
            certificate: self.own.certificate(),
            not_after: self.own.not_after(),
        })
    }

    fn event(&self, number: u64) -> DirectoryEvent {
        let id = |kind: u8| {
            let mut bytes = [kind; 32];
            for (byte, digit) in bytes.iter_mut().zip(number.to_be_bytes()) {
                *byte = digit;
            }
            bytes
        };
        let (account, device) = (AccountId(id(1)), DeviceId(id(2)));
        if number.is_multiple_of(REVOKED_EVERY) {
            return DirectoryEvent::DeviceRevoked { account, device };
        }
        let day = 86_400_000;
        let not_after = if number.is_multiple_of(2) { self.now.0 + 60 * day } else { self.now.0.saturating_sub(day) };
        let (certificate, not_after) = (CertificateHash(id(3)), Timestamp(not_after));
        DirectoryEvent::CertificateIssued(Issued { account, device, certificate, not_after })
    }
}

/// Resident memory of this process in bytes.
fn resident() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
