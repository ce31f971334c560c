//! Reads a transcript: JSON Lines, one act of one person in one group per line.
//!
//! This module looks at each line alone; whether an act fits what came before is for [`crate::plan`].

use chancery_protocol::{
    limits::{GROUP_NAME_BYTES_MAX, TEXT_BYTES_MAX},
    mls::charter::Class,
};
use serde::Deserialize;

/// The transcript that ships with the demo.
pub const SHIPPED: &str = include_str!("../transcript.jsonl");

/// Longest name of a person, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// What somebody does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Says something.
    Say {
        /// Who.
        from: String,
        /// What, as written.
        text: String,
    },
    /// Comes in.
    Join(String),
    /// Goes.
    Leave(String),
    /// Links another device of the own account.
    Link(String),
    /// Is disabled by whoever runs the organisation's registrar.
    Disable(String),
}

/// A line that is well formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// The group; none if what happens is about an account.
    pub group: Option<String>,
    /// The group's class, if the line names it.
    pub class: Option<Class>,
    /// Whether the line says that the person comes with a personal account, as a customer does into a work group.
    pub personal: bool,
    /// Whether the line says that the person is of the partner, another organisation.
    pub partner: bool,
    /// What happens.
    pub act: Act,
}

/// A line of a transcript cannot be played. Nothing has been started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct TranscriptError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not UTF-8.
    #[error("not UTF-8")]
    NotText,
    /// Not an object with the known keys.
    #[error("{0}")]
    Malformed(String),
    /// Not exactly one act.
    #[error("a line has either \"from\" and \"text\", or \"join\", \"leave\", \"link\" or \"disable\"")]
    NotOneAct,
    /// Without a group.
    #[error("a line with \"from\", \"join\" or \"leave\" names its group")]
    GroupMissing,
    /// With one.
    #[error("\"link\" and \"disable\" are about a person, in all groups: the line names nothing else")]
    GroupNamed,
    /// A name without a letter.
    #[error("the name in {0:?} is empty")]
    NameEmpty(&'static str),
    /// A name or text beyond a cap of the protocol.
    #[error("{what} has {len} bytes; at most {max}")]
    TooLong {
        /// What.
        what: &'static str,
        /// How long it is.
        len: usize,
        /// The cap.
        max: usize,
    },
    /// No such class.
    #[error("the class {0:?} does not exist: personal, work or escrowed")]
    UnknownClass(String),
    /// Both at once.
    #[error("a person is of a partner or has a personal account, not both")]
    PersonalPartner,
    /// The group is new.
    #[error("the first line of the group {0:?} must name its class")]
    ClassMissing(String),
    /// A class is for life.
    #[error("the group {group:?} is {was}, not {given}: a class never changes")]
    ClassChanged {
        /// The group.
        group: String,
        /// Its class.
        was: Class,
        /// What the line says.
        given: Class,
    },
    /// Already in.
    #[error("{person:?} is a member of {group:?} already")]
    AlreadyMember {
        /// Who.
        person: String,
        /// Where.
        group: String,
    },
    /// Not in.
    #[error("{person:?} is not a member of {group:?} and cannot leave it")]
    NotMember {
        /// Who.
        person: String,
        /// Where.
        group: String,
    },
    /// Nobody of this name.
    #[error("{0:?} has no account yet: let somebody of this name speak or join first")]
    Unknown(String),
    /// Has been disabled.
    #[error("the account of {0:?} is disabled: nobody can be somebody who is cut off")]
    Disabled(String),
    /// A personal account is no organisation's.
    #[error("{0:?} is not of this organisation, which cannot disable that account")]
    NotOfOrganisation(String),
    /// An organisation's group begins with its own people.
    #[error("the group {0:?} is the organisation's: one of its own people founds it")]
    GuestFounds(String),
    /// Nothing to play.
    #[error("the transcript is empty")]
    Empty,
    /// More than the demo takes on.
    #[error("this demo takes at most {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        max: usize,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLine {
    group: Option<String>,
    class: Option<String>,
    #[serde(default)]
    personal: bool,
    #[serde(default)]
    partner: bool,
    from: Option<String>,
    text: Option<String>,
    join: Option<String>,
    leave: Option<String>,
    link: Option<String>,
    disable: Option<String>,
}

/// The lines of a transcript, in order. Lines of white space are passed over; they count.
pub fn lines(transcript: &[u8]) -> impl Iterator<Item = Result<Line, TranscriptError>> {
    let transcript = transcript.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(transcript);
    transcript
        .split(|byte| *byte == b'\n')
        .enumerate()
        .map(|(index, bytes)| (index + 1, bytes.trim_ascii()))
        .filter(|(_, bytes)| !bytes.is_empty())
        .map(|(number, bytes)| parse(number, bytes).map_err(|problem| TranscriptError { line: number, problem }))
}

fn parse(number: usize, bytes: &[u8]) -> Result<Line, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|_| Problem::NotText)?;
    let raw: RawLine = serde_json::from_str(text).map_err(|error| Problem::Malformed(without_line(&error)))?;
    if let Some(group) = &raw.group {
        name("group", group, GROUP_NAME_BYTES_MAX)?;
    }
    if let (Some(who), None) | (None, Some(who)) = (&raw.link, &raw.disable) {
        let others = [&raw.group, &raw.class, &raw.from, &raw.text, &raw.join, &raw.leave];
        if raw.personal || raw.partner || others.iter().any(|other| other.is_some()) {
            return Err(Problem::GroupNamed);
        }
        name(if raw.link.is_some() { "link" } else { "disable" }, who, NAME_BYTES_MAX)?;
        let act = if raw.link.is_some() { Act::Link(who.clone()) } else { Act::Disable(who.clone()) };
        return Ok(Line { number, group: None, class: None, personal: false, partner: false, act });
    }
    if raw.link.is_some() {
        return Err(Problem::NotOneAct);
    }
    let class = raw.class.map(class).transpose()?;
    let act = match (raw.from, raw.text, raw.join, raw.leave) {
        (Some(from), Some(text), None, None) => {
            name("from", &from, NAME_BYTES_MAX)?;
            if text.len() > TEXT_BYTES_MAX {
                return Err(Problem::TooLong { what: "the text", len: text.len(), max: TEXT_BYTES_MAX });
            }
            Act::Say { from, text }
        }
        (None, None, Some(who), None) => {
            name("join", &who, NAME_BYTES_MAX)?;
            Act::Join(who)
        }
        (None, None, None, Some(who)) => {
            name("leave", &who, NAME_BYTES_MAX)?;
            Act::Leave(who)
        }
        _ => return Err(Problem::NotOneAct),
    };
    if raw.group.is_none() {
        return Err(Problem::GroupMissing);
    }
    if raw.personal && raw.partner {
        return Err(Problem::PersonalPartner);
    }
    Ok(Line { number, group: raw.group, class, personal: raw.personal, partner: raw.partner, act })
}

fn name(key: &'static str, name: &str, max: usize) -> Result<(), Problem> {
    if name.trim().is_empty() {
        return Err(Problem::NameEmpty(key));
    }
    if name.len() > max {
        return Err(Problem::TooLong { what: "a name", len: name.len(), max });
    }
    Ok(())
}

fn class(word: String) -> Result<Class, Problem> {
    word.parse().map_err(|_| Problem::UnknownClass(word))
}

/// The parser saw one line only, so its own line number would mislead.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what} (column {})", error.column()),
        None => text,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn problem(line: &str) -> Problem {
        match lines(line.as_bytes()).next().unwrap() {
            Err(error) => error.problem,
            Ok(line) => panic!("accepted {line:?}"),
        }
    }

    #[test]
    fn lines_keep_their_numbers_across_blank_ones() {
        let text = "\u{feff}{\"group\":\"g\",\"class\":\"work\",\"from\":\"ana\",\"text\":\"\"}\r\n\n  \n{\"group\":\"g\",\"join\":\"li\"}\n";
        let lines: Vec<Line> = lines(text.as_bytes()).map(Result::unwrap).collect();
        let [first, second] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(first.act, Act::Say { from: "ana".into(), text: String::new() });
        assert_eq!((first.number, second.number), (1, 4));
        assert_eq!(second.act, Act::Join("li".into()));
    }

    #[test]
    fn unknown_and_doubled_keys_are_refused() {
        assert!(
            matches!(problem(r#"{"group":"g","join":"li","epoch":1}"#), Problem::Malformed(text) if text.contains("epoch") && !text.contains("line 1"))
        );
        assert!(matches!(problem(r#"{"group":"g","join":"li","join":"bo"}"#), Problem::Malformed(_)));
        assert!(matches!(problem(r#"["group"]"#), Problem::Malformed(_)));
        assert!(matches!(problem(r#"{"group":"g","join":7}"#), Problem::Malformed(_)));
        assert_eq!(problem(r#"{"join":"li"}"#), Problem::GroupMissing);
    }

    #[test]
    fn what_is_about_an_account_names_no_group() {
        let text = "{\"link\":\"ana\"}\n{\"disable\":\"bo\"}\n{\"group\":\"g\",\"join\":\"Noor\",\"personal\":true}";
        let lines: Vec<Line> = lines(text.as_bytes()).map(Result::unwrap).collect();
        let [link, disable, join] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!((&link.act, &link.group), (&Act::Link("ana".into()), &None));
        assert_eq!((&disable.act, &disable.group), (&Act::Disable("bo".into()), &None));
        assert!(join.personal && !link.personal);
        assert_eq!(problem(r#"{"group":"g","link":"ana"}"#), Problem::GroupNamed);
        assert_eq!(problem(r#"{"disable":"ana","from":"ana","text":"x"}"#), Problem::GroupNamed);
        assert_eq!(problem(r#"{"disable":"ana","link":"ana"}"#), Problem::NotOneAct);
        assert_eq!(problem(r#"{"disable":""}"#), Problem::NameEmpty("disable"));
    }

    #[test]
    fn a_line_is_one_act() {
        for line in [
            r#"{"group":"g"}"#,
            r#"{"group":"g","from":"ana"}"#,
            r#"{"group":"g","text":"hi"}"#,
            r#"{"group":"g","from":"ana","text":"hi","join":"li"}"#,
            r#"{"group":"g","join":"ana","leave":"li"}"#,
        ] {
            assert_eq!(problem(line), Problem::NotOneAct, "{line}");
        }
    }

    #[test]
    fn names_and_texts_have_bounds() {
        assert_eq!(problem(r#"{"group":"","join":"li"}"#), Problem::NameEmpty("group"));
        assert_eq!(problem(r#"{"group":"g","leave":" "}"#), Problem::NameEmpty("leave"));
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        let line = format!(r#"{{"group":"g","from":"ana","text":"{long}"}}"#);
        assert!(matches!(problem(&line), Problem::TooLong { what: "the text", .. }));
        let group = "g".repeat(GROUP_NAME_BYTES_MAX + 1);
        assert!(matches!(problem(&format!(r#"{{"group":"{group}","join":"li"}}"#)), Problem::TooLong { .. }));
    }

    #[test]
    fn classes_are_words_and_people_are_of_one_place() {
        let both = r#"{"group":"g","join":"li","personal":true,"partner":true}"#;
        assert_eq!(problem(both), Problem::PersonalPartner);
        assert_eq!(problem(r#"{"group":"g","class":"Work","join":"li"}"#), Problem::UnknownClass("Work".into()));
    }

    #[test]
    fn bytes_that_are_not_text_are_named_by_line() {
        let error = lines(b"{\"group\":\"g\",\"join\":\"a\"}\n\xff\xfe\n").nth(1).unwrap().unwrap_err();
        assert_eq!(error, TranscriptError { line: 2, problem: Problem::NotText });
    }
}
