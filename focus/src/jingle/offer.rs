//! Jingle requests of the focus to a client (client-focus §4.1, 4.2, 4.5).

use viaduct_signalling::jid::{BareJid, FullJid};
use viaduct_signalling::jingle::transport::{Fingerprint, SctpMap, Transport};
use viaduct_signalling::jingle::{
    Action, BridgeSession, Content, Creator, Description, Group, Jingle, Senders,
};
use viaduct_signalling::jitsi::JsonMessage;
use viaduct_signalling::sources::{BRIDGE_OWNER, ConferenceSources};

use super::codec::{Codecs, Offered};
use super::features::Features;
use crate::bridges::session::Allocation;

/// All that an offer is made of.
#[derive(Debug)]
pub struct Offer<'a> {
    pub room: &'a BareJid,
    pub sid: &'a str,
    pub initiator: &'a FullJid,
    pub features: &'a Features,
    pub codecs: &'a Codecs,
    pub allocation: &'a Allocation,
    pub bridge_session: &'a str,
    pub region: Option<&'a str>,
    /// The others' and the bridge's own.
    pub sources: &'a ConferenceSources,
    pub json_sources: bool,
}

/// The session-initiate.
pub fn session_initiate(offer: &Offer<'_>) -> Jingle {
    let transport = Transport {
        rtcp_mux: true,
        fingerprints: offer
            .allocation
            .transport
            .fingerprints
            .iter()
            .map(|fingerprint| Fingerprint {
                required: Some(fingerprint.required.unwrap_or(false)),
                cryptex: Some(fingerprint.cryptex.unwrap_or(false)),
                ..fingerprint.clone()
            })
            .collect(),
        ..offer.allocation.transport.clone()
    };
    let mut contents = Vec::new();
    let media = [
        (
            offer.features.audio,
            "audio",
            Some(60),
            offer.codecs.audio(offer.features),
        ),
        (
            offer.features.video,
            "video",
            None,
            offer.codecs.video(offer.features),
        ),
    ];
    for (wanted, name, maxptime, offered) in media {
        let Offered {
            payload_types,
            header_extensions,
            extmap_allow_mixed,
        } = offered;
        if wanted {
            let description = Description {
                media: Some(name.to_owned()),
                maxptime,
                payload_types,
                header_extensions,
                extmap_allow_mixed,
                rtcp_mux: true,
                ..Description::default()
            };
            contents.push(content(name, description, transport.clone()));
        }
    }
    if let Some(port) = offer.allocation.sctp_port {
        let description = Description {
            media: Some("application".to_owned()),
            ..Description::default()
        };
        let channel = SctpMap {
            number: Some(port),
            protocol: Some("webrtc-datachannel".to_owned()),
            streams: Some(1024),
        };
        let transport = Transport {
            sctp_maps: vec![channel],
            ..transport
        };
        contents.push(content("data", description, transport));
    }
    let mut jingle = Jingle::new(Action::SessionInitiate, offer.sid);
    jingle.initiator = Some(offer.initiator.to_string());
    jingle.groups = vec![Group::bundle(
        contents.iter().map(|content| content.name.as_str()),
    )];
    jingle.contents = contents;
    jingle.bridge_session = Some(BridgeSession {
        id: Some(offer.bridge_session.to_owned()),
        region: offer.region.map(str::to_owned),
        ..BridgeSession::default()
    });
    add_sources(&mut jingle, offer.sources, offer.json_sources, offer.room);
    jingle
}

/// A source-add or source-remove. The set must not be empty (client-focus §4.5).
pub fn source_change(
    action: Action,
    sid: &str,
    sources: &ConferenceSources,
    json: bool,
    room: &BareJid,
) -> Jingle {
    let mut jingle = Jingle::new(action, sid);
    add_sources(&mut jingle, sources, json, room);
    jingle
}

fn content(name: &str, description: Description, transport: Transport) -> Content {
    Content {
        creator: Some(Creator::Initiator),
        name: name.to_owned(),
        senders: Some(Senders::Both),
        description: Some(description),
        transport: Some(transport),
        ..Content::default()
    }
}

fn add_sources(jingle: &mut Jingle, sources: &ConferenceSources, json: bool, room: &BareJid) {
    if json {
        jingle.json_message = Some(JsonMessage::new(sources.to_json()));
        return;
    }
    // Clients of this form want the occupant's whole address as owner.
    let owned = sources.0.iter().map(|(owner, sources)| {
        let owner = if owner == BRIDGE_OWNER {
            owner.clone()
        } else {
            format!("{room}/{owner}")
        };
        (owner, sources.clone())
    });
    ConferenceSources(owned.collect()).add_to_contents(&mut jingle.contents);
}
