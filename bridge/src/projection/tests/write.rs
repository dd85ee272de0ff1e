//! Outgoing packets, octet by octet.

use super::descriptor::{L3T3_KEY, descriptor, hex};
use super::*;
use crate::rtp::RtpPacket;

/// A received VP8 packet with extensions that are kept, dropped and added.
#[test]
fn the_outgoing_packet_has_what_the_receiver_shall_have() {
    let mut received = vec![0xb1, 0xe4, 0x12, 0x34, 0, 0, 0, 9, 0, 0, 0, 7, 9, 9, 9, 9];
    received.extend_from_slice(&[0xbe, 0xde, 0, 3, 0x10, 0x85, 0x51, 1, 2, 0x30, 7]);
    received.extend_from_slice(&[0xb2, 1, 2, 3, 0]);
    received.extend_from_slice(&[0x90, 0xe0, 0x81, 0x2c, 20, 0x80, 0x55, 0x66, 0, 2]);
    let view = RtpPacket::parse(&received).expect("valid");
    let rewrite = Rewrite {
        ssrc: OUTPUT,
        index: PacketIndex(0x2_0001),
        timestamp: 0x0102_0304,
        marker: false,
        codec: CodecRewrite::Vp8 {
            picture_id: 41,
            tl0_pic_idx: 8,
        },
    };
    let extensions = EgressExtensions {
        keep: IdSet::from_iter([1, 13]),
        dependency_descriptor: Some(11),
        transport_cc: Some((5, 0xaabb)),
        abs_send_time: Some((3, 0x01_0203)),
    };
    let mut out = vec![0xff];
    write_packet(&view, &rewrite, &extensions, &mut out);
    let header = [0x91, 0x64, 0, 1, 1, 2, 3, 4, 0, 0, 0x0a, 0xbc, 9, 9, 9, 9];
    let block = [
        0xbe, 0xde, 0, 3, 0x10, 0x85, 0x32, 1, 2, 3, 0x51, 0xaa, 0xbb, 0, 0, 0,
    ];
    let payload = [0x90, 0xe0, 0x80, 41, 8, 0x80, 0x55, 0x66];
    assert_eq!(out[0], 0xff, "what was there stays");
    assert_eq!(out[1..], [&header[..], &block, &payload].concat());

    let mut out = Vec::new();
    let rtx = RtxHeader {
        payload_type: PayloadType(96),
        ssrc: Ssrc(5),
        index: PacketIndex(77),
    };
    write_rtx(&view, &rewrite, &rtx, &extensions, &mut out);
    let resent = RtpPacket::parse(&out).expect("valid");
    assert_eq!(resent.payload_type(), rtx.payload_type);
    assert_eq!((resent.ssrc(), resent.sequence_number()), (Ssrc(5), 77));
    assert_eq!(resent.timestamp(), rewrite.timestamp);
    assert_eq!(resent.payload(), [&[0, 1][..], &payload].concat());
}

#[test]
fn a_long_descriptor_is_written_in_the_two_byte_form() {
    let octets = descriptor(true, true, 5, 112, &hex(L3T3_KEY));
    let frame = History::default()
        .parse(PacketIndex(0), &octets)
        .expect("readable");
    let mut received = vec![0x90, 41, 0, 1, 0, 0, 0, 9, 0, 0, 0, 7, 0x10, 0, 0, 0];
    received.extend_from_slice(&[5, 2, 1, 2, 11, octets.len() as u8]);
    received.extend_from_slice(&octets);
    while !(received.len() - 16).is_multiple_of(4) {
        received.push(0);
    }
    received[15] = ((received.len() - 16) / 4) as u8;
    received.extend_from_slice(b"payload");
    let view = RtpPacket::parse(&received).expect("valid");
    let with = |rewrite| Rewrite {
        ssrc: OUTPUT,
        index: PacketIndex(1),
        timestamp: 1,
        marker: true,
        codec: CodecRewrite::Dd(rewrite),
    };
    let extensions = EgressExtensions {
        dependency_descriptor: Some(11),
        transport_cc: Some((5, 9)),
        ..EgressExtensions::default()
    };
    for mask in [None, Some(0b111)] {
        let rewrite = with(DescriptorRewrite::new(&frame, 7, 60, mask));
        let mut out = Vec::new();
        write_packet(&view, &rewrite, &extensions, &mut out);
        let written = RtpPacket::parse(&out).expect("valid");
        assert_eq!(written.payload(), b"payload");
        assert_eq!(written.extension(5), Some(&[0, 9][..]));
        let read = History::default()
            .parse(PacketIndex(0), written.extension(11).expect("kept"))
            .expect("readable");
        assert_eq!(read.frame_number, 7);
        // Modulo 64: 5 and 60 make 1.
        assert_eq!(read.structure.template_id_offset, 1);
        assert_eq!(read.structure.templates, frame.structure.templates);
        assert_eq!(read.structure.resolutions, frame.structure.resolutions);
        assert_eq!(read.active_targets, mask.unwrap_or(0x1ff));
        assert_eq!(read.dtis, frame.dtis);
    }
}
