//! Searches what a relay kept for what people said: each place where sixteen bytes of a text stand.
//!
//! This module does not know what is running. It finds plain bytes only: a relay that kept texts compressed, escaped or
//! under a key that it knows would go unseen. Two kinds of window do not count, because they prove nothing: those that one
//! byte value fills by three quarters (zeros and spaces stand in every database page), and those that stood in the
//! relay's folder before anything was said (names of accounts, words of a schema).

mod index;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::{self, File},
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
};

use self::index::{Index, MARGIN};
use crate::canary::WINDOW;

/// Sixteen bytes.
pub type Window = [u8; WINDOW];

/// Bytes of text that are indexed at a time: bounds the memory, at one reading of the files each.
const TEXT_PER_PASS: usize = 32 * 1024 * 1024;
const CHUNK: usize = 1024 * 1024;
/// More places in one file than this are not told apart: something leaks by the page.
const PLACES_PER_FILE_MAX: usize = 1_000_000;
const TRIVIAL_EQUAL: usize = 12;

/// Where windows were found: for each file the offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    places: BTreeMap<PathBuf, BTreeSet<u64>>,
    bytes: u64,
}

impl Findings {
    /// How many places.
    #[must_use]
    pub fn hits(&self) -> usize {
        self.places.values().map(BTreeSet::len).sum()
    }

    /// Bytes that were read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Files with a hit, each with its first place and the number of places.
    pub fn files(&self) -> impl Iterator<Item = (&Path, u64, usize)> {
        self.places.iter().filter_map(|(path, places)| Some((path.as_path(), *places.first()?, places.len())))
    }

    /// Takes over what another search of the same files found; a place counts once.
    pub fn merge(&mut self, other: Self) {
        for (path, places) in other.places {
            self.places.entry(path).or_default().extend(places);
        }
        self.bytes = self.bytes.max(other.bytes);
    }
}

/// What is searched for.
#[derive(Debug)]
pub struct Search<'a> {
    texts: Vec<&'a str>,
    ignored: HashSet<Window>,
}

impl<'a> Search<'a> {
    /// A search for every window of these texts.
    #[must_use]
    pub fn new(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let unique: BTreeSet<&str> = texts.into_iter().filter(|text| text.len() >= WINDOW).collect();
        Self { texts: unique.into_iter().collect(), ignored: HashSet::new() }
    }

    /// From now on passes over the windows that stand in this folder at this moment. Returns how many.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn ignore_present(&mut self, folder: &Path) -> io::Result<usize> {
        let mut present = HashSet::new();
        self.each(folder, &mut |_, _, window| {
            present.insert(*window);
        })?;
        self.ignored.extend(present);
        Ok(self.ignored.len())
    }

    /// Reads every file below a folder, and the names of the files.
    ///
    /// # Errors
    /// A file cannot be read. One that goes away meanwhile is passed over.
    pub fn run(&self, folder: &Path) -> io::Result<Findings> {
        let mut findings = Findings::default();
        let places = &mut findings.places;
        let bytes = self.each(folder, &mut |path, offset, window| {
            if !self.ignored.contains(window) {
                let offsets = places.entry(path.to_owned()).or_default();
                if offsets.len() < PLACES_PER_FILE_MAX {
                    offsets.insert(offset);
                }
            }
        })?;
        findings.bytes = bytes;
        Ok(findings)
    }

    fn each(&self, folder: &Path, found: &mut dyn FnMut(&Path, u64, &Window)) -> io::Result<u64> {
        let mut files = Vec::new();
        list(folder, &mut files)?;
        let mut bytes = 0;
        for pass in passes(&self.texts) {
            let index = Index::new(pass);
            bytes = 0;
            for path in &files {
                let mut report = |offset, window: &Window| {
                    if !trivial(window) {
                        found(path, offset, window);
                    }
                };
                let name = path.strip_prefix(folder).unwrap_or(path).to_string_lossy();
                scan(&index, name.as_bytes(), &mut report)?;
                bytes += match File::open(path).and_then(|file| scan(&index, file, &mut report)) {
                    Ok(bytes) => bytes,
                    Err(error) if error.kind() == ErrorKind::NotFound => 0,
                    Err(error) => return Err(error),
                };
            }
        }
        Ok(bytes)
    }
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(())
}

fn passes<'a, 'b>(texts: &'b [&'a str]) -> impl Iterator<Item = &'b [&'a str]> {
    let mut rest = texts;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |text: &&&str| {
            bytes += text.len();
            bytes <= TEXT_PER_PASS
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (pass, left) = rest.split_at_checked(count)?;
        rest = left;
        Some(pass)
    })
}

/// Feeds a reader through the index, chunk by chunk, with the margin around each place that the index wants.
fn scan(index: &Index, mut reader: impl Read, found: &mut dyn FnMut(u64, &Window)) -> io::Result<u64> {
    let mut buffer = Vec::with_capacity(CHUNK + 4 * MARGIN);
    let mut base = 0_u64;
    let mut total = 0;
    loop {
        let read = reader.by_ref().take(CHUNK as u64).read_to_end(&mut buffer)?;
        total += read as u64;
        index.search(&buffer, &mut |offset, window| found(base + offset as u64, window));
        if read == 0 {
            return Ok(total);
        }
        // A window that crosses the border lies wholly in what is kept or in what comes, joined.
        let gone = buffer.len().saturating_sub(3 * MARGIN);
        buffer.drain(..gone);
        base += gone as u64;
    }
}

fn trivial(window: &Window) -> bool {
    window.iter().any(|byte| window.iter().filter(|other| *other == byte).count() >= TRIVIAL_EQUAL)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, bytes: &[u8]) {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
    }

    #[test]
    fn every_window_counts_once_wherever_it_stands() {
        let text = "the quarterly figures are worse than we told the board";
        let search = Search::new([text, "another text that nobody kept"]);
        for at in [0, 1, 7, 4095, CHUNK - 20, CHUNK - 9, CHUNK - 1, CHUNK, CHUNK + 3] {
            let folder = tempfile::tempdir().unwrap();
            let mut bytes = vec![0xAB; 2 * CHUNK];
            bytes[at..at + 17].copy_from_slice(&text.as_bytes()[9..26]);
            write(folder.path(), "deep/log", &bytes);
            let findings = search.run(folder.path()).unwrap();
            assert_eq!(findings.hits(), 2, "at {at}");
            assert_eq!(findings.files().next().unwrap().1, at as u64);
        }
    }

    #[test]
    fn fifteen_bytes_are_not_a_hit() {
        let text = "the quarterly figures are worse than we told the board";
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a", &[b"\xff\xff", &text.as_bytes()[3..18], b"\xff"].concat());
        assert_eq!(Search::new([text]).run(folder.path()).unwrap().hits(), 0);
    }

    #[test]
    fn zeros_and_what_stood_there_before_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "db", b"CREATE TABLE entries(seq INTEGER)");
        let blank = "\0".repeat(40);
        let mut search = Search::new(["CREATE TABLE entries for me, he said", blank.as_str()]);
        assert!(search.run(folder.path()).unwrap().hits() > 0);
        assert!(search.ignore_present(folder.path()).unwrap() > 0);
        write(folder.path(), "db2", &[0; 5000]);
        assert_eq!(search.run(folder.path()).unwrap().hits(), 0);
        write(folder.path(), "db3", b"TABLE entries for me, he");
        assert!(search.run(folder.path()).unwrap().hits() > 0);
    }

    #[test]
    fn names_of_files_are_searched() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "the secret project.log", b"");
        assert!(Search::new(["the secret project"]).run(folder.path()).unwrap().hits() > 0);
    }

    #[test]
    fn texts_are_split_into_passes_without_loss() {
        let long = "x".repeat(TEXT_PER_PASS / 2 + 1);
        let texts = [long.as_str(), long.as_str(), "short", long.as_str()];
        let sizes: Vec<usize> = passes(&texts).map(<[&str]>::len).collect();
        assert_eq!(sizes, [1, 2, 1]);
    }
}
