//! What must hold of the server of bridge channels whatever a client sends over
//! TCP: the connection comes to an end, and the next client is let in. The fuzz
//! target and the test that replays its corpus both include this file; the
//! bridge is that of the tests, with real sockets and a real worker.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use crate::server::Test;

/// Bit of the first octet: what follows is not frames on a channel but the
/// octets of a request.
const REQUEST: u8 = 1;

/// Head of a step that is octets as they are, and not the payload of a frame.
const RAW: u8 = 0xff;

/// One octet of what this is, then steps of two octets (the first octet of a
/// frame, the length of its payload), each followed by the payload.
pub(crate) fn session(bytes: &[u8]) {
    static SERVER: OnceLock<(Test, Mutex<String>)> = OnceLock::new();
    let (test, path) = SERVER.get_or_init(|| {
        let test = Test::start("fuzz-websocket");
        let path = test.create("a");
        (test, Mutex::new(path))
    });
    let mut path = path.lock().expect("no holder goes on after a panic");
    let Some((what, rest)) = bytes.split_first() else {
        return;
    };
    if what & REQUEST != 0 {
        let stream = TcpStream::connect(("127.0.0.1", test.port)).expect("the server");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a socket");
        end(stream, rest);
    } else {
        // An endpoint whose transport never connects is expired after a while.
        let channel = test.open(&path).or_else(|_| {
            *path = test.create("a");
            test.open(&path)
        });
        end(channel.expect("the password is right").0, &frames(rest));
    }
    assert_eq!(test.bridge.unhealthy(), None);
}

/// Masked frames (RFC 6455 §5.2); the mask is zero, so they read as they are.
fn frames(mut rest: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    while let [head, length, tail @ ..] = rest {
        let (payload, next) = tail.split_at(tail.len().min(usize::from(*length)));
        rest = next;
        if *head != RAW {
            sent.push(*head);
            match u8::try_from(payload.len()) {
                Ok(short @ 0..126) => sent.push(0x80 | short),
                _ => {
                    sent.push(0x80 | 126);
                    sent.extend_from_slice(&(payload.len() as u16).to_be_bytes());
                }
            }
            sent.extend_from_slice(&[0; 4]);
        }
        sent.extend_from_slice(payload);
    }
    sent
}

/// Sends the octets, says no more, and waits for the server to be done.
fn end(mut stream: TcpStream, octets: &[u8]) {
    // A server that has had enough may close before it has read all.
    let _ = stream.write_all(octets);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        let waits = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!waits, "the server neither answers nor closes");
    }
    // No port waits for stragglers: there are only so many.
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}
