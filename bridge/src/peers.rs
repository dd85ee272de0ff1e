//! What the shards of a bridge tell each other: plain data, which whoever runs
//! them carries. Between any two shards it arrives in the order in which it was
//! sent, and after all commands that the registry gave out before.

use std::net::SocketAddr;
use std::time::Instant;

/// The most shards, and workers, of a bridge: a user name fragment has an octet
/// for their numbers.
pub const MAX_WORKERS: usize = 256;

/// Word of one shard for another.
#[derive(Clone, Debug)]
pub enum PeerMessage {
    /// The address is that of one of the sender's endpoints, since then.
    AddressBound { address: SocketAddr, since: Instant },
    /// The address is not of the sender's endpoints any more.
    AddressForgotten { address: SocketAddr },
}

/// Which of a bridge's shards one is.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// Its number, and that of the worker that runs it.
    pub number: usize,
    /// How many there are.
    pub count: usize,
    /// Length of `ice.ufrag-prefix`, behind which a user name fragment names
    /// the worker.
    pub ufrag_prefix: usize,
}

impl Site {
    /// The only shard of a bridge.
    pub const ALONE: Self = Self {
        number: 0,
        count: 1,
        ufrag_prefix: 0,
    };

    /// All shards but this one.
    pub fn others(self) -> impl Iterator<Item = usize> {
        (0..self.count).filter(move |number| *number != self.number)
    }
}
