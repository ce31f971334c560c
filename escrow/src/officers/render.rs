//! Records as files for people and programs: the first page, a line of JSON for each record, a mail for each message.
//! `spec/export.md`.
//!
//! This module reads nothing but records. The same records give the same bytes, so that whoever verifies an export makes
//! its files again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use chancery_protocol::{
    escrow::{Person, Record, RecordBody, RecordLine, Scope, evidence::Gap, export::ExportedFile, opening::Request},
    ids::{GroupId, SegmentId},
    wire::envelope::{Body, Envelope, envelope_hash},
};
use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};

use super::{
    answer::asked_words,
    attached::{Attached, FILES, Lacking},
    eml::{Around, Mail, message},
    folder::Files,
    words::{day, moment, short},
};

/// The first page.
pub(crate) const FIRST_PAGE: &str = "README.txt";
/// All records, a line for each.
pub(crate) const RECORDS: &str = "records.jsonl";
/// Where mails are.
pub(crate) const MAIL: &str = "mail";

/// What is counted of a group.
#[derive(Default)]
struct GroupTold {
    name: String,
    messages: u64,
    others: u64,
    days: Option<(u32, u32)>,
    gaps: Vec<Gap>,
    missing: u64,
}

/// Renders records, in their order.
pub struct Renderer {
    pub(crate) files: Files,
    attached: Attached,
    groups: BTreeMap<GroupId, GroupTold>,
    /// Names of groups, by segment: a segment begins with the name that holds there.
    names: BTreeMap<SegmentId, String>,
    released: u64,
}

pub(crate) fn person(person: &Person) -> Value {
    let name = &person.0;
    json!({
        "account": name.account.to_string(), "handle": name.handle.as_ref().map(|handle| handle.as_str()),
        "device": name.device.to_string(), "uri": name.to_uri(),
    })
}

fn people(list: &[Person]) -> Vec<Value> {
    list.iter().map(person).collect()
}

/// An envelope, as far as this version knows it.
fn said(envelope: &[u8]) -> Value {
    let Ok(envelope) = Envelope::from_bytes(envelope) else {
        return json!({"undecodable": HEXLOWER.encode(envelope)});
    };
    let body = match &envelope.body {
        Body::Text(text) => json!({"text": text}),
        // Its bytes are records of their own; its key opens nothing that is archived, and is not shown.
        Body::File(file) => json!({"file": {
            "name": file.name, "media_type": file.media_type, "bytes": file.size, "sha256": HEXLOWER.encode(&file.hash),
        }}),
        Body::Reply { in_reply_to, text } => {
            json!({"reply": {"in_reply_to": HEXLOWER.encode(&in_reply_to.0), "text": text}})
        }
        Body::Edit { replaces, text } => json!({"edit": {"replaces": HEXLOWER.encode(&replaces.0), "text": text}}),
        Body::Delete { replaces } => json!({"delete": {"replaces": HEXLOWER.encode(&replaces.0)}}),
        Body::Leave => json!({"leave": true}),
        Body::Acknowledge(notice) => json!({"acknowledges": notice.to_string()}),
        Body::Unknown { kind, content } => json!({"kind": kind, "base64": BASE64.encode(content)}),
        _ => json!({"kind": "unknown"}),
    };
    json!({
        "id": HEXLOWER.encode(&envelope.id.0), "counter": envelope.counter, "previous": envelope.previous.to_string(),
        "sent_at": moment(envelope.sent_at), "sent_at_ms": envelope.sent_at.0, "body": body,
    })
}

fn content(body: &RecordBody) -> (&'static str, Value) {
    match body {
        RecordBody::Members(list) => (
            "members",
            json!({"name": list.name, "part": list.part, "parts": list.parts, "members": people(&list.members)}),
        ),
        RecordBody::Message { sender, envelope } => {
            ("message", json!({"sender": person(sender), "envelope": said(envelope)}))
        }
        RecordBody::Acknowledgement { sender, notice, envelope } => (
            "acknowledgement",
            json!({"sender": person(sender), "notice": notice.to_string(), "envelope": said(envelope)}),
        ),
        RecordBody::Commit(commit) => (
            "commit",
            json!({
                "committer": person(&commit.committer), "added": people(&commit.added),
                "removed": people(&commit.removed), "name": commit.name,
                "picture": commit.picture.as_ref().map(|picture| BASE64.encode(picture)),
            }),
        ),
        RecordBody::Policy { committer, policy, document } => (
            "policy",
            json!({"committer": person(committer), "policy": policy.to_string(), "base64": BASE64.encode(document)}),
        ),
        RecordBody::Skipped { reason } => ("skipped", json!({"why": format!("{reason:?}")})),
        RecordBody::Gap { last, reason } => ("gap", json!({"last": last.0, "why": reason.in_words()})),
        RecordBody::Attachment(part) => (
            "attachment",
            json!({
                "sender": person(&part.sender), "message": HEXLOWER.encode(&part.message.0),
                "sha256": HEXLOWER.encode(&part.hash), "part": part.part, "parts": part.parts,
                "bytes": part.content.len(),
            }),
        ),
        RecordBody::Stuck { device, commit } => ("stuck", json!({"device": device.to_string(), "commit": commit.0})),
        RecordBody::Unknown { kind, content } => ("unknown", json!({"kind": kind, "base64": BASE64.encode(content)})),
        _ => ("unknown", Value::Null),
    }
}

impl Renderer {
    /// The files of a folder: to be written, or as they must be if they are not.
    #[must_use]
    pub fn new(folder: &Path, writes: bool) -> Self {
        let (files, attached) = (Files::new(writes.then_some(folder)), Attached::new(folder, writes));
        Self { files, attached, groups: BTreeMap::new(), names: BTreeMap::new(), released: 0 }
    }

    /// One record that was released.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn record(&mut self, scope: &Scope, line: &RecordLine, record: &Record) -> Result<(), String> {
        self.released += 1;
        let group = self.groups.entry(scope.group).or_default();
        let (first, last) = group.days.unwrap_or((scope.day.0, scope.day.0));
        group.days = Some((first.min(scope.day.0), last.max(scope.day.0)));
        let name = self.names.entry(scope.segment).or_default();
        match &record.body {
            RecordBody::Members(list) => name.clone_from(&list.name),
            RecordBody::Commit(commit) => {
                if let Some(changed) = &commit.name {
                    name.clone_from(changed);
                }
            }
            _ => {}
        }
        group.name.clone_from(name);
        let (kind, content) = content(&record.body);
        match &record.body {
            RecordBody::Message { sender, envelope } | RecordBody::Acknowledgement { sender, envelope, .. } => {
                group.messages += 1;
                if let Ok(read) = Envelope::from_bytes(envelope) {
                    let (received_at, epoch) = (record.received_at, record.epoch.0);
                    let around = Around { scope, line, sender, group: name, received_at, epoch };
                    let path = format!(
                        "{MAIL}/{}/{:010}-{}-{:06}.eml",
                        short(&scope.group.to_string()),
                        line.seq.0,
                        short(&HEXLOWER.encode(&scope.segment.0)),
                        line.index
                    );
                    match (message(&around, &read, envelope_hash(envelope)), &read.body) {
                        (Mail::WithFile(mail), Body::File(file)) => {
                            let file = (scope.group, sender.0.device, read.id, file.hash);
                            self.attached.mail(&mut self.files, file, path, *mail)?;
                        }
                        (Mail::Whole(mail), _) => self.files.put(&path, mail.as_bytes())?,
                        (Mail::WithFile(_), _) => {}
                    }
                }
            }
            RecordBody::Gap { last, reason } => {
                group.gaps.push(Gap { first: record.seq, last: *last, reason: *reason });
            }
            RecordBody::Attachment(part) => {
                group.missing += u64::from(part.parts == 0);
                group.others += u64::from(part.parts != 0);
                self.attached.part(&mut self.files, scope, line, part)?;
            }
            _ => group.others += 1,
        }
        let line = json!({
            "group": scope.group.to_string(), "group_name": name, "place": line.seq.0, "head": line.head.to_string(),
            "epoch": record.epoch.0, "received_at": moment(record.received_at), "received_at_ms": record.received_at.0,
            "segment": HEXLOWER.encode(&scope.segment.0), "record": line.index, "sealed": line.sealed.to_string(),
            "kind": kind, "content": content,
        });
        self.files.append(RECORDS, format!("{line}\n").as_bytes())
    }

    /// The first page, and all files. `records` is how many there are in the segments, released or not.
    /// Mails that cannot be told are named beside them.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn finish(mut self, request: &Request, records: u64) -> Result<(Vec<ExportedFile>, BTreeSet<String>), String> {
        let lacking = self.attached.finish(&mut self.files)?;
        let page = self.first_page(request, records, &lacking);
        self.files.append(RECORDS, b"")?;
        self.files.put(FIRST_PAGE, page.as_bytes())?;
        Ok((self.files.finish()?, self.attached.unmade))
    }

    /// Gaps first: whoever reads one page knows what is not here.
    fn first_page(&self, request: &Request, records: u64, lacking: &[Lacking]) -> String {
        let mut text = format!("EXPORT OF CASE {}\n\nNot in this export\n", request.case);
        let gaps: usize = self.groups.values().map(|group| group.gaps.len()).sum();
        if gaps == 0 {
            text.push_str("- gaps in what was captured: none among the released records\n");
        }
        for (id, group) in &self.groups {
            for Gap { first, last, reason } in &group.gaps {
                let why = reason.in_words();
                text.push_str(&format!(
                    "- group {} ({}): entries {} to {}: {why}\n",
                    short(&id.to_string()),
                    group.name,
                    first.0,
                    last.0
                ));
            }
            if group.missing > 0 {
                text.push_str(&format!(
                    "- group {} ({}): {} files could not be archived\n",
                    short(&id.to_string()),
                    group.name,
                    group.missing
                ));
            }
            for Lacking { place, name, why, .. } in lacking.iter().filter(|one| one.group == *id) {
                let id = short(&id.to_string());
                text.push_str(&format!("- group {id} ({}): the file {name:?} of entry {place}: {why}\n", group.name));
            }
        }
        let withheld = records.saturating_sub(self.released);
        text.push_str(&format!("- records of people whom the request does not name: {withheld}\n"));
        text.push_str(&format!("\nIn this export: {} of {records} records\n", self.released));
        for (id, group) in &self.groups {
            let (first, last) = group.days.unwrap_or_default();
            text.push_str(&format!(
                "- group {} ({}), {} to {}: {} messages, {} other records\n",
                short(&id.to_string()),
                group.name,
                day(first),
                day(last),
                group.messages,
                group.others
            ));
        }
        text.push_str(&format!("\nWhat was asked for\n{}\n", asked_words(request)));
        text.push_str(&format!(
            "\nFiles\n- {RECORDS}: every record, a line of JSON each, in the order of the archive\n\
             - {MAIL}/: every message as a mail (RFC 5322); its date is when the relay received it, in UTC; files are attached\n\
             - {FILES}/: every file that was handed over, under its SHA-256; its name is in records and mails\n\
             - sealed/, manifest.bin, closing.bin: what `chancery-escrow verify` checks all of this by\n\
             \nTimes are in UTC. Edits and deletions are messages of their own, behind what they edit or delete, which stands\n\
             here as it was sent. They hold if they are of the account that has sent it. Nothing here was changed later.\n"
        ));
        text
    }
}
