//! Turns a transcript into what has to be done, by whom, and who must read what.
//!
//! This module starts nothing and knows no process; it refuses what cannot be played, by line number.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use chancery_protocol::mls::charter::Class;

use crate::{
    canary,
    transcript::{self, Act, Line, Problem, TranscriptError},
};

/// Most identities: each is a process of its own.
pub const PEOPLE_MAX: usize = 128;
/// Most groups.
pub const GROUPS_MAX: usize = 1_000;
/// Most lines.
pub const LINES_MAX: usize = 100_000;
/// Most bytes of text, all lines together.
pub const TEXT_TOTAL_MAX: usize = 256 * 1024 * 1024;
// What follows bounds the work, not the length: each takes about two minutes on two cores, so that every
// transcript that is accepted ends within minutes.
/// Most texts, each counted once for each of its readers.
pub const DELIVERIES_MAX: usize = 1_000_000;
/// Most bytes of text, each text counted once for each of its readers.
pub const DELIVERED_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Most members who see somebody come or go, all such moments together: each is an MLS commit for each of them.
pub const COMMITS_READ_MAX: usize = 120_000;

/// Where a person is at home: one name is two identities if it stands in personal and in other groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Home {
    /// An account at the organisation.
    Tenant,
    /// The person's own account.
    Personal,
}

/// One identity: an account, a device, a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// From 0, in order of appearance.
    pub index: usize,
    /// As in the transcript.
    pub name: String,
    /// Tenant account or personal one.
    pub home: Home,
}

impl Person {
    /// The name, marked if the account is a personal one.
    #[must_use]
    pub fn label(&self) -> String {
        match self.home {
            Home::Tenant => self.name.clone(),
            Home::Personal => format!("{} (personal)", self.name),
        }
    }
}

/// One group of the transcript.
#[derive(Debug, PartialEq, Eq)]
pub struct PlannedGroup {
    /// From 0, in order of appearance.
    pub index: usize,
    /// As in the transcript.
    pub name: String,
    /// As founded: padded, so that it can be searched for.
    pub title: String,
    /// For life.
    pub class: Class,
}

/// One text.
#[derive(Debug)]
pub struct PlannedMessage {
    /// Line in the transcript.
    pub line: usize,
    /// Where.
    pub group: Arc<PlannedGroup>,
    /// Who.
    pub from: Arc<Person>,
    /// As sent: padded, so that it can be searched for.
    pub text: String,
    /// Members at this point.
    pub members: Arc<[Arc<Person>]>,
}

impl PlannedMessage {
    /// Who must get it: each member but the sender.
    pub fn readers(&self) -> impl Iterator<Item = &Arc<Person>> {
        self.members.iter().filter(|person| person.index != self.from.index)
    }
}

/// One thing to do in a group, after everything before it in that group.
#[derive(Clone, Debug)]
pub enum Deed {
    /// Found the group.
    Found {
        /// Its first member.
        by: Arc<Person>,
    },
    /// Add somebody, when all that was sent before is placed.
    Join {
        /// Whom.
        who: Arc<Person>,
        /// By a member; members take turns.
        by: Arc<Person>,
    },
    /// Let somebody go, when all that was sent before is placed.
    Leave {
        /// Who.
        who: Arc<Person>,
        /// Nobody stays: the group is over, and there is nobody to commit a removal.
        last: bool,
    },
    /// Send a text.
    Say(Arc<PlannedMessage>),
}

/// A deed and where it belongs.
#[derive(Clone, Debug)]
pub struct Step {
    /// Line in the transcript.
    pub line: usize,
    /// In which group.
    pub group: Arc<PlannedGroup>,
    /// What.
    pub deed: Deed,
}

/// Everything to do, in the order of the transcript.
#[derive(Debug)]
pub struct Plan {
    /// All identities.
    pub people: Vec<Arc<Person>>,
    /// All groups.
    pub groups: Vec<Arc<PlannedGroup>>,
    /// All deeds.
    pub steps: Vec<Step>,
    /// In how many groups each identity ever is, by its index.
    pub busy: Vec<usize>,
    /// Who is in each group at the end, by its index.
    pub finals: Vec<Arc<[Arc<Person>]>>,
}

/// A transcript cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A line is at fault.
    #[error(transparent)]
    Transcript(#[from] TranscriptError),
    /// No randomness for canaries.
    #[error("the operating system gives no randomness: {0}")]
    Randomness(#[from] getrandom::Error),
}

impl Plan {
    /// Reads a whole transcript.
    ///
    /// # Errors
    /// The first line that cannot be played.
    pub fn read(transcript: &[u8]) -> Result<Self, PlanError> {
        let mut planner = Planner::default();
        for line in transcript::lines(transcript) {
            planner.add(line?)?;
        }
        if planner.steps.is_empty() {
            return Err(TranscriptError { line: 1, problem: Problem::Empty }.into());
        }
        let mut busy = vec![0; planner.people.len()];
        for group in &planner.groups {
            for index in &group.ever {
                if let Some(count) = busy.get_mut(*index) {
                    *count += 1;
                }
            }
        }
        let (groups, finals) = planner.groups.into_iter().map(|group| (group.planned, group.members)).unzip();
        Ok(Self { people: planner.people, groups, steps: planner.steps, busy, finals })
    }

    /// All texts, in order.
    pub fn messages(&self) -> impl Iterator<Item = &Arc<PlannedMessage>> {
        self.steps.iter().filter_map(|step| match &step.deed {
            Deed::Say(message) => Some(message),
            _ => None,
        })
    }

    /// Who is in the most groups.
    #[must_use]
    pub fn busiest(&self) -> Option<&Arc<Person>> {
        let most = self.busy.iter().max()?;
        self.people.iter().zip(&self.busy).find(|(_, busy)| *busy == most).map(|(person, _)| person)
    }
}

struct GroupState {
    planned: Arc<PlannedGroup>,
    members: Arc<[Arc<Person>]>,
    ever: Vec<usize>,
    invitations: usize,
}

#[derive(Default)]
struct Planner {
    people: Vec<Arc<Person>>,
    known: HashMap<(Home, String), usize>,
    groups: Vec<GroupState>,
    names: BTreeMap<String, usize>,
    steps: Vec<Step>,
    lines: usize,
    text: usize,
    deliveries: usize,
    delivered_bytes: usize,
    commits_read: usize,
}

impl Planner {
    fn add(&mut self, line: Line) -> Result<(), PlanError> {
        let number = line.number;
        let at = |problem| TranscriptError { line: number, problem };
        let too_many = |what, max| at(Problem::TooMany { what, max });
        self.lines += 1;
        if self.lines > LINES_MAX {
            return Err(too_many("lines", LINES_MAX).into());
        }
        let group = self.group(&line)?;
        let (name, text) = match line.act {
            Act::Leave(who) => {
                self.change(group, true).map_err(at)?;
                return self.leave(number, group, &who).map_err(|problem| at(problem).into());
            }
            Act::Join(who) => (who, None),
            Act::Say { from, text } => (from, Some(text)),
        };
        let person = self.person(group, name).map_err(at)?;
        let joined = self.enter(number, group, &person);
        self.change(group, joined).map_err(at)?;
        let Some(state) = self.groups.get(group) else { return Ok(()) };
        let Some(text) = text else {
            let problem = Problem::AlreadyMember { person: person.name.clone(), group: state.planned.name.clone() };
            return if joined { Ok(()) } else { Err(at(problem).into()) };
        };
        self.text += text.len();
        if self.text > TEXT_TOTAL_MAX {
            return Err(too_many("bytes of text", TEXT_TOTAL_MAX).into());
        }
        let readers = state.members.len().saturating_sub(1);
        self.deliveries += readers;
        self.delivered_bytes += readers * text.len();
        if self.deliveries > DELIVERIES_MAX {
            return Err(too_many("texts times readers", DELIVERIES_MAX).into());
        }
        if self.delivered_bytes > DELIVERED_BYTES_MAX {
            return Err(too_many("bytes of text times readers", DELIVERED_BYTES_MAX).into());
        }
        let message = Arc::new(PlannedMessage {
            line: number,
            group: Arc::clone(&state.planned),
            from: person,
            text: canary::pad(&text)?,
            members: Arc::clone(&state.members),
        });
        self.steps.push(Step { line: number, group: Arc::clone(&state.planned), deed: Deed::Say(message) });
        Ok(())
    }

    /// The group of a line, made if it is the first.
    fn group(&mut self, line: &Line) -> Result<usize, PlanError> {
        let at = |problem| TranscriptError { line: line.number, problem };
        if let Some(index) = self.names.get(&line.group) {
            let was = self.groups.get(*index).map(|state| state.planned.class);
            return match (was, line.class) {
                (Some(was), Some(given)) if was != given => {
                    Err(at(Problem::ClassChanged { group: line.group.clone(), was, given }).into())
                }
                _ => Ok(*index),
            };
        }
        let class = line.class.ok_or_else(|| at(Problem::ClassMissing(line.group.clone())))?;
        if let Act::Leave(who) = &line.act {
            return Err(at(Problem::NotMember { person: who.clone(), group: line.group.clone() }).into());
        }
        let index = self.groups.len();
        if index >= GROUPS_MAX {
            return Err(at(Problem::TooMany { what: "groups", max: GROUPS_MAX }).into());
        }
        let planned =
            Arc::new(PlannedGroup { index, name: line.group.clone(), title: canary::pad(&line.group)?, class });
        self.groups.push(GroupState { planned, members: Arc::from([]), ever: Vec::new(), invitations: 0 });
        self.names.insert(line.group.clone(), index);
        Ok(index)
    }

    fn home(&self, group: usize) -> Home {
        match self.groups.get(group).map(|state| state.planned.class) {
            Some(Class::Personal) => Home::Personal,
            _ => Home::Tenant,
        }
    }

    fn person(&mut self, group: usize, name: String) -> Result<Arc<Person>, Problem> {
        let home = self.home(group);
        let key = (home, name);
        if let Some(person) = self.known.get(&key).and_then(|index| self.people.get(*index)) {
            return Ok(Arc::clone(person));
        }
        let index = self.people.len();
        if index >= PEOPLE_MAX {
            return Err(Problem::TooMany { what: "people", max: PEOPLE_MAX });
        }
        let person = Arc::new(Person { index, name: key.1.clone(), home });
        self.people.push(Arc::clone(&person));
        self.known.insert(key, index);
        Ok(person)
    }

    /// Counts who sees somebody come or go.
    fn change(&mut self, group: usize, changed: bool) -> Result<(), Problem> {
        let members = self.groups.get(group).map_or(0, |state| state.members.len());
        self.commits_read += if changed { members } else { 0 };
        if self.commits_read > COMMITS_READ_MAX {
            let what = "joins and leaves times members";
            return Err(Problem::TooMany { what, max: COMMITS_READ_MAX });
        }
        Ok(())
    }

    /// Makes a person a member; `false` if it is one already.
    fn enter(&mut self, line: usize, group: usize, who: &Arc<Person>) -> bool {
        let Some(state) = self.groups.get_mut(group) else { return false };
        if state.members.iter().any(|member| member.index == who.index) {
            return false;
        }
        // Members invite in turn: a relay may limit how many people one account adds.
        let inviter = state.invitations.checked_rem(state.members.len()).and_then(|turn| state.members.get(turn));
        let deed = match inviter {
            None => Deed::Found { by: Arc::clone(who) },
            Some(by) => {
                state.invitations += 1;
                Deed::Join { who: Arc::clone(who), by: Arc::clone(by) }
            }
        };
        state.members = state.members.iter().chain([who]).cloned().collect();
        if !state.ever.contains(&who.index) {
            state.ever.push(who.index);
        }
        self.steps.push(Step { line, group: Arc::clone(&state.planned), deed });
        true
    }

    fn leave(&mut self, line: usize, group: usize, name: &str) -> Result<(), Problem> {
        let Some(state) = self.groups.get_mut(group) else { return Ok(()) };
        let Some(who) = state.members.iter().find(|member| member.name == name).cloned() else {
            return Err(Problem::NotMember { person: name.to_owned(), group: state.planned.name.clone() });
        };
        state.members = state.members.iter().filter(|member| member.index != who.index).cloned().collect();
        let deed = Deed::Leave { who, last: state.members.is_empty() };
        self.steps.push(Step { line, group: Arc::clone(&state.planned), deed });
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn plan(lines: &[&str]) -> Plan {
        Plan::read(lines.join("\n").as_bytes()).unwrap()
    }

    fn refused(lines: &[&str]) -> TranscriptError {
        match Plan::read(lines.join("\n").as_bytes()) {
            Err(PlanError::Transcript(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    fn deeds(plan: &Plan) -> Vec<String> {
        let word = |step: &Step| match &step.deed {
            Deed::Found { by } => format!("{} founds", by.label()),
            Deed::Join { who, by } => format!("{} adds {}", by.label(), who.label()),
            Deed::Leave { who, last } => format!("{} leaves{}", who.label(), if *last { ", last" } else { "" }),
            Deed::Say(message) => {
                let readers: Vec<String> = message.readers().map(|person| person.label()).collect();
                format!("{} to {}", message.from.label(), readers.join("+"))
            }
        };
        plan.steps.iter().map(word).collect()
    }

    const DESK: &str = r#"{"group":"desk","class":"work","from":"ana","text":"good morning to the desk"}"#;

    #[test]
    fn what_could_not_be_played_in_minutes_is_refused_by_its_line() {
        let crowd = |n: usize| format!(r#"{{"group":"g","class":"work","join":"p{n}"}}"#);
        let mut lines: Vec<String> = (0..101).map(crowd).collect();
        let turns = [r#"{"group":"g","leave":"p100"}"#.to_owned(), crowd(100)];
        lines.extend(turns.iter().cycle().take(5_000).cloned());
        let error = refused(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(error.to_string().contains("joins and leaves"), "{error}");
        assert!(error.line > 1_200 && error.line < 1_300, "{error}");

        lines.truncate(101);
        lines.extend((0..10_100).map(|_| r#"{"group":"g","from":"p0","text":"to a hundred readers"}"#.to_owned()));
        let error = refused(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(error.to_string().contains("texts times readers"), "{error}");
    }

    #[test]
    fn who_speaks_is_a_member_from_then_on() {
        let plan = plan(&[
            DESK,
            r#"{"group":"desk","from":"li","text":"hi"}"#,
            r#"{"group":"desk","join":"omar"}"#,
            r#"{"group":"desk","leave":"ana"}"#,
            r#"{"group":"desk","from":"omar","text":"bye"}"#,
        ]);
        let expected =
            ["ana founds", "ana to ", "ana adds li", "li to ana", "li adds omar", "ana leaves", "omar to li"];
        assert_eq!(deeds(&plan), expected);
    }

    #[test]
    fn a_name_in_a_personal_group_is_another_identity() {
        let plan = plan(&[DESK, r#"{"group":"home","class":"personal","join":"ana"}"#]);
        assert_eq!(deeds(&plan), ["ana founds", "ana to ", "ana (personal) founds"]);
        assert_eq!(plan.people.len(), 2);
    }

    #[test]
    fn a_group_that_everybody_left_is_founded_anew() {
        let plan = plan(&[DESK, r#"{"group":"desk","leave":"ana"}"#, DESK]);
        assert_eq!(deeds(&plan), ["ana founds", "ana to ", "ana leaves, last", "ana founds", "ana to "]);
    }

    #[test]
    fn what_does_not_fit_is_named_by_line() {
        let join_twice = refused(&[DESK, "", r#"{"group":"desk","join":"ana"}"#]);
        assert_eq!(join_twice.line, 3);
        assert!(matches!(join_twice.problem, Problem::AlreadyMember { .. }));
        let stranger = refused(&[DESK, r#"{"group":"desk","leave":"li"}"#]);
        assert!(matches!(stranger, TranscriptError { line: 2, problem: Problem::NotMember { .. } }));
        let changed = refused(&[DESK, r#"{"group":"desk","class":"personal","join":"li"}"#]);
        assert!(matches!(changed, TranscriptError { line: 2, problem: Problem::ClassChanged { .. } }));
        let classless = refused(&[r#"{"group":"desk","from":"ana","text":"hi"}"#]);
        assert!(matches!(classless, TranscriptError { line: 1, problem: Problem::ClassMissing(_) }));
        assert!(matches!(refused(&["", ""]), TranscriptError { line: 1, problem: Problem::Empty }));
    }

    #[test]
    fn more_people_than_processes_are_refused_where_they_appear() {
        let lines: Vec<String> =
            (0..=PEOPLE_MAX).map(|n| format!(r#"{{"group":"g","class":"work","from":"p{n}","text":""}}"#)).collect();
        let error = refused(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(error.line, PEOPLE_MAX + 1);
        assert!(error.to_string().contains("128 people"), "{error}");
    }

    #[test]
    fn short_texts_and_names_can_be_searched_for() {
        let plan = plan(&[r#"{"group":"desk","class":"work","from":"ana","text":"ok"}"#]);
        assert!(plan.groups.iter().all(|group| group.title.starts_with("desk ~")));
        assert!(plan.messages().all(|message| message.text.starts_with("ok ~")));
    }
}
