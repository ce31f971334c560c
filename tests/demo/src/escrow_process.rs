//! The escrow node's process: enrolled, given a policy, served and stopped, by the commands that its operator has.
//!
//! This module opens nothing; [`crate::court`] does, at the end.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use chancery_escrow::officers::read_certificate;
use chancery_protocol::mls::PolicyCertificate;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{
    child_relay::{RelayError, stop_with_input},
    court::{Court, Opened, QUORUM},
    relay_process::{RelayFault, RelayProcess},
};

/// Handle of the node's account.
const HANDLE: &str = "archive";
/// How long the node may take for one thing.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The node did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum EscrowFault {
    /// The operating system refuses.
    #[error("the escrow node: {0}")]
    Io(#[from] io::Error),
    /// The relay or its registrar refuses.
    #[error(transparent)]
    Relay(#[from] RelayFault),
    /// A command ended without doing what it should.
    #[error("chancery-escrow {command}: {said}")]
    Command {
        /// Which.
        command: String,
        /// What it said.
        said: String,
    },
    /// The process is silent or gone.
    #[error("the escrow node did not {what} within {} s: its output is in {folder}", PATIENCE.as_secs())]
    Silent {
        /// What it should have done.
        what: &'static str,
        /// Where its output is.
        folder: PathBuf,
    },
}

impl From<RelayError> for EscrowFault {
    fn from(error: RelayError) -> Self {
        Self::Relay(error.into())
    }
}

/// The process itself: `chancery-escrow` with these arguments.
#[must_use]
pub fn run(arguments: Vec<OsString>) -> u8 {
    if arguments.first().is_some_and(|command| command == "serve") {
        stop_with_input();
    }
    chancery_escrow::run_cli([OsString::from("chancery-escrow")].into_iter().chain(arguments))
}

/// An escrow node, its folder, and its officers.
#[derive(Debug)]
pub struct EscrowProcess {
    folder: PathBuf,
    child: Option<Child>,
    /// Where it listens; the policy names it, so that it stays.
    listen: String,
    /// The key that signs the archive's log.
    log_key: String,
    policy: String,
    court: Court,
}

impl EscrowProcess {
    /// Holds the ceremony, enrols a node at a relay that serves, starts it, and signs and publishes the policy that names it and the
    /// seats.
    ///
    /// # Errors
    /// A command refuses, or the node does not begin to serve.
    pub async fn found(folder: &Path, relay: &RelayProcess) -> Result<Self, EscrowFault> {
        fs::create_dir_all(folder)?;
        let offline = relay.state().join("offline");
        let certificate: PolicyCertificate =
            fs::read_to_string(offline.join("policy.cert"))?.trim().parse().map_err(io::Error::other)?;
        let court = Court::hold_ceremony(&folder.join("court"), &certificate.root().to_string()).await?;
        let (listen, log_key, policy) = ("127.0.0.1:0".to_owned(), String::new(), String::new());
        let mut node = Self { folder: folder.to_owned(), child: None, listen, log_key, policy, court };
        let ticket = relay.registrar()?.escrow(HANDLE)?;
        let words = ["enrol", "--json", "--dir"].map(OsString::from).into_iter().chain([node.dir().into_os_string()]);
        let enrolled = json(&run_os(words.collect(), Some(&ticket)).await?)?;
        enrolled.pointer("/policy/log_key").and_then(Value::as_str).unwrap_or_default().clone_into(&mut node.log_key);
        node.start().await?;
        node.court.admit(&node.dir()).await?;
        node.policy = node.sign(&offline, &enrolled).await?;
        relay.registrar()?.publish(&node.policy)?;
        Ok(node)
    }

    /// The signed policy.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// The folder with everything that the node stores.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.folder.join("node")
    }

    /// The officers open everything: of a node that was started again, because what is open is sealed to a key in its memory.
    ///
    /// # Errors
    /// A command refuses.
    pub async fn open_case(&mut self) -> Result<Opened, EscrowFault> {
        self.stop().await?;
        self.start().await?;
        let opened = self.court.open_case(&self.dir(), &self.log_key).await;
        self.stop().await?;
        opened
    }

    /// Waits until the node says that it has sealed so many records; for a while, because who counts the archive names what
    /// is missing.
    pub async fn until_sealed(&self, records: u64) {
        let sealed = async {
            while self.sealed() < records {
                sleep(LOOK_EVERY).await;
            }
        };
        let _ = timeout(PATIENCE, sealed).await;
    }

    fn sealed(&self) -> u64 {
        let said = fs::read(self.dir().join("status.json")).ok();
        let said: Option<Value> = said.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        said.and_then(|said| said.pointer("/status/records").and_then(Value::as_u64)).unwrap_or(0)
    }

    /// Starts the process, and waits until it serves.
    ///
    /// # Errors
    /// It cannot be started, or does not serve.
    pub async fn start(&mut self) -> Result<(), EscrowFault> {
        let log = OpenOptions::new().create(true).append(true).open(self.folder.join("stderr.log"))?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["escrow", "--", "serve", "--json", "--listen", &self.listen, "--dir"])
            .arg(self.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let Some(stdout) = child.stdout.take() else { return Err(io::Error::other("no pipe").into()) };
        // It says one line when it serves.
        let mut said = String::new();
        let mut lines = BufReader::new(stdout);
        let read = timeout(PATIENCE, lines.read_line(&mut said)).await.map_err(|_| self.silent("begin to serve"))??;
        if read == 0 {
            return Err(self.silent("begin to serve"));
        }
        json(&said)?.get("listening").and_then(Value::as_str).unwrap_or_default().clone_into(&mut self.listen);
        self.child = Some(child);
        Ok(())
    }

    /// Kills the process; what it has sealed stays.
    ///
    /// # Errors
    /// It had ended before.
    pub async fn kill(&mut self) -> Result<(), EscrowFault> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(status) = child.try_wait()? {
            return Err(self.ended(&status.to_string()));
        }
        Ok(child.kill().await?)
    }

    /// Lets the node close its store and end.
    ///
    /// # Errors
    /// It had ended before, or does not end.
    pub async fn stop(&mut self) -> Result<(), EscrowFault> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(status) = child.try_wait()? {
            return Err(self.ended(&status.to_string()));
        }
        drop(child.stdin.take());
        let status = timeout(PATIENCE, child.wait()).await.map_err(|_| self.silent("stop"))??;
        if status.success() { Ok(()) } else { Err(self.ended(&status.to_string())) }
    }

    async fn sign(&self, offline: &Path, enrolled: &Value) -> Result<String, EscrowFault> {
        let (file, signed) = (self.folder.join("policy.toml"), self.folder.join("desk.policy"));
        fs::write(self.folder.join("policy.md"), "# What is kept\n\nWhat is said at the desk, for seven years.\n")?;
        fs::write(&file, self.policy_file(enrolled)?)?;
        let mut arguments = vec![OsString::from("policy"), "sign".into(), file.into_os_string()];
        for (option, path) in [
            ("--key", offline.join("policy.key")),
            ("--certificate", offline.join("policy.cert")),
            ("--ceremony", self.court.certificate()),
            ("--out", signed.clone()),
        ] {
            arguments.extend([option.into(), path.into_os_string()]);
        }
        run_os(arguments, None).await?;
        Ok(fs::read_to_string(signed)?)
    }

    fn policy_file(&self, enrolled: &Value) -> Result<String, EscrowFault> {
        let named = |field: &str| {
            let value = enrolled.pointer(&format!("/policy/{field}")).and_then(Value::as_str).unwrap_or_default();
            format!("{field} = \"{value}\"\n")
        };
        let named: String = ["account", "key", "pin", "log_key"].into_iter().map(named).collect();
        let (_, key) = read_certificate(&self.court.certificate()).map_err(io::Error::other)?;
        let archive_key: String = key.public().to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!(
            "id = \"desk\"\nversion = 1\neffective_from = 2020-01-01T00:00:00Z\ndocument = \"policy.md\"\n\
             document_url = \"https://demo.example/policy\"\npurpose = \"Records of the desk.\"\n\
             retention_class = \"seven-years\"\nmode = \"required\"\n\
             [notice]\nen = \"What is said in this group is archived.\"\n\
             [escrow]\n{named}endpoint = \"{}\"\n\
             [archive]\nkey = \"{archive_key}\"\ngeneration = 1\nquorum = {QUORUM}\n{}",
            self.listen,
            self.court.seats()
        ))
    }

    fn ended(&self, status: &str) -> EscrowFault {
        let log = self.folder.join("stderr.log").display().to_string();
        EscrowFault::Command { command: "serve".to_owned(), said: format!("{status}: its output is in {log}") }
    }

    fn silent(&self, what: &'static str) -> EscrowFault {
        EscrowFault::Silent { what, folder: self.folder.clone() }
    }
}

fn json(said: &str) -> Result<Value, EscrowFault> {
    Ok(serde_json::from_str(said).map_err(io::Error::other)?)
}

/// One command that ends by itself, and what it prints.
pub(crate) async fn run_text(arguments: Vec<String>, input: Option<&str>) -> Result<String, EscrowFault> {
    run_os(arguments.into_iter().map(OsString::from).collect(), input).await
}

async fn run_os(arguments: Vec<OsString>, input: Option<&str>) -> Result<String, EscrowFault> {
    let words = arguments.iter().take(2).map(|word| word.to_string_lossy().into_owned());
    let command = words.collect::<Vec<_>>().join(" ");
    let mut child = Command::new(std::env::current_exe()?)
        .args(["escrow", "--"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that reads nothing may have ended.
        let _ = stdin.write_all(format!("{}\n", input.unwrap_or_default()).as_bytes()).await;
    }
    let output = timeout(PATIENCE, child.wait_with_output()).await;
    let output =
        output.map_err(|_| EscrowFault::Command { command: command.clone(), said: "it hangs".to_owned() })??;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(EscrowFault::Command { command, said: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}
