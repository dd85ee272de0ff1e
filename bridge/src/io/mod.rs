//! Sockets, clocks, threads and random sources: all that touches the world.

pub mod certificate;
pub mod udp;
