//! World's disk keeps the same contract as the store that ships.

use std::{cell::RefCell, rc::Rc};

use chancery_protocol::{
    relay::{RelayStore, StoreFault, StoreOp, StoreReply},
    time::Timestamp,
};

use super::RelayDisk;

#[path = "../../../protocol/tests/it/conformance.rs"]
mod conformance;

use conformance::{Subject, store_conformance};

/// A disk that outlives the processes which open it. Each opening is one after the power was cut.
#[derive(Default)]
struct Platter(Rc<RefCell<RelayDisk>>);

struct Process(Rc<RefCell<RelayDisk>>);

impl RelayStore for Process {
    fn apply(&mut self, ops: &[StoreOp], now: Timestamp) -> Result<Vec<StoreReply>, StoreFault> {
        self.0.borrow_mut().apply(ops, now)
    }
}

impl Subject for Platter {
    type Store = Process;

    fn open(&mut self) -> Process {
        self.0.borrow_mut().crash(0);
        Process(Rc::clone(&self.0))
    }

    fn open_nearly_full(&mut self) -> Process {
        self.0.borrow_mut().room = Some(1_000_000);
        self.open()
    }
}

store_conformance!(Platter::default());
