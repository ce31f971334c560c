//! The repository's own files, for the tests that read them.
//!
//! This module does not follow what version control ignores: build output, and state that a run left behind.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders that hold no source.
const IGNORED: &[&str] = &["target", ".git", "artifacts", "coverage"];

/// A text file of the repository.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// From the repository's root, with `/`.
    pub path: String,
    /// What it says.
    pub text: String,
}

/// Where the repository lies.
///
/// # Panics
/// If the crate was moved away from it.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the repository").to_path_buf()
}

/// All files below `folder` whose names end with `suffix`, in order of path.
///
/// # Panics
/// If a file is not readable UTF-8.
#[must_use]
pub fn files(folder: &str, suffix: &str) -> Vec<SourceFile> {
    paths(folder, suffix)
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(root().join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            SourceFile { path, text }
        })
        .collect()
}

/// The paths of [`files`], for those that are not text.
#[must_use]
pub fn paths(folder: &str, suffix: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    let mut paths: Vec<String> = found
        .iter()
        .filter_map(|path| path.strip_prefix(root()).ok())
        .map(|path| path.to_string_lossy().replace('\\', "/"))
        .filter(|path| path.ends_with(suffix))
        .collect();
    paths.sort();
    paths
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let ignored = path.file_name().is_some_and(|name| IGNORED.iter().any(|other| name == *other));
        match path.is_dir() {
            true if !ignored => walk(&path, found),
            true => {}
            false => found.push(path),
        }
    }
}
