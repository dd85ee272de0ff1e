//! A recorded call of jicofo with jitsi-videobridge.

use viaduct_signalling::iq::{Iq, Kind};
use viaduct_signalling::xml::Element;

use super::*;

/// Element names and attributes, with the values that are not this bridge's
/// own secrets, addresses and random numbers.
fn shape(element: &Element, depth: usize, lines: &mut Vec<String>) {
    let own = [
        "ufrag",
        "pwd",
        "url",
        "ssrc",
        "ip",
        "id",
        "port",
        "priority",
        "foundation",
    ];
    let attributes: std::collections::BTreeMap<_, _> = element
        .attrs()
        .into_iter()
        .map(|((_, name), value)| (name.to_string(), value.to_owned()))
        .map(|(name, value)| {
            let hidden = own.contains(&name.as_str())
                && !(name == "id" && matches!(element.name(), "endpoint" | "media-source"));
            let value = if hidden { String::new() } else { value };
            (name, value)
        })
        .collect();
    lines.push(format!(
        "{depth} {} {} {attributes:?}",
        element.name(),
        element.ns()
    ));
    let mut children: Vec<_> = element.children().collect();
    children.sort_by_key(|child| child.name().to_owned());
    // One candidate stands for all: how many there are is the host's affair.
    children.dedup_by_key(|child| {
        if child.name() == "candidate" {
            "candidate".to_owned()
        } else {
            format!("{child:?}")
        }
    });
    for child in children {
        shape(child, depth + 1, lines);
    }
}

/// Every request of a recorded call is answered as the recorded bridge
/// answered it, secrets, addresses and random numbers aside.
#[test]
fn a_recorded_call_is_answered_as_recorded() {
    let text = include_bytes!("../../../testdata/colibri2-call.xml");
    let stanzas = xml::parse(text).expect("the recording");
    let mut bridge = Colibri::new(
        Settings {
            candidates: settings().candidates[..1].to_vec(),
            ..settings()
        },
        StdRng::seed_from_u64(7),
    );
    let mut answers = Vec::new();
    let mut recorded = Vec::new();
    for stanza in stanzas.children() {
        let iq = Iq::from_element(stanza).expect("a recorded IQ");
        match &iq.kind {
            Kind::Get(payload) => {
                let request: ConferenceModify =
                    xml::from_element(payload).expect("a recorded request");
                let answer = bridge.handle(Instant::now(), &request);
                answers.push(xml::to_element(&answer.expect("an answer")));
            }
            Kind::Result(Some(payload)) => recorded.push(payload.clone()),
            other => panic!("not in the recording: {other:?}"),
        }
    }
    assert_eq!(answers.len(), 6);
    for (ours, theirs) in answers.iter().zip(&recorded) {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        shape(ours, 0, &mut a);
        shape(theirs, 0, &mut b);
        assert_eq!(a, b);
    }
    assert_eq!(bridge.registered(), Registered::default());
    let commands: Vec<Command> = bridge.take_dispatches().map(|d| d.command).collect();
    let update = commands
        .iter()
        .filter_map(|command| match command {
            Command::UpdateEndpoint { update, .. } => update.sources.as_ref(),
            _ => None,
        })
        .find(|sources| !sources.is_empty())
        .expect("sources were told");
    let video = &update[1];
    assert_eq!(video.encodings.len(), 3);
    assert!(video.encodings.iter().all(|e| e.rtx.is_some()));
    assert_eq!(video.encodings[0].primary, Ssrc(783_762_106));
}
