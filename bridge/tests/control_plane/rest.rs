//! Bridge control over HTTP, as a load tester or a script does it.

use serde_json::{Value, json};
use viaduct_signalling::colibri2::ConferenceModified;

use crate::http::{Answer, get, request, request_as};
use crate::server::Test;

const CONFERENCES: &str = "/colibri/v2/conferences";

/// A request that creates a meeting with an endpoint.
fn creation(meeting: &str, endpoint: &str) -> Value {
    json!({
        "meeting-id": meeting, "name": "room@conference.example", "create": true,
        "endpoints": [endpoint_creation(endpoint)],
    })
}

fn endpoint_creation(id: &str) -> Value {
    json!({
        "id": id, "create": true, "stats-id": "Ada", "capabilities": ["source-names"],
        "medias": [{"type": "audio", "payload-types":
            [{"id": 111, "name": "opus", "clockrate": 48000, "channels": 2}]}],
        "transport": {"ice-controlling": true, "sctp": {}},
    })
}

fn post(test: &Test, body: &Value) -> Answer {
    request(test.private, "POST", CONFERENCES, &body.to_string())
}

fn patch(test: &Test, meeting: &str, body: &Value) -> Answer {
    let path = format!("{CONFERENCES}/{meeting}");
    request(test.private, "PATCH", &path, &body.to_string())
}

#[test]
fn a_conference_is_created_changed_and_ended() {
    let test = Test::start("rest-life");
    let created = post(&test, &creation("m", "a"));
    assert_eq!(created.status, 200, "{}", created.body);
    // As a client of Jitsi's bridge reads it: what is a number in XML is a string.
    let answer = created.json();
    let transport = &answer["endpoints"][0]["transport"]["transport"];
    assert_eq!(transport["xmlns"], "urn:xmpp:jingle:transports:ice-udp:1");
    assert_eq!(transport["candidates"][0]["ip"], "127.0.0.1");
    assert_eq!(transport["candidates"][0]["component"], "1");
    assert_eq!(transport["fingerprints"][0]["setup"], "actpass");
    let path = format!("ws://127.0.0.1:{}/colibri-ws/here/", test.port);
    let url = transport["web-sockets"][0].as_str().expect("a URL");
    assert!(url.starts_with(&path), "{url}");
    let sctp = &answer["endpoints"][0]["transport"]["sctp"];
    assert_eq!(*sctp, json!({"role": "SERVER", "port": 5000}));
    assert_eq!(answer["sources"][0]["id"], "jvb-a0");
    // And as we read it.
    let typed = ConferenceModified::from_json(created.body.as_bytes()).expect("an answer");
    let ice = typed.endpoints[0]
        .transport
        .as_ref()
        .and_then(|t| t.ice_udp.as_ref());
    let ice = ice.expect("a transport");
    assert!(ice.candidates[0].port.is_some_and(|port| port > 0));
    assert!(ice.fingerprints[0].bytes().is_some());

    let changed = patch(
        &test,
        "m",
        &json!({"endpoints": [{
            "id": "a",
            "transport": {"transport": {
                "xmlns": "urn:xmpp:jingle:transports:ice-udp:1", "ufrag": "abcd",
                "pwd": "0123456789012345678901",
                "fingerprints": [{"fingerprint": "AB:CD", "hash": "sha-256", "setup": "active"}],
                "candidates": [{"ip": "127.0.0.1", "port": "9", "priority": "1", "type": "host",
                                "protocol": "udp", "component": "1", "foundation": "1"}]}},
            "sources": [{"type": "audio", "id": "a-a0", "sources": [{"ssrc": 17, "name": "a-a0"}]}],
        }]}),
    );
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_eq!(changed.json(), json!({"endpoints": [{"id": "a"}]}));
    // A second one, by a path that does not say the name again.
    let joined = patch(&test, "m", &json!({"endpoints": [endpoint_creation("b")]}));
    assert_eq!(joined.json()["endpoints"][0]["id"], "b");
    assert_eq!(test.bridge.colibri(|c| c.registered().endpoints), 2);

    let left = patch(
        &test,
        "m",
        &json!({"endpoints": [{"id": "a", "expire": true}]}),
    );
    assert_eq!(
        left.json(),
        json!({"endpoints": [{"id": "a", "expire": true}]})
    );
    assert_eq!(test.bridge.colibri(|c| c.registered().endpoints), 1);
    let ended = patch(&test, "m", &json!({"expire": true}));
    assert_eq!((ended.status, ended.body.as_str()), (200, "{}"));
    assert_eq!(test.bridge.colibri(|c| c.registered().conferences), 0);
    assert_eq!(patch(&test, "m", &json!({"expire": true})).status, 404);
}

#[test]
fn what_cannot_be_done_is_refused_in_words() {
    let test = Test::start("rest-refusals");
    assert_eq!(post(&test, &creation("m", "a")).status, 200);
    let unknown = json!({"endpoints": [{"id": "x", "sources": []}]});
    let again = json!({"endpoints": [endpoint_creation("a")]});
    let no_transport = json!({"endpoints": [{"id": "n", "create": true}]});
    for (answer, status, text) in [
        (
            post(&test, &creation("m", "a")),
            400,
            "Failed to create conference: Conference already exists for ID: m",
        ),
        (
            post(&test, &json!({"meeting-id": "other"})),
            400,
            "Failed to create conference: Conference not found for ID: other",
        ),
        (
            patch(&test, "other", &json!({})),
            404,
            "Conference not found for ID: other",
        ),
        (
            patch(&test, "m", &unknown),
            400,
            "Failed to create conference: Endpoint not found for ID: x",
        ),
        (
            patch(&test, "m", &again),
            400,
            "Failed to create conference: Endpoint with ID a already exists",
        ),
        (
            patch(&test, "m", &no_transport),
            400,
            "Failed to create conference: Attempt to create endpoint with no <transport>",
        ),
    ] {
        assert_eq!((answer.status, answer.body.as_str()), (status, text));
    }
    for (method, path, status) in [
        ("GET", CONFERENCES, 501),
        ("GET", "/colibri/v2/conferences/m", 501),
        ("GET", "/colibri/v2/conferences/other", 404),
        ("DELETE", "/colibri/v2/conferences/m", 405),
        ("PATCH", CONFERENCES, 405),
        (
            "GET",
            "/colibri/v2/conferences/other/dominant-speaker-identification",
            404,
        ),
    ] {
        assert_eq!(
            request(test.private, method, path, "").status,
            status,
            "{path}"
        );
    }
    // None of it changed anything.
    let registered = test.bridge.colibri(|c| c.registered());
    assert_eq!((registered.conferences, registered.endpoints), (1, 1));
}

#[test]
fn what_is_no_request_is_refused_and_names_its_fault() {
    let test = Test::start("rest-malformed");
    let long = format!("{{\"meeting-id\":\"{}\"}}", "m".repeat(1 << 20));
    let deep = "{\"endpoints\":[".repeat(300);
    for (body, text) in [
        ("", "Failed to parse ConferenceModify JSON: no JSON: "),
        ("{", "Failed to parse ConferenceModify JSON: no JSON: "),
        (
            deep.as_str(),
            "Failed to parse ConferenceModify JSON: no JSON: ",
        ),
        (
            "[]",
            "Failed to parse ConferenceModify JSON: : an object expected",
        ),
        (
            r#"{"meeting-id":"m","create":true,"endpoints":[{"id":"a","create":1}]}"#,
            "Failed to parse ConferenceModify JSON: endpoints[0].create: true or false expected",
        ),
        (long.as_str(), "The body has more than 1048576 octets"),
    ] {
        let answer = request(test.private, "POST", CONFERENCES, body);
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert!(answer.body.starts_with(text), "{}", answer.body);
    }
    let registered = test.bridge.colibri(|c| c.registered());
    assert_eq!(registered.conferences, 0);
    for (kind, status) in [
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("Application/JSON; charset=utf-8", 200),
    ] {
        let body = json!({"meeting-id": "other", "create": true}).to_string();
        let answer = request_as(kind, test.private, "POST", CONFERENCES, &body);
        assert_eq!(answer.status, status, "{kind}");
    }
    // The server is none the worse for it.
    assert_eq!(post(&test, &creation("m", "a")).status, 200);
}

#[test]
fn who_speaks_is_told() {
    let test = Test::start("rest-speakers");
    assert_eq!(post(&test, &creation("m", "a")).status, 200);
    let path = "/colibri/v2/conferences/m/dominant-speaker-identification";
    let answer = get(test.private, path);
    assert_eq!(
        answer.json(),
        json!({
            "dominantEndpoint": "null", "dominantSpeakerIdentification": null,
            "endpointsBySpeechActivity": ["a"], "endpointsInLastNOrder": ["a"],
        })
    );
}
