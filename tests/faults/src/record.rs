//! What the processes of a round have said, as the records that the judge of histories takes.
//!
//! This module does not judge.

use std::collections::BTreeMap;

use chancery_client::{AccountId, GroupId};
use chancery_tests::history::{
    Append, History, Reading, Told,
    talk::{Held, Said, Talk},
};

use crate::lines::{Answer, Says};

/// Which life of which client.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) client: usize,
    pub(crate) name: String,
    pub(crate) number: u32,
}

#[derive(Default)]
pub(crate) struct Record {
    pub(crate) lives: Vec<Life>,
    pub(crate) history: History,
    pub(crate) talk: Talk,
    /// Acknowledgements that anybody has heard.
    pub(crate) acked: u64,
    /// Of these, by raw clients.
    pub(crate) placed: u64,
    /// Refusals for lack of space.
    pub(crate) full: u64,
    /// What must not happen.
    pub(crate) troubles: Vec<String>,
    /// By client.
    pub(crate) answers: BTreeMap<usize, Answer>,
    pub(crate) accounts: BTreeMap<usize, Option<AccountId>>,
    pub(crate) joined: Vec<(usize, GroupId)>,
    /// Place in the history by life and number.
    appends: BTreeMap<(usize, u32), usize>,
    readings: BTreeMap<(usize, GroupId), usize>,
    said: BTreeMap<String, usize>,
}

impl Record {
    pub(crate) fn hear(&mut self, life: usize, says: Says) {
        let Some(Life { client, name, number: of_life }) = self.lives.get(life).cloned() else { return };
        match says {
            Says::Sending { number, group, kind, after, behind, id } => {
                self.appends.insert((life, number), self.history.appends.len());
                let (sender, tries) = (format!("{name}, life {of_life}"), vec![Told::Nothing]);
                self.history.appends.push(Append { sender, group, kind, after, behind, id, tries });
            }
            Says::Again { number } => {
                if let Some(append) = self.append(life, number) {
                    append.tries.push(Told::Nothing);
                }
            }
            Says::Answered { number, answer } => {
                self.acked += u64::from(answer.is_ok());
                self.placed += u64::from(answer.is_ok());
                self.full += u64::from(answer == Err(chancery_client::Refusal::StoreFull));
                if let Some(told) = self.append(life, number).and_then(|append| append.tries.last_mut()) {
                    *told = answer.map_or_else(Told::Refused, Told::Placed);
                }
            }
            Says::Reading { group, from } => {
                self.readings.insert((life, group), self.history.readings.len());
                let reader = format!("{name}, life {of_life}");
                self.history.readings.push(Reading { reader, group, from, entries: Vec::new() });
            }
            Says::Read { group, entries } => {
                let reading = self.readings.get(&(life, group)).and_then(|at| self.history.readings.get_mut(*at));
                match reading {
                    Some(reading) => reading.entries.extend(entries),
                    None => self.troubles.push(format!("{name} reads what it has not asked for")),
                }
            }
            Says::Ready { account } => drop(self.accounts.insert(client, account)),
            Says::Did(answer) => drop(self.answers.insert(client, answer)),
            Says::Saying { group, text } => {
                self.said.insert(text.clone(), self.talk.said.len());
                self.talk.said.push(Said { member: name, group, text, accepted: None });
            }
            Says::Said { text, id } => {
                self.acked += 1;
                if let Some(said) = self.said.get(&text).and_then(|at| self.talk.said.get_mut(*at)) {
                    said.accepted = Some(id);
                }
            }
            Says::Told { event, group, seq } => drop(self.talk.told.insert((name, event, group, seq))),
            Says::Joined { group } => self.joined.push((client, group)),
            Says::Trouble(what) => self.troubles.push(format!("{name}, life {of_life}: {what}")),
        }
    }

    fn append(&mut self, life: usize, number: u32) -> Option<&mut Append> {
        self.appends.get(&(life, number)).and_then(|at| self.history.appends.get_mut(*at))
    }

    pub(crate) fn keep_history(&mut self, name: &str, group: GroupId, answer: Answer) {
        if let Answer::History(texts) = answer {
            let held = texts.into_iter().map(|(seq, id, text)| Held { seq, id, text }).collect();
            self.talk.histories.insert((name.to_owned(), group), held);
        }
    }
}
