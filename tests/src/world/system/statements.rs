//! What members ask the escrow node, and what it answers, if it does not lie.
//!
//! This module does not compare; the members' machines do.

use chancery_protocol::{
    client::{ArchiveQuestion, Input, Space},
    escrow::{CaptureState, CaptureStatement},
    identity::DeviceKey,
    ids::HeadHash,
    secret::Secret32,
    time::Timestamp,
    wire::{
        Blob, Frame,
        capture::{AskStatement, StatementTold},
    },
};

use super::{
    super::{Attack, Bug},
    World,
};

/// Within this the node answers, or a client gives it up.
const ANSWERS_MS: u64 = 200;
const GIVES_UP_MS: u64 = 5_000;

/// A question that waits for its answer.
pub(super) struct Question {
    at: Timestamp,
    who: usize,
    number: u32,
    frame: Frame,
}

impl World {
    pub(super) fn ask_archive(&mut self, who: usize, ArchiveQuestion { number, frame, .. }: ArchiveQuestion) {
        if self.bug == Some(Bug::DropsQuestions) {
            return;
        }
        let within = if self.node_answers(who) { ANSWERS_MS } else { GIVES_UP_MS };
        let at = Timestamp(self.soon(within).0 + 1);
        self.questions.push(Question { at, who, number, frame });
    }

    pub(super) fn next_answer(&self) -> Option<Timestamp> {
        self.questions.iter().map(|question| question.at).min()
    }

    /// Its process ends: nobody waits for the answers.
    pub(super) fn forget_questions(&mut self, who: usize) {
        self.questions.retain(|question| question.who != who);
    }

    fn node_answers(&self, who: usize) -> bool {
        let node = self.archive.as_ref().map(|archive| &self.nodes[archive.node]);
        node.is_some_and(|node| node.machine.is_some() && node.busy.is_none() && !node.parted)
            && !self.nodes[who].parted
    }

    pub(super) fn answer_question(&mut self) {
        let due = self.questions.iter().position(|question| question.at <= self.now);
        let Some(Question { who, number, frame, .. }) = due.map(|due| self.questions.remove(due)) else { return };
        let answer = match frame {
            Frame::AskStatement(ask) if self.node_answers(who) => {
                Some(Frame::StatementTold(StatementTold { statement: self.statement(&ask) }))
            }
            _ => None,
        };
        self.input(who, Input::ArchiveSaid(number, answer), None);
    }

    /// As the node's endpoint reads it from its rows.
    fn statement(&self, ask: &AskStatement) -> Option<Blob> {
        let node = self.archive.as_ref().map(|archive| &self.nodes[archive.node])?;
        let row = node.disk.rows.get(&(Space::Statement, ask.lookup.as_bytes().to_vec()))?;
        let key = DeviceKey::from_seed(Secret32::new(node.seed)).unwrap();
        let mut told = CaptureStatement::open(row, key.public(), ask.lookup).unwrap();
        if self.bug == Some(Bug::HidesMissing) {
            told.missing = None;
            return Some(Blob(told.sign(&key)));
        }
        let Some(siege) = self.siege.as_ref() else { return Some(Blob(row.clone())) };
        match siege.attack {
            Attack::StateAhead => {
                told.head.seq.0 += 1 + siege.variant % 3;
                told.head.hash = HeadHash([7; 32]);
            }
            Attack::StateOther => told.head.hash = HeadHash([7; 32]),
            Attack::StateStuck => told.state = CaptureState::Stuck,
            _ => return Some(Blob(row.clone())),
        }
        Some(Blob(told.sign(&key)))
    }
}
