//! Writes the vectors of the specification and the seeds of the fuzz corpora, or checks that they are as written.
#![allow(clippy::print_stdout, reason = "a command line tool")]

use std::{fs, process::ExitCode};

use chancery_tests::{
    fuzz, repository,
    vectors::{FOLDER, generate},
};

fn main() -> ExitCode {
    let mode = std::env::args().nth(1).unwrap_or_default();
    if mode != "--write" && mode != "--check" {
        println!("usage: cargo run -p chancery-tests --bin vectors -- --write | --check");
        return ExitCode::from(2);
    }
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for (path, vector) in generate::all() {
        files.push((format!("{FOLDER}/{path}"), vector.to_json().into_bytes()));
        files.extend(fuzz::seed_of(&path, &vector));
    }
    let mut differing = 0;
    for (path, text) in &files {
        let at = repository::root().join(path);
        if fs::read(&at).is_ok_and(|stored| stored == *text) {
            continue;
        }
        differing += 1;
        println!("{path} differs");
        if mode == "--write"
            && let Err(error) = fs::create_dir_all(at.parent().unwrap_or(&at)).and_then(|()| fs::write(&at, text))
        {
            println!("{path}: {error}");
            return ExitCode::FAILURE;
        }
    }
    println!("{} files, {differing} differing", files.len());
    if mode == "--write" || differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
