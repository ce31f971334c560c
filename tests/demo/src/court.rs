//! The officers of the archive, by their own commands: a ceremony of five seats that gives its key, a case that three of them
//! open and two do not, and an export that verifies.
//!
//! This module opens nothing itself, and holds no share: each officer's is in a folder of its own, sealed under a passphrase.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::escrow_process::{EscrowFault, run_text};

/// Seats, each an officer with a class of its own in the policy.
pub const SEATS: [(&str, &str); 5] = [
    ("counsel", "legal"),
    ("deputy", "legal"),
    ("privacy", "privacy_officer"),
    ("council", "works_council"),
    ("custodian", "outside_custodian"),
];
/// How many of them open together.
pub const QUORUM: usize = 3;
/// Who asks.
const REQUESTER: &str = "investigator";
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What came of a case.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// Records that were released to three seats.
    pub by_k: u64,
    /// Records that were released to two.
    pub by_fewer: u64,
    /// Whether the export verifies.
    pub verified: bool,
    /// Its records, one JSON object per line.
    pub records: String,
}

/// The officers' folders.
#[derive(Debug)]
pub struct Court {
    dir: PathBuf,
    tenant: String,
    /// Ed25519 keys of the seats, in their order, and of who asks.
    keys: Vec<String>,
    requester: String,
}

impl Court {
    /// Makes the officers' folders and holds the ceremony, round by round.
    ///
    /// # Errors
    /// A command refuses.
    pub async fn hold_ceremony(dir: &Path, tenant: &str) -> Result<Self, EscrowFault> {
        fs::create_dir_all(dir)?;
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        let words: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(dir.join("passphrase"), format!("{words}\n"))?;
        let mut court =
            Self { dir: dir.to_owned(), tenant: tenant.to_owned(), keys: Vec::new(), requester: String::new() };
        let names: Vec<&str> = SEATS.iter().map(|(name, _)| *name).chain([REQUESTER]).collect();
        let made = court.everybody(&names, |name| {
            let seat = text(&dir.join(format!("{name}.seat")));
            vec![
                "seat".into(),
                "new".into(),
                "--name".into(),
                name.into(),
                "--out".into(),
                seat,
                "--kdf-mib".into(),
                "8".into(),
            ]
        });
        for said in made.await? {
            let key = said.lines().find_map(|line| line.strip_prefix("key ")).unwrap_or_default().to_owned();
            court.keys.push(key);
        }
        court.requester = court.keys.pop().unwrap_or_default();
        let plan = text(&dir.join("ceremony"));
        let quorum = QUORUM.to_string();
        let mut arguments: Vec<String> =
            ["seat", "plan", &plan, "--tenant", tenant, "--generation", "1", "--quorum", &quorum]
                .map(String::from)
                .into();
        arguments.extend(SEATS.iter().map(|(name, _)| text(&dir.join(format!("{name}.seat")))));
        run_text(arguments, None).await?;
        let seats: Vec<&str> = SEATS.iter().map(|(name, _)| *name).collect();
        for round in ["commit", "share", "confirm", "certify"] {
            court.everybody(&seats, |_| vec!["seat".into(), round.into(), plan.clone()]).await?;
        }
        Ok(court)
    }

    /// What the ceremony has made.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("ceremony/archive.cert")
    }

    /// The seats as a policy's file names them.
    #[must_use]
    pub fn seats(&self) -> String {
        let seat = |((name, class), key): (&(&str, &str), &String)| {
            format!("[[seat]]\nname = \"{name}\"\nclass = \"{class}\"\nkey = \"{key}\"\n")
        };
        SEATS.iter().zip(&self.keys).map(seat).collect()
    }

    /// The node's operator lets this court in.
    ///
    /// # Errors
    /// The node's folder is not ready for officers in time.
    pub async fn admit(&self, node: &Path) -> Result<(), EscrowFault> {
        let officers = node.join("officers");
        appears(&officers.join("certificates")).await?;
        fs::copy(self.certificate(), officers.join("certificates/1.cert"))?;
        fs::write(officers.join("requesters"), format!("{} {REQUESTER}\n", self.requester))?;
        Ok(())
    }

    /// A case for everything that is archived: two seats try, a third one joins, then the export.
    ///
    /// # Errors
    /// A command refuses that should not.
    pub async fn open_case(&self, node: &Path, log_key: &str) -> Result<Opened, EscrowFault> {
        let names: Vec<&str> = SEATS.iter().map(|(name, _)| *name).chain([REQUESTER]).collect();
        let may_ask = format!("{}={REQUESTER}", self.requester);
        let trust = self.everybody(&names, |_| {
            ["seat", "trust", "--tenant", &self.tenant, "--log-key", log_key, "--requester", &may_ask]
                .map(String::from)
                .into()
        });
        trust.await?;
        let order = self.dir.join("catalogue.order");
        let days = ["case", "catalogue", "--first", "2020-01-01", "--last", "2999-12-31", "--out", &text(&order)];
        self.officer(REQUESTER, days.map(String::from).into()).await?;
        self.hand_in(node, &order, "catalogue").await?;
        let catalogue = node.join("officers/out/catalogue.catalogue");
        appears(&catalogue).await?;
        let case = self.dir.join("case");
        let words: [&str; 14] = [
            "case",
            "open",
            "--dir",
            &text(&case),
            "--catalogue",
            &text(&catalogue),
            "--certificate",
            &text(&self.certificate()),
            "--case",
            "demo-1",
            "--legal-basis",
            "order 14 C 3",
            "--purpose",
            "the demo",
        ];
        self.officer(REQUESTER, words.map(String::from).into()).await?;
        let said = self.hand_in(node, &case.join("request"), "request").await?;
        let hash = said.split_once("request ").and_then(|(_, rest)| rest.get(..64)).unwrap_or_default().to_owned();
        for name in ["dossier", "material"] {
            let put_out = node.join(format!("officers/out/{hash}.{name}"));
            appears(&put_out).await?;
            fs::copy(put_out, case.join(name))?;
        }
        let mut opened = Opened::default();
        let combine = || ["case", "combine", "--dir", &text(&case)].map(String::from).to_vec();
        for (number, (seat, _)) in SEATS.iter().take(QUORUM).enumerate() {
            if number + 1 == QUORUM {
                // One seat fewer than it takes: if that opens anything, it is counted.
                opened.by_fewer = match self.officer(REQUESTER, combine()).await {
                    Ok(said) => first_number(&said),
                    Err(EscrowFault::Command { .. }) => 0,
                    Err(fault) => return Err(fault),
                };
            }
            self.approve(node, &case, seat).await?;
        }
        self.officer(REQUESTER, combine()).await?;
        let export = self.dir.join("export");
        let words = ["case", "export", "--dir", &text(&case), "--out", &text(&export)];
        self.officer(REQUESTER, words.map(String::from).into()).await?;
        self.hand_in(node, &case.join("close"), "close").await?;
        let closing = node.join(format!("officers/out/{hash}.closing"));
        appears(&closing).await?;
        let words = ["case", "close", "--dir", &text(&case), "--closing", &text(&closing)];
        self.officer(REQUESTER, words.map(String::from).into()).await?;
        let words = ["verify", &text(&export), "--tenant", &self.tenant, "--log-key", log_key, "--json"];
        let verified = run_text(words.map(String::from).into(), None).await;
        let verified: Option<Value> = verified.ok().and_then(|said| serde_json::from_str(&said).ok());
        opened.verified = verified.is_some_and(|said| said.get("verified") == Some(&Value::Bool(true)));
        opened.records = fs::read_to_string(export.join("records.jsonl"))?;
        opened.by_k = opened.records.lines().count() as u64;
        Ok(opened)
    }

    /// A seat approves; its answer goes to the node's log first, then into the case.
    async fn approve(&self, node: &Path, case: &Path, seat: &str) -> Result<(), EscrowFault> {
        let (dossier, answer) = (case.join("dossier"), self.dir.join(format!("{seat}.answer")));
        let words = ["seat", "approve", &text(&dossier), "--out", &text(&answer), "--reason", "as ordered"];
        self.officer(seat, words.map(String::from).into()).await?;
        self.hand_in(node, &answer, &format!("{seat}.answer")).await?;
        fs::create_dir_all(case.join("answers"))?;
        fs::copy(&answer, case.join("answers").join(format!("{seat}.answer")))?;
        Ok(())
    }

    /// Hands a file in at the node, and waits for what it says.
    async fn hand_in(&self, node: &Path, file: &Path, name: &str) -> Result<String, EscrowFault> {
        let (folder, out) = (node.join("officers/in"), node.join("officers/out"));
        fs::copy(file, folder.join(format!(".{name}")))?;
        fs::rename(folder.join(format!(".{name}")), folder.join(name))?;
        let (done, refused) = (out.join(format!("{name}.done")), out.join(format!("{name}.refused")));
        let answered = async {
            while !(done.exists() || refused.exists()) {
                sleep(LOOK_EVERY).await;
            }
        };
        if timeout(PATIENCE, answered).await.is_err() {
            return Err(EscrowFault::Silent { what: "answer its officers", folder: out });
        }
        match fs::read_to_string(&refused) {
            Ok(said) => Err(EscrowFault::Command { command: name.to_owned(), said }),
            Err(_) => Ok(fs::read_to_string(&done)?),
        }
    }

    async fn officer(&self, name: &str, command: Vec<String>) -> Result<String, EscrowFault> {
        run_text(self.as_officer(name, command), None).await
    }

    fn as_officer(&self, name: &str, mut command: Vec<String>) -> Vec<String> {
        let own = ["--officer".to_owned(), text(&self.dir.join(name))];
        command.extend(own);
        command.extend(["--passphrase-file".to_owned(), text(&self.dir.join("passphrase"))]);
        command
    }

    /// The same command of several officers, side by side; what they print, in their order.
    async fn everybody(
        &self,
        names: &[&str],
        command: impl Fn(&str) -> Vec<String>,
    ) -> Result<Vec<String>, EscrowFault> {
        let mut running = JoinSet::new();
        for (number, name) in names.iter().enumerate() {
            let arguments = self.as_officer(name, command(name));
            running.spawn(async move { (number, run_text(arguments, None).await) });
        }
        let mut said = vec![String::new(); names.len()];
        while let Some(done) = running.join_next().await {
            let (number, outcome) = done.map_err(io::Error::other)?;
            if let Some(place) = said.get_mut(number) {
                *place = outcome?;
            }
        }
        Ok(said)
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn first_number(said: &str) -> u64 {
    let digits: String = said.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(u64::MAX)
}

async fn appears(path: &Path) -> Result<(), EscrowFault> {
    let there = async {
        while !path.exists() {
            sleep(LOOK_EVERY).await;
        }
    };
    let folder = path.parent().unwrap_or(path).to_owned();
    timeout(PATIENCE, there).await.map_err(|_| EscrowFault::Silent { what: "put out what it should", folder })
}
