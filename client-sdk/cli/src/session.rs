//! An open client with what all commands need: time limits, and finding groups by name.
//!
//! This module does not print.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use chancery_client::{
    Client, ConnectionState, Error, FileKey, GroupId, GroupStatus, GroupSummary, Identity, OfflineReason,
};

use crate::{args::Args, exit::Failure, show::escape};

/// Digits of an id that are enough to name a group.
const PREFIX_MIN: usize = 8;
/// How long invitations may be behind the relay's first answers.
const SETTLE: Duration = Duration::from_millis(200);
/// How long a list that can do without the relay waits for it.
const GLANCE: Duration = Duration::from_secs(2);

/// An enrolled client.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) identity: Identity,
    patience: Duration,
}

impl Session {
    /// Opens a state folder that exists; makes none.
    pub(crate) async fn open(args: &Args, key: FileKey) -> Result<Self, Failure> {
        let config = args.config()?;
        if !config.has_state() {
            return Err(Failure::not_enrolled());
        }
        let client = Client::open(config, key).await?;
        let Some(identity) = client.identity() else {
            client.shutdown().await?;
            return Err(Failure::not_enrolled());
        };
        Ok(Self { client, identity, patience: args.patience() })
    }

    /// Around a client that has just enrolled.
    pub(crate) fn enrolled(client: Client, identity: Identity, patience: Duration) -> Self {
        Self { client, identity, patience }
    }

    pub(crate) async fn close(self) {
        // What was asked for has been done or reported; a fault in closing changes neither.
        let _ = self.client.shutdown().await;
    }

    /// Waits for what needs the relay, for as long as the user allows.
    pub(crate) async fn within<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        let mut why = None;
        tokio::select! {
            biased;
            result = work => return Ok(result?),
            () = self.watch(&mut why) => {}
            () = tokio::time::sleep(self.patience) => {}
        }
        let why = why.unwrap_or_else(|| "it does not answer".to_owned());
        let seconds = self.patience.as_secs();
        Err(Failure::offline(format!("the relay was not reached within {seconds} s: {why}; {what}")))
    }

    /// Notes why the connection fails. Never ends.
    async fn watch(&self, why: &mut Option<String>) {
        let mut state = self.client.connection();
        loop {
            match &state {
                ConnectionState::Offline { why: OfflineReason::Stopped } => std::future::pending().await,
                ConnectionState::Offline { why: reason } => *why = Some(reason.to_string()),
                ConnectionState::Online => *why = None,
                _ => {}
            }
            state = self.client.connection_changed(&state).await;
        }
    }

    /// Sends what waits and reads what there is.
    pub(crate) async fn flush(&self, what: &str) -> Result<(), Failure> {
        self.within(what, self.client.flush()).await
    }

    /// Looks what is new, if the relay can be reached quickly.
    pub(crate) async fn glance(&self) {
        // What is known without the relay is shown either way.
        let _ = tokio::time::timeout(GLANCE.min(self.patience), self.settle("")).await;
    }

    /// As [`Self::flush`], for who wants to see new invitations too: they come beside the relay's answers, so nothing says
    /// that there are no more of them.
    pub(crate) async fn settle(&self, what: &str) -> Result<(), Failure> {
        self.flush(what).await?;
        tokio::time::sleep(SETTLE).await;
        self.flush(what).await
    }

    /// Finds a group by name or by the beginning of its id; asks the relay for new invitations if there is none.
    pub(crate) async fn group(&self, wanted: &str) -> Result<GroupId, Failure> {
        match find(&self.client.groups().await?, wanted) {
            Found::One(group) => return Ok(group),
            Found::Many(message) => return Err(Failure::usage(message)),
            Found::None => {}
        }
        let began = Instant::now();
        let looked = self.flush("the group may be among what was not received yet").await;
        loop {
            match find(&self.client.groups().await?, wanted) {
                Found::One(group) => return Ok(group),
                Found::Many(message) => return Err(Failure::usage(message)),
                Found::None => {}
            }
            // An invitation may be a moment behind the first answers of the relay.
            if looked.is_err() || began.elapsed() >= self.patience.min(Duration::from_secs(2)) {
                looked?;
                let wanted = escape(wanted);
                return Err(Failure::failed(format!("there is no group {wanted:?}: `chancery group list` shows them")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Everything on standard input, without the line break at its end.
pub(crate) fn standard_input() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    One(GroupId),
    Many(String),
    None,
}

fn find(groups: &[GroupSummary], wanted: &str) -> Found {
    let gone = |group: &GroupSummary| matches!(group.status, GroupStatus::Left | GroupStatus::Removed);
    let named = |with_gone: bool| -> Vec<&GroupSummary> {
        groups.iter().filter(|group| group.name == wanted && gone(group) == with_gone).collect()
    };
    let by_id = || -> Vec<&GroupSummary> {
        let digits = wanted.to_ascii_lowercase();
        let hex = digits.len() >= PREFIX_MIN && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        groups.iter().filter(|group| hex && group.group.to_string().starts_with(&digits)).collect()
    };
    for candidates in [named(false), named(true), by_id()] {
        match candidates.as_slice() {
            [] => {}
            [group] => return Found::One(group.group),
            several => {
                let ids: Vec<String> = several.iter().map(|group| short(&group.group.to_string())).collect();
                let wanted = escape(wanted);
                return Found::Many(format!("{wanted:?} names several groups: use one of the ids {}", ids.join(", ")));
            }
        }
    }
    Found::None
}

/// The digits of an id that a person is shown.
pub(crate) fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use chancery_client::Class;

    use super::*;

    fn group(id: u8, name: &str, status: GroupStatus) -> GroupSummary {
        GroupSummary {
            group: GroupId([id; 32]),
            class: Class::Work,
            name: name.to_owned(),
            epoch: 1,
            status,
            accounts: 1,
            waiting: 0,
            alarm: None,
            stuck_by: None,
            predecessor: None,
            notice_due: false,
            archive: None,
        }
    }

    #[test]
    fn a_group_is_found_by_its_name_or_the_beginning_of_its_id() {
        let groups = [
            group(0xaa, "设计", GroupStatus::Active),
            group(0xbb, "desk", GroupStatus::Active),
            group(0xcc, "desk", GroupStatus::Left),
            group(0xdd, "twice", GroupStatus::Active),
            group(0xee, "twice", GroupStatus::Active),
        ];
        assert_eq!(find(&groups, "设计"), Found::One(GroupId([0xaa; 32])));
        assert_eq!(find(&groups, "desk"), Found::One(GroupId([0xbb; 32])), "one that was left does not count");
        assert_eq!(find(&groups, "CCCCCCCC"), Found::One(GroupId([0xcc; 32])));
        assert_eq!(find(&groups, "ccccccc"), Found::None, "seven digits are too few");
        assert!(matches!(find(&groups, "twice"), Found::Many(text) if text.contains("dddddddddddd")));
        assert_eq!(find(&groups, "nobody"), Found::None);
    }
}
