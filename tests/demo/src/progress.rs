//! Shows how far the play is: a bar on a terminal, plain lines elsewhere; always on standard error.
//!
//! This module keeps no figures.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::{task::JoinHandle, time::sleep};

use crate::ledger::Ledger;

const BAR_EVERY: Duration = Duration::from_millis(100);
const LINE_EVERY: Duration = Duration::from_secs(3);

/// Progress of one run.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    began: Instant,
    terminal: bool,
    watch: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins to count the time.
    #[must_use]
    pub fn new() -> Self {
        let terminal = stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        Self { bar, began: Instant::now(), terminal, watch: None }
    }

    /// Time since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Says one thing.
    pub fn say(&self, what: &str) {
        if self.terminal {
            self.bar.suspend(|| eprintln!("{what}"));
        } else {
            eprintln!("[{:6.1} s] {what}", self.elapsed().as_secs_f64());
        }
    }

    /// Shows deliveries, out of so many, until [`Self::done`].
    pub fn watch(&mut self, ledger: &Ledger, texts: u64, deliveries: u64) {
        let (ledger, began) = (ledger.clone(), self.began);
        self.watch = Some(if self.terminal {
            self.bar = ProgressBar::new(deliveries);
            if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos} of {len} delivered, {msg} ({elapsed})") {
                self.bar.set_style(style);
            }
            let bar = self.bar.clone();
            tokio::spawn(async move {
                loop {
                    let tally = ledger.tally();
                    bar.set_position(tally.delivered);
                    bar.set_message(format!("{} of {texts} said", tally.sent));
                    sleep(BAR_EVERY).await;
                }
            })
        } else {
            tokio::spawn(async move {
                loop {
                    sleep(LINE_EVERY).await;
                    let (tally, seconds) = (ledger.tally(), began.elapsed().as_secs_f64());
                    eprintln!(
                        "[{seconds:6.1} s] {} of {texts} said, {} of {deliveries} delivered",
                        tally.sent, tally.delivered
                    );
                }
            })
        });
    }

    /// Ends the bar.
    pub fn done(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.abort();
        }
        self.bar.finish_and_clear();
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done();
    }
}
