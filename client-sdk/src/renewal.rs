//! Renewal of the device's certificate, by itself: with the registrar for an account of an organisation, with the
//! account's own root for a personal one.
//!
//! This module does not store or show certificates; the driver does.

use std::{sync::mpsc::Sender, time::Duration};

use chancery_protocol::{
    error::Refusal,
    identity::{Authority, Chain, issue::DEVICE_VALIDITY},
    time::Timestamp,
    wire::{Frame, registrar::Renew},
};
use tokio::{sync::watch, time::timeout};

use crate::{
    driver::{self, Job, wall_clock},
    error::Error,
    identity::{Enrolment, Granted, Identity},
    net::{ConnectionState, OfflineReason, ask_as, unreadable},
};

/// The longest sleep: clocks are set, and machines sleep.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// Pauses between attempts, of which the first is after a fault that may pass.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3_600));

/// When a certificate is renewed: when a third of its life is left. (identity.renew.5)
fn due(not_after: Timestamp) -> Timestamp {
    let third = u64::try_from(DEVICE_VALIDITY.as_millis() / 3).unwrap_or(u64::MAX);
    Timestamp(not_after.0.saturating_sub(third))
}

/// Renews whenever it is due, until the client ends.
pub(crate) struct Renewal {
    pub(crate) jobs: Sender<Job>,
    pub(crate) state: watch::Receiver<ConnectionState>,
    pub(crate) identity: watch::Sender<Option<Identity>>,
    pub(crate) patience: Duration,
}

impl Renewal {
    pub(crate) async fn run(mut self) {
        let mut pause = Duration::ZERO;
        let mut identity = self.identity.subscribe();
        loop {
            let not_after = identity.borrow_and_update().as_ref().map(|identity| identity.not_after);
            let wait = match not_after {
                Some(not_after) => due(not_after).since(wall_clock()).max(pause).min(LOOK_EVERY),
                None => LOOK_EVERY,
            };
            if !self.rest(&mut identity, wait, pause).await {
                return;
            }
            if not_after.is_none_or(|not_after| due(not_after) > wall_clock()) && !self.is_expired() {
                continue;
            }
            let Ok(Some(enrolment)) = driver::ask(&self.jobs, Job::Enrolment).await else {
                pause = AGAIN.0;
                continue;
            };
            pause = match self.renew(enrolment).await {
                Ok(()) => Duration::ZERO,
                Err(error) => {
                    tracing::warn!(code = error.code(), "the certificate was not renewed");
                    if error.is_retryable() { (pause * 2).clamp(AGAIN.0, AGAIN.1) } else { AGAIN.1 }
                }
            };
        }
    }

    /// The relay's clock may be ahead of this device's.
    fn is_expired(&self) -> bool {
        let expired = OfflineReason::Refused(Refusal::CertificateExpired);
        *self.state.borrow() == ConnectionState::Offline { why: expired }
    }

    /// Sleeps, and wakes when the relay has refused the certificate as expired, or the device is enrolled; false when the
    /// client has ended.
    async fn rest(
        &mut self,
        identity: &mut watch::Receiver<Option<Identity>>,
        wait: Duration,
        pause: Duration,
    ) -> bool {
        let sleeping = tokio::time::sleep(wait);
        tokio::pin!(sleeping);
        loop {
            let urgent = pause.is_zero() && self.is_expired();
            let ended = *self.state.borrow_and_update() == ConnectionState::Offline { why: OfflineReason::Stopped };
            if ended || urgent {
                return !ended;
            }
            tokio::select! {
                () = &mut sleeping => return true,
                changed = self.state.changed() => if changed.is_err() { return false },
                _ = identity.changed() => return true,
            }
        }
    }

    async fn renew(&self, enrolment: Enrolment) -> Result<(), Error> {
        let granted = match enrolment.identity()?.authority {
            Authority::Personal => {
                Granted { chain: enrolment.keys.personal_chain(wall_clock())?, account: None, relay: None }
            }
            Authority::Tenant(_) => match ask_as(&enrolment, &Frame::Renew(Renew), self.patience).await? {
                Frame::Enrolled(enrolled) => {
                    Granted { chain: Chain(enrolled.chain), account: None, relay: enrolled.relay }
                }
                _ => return Err(unreadable()),
            },
        };
        let renewed = enrolment.renewed(granted)?;
        let identity = renewed.identity()?;
        let stored = timeout(self.patience, driver::ask(&self.jobs, |answer| Job::Renewed(Box::new(renewed), answer)));
        stored.await.unwrap_or_else(|_| Err(Error::Storage("it does not answer".to_owned())))?;
        tracing::info!("the certificate was renewed");
        self.identity.send_replace(Some(identity));
        Ok(())
    }
}
