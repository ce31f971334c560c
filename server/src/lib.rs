//! Relay and registrar: drivers, stores, configuration, administration, and the command `chancery-relay`.
//!
//! This crate does not decide what the relay's protocol says; `chancery_protocol::relay` does, without input or output,
//! and this crate drives it. The relay learns no content and keeps no roster; the registrar has its own keys and its own
//! database, and is a process of its own if the operator wants it so. `OPERATING.md` is for who runs it.
//!
//! In process: [`init()`] once, then [`Server::start`]; [`Admin`] makes accounts and tickets.

mod admin;
mod blobs;
mod cli;
mod clock;
pub mod config;
mod driver;
mod init;
mod keys;
mod log;
mod metrics;
pub mod registrar;
mod server;
pub mod store;

pub use admin::{Admin, AdminError};
pub use cli::run_cli;
pub use clock::Clock;
pub use config::Config;
pub use init::{ApartReport, InitError, InitOptions, InitReport, NodeReport, init, init_apart};
pub use keys::KeyFileError;
pub use server::{Server, StartError};
