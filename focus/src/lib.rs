//! The focus: places conferences on bridges and speaks Jingle with clients.
//!
//! A request's way: `io` > [`focus`] (which conference) > [`conference`] (who is
//! in it, what they send) > [`bridges`] (where) and [`jingle`] (what is offered)
//! > [`outbox`] > `io`. Only `io` names a socket, a clock or a random source.

pub mod bridges;
pub mod conference;
pub mod config;
pub mod context;
pub mod disco;
pub mod focus;
pub mod io;
pub mod jingle;
pub mod outbox;
pub mod random;
pub mod stats;

/// The nickname in every room. Clients take whoever has it for the focus
/// (client-focus §3.1).
pub const FOCUS_NICK: &str = "focus";

pub const VERSION: &str = env!("CARGO_PKG_VERSION");
