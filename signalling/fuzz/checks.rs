//! What must hold for any bytes: nothing breaks, and what could be read is read
//! the same after it was written. The fuzz targets and the test that replays
//! their corpus both include this file.

// Each target uses one of these.
#![allow(dead_code)]

use std::fmt::Debug;

use bytes::BytesMut;
use viaduct_signalling::brewery::{HealthCheck, Stats};
use viaduct_signalling::colibri2::{self, ConferenceModified, ConferenceModify};
use viaduct_signalling::config::{
    Config, parse_bandwidth, parse_duration, parse_fraction, parse_octets,
};
use viaduct_signalling::disco::{Caps, DataForm, DiscoInfo, Ping, Version};
use viaduct_signalling::iq::{Iq, Kind};
use viaduct_signalling::jingle::Jingle;
use viaduct_signalling::jitsi::conference::{Conference, HttpRequest, Logout};
use viaduct_signalling::jitsi::occupant::{ConferenceProperties, Occupant, SourceInfo, Versions};
use viaduct_signalling::jitsi::{JsonMessage, Mute, StartMuted};
use viaduct_signalling::message::Message;
use viaduct_signalling::muc::{AdminQuery, Join, MucUser, OwnerQuery, RoomInfo};
use viaduct_signalling::presence::Presence;
use viaduct_signalling::roster::Roster;
use viaduct_signalling::session::stream::{Incoming, StreamReader, write_element};
use viaduct_signalling::sources::{ConferenceSources, EndpointSources};
use viaduct_signalling::xml::{self, Element};

/// Bytes as a stanza.
pub(crate) fn stanza(bytes: &[u8]) {
    let Ok(element) = xml::parse(bytes) else {
        return;
    };
    if let Ok(iq) = Iq::from_element(&element) {
        assert_eq!(Iq::from_element(&iq.to_element()).as_ref(), Ok(&iq));
        if let Kind::Error(error) = &iq.kind {
            let _ = colibri2::reason(error);
        }
        let payload = match &iq.kind {
            Kind::Get(payload) | Kind::Set(payload) | Kind::Result(Some(payload)) => payload,
            Kind::Result(None) | Kind::Error(_) => return,
        };
        payloads(payload);
    } else if let Ok(presence) = Presence::from_element(&element) {
        let occupant = Occupant::from_presence(&presence);
        let mut again = Presence::new(presence.kind.clone());
        again.payloads = occupant.payloads();
        assert_eq!(Occupant::from_presence(&again), occupant);
        let _ = presence.error();
        presence.payloads.iter().for_each(payloads);
    } else if let Ok(message) = Message::from_element(&element) {
        message.payloads.iter().for_each(payloads);
    } else {
        payloads(&element);
    }
}

fn payloads(element: &Element) {
    if let Some(jingle) = round::<Jingle>(element) {
        let sources = EndpointSources::from_contents(&jingle.contents);
        sources_hold(sources);
        let conference = ConferenceSources::from_contents(&jingle.contents);
        conference.0.into_values().for_each(sources_hold);
        if let Some(message) = &jingle.json_message {
            json(message.json.as_bytes());
        }
        for content in &jingle.contents {
            for fingerprint in content.transport.iter().flat_map(|t| &t.fingerprints) {
                let _ = fingerprint.bytes();
            }
        }
    }
    if let Some(modify) = round::<ConferenceModify>(element) {
        colibri2_json(&modify);
        for endpoint in &modify.endpoints {
            if let Some(sources) = &endpoint.sources {
                sources_hold(EndpointSources::from_colibri2(sources));
            }
        }
    }
    if let Some(modified) = round::<ConferenceModified>(element)
        && let Some(sources) = &modified.sources
    {
        let _ = EndpointSources::bridge_feedback(sources);
    }
    if let Some(info) = round::<DiscoInfo>(element) {
        let _ = (info.ver(), RoomInfo::from_disco(&info));
    }
    if let Some(stats) = round::<Stats>(element) {
        for (name, _) in stats.iter() {
            let _ = (stats.number(name), stats.flag(name));
        }
    }
    round::<AdminQuery>(element);
    round::<Caps>(element);
    round::<Conference>(element);
    round::<ConferenceProperties>(element);
    round::<DataForm>(element);
    round::<HealthCheck>(element);
    round::<Join>(element);
    round::<JsonMessage>(element);
    round::<Logout>(element);
    round::<MucUser>(element);
    round::<Mute>(element);
    round::<OwnerQuery>(element);
    round::<Ping>(element);
    round::<Roster>(element);
    round::<StartMuted>(element);
    round::<Version>(element);
    round::<Versions>(element);
}

/// Reads, writes through text and reads again.
fn round<T: xso::FromXml + xso::AsXml + PartialEq + Debug>(element: &Element) -> Option<T> {
    let value: T = xml::from_element(element).ok()?;
    let text = xml::write(&xml::to_element(&value));
    let again = xml::parse(text.as_bytes()).expect("what was written is XML");
    let again: T = xml::from_element(&again).expect("what was written is read");
    assert_eq!(again, value);
    Some(value)
}

fn sources_hold(mut sources: EndpointSources) {
    let _ = sources.without_simulcast();
    sources.name_nameless("e");
    let form = sources.to_colibri2();
    let read = EndpointSources::from_colibri2(&form);
    assert_eq!(read.sources.len(), sources.sources.len());
    let mut rest = sources.clone();
    rest.remove(&sources);
    assert!(rest.is_empty());
}

/// Bytes as the stream of a server, from its header on.
pub(crate) fn stream(bytes: &[u8]) {
    let mut reader = StreamReader::default();
    let mut rest = bytes;
    while let Ok(Some(incoming)) = reader.read(&mut rest) {
        let Incoming::Element(element) = incoming else {
            continue;
        };
        let mut written = BytesMut::from(STREAM_HEADER);
        write_element(&element, &mut written).expect("what was read can be written");
        let mut again = StreamReader::default();
        let mut written = &written[..];
        let header = again.read(&mut written).expect("a stream");
        assert!(matches!(header, Some(Incoming::Header { .. })));
        let element_again = again.read(&mut written).expect("a stream");
        assert_eq!(element_again, Some(Incoming::Element(element)));
    }
}

/// Opens a stream such as a server's.
pub(crate) const STREAM_HEADER: &[u8] = b"<stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' id='1' version='1.0'>";

/// Bytes as a configuration, and as each value with a unit.
pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let _ = (parse_duration(text), parse_bandwidth(text));
    let _ = (parse_octets(text), parse_fraction(text));
    // A configuration includes files: what these bytes name is not theirs.
    if text.contains("include") {
        return;
    }
    if let Ok(config) = Config::parse(text) {
        config.text("a.b");
        config.texts("a");
        config.duration("a", std::time::Duration::ZERO);
        config.sections("viaduct");
        config.items("a");
        if let Err(faults) = config.check() {
            assert!(!faults.to_string().is_empty());
        }
    }
}

/// Bytes as the JSON that stanzas carry.
pub(crate) fn json(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(sources) = ConferenceSources::from_json(text) {
        let again = ConferenceSources::from_json(&sources.to_json()).expect("our own JSON");
        assert_eq!(again, sources);
    }
    if let Some(info) = SourceInfo::from_json(text) {
        assert_eq!(SourceInfo::from_json(&info.to_json()), Some(info));
    }
    if let Ok(request) = serde_json::from_str::<HttpRequest>(text) {
        let _ = Conference::from(request);
    }
    if let Ok(modify) = ConferenceModify::from_json_about("m", bytes) {
        let again = ConferenceModify::from_json(modify.to_json().as_bytes());
        assert_eq!(again.as_ref(), Ok(&modify));
    }
    if let Ok(modified) = ConferenceModified::from_json(bytes) {
        let again = ConferenceModified::from_json(modified.to_json().as_bytes());
        assert_eq!(again.as_ref(), Ok(&modified));
    }
}

/// A stanza as JSON and back. What has no form there is lost the first time.
fn colibri2_json(modify: &ConferenceModify) {
    let first = ConferenceModify::from_json(modify.to_json().as_bytes()).expect("our own JSON");
    let again = ConferenceModify::from_json(first.to_json().as_bytes());
    assert_eq!(again.as_ref(), Ok(&first));
}
