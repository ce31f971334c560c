//! Many seeds on all cores, with a file from which a campaign that was stopped goes on.
//!
//! This module does not print.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Setting, operations, run};

/// Seeds that one core does at a time: what a campaign that was stopped does again at most, per core.
const CHUNK: u64 = 25;

/// How far a campaign has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Seeds that were run, now or before the campaign was stopped.
    pub seeds: u64,
    /// Entries in their logs.
    pub entries: usize,
    /// The lowest seed that is known to break a promise.
    pub failing: Option<u64>,
}

/// A range of seeds under one setting.
#[derive(Debug)]
pub struct Campaign {
    seeds: Range<u64>,
    setting: Setting,
    open: VecDeque<u64>,
    done: Progress,
    file: Option<File>,
}

/// What says in the file which campaign it belongs to.
fn title(seeds: &Range<u64>, setting: Setting) -> String {
    let attack = setting.attack.map(|attack| format!(" attack {attack:?}")).unwrap_or_default();
    let identity = match (setting.identity, setting.escrow) {
        (true, _) => " with registrars",
        (_, true) => " with an escrow node",
        _ => "",
    };
    format!("seeds {}..{}{identity}{attack} bug {:?} only {:?}", seeds.start, seeds.end, setting.bug, setting.only)
}

impl Campaign {
    /// A campaign, begun or taken up again. The file has a line for each chunk of seeds that kept every promise: the first
    /// seed and the number of entries.
    ///
    /// # Errors
    /// If the file cannot be read or written, or belongs to a campaign over other seeds or with another setting.
    pub fn open(seeds: Range<u64>, setting: Setting, file: Option<&Path>) -> io::Result<Self> {
        let mut campaign = Self {
            open: seeds.clone().step_by(usize::try_from(CHUNK).unwrap_or(1)).collect(),
            done: Progress::default(),
            file: None,
            seeds,
            setting,
        };
        if let Some(path) = file {
            campaign.take_up(path)?;
        }
        Ok(campaign)
    }

    fn take_up(&mut self, path: &Path) -> io::Result<()> {
        let title = title(&self.seeds, self.setting);
        let known = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        // A last line without an end was cut off.
        let whole = &known[..known.rfind('\n').map_or(0, |at| at + 1)];
        let mut lines = whole.lines();
        match lines.next() {
            Some(first) if first != title => {
                let what = format!("{} belongs to another campaign: {first}", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            _ => {}
        }
        for line in lines {
            let Some((first, entries)) = line.split_once(' ') else { continue };
            let (Ok(first), Ok(entries)) = (first.parse::<u64>(), entries.parse::<usize>()) else { continue };
            if self.open.contains(&first) {
                self.open.retain(|open| *open != first);
                self.done.seeds += self.chunk(first).count() as u64;
                self.done.entries += entries;
            }
        }
        std::fs::write(path, if whole.is_empty() { format!("{title}\n") } else { whole.to_owned() })?;
        self.file = Some(OpenOptions::new().append(true).open(PathBuf::from(path))?);
        Ok(())
    }

    fn chunk(&self, first: u64) -> Range<u64> {
        first..(first + CHUNK).min(self.seeds.end)
    }

    /// Runs what is open on all cores, telling of each chunk, until all is done or a seed fails.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn run(mut self, tell: impl Fn(Progress) + Sync) -> io::Result<Progress> {
        let mut open = std::mem::take(&mut self.open);
        let file = self.file.take();
        let state = Mutex::new((&mut open, self.done, file, Ok(())));
        let stop = AtomicBool::new(false);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let Some(first) = state.lock().unwrap().0.pop_front() else { return };
                        let outcome = self.run_chunk(first, &stop);
                        let mut state = state.lock().unwrap();
                        match outcome {
                            Ok(Some(entries)) => {
                                state.1.seeds += self.chunk(first).count() as u64;
                                state.1.entries += entries;
                                if let Some(file) = &mut state.2
                                    && let Err(error) = writeln!(file, "{first} {entries}")
                                {
                                    state.3 = Err(error);
                                    stop.store(true, Ordering::Relaxed);
                                }
                                tell(state.1);
                            }
                            Ok(None) => return,
                            Err(seed) => {
                                state.1.failing = Some(state.1.failing.map_or(seed, |known| known.min(seed)));
                                stop.store(true, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        let (_, progress, _, written) = state.into_inner().unwrap();
        written.map(|()| progress)
    }

    /// Entries of a chunk, none if it was stopped; the seed if one fails.
    fn run_chunk(&self, first: u64, stop: &AtomicBool) -> Result<Option<usize>, u64> {
        let mut entries = 0;
        for seed in self.chunk(first) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let outcome = run(seed, &operations(seed, self.setting), self.setting);
            if outcome.violation.is_some() {
                return Err(seed);
            }
            entries += outcome.entries;
        }
        Ok(Some(entries))
    }
}
