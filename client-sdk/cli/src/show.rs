//! What is printed, as lines for people or as JSON.
//!
//! This module does not decide what to print. Names and messages come from others: on a terminal, control characters and
//! bidirectional overrides would let them forge lines, so they are shown as escapes. JSON carries them as they are.

use std::{
    io::{self, Write},
    path::Path,
};

use chancery_client::{
    AccountId, Authority, Body, Client, Contact, Device, DirectorySummary, Domain, Event, Freshness, GroupId,
    GroupPicture, GroupStatus, GroupSummary, Handle, HostEvent, Identity, Invitee, LinkCode, MemberSummary, Message,
    Organisation, Partner, Role, RootHash, Shown, Since, SplitEvidence,
};
use serde_json::{Value, json};

use crate::{exit::Failure, people::People, policy, session::short};

/// Where results go.
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Writes one line and makes sure that it is out: a pipe's reader shall not wait for the next one.
    pub(crate) fn line(&self, plain: impl FnOnce() -> String, object: impl FnOnce() -> Value) -> Result<(), Failure> {
        let line = if self.json { object().to_string() } else { plain() };
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        Ok(out.flush()?)
    }

    /// A message of history, as it is after edits and deletes. What was deleted is not shown. (mls.replace.3)
    pub(crate) fn shown(&self, shown: &Shown, client: &Client) -> Result<(), Failure> {
        let Shown { message, since } = shown;
        let mut after = message.clone();
        let (state, mark) = match since {
            Since::Edited { text, .. } => {
                after.body = match &message.body {
                    Body::Reply { in_reply_to, .. } => Body::Reply { in_reply_to: *in_reply_to, text: text.clone() },
                    _ => Body::Text(text.clone()),
                };
                ("edited", " (edited)")
            }
            Since::Deleted { .. } => {
                after.body = Body::Text(String::new());
                ("deleted", "(deleted)")
            }
            _ => ("as_sent", ""),
        };
        self.line(
            || format!("#{} {}{mark}", message.seq.0, message_line(&after, client)),
            || json!({"state": state, "message": message_object(None, &after, client)}),
        )
    }

    pub(crate) fn identity(&self, identity: &Identity) -> Result<(), Failure> {
        self.line(
            || format!("{}\ndevice {}", escape(&identity.address), identity.device),
            || {
                json!({
                    "address": identity.address,
                    "account": identity.account.to_string(),
                    "authority": authority(&identity.authority),
                    "device": identity.device.to_string(),
                    "not_after_ms": identity.not_after.0,
                })
            },
        )
    }

    pub(crate) fn devices(&self, devices: &[Device]) -> Result<(), Failure> {
        devices.iter().try_for_each(|device| self.device(device))
    }

    fn device(&self, device: &Device) -> Result<(), Failure> {
        let id = device.device.to_string();
        self.line(
            || {
                let state = if device.revoked_at.is_some() { "revoked" } else { "active" };
                let own = match (device.own, device.known) {
                    (true, _) => "  (this device)",
                    (false, true) => "",
                    (false, false) => "  UNKNOWN here: acknowledge it if it is yours, else revoke it",
                };
                format!("{}  {state:<8}  {}{own}", short(&id), escape(&device.label))
            },
            || {
                json!({
                    "device": id, "label": device.label, "own": device.own, "known": device.known, "enrolled_at_ms": device.enrolled_at.0,
                    "not_after_ms": device.not_after.0, "revoked_at_ms": device.revoked_at.map(|at| at.0),
                })
            },
        )
    }

    /// What was read of the organisation's directory; evidence of two histories in full, so that it can be handed on.
    pub(crate) fn directory(&self, directory: &DirectorySummary) -> Result<(), Failure> {
        let age = match directory.freshness {
            Freshness::Fresh => "fresh",
            Freshness::Aging => "older than an hour",
            Freshness::Stale => "older than a day: nothing is sent",
        };
        self.line(
            || {
                let mut text = format!("{} entries, {age}", directory.size);
                if directory.split {
                    text.push_str(
                        "\nALARM: two histories. When it is cleared up which one holds: chancery directory clear",
                    );
                }
                for device in &directory.unknown_devices {
                    text.push_str(&format!("\nunknown device of this account: {device}"));
                }
                for seen in &directory.evidence {
                    text.push_str(&format!(
                        "\nevidence, followed here:\n{}contradicted by:\n{}",
                        seen.ours, seen.theirs
                    ));
                }
                text
            },
            || {
                let evidence = |seen: &SplitEvidence| json!({ "ours": seen.ours, "theirs": seen.theirs });
                json!({
                    "entries": directory.size, "signed_at_ms": directory.signed_at.map(|at| at.0), "age": age,
                    "split": directory.split, "evidence": directory.evidence.iter().map(evidence).collect::<Vec<_>>(),
                    "unknown_devices": directory.unknown_devices.iter().map(ToString::to_string).collect::<Vec<_>>(),
                })
            },
        )
    }

    /// A contact; with the groups in which that account is, if that was asked.
    pub(crate) fn contact(&self, contact: Contact, groups: Option<&[String]>) -> Result<(), Failure> {
        self.line(
            || match groups {
                None => contact.to_string(),
                Some([]) => format!("personal:{} is whole, and in no group of this device", contact.0),
                Some(groups) => {
                    let names: Vec<String> = groups.iter().map(|name| format!("{:?}", escape(name))).collect();
                    format!("personal:{} is whole, and in {}", contact.0, names.join(", "))
                }
            },
            || json!({ "contact": contact.to_string(), "account": contact.0.to_string(), "groups": groups }),
        )
    }

    /// An account of an organisation, likewise.
    pub(crate) fn invitee(&self, invitee: &Invitee, groups: Option<&[String]>) -> Result<(), Failure> {
        self.line(
            || match groups {
                None => invitee.to_string(),
                Some(groups) => {
                    let names: Vec<String> = groups.iter().map(|name| format!("{:?}", escape(name))).collect();
                    let handle = escape(invitee.handle.as_str());
                    let groups = if names.is_empty() { "no group of this device".to_owned() } else { names.join(", ") };
                    format!("{handle} of the organisation {} is whole, and in {groups}", invitee.root)
                }
            },
            || {
                json!({
                    "contact": invitee.to_string(), "account": invitee.account().to_string(),
                    "root": invitee.root.to_string(), "handle": invitee.handle.as_str(), "groups": groups,
                })
            },
        )
    }

    pub(crate) fn pinned(&self, organisation: &Organisation) -> Result<(), Failure> {
        let (domain, root) = (&organisation.domain, organisation.root);
        self.line(
            || format!("{domain} is pinned; compare its root with somebody there, over another channel:\n  {root}"),
            || json!({ "done": "pinned", "domain": domain.as_str(), "root": root.to_string() }),
        )
    }

    pub(crate) fn unpinned(&self, organisation: &Organisation) -> Result<(), Failure> {
        let (domain, root) = (&organisation.domain, organisation.root);
        self.line(
            || format!("{domain} is forgotten: nobody of it is added from here on"),
            || json!({ "done": "forgotten", "domain": domain.as_str(), "root": root.to_string() }),
        )
    }

    pub(crate) fn partner(&self, partner: &Partner) -> Result<(), Failure> {
        let (domain, root) = (&partner.organisation.domain, partner.organisation.root);
        let directory = match partner.directory {
            None => "none",
            Some(Freshness::Fresh) => "fresh",
            Some(Freshness::Aging) => "an hour old",
            Some(Freshness::Stale) => "a day old",
        };
        self.line(
            || format!("{domain}  {root}  directory: {directory}"),
            || json!({ "domain": domain.as_str(), "root": root.to_string(), "directory": directory }),
        )
    }

    pub(crate) fn then_add(&self) -> Result<(), Failure> {
        if !self.json {
            self.line(
                || "When it is enrolled and was online, run here: chancery device add".to_owned(),
                || Value::Null,
            )?;
        }
        Ok(())
    }

    pub(crate) fn added(&self, groups: usize) -> Result<(), Failure> {
        self.line(
            || format!("all devices of this account are in {groups} groups"),
            || json!({ "done": "added", "groups": groups }),
        )
    }

    /// The code stands alone on its line, so that it can be copied or made into a QR code.
    pub(crate) fn link_code(&self, code: &LinkCode) -> Result<(), Failure> {
        self.line(
            || {
                format!(
                    "{}\nOn the other device: chancery enroll CODE. It is good once, for ten minutes, and who has it is you.",
                    code.code
                )
            },
            || json!({ "code": code.code, "expires_at_ms": code.expires_at.0 }),
        )
    }

    pub(crate) fn linked(&self, device: &Device, groups: usize) -> Result<(), Failure> {
        let id = device.device.to_string();
        self.line(
            || format!("device {} is linked and in {groups} groups", short(&id)),
            || json!({ "linked": id, "groups": groups }),
        )
    }

    pub(crate) fn group(&self, group: &GroupSummary) -> Result<(), Failure> {
        let status = match group.status {
            GroupStatus::Founding => "founding",
            GroupStatus::Active => "active",
            GroupStatus::Leaving => "leaving",
            GroupStatus::Left => "left",
            GroupStatus::Removed => "removed",
        };
        let id = group.group.to_string();
        self.line(
            || {
                let alarm = group.alarm.map(|alarm| format!("  STOPPED: {}", alarm.word())).unwrap_or_default();
                let waiting = match group.waiting {
                    0 => String::new(),
                    waiting => format!("  ({waiting} to send)"),
                };
                let (class, people) = (group.class.word(), group.accounts);
                let notice = if group.notice_due { "  (notice to acknowledge)" } else { "" };
                let differs = group.archive.is_some_and(|archive| archive.differs_since.is_some());
                let late = match group.archive.map_or(Freshness::Fresh, |archive| archive.lateness) {
                    _ if differs => "  (ARCHIVE HAS ANOTHER HISTORY)",
                    Freshness::Fresh => "",
                    Freshness::Aging => "  (not archived for an hour)",
                    Freshness::Stale => "  (NOT ARCHIVED for a day)",
                };
                format!(
                    "{}  {class:<8}  {status:<8}  {people:>4}  {}{waiting}{notice}{late}{alarm}",
                    short(&id),
                    escape(&group.name)
                )
            },
            || {
                json!({
                    "group": id, "name": group.name, "class": group.class.word(), "status": status,
                    "epoch": group.epoch, "accounts": group.accounts, "waiting": group.waiting,
                    "alarm": group.alarm.map(chancery_client::AlarmKind::word),
                    "stuck_by": group.stuck_by.map(|by| by.to_string()), "notice_due": group.notice_due,
                    "archive": group.archive.as_ref().map(policy::progress),
                })
            },
        )
    }

    pub(crate) fn picture(
        &self,
        group: GroupId,
        picture: Option<&GroupPicture>,
        saved: Option<&Path>,
    ) -> Result<(), Failure> {
        let Some(picture) = picture else {
            let none = || json!({ "group": group.to_string(), "picture": null });
            return self.line(|| "the group has no picture".to_owned(), none);
        };
        let (media, bytes) = (picture.media_type(), picture.bytes().len());
        let saved = saved.map(|path| path.display().to_string());
        self.line(
            || {
                let saved = saved.as_ref().map(|path| format!(", saved as {}", escape(path))).unwrap_or_default();
                format!("{media}, {bytes} bytes{saved}")
            },
            || {
                json!({
                    "group": group.to_string(), "picture": { "media_type": media, "bytes": bytes }, "saved": saved,
                })
            },
        )
    }

    /// A group that was founded anew, and who of the old one's members is not in it.
    pub(crate) fn founded(
        &self,
        group: GroupId,
        without: &[AccountId],
        members: &[MemberSummary],
        client: &Client,
    ) -> Result<(), Failure> {
        let known = |account: &AccountId| members.iter().find(|member| member.account == *account);
        let address = |account| name(client, known(account).and_then(|member| member.handle.as_ref()), *account);
        let without: Vec<String> = without.iter().map(address).collect();
        self.line(
            || match without.as_slice() {
                [] => format!("founded {group}"),
                without => format!("founded {group} without {}", escape(&without.join(", "))),
            },
            || json!({ "done": "founded", "group": group.to_string(), "address": null, "without": without }),
        )
    }

    pub(crate) fn member(&self, member: &MemberSummary, client: &Client) -> Result<(), Failure> {
        let role = match member.role {
            Role::Human => "human",
            Role::Service => "service",
            Role::Escrow => "escrow",
        };
        let address = name(client, member.handle.as_ref(), member.account);
        let device = member.device.to_string();
        self.line(
            || {
                let own = if member.own { "  (this device)" } else { "" };
                let administrator = if member.administrator { "  administrator" } else { "" };
                format!("{}  {role:<7}  device {}{administrator}{own}", escape(&address), short(&device))
            },
            || {
                json!({
                    "address": address, "account": member.account.to_string(), "authority": authority(&member.authority),
                    "organisation": member.organisation.as_ref().map(Domain::as_str),
                    "handle": member.handle.as_ref().map(Handle::as_str), "device": device, "role": role,
                    "own": member.own, "administrator": member.administrator,
                })
            },
        )
    }

    /// An event; `group` is the group's name where a person needs it.
    pub(crate) fn event(
        &self,
        event: &HostEvent,
        client: &Client,
        people: &People,
        group: Option<&str>,
    ) -> Result<(), Failure> {
        let prefix = || group.map_or_else(String::new, |group| format!("[{}] ", escape(group)));
        match event {
            HostEvent::Message { id, message } => self.line(
                || format!("{}{}", prefix(), message_line(message, client)),
                || message_object(Some(id.0), message, client),
            ),
            HostEvent::Other { id, event } => self.line(
                || format!("{}* {}", prefix(), escape(&sentence(event, client, people))),
                || event_object(id.0, event, client),
            ),
            _ => Ok(()),
        }
    }
}

/// How an account is shown and addressed: its handle if it is of the own organisation, else with the domain of its own if
/// that is pinned, or a part of its id, so that a namesake elsewhere cannot be taken for a colleague; or `personal:` and the id.
pub(crate) fn name(client: &Client, handle: Option<&Handle>, account: AccountId) -> String {
    match handle {
        Some(handle) if client.resolve(handle.as_str()).is_ok_and(|own| own == account) => handle.to_string(),
        Some(handle) => match client.domain_of(handle, account) {
            Some(domain) => format!("{handle}@{domain}"),
            None => format!("{handle}@{}", short(&account.to_string())),
        },
        None => format!("personal:{account}"),
    }
}

/// An organisation by its domain, if it is pinned, or its root.
fn organisation(client: &Client, root: RootHash) -> String {
    match client.domain_of_root(root) {
        Some(domain) => domain.to_string(),
        None => format!("an organisation that is not pinned here ({root})"),
    }
}

fn author(client: &Client, message: &Message) -> String {
    match &message.handle {
        Some(_) => name(client, message.handle.as_ref(), message.account),
        None => format!("personal:{}", short(&message.account.to_string())),
    }
}

fn message_line(message: &Message, client: &Client) -> String {
    let name = escape(&author(client, message));
    match &message.body {
        Body::Text(text) => format!("{name}: {}", escape(text)),
        Body::Reply { in_reply_to, text } => {
            format!("{name} (to message {}): {}", short(&in_reply_to.to_string()), escape(text))
        }
        Body::Edit { replaces, text } => {
            format!("* {name} edits message {}: {}", short(&replaces.to_string()), escape(text))
        }
        Body::Delete { replaces } => format!("* {name} deletes message {}", short(&replaces.to_string())),
        Body::Leave => format!("* {name} asks to leave"),
        Body::File(file) => format!(
            "* {name} hands over {} ({}, {} bytes) at place {}",
            escape(&file.name),
            escape(&file.media_type),
            file.size,
            message.seq.0
        ),
        Body::Acknowledge(_) => format!("* {name} has read the notice that this group is archived"),
        _ => format!("* {name} sent something that this version does not show"),
    }
}

fn message_object(event: Option<u64>, message: &Message, client: &Client) -> Value {
    let (body, about) = match &message.body {
        Body::Text(_) => ("text", None),
        Body::Reply { in_reply_to, .. } => ("reply", Some(in_reply_to)),
        Body::Edit { replaces, .. } => ("edit", Some(replaces)),
        Body::Delete { replaces } => ("delete", Some(replaces)),
        Body::Leave => ("leave", None),
        Body::Acknowledge(_) => ("acknowledge", None),
        Body::File(_) => ("file", None),
        _ => ("unknown", None),
    };
    let text = message.body.text();
    json!({
        "event": "message", "number": event, "group": message.group.to_string(), "seq": message.seq.0,
        "message": message.id.to_string(), "from": name(client, message.handle.as_ref(), message.account),
        "account": message.account.to_string(), "device": message.device.to_string(), "own": message.own,
        "sent_at_ms": message.sent_at.0, "received_at_ms": message.received_at.0,
        "continuous": message.continuous, "body": body, "text": text, "about": about.map(ToString::to_string),
        "file": file_object(&message.body),
    })
}

fn file_object(body: &Body) -> Option<Value> {
    let Body::File(file) = body else { return None };
    Some(json!({"name": file.name, "media_type": file.media_type, "bytes": file.size}))
}

/// The group that an event belongs to.
pub(crate) fn group_of(event: &HostEvent) -> Option<GroupId> {
    match event {
        HostEvent::Message { message, .. } => Some(message.group),
        HostEvent::Other { event, .. } => group_of_event(event),
        _ => None,
    }
}

fn group_of_event(event: &Event) -> Option<GroupId> {
    match event {
        Event::Received { group, .. }
        | Event::Sent { group, .. }
        | Event::Joined { group, .. }
        | Event::Archived { group, .. }
        | Event::ArchiveBehind { group, .. }
        | Event::ArchiveFollowed { group }
        | Event::NotArchived { group, .. }
        | Event::ArchiveAgrees { group }
        | Event::MemberAdded { group, .. }
        | Event::DeviceAdded { group, .. }
        | Event::MemberRemoved { group, .. }
        | Event::Renamed { group, .. }
        | Event::PictureChanged { group, .. }
        | Event::PolicyNotListed { group, .. }
        | Event::PolicySuperseded { group, .. }
        | Event::AdministratorsChanged { group, .. }
        | Event::OrganisationsChanged { group, .. }
        | Event::Leaving { group, .. }
        | Event::Left { group }
        | Event::Removed { group }
        | Event::Skipped { group, .. }
        | Event::Unsent { group, .. }
        | Event::DeviceRolledBack { group, .. }
        | Event::MemberStuck { group, .. }
        | Event::MemberReadded { group, .. }
        | Event::HelpOverdue { group, .. }
        | Event::Alarm { group, .. } => Some(*group),
        _ => None,
    }
}

/// Whether a person at a terminal wants to see it: not the echo of what was typed.
pub(crate) fn is_news(event: &HostEvent) -> bool {
    match event {
        HostEvent::Message { message, .. } => !message.own,
        HostEvent::Other { event, .. } => !matches!(event, Event::Sent { .. } | Event::Skipped { .. }),
        _ => false,
    }
}

fn sentence(event: &Event, client: &Client, people: &People) -> String {
    let who = |account: &AccountId| people.name(client, *account);
    match event {
        Event::Received { seq, .. } | Event::Sent { seq, .. } => format!("message {seq} is not in history"),
        Event::Joined { name, class, .. } => format!("you are in the group {name:?} ({class})"),
        Event::Archived { policy, notice_due, .. } => policy::sentence(policy, *notice_due),
        Event::ArchiveBehind { trouble, stops: false, .. } => {
            format!("WARNING: this group is not archived for an hour: {}", escape(&trouble.to_string()))
        }
        Event::ArchiveBehind { trouble, stops: true, .. } => format!(
            "ALARM: this group is not archived for a day, and nothing is sent until it is: {}; tell whoever runs the archive",
            escape(&trouble.to_string())
        ),
        Event::PolicyNotListed { id, version, .. } => policy::not_listed(id, *version),
        Event::PolicySuperseded { id, version, latest, .. } => policy::superseded(id, *version, *latest),
        Event::ArchiveFollowed { .. } => "the archive of this group has caught up".to_owned(),
        Event::NotArchived { first, last, .. } => {
            format!("WARNING: entries {first} to {last} are not in the archive; what was sent again since is")
        }
        Event::ArchiveAgrees { .. } => "the archive of this group has the same history again".to_owned(),
        Event::MemberAdded { account, .. } => format!("{} was added", who(account)),
        Event::DeviceAdded { account, device, .. } => {
            format!("{} has another device in the group: {}", who(account), short(&device.to_string()))
        }
        Event::MemberRemoved { account, .. } => format!("{} was removed", who(account)),
        Event::Leaving { account, .. } => format!("{} asks to leave", who(account)),
        Event::Left { .. } => "you have left the group".to_owned(),
        Event::Removed { .. } => "you were removed from the group".to_owned(),
        Event::Skipped { seq, reason, .. } => format!("entry {seq} was skipped: {reason}"),
        Event::Unsent { id, reason, .. } => format!("message {id} was not sent: {reason}"),
        Event::DeviceRolledBack { account, .. } => {
            format!("a device of {} has lost what it knew: it may run from a restored copy", who(account))
        }
        Event::MemberStuck { account, .. } => {
            format!("a device of {} cannot follow the group and will be added again", who(account))
        }
        Event::PictureChanged { .. } => "the group has another picture, or none any more".to_owned(),
        Event::Renamed { name, .. } => format!("the group is called {name} from here on"),
        Event::AdministratorsChanged { appointed, dismissed, .. } => {
            format!("administrators: {} appointed, {} dismissed", appointed.len(), dismissed.len())
        }
        Event::MemberReadded { account, by, .. } => {
            format!("a device of {} was added again by {}", who(account), who(by))
        }
        Event::HelpOverdue { by, .. } => format!(
            "nobody has added this device again for an hour: found the group anew{}",
            by.as_ref().map(|by| format!(", without {}", who(by))).unwrap_or_default()
        ),
        Event::Alarm { reason, .. } => format!("ALARM: {reason}"),
        Event::DirectoryAges { stops: false } => {
            "WARNING: the organisation's directory has not been read for an hour: who was revoked since is not known"
                .to_owned()
        }
        Event::DirectoryAges { stops: true } => {
            "ALARM: the organisation's directory has not been read for a day: nothing is sent to its groups".to_owned()
        }
        Event::DirectoryFollowed => "the organisation's directory is followed again".to_owned(),
        Event::DirectorySplit { .. } => {
            "ALARM: the organisation's directory has shown two histories: tell whoever answers for it, with what `chancery \
             directory show` prints"
                .to_owned()
        }
        Event::UnknownOwnDevice { device, .. } => {
            format!(
                "ALARM: your account has a device that none of your others has told of: {device}. If it is yours: chancery device \
                 acknowledge; else have it revoked"
            )
        }
        Event::OrganisationsChanged { added, dropped, .. } => {
            let list = |roots: &[RootHash]| {
                roots.iter().map(|root| organisation(client, *root)).collect::<Vec<_>>().join(", ")
            };
            match (added.as_slice(), dropped.as_slice()) {
                (added, []) => format!("people of {} may be in the group from here on", list(added)),
                ([], dropped) => format!("people of {} may not be in the group any more", list(dropped)),
                (added, dropped) => {
                    format!(
                        "people of {} may be in the group from here on, those of {} may not",
                        list(added),
                        list(dropped)
                    )
                }
            }
        }
        Event::PartnerPinned { domain, root } => format!("{domain} is pinned with the root {root}"),
        Event::PartnerChanged { domain, root, shown_domain, shown_root } => format!(
            "ALARM: {domain} is pinned with the root {root}, and was shown as {shown_domain} with the root {shown_root}: \
             somebody else may answer there"
        ),
        Event::PartnerDirectoryAges { domain, stops: false } => {
            format!(
                "WARNING: the directory of {domain} has not been read for an hour: who was revoked there is not known"
            )
        }
        Event::PartnerDirectoryAges { domain, stops: true } => {
            format!(
                "ALARM: the directory of {domain} has not been read for a day: nothing is sent to groups with its people"
            )
        }
        Event::PartnerDirectoryFollowed { domain } => format!("the directory of {domain} is followed again"),
        Event::PartnerDirectorySplit { domain, .. } => {
            format!("ALARM: the directory of {domain} has shown two histories: tell whoever answers for it")
        }
        Event::InvitationRefused { reason } => format!("an invitation was refused: {reason}"),
        _ => "something that this version does not show".to_owned(),
    }
}

fn event_object(number: u64, event: &Event, client: &Client) -> Value {
    let who = |handle: &Option<Handle>, account: &AccountId| name(client, handle.as_ref(), *account);
    let (kind, mut object) = match event {
        Event::Received { seq, .. } => ("received", json!({ "seq": seq.0 })),
        Event::Sent { seq, id, .. } => ("sent", json!({ "seq": seq.0, "message": id.to_string() })),
        Event::Joined { name, class, .. } => ("joined", json!({ "name": name, "class": class.word() })),
        Event::Archived { policy, notice_due, by, .. } => {
            let by = by.map(|by| by.to_string());
            ("archived", json!({ "policy": policy::object(policy), "notice_due": notice_due, "by": by }))
        }
        Event::ArchiveBehind { since, trouble, stops, .. } => (
            "archive_behind",
            json!({ "since_ms": since.0, "trouble": trouble.word(), "reason": trouble.to_string(), "stops": stops }),
        ),
        Event::PolicyNotListed { id, version, .. } => {
            ("policy_not_listed", json!({ "policy": id, "version": version }))
        }
        Event::PolicySuperseded { id, version, latest, .. } => {
            ("policy_superseded", json!({ "policy": id, "version": version, "latest": latest }))
        }
        Event::ArchiveFollowed { .. } => ("archive_followed", json!({})),
        Event::NotArchived { first, last, .. } => ("not_archived", json!({ "first": first.0, "last": last.0 })),
        Event::ArchiveAgrees { .. } => ("archive_agrees", json!({})),
        Event::MemberAdded { account, handle, by, .. } => (
            "member_added",
            json!({ "member": who(handle, account), "account": account.to_string(), "by": by.to_string() }),
        ),
        Event::DeviceAdded { account, handle, device, by, .. } => (
            "device_added",
            json!({
                "member": who(handle, account), "account": account.to_string(), "device": device.to_string(),
                "by": by.to_string(),
            }),
        ),
        Event::MemberRemoved { account, handle, by, .. } => (
            "member_removed",
            json!({ "member": who(handle, account), "account": account.to_string(), "by": by.to_string() }),
        ),
        Event::PictureChanged { by, .. } => ("picture_changed", json!({ "by": by.to_string() })),
        Event::Renamed { name, by, .. } => ("renamed", json!({ "name": name, "by": by.to_string() })),
        Event::AdministratorsChanged { appointed, dismissed, by, .. } => {
            let ids = |accounts: &[AccountId]| accounts.iter().map(ToString::to_string).collect::<Vec<_>>();
            (
                "administrators_changed",
                json!({ "appointed": ids(appointed), "dismissed": ids(dismissed), "by": by.to_string() }),
            )
        }
        Event::Leaving { account, .. } => ("leaving", json!({ "account": account.to_string() })),
        Event::Left { .. } => ("left", json!({})),
        Event::Removed { .. } => ("removed", json!({})),
        Event::Skipped { seq, reason, .. } => ("skipped", json!({ "seq": seq.0, "reason": reason })),
        Event::Unsent { id, reason, .. } => ("unsent", json!({ "message": id.to_string(), "reason": reason })),
        Event::DeviceRolledBack { account, device, .. } => {
            ("device_rolled_back", json!({ "account": account.to_string(), "device": device.to_string() }))
        }
        Event::MemberStuck { account, device, .. } => {
            ("member_stuck", json!({ "account": account.to_string(), "device": device.to_string() }))
        }
        Event::MemberReadded { account, device, by, .. } => (
            "member_readded",
            json!({ "account": account.to_string(), "device": device.to_string(), "by": by.to_string() }),
        ),
        Event::HelpOverdue { by, .. } => ("help_overdue", json!({ "by": by.map(|by| by.to_string()) })),
        Event::Alarm { kind, reason, .. } => ("alarm", json!({ "kind": kind.word(), "reason": reason })),
        Event::DirectoryAges { stops } => ("directory_ages", json!({ "stops": stops })),
        Event::DirectoryFollowed => ("directory_followed", json!({})),
        Event::DirectorySplit { ours, theirs } => ("directory_split", json!({ "ours": ours, "theirs": theirs })),
        Event::UnknownOwnDevice { device, at } => {
            ("unknown_own_device", json!({ "device": device.to_string(), "at": at.0 }))
        }
        Event::OrganisationsChanged { added, dropped, by, .. } => {
            let roots = |roots: &[RootHash]| roots.iter().map(ToString::to_string).collect::<Vec<_>>();
            ("organisations_changed", json!({ "added": roots(added), "dropped": roots(dropped), "by": by.to_string() }))
        }
        Event::PartnerPinned { domain, root } => {
            ("partner_pinned", json!({ "domain": domain.as_str(), "root": root.to_string() }))
        }
        Event::PartnerChanged { domain, root, shown_domain, shown_root } => (
            "partner_changed",
            json!({
                "domain": domain.as_str(), "root": root.to_string(), "shown_domain": shown_domain.as_str(),
                "shown_root": shown_root.to_string(),
            }),
        ),
        Event::PartnerDirectoryAges { domain, stops } => {
            ("partner_directory_ages", json!({ "domain": domain.as_str(), "stops": stops }))
        }
        Event::PartnerDirectoryFollowed { domain } => {
            ("partner_directory_followed", json!({ "domain": domain.as_str() }))
        }
        Event::PartnerDirectorySplit { domain, ours, theirs } => {
            ("partner_directory_split", json!({ "domain": domain.as_str(), "ours": ours, "theirs": theirs }))
        }
        Event::InvitationRefused { reason } => ("invitation_refused", json!({ "reason": reason })),
        _ => ("unknown", json!({})),
    };
    if let Some(object) = object.as_object_mut() {
        object.insert("event".to_owned(), kind.into());
        object.insert("number".to_owned(), number.into());
        if let Some(group) = group_of_event(event) {
            object.insert("group".to_owned(), group.to_string().into());
        }
    }
    object
}

fn authority(authority: &Authority) -> String {
    match authority {
        Authority::Tenant(root) => format!("tenant:{root}"),
        Authority::Personal => "personal".to_owned(),
    }
}

/// Text of others, fit for one line of a terminal.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

fn is_unsafe(c: char) -> bool {
    // C0 and C1 controls (escape sequences), line and paragraph separators (forged lines), and what overrides or isolates
    // direction (UAX #9); the marks that Arabic and Hebrew text needs stay.
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_any_script_is_shown_as_it_is() {
        for text in ["你好，世界", "مرحبا يا محمد", "שלום", "👩‍👩‍👧 🦊", "a\u{200f}b", "  blank  "]
        {
            assert_eq!(escape(text), text);
        }
    }

    #[test]
    fn text_cannot_forge_lines_or_move_the_cursor_or_turn_direction() {
        assert_eq!(escape("a\nli: b"), "a\\nli: b");
        assert_eq!(escape("\u{1b}[2J\r\u{9b}"), "\\u{1b}[2J\\r\\u{9b}");
        assert_eq!(escape("x\u{202e}y\u{2066}z\u{2028}"), "x\\u{202e}y\\u{2066}z\\u{2028}");
    }
}
