//! The datagrams of one turn: written once, sealed in place, sent as they lie.
//!
//! A shard writes, `io/udp` sends and clears. Room is reused from turn to turn,
//! so a forwarded packet costs no allocation.

use std::net::SocketAddr;

/// One datagram in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it goes.
    pub to: SocketAddr,
    /// The local address it has to leave from: the one its peer talks to.
    pub from: SocketAddr,
    start: u32,
    len: u32,
}

/// Datagrams waiting to be sent, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    arena: Vec<u8>,
    entries: Vec<Entry>,
}

impl Outbox {
    /// Appends a datagram that already exists.
    pub fn push(&mut self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let start = self.arena.len();
        self.arena.extend_from_slice(datagram);
        self.record(from, to, start);
    }

    /// Lets `write` append a datagram to the arena in place. What it appended
    /// is sent if it answers `true` and forgotten otherwise.
    ///
    /// `write` gets the arena and the offset at which its datagram begins; it
    /// must leave all before that offset alone.
    pub fn write(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        write: impl FnOnce(&mut Vec<u8>, usize) -> bool,
    ) -> bool {
        let start = self.arena.len();
        let keep = write(&mut self.arena, start);
        if keep {
            self.record(from, to, start);
        } else {
            self.arena.truncate(start);
        }
        keep
    }

    /// The datagrams in the order in which they were written.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The octets of one of [`Self::entries`].
    pub fn datagram(&self, entry: &Entry) -> &[u8] {
        &self.arena[entry.start as usize..][..entry.len as usize]
    }

    /// How much waits.
    pub fn octets(&self) -> usize {
        self.arena.len()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets all datagrams and keeps the room.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
    }

    fn record(&mut self, from: SocketAddr, to: SocketAddr, start: usize) {
        let len = self.arena.len() - start;
        self.entries.push(Entry {
            to,
            from,
            start: u32::try_from(start).expect("a turn writes less than 4 GiB"),
            len: u32::try_from(len).expect("a datagram is at most 64 KiB"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_writer_refuses_leaves_no_trace() {
        let from = SocketAddr::from(([127, 0, 0, 1], 10_000));
        let to = SocketAddr::from(([192, 0, 2, 1], 4000));
        let mut outbox = Outbox::default();
        outbox.push(from, to, b"one");
        assert!(!outbox.write(from, to, |arena, start| {
            assert_eq!(start, 3);
            arena.extend_from_slice(b"refused");
            false
        }));
        assert!(outbox.write(from, to, |arena, _| {
            arena.extend_from_slice(b"two");
            true
        }));
        let sent: Vec<_> = outbox
            .entries()
            .iter()
            .map(|e| outbox.datagram(e))
            .collect();
        assert_eq!(sent, [b"one", b"two"]);
    }
}
