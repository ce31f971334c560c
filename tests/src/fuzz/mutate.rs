//! Seeded mutation of inputs, for runs without a fuzzer: the same seed gives the same inputs.
//!
//! This module does not follow coverage; cargo-fuzz does.

use chancery_protocol::secret::Random;

/// Longest input that is made.
const BYTES_MAX: usize = 4096;

/// Makes inputs out of a corpus.
#[derive(Debug)]
pub struct Mutator {
    random: Random,
}

impl Mutator {
    /// Starts from a number.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        Self { random: Random::new(bytes) }
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.random.number() % end.max(1) as u64).unwrap_or(0)
    }

    /// Bytes from nothing.
    #[must_use]
    pub fn random(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.below(300)];
        self.random.fill(&mut bytes);
        bytes
    }

    /// One of `corpus`, changed in one to four places.
    #[must_use]
    pub fn mutated(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let Some(seed) = corpus.get(self.below(corpus.len())) else { return self.random() };
        let mut bytes = seed.clone();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes, corpus);
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(bytes.len());
        match self.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'/', b'%'][self.below(7)],
            2 => bytes.truncate(at),
            3 => bytes.insert(at, self.random.bytes::<1>()[0]),
            4 if !bytes.is_empty() => drop(bytes.remove(at)),
            5 => bytes.extend_from_within(at..),
            _ => {
                // The front of one and the end of another.
                let other = corpus.get(self.below(corpus.len())).map_or(&[][..], Vec::as_slice);
                bytes.truncate(at);
                bytes.extend_from_slice(other.get(self.below(other.len())..).unwrap_or_default());
            }
        }
    }
}
