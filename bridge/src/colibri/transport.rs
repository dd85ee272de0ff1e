//! The transport of an endpoint: ours as it is told to the client, and the
//! client's as the media plane is told of it.

use std::net::{IpAddr, SocketAddr};

use rand::Rng;
use viaduct_signalling::iq::StanzaError;
use viaduct_signalling::jingle;

use super::{Colibri, MAX_CANDIDATES, bad_request};
use crate::candidates::is_private;
use crate::command::{
    Candidate, CandidateKind, Fingerprint, IceCredentials, RemoteTransport, Setup,
};
use crate::id::{ConferenceId, EndpointId};
use crate::transport::local_credentials;

impl Colibri {
    /// Fresh ICE credentials. They name the worker, so that a check finds its
    /// shard without a shared map.
    pub(super) fn credentials(&mut self, worker: usize) -> IceCredentials {
        let worker = u8::try_from(worker).expect("the configuration allows 256 workers");
        let credentials = local_credentials(worker, &self.rng.random());
        IceCredentials {
            ufrag: format!("{}{}", self.settings.ufrag_prefix, credentials.ufrag),
            ..credentials
        }
    }

    /// Our side of the transport, as one endpoint is told it.
    pub(super) fn ice_udp(
        &self,
        conference: ConferenceId,
        endpoint: &EndpointId,
        credentials: &IceCredentials,
        password: &str,
        private: bool,
    ) -> jingle::Transport {
        let settings = &self.settings;
        let candidates = settings
            .candidates
            .iter()
            .filter(|c| private || !is_private(c.address.ip()))
            .map(|c| wire_candidate(c, &credentials.ufrag, private))
            .collect();
        let id = path_segment(&endpoint.0);
        let web_sockets = settings
            .channel_urls
            .iter()
            .map(|url| jingle::WebSocket {
                url: Some(format!("{url}{conference}/{id}?pwd={password}")),
                active: None,
            })
            .collect();
        jingle::Transport {
            ufrag: Some(credentials.ufrag.clone()),
            pwd: Some(credentials.pwd.clone()),
            rtcp_mux: true,
            fingerprints: vec![jingle::Fingerprint {
                hash: settings.fingerprint.hash.clone(),
                // Always, whatever the bridge would prefer (`focus-bridge` §2.3).
                setup: Some(jingle::transport::Setup::ActPass),
                value: jingle::Fingerprint::text(&settings.fingerprint.bytes),
                ..jingle::Fingerprint::default()
            }],
            web_sockets,
            candidates,
            ..jingle::Transport::default()
        }
    }
}

/// Text as one segment of a path: all but unreserved characters (RFC 3986 §2.3)
/// in percent encoding. Endpoint ids are opaque, though mostly hexadecimal.
fn path_segment(text: &str) -> String {
    text.bytes()
        .map(|octet| match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(octet).to_string()
            }
            _ => format!("%{octet:02X}"),
        })
        .collect()
}

fn wire_candidate(candidate: &Candidate, ufrag: &str, private: bool) -> jingle::Candidate {
    let base = candidate.base.map(|base| {
        if private {
            base
        } else {
            SocketAddr::from(([0, 0, 0, 0], 9))
        }
    });
    jingle::Candidate {
        component: Some(1),
        foundation: Some(candidate.foundation.clone()),
        generation: Some(0),
        id: Some(format!("{ufrag}{}", candidate.foundation)),
        ip: Some(candidate.address.ip().to_string()),
        network: Some(0),
        port: Some(candidate.address.port()),
        priority: Some(candidate.priority),
        protocol: Some("udp".to_owned()),
        rel_addr: base.map(|base| base.ip().to_string()),
        rel_port: base.map(|base| base.port()),
        tcptype: None,
        kind: Some(match candidate.kind {
            CandidateKind::Host => jingle::transport::CandidateType::Host,
            CandidateKind::ServerReflexive => jingle::transport::CandidateType::ServerReflexive,
            CandidateKind::PeerReflexive => jingle::transport::CandidateType::PeerReflexive,
            CandidateKind::Relayed => jingle::transport::CandidateType::Relay,
        }),
    }
}

pub(super) fn remote_transport(
    transport: &jingle::Transport,
) -> Result<RemoteTransport, StanzaError> {
    let ice = match (&transport.ufrag, &transport.pwd) {
        (Some(ufrag), Some(pwd)) => Some(IceCredentials {
            ufrag: ufrag.clone(),
            pwd: pwd.clone(),
        }),
        _ => None,
    };
    let fingerprints = transport
        .fingerprints
        .iter()
        .filter_map(|fingerprint| {
            let setup = match fingerprint.setup {
                Some(jingle::transport::Setup::Active) => Setup::Active,
                Some(jingle::transport::Setup::Passive) => Setup::Passive,
                Some(jingle::transport::Setup::ActPass) => Setup::ActPass,
                _ => return None,
            };
            Some((fingerprint, setup))
        })
        .map(|(fingerprint, setup)| {
            Ok(Fingerprint {
                hash: fingerprint.hash.to_ascii_lowercase(),
                bytes: fingerprint
                    .bytes()
                    .ok_or_else(|| bad_request("A fingerprint is not hexadecimal octets"))?,
                setup,
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(RemoteTransport {
        ice,
        fingerprints,
        candidates: transport
            .candidates
            .iter()
            .filter_map(remote_candidate)
            .take(MAX_CANDIDATES)
            .collect(),
    })
}

/// `None` for what the one UDP port cannot reach or check: TCP, other
/// components, names (mDNS) in place of addresses.
fn remote_candidate(candidate: &jingle::Candidate) -> Option<Candidate> {
    let udp = candidate
        .protocol
        .as_deref()
        .is_some_and(|p| p.eq_ignore_ascii_case("udp"));
    if !udp || candidate.component.is_some_and(|component| component != 1) {
        return None;
    }
    let address = |ip: &Option<String>, port: Option<u16>| {
        let ip: IpAddr = ip.as_deref()?.parse().ok()?;
        Some(SocketAddr::new(ip, port?))
    };
    Some(Candidate {
        kind: match candidate.kind.as_ref()? {
            jingle::transport::CandidateType::Host => CandidateKind::Host,
            jingle::transport::CandidateType::ServerReflexive => CandidateKind::ServerReflexive,
            jingle::transport::CandidateType::PeerReflexive => CandidateKind::PeerReflexive,
            jingle::transport::CandidateType::Relay => CandidateKind::Relayed,
            jingle::transport::CandidateType::Other(_) => return None,
        },
        address: address(&candidate.ip, candidate.port).filter(|a| a.port() != 0)?,
        base: address(&candidate.rel_addr, candidate.rel_port),
        priority: candidate.priority?,
        foundation: candidate.foundation.clone().unwrap_or_default(),
    })
}
