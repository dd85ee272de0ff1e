//! What must hold of everything that reads or renumbers media, whatever the
//! octets: no panic, bounded work, and no number given twice. The fuzz targets
//! and the test that replays their corpora both include this file.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use viaduct_bridge::projection::{
    CodecRewrite, CodecView, EgressExtensions, IdSet, IncomingVideo, LayerIndex, Projection,
    Rewrite, RtxHeader, write_packet, write_rtx,
};
use viaduct_bridge::rtcp::{self, Packet};
use viaduct_bridge::rtp::dependency_descriptor::{DescriptorRewrite, History, rewrite};
use viaduct_bridge::rtp::extension::{AudioLevel, abs_send_time, transport_cc};
use viaduct_bridge::rtp::picture_id::PictureId;
use viaduct_bridge::rtp::red::Blocks;
use viaduct_bridge::rtp::{
    PacketIndex, PayloadType, RtpPacket, Ssrc, av1, h264, header_len, rtx, vp8, vp9,
};
use viaduct_bridge::transport::srtp::{Inbound, InboundState, MasterKey, Profile};

/// One packet: parsed, restored from RTX, written anew.
pub(crate) fn rtp(bytes: &[u8]) {
    let Ok(packet) = RtpPacket::parse(bytes) else {
        return;
    };
    assert_eq!(header_len(bytes), Ok(packet.header_len()));
    for (_, data) in packet.extensions() {
        AudioLevel::parse(data);
        transport_cc(data);
        abs_send_time(data);
    }
    let rewrite = Rewrite {
        ssrc: Ssrc(1),
        index: PacketIndex(0x1_0002),
        timestamp: 3,
        marker: packet.marker(),
        codec: CodecRewrite::Vp8 {
            picture_id: 4,
            tl0_pic_idx: 5,
        },
    };
    let extensions = EgressExtensions {
        keep: IdSet::from_iter(0..=255),
        dependency_descriptor: None,
        transport_cc: Some((5, 6)),
        abs_send_time: Some((3, 7)),
    };
    let mut out = Vec::new();
    write_packet(&packet, &rewrite, &extensions, &mut out);
    let written = RtpPacket::parse(&out).expect("what is written is valid");
    assert_eq!(written.payload().len(), packet.payload().len());
    assert_eq!(
        written.extensions().count(),
        packet.extensions().count() + 2
    );
    let header = RtxHeader {
        payload_type: PayloadType(96),
        ssrc: Ssrc(8),
        index: PacketIndex(9),
    };
    out.clear();
    write_rtx(&packet, &rewrite, &header, &extensions, &mut out);
    let restored = rtx::restore(&mut out, packet.payload_type().0, Ssrc(1));
    if let Some(restored) = restored {
        let restored = RtpPacket::parse(restored).expect("what is restored is valid");
        assert_eq!(restored.sequence_number(), 2);
        assert_eq!(restored.payload().len(), packet.payload().len());
    } else {
        assert!(packet.payload().is_empty());
    }
    rtx::restore(&mut bytes.to_vec(), 100, Ssrc(1));
}

/// A compound: every packet read to its end.
pub(crate) fn rtcp(bytes: &[u8]) {
    for packet in rtcp::packets(bytes).flatten() {
        match packet {
            Packet::SenderReport(report) => drop(report.blocks().count()),
            Packet::ReceiverReport(report) => drop(report.blocks().count()),
            Packet::Nack(nack) => {
                let listed: Vec<u16> = nack.sequence_numbers().collect();
                let mut again = Vec::new();
                rtcp::nack::write(nack.sender, nack.media, listed, &mut again);
            }
            Packet::FullIntraRequest(fir) => drop(fir.requests().count()),
            Packet::Remb(remb) => drop(remb.ssrcs().count()),
            Packet::TransportFeedback(feedback) => {
                let count = feedback.arrivals().count();
                assert_eq!(count, usize::from(feedback.packet_count));
            }
            _ => {}
        }
    }
}

/// Descriptors one after another, each behind its length: read in order, and
/// written anew with and without a mask.
pub(crate) fn dependency_descriptor(bytes: &[u8]) {
    let mut history = History::default();
    let mut rest = bytes;
    let mut index = 0;
    while let [len, tail @ ..] = rest {
        let (descriptor, next) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = next;
        index += 1;
        let Ok(frame) = history.parse(PacketIndex(index), descriptor) else {
            continue;
        };
        for target in 0..frame.structure.decode_targets() {
            frame.structure.decodable_with(target);
            frame.structure.in_chain_of(target, frame.dtis);
            frame.structure.frame_rate_share(target);
            frame.structure.height(target);
        }
        for mask in [None, Some(frame.active_targets)] {
            let with = DescriptorRewrite::new(&frame, 7, 13, mask);
            let copy = rewrite(descriptor, &with).expect("it was read before");
            let mut receiver = history.clone();
            if frame.carries_structure {
                let read = receiver
                    .parse(PacketIndex(index), copy.as_slice())
                    .expect("the copy can be read");
                assert_eq!(read.frame_number, 7);
                assert_eq!(read.dtis, frame.dtis);
                assert_eq!(read.diffs, frame.diffs);
            }
        }
    }
}

/// A VP8 payload: read, patched, read again.
pub(crate) fn vp8(bytes: &[u8]) {
    let before = vp8::Descriptor::parse(bytes);
    let mut patched = bytes.to_vec();
    vp8::patch(&mut patched, 0x1234, 0x56);
    let after = vp8::Descriptor::parse(&patched);
    assert_eq!(before.map(|d| d.len), after.map(|d| d.len));
    CodecView::vp8(bytes);
}

/// A VP9 payload: read, patched, read again.
pub(crate) fn vp9(bytes: &[u8]) {
    let before = vp9::Descriptor::parse(bytes);
    let mut patched = bytes.to_vec();
    vp9::patch(&mut patched, 0x1234, 0x56);
    let after = vp9::Descriptor::parse(&patched);
    assert_eq!(before.map(|d| d.len), after.map(|d| d.len));
    if let (Ok(before), Ok(after)) = (before, after) {
        assert_eq!(before.references(), after.references());
        assert_eq!(before.structure, after.structure);
        assert_eq!(patched[after.len..], bytes[before.len..]);
    }
    CodecView::vp9(bytes);
}

/// An H.264 or AV1 payload: whether it begins a key frame.
pub(crate) fn h264(bytes: &[u8]) {
    if h264::begins_key_frame(bytes) {
        // Not even a packet of several units is shorter than one.
        assert!(!bytes.is_empty());
    }
    av1::begins_sequence(bytes);
}

/// Redundant audio: all blocks lie in the payload, one behind the other.
pub(crate) fn red(bytes: &[u8]) {
    if let Ok(blocks) = Blocks::parse(bytes) {
        let repeated = blocks.repeated();
        let data: usize = repeated.iter().map(|block| block.data.len()).sum();
        let headers = 4 * repeated.len() + 1;
        assert_eq!(headers + data + blocks.primary.len(), bytes.len());
        assert!(bytes.ends_with(blocks.primary));
    }
}

/// Forged packets: the first octet chooses profile and protocol. None opens,
/// and none leaves a trace.
pub(crate) fn srtp_open(bytes: &[u8]) {
    let Some((what, packet)) = bytes.split_first() else {
        return;
    };
    let profile = [
        Profile::AeadAes256Gcm,
        Profile::AeadAes128Gcm,
        Profile::Aes128CmSha1_80,
    ][usize::from(what % 3)];
    let key = [9; 32];
    let master = MasterKey::new(
        profile,
        &key[..profile.key_len()],
        &key[..profile.salt_len()],
    );
    let master = master.expect("of the profile's lengths");
    let mut inbound = Inbound::new(&master, InboundState::default());
    let mut packet = packet.to_vec();
    if what & 0x80 == 0 {
        assert!(inbound.open_rtp(&mut packet).is_err());
    } else {
        assert!(inbound.open_rtcp(&mut packet).is_err());
    }
    assert_eq!(inbound.state(), &InboundState::default());
}

/// Steps of eight octets, some with a descriptor or payload behind them: a change of
/// target, or a packet of one of four encodings that may contradict all others.
/// No index is given to two packets, and what is given can be written.
pub(crate) fn projection(bytes: &[u8]) {
    let start = Instant::now();
    let mut now = start;
    let mut projection = Projection::new(Ssrc(1));
    let mut histories: [History; 4] = Default::default();
    let mut last = [(0x1_0000u64, 0u32); 4];
    let mut given: HashMap<PacketIndex, (u8, u64)> = HashMap::new();
    let mut rest = bytes;
    while let Some((step, tail)) = rest.split_first_chunk::<8>() {
        let [what, index, time, id_high, id_low, flags, wait, len] = *step;
        rest = tail;
        now += Duration::from_millis(u64::from(wait));
        if what & 0xf0 == 0xf0 {
            let target = u16::from_be_bytes([id_high, id_low]) % 300;
            projection.set_target((flags & 1 == 0).then_some(LayerIndex(target)));
            continue;
        }
        let encoding = what & 3;
        let (newest, timestamp) = &mut last[usize::from(encoding)];
        *newest = newest.saturating_add_signed((index as i8).into());
        *timestamp = timestamp.wrapping_add_signed(i32::from(time as i8) * 900);
        let place = (encoding, *newest);
        let index = PacketIndex(*newest);
        let frame;
        let codec = match what >> 2 & 7 {
            0 => CodecView::Vp8(vp8::Descriptor {
                len: 6,
                start_of_frame: flags & 1 != 0,
                key_frame: flags & 3 == 3,
                picture_id: Some(PictureId {
                    value: u16::from_be_bytes([id_high & 0x7f, id_low]),
                    long: true,
                }),
                tl0_pic_idx: Some(id_low),
                temporal_id: Some(flags >> 4 & 3),
            }),
            1 | 2 => {
                let (descriptor, next) = tail.split_at(tail.len().min(usize::from(len)));
                rest = next;
                match histories[usize::from(encoding)].parse(index, descriptor) {
                    Ok(read) => frame = read,
                    Err(_) => continue,
                }
                CodecView::Dd(&frame)
            }
            4 | 5 => {
                let (payload, next) = tail.split_at(tail.len().min(usize::from(len)));
                rest = next;
                match CodecView::vp9(payload) {
                    Some(view) => view,
                    None => continue,
                }
            }
            _ => CodecView::Opaque {
                key: (flags & 4 == 0).then_some(flags & 2 != 0),
            },
        };
        let rewritten = projection.project(&IncomingVideo {
            encoding,
            index,
            timestamp: *timestamp,
            marker: flags & 8 != 0,
            payload_type: PayloadType(100),
            arrival: now,
            codec,
        });
        projection.needs_keyframe();
        projection.rewrite_sender_report(encoding, *timestamp);
        if let Some(rewritten) = rewritten {
            let before = given.insert(rewritten.index, place);
            assert!(before.is_none_or(|before| before == place));
        }
    }
}
