//! A throwaway deployment: its folder, its port, and identities for those who connect.
//!
//! Raw clients are certified with the issuing key itself; people redeem tickets as everybody does.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};

use chancery_client::GroupId;
use chancery_protocol::{
    identity::{CertificateAuthority, Chain, DeviceKey, Role},
    ids::SpkiPin,
    secret::{Random, Secret32},
    wire::Blob,
};
use chancery_server::{Admin, Clock, Config, InitOptions, init};
use data_encoding::{BASE64, HEXLOWER};

use crate::Outcome;

/// Makes a deployment in a folder, on a port that is free at this moment. Returns its configuration.
pub(crate) fn found(dir: &Path) -> Outcome<PathBuf> {
    // The port stands in the configuration: the file in which the relay keeps a chosen one may fall to a power cut.
    let listen = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    Ok(init(dir, &InitOptions { listen, public: Vec::new() })?.config)
}

/// A ticket for a new account.
pub(crate) fn ticket(config: &Path, handle: &str) -> Outcome<String> {
    Ok(Admin::open(&Config::load(config)?)?.add_account(&handle.parse()?)?.to_string())
}

/// Where raw client `number` connects to, and as whom: of an account of its own.
pub(crate) struct Access {
    pub(crate) address: SocketAddr,
    pub(crate) pin: SpkiPin,
    pub(crate) key: DeviceKey,
    pub(crate) chain: Chain,
}

impl Access {
    pub(crate) fn of(config: &Path, number: u32) -> Outcome<Self> {
        let config = Config::load(config)?;
        let pin = Admin::open(&config)?.server();
        let key = DeviceKey::from_seed(Secret32::new(seeded(b"device", u64::from(number)).bytes()))?;
        let issuing = issuing(&config)?;
        let handle = format!("raw-{number}").parse()?;
        let chain = issuing.certify(&handle, key.public(), Role::Human, Clock::default().now())?;
        Ok(Self { address: config.listen, pin, key, chain })
    }
}

/// The groups of the raw clients of a run.
pub(crate) fn groups(seed: u64, count: usize) -> Vec<GroupId> {
    let mut random = seeded(b"groups", seed);
    (0..count).map(|_| GroupId(random.bytes())).collect()
}

/// Randomness that a seed repeats, different for each purpose.
pub(crate) fn seeded(purpose: &[u8], seed: u64) -> Random {
    let mut bytes = [0; 32];
    for (byte, from) in bytes.iter_mut().zip(seed.to_be_bytes().iter().chain(purpose)) {
        *byte = *from;
    }
    Random::new(bytes)
}

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
