//! Frames: any bytes, read as a stream of each direction.

use chancery_protocol::{
    limits::FRAME_BYTES_MAX,
    wire::{Direction, Frame, FrameHeader, frame::take_frame},
};

const DIRECTIONS: [Direction; 9] = [
    Direction::ToRelay,
    Direction::ToClient,
    Direction::Delivery,
    Direction::ToRegistrar,
    Direction::FromRegistrar,
    Direction::Orders,
    Direction::OrdersAnswer,
    Direction::ToEscrow,
    Direction::FromEscrow,
];

/// Reads frames to the end; what decodes must come back from its own bytes.
///
/// # Panics
/// If a promise of `spec/wire.md` breaks.
pub fn run(data: &[u8]) {
    for direction in DIRECTIONS {
        let mut rest = data;
        while let Ok(Some((taken, len))) = take_frame(direction, rest) {
            assert!((FrameHeader::LEN..=FrameHeader::LEN + FRAME_BYTES_MAX).contains(&len));
            if let Ok(frame) = taken.frame {
                round_trip(direction, &frame, taken.correlation);
            }
            rest = rest.get(len..).expect("a frame is not longer than its stream");
        }
    }
}

fn round_trip(direction: Direction, frame: &Frame, correlation: u32) {
    let bytes = frame.to_bytes(correlation);
    let (again, len) = take_frame(direction, &bytes).expect("a header").expect("a whole frame");
    assert_eq!((again.frame.as_ref(), again.correlation, len), (Ok(frame), correlation, bytes.len()));
    // The other directions must not take it.
    for other in DIRECTIONS.into_iter().filter(|other| *other != direction) {
        let (taken, _) = take_frame(other, &bytes).expect("a header").expect("a whole frame");
        assert!(taken.frame.is_err());
    }
}
