//! Synthetic Jitsi participants that drive a deployment and verify what they
//! receive.
//!
//! A participant does the whole thing: login, conference request, room, Jingle,
//! ICE, DTLS, SRTP, bridge channel. Every media payload carries a tag
//! ([`source::tag`]) from which its receivers tell loss, order, owner, delay,
//! and whether the pictures could have been decoded.
//!
//! `join` verifies all of what one room's participants receive, `run` measures
//! what thousands of them do to a server.
//!
//! `main > io/run > io/participant > client (signalling, transport, media) >
//! source, measure`, and at the end `report`; and
//! `main > io/load > load (member, stream) > client (transport, send) > source`,
//! at the end `load/report`.
//!
//! Only [`io`] names a socket, a task, a clock or a random source.

pub mod client;
pub mod io;
pub mod load;
pub mod measure;
pub mod report;
pub mod scenario;
pub mod source;
