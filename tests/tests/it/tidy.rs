//! What the layout of the repository promises: sizes, who may import whom, and that nothing is left lying about.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use chancery_protocol::wire::frame::FRAMES;
use chancery_tests::{
    repository::{self, SourceFile, files, root},
    spec::{anchors, is_test, without_tests},
};

/// Longest source file, in lines.
const LINES_MAX: usize = 1_000;

/// The modules of `protocol`, from the ground up. A module imports from lower lines only; modules of one line, the
/// machines among them, do not know one another.
const LAYERS: &[&[&str]] = &[
    &["limits", "ids", "time", "rows"],
    &["secret", "error"],
    &["merkle"],
    &["wire"],
    &["identity"],
    &["escrow"],
    &["mls"],
    &["client", "relay"],
    &["capture"],
];

/// Which of our crates each crate may depend on, tests included.
const CRATES: &[(&str, &[&str])] = &[
    ("protocol", &["chancery-test-crypto"]),
    ("protocol/quic", &["chancery-protocol"]),
    ("server", &["chancery-protocol", "chancery-quic"]),
    ("client-sdk", &["chancery-protocol", "chancery-quic"]),
    ("client-sdk/cli", &["chancery-client"]),
    ("escrow", &["chancery-protocol", "chancery-quic", "chancery-client"]),
];

/// What stands at the top.
const TOP: &[&str] = &[
    ".cargo",
    ".ci",
    ".clippy.toml",
    ".config",
    ".deny.toml",
    ".github",
    ".gitignore",
    ".rustfmt.toml",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "client-sdk",
    "escrow",
    "fuzz",
    "protocol",
    "server",
    "spec",
    "tests",
];

fn sources() -> Vec<SourceFile> {
    ["protocol", "server", "client-sdk", "escrow", "tests", "fuzz"]
        .iter()
        .flat_map(|folder| files(folder, ".rs"))
        .collect()
}

fn manifests() -> Vec<SourceFile> {
    repository::files("", "Cargo.toml")
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code)).collect::<Vec<_>>().join("\n")
}

#[test]
fn no_source_file_is_longer_than_a_reader_can_hold() {
    for file in sources() {
        let lines = file.text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", file.path);
    }
}

#[test]
fn nothing_is_left_to_be_done_later() {
    // Spelled apart, so that this file does not find itself.
    let words = [["FIX", "ME"], ["XX", "X"], ["HA", "CK"], ["to", "do!("], ["TO", "DO"], ["dbg", "!("]]
        .map(|word| word.concat());
    let texts = files("", ".md").into_iter().chain(manifests()).chain(sources());
    for file in texts {
        for (number, line) in file.text.lines().enumerate() {
            for word in &words {
                let found = line
                    .split(|c: char| c.is_whitespace() || matches!(c, ':' | '`' | '"'))
                    .any(|part| part.starts_with(word));
                assert!(!found, "{}:{}: {word}", file.path, number + 1);
            }
        }
    }
}

#[test]
fn the_top_of_the_repository_is_what_the_map_says() {
    let present: BTreeSet<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !matches!(name.as_str(), ".git" | "target"))
        .collect();
    assert_eq!(present, TOP.iter().map(|name| (*name).to_owned()).collect());
}

/// Modules named after `crate::`, alone or in braces.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => drop(found.insert(first_name(rest))),
            Some(list) => {
                let mut depth = 0_usize;
                let mut item = String::new();
                for c in list.chars() {
                    match c {
                        '}' if depth == 0 => break,
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => drop(found.insert(first_name(std::mem::take(&mut item).trim()))),
                        _ => {}
                    }
                    item.push(if c == ',' && depth == 0 { ' ' } else { c });
                }
                found.insert(first_name(item.trim()));
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn first_name(path: &str) -> String {
    path.chars().take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_').collect()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn protocol_modules_import_from_below_only() {
    for file in files("protocol/src", ".rs").into_iter().filter(|file| !is_test(&file.path)) {
        let own = first_name(file.path.trim_start_matches("protocol/src/"));
        if own == "lib" {
            continue;
        }
        let here = layer(&own).unwrap_or_else(|| panic!("{}: {own} has no layer", file.path));
        for module in imports(&without_comments(without_tests(&file.text))) {
            let there = layer(&module).unwrap_or_else(|| panic!("{}: {module} has no layer", file.path));
            assert!(module == own || there < here, "{}: {own} must not import {module}", file.path);
        }
    }
}

#[test]
fn imports_are_found_however_they_are_written() {
    let code = "use crate::ids::{Seq}; use crate::{error::{A, B}, wire::Blob,\n secret}; fn f(x: crate::time::T) {}";
    let expected = ["error", "ids", "secret", "time", "wire"].map(str::to_owned);
    assert_eq!(imports(code), BTreeSet::from(expected));
}

#[test]
fn only_the_mls_module_names_openmls() {
    let crypto = |path: &str| path.starts_with("tests/crypto/");
    let allowed =
        |path: &str| path.starts_with("protocol/src/mls/") || crypto(path) || path == "tests/tests/it/tidy.rs";
    for file in sources().into_iter().filter(|file| !allowed(&file.path)) {
        assert!(!without_comments(&file.text).contains("openmls"), "{} names openmls", file.path);
    }
    let allowed = |path: &str| matches!(path, "Cargo.toml" | "protocol/Cargo.toml") || crypto(path);
    for file in manifests().into_iter().filter(|file| !allowed(&file.path)) {
        assert!(!file.text.contains("openmls"), "{} names openmls", file.path);
    }
}

#[test]
fn crates_depend_on_what_lies_below_them_only() {
    let manifests: BTreeMap<String, String> = manifests().into_iter().map(|file| (file.path, file.text)).collect();
    for (folder, allowed) in CRATES {
        let text = &manifests[&format!("{folder}/Cargo.toml")];
        for line in text.lines().filter(|line| line.starts_with("chancery-")) {
            let name: String = line.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
            assert!(allowed.contains(&name.as_str()), "{folder} must not depend on {name}");
        }
    }
    for (path, text) in &manifests {
        let chancery = text.lines().filter_map(|line| line.strip_prefix("name = \"chancery-"));
        let known = CRATES.iter().any(|(folder, _)| *path == format!("{folder}/Cargo.toml"));
        assert!(known || path.starts_with("tests/") || path.starts_with("fuzz/") || chancery.count() == 0, "{path}");
    }
}

/// HPKE whose keys are not random is for tests: no feature and no dependency leads to it from what ships, and nothing
/// that ships gives the machines a crypto of its own.
#[test]
fn the_crypto_of_tests_is_in_nothing_that_ships() {
    let shipped: Vec<&str> = CRATES.iter().map(|(folder, _)| *folder).collect();
    let mut tree = Command::new(env!("CARGO"));
    tree.current_dir(root()).args(["tree", "--offline", "--locked", "--edges", "normal,build", "--all-features"]);
    let mut names = 0;
    for file in manifests() {
        let folder = file.path.trim_end_matches("Cargo.toml").trim_end_matches('/');
        if shipped.contains(&folder) {
            let name = file.text.lines().find_map(|line| line.strip_prefix("name = ")).unwrap().trim_matches('"');
            tree.args(["--package", name]);
            names += 1;
        }
    }
    assert_eq!(names, shipped.len());
    let output = tree.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("chancery-protocol"), "{printed}");
    assert!(!printed.contains("chancery-test"), "{printed}");
    for file in sources().into_iter().filter(|file| !is_test(&file.path) && !file.path.starts_with("tests/")) {
        let code = without_comments(without_tests(&file.text));
        let made = ["protocol/src/mls/profile.rs", "protocol/src/client/machine.rs", "protocol/src/capture/machine.rs"];
        let made = made.contains(&file.path.as_str());
        let (crypto, open) = (code.matches("Core::with_crypto(").count(), code.matches("open_with(").count());
        assert!(made || crypto + open == 0, "{} chooses its crypto", file.path);
    }
}

/// A client without a judge is the simulator's alone, and an archive key of one hand the tests': nothing else is built with
/// them, and one function makes each.
#[test]
fn only_tests_can_do_without_the_judge_or_deal_archive_keys() {
    for file in manifests() {
        for feature in ["seeded-bugs", "single-dealer"] {
            let allowed =
                file.path == "tests/Cargo.toml" || feature == "single-dealer" && file.path.starts_with("tests/");
            let switched_on = file.text.lines().any(|line| line.contains("features") && line.contains(feature));
            assert!(allowed || !switched_on, "{} switches {feature} on", file.path);
        }
    }
    for file in sources().into_iter().filter(|file| !file.path.starts_with("tests/")) {
        let made = file.path == "protocol/src/mls/judge.rs";
        assert!(made || !file.text.contains("without_judge"), "{} does without the judge", file.path);
    }
}

/// Third-party dependencies stand once, in the workspace, each with its reason.
#[test]
fn every_dependency_says_why_it_is_there() {
    for file in manifests() {
        let (mut in_dependencies, mut before) = (false, String::new());
        for line in file.text.lines().map(str::trim) {
            if line.starts_with('[') {
                in_dependencies = line.trim_end_matches(']').ends_with("dependencies");
            } else if in_dependencies && line.contains('=') && !line.starts_with('#') {
                let ours = line.starts_with("chancery-");
                let from_workspace = line.contains("workspace = true");
                let explained = before.starts_with('#') || line.contains(" # ");
                assert!(ours || from_workspace || explained, "{}: {line} has no reason", file.path);
                let outside = matches!(file.path.as_str(), "Cargo.toml" | "fuzz/Cargo.toml");
                assert!(from_workspace || outside, "{}: {line} belongs into the workspace", file.path);
            }
            before = line.to_owned();
        }
    }
}

#[test]
fn every_reference_into_the_specification_leads_somewhere() {
    let documents: BTreeMap<String, BTreeSet<String>> =
        files("spec", ".md").into_iter().map(|file| (file.path, anchors(&file.text))).collect();
    let check = |from: &str, section: &str| {
        let (document, anchor) = section.split_once('#').unwrap_or((section, ""));
        let anchors = documents.get(&format!("spec/{document}")).unwrap_or_else(|| panic!("{from}: no {document}"));
        assert!(anchor.is_empty() || anchors.contains(anchor), "{from}: {document} has no section #{anchor}");
    };
    for frame in FRAMES {
        check(frame.name, frame.section);
    }
    for file in sources() {
        for part in file.text.split("spec/").skip(1) {
            let end = part
                .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '#' | '_' | '/')))
                .unwrap_or(part.len());
            let section = part[..end].trim_end_matches('.');
            if section.contains(".md") {
                check(&file.path, section);
            }
        }
    }
    for file in files("spec", ".md") {
        for part in file.text.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default();
            if let Some(anchor) = target.strip_prefix('#') {
                assert!(anchors(&file.text).contains(anchor), "{}: no section {target}", file.path);
            } else if target.contains(".md") && !target.contains("//") && !target.starts_with("../") {
                check(&file.path, target);
            }
        }
    }
}

#[test]
fn every_frame_type_has_a_number_of_its_own() {
    let numbers: BTreeSet<u16> = FRAMES.iter().map(|frame| frame.frame_type).collect();
    assert_eq!(numbers.len(), FRAMES.len());
}
