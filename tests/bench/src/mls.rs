//! Messages, commits and joins of groups on one thread, with the rows that must be written for them.
//!
//! This module does not use the client's machine: no outbox, no envelopes, no certificate gate of the intake.

use std::{path::Path, time::Instant};

use chancery_protocol::{
    identity::{CertificateAuthority, Chain, DeviceKey, Purpose, Role, TenantRoot, verify_signature},
    mls::{Change, Charter, Class, Core, Group, GroupState, OfferedPackage, Prepared, Processed, Storage, key_package},
    secret::{Random, Secret32},
};
use chancery_server::Clock;
use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _};

use crate::{
    Outcome, progress,
    report::{Report, median},
    rows::Rows,
};

/// A padded envelope of the smallest size.
const PLAINTEXT: [u8; 256] = [0x61; 256];
/// Messages whose rows are written together.
pub(crate) const BATCH: u32 = 32;
/// Devices that one commit adds while a group is built.
pub(crate) const ADDS: u32 = 64;
/// Devices of the groups.
const SIZES: [u32; 3] = [10, 100, 1_000];

pub(crate) fn run(quick: bool, dir: &Path, report: &mut Report) -> Outcome<()> {
    let (batches, repetitions) = if quick { (15, 9) } else { (100, 25) };
    let root = TenantRoot::create(Secret32::new([1; 32]), Clock::default().now())?;
    let issuing = root.issuing(Secret32::new([2; 32]), Clock::default().now())?;
    for size in SIZES {
        progress(&format!("a group of {size}: building"));
        let mut desk = Desk::of(&issuing, size)?;
        let mut rows = Rows::open(&dir.join(format!("rows-{size}.db")))?;
        rows.write(&desk.deltas())?;
        progress(&format!("a group of {size}: joins, messages, commits"));
        report.figure(format!("join, {size}"), desk.joins(repetitions)?, "us");
        messages(&mut desk, &mut rows, size, batches, report)?;
        commits(&mut desk, &mut rows, size, repetitions, report)?;
    }
    Ok(())
}

pub(crate) struct Device {
    pub(crate) core: Core,
    pub(crate) key: DeviceKey,
    pub(crate) chain: Chain,
    packages: Storage,
}

impl Device {
    pub(crate) fn new(issuing: &CertificateAuthority, number: u32) -> Outcome<Self> {
        let mut seed = [0x44; 32];
        for (byte, digit) in seed.iter_mut().zip(number.to_be_bytes()) {
            *byte = digit;
        }
        let key = DeviceKey::from_seed(Secret32::new(seed))?;
        let handle = format!("person-{number}").parse()?;
        let chain = issuing.certify(&handle, key.public(), Role::Human, Clock::default().now())?;
        Ok(Self { core: Core::new(Random::new(seed)), key, chain, packages: Storage::default() })
    }

    /// The rows of its KeyPackages: a join uses its KeyPackage up, and the next one needs it again.
    fn package_rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        self.packages.take_delta(&[], &mut rows);
        rows.iter().filter_map(|row| Some((row.key.clone(), row.value.clone()?))).collect()
    }

    pub(crate) fn package(&self) -> Outcome<OfferedPackage> {
        let bytes = key_package::make(&self.core, &self.packages, &self.key, &self.chain, false)?;
        Ok(OfferedPackage::parse(&self.core, &bytes, Clock::default().now())?)
    }
}

/// A group as its founder and its newest member see it.
struct Desk {
    ana: Device,
    at_ana: Group,
    li: Device,
    at_li: Group,
    welcome: Vec<u8>,
    package: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Desk {
    fn of(issuing: &CertificateAuthority, size: u32) -> Outcome<Self> {
        let ana = Device::new(issuing, 0)?;
        let root = issuing.root();
        let charter = Charter { class: Class::Work, tenant: Some(root), predecessor: None, nonce: [7; 32] };
        let state = GroupState { name: "desk".to_owned(), roots: vec![root], ..GroupState::default() };
        let mut at_ana = Group::found(&ana.core, &ana.key, &ana.chain, charter, &state, None)?;
        let mut waiting = Vec::new();
        for number in 1..size - 1 {
            waiting.push(Device::new(issuing, number)?.package()?);
            if number % ADDS == 0 || number == size - 2 {
                add(&ana, &mut at_ana, std::mem::take(&mut waiting))?;
            }
        }
        let li = Device::new(issuing, size - 1)?;
        let prepared = add(&ana, &mut at_ana, vec![li.package()?])?;
        let welcome = prepared.welcomes.first().ok_or("nobody was invited")?.body.0.clone();
        let package = li.package_rows();
        let at_li = Group::join(&li.core, &Storage::from_rows(package.clone()), li.key.device(), &welcome)?;
        Ok(Self { ana, at_ana, li, at_li, welcome, package })
    }

    fn deltas(&mut self) -> Vec<chancery_protocol::rows::RowWrite> {
        let mut rows = Vec::new();
        self.at_ana.take_delta(&self.ana.core, &mut rows);
        self.at_li.take_delta(&self.li.core, &mut rows);
        rows
    }

    /// Microseconds of a join with the rows that it makes; the same Welcome again and again.
    fn joins(&mut self, repetitions: u32) -> Outcome<f64> {
        let mut times = Vec::new();
        for _ in 0..repetitions {
            let packages = Storage::from_rows(self.package.clone());
            let began = Instant::now();
            let mut joined = Group::join(&self.li.core, &packages, self.li.key.device(), &self.welcome)?;
            joined.take_delta(&self.li.core, &mut Vec::new());
            times.push(micros(began));
        }
        Ok(median(times))
    }
}

fn add(ana: &Device, group: &mut Group, adds: Vec<OfferedPackage>) -> Outcome<Prepared> {
    let prepared = group.commit(&ana.core, &ana.key, &Change { adds, ..Change::default() })?;
    group.merge_pending(&ana.core)?;
    Ok(prepared)
}

pub(crate) fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// Per message, medians of batches: OpenMLS and rows taken once a batch; the same with the rows durable; bare signatures.
fn messages(desk: &mut Desk, rows: &mut Rows, size: u32, batches: u32, report: &mut Report) -> Outcome<()> {
    let bare = Bare::new(&desk.ana.key);
    let (mut create, mut created, mut process, mut processed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut sign, mut verify, mut verify_aws, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let share = |time: f64| time / f64::from(BATCH);
    for _ in 0..batches {
        let (mut bodies, mut delta) = (Vec::new(), Vec::new());
        let began = Instant::now();
        for _ in 0..BATCH {
            bodies.push(desk.at_ana.encrypt(&desk.ana.core, &desk.ana.key, &PLAINTEXT)?);
        }
        desk.at_ana.take_delta(&desk.ana.core, &mut delta);
        create.push(share(micros(began)));
        bytes = rows.write(&delta)?;
        created.push(share(micros(began)));

        delta.clear();
        let began = Instant::now();
        for body in &bodies {
            let Processed::Application { .. } = desk.at_li.process(&desk.li.core, body)? else {
                return Err("a message was taken for something else".into());
            };
        }
        desk.at_li.take_delta(&desk.li.core, &mut delta);
        process.push(share(micros(began)));
        rows.write(&delta)?;
        processed.push(share(micros(began)));

        let (signing, verifying, verifying_aws) = bare.batch()?;
        sign.push(share(signing));
        verify.push(share(verifying));
        verify_aws.push(share(verifying_aws));
    }
    let [create, created, process, processed, sign, verify, verify_aws] =
        [create, created, process, processed, sign, verify, verify_aws].map(median);
    report.ratio(format!("create and persist / Ed25519 sign, {size}"), created, sign);
    report.ratio(format!("process and persist / Ed25519 verify, {size}"), processed, verify);
    report.figure(format!("message create, rows taken, {size}"), create, "us");
    report.figure(format!("message create, rows durable, {size}"), created, "us");
    report.figure(format!("message process, rows taken, {size}"), process, "us");
    report.figure(format!("message process, rows durable, {size}"), processed, "us");
    report.figure(format!("Ed25519 sign, aws-lc, beside {size}"), sign, "us");
    report.figure(format!("Ed25519 verify, RustCrypto, beside {size}"), verify, "us");
    report.figure(format!("Ed25519 verify, aws-lc, beside {size}"), verify_aws, "us");
    report.figure(format!("rows of a batch of {BATCH} created, {size}"), bytes as f64, "bytes");
    Ok(())
}

/// The signatures beneath: creation signs with the device key on aws-lc, OpenMLS verifies with RustCrypto.
pub(crate) struct Bare<'a> {
    device: &'a DeviceKey,
    dalek: SigningKey,
    signature: Signature,
}

impl<'a> Bare<'a> {
    pub(crate) fn new(device: &'a DeviceKey) -> Self {
        let dalek = SigningKey::from_bytes(device.seed().expose());
        Self { device, signature: dalek.sign(&PLAINTEXT), dalek }
    }

    /// Microseconds of as many as a batch has: sign, verify with RustCrypto, verify with aws-lc.
    pub(crate) fn batch(&self) -> Outcome<(f64, f64, f64)> {
        let key = self.dalek.verifying_key();
        let began = Instant::now();
        let mut signature = Vec::new();
        for _ in 0..BATCH {
            signature = self.device.sign(Purpose::Enrol, &PLAINTEXT);
        }
        let sign = micros(began);
        let began = Instant::now();
        for _ in 0..BATCH {
            key.verify(&PLAINTEXT, &self.signature)?;
        }
        let verify = micros(began);
        let began = Instant::now();
        for _ in 0..BATCH {
            if !verify_signature(self.device.public(), Purpose::Enrol, &PLAINTEXT, &signature) {
                return Err("a signature does not verify".into());
            }
        }
        Ok((sign, verify, micros(began)))
    }
}

/// Self-updates of the founder, which the newest member follows; each with its rows durable.
fn commits(desk: &mut Desk, rows: &mut Rows, size: u32, repetitions: u32, report: &mut Report) -> Outcome<()> {
    let (mut create, mut merge, mut process, mut durable, mut bytes) = (vec![], vec![], vec![], vec![], 0);
    for _ in 0..repetitions {
        let mut delta = Vec::new();
        let began = Instant::now();
        let prepared = desk.at_ana.commit(&desk.ana.core, &desk.ana.key, &Change::default())?;
        desk.at_ana.take_delta(&desk.ana.core, &mut delta);
        create.push(micros(began));
        rows.write(&delta)?;
        let began = Instant::now();
        desk.at_ana.merge_pending(&desk.ana.core)?;
        desk.at_ana.take_delta(&desk.ana.core, &mut delta);
        merge.push(micros(began));

        delta.clear();
        let began = Instant::now();
        let Processed::Commit(change) = desk.at_li.process(&desk.li.core, &prepared.commit)? else {
            return Err("a commit was taken for something else".into());
        };
        desk.at_li.merge(&desk.li.core, *change)?;
        desk.at_li.take_delta(&desk.li.core, &mut delta);
        process.push(micros(began));
        bytes = rows.write(&delta)?;
        durable.push(micros(began));
    }
    report.figure(format!("commit create, rows taken, {size}"), median(create), "us");
    report.figure(format!("commit merge by its author, rows taken, {size}"), median(merge), "us");
    report.figure(format!("commit process and merge, rows taken, {size}"), median(process), "us");
    report.figure(format!("commit process and merge, rows durable, {size}"), median(durable), "us");
    report.figure(format!("rows of a commit processed, {size}"), bytes as f64, "bytes");
    Ok(())
}
