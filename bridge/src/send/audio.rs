//! An audio source on its way to one receiver.
//!
//! Redundant audio goes as it came to who has negotiated it. Others get what
//! is inside: the packet's own block, and of its predecessors those that have
//! not come.

use super::{Sent, Wire};
use crate::formats::Formats;
use crate::projection::{CodecRewrite, EgressExtensions, Rewrite, write_packet};
use crate::receive::window::{Seen, Window};
use crate::rtp::red::Blocks;
use crate::rtp::{PacketIndex, PayloadType, RtpPacket, Ssrc, header_len};
use crate::stats::DropCause;

/// An audio source on its way to one receiver: timestamps and sequence numbers
/// as received, but for the rollovers, which a receiver counts from its own
/// first packet.
#[derive(Debug)]
pub struct AudioOutput {
    pub ssrc: Ssrc,
    pub wanted: bool,
    pub sent: Sent,
    /// What is taken from an index, in wrapping arithmetic.
    shift: Option<u64>,
    /// The last index used before this output was made.
    floor: Option<PacketIndex>,
    highest: Option<PacketIndex>,
    /// What was sent of late, kept once redundant audio was taken apart: a
    /// packet that was restored can still come itself.
    unpacked: Option<Box<Window>>,
}

impl AudioOutput {
    /// `floor` is the last index already used under this SSRC.
    pub fn new(ssrc: Ssrc, wanted: bool, floor: Option<PacketIndex>) -> Self {
        Self {
            ssrc,
            wanted,
            sent: Sent::default(),
            shift: None,
            floor,
            highest: None,
            unpacked: None,
        }
    }

    /// The last index used under its SSRC.
    pub fn last_used(&self) -> Option<PacketIndex> {
        self.highest.or(self.floor)
    }

    /// The index for the receiver. The first lies in the lower half of the
    /// numbers, so that the receiver, which takes it to be in the first cycle,
    /// cannot be wrong about it if packets come out of order (RFC 3711 §3.3.1).
    fn place(&mut self, index: PacketIndex) -> Option<PacketIndex> {
        let floor = self.floor;
        let shift = *self.shift.get_or_insert_with(|| {
            let first = floor.map_or(index.0 & 0x7fff, |floor| floor.0 + 1);
            index.0.wrapping_sub(first)
        });
        let placed = PacketIndex(index.0.wrapping_sub(shift));
        // Older than the first packet: before the beginning, or a number that
        // may have been used.
        let before = placed.0 > u64::MAX / 2 || floor.is_some_and(|floor| placed <= floor);
        (!before).then_some(placed)
    }

    /// Sends a packet. `red`: it is redundant audio.
    pub fn send(
        &mut self,
        index: PacketIndex,
        packet: &RtpPacket<'_>,
        red: bool,
        formats: &Formats,
        wire: &mut Wire<'_>,
    ) {
        let Some(index) = self.place(index) else {
            wire.counters.drops[DropCause::TooOld] += 1;
            return;
        };
        let unpack = red && formats.get(packet.payload_type()).is_none();
        let result = self.check_new(index, unpack).and_then(|()| {
            if unpack {
                return self.unpack(index, packet, formats, wire);
            }
            let (payload_type, payload) = (packet.payload_type(), packet.payload());
            self.write(index, packet, (payload_type, payload), formats, wire);
            Ok(())
        });
        if let Err(cause) = result {
            wire.counters.drops[cause] += 1;
        }
    }

    /// Refuses packets that were restored before they came.
    fn check_new(&mut self, index: PacketIndex, unpack: bool) -> Result<(), DropCause> {
        if unpack {
            self.unpacked.get_or_insert_default();
        }
        let seen = self.unpacked.as_mut().map(|sent| sent.insert(index));
        match seen {
            None | Some(Seen::First) => Ok(()),
            Some(Seen::Again) => Err(DropCause::Duplicate),
            Some(Seen::TooOld) => Err(DropCause::TooOld),
        }
    }

    /// Sends the blocks of redundant audio as packets of their own.
    fn unpack(
        &mut self,
        index: PacketIndex,
        packet: &RtpPacket<'_>,
        formats: &Formats,
        wire: &mut Wire<'_>,
    ) -> Result<(), DropCause> {
        let blocks = Blocks::parse(packet.payload()).map_err(|_| DropCause::UnreadablePayload)?;
        let known = |payload_type: PayloadType| formats.get(payload_type).is_some();
        if !known(blocks.payload_type) {
            return Err(DropCause::UnknownPayloadType);
        }
        // The last block is that of the packet before, and so on.
        let repeated = blocks.repeated();
        let missing = self.highest.map_or(0, |highest| {
            index.0.saturating_sub(highest.0).saturating_sub(1) as usize
        });
        let restored = missing.min(repeated.len());
        for (block, back) in repeated[repeated.len() - restored..]
            .iter()
            .zip((1..=restored as u64).rev())
        {
            let lost = PacketIndex(index.0 - back);
            if block.data.is_empty() || !known(block.payload_type) {
                continue;
            }
            self.check_new(lost, true)?;
            let timestamp = packet.timestamp();
            let timestamp = timestamp.wrapping_sub(block.timestamp_offset.into());
            let ssrc = self.ssrc;
            let written = wire.rtp(lost, |out| {
                out.extend_from_slice(&[0x80, block.payload_type.0]);
                out.extend_from_slice(&lost.sequence_number().to_be_bytes());
                out.extend_from_slice(&timestamp.to_be_bytes());
                out.extend_from_slice(&ssrc.0.to_be_bytes());
                out.extend_from_slice(block.data);
            });
            if written {
                self.sent.count(block.data.len());
            }
        }
        let payload = (blocks.payload_type, blocks.primary);
        self.write(index, packet, payload, formats, wire);
        Ok(())
    }

    /// Sends a packet, with another payload than it came with.
    fn write(
        &mut self,
        index: PacketIndex,
        packet: &RtpPacket<'_>,
        (payload_type, payload): (PayloadType, &[u8]),
        formats: &Formats,
        wire: &mut Wire<'_>,
    ) {
        let rewrite = Rewrite {
            ssrc: self.ssrc,
            index,
            timestamp: packet.timestamp(),
            marker: packet.marker(),
            codec: CodecRewrite::None,
        };
        let extensions = EgressExtensions {
            keep: formats.keep_audio,
            ..EgressExtensions::default()
        };
        self.highest = self.highest.max(Some(index));
        let sent = wire.rtp(index, |out| {
            let start = out.len();
            write_packet(packet, &rewrite, &extensions, out);
            if payload_type != packet.payload_type() {
                let header = header_len(&out[start..]).expect("a header was just written");
                out[start + 1] = u8::from(rewrite.marker) << 7 | payload_type.0;
                out.truncate(start + header);
                out.extend_from_slice(payload);
            }
        });
        if sent {
            self.sent.count(payload.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::command::{Codec, Feedback, Media, MediaType, Payload};
    use crate::outbox::Outbox;
    use crate::stats::Counters;
    use crate::transport::srtp::{self, Inbound, InboundState, MasterKey, OutboundState, Profile};

    #[test]
    fn a_receiver_that_joins_late_starts_in_its_first_cycle() {
        let mut output = AudioOutput::new(Ssrc(1), true, None);
        let index = |i| Some(PacketIndex(i));
        assert_eq!(output.place(PacketIndex(0x7_ff05)), index(0x7f05));
        assert_eq!(output.place(PacketIndex(0x7_ff04)), index(0x7f04));
        assert_eq!(output.place(PacketIndex(0x8_0005)), index(0x8005));
        assert_eq!(output.place(PacketIndex(0x7_7fff)), None);
    }

    /// Formats of a receiver: Opus, and redundant audio if `red`.
    fn formats(red: bool) -> Formats {
        let payload = |number, codec| Payload {
            payload_type: PayloadType(number),
            codec,
            clock_rate: 48_000,
            feedback: Feedback::default(),
        };
        let mut payload_types = vec![payload(111, Codec::Opus)];
        payload_types.extend(red.then(|| payload(112, Codec::Red)));
        let mut formats = Formats::default();
        formats.add(&[Media {
            media_type: MediaType::Audio,
            payload_types,
            header_extensions: Vec::new(),
        }]);
        formats
    }

    /// Redundant audio numbered `n`, which repeats the two packets before it;
    /// each block is one octet, the number.
    fn redundant(n: u8) -> Vec<u8> {
        let blocks = [0xef, 0x1e, 0, 1, 0xef, 0x0f, 0, 1, 111, n - 2, n - 1, n];
        let timestamp = (960 * u32::from(n)).to_be_bytes();
        let header = [&[0x80, 0x80 | 112, 0, n], &timestamp[..], &[0, 0, 0, 1]];
        [&header.concat()[..], &blocks].concat()
    }

    /// What a receiver gets of packets, each with its index: payload type,
    /// index, timestamp and payload.
    fn sent(red: bool, packets: &[(u64, Vec<u8>)]) -> Vec<(u8, u16, u32, Vec<u8>)> {
        let master = MasterKey::new(Profile::Aes128CmSha1_80, &[1; 16], &[2; 14]);
        let master = master.expect("of the profile's lengths");
        let mut srtp = srtp::Outbound::new(&master, OutboundState::default());
        let mut inbound = Inbound::new(&master, InboundState::default());
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let (mut outbox, mut counters) = (Outbox::default(), Counters::default());
        let mut output = AudioOutput::new(Ssrc(7), true, None);
        let formats = formats(red);
        for (index, packet) in packets {
            let mut wire = Wire {
                from: address,
                to: address,
                srtp: &mut srtp,
                outbox: &mut outbox,
                counters: &mut counters,
            };
            let view = RtpPacket::parse(packet).expect("valid");
            output.send(PacketIndex(*index), &view, true, &formats, &mut wire);
        }
        let datagrams = outbox.entries().iter().map(|entry| outbox.datagram(entry));
        datagrams
            .map(|datagram| {
                let mut packet = datagram.to_vec();
                // Also refuses an index used twice.
                let (_, len) = inbound.open_rtp(&mut packet).expect("sealed");
                let view = RtpPacket::parse(&packet[..len]).expect("valid");
                assert_eq!(view.ssrc(), Ssrc(7));
                let (number, payload) = (view.sequence_number(), view.payload().to_vec());
                (view.payload_type().0, number, view.timestamp(), payload)
            })
            .collect()
    }

    #[test]
    fn redundant_audio_goes_as_it_is_to_who_knows_it() {
        let got = sent(true, &[(5, redundant(5))]);
        assert_eq!(got, [(112, 5, 4800, redundant(5)[12..].to_vec())]);
    }

    #[test]
    fn who_does_not_know_redundant_audio_gets_opus_and_what_was_lost() {
        let packet = |n: u8| (u64::from(n), redundant(n));
        let opus = |n: u8| (111, u16::from(n), 960 * u32::from(n), vec![n]);
        // In order; 7 and 8 lost, then 10 to 12; 8 comes late after all.
        let got = sent(false, &[5, 6, 9, 8, 13, 14].map(packet));
        assert_eq!(got, [5, 6, 7, 8, 9, 11, 12, 13, 14].map(opus));
    }

    #[test]
    fn an_ssrc_that_comes_back_goes_on_where_it_was() {
        let mut output = AudioOutput::new(Ssrc(1), true, Some(PacketIndex(0x1_0000)));
        let index = |i| Some(PacketIndex(i));
        assert_eq!(output.place(PacketIndex(5)), index(0x1_0001));
        assert_eq!(output.place(PacketIndex(4)), None);
        assert_eq!(output.place(PacketIndex(6)), index(0x1_0002));
    }
}
