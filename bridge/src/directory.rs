//! Whom a datagram is for, as one shard knows it.
//!
//! A STUN request names its endpoint by the user name fragment, which begins
//! with the number of the endpoint's shard. All else is known by the address it
//! comes from, once a check has proved that address.
//!
//! The kernel may give a datagram to any of a bridge's shards. Each therefore knows
//! whose every proved address is: of its own endpoints which one's, of all
//! others which shard's. Every shard tells the others when one of its addresses
//! is proved or forgotten, so each has a table of its own, which it alone reads
//! and writes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::time::Instant;

use rustc_hash::FxBuildHasher;

use crate::peers::Site;
use crate::stats::DropCause;
use crate::transport::{demux, worker_of};

/// An endpoint of this shard, by its places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    pub conference: usize,
    pub endpoint: usize,
}

/// Who a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    Here(Resident),
    Shard(usize),
}

impl Site {
    fn shard_of(self, home: Home) -> usize {
        match home {
            Home::Here(_) => self.number,
            Home::Shard(number) => number,
        }
    }
}

/// Why a shard did not take a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misdirected {
    /// It is for an endpoint of the shard with this number.
    Shard(usize),
    /// No shard is known to have an endpoint that it is for.
    Nobody(DropCause),
}

/// Whose an address is, and since when.
#[derive(Clone, Copy, Debug)]
struct Owned {
    home: Home,
    since: Instant,
}

/// A map whose order is of no consequence. Its hash is a quick one without a random
/// part, as only proved addresses, and names of our own, get in.
type Lookup<K, V> = HashMap<K, V, FxBuildHasher>;

/// All proved addresses, and the user name fragments of this shard's endpoints.
#[derive(Debug)]
pub struct Directory {
    site: Site,
    addresses: Lookup<SocketAddr, Owned>,
    ufrags: Lookup<String, Resident>,
}

impl Directory {
    /// That of a shard which knows nobody yet.
    pub fn new(site: Site) -> Self {
        Self {
            site,
            addresses: Lookup::default(),
            ufrags: Lookup::default(),
        }
    }

    /// How many addresses, and user name fragments, there are.
    pub fn sizes(&self) -> (usize, usize) {
        (self.addresses.len(), self.ufrags.len())
    }

    /// The endpoint that a datagram is for. A check goes to the one it names,
    /// whoever was at its address before: a translator may have given the port
    /// to another.
    pub fn find(&self, from: SocketAddr, datagram: &[u8]) -> Result<Resident, Misdirected> {
        let home = match demux::requested_ufrag(datagram) {
            Some(ufrag) => {
                let here = self.ufrags.get(ufrag).copied().map(Home::Here);
                here.or_else(|| self.named_shard(ufrag))
                    .ok_or(DropCause::UnknownUfrag)
            }
            None => {
                let owned = self.addresses.get(&from);
                owned
                    .map(|owned| owned.home)
                    .ok_or(DropCause::UnknownAddress)
            }
        };
        match home {
            Ok(Home::Here(resident)) => Ok(resident),
            Ok(Home::Shard(number)) => Err(Misdirected::Shard(number)),
            Err(cause) => Err(Misdirected::Nobody(cause)),
        }
    }

    /// The other shard that a user name fragment names.
    fn named_shard(&self, ufrag: &str) -> Option<Home> {
        let number = usize::from(worker_of(ufrag.get(self.site.ufrag_prefix..)?)?);
        let other = number != self.site.number && number < self.site.count;
        other.then_some(Home::Shard(number))
    }

    /// An endpoint is here.
    pub fn enter(&mut self, ufrag: String, resident: Resident) {
        self.ufrags.insert(ufrag, resident);
    }

    /// It is not any more.
    pub fn leave(&mut self, ufrag: &str) {
        self.ufrags.remove(ufrag);
    }

    /// An address was proved. If two shards claim one, because a translator gave
    /// it to another peer, the later claim holds. Whether it is of another shard now
    /// than it was.
    pub fn bind(&mut self, address: SocketAddr, home: Home, since: Instant) -> bool {
        let owned = Owned { home, since };
        match self.addresses.entry(address) {
            Entry::Vacant(vacant) => {
                vacant.insert(owned);
                true
            }
            Entry::Occupied(mut held) if held.get().since <= since => {
                let before = held.insert(owned).home;
                self.site.shard_of(before) != self.site.shard_of(home)
            }
            Entry::Occupied(_) => false,
        }
    }

    /// Every proved address with the number of the shard whose it is, in no order.
    pub fn homes(&self) -> impl Iterator<Item = (SocketAddr, usize)> + '_ {
        let owned = self.addresses.iter();
        owned.map(|(address, owned)| (*address, self.site.shard_of(owned.home)))
    }

    /// An address is not of `home` any more. Whether it was until now.
    pub fn forget(&mut self, address: SocketAddr, home: Home) -> bool {
        let held = self.addresses.get(&address);
        let forgotten = held.is_some_and(|owned| owned.home == home);
        if forgotten {
            self.addresses.remove(&address);
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HERE: Resident = Resident {
        conference: 3,
        endpoint: 4,
    };

    #[test]
    fn the_later_claim_holds_in_whatever_order_one_hears_of_it() {
        let address = SocketAddr::from(([192, 0, 2, 1], 4000));
        let start = Instant::now();
        let claims = [
            (Home::Here(HERE), start),
            (Home::Shard(2), start + Duration::from_millis(1)),
        ];
        for order in [[0, 1], [1, 0]] {
            let mut directory = Directory::new(Site {
                count: 3,
                ..Site::ALONE
            });
            assert_eq!(
                directory.find(address, &[]),
                Err(Misdirected::Nobody(DropCause::UnknownAddress))
            );
            for (home, since) in order.map(|at| claims[at]) {
                directory.bind(address, home, since);
            }
            assert_eq!(directory.find(address, &[]), Err(Misdirected::Shard(2)));
            // Whose it is not cannot take it away.
            assert!(!directory.forget(address, Home::Here(HERE)));
            assert!(!directory.forget(address, Home::Shard(1)));
            assert!(directory.forget(address, Home::Shard(2)));
            assert_eq!(directory.sizes(), (0, 0));
        }
    }
}
