//! Every stanza, message and address of Jitsi's signalling, once, for the
//! bridge, the focus and the load generator, and the XMPP session that carries
//! them.
//!
//! Payloads are structs that derive their XML form. They read leniently:
//! children, attributes and words nobody here knows are passed over. They write
//! exactly: no prefixes, and an `xmlns` wherever an element's namespace differs
//! from its parent's, since the client library finds elements by that attribute
//! (`client-focus` §0.1).
//!
//! - [`xml`]: elements, the two conversions, namespaces; [`jid`]: addresses
//! - [`iq`], [`presence`], [`message`]: the three stanzas, errors, pending requests
//! - [`muc`], [`disco`], [`roster`]: XEP-0045, XEP-0030 and 0115, RFC 6121
//! - [`jingle`], [`colibri2`], [`jitsi`]: calls, bridges, Jitsi's own elements
//! - [`sources`]: who sends which SSRC, in each of the forms it travels in
//! - [`brewery`]: the statistics a bridge publishes
//! - [`session`], [`io`]: the connection, its rules and its sockets
//! - [`config`], [`program`]: how the two servers read their configuration, start
//!   and end

pub mod brewery;
pub mod colibri2;
pub mod config;
pub mod disco;
pub mod io;
pub mod iq;
pub mod jid;
pub mod jingle;
pub mod jitsi;
pub mod message;
pub mod muc;
pub mod presence;
pub mod program;
pub mod roster;
pub mod session;
pub mod sources;
pub mod xml;
