//! What an XMPP session decides, without its socket: RFC 6120 streams, the
//! choice of a SASL mechanism, stream management (XEP-0198), the ping
//! watchdog and the back-off between attempts.
//!
//! Everything here takes bytes, elements and `now`, and returns what to do;
//! `io` drives it over a TCP connection.
//!
//! The stream is ours, on `rxml`, and not the one of `tokio-xmpp`: that one
//! fails for good on an attribute longer than 8 KiB and recurses once per
//! nesting level, and both can be sent to us by any guest of a room.

mod backoff;
mod management;
pub mod sasl;
pub mod stream;
mod trouble;
mod watchdog;

pub use backoff::Backoff;
pub use management::{Management, Receipt, StreamState};
pub use trouble::Trouble;
pub use watchdog::{Verdict, Watchdog};

/// Whether a client's stream is encrypted by STARTTLS (RFC 6120 §5); the
/// `SECURITY_MODE` of Jitsi's connection blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Without TLS there is no login.
    Required,
    /// TLS if the server offers it.
    IfPossible,
    /// Never TLS.
    Disabled,
}

impl Security {
    /// The mode of a connection whose configuration names none: a server on
    /// this very host may go without TLS, any other must have it.
    pub fn default_for(host: &str) -> Self {
        match host {
            "localhost" | "127.0.0.1" | "::1" | "[::1]" => Self::IfPossible,
            _ => Self::Required,
        }
    }
}
