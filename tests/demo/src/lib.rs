//! `cargo demo`: people talk in MLS groups through a real relay, over real sockets, while processes are killed.
//!
//! One controller reads a transcript, starts a relay and one client process per identity (all of them this same binary),
//! plays the transcript, kills the relay and a client on the way, and checks at the end that every text came to everybody
//! who should have it, once, that the relay has kept none of it in the clear, and that the archive holds what was said in
//! archived groups and nothing else. This crate has no cryptography and no
//! protocol of its own: the clients use the public SDK, the relay is the server as it ships.

mod accounts;
mod archive;
mod canary;
mod child_client;
mod child_relay;
mod cli;
mod client_process;
mod controller;
mod court;
mod escrow_process;
mod faults;
mod generate;
mod leak;
mod ledger;
mod plaintext;
mod plan;
mod play;
mod progress;
mod receipts;
mod relay_process;
mod report;
mod talk;
mod transcript;

pub use cli::run;
