//! Synthetic Jitsi participants that drive a deployment and verify what they
//! receive.
//!
//! A participant does the whole thing: login, conference request, room, Jingle,
//! ICE, DTLS, SRTP, bridge channel ([`client`]). Every media payload carries a
//! tag ([`source::tag`]) from which its receivers tell loss, order, owner,
//! delay, and whether the pictures could have been decoded ([`measure`]).

pub mod client;
pub mod measure;
pub mod source;
