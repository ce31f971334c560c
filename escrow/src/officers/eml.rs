//! A message as a file that mail programs read (RFC 5322, MIME): UTF-8 throughout, the zone of each time written out.
//!
//! This module invents no addresses that could be written to: all of them end in `.invalid` (RFC 2606).

use chancery_protocol::{
    escrow::{Person, RecordLine, Scope},
    ids::{EnvelopeHash, MessageId},
    time::Timestamp,
    wire::envelope::{Body, Envelope},
};
use data_encoding::BASE64;
use time::OffsetDateTime;

use super::words::{moment, short};

/// Longest payload of an encoded word (RFC 2047): 75 characters with what is around it.
const WORD_BYTES: usize = 45;
/// Bytes in a line of base64 of 76 characters.
pub(crate) const LINE_BYTES: usize = 57;
/// Characters of a section of a parameter that RFC 2231 continues.
const SECTION: usize = 60;
/// No line of base64 looks like it.
const BOUNDARY: &str = "=_chancery";
const TEXT: &str = "text/plain; charset=utf-8";

/// What stands around a message.
pub(crate) struct Around<'a> {
    pub scope: &'a Scope,
    pub line: &'a RecordLine,
    pub sender: &'a Person,
    /// Name of the group at that place.
    pub group: &'a str,
    pub received_at: Timestamp,
    pub epoch: u64,
}

/// A date and time of RFC 5322, in UTC.
pub(crate) fn date(at: Timestamp) -> String {
    let secs = i64::try_from(at.as_secs()).unwrap_or(0);
    let at = OffsetDateTime::from_unix_timestamp(secs).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let short = |word: String| word.chars().take(3).collect::<String>();
    format!(
        "{}, {} {} {} {:02}:{:02}:{:02} +0000",
        short(at.weekday().to_string()),
        at.day(),
        short(at.month().to_string()),
        at.year(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// Text in a header: as it is if it is plain, else as encoded words that are folded.
pub(crate) fn words(text: &str) -> String {
    let plain =
        |c: char| (' '..='~').contains(&c) && !matches!(c, '=' | '"' | '\\' | '<' | '>' | '@' | ',' | ':' | ';');
    if text.len() <= 60 && !text.is_empty() && text.chars().all(plain) && text.trim() == text {
        return text.to_owned();
    }
    let mut words = Vec::new();
    let mut word = String::new();
    for c in text.chars() {
        if word.len() + c.len_utf8() > WORD_BYTES {
            words.push(core::mem::take(&mut word));
        }
        word.push(c);
    }
    words.push(word);
    let encoded = words.iter().map(|word| format!("=?utf-8?B?{}?=", BASE64.encode(word.as_bytes())));
    encoded.collect::<Vec<_>>().join("\r\n ")
}

fn mailbox(person: &Person) -> String {
    let name = &person.0;
    let id = short(&name.account.to_string());
    match &name.handle {
        Some(handle) => format!("{}\r\n <{id}@account.invalid>", words(handle.as_str())),
        None => format!("<{id}@account.invalid>"),
    }
}

/// Lines of base64 (RFC 2045, section 6.8).
pub(crate) fn base64(bytes: &[u8]) -> String {
    let lines = bytes.chunks(LINE_BYTES).map(|line| BASE64.encode(line) + "\r\n");
    lines.collect()
}

/// A parameter of a header, behind others: quoted if it is plain, else as RFC 2231 encodes and continues it.
fn parameter(name: &str, value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_. ".contains(&byte);
    if value.len() <= 60 && value.bytes().all(plain) {
        return format!(";\r\n {name}=\"{value}\"");
    }
    // No character is divided: there are readers that decode each section for itself.
    let encoded = value.chars().map(|c| {
        if c.is_ascii_alphanumeric() || "-_.".contains(c) {
            return c.to_string();
        }
        let mut buffer = [0; 4];
        c.encode_utf8(&mut buffer).bytes().map(|byte| format!("%{byte:02X}")).collect()
    });
    let mut sections = vec!["UTF-8''".to_owned()];
    for character in encoded {
        match sections.last_mut() {
            Some(section) if section.len() + character.len() <= SECTION => section.push_str(&character),
            _ => sections.push(character),
        }
    }
    if let [one] = sections.as_slice() {
        return format!(";\r\n {name}*={one}");
    }
    let numbered = sections.iter().enumerate().map(|(number, section)| format!(";\r\n {name}*{number}*={section}"));
    numbered.collect()
}

/// Parts that mail programs would read for themselves are not base64 (RFC 2045, section 6.4): they are handed over as bytes.
fn carried_type(media_type: &str) -> &str {
    let kind = media_type.split('/').next().unwrap_or_default();
    let composite = ["multipart", "message"].iter().any(|word| kind.eq_ignore_ascii_case(word));
    if composite { "application/octet-stream" } else { media_type }
}

/// A message that hands a file over: all of its mail but the file.
pub(crate) struct FileMail {
    headers: String,
    said: String,
    media_type: String,
    bytes: u64,
    hash: String,
    /// Name of the file.
    pub name: String,
    /// The message's place in the group's log.
    pub place: u64,
}

impl FileMail {
    /// What stands before the file's lines of base64.
    pub(crate) fn before(&self) -> String {
        let Self { headers, said, media_type, bytes, hash, name, .. } = self;
        format!(
            "{headers}Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\r\n\r\n--{BOUNDARY}\r\n\
             Content-Type: {TEXT}\r\nContent-Transfer-Encoding: base64\r\n\r\n{}--{BOUNDARY}\r\n\
             Content-Type: {}\r\nContent-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment; size={bytes}{}\r\nX-Chancery-Media-Type: {media_type}\r\n\
             X-Chancery-File: {hash}\r\n\r\n",
            base64(said.as_bytes()),
            carried_type(media_type),
            parameter("filename", name),
        )
    }

    /// What stands behind it.
    pub(crate) fn after(&self) -> String {
        format!("--{BOUNDARY}--\r\n")
    }

    /// The mail without its file, which says why.
    pub(crate) fn without(&self, why: &str) -> String {
        let said = format!("{}\r\n(the file is not attached: {why})", self.said);
        format!(
            "{}Content-Type: {TEXT}\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
            self.headers,
            base64(said.as_bytes())
        )
    }
}

/// A mail: whole, or waiting for its file.
pub(crate) enum Mail {
    Whole(String),
    WithFile(Box<FileMail>),
}

/// The message as a file.
pub(crate) fn message(around: &Around<'_>, envelope: &Envelope, envelope_hash: EnvelopeHash) -> Mail {
    let headers = headers(around, envelope, envelope_hash);
    let (kind, content): (&str, Vec<u8>) = match &envelope.body {
        Body::Text(text) => (TEXT, text.clone().into_bytes()),
        Body::File(file) => {
            let hash = data_encoding::HEXLOWER.encode(&file.hash);
            let said =
                format!("(hands over {}: {} of {} bytes, SHA-256 {hash})", file.name, file.media_type, file.size);
            let (name, media_type, place) = (file.name.clone(), file.media_type.clone(), around.line.seq.0);
            let mail = FileMail { headers, said, media_type, bytes: file.size, hash, name, place };
            return Mail::WithFile(Box::new(mail));
        }
        Body::Reply { text, .. } => (TEXT, text.clone().into_bytes()),
        // What it is in words, so that it is not taken for what was said first. (export.edits.1)
        Body::Edit { replaces, text } => {
            (TEXT, format!("(edits message {}, which reads from here on:)\r\n\r\n{text}", hex(replaces)).into_bytes())
        }
        Body::Delete { replaces } => (TEXT, format!("(deletes message {})", hex(replaces)).into_bytes()),
        Body::Leave => (TEXT, b"(wants to leave the group)".to_vec()),
        Body::Acknowledge(notice) => (TEXT, format!("(has read the notice of escrow {notice})").into_bytes()),
        Body::Unknown { content, .. } => ("application/octet-stream", content.0.clone()),
        _ => ("application/octet-stream", Vec::new()),
    };
    Mail::Whole(format!(
        "{headers}Content-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
        base64(&content)
    ))
}

fn hex(id: &MessageId) -> String {
    data_encoding::HEXLOWER.encode(&id.0)
}

fn headers(around: &Around<'_>, envelope: &Envelope, envelope_hash: EnvelopeHash) -> String {
    let group = around.scope.group.to_string();
    let thread = format!("<{}@group.invalid>", short(&group));
    let mut text = String::new();
    let mut header = |name: &str, value: &str| {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    };
    header("From", &mailbox(around.sender));
    header("To", &format!("{}\r\n {thread}", words(around.group)));
    header("Date", &date(around.received_at));
    header("Subject", &words(&format!("{} #{}", around.group, around.line.seq.0)));
    let named = |id: &MessageId| format!("<{}@{}.invalid>", hex(id), short(&group));
    header("Message-ID", &named(&envelope.id));
    let about = match &envelope.body {
        Body::Reply { in_reply_to, .. } => Some(*in_reply_to),
        body => body.replaces(),
    };
    header("In-Reply-To", &about.as_ref().map_or_else(|| thread.clone(), named));
    let references = about.as_ref().map_or_else(String::new, |id| format!("\r\n {}", named(id)));
    header("References", &format!("{thread}{references}"));
    if let Some(replaces) = envelope.body.replaces() {
        header("X-Chancery-Replaces", &hex(&replaces));
    }
    header("X-Chancery-Group", &group);
    header("X-Chancery-Place", &around.line.seq.0.to_string());
    header("X-Chancery-Head", &around.line.head.to_string());
    header("X-Chancery-Epoch", &around.epoch.to_string());
    header("X-Chancery-Received-At", &moment(around.received_at));
    header("X-Chancery-Sent-At", &moment(envelope.sent_at));
    header("X-Chancery-Counter", &envelope.counter.to_string());
    header("X-Chancery-Sender", &words(&around.sender.0.to_uri()));
    header("X-Chancery-Envelope", &envelope_hash.to_string());
    if let Body::Unknown { kind, .. } = &envelope.body {
        header("X-Chancery-Body-Kind", &kind.to_string());
    }
    header("MIME-Version", "1.0");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_stay_in_their_parameter() {
        assert_eq!(parameter("filename", "a b.txt"), ";\r\n filename=\"a b.txt\"");
        assert_eq!(parameter("filename", "报.txt"), ";\r\n filename*=UTF-8''%E6%8A%A5.txt");
        let long = parameter("filename", &"报\"; x=\r\n".repeat(20));
        for line in long.split(";\r\n ").skip(1) {
            let fits = |c: char| c.is_ascii_alphanumeric() || "*='-_.%".contains(c);
            assert!(line.len() < 76 && line.starts_with("filename*") && line.chars().all(fits), "{line}");
        }
        assert_eq!(carried_type("Message/rfc822"), "application/octet-stream");
        assert_eq!(carried_type("text/html"), "text/html");
    }

    #[test]
    fn dates_say_their_zone_and_headers_stay_short() {
        assert_eq!(date(Timestamp(1_800_000_000_000)), "Fri, 15 Jan 2027 08:00:00 +0000");
        assert_eq!(words("desk"), "desk");
        assert_eq!(words("设计"), "=?utf-8?B?6K6+6K6h?=");
        let long = words(&"設計デスク 디자인 ".repeat(20));
        for line in long.split("\r\n ") {
            assert!(line.len() <= 75 && line.starts_with("=?utf-8?B?") && line.ends_with("?="), "{line}");
        }
        // No text gets out of its header.
        for evil in ["a\r\nBcc: b", "a=?x", "\"", "a@b", " a"] {
            assert!(words(evil).starts_with("=?utf-8?B?"), "{evil}");
        }
    }
}
