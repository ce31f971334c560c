//! Transport limits of both sides (RFC 9000): few streams, no datagrams, bounded windows.
//!
//! This module does not open anything. `spec/wire.md#transport` lists the numbers.

use std::{sync::Arc, time::Duration};

use quinn::{IdleTimeout, TransportConfig, VarInt};

use crate::congestion::NeverSilent;

/// A connection that is silent for so long is gone, in milliseconds.
const IDLE_TIMEOUT_MS: u32 = 45_000;
/// The client speaks at least so often; most NATs forget a UDP binding after 30 s.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Bytes that a sender may have under way to a server before the server has read them.
const SERVER_RECEIVE_WINDOW: u32 = 1024 * 1024;
/// Bytes that a server may have under way to a client. Larger, so that a catch-up fills a long path.
const CLIENT_RECEIVE_WINDOW: u32 = 4 * 1024 * 1024;
/// Bytes that are sent and not acknowledged yet; each connection may hold so much memory.
const SEND_WINDOW: u64 = 1024 * 1024;
/// What a round trip is taken for until one is measured. RFC 9002 (section 6.2.2) recommends 333 ms; with less, a handshake
/// of which much is lost is repeated three times as often, and on a very long path a few packets are sent twice.
pub(crate) const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Control streams of a connection: the one in use, and the one that replaces it when it broke.
const CONTROL_STREAMS_MAX: u32 = 2;

fn common() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .send_window(SEND_WINDOW)
        .initial_rtt(INITIAL_RTT)
        .congestion_controller_factory(Arc::new(NeverSilent::default()))
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0);
    transport
}

pub(crate) fn server() -> Arc<TransportConfig> {
    let mut transport = common();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(CONTROL_STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(SERVER_RECEIVE_WINDOW))
        .receive_window(VarInt::from_u32(SERVER_RECEIVE_WINDOW));
    Arc::new(transport)
}

pub(crate) fn client() -> Arc<TransportConfig> {
    let mut transport = common();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .stream_receive_window(VarInt::from_u32(CLIENT_RECEIVE_WINDOW))
        .receive_window(VarInt::from_u32(2 * CLIENT_RECEIVE_WINDOW))
        .keep_alive_interval(Some(KEEP_ALIVE));
    Arc::new(transport)
}
