//! Synthetic Jitsi participants that drive a deployment and verify what they
//! receive.
//!
//! A participant does the whole thing: login, conference request, room, Jingle,
//! ICE, DTLS, SRTP, bridge channel. Every media payload carries a tag
//! ([`source::tag`]) from which its receivers tell loss, order, owner, delay,
//! and whether the pictures could have been decoded.
//!
//! `main > io/run > io/participant > client (signalling, transport, media) >
//! source, measure`, and at the end `report`.
//!
//! Only [`io`] names a socket, a task, a clock or a random source.

pub mod client;
pub mod io;
pub mod measure;
pub mod report;
pub mod scenario;
pub mod source;
