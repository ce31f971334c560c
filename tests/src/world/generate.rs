//! Draws the operations of a seed before its run begins, so that some can be left out of it.
//!
//! This module does not carry them out.

use chancery_protocol::{mls::Class, secret::Random};

use super::{
    network::Weather,
    ops::{ClientCrash, ESCROW, Garbage, Op, RelayCrash, SECOND_ESCROW, other_device},
    system::{ABROAD, HOME},
};

/// Absences in a run, so that no run outlasts what relays keep or certificates last.
const ABSENCES_MAX: usize = 4;

/// A number below `below`.
pub(super) fn below(random: &mut Random, below: usize) -> usize {
    usize::try_from(random.number() % below.max(1) as u64).unwrap_or(0)
}

fn one_of<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[below(random, of.len())]
}

/// Milliseconds that a slow disk takes: seconds mostly, minutes sometimes.
fn slowness(random: &mut Random) -> u64 {
    let most = if below(random, 4) == 0 { 120_000 } else { 5_000 };
    200 + random.number() % most
}

/// Who takes part, and what besides talk and faults happens to them.
struct Theme {
    people: Vec<usize>,
    /// Founders of the first groups.
    founders: Vec<(usize, Class)>,
    insiders: Vec<usize>,
    disables: bool,
    loses_keys: bool,
}

impl Theme {
    fn draw(random: &mut Random) -> Self {
        let (tenants, personal, mixed) = (vec![0, 1, 2, 3, 4], vec![5, 6, 7, 8, 10], vec![0, 1, 2, 5, 6, 9, 10]);
        let (people, founders) = match below(random, 6) {
            0..=2 => (tenants, vec![(0, Class::Work)]),
            3 => (personal, vec![(5, Class::Personal)]),
            _ => (mixed, vec![(5, Class::Personal), (0, Class::Work)]),
        };
        let insider = one_of(random, &people[1..]);
        let accomplice = one_of(random, &people[1..]);
        let insiders = match below(random, 6) {
            0 => vec![insider],
            1 if below(random, 3) == 0 && accomplice != insider => vec![insider, accomplice],
            _ => Vec::new(),
        };
        Self { people, founders, insiders, disables: below(random, 8) == 0, loses_keys: below(random, 5) == 0 }
    }

    /// Something out of the ordinary, in some runs.
    fn special(&mut self, random: &mut Random, group: usize) -> Option<Op> {
        let whom = one_of(random, &self.people);
        match below(random, 14) {
            0 if self.disables => {
                self.disables = below(random, 3) == 0;
                Some(Op::Disable(whom))
            }
            1 | 2 if self.loses_keys => {
                self.loses_keys = false;
                Some(Op::LosePathKeys(whom, group))
            }
            choice @ 3..=10 if !self.insiders.is_empty() => {
                let who = one_of(random, &self.insiders);
                Some(match choice {
                    3 | 4 => {
                        let what =
                            [Garbage::Commit, Garbage::Commit, Garbage::Message, Garbage::Ahead, Garbage::Notice];
                        Op::Garbage(who, group, one_of(random, &what))
                    }
                    5 | 9 => Op::OldTokens(who, group),
                    10 => Op::Remove(whom, group, who),
                    6 => Op::Resubmit(who, group),
                    7 => Op::Smuggle(who, group, whom),
                    _ if self.insiders.len() > 1 && below(random, 3) == 0 => Op::Confirm(self.insiders[1], group),
                    _ => return None,
                })
            }
            _ => None,
        }
    }
}

/// The operations of a seed.
#[must_use]
pub(super) fn generate(random: &mut Random) -> Vec<Op> {
    let mut theme = Theme::draw(random);
    let mut ops = Vec::new();
    for (number, (founder, class)) in theme.founders.clone().into_iter().enumerate() {
        ops.extend([Op::Create(founder, class), Op::Run(300)]);
        let mut who = founder;
        for whom in theme.people.iter().copied().filter(|whom| *whom != founder).take(3) {
            ops.extend([Op::Invite(who, number, whom), Op::Run(300)]);
            who = if class == Class::Work && whom < 5 { whom } else { founder };
        }
    }
    let mut absences = 0;
    for _ in 0..40 + below(random, 70) {
        let (who, whom) = (one_of(random, &theme.people), one_of(random, &theme.people));
        let group = match theme.founders.len() {
            1 => below(random, 8).saturating_sub(6),
            _ => below(random, 9) % 4 % 3,
        };
        if let Some(special) = theme.special(random, group) {
            ops.extend([special, Op::Run(20)]);
            continue;
        }
        ops.push(match below(random, 48) {
            0 => Op::Create(who, one_of(random, &[Class::Work, Class::Personal])),
            1..=4 => Op::Invite(who, group, whom),
            5 | 6 => Op::Remove(who, group, whom),
            7 => Op::Leave(who, group),
            8..=10 => Op::Cut(who),
            11 => Op::Part(who),
            12 | 13 => Op::Heal(who),
            14 => Op::CrashClient(who, ClientCrash::Unwritten),
            15 => Op::CrashClient(who, ClientCrash::Unsynced),
            16 => Op::CrashClient(who, ClientCrash::Unsent),
            17 => Op::CrashRelay(RelayCrash::Unsynced),
            18 => Op::CrashRelay(RelayCrash::Untold),
            19 => Op::FullDisk,
            20..=27 => Op::Run(1 + random.number() % 400),
            28 if absences < ABSENCES_MAX => {
                absences += 1;
                Op::Absence(1 + random.number() % 4)
            }
            29..=31 => Op::Weather(one_of(random, &[Weather::Fair, Weather::Rough, Weather::Storm])),
            32 => Op::SlowClient(who, slowness(random)),
            33 => Op::FailClient(who),
            34 => Op::SlowRelay(slowness(random)),
            35 => Op::FailRelay,
            _ => Op::Send(who, group, 1 + below(random, 4)),
        });
    }
    ops
}

/// How often the registrar cuts somebody off in a run, at most.
const OUTS_MAX: usize = 3;

/// Who is not of the relay's organisation in runs with registrars: people of another one, and a personal account.
const VISITORS: [usize; 2] = [14, 15];
const GUEST: usize = 5;

/// The operations of a seed of runs with registrars: people of one organisation enrol, link second devices, renew, are cut off
/// and let in again, with crashes of all programs; people of another organisation and guests come in, and that one cuts off,
/// too; in some runs the relay hides what it is told.
#[must_use]
pub(super) fn generate_identity(random: &mut Random) -> Vec<Op> {
    let count = 3 + below(random, 3);
    let people: Vec<usize> = (0..count).collect();
    let mut ops = vec![Op::Enrol(0), Op::Run(400), Op::Create(0, Class::Work), Op::Run(400)];
    for whom in &people[1..] {
        ops.extend([Op::Enrol(*whom), Op::Run(600), Op::Invite(below(random, *whom), 0, *whom), Op::Run(600)]);
    }
    let mut foreign: Vec<usize> = VISITORS.into_iter().take([0, 1, 2, 2][below(random, 4)]).collect();
    foreign.extend((below(random, 3) == 0).then_some(GUEST));
    for whom in &foreign {
        let host = one_of(random, &people);
        ops.extend([Op::Enrol(*whom), Op::Pin(host, ABROAD), Op::Run(600)]);
        ops.extend([Op::Invite(host, 0, *whom), Op::Run(600)]);
        ops.extend((below(random, 3) == 0).then_some(Op::Pin(*whom, HOME)));
    }
    let residents = people.clone();
    let people = [people, foreign.clone()].concat();
    let devices: Vec<usize> =
        people.iter().copied().chain(people.iter().filter_map(|who| other_device(*who))).collect();
    let (hides, mut forks) = (below(random, 3) == 0, below(random, 4) == 0);
    let insider = (below(random, 5) == 0).then(|| one_of(random, &residents[1..]));
    // A second device of the insider's, made up by whoever has the registrar's key.
    let invented = insider.and_then(other_device);
    let mut outs = 0;
    for _ in 0..30 + below(random, 40) {
        let (who, whom, device) = (one_of(random, &people), one_of(random, &people), one_of(random, &devices));
        let group = below(random, 5).saturating_sub(3);
        match below(random, 44) {
            0..=2 => {
                if let Some(other) = other_device(who) {
                    ops.extend([Op::Enrol(other), Op::Run(700), Op::Invite(who, group, who), Op::Run(100)]);
                }
            }
            3 | 4 if outs < OUTS_MAX => {
                outs += 1;
                ops.push(if below(random, 3) == 0 { Op::Disable(who) } else { Op::Revoke(device) });
            }
            5 => ops.push(Op::Enable(who)),
            6 | 7 => ops.push(Op::Renew(device)),
            8 | 9 => ops.push(Op::Invite(who, group, whom)),
            10 => ops.push(Op::Remove(who, group, whom)),
            11 => ops.push(Op::Leave(device, group)),
            12 => ops.push(Op::Create(who, Class::Work)),
            13 => ops.push(Op::CrashRegistrar(
                one_of(random, &[HOME, HOME, ABROAD]),
                one_of(random, &[3_000, 1_200_000, 7_200_000]),
            )),
            36..=39 if insider.is_some() => {
                let insider = insider.unwrap_or(who);
                let whom = if below(random, 3) == 0 { insider } else { device };
                ops.push(match below(random, 4) {
                    0 => Op::Garbage(insider, group, one_of(random, &[Garbage::Commit, Garbage::Message])),
                    _ => Op::Smuggle(insider, group, whom),
                });
            }
            40 if insider.is_some() => ops.extend(invented.map(Op::Invent)),
            41..=43 if forks => {
                forks = false;
                ops.push(Op::Fork(one_of(random, &[u32::MAX, 0b1010_0101_0110_1001])));
            }
            14 if hides => ops.push(Op::Hide(one_of(random, &[u32::MAX, 0b1010_0101_0110_1001]))),
            15 => ops.push(Op::Cut(device)),
            16 => ops.push(Op::Part(device)),
            17 | 18 => ops.push(Op::Heal(device)),
            19 => ops.push(Op::CrashClient(device, ClientCrash::Unwritten)),
            20 => ops.push(Op::CrashClient(device, ClientCrash::Unsynced)),
            21 => ops.push(Op::CrashClient(device, ClientCrash::Unsent)),
            22 => ops.push(Op::CrashRelay(one_of(random, &[RelayCrash::Unsynced, RelayCrash::Untold]))),
            23 => ops.push(Op::Weather(one_of(random, &[Weather::Fair, Weather::Rough, Weather::Storm]))),
            24 => ops.push(Op::SlowClient(device, slowness(random))),
            25 => ops.push(Op::FailClient(device)),
            26 => ops.push(Op::FailRelay),
            27..=29 => ops.push(Op::Run(1 + random.number() % 2_000)),
            30 | 31 => ops.push(Op::Run(600_000 + random.number() % 1_800_000)),
            32 if !foreign.is_empty() => ops.push(Op::Pin(who, one_of(random, &[ABROAD, ABROAD, HOME]))),
            33 if below(random, 3) == 0 => ops.push(Op::Unpin(who, ABROAD)),
            34 if !foreign.is_empty() && outs < OUTS_MAX => {
                outs += 1;
                let whom = one_of(random, &foreign);
                ops.push(if below(random, 2) == 0 { Op::Disable(whom) } else { Op::Revoke(whom) });
            }
            _ => ops.push(Op::Send(device, group, 1 + below(random, 3))),
        }
    }
    ops
}

/// The operations of a seed of runs with an escrow node: people of an organisation and a guest in escrowed groups, in a work group and
/// in a personal one; policies that follow one another; an escrow node that crashes more than others; in some runs an insider.
#[must_use]
pub(super) fn generate_escrow(random: &mut Random) -> Vec<Op> {
    let count = 3 + below(random, 2);
    let mut people: Vec<usize> = (0..count).collect();
    people.extend((below(random, 2) == 0).then_some(GUEST));
    let mut ops = vec![Op::FoundEscrowed(0), Op::Run(500), Op::Acknowledge(0, 0)];
    for whom in &people[1..] {
        ops.extend([Op::Invite(0, 0, *whom), Op::Run(400), Op::Acknowledge(*whom, 0), Op::Run(100)]);
    }
    ops.extend([Op::Create(1, Class::Work), Op::Run(400), Op::Invite(1, 1, 2), Op::Run(400)]);
    ops.extend([Op::Create(GUEST, Class::Personal), Op::Run(400), Op::Invite(GUEST, 2, 6), Op::Run(400)]);
    let insider = (below(random, 4) == 0).then(|| one_of(random, &people[1..]));
    let loses_keys = below(random, 6) == 0;
    let mut losses = [0, 0, 1, 2][below(random, 4)];
    let mut absences = 0;
    for _ in 0..30 + below(random, 40) {
        let who = one_of(random, &people);
        let whom = one_of(random, &people);
        let node = if below(random, 3) > 0 { ESCROW } else { who };
        let group = [0, 0, 0, 0, 1, 2, 3][below(random, 7)];
        match below(random, 52) {
            0 if below(random, 2) == 0 => ops.extend([Op::FoundEscrowed(who), Op::Run(400), Op::Acknowledge(who, 3)]),
            1 | 2 => ops.push(Op::SetPolicy(who, one_of(random, &[0, 3]))),
            3..=5 => ops.push(Op::Acknowledge(who, one_of(random, &[0, 0, 3]))),
            6 | 7 => ops.push(Op::Invite(who, group, whom)),
            8 => ops.push(Op::Remove(who, group, whom)),
            9 => ops.push(Op::Leave(who, group)),
            10 | 11 => ops.push(Op::Cut(node)),
            12 => ops.push(Op::Part(node)),
            13 | 14 => ops.push(Op::Heal(node)),
            15 => ops.push(Op::CrashClient(node, ClientCrash::Unwritten)),
            16 => ops.push(Op::CrashClient(node, ClientCrash::Unsynced)),
            17 => ops.push(Op::CrashClient(node, ClientCrash::Unsent)),
            18 => ops.push(Op::CrashRelay(one_of(random, &[RelayCrash::Unsynced, RelayCrash::Untold]))),
            19 => ops.push(Op::Weather(one_of(random, &[Weather::Fair, Weather::Rough, Weather::Storm]))),
            20 => ops.push(Op::SlowClient(node, slowness(random))),
            21 => ops.push(Op::FailClient(node)),
            22 => ops.push(Op::FailRelay),
            23 if absences < ABSENCES_MAX => {
                absences += 1;
                ops.push(Op::Absence(1 + random.number() % 4));
            }
            24 | 25 => ops.push(Op::Run(600_000 + random.number() % 14_400_000)),
            26..=28 => ops.push(Op::Run(1 + random.number() % 2_000)),
            29 if loses_keys => ops.push(Op::LosePathKeys(ESCROW, 0)),
            34 | 35 => ops.push(Op::HandOver(who, group)),
            36 | 37 => ops.push(Op::BackUp),
            38 | 39 if losses > 0 => {
                losses -= 1;
                ops.push(Op::LoseState);
            }
            30..=33 => {
                let Some(insider) = insider else { continue };
                ops.push(match below(random, 6) {
                    0 | 1 => Op::Expel(insider, one_of(random, &[0, 0, 3])),
                    2 => Op::Smuggle(insider, below(random, 3), one_of(random, &[ESCROW, SECOND_ESCROW])),
                    3 => Op::Garbage(insider, 0, one_of(random, &[Garbage::Commit, Garbage::Message, Garbage::Notice])),
                    4 => Op::Resubmit(insider, 0),
                    _ => Op::OldTokens(insider, 0),
                });
            }
            _ => ops.push(Op::Send(who, group, 1 + below(random, 3))),
        }
    }
    ops
}
