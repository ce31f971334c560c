//! What must be true in each state.

use chancery_protocol::time::Timestamp;

use super::{
    relay::{What, token},
    state::{HONEST, State, epochs},
};

/// The properties, with what each says. The last one is about all states together.
pub const PROPERTIES: [(&str, &str); 7] = [
    ("acked_stays", "what was acknowledged is durable, and keeps its place and head"),
    ("read_is_what_is_stored", "what a member has read is, from the first entry on and without a gap, what is stored"),
    (
        "one_commit_for_each_place",
        "no entry stands behind a commit that its author did not know, and no message out of its epoch",
    ),
    ("a_retry_gets_the_first_answer", "an append that has its place is answered with it, whatever came since"),
    (
        "nobody_alone_takes_rights",
        "rights end only when an account that cannot be had at will has followed another's commit",
    ),
    ("ended_tokens_append_nothing", "a day after a commit was followed, what does not descend from it appends nothing"),
    (
        "members_come_back",
        "from every state, honest members and the relay alone come to where each honest member may append",
    ),
];

/// The first property that a state breaks.
pub(super) fn broken(state: &State) -> Option<&'static str> {
    let holds = [
        ("acked_stays", acked_stays(state)),
        ("read_is_what_is_stored", read_is_what_is_stored(state)),
        ("one_commit_for_each_place", one_commit_for_each_place(state)),
        ("nobody_alone_takes_rights", nobody_alone_takes_rights(state)),
    ];
    state.broken.or_else(|| holds.iter().find(|(_, holds)| !holds).map(|(name, _)| *name))
}

fn acked_stays(state: &State) -> bool {
    state.acked.iter().all(|(name, appended)| {
        let at = usize::try_from(appended.head.seq.0 - 1).unwrap();
        let stands = state.disk.log.get(at).is_some_and(|entry| entry.name == *name);
        stands && state.disk.known(state.disk.log[at]) == Some(*appended)
    })
}

fn read_is_what_is_stored(state: &State) -> bool {
    HONEST.iter().all(|who| state.disk.log.starts_with(&state.member(*who).read))
}

fn one_commit_for_each_place(state: &State) -> bool {
    let mut newest_commit = 0;
    state.memory.log.iter().zip(1..).all(|(entry, seq)| {
        let follows = entry.after == newest_commit;
        if entry.what.is_commit() {
            newest_commit = seq;
        }
        let in_place = match entry.what {
            What::Message { epoch } => {
                epochs(&state.memory.log[..usize::from(seq) - 1], entry.name.0).last() == Some(&epoch)
            }
            _ => true,
        };
        follows && in_place
    })
}

fn nobody_alone_takes_rights(state: &State) -> bool {
    state.memory.log.iter().enumerate().all(|(at, entry)| {
        let row = state.memory.tokens.iter().find(|row| row.hash == token(entry.name));
        let Some(row) = row else { return true };
        match row.ends_at {
            None => !(matches!(entry.what, What::Garbage) && row.is_confirmed()),
            // Its own committer has superseded it.
            Some(Timestamp(0)) => {
                state.memory.log[at + 1..].iter().any(|later| later.name.0 == entry.name.0 && later.what.is_commit())
            }
            Some(_) => !state.followed.is_empty(),
        }
    })
}
