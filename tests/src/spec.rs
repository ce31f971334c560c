//! The requirements of the specification, and where they are cited and proved.
//!
//! This module reads text only; it does not know what a requirement means.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    repository::{self, SourceFile},
    vectors,
};

/// The documents' short names, which begin every requirement ID.
const AREAS: &[&str] = &[
    "wire",
    "merkle",
    "identity",
    "directory",
    "mls",
    "policy",
    "relay",
    "archive",
    "escrow",
    "evidence",
    "ceremony",
    "opening",
    "export",
    "retention",
    "blobs",
];

/// Folders whose code must cite every requirement.
const CITING: &[&str] = &["protocol", "server", "client-sdk", "escrow"];

/// A paragraph of the specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paragraph {
    /// File and line where it begins.
    pub place: String,
    /// Its requirement ID, if it begins with one.
    pub id: Option<String>,
    /// Its text, in one line.
    pub text: String,
}

impl Paragraph {
    /// Sentences that demand something.
    #[must_use]
    pub fn demands(&self) -> usize {
        let sentences = self.text.split_inclusive(". ");
        sentences.filter(|sentence| sentence.split(|c: char| !c.is_alphabetic()).any(|word| word == "MUST")).count()
    }
}

/// The paragraphs of all documents, code blocks left out. A requirement begins a paragraph of its own.
#[must_use]
pub fn paragraphs() -> Vec<Paragraph> {
    repository::files("spec", ".md").iter().flat_map(paragraphs_of).collect()
}

fn paragraphs_of(file: &SourceFile) -> Vec<Paragraph> {
    let mut found: Vec<Paragraph> = Vec::new();
    let (mut in_code, mut open) = (false, false);
    for (number, line) in file.text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with("```") {
            in_code = !in_code;
            open = false;
        } else if in_code || line.is_empty() {
            open = false;
        } else {
            let id = line.strip_prefix("**`").and_then(|rest| rest.split_once("`**")).map(|(id, _)| id.to_owned());
            let begins = !open || id.is_some() || line.starts_with(['-', '|', '#']);
            match found.last_mut() {
                Some(last) if !begins => last.text = format!("{} {line}", last.text),
                _ => {
                    found.push(Paragraph { place: format!("{}:{}", file.path, number + 1), id, text: line.to_owned() })
                }
            }
            open = true;
        }
    }
    found
}

/// All requirement IDs in a text: area, topic, number.
#[must_use]
pub fn ids_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    text.split(|c: char| !is_part(c))
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| is_id(word))
        .map(str::to_owned)
        .collect()
}

fn is_id(word: &str) -> bool {
    let mut parts = word.split('.');
    let (area, topic, number) = (parts.next(), parts.next(), parts.next());
    parts.next().is_none()
        && area.is_some_and(|area| AREAS.contains(&area))
        && topic.is_some_and(|topic| !topic.is_empty() && topic.bytes().all(|byte| byte.is_ascii_lowercase()))
        && number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a file holds tests only.
#[must_use]
pub fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

/// A source file without the test module at its end.
#[must_use]
pub fn without_tests(text: &str) -> &str {
    let mut from = 0;
    while let Some(at) = text[from..].find("#[cfg(test)]").map(|at| at + from) {
        match text[at..].find(['{', ';']).map(|end| text.as_bytes()[at + end]) {
            Some(b'{') => return &text[..at],
            _ => from = at + 1,
        }
    }
    text
}

/// Requirement IDs cited by code that ships, with the files that do.
#[must_use]
pub fn citations() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for folder in CITING {
        for file in repository::files(folder, ".rs").into_iter().filter(|file| !is_test(&file.path)) {
            for id in ids_in(without_tests(&file.text)) {
                found.entry(id).or_default().push(file.path.clone());
            }
        }
    }
    found
}

/// Requirement IDs that a test names after the word "proves", or a vector lists.
#[must_use]
pub fn proofs() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut add = |ids: BTreeSet<String>, path: &str| {
        for id in ids {
            found.entry(id).or_default().push(path.to_owned());
        }
    };
    for folder in ["protocol", "server", "client-sdk", "escrow", "tests"] {
        for file in repository::files(folder, ".rs") {
            let comments = file.text.lines().filter_map(|line| line.trim().strip_prefix("// proves "));
            add(comments.flat_map(ids_in).collect(), &file.path);
        }
    }
    for (path, vector) in vectors::stored() {
        add(vector.map(|vector| vector.proves.into_iter().collect()).unwrap_or_default(), &path);
    }
    found
}

/// Anchors of a document: its headings, as forges make them.
#[must_use]
pub fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}
