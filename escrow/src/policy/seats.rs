//! Who sits on the seats of an archive, and on what they have agreed. `spec/policy.md#seats`.
//!
//! Any quorum of shares opens, whoever holds them. The rules between the seats are checked by honest seats before they
//! answer; the mathematics of the shares does not know them.

use chancery_protocol::{limits::POLICY_SEATS_MAX, wire::encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest name of a seat, in bytes of UTF-8.
const NAME_BYTES_MAX: usize = 128;

/// Whose seat it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The legal department's.
    Legal,
    /// The privacy officer's.
    PrivacyOfficer,
    /// The works council's, or another body of those who are archived.
    WorksCouncil,
    /// Somebody's outside of the organisation.
    OutsideCustodian,
}

impl Class {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Legal => "legal",
            Self::PrivacyOfficer => "privacy_officer",
            Self::WorksCouncil => "works_council",
            Self::OutsideCustodian => "outside_custodian",
        }
    }
}

/// One seat: it holds a share of the archive key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Who or which office.
    pub name: String,
    /// Whose.
    pub class: Class,
    /// Ed25519 key with which the seat signs.
    pub key: [u8; 32],
}

/// What honest seats ask for before they answer: so many of those who open together are of this class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// How many, at least.
    pub at_least: u8,
    /// Of which class.
    pub of: Class,
}

/// The seats, in the order of their shares, and the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seats {
    /// The seats.
    pub seats: Vec<Seat>,
    /// The rules.
    pub rules: Vec<Rule>,
}

impl Seats {
    /// `SHA-256("chancery seats" || seats and rules in postcard)`. (policy.seats.1)
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::new().chain_update(b"chancery seats").chain_update(encode(self)).finalize().into()
    }

    /// Adds a seat.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn add(&mut self, seat: Seat) -> Result<(), String> {
        if self.seats.len() >= usize::from(POLICY_SEATS_MAX) {
            return Err(format!("at most {POLICY_SEATS_MAX} seats"));
        }
        if seat.name.is_empty() || seat.name.len() > NAME_BYTES_MAX || seat.name.chars().any(char::is_control) {
            return Err(format!("a name is 1 to {NAME_BYTES_MAX} bytes without control characters"));
        }
        if self.seats.iter().any(|other| other.name == seat.name) {
            return Err(format!("two seats are called {}", seat.name));
        }
        if let Some(other) = self.seats.iter().find(|other| other.key == seat.key) {
            return Err(format!("{} and {} have the same key: one person would count as two", other.name, seat.name));
        }
        self.seats.push(seat);
        Ok(())
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// Why no quorum could keep it, in words.
    pub fn demand(&mut self, rule: Rule, quorum: u8) -> Result<(), String> {
        let word = rule.of.word();
        let there = self.seats.iter().filter(|seat| seat.class == rule.of).count();
        if rule.at_least == 0 || usize::from(rule.at_least) > there {
            return Err(format!("at_least is 1 to {there}, the number of {word} seats"));
        }
        if self.rules.iter().any(|other| other.of == rule.of) {
            return Err(format!("two rules are of {word}: keep the stricter one"));
        }
        let demanded: u32 = self.rules.iter().chain([&rule]).map(|rule| u32::from(rule.at_least)).sum();
        if demanded > u32::from(quorum) {
            return Err(format!("the rules demand {demanded} seats together, and the quorum is {quorum}"));
        }
        self.rules.push(rule);
        Ok(())
    }
}
