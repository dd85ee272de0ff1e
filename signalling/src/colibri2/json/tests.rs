//! Bridge control to JSON and back: by example, by what is wrong with it, by chance.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::colibri2::{
    Capability, Endpoint, Endpoints, ForceMute, InitialLastN, Media, MediaSource, MediaType, Relay,
    Sctp, Sources, Transport,
};
use crate::jingle::ssma::Semantics;
use crate::jingle::transport::{CandidateType, Setup};
use crate::jingle::{
    self, Candidate, ExtmapAllowMixed, Fingerprint, HeaderExtension, Parameter, PayloadType,
    Source, SsrcGroup, WebSocket,
};

/// A request with all that JSON has a form for, as a load tester writes it:
/// numbers as numbers.
#[test]
fn a_request_is_read() {
    let text = json!({
        "meeting-id": "m", "name": "room@x", "create": true, "connects": [{"url": 7}], "odd": null,
        "endpoints": [{
            "id": "e", "create": true, "stats-id": "Ada", "muc-role": null,
            "capabilities": ["source-names"],
            "medias": [{
                "type": "audio", "extmap-allow-mixed": true,
                "payload-types": [
                    {"id": 111, "name": "opus", "clockrate": 48000, "channels": "2",
                     "parameters": {"useinbandfec": 1}, "rtcp-fbs": [{"type": "nack", "subtype": "pli"}]},
                    {"id": "112", "name": "red", "parameters": {"null": "111/111"}}],
                "rtp-hdrexts": [{"id": 1, "uri": "urn:x"}]}],
            "transport": {
                "ice-controlling": true, "sctp": {"role": "SERVER", "port": 5000},
                "transport": {
                    "xmlns": "urn:xmpp:jingle:transports:ice-udp:1", "ufrag": "u", "pwd": "p",
                    "rtcp-mux": true, "web-sockets": ["active", "wss://x"],
                    "fingerprints": [{"fingerprint": "AB", "hash": "sha-256", "setup": "active",
                                      "cryptex": true, "required": "false"}],
                    "candidates": [{"foundation": 1, "ip": "::1", "port": "9", "type": "host"}]}},
            "sources": [{
                "type": "video", "id": "e-v0",
                "sources": [{"ssrc": 4294967295_u32, "videoType": "camera"}, 2, "3"],
                "ssrc-groups": [{"semantics": "FID", "sources": [4294967295_u32, 2]}]}],
            "force-mute": {"audio": true}, "initial-last-n": {"value": -1}}],
        "relays": [{"id": "r", "endpoints": []}]
    })
    .to_string();
    let modify = ConferenceModify::from_json(text.as_bytes()).expect("a request");
    let opus = PayloadType {
        channels: Some(2),
        ..PayloadType::new(111, "opus", 48000)
    };
    let red = PayloadType {
        id: 112,
        name: "red".to_owned(),
        parameters: vec![Parameter::nameless("111/111")],
        ..PayloadType::default()
    };
    let video = Source {
        video_type: Some("camera".to_owned()),
        ..Source::bare(u32::MAX)
    };
    let endpoint = Endpoint {
        create: true,
        stats_id: Some("Ada".to_owned()),
        media: vec![Media {
            kind: MediaType::Audio,
            payload_types: vec![
                opus.with_parameter("useinbandfec", "1")
                    .with_feedback(["nack pli"]),
                red,
            ],
            header_extensions: vec![HeaderExtension::new(1, "urn:x")],
            extmap_allow_mixed: Some(ExtmapAllowMixed),
        }],
        transport: Some(Transport {
            ice_controlling: true,
            sctp: Some(Sctp {
                role: Some("server".to_owned()),
                port: Some(5000),
            }),
            ice_udp: Some(jingle::Transport {
                ufrag: Some("u".to_owned()),
                pwd: Some("p".to_owned()),
                rtcp_mux: true,
                fingerprints: vec![Fingerprint {
                    hash: "sha-256".to_owned(),
                    setup: Some(Setup::Active),
                    required: Some(false),
                    cryptex: Some(true),
                    value: "AB".to_owned(),
                }],
                web_sockets: vec![
                    WebSocket {
                        url: None,
                        active: Some(true),
                    },
                    WebSocket {
                        url: Some("wss://x".to_owned()),
                        active: None,
                    },
                ],
                candidates: vec![Candidate {
                    foundation: Some("1".to_owned()),
                    ip: Some("::1".to_owned()),
                    port: Some(9),
                    kind: Some(CandidateType::Host),
                    ..Candidate::default()
                }],
                ..jingle::Transport::default()
            }),
            ..Transport::default()
        }),
        sources: Some(Sources {
            media_sources: vec![MediaSource {
                kind: MediaType::Video,
                id: "e-v0".to_owned(),
                synthetic: false,
                sources: vec![video, Source::bare(2), Source::bare(3)],
                ssrc_groups: vec![SsrcGroup {
                    semantics: Semantics::Fid,
                    sources: vec![Source::bare(u32::MAX), Source::bare(2)],
                }],
            }],
        }),
        force_mute: Some(ForceMute {
            audio: true,
            video: false,
        }),
        initial_last_n: Some(InitialLastN { value: Some(-1) }),
        capabilities: vec![Capability {
            name: "source-names".to_owned(),
        }],
        ..Endpoint::new("e")
    };
    let relay = Relay {
        id: "r".to_owned(),
        endpoints: Some(Endpoints::default()),
        ..Relay::default()
    };
    let expected = ConferenceModify {
        name: Some("room@x".to_owned()),
        create: true,
        endpoints: vec![endpoint],
        relays: vec![relay],
        ..ConferenceModify::new("m")
    };
    assert_eq!(modify, expected);
    // As a bridge of Jitsi writes it: attributes as strings.
    let written: Value = serde_json::from_str(&modify.to_json()).expect("JSON");
    let endpoint = &written["endpoints"][0];
    assert_eq!(endpoint["medias"][0]["payload-types"][0]["id"], "111");
    assert_eq!(endpoint["medias"][0]["rtp-hdrexts"][0]["id"], 1);
    let transport = &endpoint["transport"];
    assert_eq!(transport["sctp"], json!({"role": "SERVER", "port": 5000}));
    assert_eq!(
        transport["transport"]["candidates"],
        json!([{"foundation": "1", "ip": "::1", "port": "9", "type": "host"}])
    );
    assert_eq!(
        endpoint["sources"][0]["sources"],
        json!([{"ssrc": u32::MAX, "videoType": "camera"}, 2, 3])
    );
    assert_eq!(written["relays"], json!([{"id": "r", "endpoints": []}]));
    assert_eq!(
        endpoint["force-mute"],
        json!({"audio": true, "video": false})
    );
}

#[test]
fn what_is_at_its_default_is_not_written() {
    assert_eq!(
        ConferenceModify::new("m").to_json(),
        r#"{"meeting-id":"m"}"#
    );
    assert_eq!(ConferenceModified::default().to_json(), "{}");
    // An empty set is not the default: it takes away what there was.
    let modified = ConferenceModified {
        sources: Some(Sources::default()),
        ..ConferenceModified::default()
    };
    assert_eq!(modified.to_json(), r#"{"sources":[]}"#);
}

#[test]
fn the_name_beside_a_request_counts() {
    for text in ["{}", r#"{"meeting-id":"other"}"#, r#"{"meeting-id":7}"#] {
        let modify = ConferenceModify::from_json_about("m", text.as_bytes());
        assert_eq!(modify, Ok(ConferenceModify::new("m")), "{text}");
    }
}

#[test]
fn a_fault_names_its_place() {
    for (text, fault) in [
        ("7", ": an object expected"),
        ("{}", "meeting-id is missing"),
        (r#"{"meeting-id":null}"#, "meeting-id is missing"),
        (r#"{"meeting-id":7}"#, "meeting-id: a string expected"),
        (
            r#"{"meeting-id":"m","create":"true"}"#,
            "create: true or false expected",
        ),
        (
            r#"{"meeting-id":"m","endpoints":{}}"#,
            "endpoints: an array expected",
        ),
        (
            r#"{"meeting-id":"m","endpoints":[{"id":"e"},{}]}"#,
            "endpoints[1].id is missing",
        ),
        (
            r#"{"meeting-id":"m","endpoints":[7]}"#,
            "endpoints[0]: an object expected",
        ),
        (
            r#"{"meeting-id":"m","endpoints":[{"id":"e","capabilities":["a",1]}]}"#,
            "endpoints[0].capabilities[1]: a string expected",
        ),
        (
            r#"{"meeting-id":"m","endpoints":[{"id":"e","initial-last-n":{}}]}"#,
            "endpoints[0].initial-last-n.value is missing",
        ),
        (
            r#"{"meeting-id":"m","endpoints":[{"id":"e","transport":{"transport":{}}}]}"#,
            "endpoints[0].transport.transport: xmlns of ICE over UDP expected",
        ),
        (
            r#"{"meeting-id":"m","endpoints":[{"id":"e","medias":[{"type":"audio","payload-types":
               [{"id":256}]}]}]}"#,
            "endpoints[0].medias[0].payload-types[0].id: a number in range expected",
        ),
        (
            r#"{"meeting-id":"m","endpoints":[{"id":"e","medias":[{"type":"audio","payload-types":
               [{"id":1,"parameters":{"a":[]}}]}]}]}"#,
            "endpoints[0].medias[0].payload-types[0].parameters.a: a string expected",
        ),
        (
            r#"{"meeting-id":"m","endpoints":[{"id":"e","sources":[{"type":"audio","id":"s",
               "sources":[1,4294967296]}]}]}"#,
            "endpoints[0].sources[0].sources[1]: a number in range expected",
        ),
    ] {
        let error = ConferenceModify::from_json(text.as_bytes()).expect_err(text);
        assert!(!matches!(error, JsonError::Syntax(_)), "{text}");
        assert_eq!(error.to_string(), fault, "{text}");
    }
    let deep = [b"{\"a\":".repeat(200), b"0".to_vec()].concat();
    for text in [&b""[..], b"{", b"{} {}", b"{\"a\":\"\xff\"}", &deep] {
        let error = ConferenceModify::from_json(text).expect_err("no JSON");
        assert!(matches!(error, JsonError::Syntax(_)), "{error}");
    }
}

fn text() -> impl Strategy<Value = String> {
    "[ -~é]{0,6}"
}

fn parameters() -> impl Strategy<Value = Vec<Parameter>> {
    // In the order of their names, as JSON gives them back.
    btree_map("[a-z]{1,4}|null", text(), 0..3).prop_map(|map| {
        map.into_iter()
            .map(|(name, value)| match name.as_str() {
                "null" => Parameter::nameless(&value),
                name => Parameter::new(name, &value),
            })
            .collect()
    })
}

fn kind() -> impl Strategy<Value = MediaType> {
    "audio|video|smell".prop_map(|word| MediaType::from(word.as_str()))
}

prop_compose! {
    fn payload_type()(
        id: u8, name in text(), clockrate: Option<u32>, channels: Option<u8>,
        parameters in parameters(), feedback in vec("[a-z]{1,3}( [a-z]{1,3})?", 0..3),
    ) -> PayloadType {
        PayloadType { id, name, clockrate, channels, parameters, rtcp_fb: Vec::new() }
            .with_feedback(feedback.iter().map(String::as_str))
    }
}

prop_compose! {
    fn media()(
        kind in kind(), payload_types in vec(payload_type(), 0..3),
        header_extensions in vec((any::<u8>(), text()), 0..3), mixed: bool,
    ) -> Media {
        let header_extensions = header_extensions.iter();
        Media {
            kind,
            payload_types,
            header_extensions: header_extensions.map(|(id, uri)| HeaderExtension::new(*id, uri)).collect(),
            extmap_allow_mixed: mixed.then_some(ExtmapAllowMixed),
        }
    }
}

prop_compose! {
    fn fingerprint()(
        hash in text(), setup in option::of(text()), required: Option<bool>, cryptex: Option<bool>,
        value in text(),
    ) -> Fingerprint {
        let setup = setup.map(|word| Setup::from(word.as_str()));
        Fingerprint { hash, setup, required, cryptex, value }
    }
}

prop_compose! {
    fn candidate()(
        numbers: (Option<u8>, Option<u32>, Option<u32>, Option<u16>, Option<u32>, Option<u16>),
        texts in [option::of(text()), option::of(text()), option::of(text()), option::of(text()),
                  option::of(text()), option::of(text()), option::of(text())],
    ) -> Candidate {
        let (component, generation, network, port, priority, rel_port) = numbers;
        let [foundation, id, ip, protocol, rel_addr, tcptype, kind] = texts;
        Candidate {
            component, foundation, generation, id, ip, network, port, priority, protocol, rel_addr,
            rel_port, tcptype, kind: kind.map(|word| CandidateType::from(word.as_str())),
        }
    }
}

fn web_socket() -> impl Strategy<Value = WebSocket> {
    prop_oneof![
        Just(WebSocket {
            url: None,
            active: Some(true)
        }),
        "wss:[a-z]*".prop_map(|url| WebSocket {
            url: Some(url),
            active: None
        })
    ]
}

prop_compose! {
    fn ice_udp()(
        ufrag in option::of(text()), pwd in option::of(text()), ice_generation: Option<u32>,
        rtcp_mux: bool, fingerprints in vec(fingerprint(), 0..3),
        web_sockets in vec(web_socket(), 0..3), candidates in vec(candidate(), 0..3),
    ) -> jingle::Transport {
        jingle::Transport {
            ufrag, pwd, ice_generation, rtcp_mux, fingerprints, web_sockets, candidates,
            sctp_maps: Vec::new(),
        }
    }
}

prop_compose! {
    fn transport()(
        flags: [bool; 3], ice_udp in option::of(ice_udp()),
        sctp in option::of((option::of("server|client"), any::<Option<u16>>())),
    ) -> Transport {
        let [ice_controlling, use_unique_port, ice_restart] = flags;
        let sctp = sctp.map(|(role, port)| Sctp { role, port });
        Transport { ice_controlling, use_unique_port, ice_restart, ice_udp, sctp }
    }
}

prop_compose! {
    fn source()(
        ssrc: u32, name in option::of(text()), rid in option::of(text()),
        video_type in option::of(text()), parameters in parameters(),
    ) -> Source {
        let parameters = parameters.into_iter().map(Into::into).collect();
        Source { ssrc, name, rid, video_type, parameters, info: None }
    }
}

prop_compose! {
    fn media_source()(
        kind in kind(), id in text(), synthetic: bool, sources in vec(source(), 0..3),
        groups in vec(("SIM|FID|NEW", vec(any::<u32>(), 0..3)), 0..3),
    ) -> MediaSource {
        let ssrc_groups = groups.iter().map(|(semantics, ssrcs)| SsrcGroup {
            semantics: Semantics::from(semantics.as_str()),
            sources: ssrcs.iter().copied().map(Source::bare).collect(),
        });
        MediaSource { kind, id, synthetic, sources, ssrc_groups: ssrc_groups.collect() }
    }
}

fn sources() -> impl Strategy<Value = Option<Sources>> {
    option::of(vec(media_source(), 0..3))
        .prop_map(|sources| sources.map(|media_sources| Sources { media_sources }))
}

prop_compose! {
    fn endpoint()(
        (id, stats_id, muc_role) in (text(), option::of(text()), option::of(text())),
        flags: [bool; 2], media in vec(media(), 0..3), transport in option::of(transport()),
        sources in sources(), mute: Option<(bool, bool)>, last_n: Option<i32>,
        capabilities in vec(text(), 0..3),
    ) -> Endpoint {
        let [create, expire] = flags;
        Endpoint {
            id, create, expire, stats_id, muc_role, media, transport, sources,
            force_mute: mute.map(|(audio, video)| ForceMute { audio, video }),
            initial_last_n: last_n.map(|n| InitialLastN { value: Some(n) }),
            capabilities: capabilities.into_iter().map(|name| Capability { name }).collect(),
        }
    }
}

prop_compose! {
    fn relay()(
        id in text(), flags: [bool; 2], mesh_id in option::of(text()), media in vec(media(), 0..2),
        transport in option::of(transport()), endpoints in option::of(vec(endpoint(), 0..2)),
    ) -> Relay {
        let [create, expire] = flags;
        let endpoints = endpoints.map(|endpoints| Endpoints { endpoints });
        Relay { id, create, expire, mesh_id, media, transport, endpoints }
    }
}

prop_compose! {
    fn modify()(
        meeting_id in text(), name in option::of(text()), flags: [bool; 2],
        rtcstats_enabled: Option<bool>, endpoints in vec(endpoint(), 0..3),
        relays in vec(relay(), 0..2),
    ) -> ConferenceModify {
        let [create, expire] = flags;
        ConferenceModify {
            meeting_id, name, create, expire, rtcstats_enabled, trace_parent: None, endpoints, relays,
        }
    }
}

prop_compose! {
    fn modified()(
        endpoints in vec(endpoint(), 0..3), relays in vec(relay(), 0..2), sources in sources(),
    ) -> ConferenceModified {
        ConferenceModified { endpoints, relays, sources }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_request_comes_back_the_same(modify in modify()) {
        let text = modify.to_json();
        prop_assert_eq!(ConferenceModify::from_json(text.as_bytes()), Ok(modify));
    }

    #[test]
    fn an_answer_comes_back_the_same(modified in modified()) {
        let text = modified.to_json();
        prop_assert_eq!(ConferenceModified::from_json(text.as_bytes()), Ok(modified));
    }
}
