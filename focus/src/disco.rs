//! What the focus says of itself: disco#info, capabilities, version.

use viaduct_signalling::disco::{Caps, DiscoInfo, Identity, Version};

/// Features of the focus. Clients look at none of them; servers and people do.
const FEATURES: [&str; 9] = [
    "http://jabber.org/protocol/caps",
    "http://jabber.org/protocol/disco#info",
    "jabber:iq:version",
    "urn:xmpp:jingle:1",
    "urn:xmpp:jingle:apps:dtls:0",
    "urn:xmpp:jingle:apps:rtp:audio",
    "urn:xmpp:jingle:apps:rtp:video",
    "urn:xmpp:jingle:transports:ice-udp:1",
    "urn:xmpp:ping",
];

/// The answer to disco#info.
pub fn info(node: Option<String>) -> DiscoInfo {
    DiscoInfo {
        node,
        identities: vec![Identity {
            category: "conference".to_owned(),
            kind: "focus".to_owned(),
            lang: None,
            name: Some("Viaduct".to_owned()),
        }],
        ..DiscoInfo::features(FEATURES)
    }
}

/// Capabilities, in every presence.
pub fn caps() -> Caps {
    Caps::new("https://github.com/viaduct/focus", &info(None))
}

/// The answer to jabber:iq:version.
pub fn version() -> Version {
    Version {
        name: Some("Viaduct focus".to_owned()),
        version: Some(crate::VERSION.to_owned()),
        os: Some(std::env::consts::OS.to_owned()),
    }
}
