//! A round's processes: one relay, raw clients and people, who talk while the round does something to them.
//!
//! This module decides no fault; [`crate::rounds`] do. It waits by what is heard, never by the clock alone.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

use chancery_client::GroupId;
use chancery_server::Config;
use chancery_tests::history::{Counts, Violation};

use crate::{
    Outcome,
    child::{Child, PATIENCE, Relay},
    deployment,
    disk::Disk,
    lines::{Answer, Order, Says},
    record::{Life, Record},
    store,
};

const RAW: usize = 2;
const GROUPS: usize = 3;
const PEOPLE: [&str; 3] = ["ana", "李雷", "zoë"];
/// The last reader, who was there for nothing.
const AUDITOR: usize = RAW + PEOPLE.len();
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(crate) struct Stage {
    seed: u64,
    /// For what the processes log.
    dir: PathBuf,
    /// Of people.
    homes: PathBuf,
    pub(crate) config: PathBuf,
    program: Option<PathBuf>,
    pub(crate) relay: Option<Relay>,
    /// Raw clients first, then people.
    clients: Vec<Option<Child>>,
    lives: Vec<u32>,
    /// Where people talk.
    group: Option<GroupId>,
    said: Receiver<(usize, Says)>,
    heard: Sender<(usize, Says)>,
    pub(crate) record: Record,
    /// Clients may end.
    closing: bool,
}

/// What a round led to.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) counts: Counts,
    /// Texts that `send` accepted.
    pub(crate) accepted: u64,
    pub(crate) violations: Vec<Violation>,
    pub(crate) troubles: Vec<String>,
}

impl Stage {
    /// Founds the deployment in the folder `relay`; people have theirs in `homes`. Everybody talks when this returns.
    pub(crate) fn open(seed: u64, dir: &Path, (relay, homes): (&Path, &Path), program: Option<&Path>) -> Outcome<Self> {
        let (heard, said) = channel();
        let mut stage = Self {
            seed,
            dir: dir.to_owned(),
            homes: homes.to_owned(),
            config: deployment::found(&relay.join("deployment"))?,
            program: program.map(Path::to_owned),
            relay: None,
            clients: Vec::new(),
            lives: vec![0; AUDITOR + 1],
            group: None,
            said,
            heard,
            record: Record::default(),
            closing: false,
        };
        stage.start_relay(&[])?;
        stage.clients.resize_with(AUDITOR, || None);
        for client in RAW..AUDITOR {
            stage.start_client(client, &[])?;
        }
        stage.gather()?;
        for client in 0..RAW {
            stage.start_client(client, &[])?;
        }
        stage.until("append", |record| record.placed > GROUPS as u64)?;
        Ok(stage)
    }

    /// People enrol, found their group and begin to talk.
    fn gather(&mut self) -> Outcome<()> {
        let mut accounts = Vec::new();
        for (person, name) in PEOPLE.iter().enumerate() {
            let ticket = deployment::ticket(&self.config, name)?;
            match self.ask(RAW + person, Order::Enrol { ticket })? {
                Answer::Account(account) => accounts.push(account),
                other => return Err(format!("{other:?}").into()),
            }
        }
        let Answer::Group(group) = self.ask(RAW, Order::Found { name: "救生 🛟".to_owned() })? else {
            return Err("no group was founded".into());
        };
        for account in accounts.into_iter().skip(1) {
            self.ask(RAW, Order::Invite { group, account })?;
        }
        self.until("be in the group", |record| (RAW..AUDITOR).all(|client| record.joined.contains(&(client, group))))?;
        self.record.talk.members.insert(group, PEOPLE.map(str::to_owned).into());
        self.group = Some(group);
        for client in RAW..AUDITOR {
            self.order(client, &Order::Talk { groups: vec![group] })?;
        }
        Ok(())
    }

    pub(crate) fn clients(&self) -> usize {
        self.clients.len()
    }

    pub(crate) fn name(client: usize) -> String {
        match client.checked_sub(RAW) {
            Some(person) => PEOPLE.get(person).map_or_else(|| "auditor".to_owned(), |name| (*name).to_owned()),
            None => format!("raw-{client}"),
        }
    }

    /// Starts the relay, behind a wrapper if there is one.
    pub(crate) fn start_relay(&mut self, wrapper: &[OsString]) -> Outcome<()> {
        let log = self.dir.join("relay.log");
        self.relay = Some(Relay::start(wrapper, self.program.as_deref(), &self.config, &log)?);
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill_relay(&mut self) -> Outcome<()> {
        self.relay.take().ok_or("no relay")?.kill()
    }

    /// Waits for the relay to die of what its wrapper does to it.
    pub(crate) fn relay_ends(&mut self) -> Outcome<()> {
        let mut relay = self.relay.take().ok_or("no relay")?;
        let give_up = Instant::now() + PATIENCE;
        while relay.ended()?.is_none() {
            self.listen()?;
            if Instant::now() > give_up {
                return Err("the relay does not come to its fsync".into());
            }
        }
        Ok(())
    }

    /// SIGKILL, and another life.
    pub(crate) fn kill_client(&mut self, client: usize) -> Outcome<()> {
        self.end_client(client)?;
        self.revive_client(client, &[])
    }

    /// The power of the disk is cut, people are dead, and the relay, if it runs, stands still. One that is to see what has
    /// happened has no call under way at the cut: an fsync that the cut overtakes may return success.
    pub(crate) fn cut(&mut self, disk: &Disk, seen: bool) -> Outcome<()> {
        if let (true, Some(relay)) = (seen, &self.relay) {
            relay.freeze()?;
        }
        let people = self.clients.iter().skip(RAW).flatten().map(Child::id);
        disk.cut(&people.chain(self.relay.iter().map(Relay::id)).collect::<Vec<_>>())?;
        (RAW..AUDITOR).try_for_each(|client| self.end_client(client))
    }

    /// Another life for all people.
    pub(crate) fn revive_people(&mut self) -> Outcome<()> {
        (RAW..AUDITOR).try_for_each(|client| self.revive_client(client, &[]))
    }

    /// A person, as a number for the other calls.
    pub(crate) fn person(number: usize) -> usize {
        RAW + number % PEOPLE.len()
    }

    /// Database of a person's client.
    pub(crate) fn database(&self, client: usize) -> PathBuf {
        self.home(client).join("state/chancery.db")
    }

    fn home(&self, client: usize) -> PathBuf {
        self.homes.join(format!("home-{client}"))
    }

    /// SIGKILL.
    pub(crate) fn end_client(&mut self, client: usize) -> Outcome<()> {
        self.clients.get_mut(client).and_then(Option::take).map_or(Ok(()), |mut child| child.kill())
    }

    /// Starts it again, behind a wrapper if there is one.
    pub(crate) fn revive_client(&mut self, client: usize, wrapper: &[OsString]) -> Outcome<()> {
        *self.lives.get_mut(client).ok_or("no such client")? += 1;
        self.start_client(client, wrapper)?;
        match self.group {
            Some(group) if client >= RAW => self.order(client, &Order::Talk { groups: vec![group] }),
            _ => Ok(()),
        }
    }

    fn start_client(&mut self, client: usize, wrapper: &[OsString]) -> Outcome<()> {
        let child = self.spawn(client, wrapper)?;
        *self.clients.get_mut(client).ok_or("no such client")? = Some(child);
        Ok(())
    }

    fn spawn(&mut self, client: usize, wrapper: &[OsString]) -> Outcome<Child> {
        let number = self.lives.get(client).copied().unwrap_or_default();
        let name = Self::name(client);
        self.record.lives.push(Life { client, name: name.clone(), number });
        let log = self.dir.join(format!("client-{client}.log"));
        let mut arguments: Vec<OsString> = Vec::new();
        if (RAW..AUDITOR).contains(&client) {
            arguments.extend(["member".into(), self.home(client).into_os_string(), "--name".into(), name.into()]);
        } else {
            arguments.extend(["raw".into(), self.config.clone().into_os_string()]);
            arguments.extend([
                "--number".into(),
                client.to_string().into(),
                "--groups".into(),
                GROUPS.to_string().into(),
            ]);
            arguments.extend((client == AUDITOR).then(|| "--reader".into()));
        }
        arguments.extend(["--seed".into(), self.seed.to_string().into()]);
        arguments.extend(["--life".into(), number.to_string().into()]);
        Child::start(wrapper, &arguments, &log, self.record.lives.len() - 1, &self.heard)
    }

    fn order(&mut self, client: usize, order: &Order) -> Outcome<()> {
        self.clients.get_mut(client).and_then(Option::as_mut).ok_or("no such client")?.order(order)
    }

    fn ask(&mut self, client: usize, order: Order) -> Outcome<Answer> {
        self.record.answers.remove(&client);
        self.order(client, &order)?;
        self.until("do what it was told", |record| record.answers.contains_key(&client))
            .map_err(|error| format!("{}: {error} ({order:?})", Self::name(client)))?;
        Ok(self.record.answers.remove(&client).ok_or("no answer")?)
    }

    /// Listens until it is so.
    pub(crate) fn until(&mut self, what: &str, mut so: impl FnMut(&Record) -> bool) -> Outcome<()> {
        let give_up = Instant::now() + PATIENCE;
        while !so(&self.record) {
            self.listen()?;
            if Instant::now() > give_up {
                return Err(format!("nobody came to {what} within {} s", PATIENCE.as_secs()).into());
            }
        }
        Ok(())
    }

    /// Listens until so many more acknowledgements were heard.
    pub(crate) fn until_acked(&mut self, more: u64) -> Outcome<()> {
        // What waits in the pipes was acknowledged before.
        self.hear_all();
        let enough = self.record.acked + more;
        self.until("hear enough acknowledgements", |record| record.acked >= enough)
    }

    /// Hears what there is, for a moment at most.
    pub(crate) fn listen(&mut self) -> Outcome<()> {
        match self.said.recv_timeout(LOOK_EVERY) {
            Ok((life, says)) => self.record.hear(life, says),
            Err(RecvTimeoutError::Timeout) => self.look()?,
            Err(RecvTimeoutError::Disconnected) => return Err("nobody can be heard".into()),
        }
        Ok(())
    }

    /// Nobody may end by itself, and badly never.
    fn look(&mut self) -> Outcome<()> {
        for (client, child) in self.clients.iter_mut().enumerate() {
            if let Some(child) = child
                && child.ended()?
                && !self.closing
            {
                return Err(format!("{} ended by itself", Self::name(client)).into());
            }
        }
        Ok(())
    }

    /// Lets everything come to rest, has everything read once more, ends all and judges.
    pub(crate) fn close(mut self) -> Outcome<Verdict> {
        self.closing = true;
        for client in RAW..AUDITOR {
            self.ask(client, Order::Quiet)?;
        }
        for client in 0..RAW {
            self.order(client, &Order::Finish)?;
        }
        self.wait(0..RAW)?;
        // First everybody has sent, then everybody has read.
        for _ in 0..2 {
            for client in RAW..AUDITOR {
                self.ask(client, Order::Flush)?;
            }
        }
        for client in RAW..AUDITOR {
            if let Some(group) = self.group {
                let history = self.ask(client, Order::History { group })?;
                self.record.keep_history(&Self::name(client), group, history);
            }
            self.ask(client, Order::Stop)?;
        }
        self.wait(RAW..AUDITOR)?;
        self.clients.push(None);
        self.start_client(AUDITOR, &[])?;
        self.order(AUDITOR, &Order::Finish)?;
        self.wait(AUDITOR..AUDITOR + 1)?;
        self.kill_relay()?;
        self.judge()
    }

    /// Waits until these clients have ended.
    fn wait(&mut self, clients: core::ops::Range<usize>) -> Outcome<()> {
        let give_up = Instant::now() + PATIENCE;
        for client in clients {
            let Some(mut child) = self.clients.get_mut(client).and_then(Option::take) else { continue };
            while !child.ended()? {
                self.listen()?;
                if Instant::now() > give_up {
                    return Err(format!("{} does not come to its end", Self::name(client)).into());
                }
            }
        }
        self.hear_all();
        Ok(())
    }

    /// Hears what lies in the pipes of those who have died.
    pub(crate) fn hear_all(&mut self) {
        while let Ok((life, says)) = self.said.try_recv() {
            self.record.hear(life, says);
        }
    }

    /// Judges what is on disk and was heard until now.
    pub(crate) fn judge(&mut self) -> Outcome<Verdict> {
        self.hear_all();
        self.record.history.kept = store::read(&Config::load(&self.config)?.relay_database())?;
        let mut violations = self.record.history.violations();
        violations.extend(self.record.talk.violations());
        Ok(Verdict {
            counts: self.record.history.counts(),
            accepted: self.record.talk.accepted(),
            violations,
            troubles: std::mem::take(&mut self.record.troubles),
        })
    }
}
