use super::*;
use crate::{
    ids::{AccountTag, HeadHash, KindTag, Seq},
    limits::{TOKENS_UNCONFIRMED_MAX, TOKENS_UNCONFIRMED_OTHERS_MAX},
};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const WORK: KindTag = KindTag([1; 16]);
const ANA: By = By { tag: AccountTag([1; 16]), kind: WORK };
const BO: By = By { tag: AccountTag([2; 16]), kind: WORK };
const GUEST: By = guest(3);

/// A personal account, of which anybody makes as many as there are numbers.
const fn guest(n: u8) -> By {
    By { tag: AccountTag([n; 16]), kind: KindTag([2; 16]) }
}

/// A group's rows as a store keeps them.
#[derive(Default)]
struct Group {
    rows: Vec<TokenRow>,
    head: u64,
}

fn hash(n: u64) -> TokenHash {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&n.to_be_bytes());
    TokenHash(hash)
}

impl Group {
    /// Founded by Ana, followed by Bo: token 1 is confirmed.
    fn new() -> Self {
        let mut group = Self::default();
        group.commit(None, ANA).unwrap();
        group.show(1, BO, NOW);
        group
    }

    fn row(&self, n: u64) -> TokenRow {
        *self.rows.iter().find(|row| row.hash == hash(n)).unwrap()
    }

    fn live(&self) -> Vec<TokenRow> {
        self.rows.iter().filter(|row| row.ends_at.is_none()).copied().collect()
    }

    fn write(&mut self, changed: Vec<TokenRow>) {
        for row in changed {
            match self.rows.iter_mut().find(|known| known.hash == row.hash) {
                Some(known) => *known = row,
                None => self.rows.push(row),
            }
        }
    }

    /// The number of the token that begins.
    fn commit(&mut self, with: Option<u64>, by: By) -> Result<u64, Refusal> {
        let head = Head { seq: Seq(self.head + 1), hash: HeadHash([0; 32]) };
        let token = with.map(|n| self.row(n));
        let changed = advance(&self.live(), token.as_ref(), hash(self.head + 1), head, by, WORK)?;
        self.head += 1;
        self.write(changed);
        Ok(self.head)
    }

    fn show(&mut self, n: u64, by: By, now: Timestamp) {
        let changed = confirm(&self.live(), &self.row(n), by, WORK, now);
        self.write(changed);
    }
}

// proves relay.token.8
#[test]
fn a_lone_insider_takes_no_rights_away_however_often_it_commits() {
    let mut group = Group::new();
    let mut tip = 1;
    for round in 0..2_000 {
        // In a line, and again and again from the confirmed token.
        let with = if round % 3 == 0 { 1 } else { tip };
        tip = group.commit(Some(with), ANA).unwrap();
        group.show(tip, ANA, NOW);
        assert!(group.row(1).is_confirmed());
        assert!(group.live().len() <= 2, "the state is bounded");
    }
    // Whoever slept goes on with the token that it has.
    let honest = group.commit(Some(1), BO).unwrap();
    assert!(group.row(honest).has_rights(NOW));
}

// proves relay.token.5, relay.token.6, relay.token.7
#[test]
fn a_removed_member_loses_its_rights_a_day_after_another_followed_and_nothing_moves_that() {
    let mut group = Group::new();
    let next = group.commit(Some(1), ANA).unwrap();
    assert!(group.row(1).has_rights(NOW.plus(DEADLINE * 100)), "nobody has followed yet");
    group.show(next, ANA, NOW);
    assert!(!group.row(next).is_confirmed(), "nobody confirms a commit of its own account");
    group.show(next, BO, NOW);
    let end = NOW.plus(DEADLINE);
    assert_eq!((group.row(1).ends_at, group.row(next).is_confirmed()), (Some(end), true));
    // What the removed one commits meanwhile inherits the deadline, and cannot be confirmed.
    let garbage = group.commit(Some(1), GUEST).unwrap();
    group.show(garbage, BO, NOW);
    assert_eq!((group.row(garbage).ends_at, group.row(garbage).is_confirmed()), (Some(end), false));
    assert!(group.row(next).is_confirmed());
    // A later confirmation moves nothing.
    let later = group.commit(Some(next), BO).unwrap();
    group.show(later, ANA, NOW.plus(DEADLINE / 2));
    assert_eq!(group.row(1).ends_at, Some(end));
    assert_eq!(group.row(next).ends_at, Some(NOW.plus(DEADLINE / 2).plus(DEADLINE)));
    assert!(group.row(1).has_rights(Timestamp(end.0 - 1)) && !group.row(1).has_rights(end));
}

#[test]
fn personal_accounts_confirm_nothing_where_an_organisations_account_founded() {
    let mut group = Group::new();
    let next = group.commit(Some(1), ANA).unwrap();
    group.show(next, GUEST, NOW);
    assert!(!group.row(next).is_confirmed());
    let guests = group.commit(Some(next), GUEST).unwrap();
    group.show(guests, guest(4), NOW);
    assert!(!group.row(guests).is_confirmed(), "nor one another");
    group.show(guests, BO, NOW);
    assert!(group.row(guests).is_confirmed());
    assert!(group.row(next).ends_at.is_some() && group.row(1).ends_at.is_some());
}

#[test]
fn a_line_by_one_account_leaves_its_base_and_tip_and_each_step_leads_on() {
    let mut group = Group::new();
    let mut tip = 1;
    for _ in 0..200 {
        tip = group.commit(Some(tip), ANA).unwrap();
    }
    assert_eq!(group.live().iter().map(|row| row.hash).collect::<Vec<_>>(), [hash(1), hash(tip)]);
    for n in 2..tip {
        assert_eq!(group.row(n).reads_to().seq, Seq(n + 1));
        group.show(n, BO, NOW);
        assert!(!group.row(n).is_confirmed(), "what only leads on is not confirmed");
    }
    group.show(tip, BO, NOW);
    assert!(group.row(tip).is_confirmed() && group.row(1).ends_at.is_some());
}

#[test]
fn at_the_bound_a_commit_is_refused_and_a_confirmation_makes_room() {
    let mut group = Group::new();
    let by = |n: usize| By { tag: AccountTag([u8::try_from(n).unwrap() + 10; 16]), kind: WORK };
    let mut last = 1;
    for n in 0..TOKENS_UNCONFIRMED_MAX {
        last = group.commit(Some(1), by(n)).unwrap();
    }
    assert_eq!(group.commit(Some(1), by(100)), Err(Refusal::Unconfirmed));
    assert!(group.commit(Some(1), by(0)).is_ok(), "who has one already only replaces it");
    group.show(last, BO, NOW);
    assert!(group.commit(Some(last), by(100)).is_ok());
}

/// One insider with an organisation's account, and as many personal ones as it likes, to which it tells the token.
#[test]
fn a_lone_insider_with_many_personal_accounts_ends_and_blocks_nothing() {
    let mut group = Group::new();
    let mut refused = 0;
    for n in 10..200 {
        match group.commit(Some(1), guest(n)) {
            Ok(garbage) => {
                (3..250).for_each(|other| group.show(garbage, guest(other), NOW));
                group.show(garbage, guest(n), NOW);
            }
            Err(refusal) => refused += usize::from(refusal == Refusal::Unconfirmed),
        }
    }
    let garbage = group.commit(Some(1), ANA).unwrap();
    (3..250).for_each(|other| group.show(garbage, guest(other), NOW));
    assert_eq!(refused, 190 - TOKENS_UNCONFIRMED_OTHERS_MAX);
    assert!(group.row(1).is_confirmed(), "who slept goes on");
    let honest = group.commit(Some(1), BO).unwrap();
    group.show(honest, By { tag: AccountTag([9; 16]), kind: WORK }, NOW);
    assert!(group.row(honest).is_confirmed());
    assert_eq!(group.live().len(), 1, "and what the insider left goes with the first that is followed");
}

/// Garbage first, and then, with the token of that, a commit that the others follow.
#[test]
fn a_sleeping_member_is_led_past_garbage_to_the_commit_that_was_followed() {
    let mut group = Group::new();
    let garbage = group.commit(Some(1), ANA).unwrap();
    let good = group.commit(Some(garbage), ANA).unwrap();
    group.show(good, BO, NOW);
    assert!(group.row(good).is_confirmed() && !group.row(1).has_rights(NOW.plus(DEADLINE)));
    assert_eq!(group.row(1).reads_to(), group.row(good).made_at);
}
