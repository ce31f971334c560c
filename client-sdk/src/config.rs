//! What a host decides when it opens a client. There is no configuration file and no environment: a host passes values.
//!
//! This module does not know identities or servers; the state folder holds them after enrolment.

use std::{path::PathBuf, time::Duration};

/// How a client is opened.
///
/// ```
/// let config = chancery_client::Config::new("state/ana");
/// assert!(!config.has_state());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The state folder, of one identity: a person's account at work and the personal one have a folder each, with keys
    /// and a connection of its own (identity.apart.1). One client at a time uses it; it is made if it is missing (on Unix for its owner only). Never
    /// restore it from a backup: a device that goes back in time must enrol anew.
    pub dir: PathBuf,
    /// Most bytes that the database may take, rounded down to whole pages; none for no cap. At the cap the client
    /// refuses with [`crate::Error::StorageFull`] and receives nothing until there is room. Default: none.
    pub disk_bytes_max: Option<u64>,
    /// How long one attempt to connect, or one enrolment, may take. Too short, and slow networks never connect.
    /// Default: 10 s.
    pub connect_timeout: Duration,
    /// After so much silence the relay is asked whether it is there; one that does not answer within 5 s is given up and
    /// called again, with more patience each time, up to 20 s. Shorter finds a dead relay sooner; longer saves a phone's
    /// battery. Default: 10 s.
    pub probe_after: Duration,
    /// Longest pause between two attempts to connect; pauses begin at 100 ms and double. Default: 10 s.
    pub backoff_max: Duration,
}

impl Config {
    /// Defaults, with this state folder.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            disk_bytes_max: None,
            connect_timeout: Duration::from_secs(10),
            probe_after: Duration::from_secs(10),
            backoff_max: Duration::from_secs(10),
        }
    }

    /// Whether the folder holds the state of a client, enrolled or not.
    #[must_use]
    pub fn has_state(&self) -> bool {
        self.dir.join(crate::store::DATABASE).exists()
    }
}
