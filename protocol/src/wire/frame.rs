//! Frames: a fixed header and a postcard body. One table names every frame, its number, direction and section.
//!
//! This module does not read streams; `chancery-quic` does. `spec/wire.md#frames`.

use crate::{
    error::{Malformed, Refusal},
    limits::{CAPTURE_ANSWER_BYTES_MAX, CAPTURE_QUESTION_BYTES_MAX, FRAME_BYTES_MAX},
    wire::{blobs, capture, decode_exact, directory, registrar, relay},
};

/// Who sends a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// A client sends it on the control stream of `chancery/1`.
    ToRelay,
    /// A relay sends it on the control stream of `chancery/1`.
    ToClient,
    /// A relay sends it on the delivery stream of `chancery/1`.
    Delivery,
    /// A client sends it on `chancery-enrol/1`.
    ToRegistrar,
    /// A registrar sends it on `chancery-enrol/1`.
    FromRegistrar,
    /// A registrar sends it on `chancery-orders/1`.
    Orders,
    /// A relay sends it on `chancery-orders/1`.
    OrdersAnswer,
    /// A client sends it on `chancery-blobs/1`.
    ToBlobs,
    /// A relay sends it on `chancery-blobs/1`.
    FromBlobs,
    /// A member sends it on `chancery-capture/1`.
    ToEscrow,
    /// An escrow node sends it on `chancery-capture/1`.
    FromEscrow,
}

impl Direction {
    /// The longest body that is read of it, in bytes. (wire.frame.1)
    #[must_use]
    pub const fn body_bytes_max(self) -> usize {
        match self {
            // Of a node that a policy names, and of anybody.
            Self::FromEscrow => CAPTURE_ANSWER_BYTES_MAX,
            Self::ToEscrow => CAPTURE_QUESTION_BYTES_MAX,
            _ => FRAME_BYTES_MAX,
        }
    }
}

/// Ten bytes before each body: length of the body (u32), type (u16), correlation (u32), all big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Length of the body in bytes.
    pub body_len: u32,
    /// Number of the frame type.
    pub frame_type: u16,
    /// Chosen by who asks, repeated by who answers; 0 where nothing was asked.
    pub correlation: u32,
}

impl FrameHeader {
    /// Length in bytes.
    pub const LEN: usize = 10;

    /// The header as it stands on the wire.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let [a, b, c, d] = self.body_len.to_be_bytes();
        let [e, f] = self.frame_type.to_be_bytes();
        let [g, h, i, j] = self.correlation.to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j]
    }

    /// Reads a header and refuses a body that is longer than any of its direction.
    ///
    /// # Errors
    /// `TooLong`; the stream cannot be read on after it.
    pub fn from_bytes(direction: Direction, bytes: [u8; Self::LEN]) -> Result<Self, Malformed> {
        let [a, b, c, d, e, f, g, h, i, j] = bytes;
        let header = Self {
            body_len: u32::from_be_bytes([a, b, c, d]),
            frame_type: u16::from_be_bytes([e, f]),
            correlation: u32::from_be_bytes([g, h, i, j]),
        };
        // wire.frame.1: the length is checked before the body is read.
        let max = direction.body_bytes_max();
        match usize::try_from(header.body_len) {
            Ok(len) if len <= max => Ok(header),
            _ => Err(Malformed::TooLong {
                what: "a frame",
                len: usize::try_from(header.body_len).unwrap_or(usize::MAX),
                max,
            }),
        }
    }
}

/// A row of the table: what a reviewer wants to know of a frame type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSpec {
    /// Number on the wire.
    pub frame_type: u16,
    /// Name in the specification.
    pub name: &'static str,
    /// Who sends it.
    pub direction: Direction,
    /// Where it is specified.
    pub section: &'static str,
}

macro_rules! frames {
    ($($number:literal $direction:ident $name:ident($body:ty) $section:literal;)*) => {
        /// A frame with its body.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs, clippy::large_enum_variant, reason = "each name is that of its body type")]
        pub enum Frame {
            $($name($body),)*
        }

        /// Every frame type.
        pub const FRAMES: &[FrameSpec] = &[
            $(FrameSpec {
                frame_type: $number,
                name: stringify!($name),
                direction: Direction::$direction,
                section: $section,
            },)*
        ];

        impl Frame {
            /// Number on the wire.
            #[must_use]
            pub fn frame_type(&self) -> u16 {
                match self {
                    $(Self::$name(_) => $number,)*
                }
            }

            fn encode_body(&self) -> Vec<u8> {
                match self {
                    $(Self::$name(body) => crate::wire::encode(body),)*
                }
            }

            /// Decodes a body whose header was read from a stream of this direction.
            ///
            /// # Errors
            /// `UnknownFrame`, or `Undecodable` if the body is not exactly one value of its type.
            pub fn decode(direction: Direction, frame_type: u16, body: &[u8]) -> Result<Self, Malformed> {
                // wire.frame.4
                match (frame_type, direction) {
                    $(($number, Direction::$direction) => Ok(Self::$name(decode_exact(stringify!($name), body)?)),)*
                    _ => Err(Malformed::UnknownFrame(frame_type)),
                }
            }
        }
    };
}

frames! {
    0x0001 ToRelay Open(relay::Open) "wire.md#open";
    0x0002 ToRelay Close(relay::Close) "wire.md#close";
    0x0003 ToRelay Append(relay::Append) "wire.md#append";
    0x0004 ToRelay PublishKeyPackages(relay::PublishKeyPackages) "wire.md#publishkeypackages";
    0x0005 ToRelay TakeKeyPackages(relay::TakeKeyPackages) "wire.md#takekeypackages";
    0x0006 ToRelay AckMail(relay::AckMail) "wire.md#ackmail";
    0x0007 ToRelay Ping(relay::Ping) "wire.md#ping";
    0x0008 ToRelay ReadDirectory(directory::ReadDirectory) "wire.md#readdirectory";

    0x0101 ToClient Ready(relay::Ready) "wire.md#ready";
    0x0102 ToClient Refused(Refusal) "wire.md#refusals";
    0x0103 ToClient Opened(relay::Opened) "wire.md#open";
    0x0104 ToClient Closed(relay::Closed) "wire.md#close";
    0x0105 ToClient Appended(relay::Appended) "wire.md#append";
    0x0106 ToClient Published(relay::Published) "wire.md#publishkeypackages";
    0x0107 ToClient KeyPackages(relay::KeyPackages) "wire.md#takekeypackages";
    0x0108 ToClient MailAcked(relay::MailAcked) "wire.md#ackmail";
    0x0109 ToClient Pong(relay::Pong) "wire.md#ping";
    0x010a ToClient DirectoryRead(directory::DirectoryRead) "wire.md#readdirectory";
    0x010b ToClient DirectoryGrew(directory::DirectoryGrew) "wire.md#readdirectory";

    0x0201 Delivery Entries(relay::Entries) "wire.md#entries";
    0x0202 Delivery Mail(relay::Mail) "wire.md#mail";

    0x0301 ToRegistrar Enrol(registrar::Enrol) "wire.md#enrol";
    0x0302 ToRegistrar Admit(registrar::Admit) "wire.md#admit";
    0x0303 ToRegistrar Renew(registrar::Renew) "wire.md#renew";
    0x0304 ToRegistrar AskDirectory(directory::ReadDirectory) "wire.md#readdirectory";
    0x0305 ToRegistrar Link(registrar::Link) "wire.md#link";
    0x0306 ToRegistrar ListDevices(registrar::ListDevices) "wire.md#devices";
    0x0307 ToRegistrar RevokeDevice(registrar::RevokeDevice) "wire.md#devices";
    0x0308 ToRegistrar RenameDevice(registrar::RenameDevice) "wire.md#devices";
    0x0309 ToRegistrar Deposit(registrar::Deposit) "wire.md#deposit";
    0x030a ToRegistrar Collect(registrar::Collect) "wire.md#deposit";
    0x0401 FromRegistrar Enrolled(registrar::Enrolled) "wire.md#enrol";
    0x0402 FromRegistrar Admitted(registrar::Admitted) "wire.md#admit";
    0x0403 FromRegistrar NotEnrolled(Refusal) "wire.md#refusals";
    0x0404 FromRegistrar DirectoryTold(directory::DirectoryRead) "wire.md#readdirectory";
    0x0405 FromRegistrar Linkable(registrar::Linkable) "wire.md#link";
    0x0406 FromRegistrar Devices(registrar::Devices) "wire.md#devices";
    0x0407 FromRegistrar Collected(registrar::Collected) "wire.md#deposit";

    0x0501 Orders Orders(registrar::Orders) "wire.md#orders";
    0x0502 Orders TellDirectory(directory::TellDirectory) "wire.md#telldirectory";
    0x0601 OrdersAnswer OrdersTaken(registrar::OrdersTaken) "wire.md#orders";
    0x0602 OrdersAnswer DirectoryKept(directory::DirectoryKept) "wire.md#telldirectory";

    0x0701 ToEscrow AskStatement(capture::AskStatement) "wire.md#asking-an-escrow-node";
    0x0702 ToEscrow AskReceipt(capture::AskReceipt) "wire.md#asking-an-escrow-node";
    0x0703 ToEscrow AskLog(capture::AskLog) "wire.md#asking-an-escrow-node";
    0x0801 FromEscrow StatementTold(capture::StatementTold) "wire.md#asking-an-escrow-node";
    0x0802 FromEscrow ReceiptTold(capture::ReceiptTold) "wire.md#asking-an-escrow-node";
    0x0803 FromEscrow LogTold(capture::LogTold) "wire.md#asking-an-escrow-node";

    0x0901 ToBlobs PutBlob(blobs::PutBlob) "blobs.md#storing";
    0x0902 ToBlobs GetBlob(blobs::GetBlob) "blobs.md#reading";
    0x0a01 FromBlobs BlobStands(blobs::BlobStands) "blobs.md#storing";
    0x0a02 FromBlobs BlobPart(blobs::BlobPart) "blobs.md#reading";
    0x0a03 FromBlobs BlobRefused(Refusal) "wire.md#refusals";
}

impl Frame {
    /// The frame with its header, ready for a stream.
    #[must_use]
    pub fn to_bytes(&self, correlation: u32) -> Vec<u8> {
        let body = self.encode_body();
        let header = FrameHeader {
            body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
            frame_type: self.frame_type(),
            correlation,
        };
        let mut bytes = Vec::with_capacity(FrameHeader::LEN + body.len());
        bytes.extend_from_slice(&header.to_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }
}

/// Takes the first whole frame from `bytes` and says how many bytes it was; `None` if it is not whole yet.
///
/// # Errors
/// As [`FrameHeader::from_bytes`] and [`Frame::decode`]. An unknown or undecodable frame is consumed by its length:
/// the caller may answer `Refused(Malformed)` and read on. A header that is refused ends the stream.
pub fn take_frame(direction: Direction, bytes: &[u8]) -> Result<Option<(TakenFrame, usize)>, Malformed> {
    let Some((header, rest)) = bytes.split_first_chunk::<{ FrameHeader::LEN }>() else {
        return Ok(None);
    };
    let header = FrameHeader::from_bytes(direction, *header)?;
    let body_len = usize::try_from(header.body_len).unwrap_or(usize::MAX);
    let Some(body) = rest.get(..body_len) else {
        return Ok(None);
    };
    let frame = Frame::decode(direction, header.frame_type, body);
    Ok(Some((TakenFrame { correlation: header.correlation, frame }, FrameHeader::LEN + body_len)))
}

/// What stood between two frame borders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenFrame {
    /// From the header.
    pub correlation: u32,
    /// The frame, or why it is none.
    pub frame: Result<Frame, Malformed>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::{limits::LOG_ENTRY_BYTES_MAX, merkle::tile, wire::Blob};

    // proves wire.frame.1
    #[test]
    fn what_is_read_of_an_escrow_node_and_of_who_asks_it_is_short_and_long_enough() {
        let header = |body_len: usize| {
            FrameHeader { body_len: u32::try_from(body_len).unwrap(), frame_type: 3, correlation: 1 }.to_bytes()
        };
        for (direction, max) in [
            (Direction::ToClient, FRAME_BYTES_MAX),
            (Direction::FromEscrow, CAPTURE_ANSWER_BYTES_MAX),
            (Direction::ToEscrow, CAPTURE_QUESTION_BYTES_MAX),
        ] {
            assert!(FrameHeader::from_bytes(direction, header(max)).is_ok());
            let refused = FrameHeader::from_bytes(direction, header(max + 1)).unwrap_err();
            assert_eq!(refused, Malformed::TooLong { what: "a frame", len: max + 1, max });
        }
        let entry = vec![7; LOG_ENTRY_BYTES_MAX];
        let bundle = tile::encode_bundle(core::iter::repeat_n(entry.as_slice(), usize::from(tile::FULL))).unwrap();
        let told = Frame::LogTold(capture::LogTold { bytes: Some(Blob(bundle)) });
        assert!(told.to_bytes(1).len() < CAPTURE_ANSWER_BYTES_MAX);
    }
}
