//! A throwaway relay in a process of its own, and as many devices as are wanted.
//!
//! Each device is of an account of its own: the relay bounds the connections of one account.

use std::{ffi::OsStr, fs, net::SocketAddr, path::Path};

use chancery_protocol::{
    identity::{CertificateAuthority, DeviceKey, Role},
    ids::SpkiPin,
    secret::Secret32,
    wire::Blob,
};
use chancery_quic::{Protocol, connect};
use chancery_server::{Clock, Config, InitOptions, init};
use data_encoding::{BASE64, HEXLOWER};

use crate::{Outcome, child::Process, traffic::Member};

pub(crate) struct Relay {
    pub(crate) process: Process,
    pin: SpkiPin,
    issuing: CertificateAuthority,
}

impl Relay {
    pub(crate) fn start(dir: &Path) -> Outcome<Self> {
        let options = InitOptions { listen: SocketAddr::from(([127, 0, 0, 1], 0)), public: Vec::new() };
        let made = init(dir, &options)?;
        let issuing = issuing(&Config::load(&made.config)?)?;
        let process = Process::start([OsStr::new("serve-relay"), made.config.as_os_str()])?;
        Ok(Self { process, pin: made.server, issuing })
    }

    /// Connects a device; the number is its identity.
    pub(crate) async fn member(&self, number: u32) -> Outcome<Member> {
        let mut seed = [0x33; 32];
        for (byte, digit) in seed.iter_mut().zip(number.to_be_bytes()) {
            *byte = digit;
        }
        let key = DeviceKey::from_seed(Secret32::new(seed))?;
        let handle = format!("person-{number}").parse()?;
        let chain = self.issuing.certify(&handle, key.public(), Role::Human, Clock::default().now())?;
        let connection = connect(&[self.process.address], self.pin, Some((&chain, &key)), Protocol::Relay).await?;
        Member::ready(connection).await
    }
}

/// The registrar's issuing key. So devices need no tickets.
fn issuing(config: &Config) -> Outcome<CertificateAuthority> {
    let text = fs::read_to_string(config.issuing_key())?;
    let seed = HEXLOWER.decode(text.split_whitespace().last().ok_or("the issuing key is empty")?.as_bytes())?;
    let mut chain = Vec::new();
    for block in fs::read_to_string(config.issuing_chain())?.split("-----BEGIN CERTIFICATE-----\n").skip(1) {
        let encoded: String = block.lines().take_while(|line| !line.starts_with("---")).collect();
        chain.push(Blob(BASE64.decode(encoded.as_bytes())?));
    }
    let seed = Secret32::from_slice(&seed).ok_or("the issuing key is not a key")?;
    Ok(CertificateAuthority::restore(seed, chain)?)
}
