//! One run of a seed, and the search for fewer operations that fail alike.

use std::collections::BTreeSet;

use chancery_protocol::secret::Random;

use super::{
    Attack, Bug, Op, Violation,
    attack::siege,
    generate::{below, generate, generate_escrow, generate_identity},
    ops::ESCROW,
    system::World,
};

/// How long everybody has to start before anything happens.
const CONNECT_MS: u64 = 200;
/// How often operations are left out before the story is told as it is.
const SHRINK_RUNS_MAX: usize = 120;

/// What a run is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// The fault that is put in.
    pub bug: Option<Bug>,
    /// Holds the run to this promise alone, so that a bug that breaks several is seen to break it.
    pub only: Option<&'static str>,
    /// With registrars and their directories, second devices, visitors, and people who are cut off.
    pub identity: bool,
    /// With escrowed groups and their node.
    pub escrow: bool,
    /// With nothing but this attack on an archive.
    pub attack: Option<Attack>,
}

/// What a run left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What happened, in order: the same for the same seed and operations.
    pub story: Vec<String>,
    /// Entries in the relay's logs.
    pub entries: usize,
    /// The first broken promise.
    pub violation: Option<Violation>,
}

/// A failing run with fewer operations.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What is left of the operations.
    pub ops: Vec<Op>,
    /// The run of these.
    pub outcome: Outcome,
}

fn random(seed: u64, purpose: u8) -> Random {
    let mut bytes = [purpose; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    Random::new(bytes)
}

/// The operations of a seed.
#[must_use]
pub fn operations(seed: u64, setting: Setting) -> Vec<Op> {
    match (setting.identity, setting.escrow) {
        _ if setting.attack.is_some() => Vec::new(),
        (true, _) => generate_identity(&mut random(seed, 3)),
        (_, true) => generate_escrow(&mut random(seed, 4)),
        _ => generate(&mut random(seed, 1)),
    }
}

/// Carries out operations in the world of a seed, heals it, and compares.
#[must_use]
pub fn run(seed: u64, ops: &[Op], setting: Setting) -> Outcome {
    if let Some(attack) = setting.attack {
        return siege(random(seed, 5), setting, attack);
    }
    let mut cast: BTreeSet<usize> = ops.iter().flat_map(Op::people).collect();
    cast.extend(setting.escrow.then_some(ESCROW));
    let mut world = World::new(random(seed, 2), setting, &cast);
    world.advance(CONNECT_MS);
    for op in ops {
        world.operate(op);
        if world.broken() {
            return world.outcome();
        }
        // Most operations come while others are on their way.
        let pause = [0, 0, 3, 40][below(&mut world.random, 4)];
        world.advance(pause);
    }
    world.heal();
    world.await_readding();
    // Where there are registrars, who comes into a group that is founded anew is for those to say: it is left as it is.
    if !setting.identity {
        world.found_anew();
    }
    world.probe();
    if !world.broken() {
        if setting.identity { world.compare_rosters() } else { world.compare() }
    }
    world.tell_groups();
    world.outcome()
}

/// Leaves out operations, first many at once, while the same promise is broken.
#[must_use]
pub fn shrink(seed: u64, setting: Setting) -> Option<Failure> {
    let mut ops = operations(seed, setting);
    let mut outcome = run(seed, &ops, setting);
    let invariant = outcome.violation.as_ref()?.invariant;
    let mut chunk = ops.len().div_ceil(2);
    let mut runs = 0;
    while chunk > 0 {
        let mut at = 0;
        while at < ops.len() && runs < SHRINK_RUNS_MAX {
            runs += 1;
            let mut fewer = ops.clone();
            fewer.drain(at..(at + chunk).min(ops.len()));
            let tried = run(seed, &fewer, setting);
            if tried.violation.as_ref().is_some_and(|violation| violation.invariant == invariant) {
                (ops, outcome) = (fewer, tried);
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    Some(Failure { ops, outcome })
}
