//! What becomes of one datagram: decided from a seed, without sockets.
//!
//! This module does not send anything and has no clock.

use std::time::Duration;

use chancery_protocol::secret::Random;

/// What a direction does to datagrams. Each is the share of datagrams that it happens to, from 0 to 1, independently.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// Does not arrive.
    pub loss: f64,
    /// Arrives twice.
    pub duplication: f64,
    /// Is held back for up to [`Faults::held_max`], so that later ones overtake it.
    pub reordering: f64,
    /// Arrives with one to three bytes changed.
    pub corruption: f64,
    /// Longest time for which a datagram is held back.
    pub held_max: Duration,
}

impl Faults {
    pub const NONE: Self =
        Self { loss: 0.0, duplication: 0.0, reordering: 0.0, corruption: 0.0, held_max: Duration::from_millis(30) };
}

/// A datagram that arrives, after a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    pub after: Duration,
    pub bytes: Vec<u8>,
}

/// What has happened in one direction, in datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub taken: u64,
    pub lost: u64,
    pub doubled: u64,
    pub held: u64,
    pub corrupted: u64,
}

/// Decides for one direction. The same seed, faults and datagrams give the same fates.
pub struct Fates {
    random: Random,
    pub counts: Counts,
}

impl Fates {
    pub fn new(seed: u64, direction: u8) -> Self {
        let mut bytes = [direction; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        Self { random: Random::new(bytes), counts: Counts::default() }
    }

    /// What arrives of a datagram.
    pub fn decide(&mut self, faults: &Faults, datagram: &[u8]) -> Vec<Copy> {
        self.counts.taken += 1;
        if self.happens(faults.loss) {
            self.counts.lost += 1;
            return Vec::new();
        }
        let doubled = self.happens(faults.duplication);
        self.counts.doubled += u64::from(doubled);
        (0..=usize::from(doubled)).map(|_| self.copy(faults, datagram)).collect()
    }

    /// A datagram that nothing can bring across.
    pub fn lose(&mut self) {
        self.counts.taken += 1;
        self.counts.lost += 1;
    }

    fn copy(&mut self, faults: &Faults, datagram: &[u8]) -> Copy {
        let mut bytes = datagram.to_vec();
        if !bytes.is_empty() && self.happens(faults.corruption) {
            self.counts.corrupted += 1;
            for _ in 0..=self.below(3) {
                let at = self.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 + self.below(255) as u8;
            }
        }
        let mut after = Duration::ZERO;
        if self.happens(faults.reordering) {
            self.counts.held += 1;
            after = Duration::from_micros(self.below(faults.held_max.as_micros() as u64 + 1));
        }
        Copy { after, bytes }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random.number() % end
    }

    /// Draws even if the share is 0, so that a change of one fault does not shift what the others do.
    fn happens(&mut self, share: f64) -> bool {
        ((self.random.number() >> 11) as f64) < share * (1_u64 << 53) as f64
    }
}
