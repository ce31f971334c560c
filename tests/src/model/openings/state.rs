//! One state of the model, and every step that can follow it.
//!
//! This module does not judge states; [`super::check`] does.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    hash::{DefaultHasher, Hash},
    rc::Rc,
};

use chancery_protocol::ids::MerkleHash;

use super::{
    super::explore::Model,
    Bug,
    check::{broken, has_expired},
    product::{AnswerId, CLOCKS, DossierId, HandedIn, Product, StoreId},
};

/// How much happens at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Which requests there are: 0 expires before the month is over, 1 after it.
    pub requests: &'static [u8],
    /// How many seats act; two open together.
    pub seats: u8,
    /// Dossiers that are handed out.
    pub dossiers: usize,
    /// Answers that are signed.
    pub answers: usize,
    /// Whether seats refuse, too.
    pub refusals: bool,
    /// Times that the node's process dies.
    pub crashes: u8,
    /// Dossiers of a log that the node does not keep, or of one without the request.
    pub lies: u8,
    /// Whether there are holds, expiries, a copy of the retention folder that was away, and a clock.
    pub retention: bool,
}

impl Bounds {
    /// What `cargo test` searches: once for openings, once for a node that lies, once for retention.
    pub const SMALL: [Self; 3] = [
        Self {
            requests: &[0],
            seats: 2,
            dossiers: 2,
            answers: 3,
            refusals: true,
            crashes: 1,
            lies: 0,
            retention: false,
        },
        Self {
            requests: &[0, 1],
            seats: 2,
            dossiers: 2,
            answers: 2,
            refusals: false,
            crashes: 1,
            lies: 1,
            retention: false,
        },
        Self {
            requests: &[0, 1],
            seats: 1,
            dossiers: 1,
            answers: 1,
            refusals: false,
            crashes: 1,
            lies: 0,
            retention: true,
        },
    ];
    /// What takes minutes.
    pub const LARGE: [Self; 3] = [
        Self {
            requests: &[0, 1],
            seats: 2,
            dossiers: 2,
            answers: 3,
            refusals: true,
            crashes: 1,
            lies: 0,
            retention: false,
        },
        Self {
            requests: &[0, 1],
            seats: 3,
            dossiers: 3,
            answers: 3,
            refusals: false,
            crashes: 1,
            lies: 1,
            retention: false,
        },
        Self {
            requests: &[0, 1],
            seats: 2,
            dossiers: 2,
            answers: 2,
            refusals: false,
            crashes: 2,
            lies: 0,
            retention: true,
        },
    ];
}

thread_local! {
    /// What the product has said in one search it is not asked in the next.
    static PRODUCT: Rc<RefCell<Product>> = Rc::new(RefCell::new(Product::new()));
}

/// The node, the seats, and what lies in between.
#[derive(Clone)]
pub(super) struct State {
    product: Rc<RefCell<Product>>,
    clock: u8,
    /// What is durable, and what the process has; the same once it has synced.
    pub disk: StoreId,
    memory: StoreId,
    /// Whether the key of the month is in the retention folder; and in one that is away.
    pub key: bool,
    away: bool,
    /// Whether it is destroyed as soon as all is durable.
    destroys: bool,
    /// The request whose dossier is handed out next.
    due: Option<u8>,
    /// Logs under which dossiers were handed out, oldest first.
    shown: Vec<StoreId>,
    dossiers: Vec<DossierId>,
    /// The checkpoints that each seat has verified.
    seen: Vec<Vec<(u64, MerkleHash)>>,
    pub answers: BTreeSet<AnswerId>,
    crashes: u8,
    lies: u8,
    /// A promise that the last step broke.
    pub broken: Option<&'static str>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Somebody hands something in: for the first time, or again.
    Submit(HandedIn),
    /// The node's store is durable, and what is to be destroyed then is.
    Sync,
    /// The node hands out what is due.
    HandOut,
    /// The node's process dies, and begins again.
    Crash,
    /// A seat answers a dossier.
    Answer(AnswerId),
    /// The node shows a log to which it has added the request, and does not keep it.
    Fork(u8),
    /// The node shows its log, which does not have the request.
    Omit(u8),
    /// A folder with retention keys that was away is there at the next start.
    Return,
    /// The month ends.
    Tick,
}

impl State {
    fn can_submit(&self, handed_in: HandedIn, bug: Option<Bug>) -> bool {
        let outcome = self.product.borrow_mut().submit(self.disk, self.key, handed_in, self.clock, bug);
        let requested = matches!(handed_in, HandedIn::Request(_)) && outcome.accepted;
        // What changes nothing and hands nothing out is no step.
        outcome.store != self.disk || requested
    }

    fn begin_again(&mut self, bug: Option<Bug>) {
        self.memory = self.disk;
        (self.due, self.destroys) = (None, false);
        if self.key && bug != Some(Bug::CopyTakenUp) {
            self.key = !self.product.borrow().destroys_at_start(self.disk, self.clock);
        }
    }

    fn hand_out(&mut self, request: u8, log: StoreId, honest: bool) {
        let dossier = self.product.borrow_mut().dossier(log, request, &self.shown, honest);
        if !self.dossiers.contains(&dossier) {
            self.dossiers.push(dossier);
        }
        if honest && !self.shown.contains(&log) {
            self.shown.push(log);
        }
    }

    fn answer(&mut self, id: AnswerId, bug: Option<Bug>) {
        let seat = usize::from(id.seat) - 1;
        let mut product = self.product.borrow_mut();
        let clock = if bug == Some(Bug::SeatAnswersLate) { 0 } else { self.clock };
        let known = product.review(id.dossier, &self.seen[seat], clock);
        if known.is_none() && bug != Some(Bug::SeatTrustsTheNode) {
            return;
        }
        if let Some(known) = known.filter(|_| bug != Some(Bug::SeatForgets)) {
            self.seen[seat] = known;
        }
        if Product::is_late(product.made(id.dossier).request, self.clock) {
            self.broken = Some("nobody_answers_late");
        }
        drop(product);
        self.answers.insert(id);
    }
}

impl Model for State {
    type Bounds = Bounds;
    type Bug = Bug;
    type Step = Step;
    const RETURN: &'static str = "";

    fn initial(bounds: Bounds) -> Self {
        Self {
            product: PRODUCT.with(Rc::clone),
            clock: 0,
            disk: 0,
            memory: 0,
            key: true,
            away: bounds.retention,
            destroys: false,
            due: None,
            shown: Vec::new(),
            dossiers: Vec::new(),
            seen: vec![Vec::new(); usize::from(bounds.seats)],
            answers: BTreeSet::new(),
            crashes: 0,
            lies: 0,
            broken: None,
        }
    }

    fn essence(&self, hasher: &mut DefaultHasher) {
        (self.clock, self.disk, self.memory, self.key, self.away, self.destroys, self.due).hash(hasher);
        (&self.shown, &self.seen, &self.answers, self.crashes, self.lies, self.broken).hash(hasher);
        let mut dossiers = self.dossiers.clone();
        dossiers.sort_unstable();
        dossiers.hash(hasher);
    }

    fn steps(&self, bounds: Bounds, bug: Option<Bug>) -> Vec<Step> {
        let mut steps = Vec::new();
        let synced = self.memory == self.disk && !self.destroys;
        if !synced {
            steps.push(Step::Sync);
        }
        let may_show = self.dossiers.len() < bounds.dossiers;
        if self.due.is_some() && (synced || bug == Some(Bug::HandedOutBeforeSync)) && may_show {
            steps.push(Step::HandOut);
        }
        if synced && self.due.is_none() {
            let mut handed_in: Vec<HandedIn> = self.answers.iter().map(|id| HandedIn::Answer(*id)).collect();
            for request in bounds.requests {
                handed_in.push(HandedIn::Close(*request));
                if may_show {
                    handed_in.push(HandedIn::Request(*request));
                }
            }
            if bounds.retention {
                handed_in.extend([HandedIn::Hold, HandedIn::Lift, HandedIn::Expire]);
            }
            steps.extend(handed_in.into_iter().filter(|one| self.can_submit(*one, bug)).map(Step::Submit));
        }
        if self.crashes < bounds.crashes {
            steps.push(Step::Crash);
        }
        if self.answers.len() < bounds.answers {
            for dossier in self.dossiers.iter().copied() {
                for seat in 1..=bounds.seats {
                    let answers = [true, false].map(|approves| AnswerId { seat, dossier, approves });
                    let answers = answers.into_iter().filter(|id| id.approves || bounds.refusals);
                    steps.extend(answers.filter(|id| !self.answers.contains(id)).map(Step::Answer));
                }
            }
        }
        if self.lies < bounds.lies && may_show {
            let logged = |request: u8| self.product.borrow().place(self.disk, request).is_some();
            for request in bounds.requests.iter().copied().filter(|request| !logged(*request)) {
                steps.extend([Step::Fork(request), Step::Omit(request)]);
            }
        }
        if self.away && self.crashes < bounds.crashes {
            steps.push(Step::Return);
        }
        if bounds.retention && usize::from(self.clock) + 1 < CLOCKS.len() {
            steps.push(Step::Tick);
        }
        steps
    }

    fn after(&self, step: Step, _: Bounds, bug: Option<Bug>) -> Self {
        let mut next = self.clone();
        match step {
            Step::Submit(handed_in) => {
                let outcome = self.product.borrow_mut().submit(self.disk, self.key, handed_in, self.clock, bug);
                (next.memory, next.destroys) = (outcome.store, outcome.destroys);
                if outcome.destroys && bug == Some(Bug::DestroyedBeforeSync) {
                    next.key = false;
                }
                if let HandedIn::Request(request) = handed_in
                    && outcome.accepted
                {
                    next.due = Some(request);
                }
            }
            Step::Sync => {
                next.disk = self.memory;
                // retention.expire.1: the driver destroys when the entry is durable.
                next.key &= !self.destroys;
                next.destroys = false;
            }
            Step::HandOut => {
                if has_expired(&self.product.borrow().log(self.memory)) {
                    next.broken = Some("expired_is_not_handed_out");
                }
                next.due = None;
                next.hand_out(self.due.unwrap(), self.memory, true);
            }
            Step::Crash => {
                next.crashes += 1;
                next.begin_again(bug);
            }
            Step::Answer(id) => next.answer(id, bug),
            Step::Fork(request) => {
                next.lies += 1;
                let handed_in = HandedIn::Request(request);
                let outcome = self.product.borrow_mut().submit(self.disk, self.key, handed_in, self.clock, None);
                if outcome.accepted {
                    next.hand_out(request, outcome.store, false);
                }
            }
            Step::Omit(request) => {
                next.lies += 1;
                next.hand_out(request, self.disk, false);
            }
            Step::Return => {
                next.crashes += 1;
                next.away = false;
                next.key = true;
                next.begin_again(bug);
            }
            Step::Tick => next.clock += 1,
        }
        next
    }

    fn broken(&self) -> Option<&'static str> {
        broken(self, &mut self.product.borrow_mut())
    }

    fn goals(&self) -> Vec<bool> {
        Vec::new()
    }

    fn recovers(_: Step) -> bool {
        false
    }
}
