//! What the processes of a run tell one another: one value a line, on standard input and output.
//!
//! A line that was written whole has been said, whatever becomes of its writer: it lies in the pipe. A part of a line has
//! not been said.

use std::io::{BufRead as _, Write as _};

use chancery_client::{AccountId, GroupId, MessageId, Seq};
use chancery_protocol::{
    error::Refusal,
    ids::AppendId,
    wire::{
        decode_exact, encode,
        relay::{Appended, Entry, EntryKind},
    },
};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use crate::Outcome;

/// What a child says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Says {
    /// A raw client is about to send its append of this number for the first time.
    Sending { number: u32, group: GroupId, kind: EntryKind, after: Seq, behind: Option<AppendId>, id: AppendId },
    /// It is about to send it again.
    Again { number: u32 },
    /// It was answered.
    Answered { number: u32, answer: Result<Appended, Refusal> },
    /// It has begun to read.
    Reading { group: GroupId, from: Seq },
    /// It has read.
    Read { group: GroupId, entries: Vec<Entry> },
    /// A person's client is open.
    Ready { account: Option<AccountId> },
    /// It has carried out the order.
    Did(Answer),
    /// It is about to give a text to `send`.
    Saying { group: GroupId, text: String },
    /// `send` has returned the id of that text.
    Said { text: String, id: MessageId },
    /// An event about a text.
    Told { event: u64, group: GroupId, seq: Seq },
    /// The client is a member of the group.
    Joined { group: GroupId },
    /// Something that must not happen in these runs.
    Trouble(String),
}

/// What an order led to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    Group(GroupId),
    Account(AccountId),
    History(Vec<(Seq, MessageId, String)>),
}

/// What a child is told. The end of the input means that it is to end at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Raw: send nothing new, and end when all is answered and read.
    Finish,
    /// A person: everything else.
    Enrol {
        ticket: String,
    },
    Found {
        name: String,
    },
    Invite {
        group: GroupId,
        account: AccountId,
    },
    /// Send texts into these groups until told to be quiet.
    Talk {
        groups: Vec<GroupId>,
    },
    Quiet,
    Flush,
    History {
        group: GroupId,
    },
    Stop,
}

pub(crate) fn to_line(value: &impl Serialize) -> Vec<u8> {
    let mut line = BASE64.encode(&encode(value)).into_bytes();
    line.push(b'\n');
    line
}

pub(crate) fn from_line<T: DeserializeOwned>(line: &str) -> Outcome<T> {
    Ok(decode_exact("a line", &BASE64.decode(line.trim_end().as_bytes())?)?)
}

/// Says it. If nobody listens, the run is over.
pub(crate) fn say(what: &Says) {
    let mut out = std::io::stdout().lock();
    if out.write_all(&to_line(what)).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Orders from standard input, on a thread of its own: a read cannot be called off.
pub(crate) fn orders() -> mpsc::UnboundedReceiver<Order> {
    let (orders, taken) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if let Ok(order) = from_line(&line)
                && orders.send(order).is_err()
            {
                return;
            }
        }
        std::process::exit(0);
    });
    taken
}
