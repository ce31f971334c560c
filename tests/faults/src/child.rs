//! The processes of a run: started, told, heard, killed.
//!
//! What a process said before it died counts: its pipe is read to the end before it is taken as dead.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child as Process, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::Sender,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    Outcome,
    lines::{Order, Says, from_line, to_line},
};

/// How long a process may take to begin, or to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// This program, or what stands in its place, with these arguments.
pub(crate) fn command(wrapper: &[OsString], program: &Path, arguments: &[OsString], log: &Path) -> Outcome<Command> {
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    let mut words = wrapper
        .iter()
        .map(OsString::as_os_str)
        .chain([program.as_os_str()])
        .chain(arguments.iter().map(OsString::as_os_str));
    let mut command = Command::new(words.next().ok_or("no program")?);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    Ok(command)
}

/// Stops a process, and returns when none of its threads is in a system call any more. (`kill`: a signal needs `unsafe`
/// otherwise.)
fn freeze(process: &Process) -> Outcome<()> {
    signal(process, "-STOP")?;
    let give_up = Instant::now() + PATIENCE;
    while !is_stopped(process.id())? {
        if Instant::now() > give_up {
            return Err("a process does not stop".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn signal(process: &Process, name: &str) -> Outcome<()> {
    let status = Command::new("kill").args([name, &process.id().to_string()]).status()?;
    if status.success() { Ok(()) } else { Err("no signal could be sent".into()) }
}

fn is_stopped(id: u32) -> Outcome<bool> {
    for task in std::fs::read_dir(format!("/proc/{id}/task"))? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        // The name in parentheses may hold spaces; the state follows it (proc(5)): stopped, by a tracer or without.
        let state = stat.rsplit_once(") ").and_then(|(_, fields)| fields.chars().next());
        if !matches!(state, Some('T' | 't')) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A client's process.
pub(crate) struct Child {
    process: Process,
    stdin: Option<ChildStdin>,
    reader: Option<JoinHandle<()>>,
    log: PathBuf,
}

impl Child {
    /// Starts this program, behind a wrapper such as strace; what it says goes to `heard`, under a number.
    pub(crate) fn start(
        wrapper: &[OsString],
        arguments: &[OsString],
        log: &Path,
        number: usize,
        heard: &Sender<(usize, Says)>,
    ) -> Outcome<Self> {
        let mut process = command(wrapper, &std::env::current_exe()?, arguments, log)?.spawn()?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().ok_or("no pipe")?;
        let heard = heard.clone();
        let reader = std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = String::new();
            while stdout.read_line(&mut line).is_ok_and(|_| line.ends_with('\n')) {
                let says = from_line(&line).unwrap_or_else(|error| Says::Trouble(format!("{line:?}: {error}")));
                // Nobody listens once the run is over.
                let _ = heard.send((number, says));
                line.clear();
            }
        });
        Ok(Self { process, stdin, reader: Some(reader), log: log.to_owned() })
    }

    pub(crate) fn order(&mut self, order: &Order) -> Outcome<()> {
        let stdin = self.stdin.as_mut().ok_or("no pipe")?;
        Ok(stdin.write_all(&to_line(order)).and_then(|()| stdin.flush())?)
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// SIGKILL; returns when all that it said has been heard.
    pub(crate) fn kill(&mut self) -> Outcome<()> {
        if let Some(status) = self.process.try_wait()? {
            return Err(format!("a client ended by itself ({status}): see {}", self.log.display()).into());
        }
        self.process.kill()?;
        self.process.wait()?;
        self.drain();
        Ok(())
    }

    /// Whether it has ended, well.
    pub(crate) fn ended(&mut self) -> Outcome<bool> {
        match self.process.try_wait()? {
            None => Ok(false),
            Some(status) if status.success() => {
                self.drain();
                Ok(true)
            }
            Some(status) => Err(format!("a client ended by itself ({status}): see {}", self.log.display()).into()),
        }
    }

    fn drain(&mut self) {
        if let Some(reader) = self.reader.take() {
            // It ends with the pipe.
            let _ = reader.join();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already; nothing depends on how.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The relay's process.
pub(crate) struct Relay {
    process: Process,
    log: PathBuf,
}

impl Relay {
    /// Starts `serve` behind a wrapper such as strace, and waits until it listens.
    pub(crate) fn start(wrapper: &[OsString], program: Option<&Path>, config: &Path, log: &Path) -> Outcome<Self> {
        let (program, words) = match program {
            Some(program) => (program.to_owned(), &["serve", "--json", "--config"][..]),
            None => (std::env::current_exe()?, &["serve-relay"][..]),
        };
        let mut arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
        arguments.push(config.as_os_str().to_owned());
        let mut process = command(wrapper, &program, &arguments, log)?.spawn()?;
        let mut line = String::new();
        if let Some(out) = process.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let mut relay = Self { process, log: log.to_owned() };
        if line.contains("listening") {
            return Ok(relay);
        }
        let status = relay.wait(PATIENCE)?;
        Err(format!("the relay did not begin to serve ({status}): see {}", log.display()).into())
    }

    pub(crate) fn kill(&mut self) -> Outcome<()> {
        if let Some(status) = self.process.try_wait()? {
            return Err(format!("the relay ended by itself ({status}): see {}", self.log.display()).into());
        }
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// SIGSTOP; returns when no call is under way.
    pub(crate) fn freeze(&self) -> Outcome<()> {
        freeze(&self.process)
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) -> Outcome<()> {
        signal(&self.process, "-CONT")
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Outcome<Option<ExitStatus>> {
        Ok(self.process.try_wait()?)
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self, patience: Duration) -> Outcome<ExitStatus> {
        let give_up = Instant::now() + patience;
        loop {
            match self.process.try_wait()? {
                Some(status) => return Ok(status),
                None if Instant::now() > give_up => return Err("the relay does not end".into()),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// What it has logged, all its lives together.
    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
