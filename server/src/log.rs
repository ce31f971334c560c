//! Log output.
//!
//! This module does not filter secrets out; nothing logs them. What may be logged: what happened, codes, counts,
//! durations. What may not: contents, tokens, ids of groups, devices or accounts, handles, addresses.

use std::io;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Sends logs to standard error. A second call in one process changes nothing.
///
/// # Errors
/// If the filter is not one; with what is wrong.
pub fn init(config: &LogConfig) -> Result<(), String> {
    let filter = EnvFilter::try_new(&config.filter).map_err(|error| format!("`log.filter`: {error}"))?;
    // Dependencies log addresses at their lower levels; theirs stay out whatever the operator asks for.
    let filter = ["quinn=warn", "quinn_proto=error", "quinn_udp=error", "rustls=error"]
        .into_iter()
        .filter_map(|directive| directive.parse().ok())
        .fold(filter, EnvFilter::add_directive);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // A test that runs two servers in one process keeps the first one's output.
    let _ = match config.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}
