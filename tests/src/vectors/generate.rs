//! Making the vectors: every scenario with its inputs. `spec/vectors/README.md` says how to run it.
//!
//! This module does not compute expectations by itself: it states the layer that must answer and stores what the code
//! gives. Stored files are then what later code is held to.

mod archive;
mod directory;
mod evidence;
pub mod export;
mod frames;
mod identity;
mod log;
mod merkle;
mod mls;
mod notice;
pub(crate) mod office;
pub(crate) mod opening;
mod policy;

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Vector, run};

/// Collects vectors by their path.
#[derive(Debug, Default)]
pub struct Set {
    vectors: BTreeMap<String, Vector>,
}

impl Set {
    /// Adds a scenario that must end as `expect` says.
    ///
    /// # Panics
    /// If it ends otherwise, or the path is taken.
    fn add(&mut self, path: &str, kind: &str, title: &str, proves: &[&str], input: Value, expect: &str) {
        let outcome = run(kind, &input).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(outcome.expect, expect, "{path}");
        let vector = Vector {
            kind: kind.to_owned(),
            title: title.to_owned(),
            proves: proves.iter().map(|id| (*id).to_owned()).collect(),
            input,
            expect: outcome.expect,
            value: outcome.value,
        };
        assert!(self.vectors.insert(format!("{path}.json"), vector).is_none(), "{path} is made twice");
    }
}

/// All vectors, by path below `spec/vectors`.
#[must_use]
pub fn all() -> BTreeMap<String, Vector> {
    let mut set = Set::default();
    frames::add(&mut set);
    log::add(&mut set);
    merkle::add(&mut set);
    directory::add(&mut set);
    mls::add(&mut set);
    notice::add(&mut set);
    policy::add(&mut set);
    identity::add(&mut set);
    archive::add(&mut set);
    evidence::add(&mut set);
    opening::add(&mut set);
    export::add(&mut set);
    office::add(&mut set);
    set.vectors
}
