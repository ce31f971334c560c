//! Writes a random transcript that is valid, for load: many scripts, joins and leaves, some long texts.
//!
//! This module does not play it. The same seed gives the same transcript.

use std::io::{self, Write};

use serde_json::json;

/// What to write.
#[derive(Clone, Debug, clap::Args)]
pub struct Shape {
    /// Lines.
    #[arg(long, default_value_t = 1_000)]
    pub lines: usize,
    /// Seed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Names to draw from.
    #[arg(long, default_value_t = 8)]
    pub people: usize,
    /// Groups to draw from.
    #[arg(long, default_value_t = 6)]
    pub groups: usize,
}

const WORDS: [&str; 28] = [
    "meeting",
    "invoice",
    "tomorrow",
    "please",
    "thanks",
    "draft",
    "review",
    "contract",
    "会议",
    "明天",
    "预算",
    "发布",
    "谢谢",
    "مرحبا",
    "التقرير",
    "غدا",
    "شكرا",
    "déjà",
    "naïve",
    "e\u{301}te\u{301}",
    "👩🏽‍🚀",
    "🏳️‍🌈",
    "👨‍👩‍👧‍👦",
    "\"quoted\"",
    "<b>bold</b>",
    "{\"json\":true}",
    "\u{1b}[31mred\u{1b}[0m",
    "C:\\temp",
];

/// Writes the transcript.
///
/// # Errors
/// The output cannot be written.
pub fn write(shape: &Shape, out: &mut impl Write) -> io::Result<()> {
    let mut random = SplitMix(shape.seed);
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); shape.groups.max(1)];
    for _ in 0..shape.lines {
        let index = random.below(members.len());
        let Some(group) = members.get_mut(index) else { continue };
        let class = if index % 3 == 2 { "personal" } else { "work" };
        let name = format!("group {index}");
        let person = random.below(shape.people.max(1));
        let position = group.iter().position(|member| *member == person);
        let line = match (random.below(100), position) {
            (0..2, None) => {
                group.push(person);
                json!({"group": name, "class": class, "join": who(person)})
            }
            (0..2, Some(position)) if group.len() > 1 => {
                group.swap_remove(position);
                json!({"group": name, "leave": who(person)})
            }
            (_, position) => {
                if position.is_none() {
                    group.push(person);
                }
                json!({"group": name, "class": class, "from": who(person), "text": text(&mut random)})
            }
        };
        writeln!(out, "{line}")?;
    }
    out.flush()
}

fn who(person: usize) -> String {
    format!("person{person}")
}

fn text(random: &mut SplitMix) -> String {
    let words = match random.below(1_000) {
        0..5 => {
            return ["", " ", "\u{3000}\u{3000}", "\u{200b}", "                    "]
                .get(random.below(5))
                .copied()
                .unwrap_or_default()
                .to_owned();
        }
        5..10 => 2_000,
        10..100 => 60,
        _ => 1 + random.below(14),
    };
    let words: Vec<&str> = (0..words).filter_map(|_| WORDS.get(random.below(WORDS.len())).copied()).collect();
    words.join(" ")
}

/// Sebastiano Vigna's SplitMix64: small, and good enough to draw words with.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        usize::try_from(z % bound.max(1) as u64).unwrap_or(0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn generated(seed: u64) -> Vec<u8> {
        let mut out = Vec::new();
        write(&Shape { lines: 3_000, seed, people: 9, groups: 7 }, &mut out).unwrap();
        out
    }

    #[test]
    fn what_is_generated_is_valid_and_repeats() {
        for seed in 0..5 {
            let transcript = generated(seed);
            let plan = Plan::read(&transcript).unwrap();
            assert_eq!(plan.groups.len(), 7);
            assert_eq!(transcript, generated(seed));
        }
        assert_ne!(generated(1), generated(2));
    }
}
