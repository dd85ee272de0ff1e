//! Every stanza in `testdata` is read as what it is, written and read again.
//! What is written equals what was recorded, but for what is listed in
//! [`IGNORED`] and for the order of attributes and of children of different
//! names.

use std::collections::BTreeSet;

use crate::{canonical, check_writing, testdata};
use viaduct_signalling::colibri2::{ConferenceModified, ConferenceModify};
use viaduct_signalling::disco::{Caps, DiscoInfo, Priority};
use viaduct_signalling::iq::{Iq, Kind, StanzaError};
use viaduct_signalling::jingle::Jingle;
use viaduct_signalling::jitsi::{
    Conference, ConferenceProperties, Etherpad, Mute, Nick, Occupant, StartMuted, Versions,
};
use viaduct_signalling::muc::{AdminQuery, Join, MucUser, OwnerQuery};
use viaduct_signalling::presence::Presence;
use viaduct_signalling::roster::Roster;
use viaduct_signalling::sources::{ConferenceSources, EndpointSources};
use viaduct_signalling::xml::{self, Element};
use viaduct_signalling::{brewery, message::Message};

/// What is recorded and means nothing to us: an element, or an attribute as
/// `element@attribute`.
const IGNORED: &[&str] = &["field@label", "source-frame-height"];

/// Reads the payload as a `T` and compares what that writes.
fn check<T>(payload: &Element, kinds: &mut BTreeSet<&'static str>)
where
    T: xso::FromXml + xso::AsXml + PartialEq + std::fmt::Debug,
{
    let value: T = xml::from_element(payload)
        .unwrap_or_else(|e| panic!("{e}: {}", canonical(payload, IGNORED)));
    let written = xml::to_element(&value);
    assert_eq!(
        canonical(payload, IGNORED),
        canonical(&written, &[]),
        "recorded on the left, written on the right"
    );
    check_writing(&written);
    let again: T = xml::from_element(&written).expect("what was written is read");
    assert_eq!(value, again);
    kinds.insert(std::any::type_name::<T>());
}

fn check_payload(payload: &Element, kinds: &mut BTreeSet<&'static str>) -> bool {
    match (payload.name(), payload.ns().as_str()) {
        ("jingle", xml::ns::JINGLE) => check::<Jingle>(payload, kinds),
        ("conference-modify", xml::ns::COLIBRI2) => check::<ConferenceModify>(payload, kinds),
        ("conference-modified", xml::ns::COLIBRI2) => check::<ConferenceModified>(payload, kinds),
        ("conference", xml::ns::FOCUS) => check::<Conference>(payload, kinds),
        ("mute", _) => check::<Mute>(payload, kinds),
        ("healthcheck", xml::ns::HEALTH_CHECK) => check::<brewery::HealthCheck>(payload, kinds),
        ("stats", xml::ns::COLIBRI) => check::<brewery::Stats>(payload, kinds),
        ("query", xml::ns::DISCO_INFO) => check::<DiscoInfo>(payload, kinds),
        ("query", xml::ns::ROSTER) => check::<Roster>(payload, kinds),
        ("query", xml::ns::MUC_OWNER) => check::<OwnerQuery>(payload, kinds),
        ("query", xml::ns::MUC_ADMIN) => check::<AdminQuery>(payload, kinds),
        ("x", xml::ns::MUC) => check::<Join>(payload, kinds),
        ("x", xml::ns::MUC_USER) => check::<MucUser>(payload, kinds),
        ("c", xml::ns::CAPS) => check::<Caps>(payload, kinds),
        ("nick", xml::ns::NICK) => check::<Nick>(payload, kinds),
        ("versions", xml::ns::JITMEET) => check::<Versions>(payload, kinds),
        ("etherpad", xml::ns::ETHERPAD) => check::<Etherpad>(payload, kinds),
        ("conference-properties", xml::ns::FOCUS) => {
            check::<ConferenceProperties>(payload, kinds);
        }
        ("startmuted", xml::ns::START_MUTED) => check::<StartMuted>(payload, kinds),
        ("priority", xml::ns::CLIENT) => check::<Priority>(payload, kinds),
        _ => return false,
    }
    true
}

#[test]
fn each_recorded_stanza_survives_reading_and_writing() {
    let mut kinds = BTreeSet::new();
    for (file, stanza) in testdata() {
        match stanza.name() {
            "iq" => {
                let iq = Iq::from_element(&stanza).expect("an iq");
                let written = iq.to_element();
                assert_eq!(Iq::from_element(&written).expect("an iq"), iq);
                match &iq.kind {
                    Kind::Get(payload) | Kind::Set(payload) | Kind::Result(Some(payload)) => {
                        assert_eq!(
                            canonical(&stanza, IGNORED),
                            canonical(&written, IGNORED),
                            "{file}"
                        );
                        let known = check_payload(payload, &mut kinds);
                        assert!(known, "{file}: {}", canonical(payload, &[]));
                    }
                    Kind::Result(None) => {}
                    Kind::Error(error) => {
                        let again = StanzaError::from_element(&error.to_element());
                        assert_eq!(again.as_ref(), Some(error));
                    }
                }
            }
            "presence" => {
                let presence = Presence::from_element(&stanza).expect("a presence");
                let written = presence.to_element();
                assert_eq!(
                    canonical(&stanza, IGNORED),
                    canonical(&written, IGNORED),
                    "{file}"
                );
                for payload in &presence.payloads {
                    check_payload(payload, &mut kinds);
                }
                let occupant = Occupant::from_presence(&presence);
                let mut again = Presence::new(presence.kind.clone());
                again.payloads = occupant.payloads();
                assert_eq!(Occupant::from_presence(&again), occupant, "{file}");
            }
            "message" => {
                let message = Message::from_element(&stanza).expect("a message");
                assert_eq!(message.to_element(), stanza);
            }
            other => panic!("{file}: {other} is no stanza"),
        }
    }
    assert_eq!(
        kinds.len(),
        20,
        "some kind is not in the recordings: {kinds:?}"
    );
}

/// The payloads of requests among the recorded stanzas that hold a `T`.
fn payloads<T: xso::FromXml>() -> Vec<T> {
    let payloads: Vec<T> = testdata()
        .iter()
        .filter_map(|(_, stanza)| Iq::from_element(stanza).ok())
        .filter_map(|iq| xml::from_element(iq.request()?).ok())
        .collect();
    assert!(!payloads.is_empty());
    payloads
}

#[test]
fn sources_in_json_are_written_as_jicofo_writes_them() {
    let mut found = 0;
    for jingle in payloads::<Jingle>() {
        let Some(message) = jingle.json_message else {
            continue;
        };
        let sources = ConferenceSources::from_json(&message.json).expect("sources");
        // The focus of `ljm-join.xml` wrote SSRCs as text; that is only read.
        if message.json.contains(r#""s":""#) {
            continue;
        }
        let value = |text: &str| -> serde_json::Value { serde_json::from_str(text).expect("JSON") };
        assert_eq!(value(&sources.to_json()), value(&message.json));
        found += 1;
    }
    assert!(found > 0);
}

#[test]
fn sources_of_clients_are_written_as_they_came() {
    let mut found = 0;
    for jingle in payloads::<Jingle>() {
        let sources = EndpointSources::from_contents(&jingle.contents);
        let contents = sources.to_contents();
        for content in &jingle.contents {
            let Some(recorded) = &content.description else {
                continue;
            };
            let media = recorded.media.as_deref().expect("a medium");
            let written = contents.iter().find(|content| content.name == media);
            let written = written.and_then(|content| content.description.clone());
            let written = written.unwrap_or_default();
            // The only parameter that matters is msid; gst-meet adds a cname.
            let mut expected = recorded.sources.clone();
            for source in &mut expected {
                source
                    .parameters
                    .retain(|p| p.name.as_deref() == Some("msid"));
            }
            assert_eq!(written.sources, expected);
            assert_eq!(written.ssrc_groups, recorded.ssrc_groups);
            found += expected.len();
        }
    }
    assert!(found > 0);
}

#[test]
fn sources_for_bridges_are_written_as_jicofo_writes_them() {
    let mut found = 0;
    for modify in payloads::<ConferenceModify>() {
        let behind = modify.relays.iter().filter_map(|r| r.endpoints.as_ref());
        let behind = behind.flat_map(|endpoints| &endpoints.endpoints);
        for endpoint in modify.endpoints.iter().chain(behind) {
            let Some(recorded) = &endpoint.sources else {
                continue;
            };
            let sources = EndpointSources::from_colibri2(recorded);
            assert_eq!(&sources.to_colibri2(), recorded);
            found += sources.sources.len();
        }
    }
    assert!(found > 0);
}

/// What is recorded of bridge control, as JSON and back. Tracing has no form
/// there, and parameters come back by name.
#[test]
fn recorded_bridge_control_survives_as_json() {
    let (mut requests, mut answers) = (0, 0);
    for (name, stanza) in testdata() {
        let Some(payload) = stanza.children().next() else {
            continue;
        };
        if let Ok(mut modify) = xml::from_element::<ConferenceModify>(payload) {
            modify.trace_parent = None;
            let media = modify.endpoints.iter_mut().flat_map(|e| &mut e.media);
            for codec in media.flat_map(|media| &mut media.payload_types) {
                codec.parameters.sort_by(|a, b| a.name.cmp(&b.name));
            }
            let json = ConferenceModify::from_json(modify.to_json().as_bytes());
            assert_eq!(json, Ok(modify), "{name}");
            requests += 1;
        } else if let Ok(modified) = xml::from_element::<ConferenceModified>(payload) {
            let json = ConferenceModified::from_json(modified.to_json().as_bytes());
            assert_eq!(json, Ok(modified), "{name}");
            answers += 1;
        }
    }
    assert!(requests > 5 && answers > 2, "{requests}, {answers}");
}
