//! A message as a file that mail programs read (RFC 5322, MIME): UTF-8 throughout, the zone of each time written out.
//!
//! This module invents no addresses that could be written to: all of them end in `.invalid` (RFC 2606).

use chancery_protocol::{
    escrow::{Person, RecordLine, Scope},
    ids::EnvelopeHash,
    time::Timestamp,
    wire::envelope::{Body, Envelope},
};
use data_encoding::BASE64;
use time::OffsetDateTime;

use super::words::{moment, short};

/// Longest payload of an encoded word (RFC 2047): 75 characters with what is around it.
const WORD_BYTES: usize = 45;
/// Characters of base64 in a line.
const LINE: usize = 76;

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

fn base64(bytes: &[u8]) -> String {
    let text = BASE64.encode(bytes);
    let lines = text.as_bytes().chunks(LINE).map(|line| String::from_utf8_lossy(line).into_owned());
    lines.map(|line| line + "\r\n").collect()
}

/// The message as a file.
pub(crate) fn message(around: &Around<'_>, envelope: &Envelope, envelope_hash: EnvelopeHash) -> Vec<u8> {
    let group = around.scope.group.to_string();
    let thread = format!("<{}@group.invalid>", short(&group));
    let (kind, content): (&str, Vec<u8>) = match &envelope.body {
        Body::Text(text) => ("text/plain; charset=utf-8", text.clone().into_bytes()),
        Body::File(file) => {
            let (name, size, hash) = (&file.name, file.size, data_encoding::HEXLOWER.encode(&file.hash));
            let said = format!("(hands over {name}: {} of {size} bytes, SHA-256 {hash})", file.media_type);
            ("text/plain; charset=utf-8", said.into_bytes())
        }
        Body::Leave => ("text/plain; charset=utf-8", b"(wants to leave the group)".to_vec()),
        Body::Acknowledge(notice) => {
            let said = format!("(has read the notice of escrow {notice})");
            ("text/plain; charset=utf-8", said.into_bytes())
        }
        Body::Unknown { content, .. } => ("application/octet-stream", content.0.clone()),
        _ => ("application/octet-stream", Vec::new()),
    };
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
    header("Message-ID", &format!("<{}@{}.invalid>", data_encoding::HEXLOWER.encode(&envelope.id.0), short(&group)));
    header("In-Reply-To", &thread);
    header("References", &thread);
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
    header("Content-Type", kind);
    header("Content-Transfer-Encoding", "base64");
    text.push_str("\r\n");
    text.push_str(&base64(&content));
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

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
