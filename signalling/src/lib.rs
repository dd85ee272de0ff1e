//! Every stanza, message and address of Jitsi's signalling.

pub mod config;
pub mod io;
pub mod session;
