//! The registry as a focus sees it: what it answers, and what it asks of the
//! media plane.

mod recording;
mod refusals;

use rand::SeedableRng;
use viaduct_signalling::xml;

use super::*;
use crate::command::{Command, Encoding, Setup, VideoType};
use crate::placement::ENDPOINTS_PER_WORKER;
use endpoint::update;

fn settings() -> Settings {
    Settings {
        candidates: crate::candidates::candidates(
            &["10.0.0.5:10000".parse().expect("an address")],
            &[crate::candidates::StaticMapping {
                local: "10.0.0.5".parse().expect("an address"),
                local_port: None,
                public: "203.0.113.7".parse().expect("an address"),
                public_port: None,
            }],
        ),
        fingerprint: Fingerprint {
            hash: "sha-256".into(),
            bytes: vec![0xab; 32],
            setup: Setup::ActPass,
        },
        ufrag_prefix: String::new(),
        advertise_private: true,
        channel_urls: vec!["wss://meet.example/colibri-ws/jvb1/".into()],
        data_channels: true,
        workers: 1,
        endpoints_per_worker: ENDPOINTS_PER_WORKER,
    }
}

fn bridge() -> Colibri {
    Colibri::new(settings(), StdRng::seed_from_u64(7))
}

/// A request written as the inside of a `conference-modify`.
fn request(attributes: &str, children: &str) -> ConferenceModify {
    let text = format!(
        "<conference-modify xmlns='jitsi:colibri2' {attributes}>{children}</conference-modify>"
    );
    let element = xml::parse(text.as_bytes()).expect("a test's XML");
    xml::from_element(element).expect("a request")
}

fn create(id: &str) -> String {
    format!(
        "<endpoint id='{id}' create='true'><capability name='source-names'/>\
         <transport ice-controlling='true'/><sources/></endpoint>"
    )
}

const M: &str = "meeting-id='m'";
const CREATE: &str = "meeting-id='m' create='true' name='r@conference.meet.example'";

/// What was decided, by name.
fn decided(bridge: &mut Colibri) -> Vec<String> {
    bridge
        .take_dispatches()
        .map(|dispatch| {
            let name = format!("{:?}", dispatch.command);
            name.split([' ', '{']).next().unwrap_or_default().to_owned()
        })
        .collect()
}

fn refusal(bridge: &mut Colibri, attributes: &str, children: &str) -> StanzaError {
    bridge
        .handle(Instant::now(), &request(attributes, children))
        .expect_err("a refusal")
}

/// `focus-bridge` §2.1 and §2.4: the client dials, on port 5000, if the focus
/// asks for it and the bridge may.
#[test]
fn a_data_channel_is_offered_to_those_who_ask() {
    let mut bridge = bridge();
    let endpoint = |id: &str, sctp: &str| {
        format!(
            "<endpoint id='{id}' create='true'><capability name='source-names'/>\
             <transport>{sctp}</transport></endpoint>"
        )
    };
    let mut ask = |attributes, id, sctp| {
        let answer = bridge.handle(Instant::now(), &request(attributes, &endpoint(id, sctp)));
        let transport = answer.expect("created").endpoints.remove(0).transport;
        let transport = transport.expect("a transport");
        let channels = transport.ice_udp.expect("ICE").web_sockets.len();
        let offered: Vec<bool> = bridge
            .take_dispatches()
            .filter_map(|dispatch| match dispatch.command {
                Command::UpdateEndpoint { update, .. } => Some(update.data_channel),
                _ => None,
            })
            .collect();
        (transport.sctp, channels, offered)
    };
    let server = wire::Sctp {
        role: Some("server".into()),
        port: Some(5000),
    };
    assert_eq!(ask(CREATE, "a", ""), (None, 1, vec![false]));
    for (id, sctp) in [
        ("b", "<sctp/>"),
        ("c", "<sctp role='server' port='5000'/>"),
        ("d", "<sctp role='SERVER'/>"),
    ] {
        // The WebSocket is offered beside it: the client chooses.
        assert_eq!(ask(M, id, sctp), (Some(server.clone()), 1, vec![true]));
    }
    let mut bridge = Colibri::new(
        Settings {
            data_channels: false,
            ..settings()
        },
        StdRng::seed_from_u64(7),
    );
    let refused = bridge
        .handle(Instant::now(), &request(CREATE, &endpoint("a", "<sctp/>")))
        .expect_err("it is off");
    assert_eq!(refused.condition, Condition::FeatureNotImplemented);
    assert_eq!(
        refused.text.as_deref(),
        Some("SCTP support is not configured")
    );
    assert_eq!(bridge.registered().endpoints, 0);
}

/// Requests that only expire or mute pass over endpoints that are gone.
#[test]
fn one_lost_endpoint_does_not_spoil_the_others() {
    let mut bridge = bridge();
    bridge
        .handle(Instant::now(), &request(CREATE, &create("a")))
        .expect("created");
    decided(&mut bridge);
    let children = "<endpoint id='x'><force-mute audio='true'/></endpoint>\
         <endpoint id='a'><force-mute audio='true'/></endpoint>\
         <endpoint id='y' expire='true'/>";
    let answer = bridge
        .handle(Instant::now(), &request(M, children))
        .expect("lenient");
    let answered: Vec<_> = answer
        .endpoints
        .iter()
        .map(|e| (e.id.as_str(), e.expire, e.transport.is_some()))
        .collect();
    assert_eq!(
        answered,
        [("x", false, false), ("a", false, false), ("y", true, false)]
    );
    assert_eq!(answer.sources, None);
    assert_eq!(decided(&mut bridge), ["UpdateEndpoint"]);
}

#[test]
fn a_meeting_ends_with_its_last_endpoint_and_can_begin_again_at_once() {
    let mut bridge = bridge();
    let now = Instant::now();
    let created = |bridge: &mut Colibri| {
        let answer = bridge.handle(now, &request(CREATE, &create("a")));
        let endpoint = answer.expect("created").endpoints.remove(0);
        let transport = endpoint.transport.and_then(|t| t.ice_udp);
        transport.expect("a transport").web_sockets[0].url.clone()
    };
    let first = created(&mut bridge);
    for end in [
        request(M, "<endpoint id='a' expire='true'/>"),
        request("meeting-id='m' expire='true'", ""),
    ] {
        let answer = bridge.handle(now, &end).expect("ended");
        assert!(answer.endpoints.iter().all(|e| e.expire));
        assert_eq!(bridge.registered(), Registered::default());
        assert_ne!(created(&mut bridge), first, "a new conference");
    }
    assert_eq!(bridge.totals().conferences_completed, 2);
}

#[test]
fn an_empty_conference_lives_for_20_seconds() {
    let mut bridge = bridge();
    let start = Instant::now();
    bridge.handle(start, &request(CREATE, "")).expect("created");
    let lifetime = EMPTY_CONFERENCE_LIFETIME;
    bridge.handle_timeout(start + lifetime - Duration::from_millis(1));
    assert_eq!(bridge.registered().conferences, 1);
    bridge.handle_timeout(start + lifetime);
    assert_eq!(bridge.registered().conferences, 0);
    assert_eq!(
        decided(&mut bridge),
        ["CreateConference", "ExpireConference"]
    );
}

/// A shard's word about an endpoint counts only for the one it meant.
#[test]
fn a_late_word_of_a_shard_spares_the_successor() {
    let mut bridge = bridge();
    let now = Instant::now();
    bridge
        .handle(now, &request(CREATE, &create("a")))
        .expect("created");
    bridge
        .handle(now, &request(M, &create("b")))
        .expect("created");
    let conference = bridge.conferences["m"].id;
    let a = EndpointId::from("a");
    let member = |bridge: &Colibri| bridge.conferences["m"].endpoints[&a].member;
    let first = member(&bridge);
    bridge
        .handle(now, &request(M, "<endpoint id='a' expire='true'/>"))
        .expect("expired");
    bridge
        .handle(now, &request(M, &create("a")))
        .expect("created again");
    decided(&mut bridge);
    bridge.endpoint_expired(now, conference, first, ExpiryReason::IceFailed);
    assert_eq!(bridge.registered().endpoints, 2);
    assert!(decided(&mut bridge).is_empty());
    let second = member(&bridge);
    bridge.endpoint_expired(now, conference, second, ExpiryReason::IceFailed);
    assert_eq!(bridge.registered().endpoints, 1);
    assert_eq!(decided(&mut bridge), ["ExpireEndpoint"]);
    let error = refusal(&mut bridge, M, "<endpoint id='a'><sources/></endpoint>");
    assert_eq!(error.condition, Condition::ItemNotFound);
}

#[test]
fn only_the_password_of_an_endpoint_opens_its_channel() {
    let mut bridge = bridge();
    let answer = bridge
        .handle(Instant::now(), &request(CREATE, &create("a")))
        .expect("created");
    let transport = answer.endpoints[0].transport.clone();
    let url = transport
        .and_then(|t| t.ice_udp)
        .and_then(|t| t.web_sockets[0].url.clone())
        .expect("a URL");
    let conference = bridge.conferences["m"].id;
    let beginning = format!("wss://meet.example/colibri-ws/jvb1/{conference}/a?pwd=");
    let password = url.strip_prefix(&beginning).expect("the path");
    assert_eq!(password.len(), 24);
    let a = EndpointId::from("a");
    assert_eq!(bridge.channel(conference, &a, password), Some(0));
    assert_eq!(bridge.channel(conference, &a, ""), None);
    assert_eq!(bridge.channel(conference, &a, &password[1..]), None);
    let b = EndpointId::from("b");
    assert_eq!(bridge.channel(conference, &b, password), None);
    let other = ConferenceId(conference.0 ^ 1);
    assert_eq!(bridge.channel(other, &a, password), None);
}

#[test]
fn private_addresses_are_hidden_from_those_who_cannot_use_them() {
    let mut bridge = Colibri::new(
        Settings {
            advertise_private: false,
            ..settings()
        },
        StdRng::seed_from_u64(7),
    );
    let inside = create("b").replace(
        "<transport",
        "<capability name='private-address-connectivity'/><transport",
    );
    let mut candidates = |attributes, children: &str| {
        let answer = bridge
            .handle(Instant::now(), &request(attributes, children))
            .expect("created");
        let transport = answer.endpoints[0].transport.clone();
        let transport = transport.and_then(|t| t.ice_udp).expect("a transport");
        transport
            .candidates
            .into_iter()
            .map(|c| (c.ip, c.rel_addr, c.rel_port))
            .collect::<Vec<_>>()
    };
    let text = |text: &str| Some(text.to_owned());
    let outside = (text("203.0.113.7"), text("0.0.0.0"), Some(9));
    assert_eq!(candidates(CREATE, &create("a")), [outside]);
    assert_eq!(
        candidates(M, &inside),
        [
            (text("10.0.0.5"), None, None),
            (text("203.0.113.7"), text("10.0.0.5"), Some(10_000))
        ]
    );
}

#[test]
fn sources_pair_what_the_groups_pair() {
    let text = "<endpoint id='a'><sources>\
        <media-source type='video' id='a-v0'>\
         <source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='1' videoType='desktop'/>\
         <source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='11'/>\
         <source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='2'/>\
         <source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='12'/>\
         <ssrc-group xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' semantics='FID'><source ssrc='2'/><source ssrc='12'/></ssrc-group>\
         <ssrc-group xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' semantics='FID'><source ssrc='1'/><source ssrc='11'/></ssrc-group>\
         <ssrc-group xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' semantics='SIM'><source ssrc='2'/><source ssrc='1'/></ssrc-group>\
        </media-source>\
        <media-source type='video' id='a-v1'>\
         <source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='31'/>\
         <source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='3'/>\
         <ssrc-group xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' semantics='FID'><source ssrc='3'/><source ssrc='31'/></ssrc-group>\
        </media-source>\
        <media-source type='audio' id='a-a0'><source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='4'/></media-source>\
        <media-source type='audio' id='a-a1'/>\
        </sources></endpoint>";
    let endpoint = &request(M, text).endpoints[0];
    let update = update(endpoint).expect("an update");
    let encoding = |primary, rtx: Option<u32>| Encoding {
        primary: Ssrc(primary),
        rtx: rtx.map(Ssrc),
    };
    let told: Vec<_> = update
        .sources
        .expect("sources")
        .into_iter()
        .map(|s| (s.name.0.to_string(), s.video_type, s.encodings))
        .collect();
    assert_eq!(
        told,
        [
            (
                "a-v0".into(),
                VideoType::Desktop,
                vec![encoding(2, Some(12)), encoding(1, Some(11))]
            ),
            (
                "a-v1".into(),
                VideoType::Camera,
                vec![encoding(3, Some(31))]
            ),
            ("a-a0".into(), VideoType::Camera, vec![encoding(4, None)]),
        ]
    );
    assert!(update.transport.is_none() && update.media.is_none());
}
