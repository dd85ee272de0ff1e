//! What `/debug` tells, over HTTP and of real shards.

use serde_json::{Value, json};
use viaduct_signalling::colibri2::{ConferenceModify, Endpoint};

use crate::http::get;
use crate::server::{Frame, Test};

/// The conference's id in the bridge and its state, as this path tells it.
fn conference(test: &Test, path: &str) -> (String, Value) {
    let answer = get(test.private, path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    let state = answer.json();
    assert_eq!(state["shutdown_state"], "RUNNING");
    assert_eq!(state["drain"], false);
    assert_eq!(state["load_management"]["state"], "NOT_OVERLOADED");
    let conferences = state["conferences"].as_object().expect("conferences");
    assert_eq!(conferences.len(), 1, "{path}");
    let (id, state) = conferences.iter().next().expect("one");
    assert_eq!(state["id"], json!(id));
    (id.clone(), state.clone())
}

#[test]
fn conferences_and_endpoints_are_described() {
    let test = Test::start("debug");
    assert_eq!(get(test.private, "/debug").json()["conferences"], json!({}));
    let path = test.create("a");
    let mut channel = test.open(&path).expect("let in");
    assert!(matches!(channel.read(), Frame::Text(_)));

    let (id, short) = conference(&test, "/debug");
    assert!(path.contains(&format!("/{id}/")), "{path}");
    assert_eq!(short["meeting_id"], "m");
    assert_eq!(short["rtcstatsEnabled"], true);
    assert_eq!(short["endpoints"], json!({"a": null}));
    assert_eq!(short["relays"], json!({}));
    assert_eq!(short.get("creation_time"), None);

    for path in [
        "/debug?full=true",
        "/debug/m",
        &format!("/debug/{id}"),
        &format!("/debug/{id}/a"),
    ] {
        let (_, full) = conference(&test, path);
        assert_eq!(full["endpoints_left_out"], 0, "{path}");
        assert_eq!(full["workers_without_answer"], 0, "{path}");
        assert!(full["creation_time"].as_u64() > Some(1_700_000_000_000));
        let a = &full["endpoints"]["a"];
        assert_eq!(a["worker"], 0);
        assert_eq!(a["ice_transport"]["state"], "new");
        assert_eq!(a["ice_transport"]["remote"], Value::Null);
        assert_eq!(a["dtls_transport"]["is_connected"], false);
        assert_eq!(a["message_transport"]["current"], "websocket");
        assert_eq!(a["receives"], json!({}));
        assert_eq!(a["sources"], json!({}));
    }
    let (_, in_short) = conference(&test, &format!("/debug/{id}?full=false"));
    assert_eq!(in_short["endpoints"], json!({"a": null}));
    for path in ["/debug/none", "/debug/0", &format!("/debug/{id}/b")] {
        assert_eq!(get(test.private, path).status, 404, "{path}");
    }
    let moved = get(test.private, "/colibri/debug/m?full=false");
    assert_eq!(moved.status, 301);
    assert!(moved.head.contains("location: /debug/m?full=false"));

    let root = get(test.private, "/debug").json();
    assert_eq!(root["health"]["success"], true);
    assert_eq!(root["conferences_left_out"], 0);
    assert_eq!(root["xmpp"], json!({}));
}

#[test]
fn names_sources_and_mutes_are_told() {
    let test = Test::start("debug-sources");
    test.create("a");
    let text = r#"{"endpoints": [{"id": "a", "force-mute": {"audio": true, "video": false},
        "sources": [
            {"type": "audio", "id": "a-a0", "sources": [{"ssrc": 1, "name": "a-a0"}]},
            {"type": "video", "id": "a-v0",
             "sources": [{"ssrc": 2, "name": "a-v0"}, {"ssrc": 3, "name": "a-v0"}],
             "ssrc-groups": [{"semantics": "FID", "sources": [2, 3]}]}]}]}"#;
    let modify = ConferenceModify::from_json_about("m", text.as_bytes()).expect("a request");
    let now = std::time::Instant::now();
    let answer = test.bridge.colibri(|c| c.handle(now, &modify));
    answer.expect("an answer");
    let second = Endpoint {
        create: true,
        stats_id: Some("Bob".to_owned()),
        transport: Some(Default::default()),
        capabilities: vec![viaduct_signalling::colibri2::Capability {
            name: "source-names".to_owned(),
        }],
        ..Endpoint::new("b")
    };
    test.modify(false, second);
    let (_, state) = conference(&test, "/debug/m");
    let (a, b) = (&state["endpoints"]["a"], &state["endpoints"]["b"]);
    assert_eq!(b["stats_id"], "Bob");
    assert_eq!(a["force_mute_audio"], true);
    assert_eq!(a["force_mute_video"], false);
    assert_eq!(a["sources"]["a-a0"]["media_type"], "audio");
    let video = &a["sources"]["a-v0"];
    assert_eq!(video["video_type"], "camera");
    assert_eq!(video["encodings"][0]["ssrc"], 2);
    assert_eq!(video["encodings"][0]["rtx"], 3);
    assert_eq!(video["encodings"][0]["silent_ms"], Value::Null);
    assert_eq!(a["receives"], json!({}));
    let audio = &b["receives"]["a-a0"];
    assert_eq!(audio["not_sent"], "its sender is muted by a moderator");
    assert_eq!(audio["packets_sent"], 0);
    let video = &b["receives"]["a-v0"];
    assert_eq!(video["not_sent"], "the receiver is not connected");
}
