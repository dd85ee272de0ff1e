//! What must hold of a data channel whatever a peer sends over DTLS: nothing
//! breaks, no packet is too long for a datagram, no timer asks for the past, and
//! what is sent for one packet has a bound. The fuzz target and the tests that
//! replay its corpus both include this file.

use std::time::{Duration, Instant};

use viaduct_bridge::transport::sctp::MAX_PACKET;
use viaduct_bridge::transport::{ChannelEvent, DataChannel};

/// Packets for one of the peer's: a window of data that was lost, and what is
/// owed for it.
const MAX_ANSWERS: usize = 1100;

/// What the peer has learned of the bridge's end.
#[derive(Default)]
struct Peer {
    /// The tag that packets to the bridge have to bear.
    tag: [u8; 4],
    cookie: Vec<u8>,
    /// The next number of our own data, and of resets.
    next: u32,
    reset: u32,
    /// The last number of the bridge's.
    last: [u8; 4],
}

/// Steps of two octets (what to do; length), each followed by so many octets. The
/// upper half of the first is time in units of 100 ms that passes before.
pub(crate) fn conversation(bytes: &[u8]) {
    let mut now = Instant::now();
    let mut bridge = DataChannel::new();
    let mut peer = Peer {
        next: 7,
        reset: 7,
        ..Peer::default()
    };
    let mut rest = bytes;
    while let [what, length, tail @ ..] = rest {
        let (body, next) = tail.split_at(tail.len().min(usize::from(*length)));
        rest = next;
        now += Duration::from_millis(100) * u32::from(what >> 4);
        bridge.handle_timeout(now);
        drain(&mut bridge, &mut peer);
        match what & 0xf {
            0 => bridge.handle(now, body),
            1 => bridge.handle(now, &peer.packet(body)),
            2 => bridge.handle(now, &init(body)),
            3 => {
                let cookie = std::mem::take(&mut peer.cookie);
                bridge.handle(now, &peer.packet(&chunk(10, 0, &cookie)));
                peer.cookie = cookie;
            }
            4 => bridge.handle(now, &peer.data(body)),
            5 => {
                let mut value = peer.last.to_vec();
                value.extend_from_slice(&[0, 1, 0, 0]);
                value.extend_from_slice(body);
                bridge.handle(now, &peer.packet(&chunk(3, 0, &value)));
            }
            6 => bridge.handle(now, &peer.reset(body)),
            7 => {
                let text = "x".repeat(usize::from(*length) * 256);
                bridge.send(now, &text);
            }
            8 => bridge.close(now),
            // Nothing: time alone.
            _ => {}
        }
        drain(&mut bridge, &mut peer);
        bridge.handle_timeout(now);
        drain(&mut bridge, &mut peer);
        assert!(bridge.next_timeout().is_none_or(|due| due > now));
    }
}

fn drain(bridge: &mut DataChannel, peer: &mut Peer) {
    let mut answers = 0;
    while let Some(packet) = bridge.transmit() {
        answers += 1;
        assert!(packet.len() <= MAX_PACKET, "{} octets", packet.len());
        peer.learn(&packet);
    }
    assert!(answers <= MAX_ANSWERS, "{answers} packets");
    let mut open = None;
    while let Some(event) = bridge.poll() {
        match event {
            ChannelEvent::Opened => open = Some(true),
            ChannelEvent::Closed => assert_ne!(open.replace(false), Some(false), "closed twice"),
            ChannelEvent::Message(_) | ChannelEvent::Refused(_) => {}
        }
    }
}

impl Peer {
    /// A packet from the peer around these chunks.
    fn packet(&self, chunks: &[u8]) -> Vec<u8> {
        packet(self.tag, chunks)
    }

    /// Stream, flags, protocol, distance of the number from the next one; data.
    fn data(&mut self, body: &[u8]) -> Vec<u8> {
        let (&[stream, flags, protocol, ahead], data) = match body.split_first_chunk() {
            Some(split) => split,
            None => return self.packet(body),
        };
        let number = self.next.wrapping_add(u32::from(ahead));
        if ahead == 0 {
            self.next = number.wrapping_add(1);
        }
        let mut value = number.to_be_bytes().to_vec();
        value.extend_from_slice(&[0, stream, 0, flags >> 4, 0, 0, 0, protocol]);
        value.extend_from_slice(data);
        self.packet(&chunk(0, flags & 7, &value))
    }

    /// A request to reset the streams in `body` (RFC 6525 §4.1).
    fn reset(&mut self, body: &[u8]) -> Vec<u8> {
        let streams: Vec<u8> = body.iter().flat_map(|stream| [0, *stream]).collect();
        let mut value = vec![0, 13];
        value.extend_from_slice(&(16 + streams.len() as u16).to_be_bytes());
        value.extend_from_slice(&self.reset.to_be_bytes());
        value.extend_from_slice(&[0; 4]);
        value.extend_from_slice(&self.next.wrapping_sub(1).to_be_bytes());
        value.extend_from_slice(&streams);
        self.reset = self.reset.wrapping_add(1);
        self.packet(&chunk(130, 0, &value))
    }

    fn learn(&mut self, packet: &[u8]) {
        match packet.get(12) {
            // INIT ACK: the tag, and the state cookie among the parameters.
            Some(2) if packet.len() >= 32 => {
                self.tag.copy_from_slice(&packet[16..20]);
                let mut rest = &packet[32..];
                while let &[high, low, a, b, ref tail @ ..] = rest {
                    let length = usize::from(u16::from_be_bytes([a, b])).saturating_sub(4);
                    let length = length.min(tail.len());
                    if [high, low] == [0, 7] {
                        self.cookie = tail[..length].to_vec();
                    }
                    rest = &tail[length.next_multiple_of(4).min(tail.len())..];
                }
            }
            Some(0) if packet.len() >= 20 => self.last.copy_from_slice(&packet[16..20]),
            _ => {}
        }
    }
}

/// An INIT with the peer's tag and first number; parameters follow.
fn init(parameters: &[u8]) -> Vec<u8> {
    let mut value = vec![0, 0, 0, 9, 0, 1, 0, 0, 255, 255, 255, 255, 0, 0, 0, 7];
    value.extend_from_slice(parameters);
    packet([0; 4], &chunk(1, 0, &value))
}

fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let mut chunk = vec![kind, flags];
    chunk.extend_from_slice(&(value.len() as u16 + 4).to_be_bytes());
    chunk.extend_from_slice(value);
    chunk.resize(chunk.len().next_multiple_of(4), 0);
    chunk
}

/// A packet between the ports of data channels, with a right checksum, so that
/// what lies behind it is reached.
fn packet(tag: [u8; 4], chunks: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x13, 0x88, 0x13, 0x88];
    packet.extend_from_slice(&tag);
    packet.extend_from_slice(&[0; 4]);
    packet.extend_from_slice(chunks);
    let sum = crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

/// CRC32c of RFC 9260 appendix A, bit by bit.
pub(crate) fn crc32c(octets: &[u8]) -> u32 {
    !octets.iter().fold(u32::MAX, |crc, octet| {
        (0..8).fold(crc ^ u32::from(*octet), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}
