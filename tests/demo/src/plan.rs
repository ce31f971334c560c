//! Turns a transcript into what has to be done, by whom, and who must read what.
//!
//! This module starts nothing and knows no process; it refuses what cannot be played, by line number.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
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
    /// An account at the partner, another organisation with a registrar of its own.
    Partner,
}

/// One device of an account, and its process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// From 0, in order of appearance.
    pub index: usize,
    /// As in the transcript.
    pub name: String,
    /// Tenant account or personal one.
    pub home: Home,
    /// Which of the account's devices, from 1.
    pub device: usize,
}

impl Person {
    /// The name, marked if the account is a personal one, or the device not its first.
    #[must_use]
    pub fn label(&self) -> String {
        let home = match self.home {
            Home::Tenant => "",
            Home::Personal => " (personal)",
            Home::Partner => " (partner)",
        };
        let device = if self.device > 1 { format!(" (device {})", self.device) } else { String::new() };
        format!("{}{home}{device}", self.name)
    }

    /// Whether both are devices of one account.
    #[must_use]
    pub fn is_same_account(&self, other: &Self) -> bool {
        self.home == other.home && self.name == other.name
    }
}

/// Devices of one account, the first one first.
pub type Devices = Arc<[Arc<Person>]>;

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
        /// Whom; of the own account, the devices that are not members yet.
        who: Devices,
        /// By a member; members take turns.
        by: Arc<Person>,
    },
    /// Let somebody go, when all that was sent before is placed.
    Leave {
        /// Who; the first device asks.
        who: Devices,
        /// Nobody stays: the group is over, and there is nobody to commit a removal.
        last: bool,
    },
    /// Send a text.
    Say(Arc<PlannedMessage>),
    /// Link another device by a code, and add it to the account's groups. Everything before is placed.
    Link {
        /// The one that shows the code.
        by: Arc<Person>,
        /// The other one.
        device: Arc<Person>,
        /// The groups, by index.
        groups: Vec<usize>,
    },
    /// Disable an account. Everything before has arrived.
    Disable {
        /// Its devices.
        who: Devices,
        /// The groups that it is in, by index.
        groups: Vec<usize>,
    },
}

/// A deed and where it belongs.
#[derive(Clone, Debug)]
pub struct Step {
    /// Line in the transcript.
    pub line: usize,
    /// In which group; none if it is about an account, in all of its groups.
    pub group: Option<Arc<PlannedGroup>>,
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

    /// How many accounts are at home there.
    #[must_use]
    pub fn accounts(&self, home: Home) -> usize {
        self.people.iter().filter(|person| person.home == home && person.device == 1).count()
    }

    /// Whether a group is archived.
    #[must_use]
    pub fn is_escrowed(&self) -> bool {
        self.groups.iter().any(|group| group.class == Class::Escrowed)
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
    texts: usize,
}

impl GroupState {
    fn devices(&self, name: &str, home: Home) -> Devices {
        self.members.iter().filter(|member| member.name == name && member.home == home).cloned().collect()
    }

    fn come_in(&mut self, who: &[Arc<Person>]) {
        self.members = self.members.iter().chain(who).cloned().collect();
        for index in who.iter().map(|person| person.index) {
            if !self.ever.contains(&index) {
                self.ever.push(index);
            }
        }
    }

    fn go(&mut self, who: &[Arc<Person>]) {
        let stays = |member: &&Arc<Person>| who.iter().all(|person| person.index != member.index);
        self.members = self.members.iter().filter(stays).cloned().collect();
    }
}

#[derive(Default)]
struct Planner {
    people: Vec<Arc<Person>>,
    known: HashMap<(Home, String), Devices>,
    disabled: HashSet<(Home, String)>,
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
        if let Act::Link(who) = &line.act {
            return self.link(number, who).map_err(|problem| at(problem).into());
        }
        if let Act::Disable(who) = &line.act {
            return self.disable(number, who).map_err(|problem| at(problem).into());
        }
        let group = self.group(&line)?;
        let (name, text) = match line.act {
            Act::Join(who) => (who, None),
            Act::Say { from, text } => (from, Some(text)),
            Act::Leave(who) | Act::Link(who) | Act::Disable(who) => {
                self.change(group, true).map_err(at)?;
                return self.leave(number, group, &who).map_err(|problem| at(problem).into());
            }
        };
        let comes = match (line.personal, line.partner) {
            (true, _) => Home::Personal,
            (_, true) => Home::Partner,
            _ => Home::Tenant,
        };
        let who = self.person(group, name, comes).map_err(at)?;
        let joined = self.enter(number, group, &who).map_err(at)?;
        self.change(group, joined).map_err(at)?;
        let Some(state) = self.groups.get_mut(group) else { return Ok(()) };
        // The devices of an account speak in turn.
        let turn = state.texts.checked_rem(who.len()).and_then(|turn| who.get(turn));
        let Some(person) = turn.cloned() else { return Ok(()) };
        let Some(text) = text else {
            let problem = Problem::AlreadyMember { person: person.name.clone(), group: state.planned.name.clone() };
            return if joined { Ok(()) } else { Err(at(problem).into()) };
        };
        state.texts += 1;
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
        self.steps.push(Step { line: number, group: Some(Arc::clone(&state.planned)), deed: Deed::Say(message) });
        Ok(())
    }

    /// The group of a line, made if it is the first.
    fn group(&mut self, line: &Line) -> Result<usize, PlanError> {
        let at = |problem| TranscriptError { line: line.number, problem };
        let name = line.group.clone().unwrap_or_default();
        if let Some(index) = self.names.get(&name) {
            let was = self.groups.get(*index).map(|state| state.planned.class);
            return match (was, line.class) {
                (Some(was), Some(given)) if was != given => {
                    Err(at(Problem::ClassChanged { group: name, was, given }).into())
                }
                _ => Ok(*index),
            };
        }
        let class = line.class.ok_or_else(|| at(Problem::ClassMissing(name.clone())))?;
        if let Act::Leave(who) = &line.act {
            return Err(at(Problem::NotMember { person: who.clone(), group: name }).into());
        }
        let index = self.groups.len();
        if index >= GROUPS_MAX {
            return Err(at(Problem::TooMany { what: "groups", max: GROUPS_MAX }).into());
        }
        let planned = Arc::new(PlannedGroup { index, name: name.clone(), title: canary::pad(&name)?, class });
        let members = Arc::from([]);
        self.groups.push(GroupState { planned, members, ever: Vec::new(), invitations: 0, texts: 0 });
        self.names.insert(name, index);
        Ok(index)
    }

    /// Where whoever is called so in a group is at home: a member as it came in, else as the line says.
    fn home(&self, group: usize, name: &str, comes: Home) -> Home {
        let Some(state) = self.groups.get(group) else { return comes };
        if state.planned.class == Class::Personal {
            return Home::Personal;
        }
        let is_in = |home: &Home| !state.devices(name, *home).is_empty();
        [comes, Home::Tenant, Home::Personal, Home::Partner].into_iter().find(is_in).unwrap_or(comes)
    }

    /// All devices of whoever is called so in a group.
    fn person(&mut self, group: usize, name: String, comes: Home) -> Result<Devices, Problem> {
        let key = (self.home(group, &name, comes), name);
        if self.disabled.contains(&key) {
            return Err(Problem::Disabled(key.1));
        }
        match self.known.get(&key) {
            Some(devices) => Ok(Arc::clone(devices)),
            None => self.another_device(key).map(|person| [person].into()),
        }
    }

    fn another_device(&mut self, key: (Home, String)) -> Result<Arc<Person>, Problem> {
        let index = self.people.len();
        if index >= PEOPLE_MAX {
            return Err(Problem::TooMany { what: "people", max: PEOPLE_MAX });
        }
        let devices = self.known.entry(key.clone()).or_insert_with(|| Arc::from([]));
        let person = Arc::new(Person { index, name: key.1, home: key.0, device: devices.len() + 1 });
        *devices = devices.iter().chain([&person]).cloned().collect();
        self.people.push(Arc::clone(&person));
        Ok(person)
    }

    /// The account of a name that needs no group to be found: the one at the organisation, if there are two.
    fn account(&self, name: &str) -> Result<Devices, Problem> {
        let of = |home| self.known.get(&(home, name.to_owned()));
        let devices = of(Home::Tenant).or_else(|| of(Home::Personal)).or_else(|| of(Home::Partner));
        let devices = devices.ok_or_else(|| Problem::Unknown(name.to_owned()))?;
        match devices.iter().any(|person| self.disabled.contains(&(person.home, person.name.clone()))) {
            true => Err(Problem::Disabled(name.to_owned())),
            false => Ok(Arc::clone(devices)),
        }
    }

    fn groups_of(&self, who: &[Arc<Person>]) -> Vec<usize> {
        let is_in = |state: &&GroupState| {
            state.members.iter().any(|member| who.iter().any(|person| person.index == member.index))
        };
        self.groups.iter().filter(is_in).map(|state| state.planned.index).collect()
    }

    fn link(&mut self, line: usize, name: &str) -> Result<(), Problem> {
        let who = self.account(name)?;
        let Some(by) = who.first().cloned() else { return Ok(()) };
        if by.home == Home::Partner {
            return Err(Problem::NotOfOrganisation(name.to_owned()));
        }
        let groups = self.groups_of(&who);
        let device = self.another_device((by.home, by.name.clone()))?;
        for group in &groups {
            self.change(*group, true)?;
            if let Some(state) = self.groups.get_mut(*group) {
                state.come_in(&[Arc::clone(&device)]);
            }
        }
        self.steps.push(Step { line, group: None, deed: Deed::Link { by, device, groups } });
        Ok(())
    }

    fn disable(&mut self, line: usize, name: &str) -> Result<(), Problem> {
        let who = self.account(name)?;
        if who.iter().any(|person| person.home != Home::Tenant) {
            return Err(Problem::NotOfOrganisation(name.to_owned()));
        }
        let groups = self.groups_of(&who);
        for group in &groups {
            self.change(*group, true)?;
            if let Some(state) = self.groups.get_mut(*group) {
                state.go(&who);
            }
        }
        self.disabled.insert((Home::Tenant, name.to_owned()));
        self.steps.push(Step { line, group: None, deed: Deed::Disable { who, groups } });
        Ok(())
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

    /// Makes an account a member; `false` if it is one already.
    fn enter(&mut self, line: usize, group: usize, who: &Devices) -> Result<bool, Problem> {
        let (Some(state), Some(first)) = (self.groups.get_mut(group), who.first()) else { return Ok(false) };
        if state.members.iter().any(|member| member.is_same_account(first)) {
            return Ok(false);
        }
        let planned = Some(Arc::clone(&state.planned));
        if state.members.is_empty() {
            if first.home != Home::Tenant && state.planned.class != Class::Personal {
                return Err(Problem::GuestFounds(state.planned.name.clone()));
            }
            self.steps.push(Step { line, group: planned.clone(), deed: Deed::Found { by: Arc::clone(first) } });
            let others: Devices = who.iter().skip(1).cloned().collect();
            if !others.is_empty() {
                let deed = Deed::Join { who: others, by: Arc::clone(first) };
                self.steps.push(Step { line, group: planned, deed });
            }
        } else {
            // Members invite in turn: a relay may limit how many people one account adds. Guests invite nobody.
            let guest = |member: &Person| member.home != Home::Tenant && state.planned.class != Class::Personal;
            let hosts: Vec<&Arc<Person>> =
                state.members.iter().filter(|member| member.device == 1 && !guest(member)).collect();
            let by = state.invitations.checked_rem(hosts.len()).and_then(|turn| hosts.get(turn).copied());
            let Some(by) = by.cloned() else { return Err(Problem::GuestFounds(state.planned.name.clone())) };
            state.invitations += 1;
            self.steps.push(Step { line, group: planned, deed: Deed::Join { who: Arc::clone(who), by } });
        }
        state.come_in(who);
        Ok(true)
    }

    fn leave(&mut self, line: usize, group: usize, name: &str) -> Result<(), Problem> {
        let home = self.home(group, name, Home::Tenant);
        let Some(state) = self.groups.get_mut(group) else { return Ok(()) };
        let who = state.devices(name, home);
        if who.is_empty() {
            return Err(Problem::NotMember { person: name.to_owned(), group: state.planned.name.clone() });
        }
        state.go(&who);
        let deed = Deed::Leave { who, last: state.members.is_empty() };
        self.steps.push(Step { line, group: Some(Arc::clone(&state.planned)), deed });
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

    fn labels(who: &Devices) -> String {
        who.iter().map(|person| person.label()).collect::<Vec<_>>().join("+")
    }

    fn deeds(plan: &Plan) -> Vec<String> {
        let word = |step: &Step| match &step.deed {
            Deed::Found { by } => format!("{} founds", by.label()),
            Deed::Join { who, by } => format!("{} adds {}", by.label(), labels(who)),
            Deed::Leave { who, last } => format!("{} leaves{}", labels(who), if *last { ", last" } else { "" }),
            Deed::Link { by, device, groups } => format!("{} links {} in {groups:?}", by.label(), device.label()),
            Deed::Disable { who, groups } => format!("{} disabled in {groups:?}", labels(who)),
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
    fn a_second_device_is_in_all_groups_of_its_account_and_speaks_in_turn() {
        let plan = plan(&[
            DESK,
            r#"{"group":"desk","join":"li"}"#,
            r#"{"link":"ana"}"#,
            r#"{"group":"desk","from":"ana","text":"from the other device"}"#,
            r#"{"group":"lab","class":"work","from":"li","text":"a group behind the link"}"#,
            r#"{"group":"lab","join":"ana"}"#,
            r#"{"group":"lab","leave":"ana"}"#,
            r#"{"group":"den","class":"work","join":"ana"}"#,
        ]);
        let expected = [
            "ana founds",
            "ana to ",
            "ana adds li",
            "ana links ana (device 2) in [0]",
            "ana (device 2) to ana+li",
            "li founds",
            "li to ",
            "li adds ana+ana (device 2)",
            "ana+ana (device 2) leaves",
            "ana founds",
            "ana adds ana (device 2)",
        ];
        assert_eq!(deeds(&plan), expected);
        let stranger = refused(&[DESK, r#"{"link":"bo"}"#]);
        assert!(matches!(stranger, TranscriptError { line: 2, problem: Problem::Unknown(_) }));
    }

    #[test]
    fn a_customer_comes_with_a_personal_account_and_founds_and_invites_nothing_of_the_organisation() {
        let plan = plan(&[
            DESK,
            r#"{"group":"desk","join":"noor","personal":true}"#,
            r#"{"group":"desk","from":"noor","text":"hello from outside"}"#,
            r#"{"group":"desk","join":"li"}"#,
            r#"{"group":"desk","leave":"noor"}"#,
        ]);
        let expected = [
            "ana founds",
            "ana to ",
            "ana adds noor (personal)",
            "noor (personal) to ana",
            "ana adds li",
            "noor (personal) leaves",
        ];
        assert_eq!(deeds(&plan), expected);
        let founds = refused(&[r#"{"group":"g","class":"work","join":"noor","personal":true}"#]);
        assert!(matches!(founds.problem, Problem::GuestFounds(_)));
    }

    #[test]
    fn somebody_of_a_partner_is_another_account_than_a_namesake_and_founds_and_invites_nothing() {
        let plan = plan(&[
            r#"{"group":"desk","class":"escrowed","from":"ana","text":"good morning to the desk"}"#,
            r#"{"group":"desk","join":"mira","partner":true}"#,
            r#"{"group":"desk","from":"mira","text":"hello from next door"}"#,
            r#"{"group":"desk","join":"li"}"#,
            r#"{"group":"lab","class":"work","from":"mira","text":"a namesake at work"}"#,
        ]);
        let expected = [
            "ana founds",
            "ana to ",
            "ana adds mira (partner)",
            "mira (partner) to ana",
            "ana adds li",
            "mira founds",
            "mira to ",
        ];
        assert_eq!(deeds(&plan), expected);
        assert_eq!((plan.accounts(Home::Partner), plan.accounts(Home::Tenant)), (1, 3));
        assert!(plan.is_escrowed());
        let founds = refused(&[r#"{"group":"g","class":"work","join":"mira","partner":true}"#]);
        assert!(matches!(founds.problem, Problem::GuestFounds(_)));
    }

    #[test]
    fn who_is_disabled_is_out_of_all_groups_and_does_nothing_more() {
        let lines = [
            DESK,
            r#"{"group":"desk","join":"bo"}"#,
            r#"{"group":"lab","class":"work","from":"bo","text":"alone in the lab"}"#,
            r#"{"disable":"bo"}"#,
            r#"{"group":"desk","from":"ana","text":"only for who is left"}"#,
        ];
        let disabled = plan(&lines);
        assert_eq!(deeds(&disabled).last().unwrap(), "ana to ");
        assert!(deeds(&disabled).contains(&"bo disabled in [0, 1]".to_owned()));
        let again = refused(&[&lines[..], &[r#"{"group":"desk","from":"bo","text":"still here?"}"#]].concat());
        assert!(matches!(again, TranscriptError { line: 6, problem: Problem::Disabled(_) }));
        let personal = refused(&[r#"{"group":"home","class":"personal","join":"bo"}"#, r#"{"disable":"bo"}"#]);
        assert!(matches!(personal.problem, Problem::NotOfOrganisation(_)));
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
