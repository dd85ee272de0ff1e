//! Sockets, clocks, threads and random sources: all that touches the world.

pub mod addresses;
pub mod certificate;
pub mod clock;
pub mod identity;
pub mod rng;
pub mod udp;
