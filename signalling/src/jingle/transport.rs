//! How packets travel: ICE (XEP-0176), DTLS (XEP-0320), data channels
//! (XEP-0343), and the address of the bridge channel.

use crate::xml::codec::{Lax, MaybeFlag, words};
use crate::xml::ns;

/// The ICE transport of a content; colibri2 carries the same element.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::ICE_UDP, name = "transport")]
pub struct Transport {
    #[xml(attribute(default))]
    pub ufrag: Option<String>,
    #[xml(attribute(default))]
    pub pwd: Option<String>,
    /// Counts restarts of ICE within a session, from 1.
    #[xml(attribute(name = "ice-generation", codec = Lax, default))]
    pub ice_generation: Option<u32>,
    #[xml(flag(name = "rtcp-mux"))]
    pub rtcp_mux: bool,
    #[xml(child(n = ..))]
    pub fingerprints: Vec<Fingerprint>,
    #[xml(child(n = ..))]
    pub sctp_maps: Vec<SctpMap>,
    #[xml(child(n = ..))]
    pub web_sockets: Vec<WebSocket>,
    #[xml(child(n = ..))]
    pub candidates: Vec<Candidate>,
}

/// A certificate's fingerprint.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::DTLS, name = "fingerprint")]
pub struct Fingerprint {
    /// `sha-256`.
    #[xml(attribute(default))]
    pub hash: String,
    #[xml(attribute(default))]
    pub setup: Option<Setup>,
    #[xml(attribute(codec = MaybeFlag, default))]
    pub required: Option<bool>,
    /// Whether headers may be encrypted (RFC 9335).
    #[xml(attribute(codec = MaybeFlag, default))]
    pub cryptex: Option<bool>,
    /// Hexadecimal octets between colons.
    #[xml(text)]
    pub value: String,
}

impl Fingerprint {
    /// The octets. `None` if the text is not hexadecimal octets between colons.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        self.value
            .trim()
            .split(':')
            .map(|octet| {
                let digits = octet.len() == 2 && octet.bytes().all(|b| b.is_ascii_hexdigit());
                digits.then(|| u8::from_str_radix(octet, 16).ok())?
            })
            .collect()
    }

    /// The text for these octets.
    pub fn text(bytes: &[u8]) -> String {
        let octets: Vec<_> = bytes.iter().map(|b| format!("{b:02X}")).collect();
        octets.join(":")
    }
}

words! {
    /// Who opens DTLS (RFC 4145 §4).
    Setup {
        Active = "active",
        Passive = "passive",
        ActPass = "actpass",
        HoldConn = "holdconn",
    }
}

/// An ICE candidate. What cannot be read of one is absent, so that a strange
/// candidate costs only itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::ICE_UDP, name = "candidate")]
pub struct Candidate {
    #[xml(attribute(codec = Lax, default))]
    pub component: Option<u8>,
    #[xml(attribute(default))]
    pub foundation: Option<String>,
    #[xml(attribute(codec = Lax, default))]
    pub generation: Option<u32>,
    #[xml(attribute(default))]
    pub id: Option<String>,
    /// An address, or a name ending in `.local` (mDNS).
    #[xml(attribute(default))]
    pub ip: Option<String>,
    #[xml(attribute(codec = Lax, default))]
    pub network: Option<u32>,
    #[xml(attribute(codec = Lax, default))]
    pub port: Option<u16>,
    #[xml(attribute(codec = Lax, default))]
    pub priority: Option<u32>,
    /// `udp`, `tcp` or `ssltcp`.
    #[xml(attribute(default))]
    pub protocol: Option<String>,
    #[xml(attribute(name = "rel-addr", default))]
    pub rel_addr: Option<String>,
    #[xml(attribute(name = "rel-port", codec = Lax, default))]
    pub rel_port: Option<u16>,
    #[xml(attribute(default))]
    pub tcptype: Option<String>,
    #[xml(attribute(name = "type", default))]
    pub kind: Option<CandidateType>,
}

words! {
    /// Where a candidate's address comes from (RFC 8445 §5.1.1).
    CandidateType {
        Host = "host",
        ServerReflexive = "srflx",
        PeerReflexive = "prflx",
        Relay = "relay",
    }
}

/// An SCTP association over DTLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::SCTP, name = "sctpmap")]
pub struct SctpMap {
    /// The port.
    #[xml(attribute(codec = Lax, default))]
    pub number: Option<u16>,
    /// `webrtc-datachannel`.
    #[xml(attribute(default))]
    pub protocol: Option<String>,
    #[xml(attribute(codec = Lax, default))]
    pub streams: Option<u32>,
}

/// The address of the bridge channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::COLIBRI, name = "web-socket")]
pub struct WebSocket {
    #[xml(attribute(default))]
    pub url: Option<String>,
    /// Whether the one who gets this is to open it (between bridges).
    #[xml(attribute(codec = MaybeFlag, default))]
    pub active: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml;

    #[test]
    fn a_fingerprint_is_octets() {
        let read = |value: &str| Fingerprint {
            value: value.to_owned(),
            ..Fingerprint::default()
        };
        assert_eq!(read(" 0A:ff:10\n").bytes(), Some(vec![10, 255, 16]));
        for bad in ["", "0", "0A:", "0A:F", "0A:+1", "0A:é", "zz", "0A0B"] {
            assert_eq!(read(bad).bytes(), None, "{bad:?}");
        }
        assert_eq!(Fingerprint::text(&[10, 255, 16]), "0A:FF:10");
    }

    #[test]
    fn a_strange_candidate_costs_only_itself() {
        let text = "<transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' ufrag='u'>\
            <candidate port='99999' component='x' type='odd' ip='name.local' generation=''/>\
            <candidate port='10000' ip='::1' type='host'/><odd/></transport>";
        let element = xml::parse(text.as_bytes()).expect("XML");
        let transport: Transport = xml::from_element(&element).expect("a transport");
        assert_eq!(transport.candidates.len(), 2);
        let strange = &transport.candidates[0];
        assert_eq!(strange.port, None);
        assert_eq!(strange.component, None);
        assert_eq!(strange.kind, Some(CandidateType::Other("odd".to_owned())));
        assert_eq!(transport.candidates[1].port, Some(10000));
        assert_eq!(transport.pwd, None);
    }
}
