//! A policy in plain words, and as JSON.

use chancery_protocol::{
    mls::{EscrowPolicy, SignedPolicy, policy::PolicyMode},
    time::Timestamp,
};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use time::{Date, Month, OffsetDateTime, Time, UtcOffset};
use toml::value::{Datetime, Offset};

/// A moment of a TOML file; none without a day, a time and a distance from UTC, or before 1970.
#[must_use]
pub fn timestamp(moment: &Datetime) -> Option<Timestamp> {
    let (date, clock) = (moment.date?, moment.time?);
    let minutes = match moment.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i32::from(minutes),
    };
    let date = Date::from_calendar_date(i32::from(date.year), Month::try_from(date.month).ok()?, date.day).ok()?;
    let clock = Time::from_hms(clock.hour, clock.minute, clock.second).ok()?;
    let offset = UtcOffset::from_whole_seconds(minutes * 60).ok()?;
    let secs = date.with_time(clock).assume_offset(offset).unix_timestamp();
    u64::try_from(secs).ok().map(Timestamp::from_secs)
}

/// A moment, in UTC.
#[must_use]
pub fn utc(moment: Timestamp) -> String {
    let at = i64::try_from(moment.as_secs()).ok().and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok());
    at.map_or_else(
        || moment.0.to_string(),
        |at| {
            let (month, day) = (u8::from(at.month()), at.day());
            format!("{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", at.year(), at.hour(), at.minute(), at.second())
        },
    )
}

/// What it means, in plain words.
#[must_use]
pub fn words(policy: &EscrowPolicy) -> String {
    let mode = match policy.mode {
        PolicyMode::Required => "members stop sending while the archive does not keep up",
        PolicyMode::BestEffort => "members go on, and are told, while the archive does not keep up",
    };
    let mut text = format!(
        "{id} version {version}, from {from} on\n\
         purpose: {purpose}\n\
         Everything that is said in a group under it is archived; its members see the escrow member {escrow}.\n\
         kept as: {retention}; mode {word}: {mode}\n\
         opened by: any {quorum} of {seats} seats together (archive key generation {generation}); rules between the seats\n\
         \u{20}   are kept by honest seats, not by the mathematics\n\
         document: {url}\n\
         members ask how far they are archived at {endpoint}, key {pin}; the archive's log is signed by {log_key}\n",
        id = policy.id,
        version = policy.version,
        from = utc(policy.effective_from),
        purpose = policy.purpose,
        escrow = policy.escrow,
        retention = policy.retention_class,
        word = policy.mode,
        quorum = policy.quorum,
        seats = policy.seats,
        generation = policy.archive_generation,
        url = policy.document_url,
        endpoint = policy.endpoint,
        pin = policy.endpoint_pin,
        log_key = HEXLOWER.encode(&policy.log_key),
    );
    for notice in &policy.notices {
        text.push_str(&format!("notice ({}): {}\n", notice.language, notice.text));
    }
    text.trim_end().to_owned()
}

/// The same for programs.
#[must_use]
pub fn json(policy: &EscrowPolicy, signed: Option<&SignedPolicy>) -> Value {
    let notices: Vec<Value> = policy
        .notices
        .iter()
        .map(|notice| json!({"language": notice.language, "text": notice.text, "hash": notice.hash().to_string()}))
        .collect();
    json!({
        "id": policy.id, "version": policy.version, "previous": policy.previous.map(|hash| hash.to_string()),
        "hash": signed.map(|signed| signed.hash().to_string()), "key_number": signed.map(SignedPolicy::key_number),
        "tenant": signed.map(|_| policy.tenant.to_string()), "effective_from": utc(policy.effective_from),
        "document_hash": HEXLOWER.encode(&policy.document_hash), "document_url": policy.document_url,
        "purpose": policy.purpose, "retention_class": policy.retention_class, "mode": policy.mode.word(),
        "escrow": policy.escrow.as_str(), "escrow_key": policy.escrow_key.to_string(),
        "archive_key": HEXLOWER.encode(&policy.archive_key), "archive_generation": policy.archive_generation,
        "quorum": policy.quorum, "seats": policy.seats, "seats_hash": HEXLOWER.encode(&policy.seats_hash),
        "log_key": HEXLOWER.encode(&policy.log_key), "endpoint": policy.endpoint.as_str(),
        "endpoint_pin": policy.endpoint_pin.to_string(), "notices": notices,
    })
}
