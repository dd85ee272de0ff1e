//! Sockets, tasks and clocks: the drivers around [`crate::client`].

pub mod channel;
pub mod dial;
pub mod participant;
pub mod process;
pub mod run;
pub mod xmpp;
