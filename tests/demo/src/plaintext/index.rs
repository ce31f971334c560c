//! An index of texts that finds each of their windows in a stream of bytes.
//!
//! Of each text the eight-byte blocks at multiples of eight are kept, with the eight bytes on either side. A window of
//! sixteen bytes, wherever it begins, holds one such block whole, and reaches no further than that margin; so the search
//! tries the eight bytes at each place of the stream, and compares the margins when a block is known. Nothing is missed,
//! nothing is guessed, and an eighth of the text is kept. This module reads no files.

use super::Window;
use crate::canary::WINDOW;

/// Bytes of a block, and of the margin on either side.
pub(super) const MARGIN: usize = 8;
/// Bits of the filter for each block: of the places that hold no block, one in sixteen is looked up in vain.
const BITS_PER_BLOCK: usize = 16;
const FILTER_BITS_MIN: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    bytes: u64,
    before: [u8; MARGIN],
    before_len: u8,
    after: [u8; MARGIN],
    after_len: u8,
}

/// The blocks of some texts.
#[derive(Debug)]
pub(super) struct Index {
    blocks: Vec<Block>,
    filter: Vec<u64>,
    shift: u32,
}

impl Index {
    pub(super) fn new(texts: &[&str]) -> Self {
        let mut blocks: Vec<Block> = texts.iter().flat_map(|text| blocks(text.as_bytes())).collect();
        blocks.sort_unstable();
        blocks.dedup();
        let bits = (blocks.len() * BITS_PER_BLOCK).next_power_of_two().trailing_zeros().max(FILTER_BITS_MIN);
        let mut index = Self { filter: vec![0; 1 << (bits - 6)], shift: 64 - bits, blocks };
        for block in &index.blocks {
            let (word, bit) = slot(block.bytes, index.shift);
            if let Some(word) = index.filter.get_mut(word) {
                *word |= bit;
            }
        }
        index
    }

    /// Reports each window in the bytes, by its offset; one that two texts share may be reported twice.
    pub(super) fn search(&self, bytes: &[u8], found: &mut dyn FnMut(usize, &Window)) {
        let mut last_eight = 0_u64;
        for (index, byte) in bytes.iter().enumerate() {
            last_eight = last_eight >> 8 | u64::from(*byte) << 56;
            let (word, bit) = slot(last_eight, self.shift);
            let known = self.filter.get(word).is_some_and(|word| word & bit != 0);
            if known && let Some(at) = (index + 1).checked_sub(MARGIN) {
                self.compare(bytes, at, last_eight, found);
            }
        }
    }

    fn compare(&self, bytes: &[u8], at: usize, value: u64, found: &mut dyn FnMut(usize, &Window)) {
        let first = self.blocks.partition_point(|block| block.bytes < value);
        let same = self.blocks.iter().skip(first).take_while(|block| block.bytes == value);
        let (before, rest) = bytes.split_at_checked(at).unwrap_or_default();
        let after = rest.get(MARGIN..).unwrap_or_default();
        for block in same {
            let known = block.before.iter().rev().take(usize::from(block.before_len));
            let left = before.iter().rev().zip(known).take_while(|(a, b)| a == b).count();
            let known = block.after.iter().take(usize::from(block.after_len));
            let right = after.iter().zip(known).take_while(|(a, b)| a == b).count();
            for start in at - left..(at + right + 1 + MARGIN).saturating_sub(WINDOW) {
                if let Some(window) = bytes.get(start..).and_then(<[u8]>::first_chunk) {
                    found(start, window);
                }
            }
        }
    }
}

/// Multiplicative hashing: the upper bits choose the bit of the filter.
fn slot(value: u64, shift: u32) -> (usize, u64) {
    let bit = value.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> shift;
    (usize::try_from(bit >> 6).unwrap_or(0), 1 << (bit & 63))
}

fn blocks(text: &[u8]) -> impl Iterator<Item = Block> {
    let whole = text.len() / MARGIN;
    (0..whole).filter_map(move |number| {
        let at = number * MARGIN;
        let (before, rest) = text.split_at_checked(at)?;
        let (bytes, after) = rest.split_first_chunk()?;
        let (after, after_len) = margin(after.iter());
        let (mut before, before_len) = margin(before.iter().rev());
        before.reverse();
        Some(Block { bytes: u64::from_le_bytes(*bytes), before, before_len, after, after_len })
    })
}

fn margin<'a>(bytes: impl Iterator<Item = &'a u8>) -> ([u8; MARGIN], u8) {
    let mut margin = [0; MARGIN];
    let mut len = 0;
    for (slot, byte) in margin.iter_mut().zip(bytes) {
        *slot = *byte;
        len += 1;
    }
    (margin, len)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;

    /// Few letters, so that texts share much with the stream by chance.
    fn letters(seed: &mut u64, len: usize) -> String {
        let mut letter = || {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if (*seed >> 33) % 5 < 4 { 'a' } else { 'b' }
        };
        (0..len).map(|_| letter()).collect()
    }

    #[test]
    fn finds_exactly_what_a_plain_search_finds() {
        let mut seed = 1;
        let mut hits = 0;
        for round in 0..60 {
            let texts: Vec<String> = (0..5).map(|n| letters(&mut seed, 14 + (round + n * 7) % 40)).collect();
            let stream = letters(&mut seed, 3_000);
            let windows: HashSet<&[u8]> = texts.iter().flat_map(|text| text.as_bytes().windows(WINDOW)).collect();
            let plain: BTreeSet<usize> = stream
                .as_bytes()
                .windows(WINDOW)
                .enumerate()
                .filter(|(_, window)| windows.contains(window))
                .map(|(offset, _)| offset)
                .collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let mut found = BTreeSet::new();
            Index::new(&texts).search(stream.as_bytes(), &mut |offset, window| {
                assert!(windows.contains(window.as_slice()));
                found.insert(offset);
            });
            hits += found.len();
            assert_eq!(found, plain, "round {round}");
        }
        assert!(hits > 100, "the streams share too little: {hits}");
    }
}
