//! How a command ends: a code for programs, a sentence for people.
//!
//! This module does not print results; `show` does.

use chancery_client::Error;
use serde_json::json;

const FAILED: u8 = 1;
/// Wrong arguments; clap uses the same code.
pub(crate) const USAGE: u8 = 2;
const NOT_ENROLLED: u8 = 3;
const OFFLINE: u8 = 4;
const REFUSED: u8 = 5;

/// Shown below every help text.
pub(crate) const HELP: &str = "Exit codes: 0 done, 1 failed, 2 wrong arguments, 3 not enrolled, 4 relay not reached in \
                               time,\n            5 refused by the relay or the group's rules";

/// Why a command was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    exit: u8,
    code: &'static str,
    message: String,
}

impl Failure {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { exit: FAILED, code: "failed", message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: USAGE, code: "usage", message: message.into() }
    }

    pub(crate) fn offline(message: impl Into<String>) -> Self {
        Self { exit: OFFLINE, code: "offline", message: message.into() }
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self { exit: REFUSED, code: "refused", message: message.into() }
    }

    pub(crate) fn not_enrolled() -> Self {
        Error::NotEnrolled.into()
    }

    /// Prints it to standard error and gives the exit code.
    pub(crate) fn report(&self, json: bool) -> u8 {
        if json {
            eprintln!("{}", json!({ "error": self.code, "message": self.message }));
        } else {
            eprintln!("chancery: {}", self.message);
        }
        self.exit
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::NotEnrolled => NOT_ENROLLED,
            Error::Offline(_) => OFFLINE,
            Error::Refused(_) | Error::NotAllowed(_) => REFUSED,
            Error::Invalid(_) => USAGE,
            _ => FAILED,
        };
        let message = match &error {
            Error::NotEnrolled => "this state folder has no identity: run `chancery enroll TICKET`".to_owned(),
            _ => error.to_string(),
        };
        Self { exit, code: error.code(), message }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(format!("input or output failed: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use chancery_client::Refusal;

    use super::*;

    #[test]
    fn errors_of_the_sdk_have_their_exit_codes() {
        let exit = |error: Error| Failure::from(error).exit;
        assert_eq!(exit(Error::NotEnrolled), 3);
        assert_eq!(exit(Error::Offline(String::new())), 4);
        assert_eq!(exit(Error::Refused(Refusal::TicketRefused)), 5);
        assert_eq!(exit(Error::NotAllowed(String::new())), 5);
        assert_eq!(exit(Error::Invalid(String::new())), 2);
        assert_eq!(exit(Error::InUse), 1);
        assert_eq!(Failure::from(Error::InUse).code, "in_use");
    }
}
