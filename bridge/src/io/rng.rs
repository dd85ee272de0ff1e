//! Randomness: the only place that asks the operating system for it.
//!
//! State machines get a generator seeded from here, so that a test can give
//! them a seed of its own and see the same run again.

use rand::{SeedableRng, rngs::StdRng};

/// A cryptographic generator with a seed of the operating system.
pub fn generator() -> StdRng {
    StdRng::from_os_rng()
}

/// A seed for a shard.
pub fn seed() -> u64 {
    rand::Rng::random(&mut generator())
}
