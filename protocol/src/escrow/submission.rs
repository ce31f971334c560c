//! What officers hand in to an escrow node: requests, answers, orders and ceremonies' certificates. `spec/opening.md`.
//!
//! This module does not decide what the node does with them.

use serde::{Deserialize, Serialize};

use crate::{
    escrow::scope::RetentionClass,
    identity::{DeviceKey, Purpose, verify_signature},
    ids::{DocumentHash, GroupId, HoldId, OpeningHash, RootHash},
    limits::{OPENING_BYTES_MAX, OPENING_TEXT_BYTES_MAX},
    time::Timestamp,
    wire::{Blob, decode_exact, encode},
};

/// The layout that this version knows.
const VERSION: u8 = 1;

/// What is handed in, each in the form in which it was signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Submission {
    /// 0: an opening request.
    Request(Blob),
    /// 1: a seat's answer.
    Answer(Blob),
    /// 2: an order.
    Order(Blob),
    /// 3: a ceremony's certificate. A node takes it from its operator only.
    Certificate(Blob),
}

impl Submission {
    /// The bytes. (opening.submission.1)
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what [`Self::to_bytes`] writes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        // What is inside has a cap of its own.
        if bytes.len() > OPENING_BYTES_MAX + 16 {
            return None;
        }
        decode_exact("a submission", bytes).ok()
    }
}

/// What an officer orders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderBody {
    /// 0: to be told which segments there are: of a group or of all, of these days.
    Catalogue {
        /// The group; all groups, if none is named.
        group: Option<GroupId>,
        /// The first day.
        first: u32,
        /// The last day.
        last: u32,
    },
    /// 1: a request was carried out, with this outcome.
    Close {
        /// The request.
        request: OpeningHash,
        /// How many segments were opened.
        segments: u32,
        /// How many records were released.
        records: u64,
        /// Hash of the export's manifest.
        manifest: DocumentHash,
        /// Size of the log under the manifest's checkpoint.
        from: u64,
    },
    /// 2: nothing of these days expires until the hold is lifted.
    PlaceHold {
        /// Its id, random.
        id: HoldId,
        /// The group; all groups, if none is named.
        group: Option<GroupId>,
        /// The first day.
        first: u32,
        /// The last day.
        last: u32,
        /// SHA-256 over the document that orders it.
        document: DocumentHash,
    },
    /// 3: a hold ends.
    LiftHold {
        /// Which.
        id: HoldId,
        /// SHA-256 over the document that ends it.
        document: DocumentHash,
    },
    /// 4: the retention keys of a class up to and with this month are destroyed, but for those that a hold keeps.
    Expire {
        /// Name of the class.
        retention: String,
        /// The last month, counted from January 1970.
        month: u32,
    },
    /// 5: the people whom an opening concerns have been told.
    NoticeGiven {
        /// The request.
        request: OpeningHash,
    },
    /// 6: a segment that nobody spoke in is sealed, to be opened in a drill.
    Canary {
        /// The archive's public key to which it is sealed.
        key: [u8; 32],
    },
}

/// An order to an escrow node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    version: u8,
    /// Root of the organisation.
    pub tenant: RootHash,
    /// When it was made.
    pub made_at: Timestamp,
    /// What is ordered.
    pub body: OrderBody,
}

/// Why bytes are not an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// Does not decode.
    #[error("the order does not decode")]
    Encoding,
    /// A field cannot be so.
    #[error("the order ends before it begins, or names no retention class")]
    Field,
    /// Nobody who may give orders has signed it.
    #[error("the order is not signed by the key of somebody who may give orders")]
    Signature,
}

impl Order {
    /// An order of this version.
    #[must_use]
    pub fn new(tenant: RootHash, made_at: Timestamp, body: OrderBody) -> Self {
        Self { version: VERSION, tenant, made_at, body }
    }

    fn check(&self) -> Result<(), OrderError> {
        let fits = match &self.body {
            OrderBody::Catalogue { first, last, .. } | OrderBody::PlaceHold { first, last, .. } => first <= last,
            OrderBody::Expire { retention, .. } => retention.parse::<RetentionClass>().is_ok(),
            _ => true,
        };
        if fits && self.version == VERSION { Ok(()) } else { Err(OrderError::Field) }
    }

    /// Signs it. (opening.order.1)
    ///
    /// # Errors
    /// `Field`.
    pub fn sign(&self, key: &DeviceKey) -> Result<Vec<u8>, OrderError> {
        self.check()?;
        let content = encode(self);
        let signature = Blob(key.sign(Purpose::ArchiveOrder, &content));
        Ok(encode(&(Blob(content), signature)))
    }

    /// Reads an order, and gives the key, out of these, that has signed it. (opening.order.2)
    ///
    /// # Errors
    /// See [`OrderError`].
    pub fn open(bytes: &[u8], keys: &[[u8; 32]]) -> Result<(Self, [u8; 32]), OrderError> {
        if bytes.len() > OPENING_TEXT_BYTES_MAX {
            return Err(OrderError::Encoding);
        }
        let (content, signature): (Blob, Blob) = decode_exact("an order", bytes).map_err(|_| OrderError::Encoding)?;
        let order: Self = decode_exact("an order", &content).map_err(|_| OrderError::Encoding)?;
        order.check()?;
        let signs = |key: &&[u8; 32]| verify_signature(key, Purpose::ArchiveOrder, &content, &signature);
        keys.iter().find(signs).map(|key| (order, *key)).ok_or(OrderError::Signature)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::secret::Secret32;

    fn key(number: u8) -> DeviceKey {
        DeviceKey::from_seed(Secret32::new([number; 32])).unwrap()
    }

    // proves opening.order.1, opening.order.2
    #[test]
    fn an_order_is_read_if_somebody_who_may_has_signed_it() {
        let body = OrderBody::Expire { retention: "seven-years".to_owned(), month: 684 };
        let order = Order::new(RootHash([1; 32]), Timestamp(2), body);
        let signed = order.sign(&key(1)).unwrap();
        let (one, other) = (*key(1).public(), *key(2).public());
        assert_eq!(Order::open(&signed, &[other, one]), Ok((order.clone(), one)));
        assert_eq!(Order::open(&signed, &[other]), Err(OrderError::Signature));
        for at in 0..signed.len() {
            let mut changed = signed.clone();
            changed[at] ^= 1;
            assert!(Order::open(&changed, &[one]).is_err(), "byte {at}");
        }
        let nothing = OrderBody::Expire { retention: String::new(), month: 684 };
        assert_eq!(Order { body: nothing, ..order.clone() }.sign(&key(1)), Err(OrderError::Field));
        let backwards = OrderBody::Catalogue { group: None, first: 2, last: 1 };
        assert_eq!(Order { body: backwards, ..order }.sign(&key(1)), Err(OrderError::Field));
    }

    // proves opening.submission.1
    #[test]
    fn a_submission_is_read_as_it_was_written() {
        let one = Submission::Order(Blob(vec![1, 2, 3]));
        assert_eq!(Submission::from_bytes(&one.to_bytes()), Some(one.clone()));
        assert_eq!(one.to_bytes(), [2, 3, 1, 2, 3]);
        assert_eq!(Submission::from_bytes(&[one.to_bytes(), vec![0]].concat()), None);
        assert_eq!(Submission::from_bytes(&[4, 0]), None);
    }
}
