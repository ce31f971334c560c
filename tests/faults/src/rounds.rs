//! One round of each kind: what is done to whom, drawn from the seed.
//!
//! Each round is whole in itself: a new deployment, new clients, several faults, a judgement. So any round can be repeated
//! by its seed; threads and disks still run as they like, the seed repeats what is done after how many acknowledgements.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use chancery_protocol::secret::Random;
use chancery_server::Config;

use crate::{
    Outcome,
    child::PATIENCE,
    deployment::seeded,
    disk::{Disk, installed},
    stage::{Stage, Verdict},
};

/// Acknowledgements between two faults.
const GAP_MAX: u64 = 400;
/// Acknowledgements after the last one: the store must go on.
const AFTERMATH: u64 = 60;
/// How long a relay whose store has failed may take to end.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// What a relay ends with whose store has failed (`server/OPERATING.md`).
const STORE_FAILED: i32 = 3;
/// KiB of the small disk, at least, and of what it is given later.
const SMALL_KIB: u64 = 2_048;
const ROOM_KIB: u64 = 128 * 1_024;

/// Which kind of round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// SIGKILL of relay and clients.
    Kill,
    /// Power cuts of the relay's disk; without fsync they must be found out.
    Power { fsync: bool },
    /// fsync fails.
    Eio,
    /// The disk is full, and gets room.
    Full,
}

/// What was done, and what it led to.
pub(crate) struct Round {
    pub(crate) story: Vec<String>,
    pub(crate) faults: u64,
    pub(crate) verdict: Verdict,
}

struct Play<'a> {
    random: Random,
    story: Vec<String>,
    faults: u64,
    dir: &'a Path,
    seed: u64,
    program: Option<&'a Path>,
    /// Whether it is there.
    strace: bool,
}

/// Plays one round in an empty folder.
pub(crate) fn play(kind: Kind, seed: u64, dir: &Path, program: Option<&Path>) -> Outcome<Round> {
    let (random, strace) = (seeded(b"faults", seed), installed("strace"));
    let mut play = Play { random, story: Vec::new(), faults: 0, dir, seed, program, strace };
    let verdict = match kind {
        Kind::Kill => play.kill()?,
        Kind::Power { fsync } => play.power(fsync)?,
        Kind::Eio => play.eio()?,
        Kind::Full => play.full()?,
    };
    Ok(Round { story: play.story, faults: play.faults, verdict })
}

impl Play<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        self.random.number() % bound
    }

    fn tell(&mut self, what: String) {
        self.faults += 1;
        self.story.push(what);
    }

    fn kill(&mut self) -> Outcome<Verdict> {
        let mut stage = Stage::open(self.seed, self.dir, (self.dir, self.dir), self.program)?;
        for _ in 0..3 + self.below(4) {
            let gap = self.below(GAP_MAX);
            stage.until_acked(gap)?;
            let client = usize::try_from(self.below(2 * stage.clients() as u64))?;
            // Opening the store takes a few of them.
            let (pause, nth) = (self.below(300), 10 + self.below(40));
            let in_fsync = self.below(3) == 0 && self.strace;
            // Half of them are the relay's.
            if client < stage.clients() {
                self.tell(format!("{} killed after {gap}", Stage::name(client)));
                stage.kill_client(client)?;
                continue;
            }
            stage.kill_relay()?;
            if in_fsync {
                self.tell(format!("relay killed after {gap} and in its fsync {nth}"));
                stage.start_relay(&strace(
                    &self.dir.join("strace.log"),
                    &format!("signal=SIGKILL:when={nth}"),
                    None,
                ))?;
                stage.relay_ends()?;
            } else {
                self.tell(format!("relay killed after {gap}, away for {pause} ms"));
            }
            std::thread::sleep(Duration::from_millis(pause));
            stage.start_relay(&[])?;
        }
        stage.until_acked(AFTERMATH)?;
        stage.close()
    }

    fn power(&mut self, fsync: bool) -> Outcome<Verdict> {
        let disk = Disk::image(self.dir)?;
        let mut stage = Stage::open(self.seed, self.dir, (disk.path(), disk.path()), self.program)?;
        // Keys and accounts are not what this is about.
        disk.sync()?;
        if !fsync {
            stage.kill_relay()?;
            stage.start_relay(&strace(&self.dir.join("strace.log"), "retval=0", None))?;
        }
        for _ in 0..1 + self.below(3) {
            let gap = self.below(GAP_MAX) + 20;
            stage.until_acked(gap)?;
            if !fsync {
                let enough = stage.record.placed + 20;
                stage.until("append without fsync", |record| record.placed > enough)?;
            }
            // Half of the relays live to see that their disk is gone.
            let seen = fsync && self.below(2) == 0;
            stage.cut(&disk, seen)?;
            if seen {
                self.tell(format!("power cut after {gap}, seen by the relay"));
                stage.relay.as_ref().ok_or("no relay")?.thaw()?;
                self.ends_by_itself(&mut stage)?;
            } else {
                self.tell(format!("power cut after {gap}"));
                stage.kill_relay()?;
            }
            disk.power_on()?;
            if !fsync {
                // A relay that has lost what it told cannot go on with these clients: what is there is judged.
                return stage.judge();
            }
            stage.start_relay(&[])?;
            stage.revive_people()?;
        }
        stage.until_acked(AFTERMATH)?;
        stage.close()
    }

    fn eio(&mut self) -> Outcome<Verdict> {
        let disk = Disk::image(self.dir)?;
        let mut stage = Stage::open(self.seed, self.dir, (disk.path(), disk.path()), self.program)?;
        disk.sync()?;
        let person = match self.below(3) {
            0 => Some(Stage::person(usize::try_from(self.below(100))?)),
            _ => None,
        };
        let database = match person {
            Some(client) => stage.database(client),
            None => Config::load(&stage.config)?.relay_database(),
        };
        // The write-ahead log is synced with each commit; the database itself only when the log is folded in.
        let folding = self.below(3) == 0;
        let (file, nth) = match folding {
            true => (database, 2),
            false => (log_of(&database), 3 + self.below(60)),
        };
        let once = self.below(2) == 0;
        let when = if once { format!("error=EIO:when={nth}") } else { format!("error=EIO:when={nth}+") };
        let wrapper = strace(&self.dir.join("strace.log"), &when, Some(&file));
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.tell(format!("fsync {nth} of {name} fails{}", if once { " once" } else { " from then on" }));
        match person {
            None => {
                stage.kill_relay()?;
                stage.start_relay(&wrapper)?;
                self.ends_by_itself(&mut stage)?;
            }
            Some(client) => {
                stage.end_client(client)?;
                stage.revive_client(client, &wrapper)?;
                self.until_injected(&mut stage)?;
                // A client opens its file anew by itself, and goes on if that is possible.
                stage.until_acked(AFTERMATH)?;
            }
        }
        // What the failed call left in memory only is lost now.
        stage.cut(&disk, false)?;
        if person.is_some() {
            stage.kill_relay()?;
        }
        disk.power_on()?;
        stage.start_relay(&[])?;
        stage.revive_people()?;
        stage.until_acked(AFTERMATH)?;
        stage.close()
    }

    fn injected(&self) -> bool {
        fs::read_to_string(self.dir.join("strace.log")).is_ok_and(|log| log.contains("INJECTED"))
    }

    fn until_injected(&self, stage: &mut Stage) -> Outcome<()> {
        let began = Instant::now();
        while !self.injected() {
            stage.listen()?;
            if began.elapsed() > PATIENCE {
                return Err("the fault did not come".into());
            }
        }
        Ok(())
    }

    /// The store has failed: the relay must say so and end, and must not be stopped from outside.
    fn ends_by_itself(&self, stage: &mut Stage) -> Outcome<()> {
        let began = Instant::now();
        let mut failed_at = None;
        let status = loop {
            stage.listen()?;
            if let Some(status) = stage.relay.as_mut().ok_or("no relay")?.ended()? {
                break status;
            }
            if failed_at.is_none() && (self.injected() || began.elapsed() > PATIENCE) {
                failed_at = Some(Instant::now());
            }
            if failed_at.is_some_and(|at| at.elapsed() > END_PATIENCE) {
                return Err("broken: the relay goes on although its disk has failed".into());
            }
        };
        let relay = stage.relay.take().ok_or("no relay")?;
        if status.code() != Some(STORE_FAILED) || !relay.logged().contains("the store failed") {
            return Err(format!("broken: the relay does not say that its store failed ({status})").into());
        }
        Ok(())
    }

    fn full(&mut self) -> Outcome<Verdict> {
        let size = SMALL_KIB + self.below(4_096);
        let disk = Disk::small(self.dir, size)?;
        let mut stage = Stage::open(self.seed, self.dir, (disk.path(), self.dir), self.program)?;
        stage.until("fill the disk", |record| record.full > 0)?;
        self.tell(format!("disk of {size} KiB full"));
        let more = stage.record.full + self.below(40);
        stage.until("be refused for lack of space", |record| record.full > more)?;
        if self.below(2) == 0 {
            self.tell("relay killed on the full disk".to_owned());
            stage.kill_relay()?;
            stage.start_relay(&[])?;
            let client = usize::try_from(self.below(2))?;
            stage.kill_client(client)?;
            let more = stage.record.full;
            stage.until("be refused for lack of space again", |record| record.full > more)?;
        }
        disk.grow(ROOM_KIB)?;
        stage.until_acked(AFTERMATH)?;
        stage.close()
    }
}

fn log_of(database: &Path) -> PathBuf {
    database.with_extension("db-wal")
}

/// strace as a wrapper: the relay stays this process's child, and only these calls are touched.
pub(crate) fn strace(log: &Path, inject: &str, file: Option<&Path>) -> Vec<OsString> {
    let words = ["strace", "-D", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-e"];
    let mut wrapper: Vec<OsString> = words.map(OsString::from).into();
    wrapper.push(format!("inject=fsync,fdatasync:{inject}").into());
    // The filter leaves other calls alone, which is much faster; with it strace 6.1 injects no signals.
    wrapper.extend((!inject.starts_with("signal")).then(|| "--seccomp-bpf".into()));
    if let Some(file) = file {
        wrapper.extend(["-P".into(), file.as_os_str().to_owned()]);
    }
    wrapper.extend(["-o".into(), log.as_os_str().to_owned()]);
    wrapper
}
