//! Openings and ceremonies: one byte says which, the rest is it, or changes of a true one.

use std::sync::LazyLock;

use chancery_protocol::{
    escrow::{
        Opening,
        ceremony::Certificate,
        dossier::Dossier,
        opening::{Answer, LogProof, Request, Reviewed, SeatView, review},
        submission::{Order, OrderBody},
    },
    identity::DeviceKey,
    secret::{Random, Secret32},
    time::Timestamp,
    wire::{decode_exact, encode},
};
use data_encoding::HEXLOWER;
use serde_json::Value;

use crate::vectors::generate::{
    office,
    opening::{Stage, ceremony},
};

struct Fixture {
    stage: Stage,
    request: Vec<u8>,
    requesters: [[u8; 32]; 1],
    opening: Opening,
    answer: Vec<u8>,
    certificate: Vec<u8>,
    order: Vec<u8>,
    dossier: Vec<u8>,
}

static OPENING: LazyLock<Fixture> = LazyLock::new(|| {
    let stage = Stage::new();
    let request = stage.request.sign(&stage.requester).expect("a request");
    let requesters = [*stage.requester.public()];
    let reviewed = reviewed(&stage, &requesters, &request, &stage.proof, &stage.headers).expect("it holds");
    let mut random = Random::new([0x68; 32]);
    let answer = reviewed.approve(&stage.shares[1], &stage.requester, "", &mut random).expect("an answer");
    let opening = reviewed.opening();
    let body = OrderBody::NoticeGiven { request: opening.request };
    let order = Order::new(stage.request.tenant, Timestamp(1), body).sign(&officer()).expect("an order");
    let dossier = office::dossier(&stage).0.to_bytes();
    Fixture { request, requesters, opening, answer, certificate: ceremony().1, order, dossier, stage }
});

/// Who signs no other order than the true one.
fn officer() -> DeviceKey {
    DeviceKey::from_seed(Secret32::new([0x6d; 32])).expect("a key")
}

fn reviewed(
    stage: &Stage,
    requesters: &[[u8; 32]],
    request: &[u8],
    proof: &LogProof,
    headers: &[Vec<u8>],
) -> Option<Reviewed> {
    review(request, proof, headers, &view(stage, requesters)).ok()
}

fn view<'a>(stage: &'a Stage, requesters: &'a [[u8; 32]]) -> SeatView<'a> {
    SeatView {
        tenant: stage.request.tenant,
        key: &stage.key,
        log_key: *stage.log_key.public(),
        requesters,
        seen: stage.seen,
        now: Timestamp(stage.request.made_at.0),
    }
}

/// The true bytes with the input laid over them, and the input alone.
fn both(mut bytes: Vec<u8>, data: &[u8]) -> [Vec<u8>; 2] {
    for (byte, change) in bytes.iter_mut().zip(data) {
        *byte ^= change;
    }
    [bytes, data.to_vec()]
}

/// Nothing but the true request in its true place is reviewed; nothing but the true answer, certificate and order is
/// taken; what a dossier shows is what the log says.
///
/// # Panics
/// If a promise of `spec/opening.md` or `spec/ceremony.md` breaks.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let true_one = &*OPENING;
    match kind % 7 {
        0 => {
            for bytes in both(true_one.request.clone(), rest) {
                if let Ok(request) = Request::open(&bytes, &true_one.requesters) {
                    assert_eq!(request, true_one.stage.request);
                }
            }
        }
        1 => {
            for bytes in both(encode(&true_one.stage.proof), rest) {
                let Ok(proof) = decode_exact::<LogProof>("a proof", &bytes) else { continue };
                let stage = &true_one.stage;
                if let Some(reviewed) = reviewed(stage, &true_one.requesters, &true_one.request, &proof, &stage.headers)
                {
                    assert_eq!(reviewed.opening(), true_one.opening);
                }
            }
        }
        2 => {
            let stage = &true_one.stage;
            for bytes in both(stage.headers[0].clone(), rest) {
                let headers = [bytes, stage.headers[1].clone()];
                let taken = reviewed(stage, &true_one.requesters, &true_one.request, &stage.proof, &headers);
                assert_eq!(taken.is_some(), headers[0] == stage.headers[0]);
            }
        }
        3 => {
            let key = *true_one.stage.requester.public();
            for bytes in both(true_one.answer.clone(), rest) {
                if let Ok(answer) = Answer::open(&bytes, true_one.opening, |_| Some(key)) {
                    assert!(answer.parts(&Stage::workstation(), 2).is_ok_and(|parts| parts.len() == 2));
                }
            }
        }
        4 => {
            for bytes in both(true_one.certificate.clone(), rest) {
                if let Ok((certificate, key)) = Certificate::from_bytes(&bytes) {
                    let (made, true_key) = Certificate::from_bytes(&true_one.certificate).expect("it holds");
                    assert_eq!((certificate.plan(), key), (made.plan(), true_key));
                }
            }
        }
        5 => {
            for bytes in both(true_one.order.clone(), rest) {
                let taken = Order::open(&bytes, &[*officer().public()]);
                assert!(taken.is_err() || bytes == true_one.order);
            }
        }
        _ => {
            for bytes in both(true_one.dossier.clone(), rest) {
                let Ok(dossier) = Dossier::from_bytes(&bytes) else { continue };
                let stage = &true_one.stage;
                let Ok(examined) = dossier.examine(&view(stage, &true_one.requesters), &[]) else { continue };
                // What a seat is shown is what the log says, whatever else was changed.
                assert_eq!(examined.reviewed.request(), &stage.request);
                assert_eq!((examined.reviewed.opening().log_index, &examined.records[..]), (4, &[7, 9][..]));
                assert!(examined.before.iter().all(|(_, records)| records.is_none_or(|records| records == 12)));
            }
        }
    }
}

/// A corpus file from a vector's input.
pub(super) fn seed(kind: &str, input: &Value) -> Vec<u8> {
    let text = input.get("bytes").and_then(Value::as_str).unwrap_or_default();
    let bytes = HEXLOWER.decode(text.as_bytes()).expect("hexadecimal");
    let which = match kind {
        "opening_request" => 0,
        "opening_answer" => 3,
        "archive_order" => 5,
        "opening_dossier" => 6,
        _ => 4,
    };
    [vec![which], bytes].concat()
}
