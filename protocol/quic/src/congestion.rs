//! Congestion control: quinn's CUBIC, with room for a packet after each silence.
//!
//! This module does not decide how fast is sent; CUBIC does. It mends one thing. Acknowledgements are not subject to
//! congestion control (RFC 9002, section 7), but quinn-proto sends none while data waits for room in the window. When
//! much was lost in both directions, both sides wait for room; then neither acknowledges what it hears from the other,
//! each waits for a probe timeout that doubles, and the acknowledgement that comes at last, seconds late, is taken for a
//! round trip of seconds. So a sender that would be silent for longer than an acknowledgement takes may send one packet,
//! which carries its acknowledgements.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

use crate::transport::INITIAL_RTT;

/// How long a peer may wait before it acknowledges: the default of `max_ack_delay` (RFC 9000, section 18.2).
const ACK_DELAY: Duration = Duration::from_millis(25);

/// Makes the controller of each path.
#[derive(Debug, Default)]
pub(crate) struct NeverSilent(Arc<CubicConfig>);

impl ControllerFactory for NeverSilent {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let cubic = Arc::clone(&self.0).build(now, current_mtu);
        Box::new(NeverSilentCubic { cubic, mtu: u64::from(current_mtu), in_flight: 0, sent_at: now, round_trip: None })
    }
}

struct NeverSilentCubic {
    cubic: Box<dyn Controller>,
    mtu: u64,
    /// Bytes under way, or somewhat more: packets that only acknowledge are counted until something is acknowledged.
    in_flight: u64,
    sent_at: Instant,
    /// The shortest that was measured: late acknowledgements spoil the smoothed one. quinn's own shortest is never longer than
    /// what it was first taken for.
    round_trip: Option<Duration>,
}

impl Controller for NeverSilentCubic {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.sent_at = now;
        self.in_flight = self.in_flight.saturating_add(bytes);
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        let took = now.saturating_duration_since(sent);
        self.round_trip = Some(self.round_trip.map_or(took, |shortest| shortest.min(took)));
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_acked: Option<u64>) {
        self.in_flight = in_flight;
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(lost_bytes);
        self.cubic.on_congestion_event(now, sent, persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        let window = self.cubic.window();
        // quinn sends if what is under way and the next packet together are less than the window.
        let one_more = self.in_flight + 2 * self.mtu;
        let patience = self.round_trip.unwrap_or(INITIAL_RTT) + ACK_DELAY;
        if one_more > window && self.sent_at.elapsed() > patience { one_more } else { window }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { cubic: self.cubic.clone_box(), ..*self })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const MTU: u16 = 1200;
    const LONG: Duration = Duration::from_secs(3600);

    /// A controller that has sent as much as it may, at this moment.
    fn full(sent_at: Instant) -> Box<dyn Controller> {
        let mut controller = Arc::new(NeverSilent::default()).build(Instant::now(), MTU);
        let window = controller.window();
        controller.on_sent(sent_at, window, 0);
        controller
    }

    #[test]
    fn a_full_window_stays_shut_while_an_acknowledgement_may_still_come() {
        // From the future, so that no pause of the machine is taken for silence.
        let controller = full(Instant::now() + LONG);
        assert_eq!(controller.window(), controller.initial_window());
    }

    #[test]
    fn after_a_silence_there_is_room_for_one_packet_and_no_more() {
        let mut controller = full(Instant::now().checked_sub(LONG).unwrap());
        let in_flight = controller.initial_window();
        assert_eq!(controller.window(), in_flight + 2 * u64::from(MTU));
        assert!(in_flight + u64::from(MTU) < controller.window());
        assert!(in_flight + 2 * u64::from(MTU) >= controller.window());
        // What was sent into the silence ends it.
        controller.on_sent(Instant::now() + LONG, u64::from(MTU), 1);
        assert_eq!(controller.window(), controller.initial_window());
    }

    #[test]
    fn silence_opens_nothing_while_there_is_room() {
        let mut controller = full(Instant::now().checked_sub(LONG).unwrap());
        controller.on_end_acks(Instant::now(), 0, false, Some(0));
        assert_eq!(controller.window(), controller.initial_window());
    }

    #[test]
    fn losses_shrink_the_window_as_cubic_says() {
        let mut controller = full(Instant::now());
        let now = Instant::now() + LONG;
        controller.on_congestion_event(now, now, false, u64::from(MTU));
        assert!(controller.metrics().congestion_window < controller.initial_window());
        controller.on_congestion_event(now + LONG, now + LONG, true, u64::from(MTU));
        assert_eq!(controller.metrics().congestion_window, 2 * u64::from(MTU));
        let copy = controller.clone_box();
        assert_eq!(copy.metrics().congestion_window, controller.metrics().congestion_window);
    }
}
