//! What must hold of a transport whatever datagrams it gets, from whomever:
//! nothing breaks, nothing unauthenticated is answered, no answer is longer
//! than its question, and addresses stay bounded. The fuzz target and the test
//! that replays its corpus both include this file.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use viaduct_bridge::command::{
    EndpointSettings, Fingerprint, IceCredentials, RemoteTransport, Setup,
};
use viaduct_bridge::io::certificate;
use viaduct_bridge::outbox::Outbox;
use viaduct_bridge::transport::{Certificate, Output, Transport, local_credentials};

/// Bits of the first octet of a step; its upper half is time in units of
/// 100 ms that passes before.
const SIGN_REQUEST: u8 = 1;
const SIGN_ANSWER: u8 = 2;
const SIGNAL: u8 = 4;

/// Steps of four octets (what to do, which address, length in units of eight
/// octets, place in it of a transaction to answer), each followed by the octets
/// of a datagram.
pub(crate) fn conversation(bytes: &[u8]) {
    static CERTIFICATE: OnceLock<Arc<Certificate>> = OnceLock::new();
    let certificate = CERTIFICATE.get_or_init(|| Arc::new(certificate::generate()));
    let mut now = Instant::now();
    let local = SocketAddr::from(([10, 0, 0, 1], 10_000));
    let ours = local_credentials(0, &[1; 24]);
    let theirs = local_credentials(1, &[2; 24]);
    let settings = EndpointSettings {
        local_ice: ours.clone(),
        ice_controlling: true,
        ice_tie_breaker: 1,
        local_candidates: Vec::new(),
        visitor: false,
    };
    let mut transport = Transport::new(now, &settings, Arc::clone(certificate), &[local]);
    let mut bound = BTreeSet::new();
    let mut asked = Vec::new();
    let mut rest = bytes;
    while let [what, port, length, place, tail @ ..] = rest {
        let (datagram, next) = tail.split_at(tail.len().min(usize::from(*length) * 8));
        rest = next;
        now += Duration::from_millis(100) * u32::from(what >> 4);
        transport.handle_timeout(now);
        drain(&mut transport, &mut bound, &mut asked);
        if what & SIGNAL != 0 {
            transport.set_remote(now, &remote(&theirs));
            drain(&mut transport, &mut bound, &mut asked);
        }
        let from = SocketAddr::from(([192, 0, 2, 1], u16::from(*port) + 1));
        let mut datagram = datagram.to_vec();
        if what & SIGN_REQUEST != 0 {
            let user = format!("{}:{}", ours.ufrag, theirs.ufrag);
            datagram = signed([0, 1], &[*place; 12], &user, &datagram, &ours);
        } else if what & SIGN_ANSWER != 0
            && let Some(transaction) = asked.get(usize::from(*place))
        {
            datagram = signed([1, 1], transaction, "", &datagram, &theirs);
        }
        let length = datagram.len();
        let refused = transport.handle(now, local, from, &mut datagram).is_err();
        for answer in drain(&mut transport, &mut bound, &mut asked) {
            assert!(!refused, "an answer to what was dropped");
            assert!(answer <= length, "an answer longer than its question");
        }
        assert!(bound.len() <= 32);
    }
}

fn remote(theirs: &IceCredentials) -> RemoteTransport {
    RemoteTransport {
        ice: Some(theirs.clone()),
        fingerprints: vec![Fingerprint {
            hash: "sha-256".to_owned(),
            bytes: vec![0; 32],
            setup: Setup::Active,
        }],
        candidates: Vec::new(),
    }
}

/// Takes all there is; answers the lengths of STUN answers.
fn drain(
    transport: &mut Transport,
    bound: &mut BTreeSet<SocketAddr>,
    asked: &mut Vec<Vec<u8>>,
) -> Vec<usize> {
    while let Some(output) = transport.poll() {
        match output {
            Output::AddressValidated(address) => assert!(bound.insert(address)),
            Output::AddressForgotten(address) => assert!(bound.remove(&address)),
            _ => {}
        }
    }
    let mut outbox = Outbox::default();
    transport.transmit(&mut outbox);
    let mut answers = Vec::new();
    for entry in outbox.entries() {
        let datagram = outbox.datagram(entry);
        match datagram[..2] {
            [0, 1] => asked.push(datagram[8..20].to_vec()),
            [1, _] => answers.push(datagram.len()),
            _ => {}
        }
    }
    answers
}

/// A STUN message with the given attributes and a right MESSAGE-INTEGRITY, so
/// that what lies behind the check is reached.
fn signed(
    kind: [u8; 2],
    transaction: &[u8],
    user: &str,
    attributes: &[u8],
    credentials: &IceCredentials,
) -> Vec<u8> {
    let mut body = Vec::new();
    if !user.is_empty() {
        attribute(&mut body, 0x0006, user.as_bytes());
        attribute(&mut body, 0x0024, &[1, 2, 3, 4]);
    }
    let whole = attributes.len() / 4 * 4;
    body.extend_from_slice(&attributes[..whole]);
    let mut message = kind.to_vec();
    let length = u16::try_from(body.len() + 24).expect("a datagram");
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
    message.extend_from_slice(transaction);
    message.extend_from_slice(&body);
    let key = hmac::Key::new(
        hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        credentials.pwd.as_bytes(),
    );
    let tag = hmac::sign(&key, &message);
    attribute(&mut message, 0x0008, tag.as_ref());
    message
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&u16::try_from(value.len()).expect("short").to_be_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}
