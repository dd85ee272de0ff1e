//! Sockets, threads, tasks and clocks: the drivers around [`crate::client`].
//!
//! Media is driven by one thread a core ([`media`]): an epoll set of the sockets
//! of its participants, their timers, batches of datagrams ([`udp`]). What is
//! rare, XMPP and WebSockets, are tasks ([`signalling`], [`channel`]). What the
//! machine itself allows is measured by [`roofline`]. Loads have threads of their
//! own, which poll ([`load`]).

pub mod channel;
pub mod dial;
pub mod load;
pub mod media;
pub mod process;
pub mod roofline;
pub mod run;
pub mod signalling;
pub mod udp;
pub mod xmpp;
