//! Two terminals talk: the commands as a person types them, each in a process of its own.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use super::expiry::set_clock;

const PATIENCE: Duration = Duration::from_secs(60);

/// Not a test by itself: with this variable set, this process is `chancery`, `chancery-relay` or `chancery-escrow` with these
/// arguments.
const ARGUMENTS: &str = "CHANCERY_TEST_ARGUMENTS";

#[test]
fn node() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    let arguments: Vec<OsString> =
        serde_json::from_str::<Vec<String>>(&arguments).unwrap().into_iter().map(OsString::from).collect();
    let code = match arguments[0].to_str() {
        Some("chancery-relay") => chancery_server::run_cli(arguments),
        Some("chancery-escrow") => chancery_escrow::run_cli(arguments),
        _ => chancery_cli::run(arguments),
    };
    std::process::exit(i32::from(code));
}

/// With variables of the environment.
pub fn run_with(arguments: &[&str], variables: &[(&str, String)]) -> Output {
    command(arguments).envs(variables.iter().map(|(name, value)| (name, value))).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "e2e::terminals::node", "--nocapture"])
        .env(ARGUMENTS, serde_json::to_string(arguments).unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    set_clock(&mut command);
    command
}

pub fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// With a line on its standard input: what it printed, or what it complained of.
pub fn ok_with(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = command(arguments).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{input}").unwrap();
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(printed(&output)) } else { Err(complaint) }
}

/// What the command printed, without what the test harness says before it.
fn printed(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().filter(|line| !line.is_empty() && !line.starts_with("running ")).collect::<Vec<_>>().join("\n")
}

pub fn ok(arguments: &[&str]) -> String {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}\n{errors}", output.status);
    printed(&output)
}

/// A command that must not be done; what it says.
pub fn refused(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(!output.status.success(), "{arguments:?}: {}", printed(&output));
    String::from_utf8(output.stderr).unwrap()
}

/// A process whose lines are read as they come.
pub struct Terminal {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Terminal {
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    pub fn start_with(arguments: &[&str], variables: &[(&str, String)]) -> Self {
        let mut command = command(arguments);
        let mut child = command.envs(variables.iter().map(|(name, value)| (name, value))).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let stdin = child.stdin.take();
        Self { child, stdin, lines, seen: Vec::new() }
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub fn wait_for(&mut self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => self.seen.push(line),
                Err(_) => panic!("{part:?} did not come; seen: {:?}", self.seen),
            }
        }
    }

    /// Stops it as an operator does; it must end well. Returns what it has logged.
    pub fn terminate(mut self) -> String {
        let told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        let status = self.child.wait().unwrap();
        assert!(told.success() && status.success(), "{status}: {log}");
        log
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.kill();
    }
}

pub struct Folder(pub tempfile::TempDir);

impl Folder {
    pub fn path(&self, name: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        path.to_str().unwrap().to_owned()
    }
}

pub fn serve(config: &str) -> Terminal {
    let mut relay = Terminal::start(&["chancery-relay", "serve", "--config", config, "--json"]);
    relay.wait_for("127.0.0.1:");
    relay
}

#[test]
fn two_terminals_talk_through_a_relay_and_survive_its_death() {
    let folder = Folder(tempfile::tempdir().unwrap());
    let relay_dir = folder.path("relay");
    ok(&["chancery-relay", "init", "--dir", &relay_dir, "--listen", "127.0.0.1:0"]);
    let config = format!("{relay_dir}/config.toml");
    let mut relay = serve(&config);
    assert!(Path::new(&format!("{relay_dir}/address")).exists());

    let (ana, li) = (folder.path("ana"), folder.path("li"));
    for (state, handle) in [(&ana, "ana"), (&li, "李雷")] {
        let ticket = ok(&["chancery-relay", "account", "add", handle, "--config", &config, "--json"]);
        let ticket: serde_json::Value = serde_json::from_str(ticket.lines().last().unwrap()).unwrap();
        ok(&["chancery", "--state", state, "enroll", ticket["ticket"].as_str().unwrap()]);
    }
    assert!(ok(&["chancery", "--state", &li, "whoami"]).contains("李雷"));
    ok(&["chancery", "--state", &ana, "group", "new", "desk", "--class", "work"]);
    ok(&["chancery", "--state", &ana, "group", "invite", "desk", "李雷"]);

    // Sentences name people as they are addressed.
    ok(&["chancery", "--state", &ana, "group", "new", "short-lived", "--class", "work"]);
    ok(&["chancery", "--state", &ana, "group", "invite", "short-lived", "李雷"]);
    ok(&["chancery", "--state", &li, "group", "leave", "short-lived"]);
    let read = ok(&["chancery", "--state", &ana, "read", "short-lived"]);
    assert!(read.contains("李雷 asks to leave") && read.contains("李雷 was removed"), "{read}");
    let shown = ok(&["chancery", "--state", &ana, "directory", "show"]);
    assert!(shown.contains("2 entries, fresh"), "{shown}");
    let clear = run(&["chancery", "--state", &ana, "directory", "clear"]);
    assert!(String::from_utf8_lossy(&clear.stderr).contains("nothing to clear up"), "{clear:?}");

    let mut left = Terminal::start(&["chancery", "--state", &ana, "chat", "desk"]);
    left.type_line("你好 from ana");
    // The invitation is read when the invited one comes online.
    let joined = ok(&["chancery", "--state", &li, "read"]);
    assert!(joined.contains("desk"), "{joined}");
    let mut right = Terminal::start(&["chancery", "--state", &li, "chat", "desk"]);
    right.type_line("hello from 李雷");
    let line = left.wait_for("hello from 李雷");
    assert!(line.contains("李雷"), "{line}");

    // A picture, from a file and into one.
    let (image, saved) = (folder.path("desk.png"), folder.path("saved"));
    std::fs::write(&image, b"\x89PNG\r\n\x1a\n and the rest of it").unwrap();
    drop((left, right));
    ok(&["chancery", "--state", &ana, "group", "picture", "desk", "--set", &image]);
    let shown = ok(&["chancery", "--state", &li, "group", "picture", "desk", "--save", &saved]);
    assert!(shown.contains("image/png, 27 bytes, saved as"), "{shown}");
    assert_eq!(std::fs::read(&saved).unwrap(), std::fs::read(&image).unwrap());
    let again = run(&["chancery", "--state", &li, "group", "picture", "desk", "--save", &saved]);
    assert_eq!(code(&again), 2, "nothing is written over");
    let text = run(&["chancery", "--state", &ana, "group", "picture", "desk", "--set", &config]);
    assert!(String::from_utf8_lossy(&text.stderr).contains("PNG, JPEG or WebP"), "{text:?}");
    let mut left = Terminal::start(&["chancery", "--state", &ana, "chat", "desk"]);
    let mut right = Terminal::start(&["chancery", "--state", &li, "chat", "desk"]);
    left.type_line("are you back?");
    right.wait_for("are you back?");

    // A word is taken back, another put in its place; only its author does either.
    let history = |state: &str| ok(&["chancery", "--state", state, "history", "desk"]);
    drop((left, right));
    let lines = history(&ana);
    let place = |text: &str| {
        let line = lines.lines().find(|line| line.contains(text)).unwrap_or_else(|| panic!("{lines}"));
        line.trim_start_matches('#').split(' ').next().unwrap().to_owned()
    };
    let (own, other) = (place("are you back?"), place("hello from 李雷"));
    ok(&["chancery", "--state", &ana, "reply", "desk", &other, "hello"]);
    ok(&["chancery", "--state", &ana, "edit", "desk", &own, "are you there?"]);
    ok(&["chancery", "--state", &li, "delete", "desk", &other]);
    for refused in
        [["delete", "desk", &other].as_slice(), &["edit", "desk", &other, "x"], &["reply", "desk", "999", "x"]]
    {
        let output = run(&[&["chancery", "--state", &ana], refused].concat());
        assert_eq!(code(&output), 2, "{output:?}");
    }
    for state in [&ana, &li] {
        let lines = history(state);
        assert!(lines.contains("are you there? (edited)") && lines.contains("(deleted)"), "{lines}");
        assert!(!lines.contains("hello from 李雷"), "{lines}");
    }
    let mut left = Terminal::start(&["chancery", "--state", &ana, "chat", "desk"]);
    let mut right = Terminal::start(&["chancery", "--state", &li, "chat", "desk"]);

    // The relay dies and comes back; both go on by themselves.
    relay.kill();
    left.type_line("while it was down");
    let mut relay = serve(&config);
    right.wait_for("while it was down");
    drop(right);

    // Removed, 李雷 reads nothing more.
    drop(left);
    ok(&["chancery", "--state", &ana, "group", "remove", "desk", "李雷"]);
    ok(&["chancery", "--state", &ana, "send", "desk", "not for everybody"]);
    let read = ok(&["chancery", "--state", &li, "read"]);
    assert!(!read.contains("not for everybody"), "{read}");
    let refused = run(&["chancery", "--state", &li, "send", "desk", "x"]);
    assert!(!refused.status.success());

    relay.kill();
    let offline = run(&["chancery", "--state", &ana, "--timeout", "1", "group", "invite", "desk", "李雷"]);
    assert_eq!(offline.status.code(), Some(4), "{}", String::from_utf8_lossy(&offline.stderr));
    assert_eq!(run(&["chancery", "--state", &folder.path("nobody"), "whoami"]).status.code(), Some(3));
    assert_eq!(run(&["chancery", "no-such-verb"]).status.code(), Some(2));
}
