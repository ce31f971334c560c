//! `chancery read`: what is unread, once; then it is read.

use std::collections::BTreeMap;

use chancery_client::{EventId, GroupId, HostEvent};

use crate::{
    exit::Failure,
    people::People,
    session::Session,
    show::{Output, group_of, is_news},
};

/// Events of one look at the store.
pub(crate) const PAGE: usize = 100;

pub(crate) async fn read(session: &Session, output: &Output, group: Option<&str>, follow: bool) -> Result<(), Failure> {
    let only = match group {
        Some(group) => Some(session.group(group).await?),
        None => None,
    };
    // Offline, what is here is shown all the same, and the exit code says that there may be more.
    let caught_up = if follow { Ok(()) } else { session.settle("this is what had been received before").await };
    let mut reader = Reader::new(session, output, only);
    loop {
        let events = if follow {
            session.client.next_events(PAGE, reader.cursor).await?.events
        } else {
            session.client.events_now(PAGE, reader.cursor).await?
        };
        if events.is_empty() {
            return caught_up;
        }
        reader.take(&events).await?;
    }
}

/// Shows events and acknowledges those that it has shown.
pub(crate) struct Reader<'a> {
    session: &'a Session,
    output: &'a Output,
    only: Option<GroupId>,
    names: BTreeMap<GroupId, String>,
    people: People,
    /// Behind the last event that was looked at.
    pub(crate) cursor: EventId,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(session: &'a Session, output: &'a Output, only: Option<GroupId>) -> Self {
        Self { session, output, only, names: BTreeMap::new(), people: People::default(), cursor: EventId(0) }
    }

    /// Prints the events of the chosen group, or all, and acknowledges just these.
    pub(crate) async fn take(&mut self, events: &[HostEvent]) -> Result<(), Failure> {
        let mut shown = Vec::new();
        for event in events {
            self.cursor = event.id();
            let group = group_of(event);
            if self.only.is_some() && group != self.only {
                continue;
            }
            if self.output.json || is_news(event) {
                let name = self.group_name(group).await?;
                self.meet(event, group).await;
                self.output.event(event, &self.session.client, &self.people, name.as_deref())?;
            }
            shown.push(event.id());
        }
        // Printed first: what is lost between the two is shown twice rather than never.
        if !shown.is_empty() {
            self.session.client.ack_only(&shown).await?;
        }
        Ok(())
    }

    /// Whoever the event may name.
    async fn meet(&mut self, event: &HostEvent, group: Option<GroupId>) {
        self.people.hear(event);
        if let (HostEvent::Other { .. }, Some(group)) = (event, group) {
            // Of a group that this device is out of, what events have said is what is known.
            self.people.meet(&self.session.client.members(group).await.unwrap_or_default());
        }
    }

    /// The name to put before a line, if groups are mixed.
    async fn group_name(&mut self, group: Option<GroupId>) -> Result<Option<String>, Failure> {
        let (None, Some(group)) = (self.only, group) else { return Ok(None) };
        if !self.names.contains_key(&group) {
            for summary in self.session.client.groups().await? {
                self.names.insert(summary.group, summary.name);
            }
        }
        Ok(Some(self.names.get(&group).cloned().unwrap_or_else(|| group.to_string())))
    }
}
