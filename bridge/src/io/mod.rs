//! Sockets, clocks, threads and random sources: all that touches the world.

pub mod addresses;
pub mod certificate;
pub mod channels;
pub mod clock;
pub mod control;
mod host;
pub mod http;
pub mod identity;
mod lane;
pub mod mail;
pub mod metrics;
mod neighbours;
pub mod program;
pub mod queries;
pub mod rng;
pub mod udp;
pub mod websocket;
pub mod worker;
pub mod xmpp;
