//! The bridge: a selective forwarding unit, one process a host.
//!
//! The path of a media packet, file by file:
//!
//! `io/udp > io/worker > shard > transport/demux > transport/srtp (open in
//! place) > receive (statistics, RTX, NACK) > conference/forward >
//! projection > send (rewrite into the send slot) > transport/srtp (seal) >
//! outbox > io/udp`
//!
//! The path of a control request:
//!
//! `io/xmpp or io/http > colibri (answers at once, from its own registry) >
//! placement (which shards) > command > shard`
//!
//! Only [`io`] names a socket, a clock, a task or a random source. Everything
//! else takes bytes and `now` and hands out what to do.

pub mod allocation;
pub mod brewery;
pub mod candidates;
pub mod channel;
pub mod colibri;
pub mod command;
pub mod conference;
pub mod config;
pub mod directory;
pub mod formats;
pub mod forward_delay;
pub mod id;
pub mod io;
pub mod lifecycle;
pub mod outbox;
pub mod peers;
pub mod placement;
pub mod projection;
pub mod receive;
pub mod rtcp;
pub mod rtp;
pub mod send;
pub mod settings;
pub mod shard;
pub mod stats;
pub mod steering;
pub mod transport;
pub mod view;
