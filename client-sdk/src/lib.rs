//! Chancery's client SDK: end-to-end encrypted group messaging behind an async API, with durable state.
//!
//! This crate does not read configuration or key rings, draws no windows and logs no content. A host passes a [`Config`]
//! and a [`KeyProvider`], and gets a [`Client`]:
//!
//! ```no_run
//! # async fn example() -> Result<(), chancery_client::Error> {
//! use chancery_client::{Body, Client, Config, EventId, FileKey, HostEvent};
//!
//! let client = Client::open(Config::new("state"), FileKey::create_or_open("state/host.key")?).await?;
//! let mut cursor = EventId(0);
//! loop {
//!     let batch = client.next_events(100, cursor).await?;
//!     for event in &batch.events {
//!         if let HostEvent::Message { message, .. } = event
//!             && let Body::Text(text) = &message.body
//!         {
//!             println!("{text}");
//!         }
//!     }
//!     // Acknowledged only when the host has dealt with them: after a crash they come again.
//!     client.ack(batch.cursor).await?;
//!     cursor = batch.cursor;
//! }
//! # }
//! ```
//!
//! What holds: [`Client::send`] returns when the message is durable here; events come in order and until they are
//! acknowledged; everything that one batch from the relay changes is one transaction; without the host's key nothing
//! opens. Every [`Error`] has a stable [`Error::code`].

mod archive;
mod client;
mod config;
mod devices;
mod directory;
mod driver;
mod error;
mod events;
mod files;
mod history;
mod identity;
mod keys;
pub mod machine;
mod net;
mod renewal;
mod store;
mod web;

pub use chancery_protocol::{
    client::{
        AlarmKind, ArchiveReceipt, ArchiveSummary, ArchiveTrouble, DirectorySummary, Event, GroupStatus, GroupSummary,
        MemberSummary, Message, Partner, PolicySummary,
    },
    error::Refusal,
    identity::{
        Authority, Contact, ContactError, Domain, Freshness, Handle, Invitee, Organisation, Role,
        directory::{PolicyStanding, SplitEvidence},
    },
    ids::{AccountId, DeviceId, EventId, GroupId, HeadHash, MessageId, NoticeHash, RootHash, Seq},
    mls::{
        EscrowPolicy, GroupPicture,
        charter::Class,
        policy::{PolicyMode, PolicyNotice},
    },
    secret::Secret32,
    time::Timestamp,
    wire::{Blob, envelope::Body},
};

pub use crate::{
    client::Client,
    config::Config,
    devices::{Device, LinkCode},
    error::Error,
    events::{Batch, HostEvent},
    files::File,
    history::{Shown, Since},
    identity::Identity,
    keys::{FileKey, KeyProvider, KeyUnavailable},
    net::{ConnectionState, OfflineReason},
    web::fetch_organisation,
};
