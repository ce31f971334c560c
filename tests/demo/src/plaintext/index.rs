//! An index of texts that finds each of their windows in a stream of bytes.
//!
//! Of each text the eight-byte blocks at multiples of eight are kept, with the eight bytes on either side. A window of
//! sixteen bytes, wherever it begins, holds one such block whole, and reaches no further than that margin; so the search
//! tries the eight bytes at each place of the stream, and compares the margins when a block is known. No place is missed and
//! nothing is guessed; only where the same words stand in many texts, one window may be reported for a few. An eighth of
//! the text is kept. This module reads no files.

use super::Window;

/// Bytes of a block, and of the margin on either side.
pub(super) const MARGIN: usize = 8;
/// A window that holds a block reaches at least so far behind it, or else [`NEAR_BEFORE`] before it. Of the blocks with
/// the same bytes (a common word may stand in thousands of places) only those that agree so far are compared.
const NEAR_AFTER: usize = 4;
const NEAR_BEFORE: usize = 5;
/// Where a window is found, so many blocks at least were compared: a text that is kept whole would otherwise be compared
/// with every other that shares its words.
const COMPARED_MAX: usize = 64;
const ALL_WINDOWS: u16 = (1 << (MARGIN + 1)) - 1;
/// Bits of the filter for each block: of the places that hold no block, one in sixteen is looked up in vain.
const BITS_PER_BLOCK: usize = 16;
const FILTER_BITS_MIN: u32 = 16;

/// A block; its order is that of the search: bytes first, then what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    bytes: u64,
    after: Margin,
    /// The nearest byte first.
    before: Margin,
}

/// Bytes next to a block; fewer at the ends of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Margin {
    bytes: [u8; MARGIN],
    len: u8,
}

impl Margin {
    fn of<'a>(source: impl Iterator<Item = &'a u8>) -> Self {
        let mut margin = Self { bytes: [0; MARGIN], len: 0 };
        for (slot, byte) in margin.bytes.iter_mut().zip(source) {
            *slot = *byte;
            margin.len += 1;
        }
        margin
    }

    fn near(&self, len: usize) -> &[u8] {
        self.bytes.get(..len).unwrap_or_default()
    }

    /// How many bytes, from the nearest on, are the same.
    fn agree(&self, other: &Self) -> usize {
        let len = usize::from(self.len.min(other.len));
        self.bytes.iter().zip(&other.bytes).take(len).take_while(|(a, b)| a == b).count()
    }
}

/// The blocks of some texts.
#[derive(Debug)]
pub(super) struct Index {
    blocks: Vec<Block>,
    /// The same blocks in the order of what stands before them.
    by_before: Vec<u32>,
    filter: Vec<u64>,
    shift: u32,
}

impl Index {
    pub(super) fn new(texts: &[&str]) -> Self {
        let mut blocks: Vec<Block> = texts.iter().flat_map(|text| blocks(text.as_bytes())).collect();
        blocks.sort_unstable();
        blocks.dedup();
        let mut by_before: Vec<u32> = (0..).take(blocks.len()).collect();
        by_before.sort_unstable_by_key(|index| block(&blocks, *index).map(|block| (block.bytes, block.before)));
        let bits = (blocks.len() * BITS_PER_BLOCK).next_power_of_two().trailing_zeros().max(FILTER_BITS_MIN);
        let mut index = Self { filter: vec![0; 1 << (bits - 6)], shift: 64 - bits, blocks, by_before };
        for block in &index.blocks {
            let (word, bit) = slot(block.bytes, index.shift);
            if let Some(word) = index.filter.get_mut(word) {
                *word |= bit;
            }
        }
        index
    }

    /// Reports the windows in the bytes, each by its offset; one may be reported several times.
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
        let (before, rest) = bytes.split_at_checked(at).unwrap_or_default();
        let after = Margin::of(rest.iter().skip(MARGIN));
        let before = Margin::of(before.iter().rev());

        let key = (value, after.near(NEAR_AFTER));
        let first = self.blocks.partition_point(|block| (block.bytes, block.after.near(NEAR_AFTER)) < key);
        let follows = self.blocks.iter().skip(first);
        let follows = follows.take_while(|block| (block.bytes, block.after.near(NEAR_AFTER)) == key);

        let key = (value, before.near(NEAR_BEFORE));
        let near = |index: &u32| block(&self.blocks, *index).map(|block| (block.bytes, block.before.near(NEAR_BEFORE)));
        let first = self.by_before.partition_point(|index| near(index) < Some(key));
        let precedes = self.by_before.iter().skip(first).take_while(|index| near(index) == Some(key));
        let precedes = precedes.filter_map(|index| block(&self.blocks, *index));

        // One bit for each window that holds the block; bit 0 begins with it, bit 8 ends with it.
        let mut windows = 0_u16;
        for (compared, block) in follows.chain(precedes).enumerate() {
            let (left, right) = (block.before.agree(&before), block.after.agree(&after));
            for back in MARGIN.saturating_sub(right)..=left {
                windows |= 1 << back;
            }
            if windows == ALL_WINDOWS || (windows != 0 && compared >= COMPARED_MAX) {
                break;
            }
        }
        for back in (0..=MARGIN).filter(|back| windows & 1 << back != 0) {
            let start = at.checked_sub(back);
            if let Some((start, window)) = start.and_then(|start| Some((start, bytes.get(start..)?.first_chunk()?))) {
                found(start, window);
            }
        }
    }
}

fn block(blocks: &[Block], index: u32) -> Option<&Block> {
    blocks.get(usize::try_from(index).ok()?)
}

/// Multiplicative hashing: the upper bits choose the bit of the filter.
fn slot(value: u64, shift: u32) -> (usize, u64) {
    let bit = value.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> shift;
    (usize::try_from(bit >> 6).unwrap_or(0), 1 << (bit & 63))
}

fn blocks(text: &[u8]) -> impl Iterator<Item = Block> {
    (0..text.len() / MARGIN).filter_map(move |number| {
        let (before, rest) = text.split_at_checked(number * MARGIN)?;
        let (bytes, after) = rest.split_first_chunk()?;
        Some(Block {
            bytes: u64::from_le_bytes(*bytes),
            after: Margin::of(after.iter()),
            before: Margin::of(before.iter().rev()),
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;
    use crate::canary::WINDOW;

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
