//! The bridge's data channel against another SCTP stack: what is said arrives,
//! once and in order; packets fit the smallest datagram; idle associations ask
//! for nothing; a peer cannot grow one.

#[path = "../../fuzz/data_channel.rs"]
mod fuzz;

use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rtc_datachannel::message::message_channel_open::ChannelType;
use rtc_sctp::PayloadProtocolIdentifier;
use viaduct_bridge::transport::data_channel::{DcepError, MAX_BUFFERED};
use viaduct_bridge::transport::sctp::{MAX_MESSAGE, MAX_PACKET, MAX_RESETS, MAX_STREAMS};
use viaduct_bridge::transport::{ChannelEvent, ChannelRefusal, DataChannel, SctpError};

use crate::client::data_channel::ClientChannel;

const DELAY: Duration = Duration::from_millis(20);

/// Both ends, with a link in between that loses and delays.
struct Pair {
    now: Instant,
    bridge: DataChannel,
    client: ClientChannel,
    /// Of a thousand packets.
    lost: u32,
    random: SmallRng,
    to_bridge: Vec<(Instant, Vec<u8>)>,
    to_client: Vec<(Instant, Vec<u8>)>,
    heard: Vec<String>,
    said: Vec<String>,
    refusals: Vec<ChannelRefusal>,
    opened: usize,
    closed: usize,
    longest: usize,
}

impl Pair {
    fn new(seed: u64) -> Self {
        Self::dialled(seed, |now| ClientChannel::dial(now, 0))
    }

    fn dialled(seed: u64, dial: impl FnOnce(Instant) -> ClientChannel) -> Self {
        let now = Instant::now();
        Self {
            now,
            bridge: DataChannel::new(),
            client: dial(now),
            lost: 0,
            random: SmallRng::seed_from_u64(seed),
            to_bridge: Vec::new(),
            to_client: Vec::new(),
            heard: Vec::new(),
            said: Vec::new(),
            refusals: Vec::new(),
            opened: 0,
            closed: 0,
            longest: 0,
        }
    }

    fn open(seed: u64) -> Self {
        let mut pair = Self::new(seed);
        pair.run_for(Duration::from_secs(1));
        assert!(pair.client.open);
        assert_eq!(pair.opened, 1);
        pair
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.exchange();
            let due = [
                self.bridge.next_timeout(),
                self.client.next_timeout(),
                self.to_bridge.first().map(|(at, _)| *at),
                self.to_client.first().map(|(at, _)| *at),
            ];
            match due.into_iter().flatten().min().filter(|due| *due <= end) {
                Some(due) => self.now = self.now.max(due),
                None => break,
            }
            let now = self.now;
            let arrived = |(at, _): &mut (Instant, Vec<u8>)| *at <= now;
            for (_, packet) in self.to_bridge.extract_if(.., arrived) {
                self.bridge.handle(now, &packet);
            }
            for (_, packet) in self.to_client.extract_if(.., arrived) {
                self.client.handle(now, &packet);
            }
            self.bridge.handle_timeout(now);
            self.client.handle_timeout(now);
        }
        self.now = end;
    }

    fn exchange(&mut self) {
        while let Some(event) = self.bridge.poll() {
            match event {
                ChannelEvent::Opened => self.opened += 1,
                ChannelEvent::Closed => self.closed += 1,
                ChannelEvent::Message(text) => self.heard.push(text),
                ChannelEvent::Refused(refusal) => self.refusals.push(refusal),
            }
        }
        while let Some(text) = self.client.hear() {
            self.said.push(text);
        }
        let arrives = self.now + DELAY;
        while let Some(packet) = self.bridge.transmit() {
            self.longest = self.longest.max(packet.len());
            if self.random.random_range(0..1000) >= self.lost {
                self.to_client.push((arrives, packet.to_vec()));
            }
        }
        let (random, lost, to_bridge) = (&mut self.random, self.lost, &mut self.to_bridge);
        self.client.transmit(self.now, |packet| {
            if random.random_range(0..1000) >= lost {
                to_bridge.push((arrives, packet.to_vec()));
            }
        });
    }
}

fn text(number: usize, len: usize) -> String {
    format!("{number:030}{}", "x".repeat(len))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is said, and lost, each side hears the other's words once and in
    /// order, in packets that fit a datagram of 1280 octets.
    #[test]
    fn what_is_said_arrives_once_in_order_and_in_small_packets(
        seed in any::<u64>(),
        // At a quarter lost each way the client's library gives up now and then.
        lost in 0u32..100,
        lens in vec(
            prop_oneof![6 => 0usize..200, 3 => 0usize..3000, 1 => Just(MAX_MESSAGE - 30)],
            1..40,
        ),
    ) {
        let mut pair = Pair::open(seed);
        pair.lost = lost;
        for (number, len) in lens.iter().enumerate() {
            let now = pair.now;
            while !pair.bridge.send(now, &text(number, *len)) {
                // Beyond the bound it is told so, and has to wait.
                pair.run_for(Duration::from_millis(100));
            }
            pair.client.say(now, &text(number, *len));
            if number % 7 == 0 {
                pair.run_for(Duration::from_millis(30));
            }
        }
        for _ in 0..600 {
            pair.run_for(Duration::from_secs(1));
            if pair.said.len() + pair.heard.len() == 2 * lens.len() {
                break;
            }
        }
        let expected: Vec<String> =
            lens.iter().enumerate().map(|(number, len)| text(number, *len)).collect();
        prop_assert!(pair.said == expected, "the client missed something");
        prop_assert!(pair.heard == expected, "the bridge missed something");
        prop_assert!(pair.longest <= MAX_PACKET, "{} octets", pair.longest);
        let only_window = pair.refusals.iter().all(|refusal| {
            matches!(refusal, ChannelRefusal::Sctp(SctpError::Window | SctpError::Init))
        });
        prop_assert!(only_window, "{:?}", pair.refusals);
    }
}

/// After all is said and acknowledged no timer runs.
#[test]
fn an_idle_association_asks_for_nothing() {
    let mut pair = Pair::open(1);
    pair.client.say(pair.now, "hello");
    let now = pair.now;
    assert!(pair.bridge.send(now, "hello"));
    pair.run_for(Duration::from_secs(10));
    assert_eq!((pair.heard.len(), pair.said.len()), (1, 1));
    assert_eq!(pair.bridge.next_timeout(), None);
}

/// The handshake outlives loss of any of its packets, and each repetition.
#[test]
fn a_channel_opens_through_loss() {
    for seed in 0..30 {
        let mut pair = Pair::new(seed);
        pair.lost = 250;
        pair.run_for(Duration::from_secs(120));
        assert!(pair.client.open, "seed {seed}");
        assert_eq!(pair.opened, 1, "seed {seed}");
    }
}

#[test]
fn a_second_channel_is_closed_and_the_first_goes_on() {
    let mut pair = Pair::open(2);
    pair.client.open_another(pair.now, 2, ChannelType::Reliable);
    pair.run_for(Duration::from_secs(2));
    assert_eq!(pair.refusals, [ChannelRefusal::TooMany]);
    assert_eq!(pair.client.closed, [2]);
    pair.client.say(pair.now, "still here");
    pair.run_for(Duration::from_secs(2));
    assert_eq!(pair.heard, ["still here"]);
    assert_eq!((pair.opened, pair.closed), (1, 0));
}

#[test]
fn a_partially_reliable_channel_is_refused() {
    let mut pair = Pair::dialled(3, |now| {
        ClientChannel::dial_with(now, 0, ChannelType::PartialReliableRexmit)
    });
    pair.run_for(Duration::from_secs(2));
    assert_eq!(pair.refusals, [ChannelRefusal::Dcep(DcepError::Unreliable)]);
    assert_eq!(pair.client.closed, [0]);
    assert_eq!(pair.opened, 0);
}

#[test]
fn a_channel_that_its_client_closed_can_be_opened_again() {
    let mut pair = Pair::open(4);
    pair.client.close(pair.now);
    pair.run_for(Duration::from_secs(2));
    assert_eq!((pair.opened, pair.closed), (1, 1));
    let now = pair.now;
    assert!(!pair.bridge.send(now, "nobody listens"));
    pair.client.reopen(now, 2);
    pair.run_for(Duration::from_secs(2));
    assert!(pair.client.open);
    assert_eq!((pair.opened, pair.closed), (2, 1));
    // And with another association, once this one is gone.
    let now = pair.now;
    pair.bridge.close(now);
    pair.client = ClientChannel::dial(now, 0);
    pair.run_for(Duration::from_secs(2));
    assert!(pair.client.open);
    assert_eq!((pair.opened, pair.closed), (3, 2));
}

#[test]
fn what_is_no_text_is_passed_over() {
    let mut pair = Pair::open(5);
    pair.client
        .say_as(pair.now, &[1, 2, 3], PayloadProtocolIdentifier::Binary);
    pair.client
        .say_as(pair.now, &[0xff, 0xfe], PayloadProtocolIdentifier::String);
    pair.client
        .say_as(pair.now, &[0], PayloadProtocolIdentifier::StringEmpty);
    pair.client.say(pair.now, "text");
    pair.run_for(Duration::from_secs(2));
    assert_eq!(pair.refusals, [ChannelRefusal::Message; 2]);
    assert_eq!(pair.heard, ["", "text"]);
}

/// What does not leave is not queued without end, and the peer is greeted anew.
#[test]
fn a_peer_that_takes_nothing_is_not_queued_for() {
    let mut pair = Pair::open(6);
    pair.lost = 1000;
    let long = "x".repeat(MAX_MESSAGE);
    let now = pair.now;
    let taken = (0..100).filter(|_| pair.bridge.send(now, &long)).count();
    assert_eq!(taken, MAX_BUFFERED / MAX_MESSAGE);
    pair.run_for(Duration::from_secs(10));
    assert_eq!(pair.opened, 1);
    pair.lost = 0;
    pair.run_for(Duration::from_secs(60));
    assert_eq!(pair.said.len(), taken);
    assert_eq!(pair.opened, 2, "it is told that it missed something");
    let now = pair.now;
    assert!(pair.bridge.send(now, "on"));
}

/// A packet of ours by hand, to do what no library would.
struct Forger {
    pair: Pair,
    tag: [u8; 4],
    next: u32,
}

const DATA: u8 = 0;
const RE_CONFIG: u8 = 130;
const FORWARD_TSN: u8 = 192;

impl Forger {
    /// Listens to what the client sends, to go on in its name.
    fn new(seed: u64) -> Self {
        let mut pair = Pair::open(seed);
        pair.client.say(pair.now, "the last word");
        let mut last = Vec::new();
        pair.client
            .transmit(pair.now, |packet| last = packet.to_vec());
        let now = pair.now;
        pair.bridge.handle(now, &last);
        pair.exchange();
        let tsn = last[16..20].first_chunk().expect("a DATA chunk");
        Self {
            pair,
            tag: *last[4..].first_chunk().expect("a header"),
            next: u32::from_be_bytes(*tsn).wrapping_add(1),
        }
    }

    fn send(&mut self, kind: u8, flags: u8, value: &[u8]) {
        let mut packet = vec![0x13, 0x88, 0x13, 0x88];
        packet.extend_from_slice(&self.tag);
        packet.extend_from_slice(&[0; 4]);
        packet.extend_from_slice(&[kind, flags]);
        packet.extend_from_slice(&(value.len() as u16 + 4).to_be_bytes());
        packet.extend_from_slice(value);
        packet.resize(packet.len().next_multiple_of(4), 0);
        let sum = fuzz::crc32c(&packet);
        packet[8..12].copy_from_slice(&sum.to_le_bytes());
        let now = self.pair.now;
        self.pair.bridge.handle(now, &packet);
        self.pair.exchange();
    }

    fn data(&mut self, tsn: u32, stream: u16, flags: u8) {
        let mut value = tsn.to_be_bytes().to_vec();
        value.extend_from_slice(&stream.to_be_bytes());
        value.extend_from_slice(&[0, 1, 0, 0, 0, 51, b'x']);
        self.send(DATA, flags, &value);
    }

    fn refused(&mut self, error: SctpError) -> usize {
        let refused = ChannelRefusal::Sctp(error);
        let refusals = std::mem::take(&mut self.pair.refusals);
        assert!(refusals.iter().all(|r| *r == refused), "{refusals:?}");
        refusals.len()
    }
}

/// Middle fragments of a message without end, in order and far ahead.
#[test]
fn fragments_without_end_are_held_within_bounds() {
    let mut forger = Forger::new(7);
    let first = forger.next;
    for number in 0..5000 {
        forger.data(first.wrapping_add(number), 0, 0);
    }
    assert_eq!(forger.refused(SctpError::Window), 5000 - 1024);
    let mut forger = Forger::new(8);
    let far = forger.next.wrapping_add(5000);
    forger.data(far, 0, 3);
    assert_eq!(forger.refused(SctpError::Window), 1);
}

#[test]
fn streams_are_held_within_bounds() {
    let mut forger = Forger::new(9);
    for stream in 0..100 {
        let tsn = forger.next;
        forger.data(tsn, 2 * stream, 2);
        forger.next = tsn.wrapping_add(1);
    }
    assert_eq!(forger.refused(SctpError::Streams), 100 - MAX_STREAMS);
}

#[test]
fn resets_and_abandoned_data_are_held_within_bounds() {
    let mut forger = Forger::new(10);
    for _ in 0..MAX_RESETS + 10 {
        // An Outgoing SSN Reset Request that makes no sense (RFC 6525 §4.1).
        let mut value = vec![0, 13, 0, 16];
        value.extend_from_slice(&[0; 12]);
        forger.send(RE_CONFIG, 0, &value);
    }
    assert_eq!(forger.refused(SctpError::Resets), 10);
    let ahead = forger.next.wrapping_add(1 << 30);
    forger.send(FORWARD_TSN, 0, &ahead.to_be_bytes());
    assert_eq!(forger.refused(SctpError::Abandoned), 1);
    forger.pair.run_for(Duration::from_secs(1));
    assert!(forger.pair.client.open && forger.pair.closed == 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Steps of the fuzz target after a handshake, most of them close to sense.
    #[test]
    fn no_conversation_is_a_surprise(
        steps in vec((any::<u8>(), vec(any::<u8>(), 0..40)), 1..60),
    ) {
        let mut bytes = vec![2, 0, 3, 0];
        for (what, body) in steps {
            bytes.extend_from_slice(&[what, body.len() as u8]);
            // Few streams, whole messages, and numbers nearby.
            bytes.extend(body.iter().enumerate().map(|(at, octet)| match at {
                0 => octet & 3,
                1 => octet | 3,
                2 => [50, 51, 53, *octet][usize::from(octet & 3)],
                3 => octet & 1,
                _ => *octet,
            }));
        }
        fuzz::conversation(&bytes);
    }
}
