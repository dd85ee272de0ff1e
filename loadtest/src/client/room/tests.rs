//! A room as Prosody and a focus show it, stanza by stanza.

use super::*;
use crate::client::jingle::Offer;
use crate::source::Codec;
use crate::source::tag::Kind as Source;
use rand::SeedableRng;
use viaduct_signalling::sources::VideoType;

const ROOM: &str = "demo@conference.meet.example";

fn room() -> Room {
    let settings = RoomSettings {
        domain: BareJid::new("meet.example").expect("an address"),
        room: BareJid::new(ROOM).expect("an address"),
        focus: Jid::new("focus.meet.example").expect("an address"),
        endpoint: "abcd1234".to_owned(),
        name: "Alice".to_owned(),
        codecs: vec!["vp8".to_owned()],
        xml_sources: false,
        data_channel: false,
    };
    Room::new(settings, 1).expect("a nickname")
}

fn give(room: &mut Room, now: Instant, stanza: &str) {
    let stanza = stanza.replacen(' ', " xmlns='jabber:client' ", 1);
    room.handle_stanza(now, &xml::parse(stanza.as_bytes()).expect("XML"));
}

fn stanzas(room: &mut Room) -> Vec<Element> {
    std::iter::from_fn(|| room.poll_stanza()).collect()
}

fn answer(room: &mut Room, now: Instant, request: &Element, ready: bool) {
    let id = request.attr("id").expect("an id");
    give(
        room,
        now,
        &format!(
            "<iq type='result' id='{id}' from='focus.meet.example'>\
             <conference xmlns='http://jitsi.org/protocol/focus' room='{ROOM}' \
             ready='{ready}' focusjid='focus@auth.meet.example'/></iq>"
        ),
    );
}

fn presence(nick: &str, extra: &str, status: &str) -> String {
    format!(
        "<presence from='{ROOM}/{nick}' {extra}><x xmlns='http://jabber.org/protocol/muc#user'>\
         <item affiliation='none' role='participant'/>{status}</x></presence>"
    )
}

/// A room that was asked for, joined, with another participant in it.
fn joined(now: Instant) -> Room {
    let mut room = room();
    room.start(now);
    let request = stanzas(&mut room);
    answer(&mut room, now, &request[0], true);
    stanzas(&mut room);
    give(&mut room, now, &presence("focus", "", ""));
    give(&mut room, now, &presence("ef567890", "", ""));
    give(
        &mut room,
        now,
        &presence("abcd1234", "", "<status code='110'/>"),
    );
    while room.poll_event().is_some() {}
    room
}

/// The offer of client-focus §4.1, shortened to what must be in one.
fn offer() -> String {
    let content = |media: &str, payloads: &str| {
        format!(
            "<content creator='initiator' name='{media}' senders='both'>\
             <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='{media}'>{payloads}\
             <rtp-hdrext xmlns='urn:xmpp:jingle:apps:rtp:rtp-hdrext:0' id='5' uri='http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01'/>\
             <rtcp-mux/></description>\
             <transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' ufrag='8m2k' pwd='5r0p3n9q1t8v6x2z4b7d0f3h'>\
             <rtcp-mux/><fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-256' setup='actpass'>AB:CD</fingerprint>\
             <web-socket xmlns='http://jitsi.org/protocol/colibri' url='ws://127.0.0.1:9090/colibri-ws/a/b/abcd1234?pwd=c'/>\
             <candidate component='1' foundation='1' generation='0' id='c1' network='0' ip='127.0.0.1' port='10000' priority='2130706431' protocol='udp' type='host'/>\
             </transport></content>"
        )
    };
    format!(
        "<iq type='set' id='j1' from='{ROOM}/focus'><jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' initiator='focus@auth.meet.example/f1' sid='s1'>{}{}\
         <group xmlns='urn:xmpp:jingle:apps:grouping:0' semantics='BUNDLE'><content name='audio'/><content name='video'/></group>\
         <bridge-session xmlns='http://jitsi.org/protocol/focus' id='b1'/>\
         <json-message xmlns='http://jitsi.org/jitmeet'>{}</json-message></jingle></iq>",
        content(
            "audio",
            "<payload-type id='111' name='opus' clockrate='48000' channels='2'/>"
        ),
        content(
            "video",
            "<payload-type id='41' name='AV1' clockrate='90000'/><payload-type id='100' name='VP8' clockrate='90000'/>\
             <payload-type id='96' name='rtx' clockrate='90000'><parameter name='apt' value='100'/></payload-type>"
        ),
        r#"{"sources":{"jvb":[[{"s":1,"n":"jvb-v0","m":"mixedmslabel mixedlabelvideo0"}],[],[]],"ef567890":[[{"s":1001,"n":"ef567890-v0","m":"a b"},{"s":1004,"n":"ef567890-v0","m":"a b"}],[["f",1001,1004]],[]]}}"#,
    )
}

#[test]
fn asks_until_the_focus_is_ready_and_joins() {
    let mut now = Instant::now();
    let mut room = room();
    room.start(now);
    let mut waits = Vec::new();
    for _ in 0..4 {
        let sent = stanzas(&mut room);
        assert!(sent[0].has_child("conference", ns::FOCUS));
        answer(&mut room, now, &sent[0], false);
        let next = room.next_timeout().expect("a retry");
        waits.push((next - now).as_secs());
        now = next;
        room.handle_timeout(now);
    }
    assert_eq!(waits, [1, 2, 4, 8]);
    let sent = stanzas(&mut room);
    answer(&mut room, now, &sent[0], true);
    let join = stanzas(&mut room);
    assert!(join[0].has_child("x", ns::MUC) && join[0].has_child("c", ns::CAPS));
    assert_eq!(
        join[0].attr("to"),
        Some("demo@conference.meet.example/abcd1234")
    );
    give(&mut room, now, &presence("focus", "", ""));
    give(
        &mut room,
        now,
        &presence("abcd1234", "", "<status code='110'/>"),
    );
    let events: Vec<_> = std::iter::from_fn(|| room.poll_event()).collect();
    assert!(
        matches!(events[..], [Event::Ready, Event::Joined { alone: true }]),
        "{events:?}"
    );
    give(&mut room, now, &presence("ef567890", "", ""));
    assert!(matches!(room.poll_event(), Some(Event::Company)));
}

#[test]
fn a_refused_join_is_tried_again_three_times() {
    let mut now = Instant::now();
    let mut room = room();
    room.start(now);
    let request = stanzas(&mut room);
    answer(&mut room, now, &request[0], true);
    let mut joins = 0;
    while !room.joined() {
        joins += stanzas(&mut room)
            .iter()
            .filter(|s| s.has_child("x", ns::MUC))
            .count();
        give(
            &mut room,
            now,
            &format!(
                "<presence type='error' from='{ROOM}/abcd1234'><error type='cancel'>\
                 <not-allowed xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>"
            ),
        );
        let Some(next) = room.next_timeout() else {
            break;
        };
        now = next;
        room.handle_timeout(now);
        if matches!(room.state, State::Gone) {
            break;
        }
    }
    assert_eq!(joins, 3);
}

#[test]
fn an_offer_is_acknowledged_read_and_answered() {
    let now = Instant::now();
    let mut room = joined(now);
    give(&mut room, now, &offer());
    let sent = stanzas(&mut room);
    assert_eq!(
        (sent[0].attr("type"), sent[0].attr("id")),
        (Some("result"), Some("j1"))
    );
    let Some(Event::Offer(jingle)) = room.poll_event() else {
        panic!("no offer");
    };
    let offer = Offer::read(&jingle, Codec::Vp8).expect("a good offer");
    assert_eq!((offer.formats.audio, offer.formats.video), (111, 100));
    assert_eq!(offer.formats.video_rtx, Some(96));
    assert_eq!(offer.formats.transport_cc, Some(5));
    assert!(offer.channel_url.is_some());
    assert_eq!(offer.sources.0["ef567890"].sources.len(), 2);

    let ours = crate::client::send::Sender::new(
        offer.formats.clone(),
        &mut rand::rngs::SmallRng::seed_from_u64(1),
    );
    let accept = offer.accept(
        "a",
        "b",
        ("u", "p"),
        &[1, 2],
        &ours.signalled("abcd1234", 1),
    );
    room.accept(now, &accept);
    let sent = stanzas(&mut room);
    let jingle: Jingle = sent[0]
        .children()
        .find_map(|c| xml::from_element(c).ok())
        .expect("one");
    assert_eq!(
        (jingle.action.as_str(), jingle.sid.as_str()),
        ("session-accept", "s1")
    );
    let video = jingle
        .content("video")
        .and_then(|c| c.description.as_ref())
        .expect("video");
    assert_eq!((video.sources.len(), video.ssrc_groups.len()), (6, 4));
    assert!(jingle.content("data").is_none(), "none was offered");
    assert_eq!(video.payload_types[0].id, 100);

    let id = sent[0].attr("id").expect("an id").to_owned();
    give(
        &mut room,
        now,
        &format!("<iq type='result' id='{id}' from='{ROOM}/focus'/>"),
    );
    assert!(matches!(room.poll_event(), Some(Event::Accepted)));
}

#[test]
fn sources_come_and_go_and_other_sessions_are_refused() {
    let now = Instant::now();
    let mut room = joined(now);
    give(&mut room, now, &offer());
    room.poll_event();
    stanzas(&mut room);
    let sources = |action: &str, sid: &str| {
        format!(
            "<iq type='set' id='x' from='{ROOM}/focus'><jingle xmlns='urn:xmpp:jingle:1' action='{action}' sid='{sid}'>\
             <json-message xmlns='http://jitsi.org/jitmeet'>{}</json-message></jingle></iq>",
            r#"{"sources":{"ef567890":[[],[],[{"s":1000,"n":"ef567890-a0","m":"c d"}]]}}"#
        )
    };
    give(&mut room, now, &sources("source-add", "s1"));
    assert!(matches!(room.poll_event(), Some(Event::SourcesAdded(_))));
    give(&mut room, now, &sources("source-remove", "s1"));
    assert!(matches!(room.poll_event(), Some(Event::SourcesRemoved(_))));
    stanzas(&mut room);
    give(&mut room, now, &sources("source-add", "other"));
    let refused = stanzas(&mut room);
    assert_eq!(refused[0].attr("type"), Some("error"));
    let terminate = format!(
        "<iq type='set' id='t' from='{ROOM}/focus'><jingle xmlns='urn:xmpp:jingle:1' action='session-terminate' sid='s1'><reason><success/></reason></jingle></iq>"
    );
    give(&mut room, now, &terminate);
    assert!(matches!(room.poll_event(), Some(Event::Terminated)));
    assert_eq!(stanzas(&mut room)[0].attr("type"), Some("result"));
}

/// An offer with a data content is answered with one.
#[test]
fn an_offered_data_channel_is_taken() {
    let now = Instant::now();
    let mut room = joined(now);
    let data = "<content creator='initiator' name='data' senders='both'>\
         <transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' ufrag='8m2k' pwd='5r0p3n9q1t8v6x2z4b7d0f3h'>\
         <fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-256' setup='actpass'>AB:CD</fingerprint>\
         <sctpmap xmlns='urn:xmpp:jingle:transports:dtls-sctp:1' number='5000' protocol='webrtc-datachannel' streams='1024'/>\
         </transport></content><group";
    let offer = offer().replacen("<group", data, 1).replace(
        "<content name='video'/>",
        "<content name='video'/><content name='data'/>",
    );
    give(&mut room, now, &offer);
    stanzas(&mut room);
    let Some(Event::Offer(jingle)) = room.poll_event() else {
        panic!("no offer");
    };
    let offer = Offer::read(&jingle, Codec::Av1).expect("a good offer");
    assert_eq!((offer.sctp_port, offer.formats.video), (Some(5000), 41));
    let accept = offer.accept("a", "b", ("u", "p"), &[1], &EndpointSources::default());
    let data = accept.content("data").expect("a data content");
    assert!(data.description.is_none(), "it describes no media");
    let transport = data.transport.as_ref().expect("a transport");
    assert_eq!(transport.sctp_maps[0].number, Some(5000));
    assert_eq!(transport.fingerprints.len(), 1);
}

/// A mute is a presence; another source is a source-add before.
#[test]
fn sources_are_published_muted_and_added() {
    let now = Instant::now();
    let mut room = joined(now);
    give(&mut room, now, &offer());
    room.poll_event();
    stanzas(&mut room);
    let state = |muted, video_type| SourceState {
        muted,
        video_type,
        media_type: None,
    };
    let camera = ("abcd1234-v0".to_owned(), state(true, VideoType::Camera));
    room.publish([camera]);
    let mut rng = rand::rngs::SmallRng::seed_from_u64(1);
    let mut sender = crate::client::send::Sender::new(Default::default(), &mut rng);
    let screen = sender.add(Source::Desktop, "abcd1234", 1, &mut rng);
    room.add_source(now, &screen);
    room.publish([("abcd1234-v1".to_owned(), state(false, VideoType::Desktop))]);
    let sent = stanzas(&mut room);
    let info = |stanza: &Element| {
        let child = stanza.children().find(|child| child.name() == "SourceInfo");
        child.expect("it says so").text()
    };
    assert_eq!(info(&sent[0]), r#"{"abcd1234-v0":{"muted":true}}"#);
    let jingle: Jingle = sent[1]
        .children()
        .find_map(|c| xml::from_element(c).ok())
        .expect("one");
    assert_eq!(jingle.action, Action::SourceAdd);
    let video = jingle.content("video").and_then(|c| c.description.as_ref());
    let video = video.expect("video");
    assert_eq!((video.sources.len(), video.ssrc_groups.len()), (6, 4));
    assert!(
        video
            .sources
            .iter()
            .all(|source| source.name.as_deref() == Some("abcd1234-v1"))
    );
    assert!(info(&sent[2]).contains(r#""abcd1234-v1":{"muted":false,"videoType":"desktop"}"#));
    let id = sent[1].attr("id").expect("an id").to_owned();
    give(
        &mut room,
        now,
        &format!("<iq type='result' id='{id}' from='{ROOM}/focus'/>"),
    );
    assert!(matches!(room.poll_event(), Some(Event::SourceAccepted)));

    let other = format!(
        "<presence from='{ROOM}/ef567890'><SourceInfo>{{\"ef567890-a0\":{{\"muted\":true}}}}</SourceInfo></presence>"
    );
    give(&mut room, now, &other);
    let Some(Event::SourceInfo(owner, info)) = room.poll_event() else {
        panic!("nothing was said of its sources");
    };
    assert!(owner == "ef567890" && info.0["ef567890-a0"].muted);
}

#[test]
fn answers_what_a_client_must_and_only_that() {
    let now = Instant::now();
    let mut room = joined(now);
    give(
        &mut room,
        now,
        &format!(
            "<iq type='get' id='d' from='{ROOM}/focus'><query xmlns='http://jabber.org/protocol/disco#info' node='n#v'/></iq>"
        ),
    );
    give(
        &mut room,
        now,
        &format!(
            "<iq type='set' id='m' from='{ROOM}/focus'><mute xmlns='http://jitsi.org/jitmeet/audio'>true</mute></iq>"
        ),
    );
    give(
        &mut room,
        now,
        "<iq type='get' id='u' from='meet.example'><query xmlns='jabber:iq:version'/></iq>",
    );
    let sent = stanzas(&mut room);
    let ids: Vec<_> = sent
        .iter()
        .map(|s| (s.attr("id"), s.attr("type")))
        .collect();
    assert_eq!(
        ids,
        [(Some("d"), Some("result")), (Some("u"), Some("error"))]
    );
    let info: DiscoInfo = sent[0]
        .children()
        .find_map(|c| xml::from_element(c).ok())
        .expect("disco");
    assert!(info.has(feature::JSON_SOURCES) && info.node.as_deref() == Some("n#v"));
    assert!(!info.has(feature::SCTP));
}
