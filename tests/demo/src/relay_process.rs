//! The relay as the controller holds it: found, invite, start, kill, start again, stop.
//!
//! The server is used as an operator uses it: its own `init` and `account` code fill the folder, and the process runs its
//! own `serve`. This module does not look into what the relay keeps; [`crate::plaintext`] does.

use std::{
    fs::{self, OpenOptions},
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{
    child_relay::{self, RelayError},
    plan::{Home, Person},
};

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The relay did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum RelayFault {
    /// The server's own code refuses.
    #[error("the relay: {0}")]
    Server(#[from] RelayError),
    /// The operating system refuses.
    #[error("the relay's process or folder: {0}")]
    Io(#[from] io::Error),
    /// It ended.
    #[error("the relay ended by itself ({status}): its output is in {folder}")]
    Ended {
        /// How.
        status: String,
        /// Where its output is.
        folder: PathBuf,
    },
    /// It does not serve.
    #[error("the relay did not {what} within {} s: its output is in {folder}", PATIENCE.as_secs())]
    Silent {
        /// What it should have done.
        what: &'static str,
        /// Where its output is.
        folder: PathBuf,
    },
}

/// A relay with registrar, its folder and its captured output.
#[derive(Debug)]
pub struct RelayProcess {
    folder: PathBuf,
    child: Option<Child>,
}

impl RelayProcess {
    /// Fills a folder with a new organisation and a relay on a free port of this machine.
    ///
    /// # Errors
    /// No port is free, or the folder cannot be filled.
    pub fn found(folder: &Path) -> Result<Self, RelayFault> {
        fs::create_dir_all(folder)?;
        let relay = Self { folder: folder.to_owned(), child: None };
        child_relay::found(&relay.state(), free_port()?)?;
        Ok(relay)
    }

    /// Everything that the relay stores or logs is below this folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A ticket for an account, for its first device.
    ///
    /// # Errors
    /// The registrar refuses.
    pub fn ticket(&self, person: &Person) -> Result<String, RelayFault> {
        let mut registrar = self.registrar()?;
        Ok(match person.home {
            Home::Tenant | Home::Partner => registrar.account(&person.name, person.index)?,
            Home::Personal => registrar.personal()?,
        })
    }

    /// What its operator does.
    ///
    /// # Errors
    /// The registrar cannot be opened.
    pub fn registrar(&self) -> Result<child_relay::Registrar, RelayFault> {
        Ok(child_relay::Registrar::open(&self.state())?)
    }

    /// Starts the process, and waits until it listens.
    ///
    /// # Errors
    /// It cannot be started, or ends.
    pub async fn start(&mut self) -> Result<(), RelayFault> {
        let said = self.folder.join("stdout.log");
        let before = fs::metadata(&said).map_or(0, |file| file.len());
        let log = |name: &str| OpenOptions::new().create(true).append(true).open(self.folder.join(name));
        let mut child = Command::new(std::env::current_exe()?)
            .arg("relay")
            .arg(self.state())
            .stdin(Stdio::piped())
            .stdout(log("stdout.log")?)
            .stderr(log("stderr.log")?)
            .kill_on_drop(true)
            .spawn()?;
        let serving = async {
            // It says one line when it listens.
            while fs::metadata(&said)?.len() <= before {
                if let Some(status) = child.try_wait()? {
                    return Err(RelayFault::Ended { status: status.to_string(), folder: self.folder.clone() });
                }
                sleep(LOOK_EVERY).await;
            }
            Ok(())
        };
        timeout(PATIENCE, serving).await.map_err(|_| self.silent("begin to serve"))??;
        self.child = Some(child);
        Ok(())
    }

    /// Kills the process, and starts it again after a pause.
    ///
    /// # Errors
    /// It does not come back.
    pub async fn crash(&mut self, pause: Duration) -> Result<(), RelayFault> {
        self.alive()?;
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        sleep(pause).await;
        self.start().await
    }

    /// Lets the relay close its store and end.
    ///
    /// # Errors
    /// It had ended before, or does not end.
    pub async fn stop(&mut self) -> Result<(), RelayFault> {
        self.alive()?;
        let Some(mut child) = self.child.take() else { return Ok(()) };
        // The end of its input tells it to stop.
        drop(child.stdin.take());
        let status = timeout(PATIENCE, child.wait()).await.map_err(|_| self.silent("stop"))??;
        if status.success() {
            return Ok(());
        }
        Err(RelayFault::Ended { status: status.to_string(), folder: self.folder.clone() })
    }

    /// Finds out whether the process still runs.
    ///
    /// # Errors
    /// It does not.
    pub fn alive(&mut self) -> Result<(), RelayFault> {
        match self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
            Some(status) => Err(RelayFault::Ended { status: status.to_string(), folder: self.folder.clone() }),
            None => Ok(()),
        }
    }

    /// The deployment's folder, as its operator uses it.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn silent(&self, what: &'static str) -> RelayFault {
        RelayFault::Silent { what, folder: self.folder.clone() }
    }
}

/// A port that is free at this moment. The relay keeps it across restarts, so that tickets and clients find it again.
fn free_port() -> io::Result<SocketAddr> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
