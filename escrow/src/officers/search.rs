//! Searching what a case has opened, and nothing else: words of any script by whole words, Chinese, Japanese and Korean
//! text by any run of characters.
//!
//! The index lies in the case's folder, for its owner only, and holds what was opened; closing the case deletes it.

use std::{fs, path::Path};

use chancery_protocol::{
    escrow::{Record, RecordBody, RecordLine, Scope},
    wire::envelope::{Body, Envelope},
};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::words::moment;

/// File name of the index.
pub(crate) const INDEX: &str = "search.db";
/// Characters of a message that are shown before and after a hit.
const CONTEXT: usize = 60;

/// An index of a case.
pub struct Index {
    connection: Connection,
}

/// A message that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The group, and its name at that place.
    pub group: String,
    /// Name of the group.
    pub group_name: String,
    /// Place in the group's log.
    pub place: u64,
    /// When the relay received it, in milliseconds since 1970.
    pub received_at_ms: u64,
    /// Who sent it.
    pub sender: String,
    /// The text around what was found.
    pub excerpt: String,
    /// Who said what just before and after, in the same group.
    pub before: Option<String>,
    /// The same, after.
    pub after: Option<String>,
}

/// Written without spaces between words, or with spaces that do not part words reliably.
fn is_run(c: char) -> bool {
    matches!(c,
        '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7af}' | '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}' | '\u{3005}' | '\u{3006}' | '\u{ff66}'..='\u{ff9f}')
}

/// One letter as it is compared: wide Latin letters and digits are narrow ones.
fn folded(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        '\u{3000}' => ' ',
        c => c,
    }
}

/// The pieces of a text: runs of such characters, and words.
fn pieces(text: &str) -> Vec<(bool, String)> {
    let mut pieces: Vec<(bool, String)> = Vec::new();
    let mut open = false;
    for c in text.chars().map(folded) {
        let run = is_run(c);
        if !run && !c.is_alphanumeric() && !('\u{300}'..='\u{36f}').contains(&c) {
            open = false;
            continue;
        }
        match pieces.last_mut() {
            Some((of_run, piece)) if open && *of_run == run => piece.push(c),
            _ => pieces.push((run, c.to_string())),
        }
        open = true;
    }
    pieces
}

/// A text as it is indexed: each character of a run with the one behind it; words as they are.
fn indexed(text: &str) -> String {
    let mut out = String::new();
    for (run, piece) in pieces(text) {
        if run {
            let chars: Vec<char> = piece.chars().collect();
            for (at, c) in chars.iter().enumerate() {
                out.push(*c);
                out.extend(chars.get(at + 1));
                out.push(' ');
            }
        } else {
            out.push_str(&piece);
            out.push(' ');
        }
    }
    out
}

/// What is asked for, in the words of the index: all pieces must be there, each as a phrase.
fn query(text: &str) -> Option<String> {
    let phrases = pieces(text).into_iter().map(|(run, piece)| {
        let chars: Vec<char> = piece.chars().collect();
        match chars.as_slice() {
            [one] if run => format!("\"{one}\" *"),
            chars if run => {
                let pairs = chars.windows(2).map(|pair| pair.iter().collect::<String>());
                format!("\"{}\"", pairs.collect::<Vec<_>>().join(" "))
            }
            _ => format!("\"{piece}\""),
        }
    });
    let phrases: Vec<String> = phrases.collect();
    (!phrases.is_empty()).then(|| phrases.join(" AND "))
}

fn sql(error: rusqlite::Error) -> String {
    format!("the index: {error}")
}

impl Index {
    /// Makes an index in place of one that may be there.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn create(path: &Path) -> Result<Self, String> {
        let _ = fs::remove_file(path);
        super::files::write(path, b"")?;
        let connection = Connection::open(path).map_err(sql)?;
        // An index that is not whole is made again.
        connection
            .execute_batch(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA secure_delete = ON; BEGIN;
                 CREATE TABLE said (
                     id INTEGER PRIMARY KEY, grp TEXT NOT NULL, name TEXT NOT NULL, place INTEGER NOT NULL,
                     received INTEGER NOT NULL, sender TEXT NOT NULL, text TEXT NOT NULL) STRICT;
                 CREATE VIRTUAL TABLE found USING fts5(
                     words, content = '', tokenize = 'unicode61 remove_diacritics 2');",
            )
            .map_err(sql)?;
        Ok(Self { connection })
    }

    /// Adds a message, of a file its name; what has no text is left out.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn add(&mut self, scope: &Scope, line: &RecordLine, record: &Record, name: &str) -> Result<(), String> {
        let RecordBody::Message { sender, envelope } = &record.body else { return Ok(()) };
        let text = match Envelope::from_bytes(envelope).map(|envelope| envelope.body) {
            Ok(Body::File(file)) => file.name,
            Ok(Body::Text(text) | Body::Reply { text, .. } | Body::Edit { text, .. }) => text,
            _ => return Ok(()),
        };
        let sender = match &sender.0.handle {
            Some(handle) => handle.to_string(),
            None => sender.0.account.to_string(),
        };
        self.put(&scope.group.to_string(), name, line.seq.0, record.received_at.0, &sender, &text)
    }

    /// Adds a text.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put(
        &mut self,
        group: &str,
        name: &str,
        place: u64,
        received: u64,
        sender: &str,
        text: &str,
    ) -> Result<(), String> {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.connection
            .prepare_cached(
                "INSERT INTO said (grp, name, place, received, sender, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )
            .and_then(|mut insert| insert.execute(params![group, name, signed(place), signed(received), sender, text]))
            .map_err(sql)?;
        let id = self.connection.last_insert_rowid();
        self.connection
            .prepare_cached("INSERT INTO found (rowid, words) VALUES (?1, ?2)")
            .and_then(|mut insert| insert.execute(params![id, indexed(text)]))
            .map_err(sql)?;
        Ok(())
    }

    /// All is in.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self) -> Result<(), String> {
        self.connection.execute_batch("CREATE INDEX said_place ON said (grp, place); COMMIT;").map_err(sql)
    }

    /// Opens an index that is whole.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(path: &Path) -> Result<Self, String> {
        if !path.exists() {
            return Err("this case is not opened yet: `case combine` first".to_owned());
        }
        let connection = Connection::open(path).map_err(sql)?;
        let whole = connection
            .query_row("SELECT 1 FROM sqlite_schema WHERE name = 'said_place'", [], |_| Ok(()))
            .optional()
            .map_err(sql)?;
        if whole.is_none() {
            return Err("the index is not whole: `case combine` makes it again".to_owned());
        }
        Ok(Self { connection })
    }

    /// The first messages that hold all of this, in the order of time, and how many there are.
    ///
    /// # Errors
    /// If there is nothing to search for.
    pub fn search(&self, text: &str, max: usize) -> Result<(u64, Vec<Hit>), String> {
        let asked = query(text).ok_or("give a word, or characters, to search for")?;
        let total: i64 = self
            .connection
            .query_row("SELECT count(*) FROM found WHERE found MATCH ?1", [&asked], |row| row.get(0))
            .map_err(sql)?;
        let mut select = self
            .connection
            .prepare(
                "SELECT said.grp, said.name, said.place, said.received, said.sender, said.text FROM found
                 JOIN said ON said.id = found.rowid WHERE found MATCH ?1 ORDER BY said.received, said.place LIMIT ?2",
            )
            .map_err(sql)?;
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let rows = select
            .query_map(params![asked, max], |row| {
                let number = |at| row.get::<_, i64>(at).map(|number| u64::try_from(number).unwrap_or(0));
                Ok((row.get(0)?, row.get(1)?, number(2)?, number(3)?, row.get(4)?, row.get::<_, String>(5)?))
            })
            .map_err(sql)?;
        let mut hits = Vec::new();
        for row in rows {
            let (group, group_name, place, received_at_ms, sender, said): (String, String, _, _, String, _) =
                row.map_err(sql)?;
            let excerpt = excerpt(&said, text);
            let before = self.next_to(&group, place, true)?;
            let after = self.next_to(&group, place, false)?;
            hits.push(Hit { group, group_name, place, received_at_ms, sender, excerpt, before, after });
        }
        Ok((u64::try_from(total).unwrap_or(0), hits))
    }

    fn next_to(&self, group: &str, place: u64, before: bool) -> Result<Option<String>, String> {
        let condition = if before { "place < ?2 ORDER BY place DESC" } else { "place > ?2 ORDER BY place" };
        let place = i64::try_from(place).unwrap_or(i64::MAX);
        let found = self
            .connection
            .prepare_cached(&format!("SELECT sender, text FROM said WHERE grp = ?1 AND {condition} LIMIT 1"))
            .and_then(|mut select| {
                let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
                select.query_row(params![group, place], row).optional()
            })
            .map_err(sql)?;
        Ok(found.map(|(sender, text)| format!("{sender}: {}", text.chars().take(CONTEXT).collect::<String>())))
    }
}

/// The part of a text around the first piece of what was searched for.
fn excerpt(text: &str, asked: &str) -> String {
    let fold = |text: &str| text.chars().map(folded).flat_map(char::to_lowercase).collect::<Vec<char>>();
    let wanted = pieces(asked).into_iter().next().map(|(_, piece)| fold(&piece)).unwrap_or_default();
    let chars: Vec<char> = text.chars().collect();
    // Letters that fold to more than one letter put the place off by a little; the text is shown as it is.
    let found = fold(text).windows(wanted.len().max(1)).position(|window| window == wanted).unwrap_or(0);
    let (first, last) = (found.saturating_sub(CONTEXT), (found + wanted.len() + CONTEXT).min(chars.len()));
    let middle: String = chars.get(first.min(last)..last).unwrap_or_default().iter().collect();
    let (left, right) = (if first > 0 { "…" } else { "" }, if last < chars.len() { "…" } else { "" });
    format!("{left}{}{right}", middle.replace('\n', " "))
}

/// Hits in words.
#[must_use]
pub fn told(total: u64, hits: &[Hit]) -> String {
    let mut text = format!("{total} messages");
    if (hits.len() as u64) < total {
        text.push_str(&format!(", the first {}", hits.len()));
    }
    for hit in hits {
        let at = moment(chancery_protocol::time::Timestamp(hit.received_at_ms));
        text.push_str(&format!("\n\n{} ({}) #{}, {at}", hit.group_name, super::words::short(&hit.group), hit.place));
        for (mark, line) in
            [("  ", &hit.before), ("> ", &Some(format!("{}: {}", hit.sender, hit.excerpt))), ("  ", &hit.after)]
        {
            if let Some(line) = line {
                text.push_str(&format!("\n{mark}{}", line.replace('\n', " ")));
            }
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn index(texts: &[&str]) -> (tempfile::TempDir, Index) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(INDEX);
        assert!(Index::open(&path).is_err());
        let mut index = Index::create(&path).unwrap();
        for (number, text) in (1..).zip(texts) {
            index.put("aa", "desk", number, number, "ana", text).unwrap();
        }
        index.finish().unwrap();
        (dir, Index::open(&path).unwrap())
    }

    fn found(index: &Index, text: &str) -> Vec<u64> {
        index.search(text, 100).unwrap().1.iter().map(|hit| hit.place).collect()
    }

    #[test]
    fn words_and_characters_of_every_script_are_found() {
        let (_dir, index) = index(&[
            "The Meeting is at the café, room ４２",
            "明天下午三点开会讨论项目预算",
            "来週の会議は東京オフィスで行います",
            "다음 주 회의는 서울 사무실에서 합니다",
            "预算 budget 2027",
            "Ω and naïve",
        ]);
        assert_eq!(found(&index, "meeting"), [1]);
        assert_eq!(found(&index, "CAFE"), [1]);
        assert_eq!(found(&index, "42"), [1]);
        // A part of a Latin word is no word.
        assert!(found(&index, "meet").is_empty());
        // Words and single characters.
        assert_eq!(found(&index, "预算"), [2, 5]);
        assert_eq!(found(&index, "会"), [2, 3]);
        assert_eq!(found(&index, "开会讨论"), [2]);
        assert!(found(&index, "会开").is_empty());
        assert_eq!(found(&index, "算"), [2, 5]);
        assert_eq!(found(&index, "会議"), [3]);
        assert_eq!(found(&index, "オフィス"), [3]);
        assert_eq!(found(&index, "회의"), [4]);
        assert_eq!(found(&index, "서울 회의"), [4]);
        assert_eq!(found(&index, "预算 BUDGET"), [5]);
        assert_eq!(found(&index, "naive"), [6]);
        for nothing in ["", "  ", "?!", "\""] {
            assert!(index.search(nothing, 1).is_err(), "{nothing:?}");
        }
        assert!(found(&index, "a\" OR words:b").is_empty());
    }

    #[test]
    fn hits_come_with_what_is_around_them() {
        let long = format!("{}预算{}", "一".repeat(100), "二".repeat(100));
        let (_dir, index) = index(&["before", &long, "after"]);
        let (total, hits) = index.search("预算", 10).unwrap();
        let hit = hits.first().unwrap();
        assert_eq!((total, hit.sender.as_str(), hit.place), (1, "ana", 2));
        assert_eq!(hit.excerpt, format!("…{}预算{}…", "一".repeat(60), "二".repeat(60)));
        assert_eq!((hit.before.as_deref(), hit.after.as_deref()), (Some("ana: before"), Some("ana: after")));
        assert!(told(total, &hits).contains("> ana: …一"));
    }
}
