//! The bridge channel from a client's side: who is let in, what is said, and
//! how it ends, with a real worker behind it.

use std::io::{Read, Write};

use viaduct_signalling::colibri2::Endpoint;

use crate::server::{Frame, Test};
use crate::websocket;

#[test]
fn a_channel_opens_for_its_endpoint_alone() {
    let test = Test::start("channel-opens");
    let path = test.create("a");
    let (beginning, password) = path.split_once("?pwd=").expect("a password");
    for (wrong, status) in [
        (format!("{beginning}?pwd=-{}", &password[1..]), 403),
        (beginning.to_owned(), 403),
        (path.replace("/a?", "/b?"), 403),
        (path.replace("/colibri-ws/here/", "/colibri-ws/here/0"), 101),
        (
            path.replace("/colibri-ws/here/", "/colibri-ws/here/f00"),
            403,
        ),
        (path.replace("/here/", "/there/"), 404),
        (path.replace("/colibri-ws/", "/colibri-relay-ws/"), 404),
    ] {
        let found = test.open(&wrong).map_or_else(|status| status, |_| 101);
        assert_eq!(found, status, "{wrong}");
    }
    let mut channel = test.open(&path).expect("let in");
    let Frame::Text(hello) = channel.read() else {
        panic!("closed");
    };
    assert!(hello.contains("ServerHello"), "{hello}");
}

#[test]
fn a_second_connection_replaces_the_first_and_expiry_closes_it() {
    let test = Test::start("channel-replaced");
    let path = test.create("a");
    let mut first = test.open(&path).expect("let in");
    assert!(matches!(first.read(), Frame::Text(_)));
    let mut second = test.open(&path).expect("let in");
    assert_eq!(first.close(), Frame::Close(1000, "replaced".into()));
    assert!(matches!(second.read(), Frame::Text(_)));
    let expire = Endpoint {
        expire: true,
        ..Endpoint::new("a")
    };
    test.modify(false, expire);
    assert_eq!(second.close(), Frame::Close(1001, "endpoint closed".into()));
    assert_eq!(test.open(&path).err(), Some(403));
}

#[test]
fn an_odd_endpoint_id_makes_a_path_that_works() {
    let test = Test::start("channel-odd");
    let path = test.create("a b/c?d%é");
    assert!(path.is_ascii() && !path.contains(' '), "{path}");
    assert!(test.open(&path).is_ok());
}

#[test]
fn a_message_beyond_the_bound_ends_the_channel() {
    let test = Test::start("channel-bound");
    let mut channel = test.open(&test.create("a")).expect("let in");
    assert!(matches!(channel.read(), Frame::Text(_)));
    // The head of a masked text frame of 16 MiB.
    let head = [0x81, 0x80 | 127, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    channel.0.write_all(&head).expect("written");
    let mut rest = Vec::new();
    let _ = channel.0.read_to_end(&mut rest);
    assert!(
        test.bridge
            .channels
            .errors
            .load(std::sync::atomic::Ordering::Relaxed)
            == 1
    );
}

/// The corpus of the fuzz target `websocket`.
#[test]
fn nothing_fuzzing_ever_found_comes_back() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/websocket");
    let mut files = 0;
    for entry in std::fs::read_dir(corpus).expect("the corpus") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
        websocket::session(&bytes);
        files += 1;
    }
    assert!(files > 0);
}
