//! The real stack end to end: relay and registrar, SDK and terminal client, over QUIC on loopback, with files.

mod apart;
mod bad_network;
mod blobs;
mod capture;
mod closed;
mod cut_off;
mod damage;
mod deployment;
mod devices;
mod escrow_cli;
mod expiry;
mod officers;
mod partners;
mod refusals;
mod restore;
mod revocation;
mod sdk;
mod terminals;
mod unlinked;
mod web;
