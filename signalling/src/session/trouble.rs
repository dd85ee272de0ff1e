//! Why a session is not online, and what its operator can do about it.

/// Why an attempt failed or a stream was lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The host name has no address.
    #[error("the host name cannot be resolved: {0}")]
    Resolve(String),
    /// No address of the host accepts connections.
    #[error("no connection: {0}")]
    Connect(String),
    /// TLS is required and the server offers none.
    #[error("the server offers no TLS, and it is required")]
    NoTls,
    /// The TLS handshake failed for another reason than the certificate.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The server's certificate was not accepted.
    #[error("the server's certificate was refused: {0}")]
    Certificate(String),
    /// The server serves no such domain.
    #[error("the server does not serve this domain")]
    HostUnknown,
    /// Nothing the server offers for logging in can be used.
    #[error("the server offers no way to log in that can be used here: {0}")]
    NoMechanism(String),
    /// The account or its password was refused.
    #[error("the account or its password was refused: {0}")]
    Credentials(String),
    /// The server did not prove that it knows the password (RFC 5802 §3).
    #[error("the server did not prove that it knows the password: {0}")]
    ServerUnproved(String),
    /// The component secret was refused (XEP-0114 §3).
    #[error("the component's secret was refused: {0}")]
    Secret(String),
    /// The resource could not be bound.
    #[error("the resource was refused: {0}")]
    Bind(String),
    /// The server has stanzas on our stream that we never sent: another
    /// process resumed it and went on.
    #[error("another process has resumed the stream and gone on with it")]
    TakenOver,
    /// The server ended the stream with an error (RFC 6120 §4.9).
    #[error("stream error {condition}: {text}")]
    StreamError { condition: String, text: String },
    /// The server ended the stream.
    #[error("the server closed the stream")]
    Closed,
    /// Nothing came for too long.
    #[error("no answer within {0} s while {1}")]
    TimedOut(u64, &'static str),
    /// Two pings in a row went unanswered.
    #[error("the server answers no pings")]
    Unanswered,
    /// The server does not acknowledge what it is sent.
    #[error("the server left {0} stanzas unacknowledged")]
    Unacknowledged(usize),
    /// What the server sent is not XMPP.
    #[error("not XMPP: {0}")]
    Protocol(String),
    /// Reading or writing failed.
    #[error("connection lost: {0}")]
    Io(String),
}

impl Trouble {
    /// What its operator can do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Resolve(_) => "check the host name in the configuration, and DNS",
            Self::Connect(_) => {
                "check host and port, and that the XMPP server runs and listens there"
            }
            Self::NoTls => {
                "give the server a certificate for the domain, or allow the connection without \
                 TLS (SECURITY_MODE = ifpossible)"
            }
            Self::Tls(_) => "check the server's TLS settings",
            Self::Certificate(_) => {
                "add the server's certificate, made for the domain, to the system's store, or \
                 switch verification off (DISABLE_CERTIFICATE_VERIFICATION = true)"
            }
            Self::HostUnknown => {
                "check the domain, and that the server has a VirtualHost or Component of this name"
            }
            Self::NoMechanism(_) => {
                "let the server offer SCRAM-SHA-1 or SCRAM-SHA-256; PLAIN is used over TLS only"
            }
            Self::Credentials(_) => {
                "check user name and password, and register the account at the server"
            }
            Self::ServerUnproved(_) => {
                "check that this is the right server; the password may have been changed there"
            }
            Self::Secret(_) => {
                "make the secret here and the component_secret of the server the same"
            }
            Self::Bind(_) => {
                "check that no other program uses the same account with the same resource"
            }
            Self::TakenOver => "let only one process use a stream that was written down",
            Self::StreamError { .. } | Self::Closed => "see the server's log",
            Self::TimedOut(..) | Self::Unanswered | Self::Unacknowledged(_) | Self::Io(_) => {
                "check the network and the load of the server"
            }
            Self::Protocol(_) => {
                "check that the port is the server's XMPP port for this kind of connection"
            }
        }
    }
}
