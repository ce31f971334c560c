//! Connections: how they begin and end, and what becomes of the packets on their way.
//!
//! This module does not cut streams into packets; `network` does.

use chancery_protocol::{
    client::Input,
    relay::{ConnId, Input as RelayInput},
    time::Timestamp,
    wire::Frame,
};

use super::{
    super::{
        Bug,
        network::{Conn, Packet, RETRY_MS, Stream, TRIES_MAX, ends_with_commit},
    },
    Ending, Side, World,
};

impl World {
    /// A client connects.
    pub(super) fn connect(&mut self, who: usize) {
        self.last_conn += 1;
        let id = ConnId(self.last_conn);
        let chain = Some(self.nodes[who].chain.clone());
        self.nodes[who].trouble_at = self.now;
        self.conns.insert(id, Conn::new(id, who));
        self.nodes[who].conn = Some(id);
        self.feed(who, Input::Connected, None, Some(id));
        self.relay_input(RelayInput::Connected { conn: id, chain });
    }

    /// The client ends its connection. The relay notices later, and some of what is on its way still reaches it.
    pub(super) fn cut(&mut self, who: usize) {
        self.hang_up(who);
        self.input(who, Input::Disconnected, None);
        if self.nodes[who].machine.is_some() {
            self.nodes[who].wake = Some(self.soon(2_000));
        }
    }

    pub(super) fn hang_up(&mut self, who: usize) {
        let Some(id) = self.nodes[who].conn.take() else { return };
        self.nodes[who].trouble_at = self.now;
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.client_end = false;
        }
        let at = self.soon(5_000);
        self.ending(at, Side::Relay, id, false);
    }

    /// Nothing of a client's goes through any more. Each end notices by itself, if it lasts.
    pub(super) fn part(&mut self, who: usize) {
        self.nodes[who].parted = true;
        self.nodes[who].trouble_at = self.now;
        let Some(id) = self.nodes[who].conn else { return };
        for side in [Side::Client, Side::Relay] {
            let at = Timestamp(self.soon(9_000).0 + 1_000);
            self.ending(at, side, id, true);
        }
    }

    /// It goes through again; if no end has noticed, nothing has happened.
    pub(super) fn rejoin(&mut self, who: usize) {
        if std::mem::take(&mut self.nodes[who].parted) {
            self.nodes[who].trouble_at = self.now;
        }
        let Some(id) = self.nodes[who].conn else { return };
        if self.conns.get(&id).is_some_and(|conn| conn.client_end && conn.relay_end && !conn.dying) {
            self.endings.retain(|ending| ending.conn != id || !ending.by_silence);
        }
    }

    pub(super) fn ending(&mut self, at: Timestamp, side: Side, conn: ConnId, by_silence: bool) {
        self.endings.push(Ending { at, side, conn, by_silence });
    }

    /// One end notices.
    pub(super) fn end(&mut self, number: usize) {
        let Ending { side, conn: id, .. } = self.endings.remove(number);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let who = conn.who;
        match side {
            Side::Relay if conn.relay_end => {
                conn.relay_end = false;
                // A peer that is still there is told, or finds out by what is not answered.
                let told = conn.client_end;
                self.relay_input(RelayInput::Disconnected { conn: id });
                if told {
                    let at = Timestamp(self.soon(3_000).0 + 50);
                    self.ending(at, Side::Client, id, false);
                }
            }
            Side::Client if self.nodes[who].conn == Some(id) => self.cut(who),
            _ => {}
        }
        self.conns.retain(|_, conn| conn.client_end || conn.relay_end);
    }

    /// Writes a frame to a stream.
    pub(super) fn write(&mut self, id: ConnId, stream: Stream, frame: Vec<u8>) {
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.ends(stream).0) else { return };
        for packet in conn.write(stream, frame) {
            let at = self.soon(self.weather.delay_ms());
            self.launch(at, packet);
        }
    }

    fn launch(&mut self, at: Timestamp, packet: Packet) {
        self.last_packet += 1;
        self.air.insert((at, self.last_packet), packet);
    }

    fn percent(&mut self, of: u64) -> bool {
        self.random.number() % 100 < of
    }

    /// The next packet arrives, or does not, and with it those of its stream that come at the same moment.
    pub(super) fn packet(&mut self) {
        let mut frames = Vec::new();
        let Some(((at, _), first)) = self.air.pop_first() else { return };
        let (id, stream, who) = (first.conn, first.stream, first.who);
        self.arrive(first, &mut frames);
        while let Some(next) = self.air.first_entry()
            && next.key().0 == at
            && (next.get().conn, next.get().stream) == (id, stream)
        {
            let next = next.remove();
            self.arrive(next, &mut frames);
        }
        if stream == Stream::Up {
            for (correlation, frame) in frames {
                self.reach_relay(id, correlation, frame);
            }
        } else {
            self.reach_client(who, id, frames);
        }
    }

    fn arrive(&mut self, mut packet: Packet, frames: &mut Vec<(u32, Frame)>) {
        let fate = (self.percent(self.weather.lost()), self.percent(self.weather.doubled()));
        let parted = self.nodes[packet.who].parted;
        let Some(conn) = self.conns.get_mut(&packet.conn) else {
            // It is late: its connection is gone.
            let successor = self.nodes[packet.who].conn.filter(|_| self.bug == Some(Bug::LatePackets));
            if let Some(conn) = successor.and_then(|id| self.conns.get_mut(&id))
                && let Err(what) = conn.read(&packet, self.bug)
            {
                self.evidence.violate("streams_are_whole", what);
            }
            return;
        };
        if conn.dying {
            return;
        }
        let (sends, receives) = conn.ends(packet.stream);
        if !receives || parted || fate.0 {
            if packet.copy || !sends {
                return;
            }
            packet.tries += 1;
            if packet.tries >= TRIES_MAX {
                return self.give_up(packet.conn);
            }
            let wait = RETRY_MS << packet.tries;
            let at = Timestamp(self.soon(wait).0 + wait);
            return self.launch(at, packet);
        }
        match conn.read(&packet, self.bug) {
            Ok(whole) => frames.extend(whole),
            Err(what) => self.evidence.violate("streams_are_whole", what),
        }
        if fate.1 {
            let at = Timestamp(self.soon(400).0 + 1);
            packet.copy = true;
            self.launch(at, packet);
        }
    }

    /// Too much is lost: each end finds out, in its own time.
    fn give_up(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.dying = true;
        }
        for (side, within) in [(Side::Client, 4_000), (Side::Relay, 8_000)] {
            let at = self.soon(within);
            self.ending(at, side, id, false);
        }
    }

    /// Frames that end with a commit go in together; the rest follows, if the client is still there.
    fn reach_client(&mut self, who: usize, id: ConnId, frames: Vec<(u32, Frame)>) {
        for batch in frames.chunk_by(|(_, before), _| !ends_with_commit(before)) {
            if self.nodes[who].conn != Some(id) {
                return;
            }
            let commit = batch.last().filter(|(_, last)| ends_with_commit(last)).and_then(|(_, last)| match last {
                Frame::Entries(entries) => entries.entries.last().map(|entry| (entries.group, entry.seq)),
                _ => None,
            });
            self.input(who, Input::Frames(batch.to_vec()), commit);
        }
    }
}
