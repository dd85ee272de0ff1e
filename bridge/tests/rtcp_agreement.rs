//! What this bridge writes as RTCP is read alike by itself and by an
//! independent implementation.

use std::time::Duration;

use proptest::prelude::*;
use rtcp::packet::Packet as TheirPacket;
use rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtcp::receiver_report::ReceiverReport;
use rtcp::sender_report::SenderReport;
use rtcp::transport_feedbacks::transport_layer_cc::{
    PacketStatusChunk, SymbolTypeTcc, TransportLayerCc,
};
use rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use viaduct_bridge::rtcp::report::{
    ReportBlock, SenderInfo, write_receiver_report, write_sender_report,
};
use viaduct_bridge::rtcp::{Packet, keyframe_request, nack, packets, remb, transport_cc};
use viaduct_bridge::rtp::Ssrc;

fn theirs(bytes: &[u8]) -> Vec<Box<dyn TheirPacket>> {
    rtcp::packet::unmarshal(&mut &bytes[..]).expect("they read it")
}

fn as_type<T: 'static>(packet: &dyn TheirPacket) -> &T {
    packet.as_any().downcast_ref().expect("of that type")
}

fn ours(bytes: &[u8]) -> Vec<Packet<'_>> {
    packets(bytes).map(|p| p.expect("we read it")).collect()
}

fn block() -> impl Strategy<Value = ReportBlock> {
    (
        (any::<u32>(), any::<u8>(), 0..0x7f_ffffi32),
        (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>()),
    )
        .prop_map(
            |((ssrc, fraction_lost, cumulative_lost), rest)| ReportBlock {
                ssrc: Ssrc(ssrc),
                fraction_lost,
                cumulative_lost,
                highest_sequence_number: rest.0,
                jitter: rest.1,
                last_sender_report: rest.2,
                delay_since_last_sender_report: rest.3,
            },
        )
}

/// Arrivals with losses and pauses, in microseconds.
fn arrivals() -> impl Strategy<Value = Vec<Option<u64>>> {
    let step = prop_oneof![8 => 0..5_000i64, 2 => 0..200_000i64, 1 => -3_000..0i64, 1 => 9_000_000..20_000_000i64];
    (
        0..100_000_000u64,
        prop::collection::vec((prop::bool::weighted(0.8), step), 1..700),
    )
        .prop_map(|(start, steps)| {
            let mut at = start;
            steps
                .into_iter()
                .map(|(arrived, step)| {
                    at = at.saturating_add_signed(step);
                    arrived.then_some(at)
                })
                .collect()
        })
}

/// Their reading of a feedback packet: arrivals in ticks of 250 us.
fn their_arrivals(feedback: &TransportLayerCc) -> Vec<Option<i64>> {
    let mut symbols = Vec::new();
    for chunk in &feedback.packet_chunks {
        match chunk {
            PacketStatusChunk::RunLengthChunk(run) => {
                symbols.extend((0..run.run_length).map(|_| run.packet_status_symbol));
            }
            PacketStatusChunk::StatusVectorChunk(vector) => {
                symbols.extend(vector.symbol_list.iter().copied());
            }
        }
    }
    symbols.truncate(usize::from(feedback.packet_status_count));
    let mut deltas = feedback.recv_deltas.iter();
    let mut ticks = i64::from(feedback.reference_time) * 256;
    symbols
        .into_iter()
        .map(|symbol| {
            (symbol != SymbolTypeTcc::PacketNotReceived).then(|| {
                ticks += deltas.next().expect("a delta for each").delta / 250;
                ticks
            })
        })
        .collect()
}

proptest! {
    #[test]
    fn reports(info: (u32, u64, u32, u32, u32), blocks in prop::collection::vec(block(), 0..70)) {
        let info = SenderInfo {
            ssrc: Ssrc(info.0), ntp: info.1, rtp_timestamp: info.2,
            packet_count: info.3, octet_count: info.4,
        };
        let mut out = Vec::new();
        write_sender_report(&info, &mut out);
        write_receiver_report(Ssrc(9), &blocks, &mut out);

        let read = theirs(&out);
        let sender: &SenderReport = as_type(read[0].as_ref());
        prop_assert_eq!((sender.ssrc, sender.ntp_time), (info.ssrc.0, info.ntp));
        prop_assert_eq!(
            (sender.rtp_time, sender.packet_count, sender.octet_count),
            (info.rtp_timestamp, info.packet_count, info.octet_count)
        );
        let mut expected = blocks.iter();
        for packet in &read[1..] {
            let report: &ReceiverReport = as_type(packet.as_ref());
            prop_assert_eq!(report.ssrc, 9);
            for theirs in &report.reports {
                let block = expected.next().expect("no more than written");
                prop_assert_eq!(theirs.ssrc, block.ssrc.0);
                prop_assert_eq!(theirs.fraction_lost, block.fraction_lost);
                prop_assert_eq!(theirs.total_lost, block.cumulative_lost as u32);
                prop_assert_eq!(theirs.last_sequence_number, block.highest_sequence_number);
                prop_assert_eq!(theirs.jitter, block.jitter);
                prop_assert_eq!(theirs.last_sender_report, block.last_sender_report);
                prop_assert_eq!(theirs.delay, block.delay_since_last_sender_report);
            }
        }
        prop_assert!(expected.next().is_none());

        let mut read = ours(&out).into_iter();
        match read.next() {
            Some(Packet::SenderReport(report)) => {
                prop_assert_eq!(report.info, info);
                prop_assert_eq!(report.blocks().count(), 0);
            }
            other => prop_assert!(false, "{:?}", other),
        }
        let mut back = Vec::new();
        for packet in read {
            match packet {
                Packet::ReceiverReport(report) => back.extend(report.blocks()),
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert_eq!(back, blocks);
    }

    #[test]
    fn negative_acknowledgements(first: u16, steps in prop::collection::vec(1u16..40, 0..200)) {
        let mut missing = vec![first];
        for step in steps {
            missing.push(missing[missing.len() - 1].wrapping_add(step));
        }
        let mut out = Vec::new();
        nack::write(Ssrc(1), Ssrc(2), missing.iter().copied(), &mut out);
        let read = theirs(&out);
        let packet: &TransportLayerNack = as_type(read[0].as_ref());
        prop_assert_eq!((packet.sender_ssrc, packet.media_ssrc), (1, 2));
        let listed: Vec<u16> = packet.nacks.iter().flat_map(|pair| pair.packet_list()).collect();
        prop_assert_eq!(&listed, &missing);
        match ours(&out)[..] {
            [Packet::Nack(read)] => {
                prop_assert_eq!((read.sender, read.media), (Ssrc(1), Ssrc(2)));
                prop_assert_eq!(read.sequence_numbers().collect::<Vec<_>>(), missing);
            }
            ref other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn key_frame_requests_and_estimates(
        sender: u32, media: u32, command: u8, bits_per_second in 1u64..1 << 40,
        ssrcs in prop::collection::vec(any::<u32>(), 0..5),
    ) {
        let ssrcs: Vec<Ssrc> = ssrcs.into_iter().map(Ssrc).collect();
        let mut out = Vec::new();
        keyframe_request::write_pli(Ssrc(sender), Ssrc(media), &mut out);
        keyframe_request::write_fir(Ssrc(sender), Ssrc(media), command, &mut out);
        remb::write(Ssrc(sender), bits_per_second, &ssrcs, &mut out);

        let read = theirs(&out);
        let pli: &PictureLossIndication = as_type(read[0].as_ref());
        prop_assert_eq!((pli.sender_ssrc, pli.media_ssrc), (sender, media));
        let fir: &FullIntraRequest = as_type(read[1].as_ref());
        prop_assert_eq!(fir.sender_ssrc, sender);
        prop_assert_eq!((fir.fir[0].ssrc, fir.fir[0].sequence_number), (media, command));
        let estimate: &ReceiverEstimatedMaximumBitrate = as_type(read[2].as_ref());
        prop_assert_eq!(estimate.sender_ssrc, sender);
        prop_assert_eq!(&estimate.ssrcs, &ssrcs.iter().map(|s| s.0).collect::<Vec<_>>());

        match ours(&out)[..] {
            [Packet::PictureLoss(pli), Packet::FullIntraRequest(fir), Packet::Remb(remb)] => {
                prop_assert_eq!((pli.sender, pli.media), (Ssrc(sender), Ssrc(media)));
                prop_assert_eq!(fir.requests().collect::<Vec<_>>(), [(Ssrc(media), command)]);
                prop_assert_eq!(remb.ssrcs().collect::<Vec<_>>(), ssrcs);
                prop_assert!(remb.bits_per_second <= bits_per_second);
                prop_assert!(bits_per_second - remb.bits_per_second <= bits_per_second >> 17);
                let same = (f64::from(estimate.bitrate) - remb.bits_per_second as f64).abs();
                prop_assert!(same <= remb.bits_per_second as f64 / 1e6);
            }
            ref other => prop_assert!(false, "{:?}", other),
        }
    }

    /// However packets were lost, delayed or overtaken: all feedback packets
    /// together tell every arrival to the quarter millisecond.
    #[test]
    fn transport_wide_feedback(base: u16, arrivals in arrivals()) {
        let mut rest = &arrivals[..];
        let mut reported = 0u16;
        let mut count = 0u8;
        while rest.iter().any(Option::is_some) {
            let mut out = Vec::new();
            let first = base.wrapping_add(reported);
            let times = rest.iter().map(|at| at.map(Duration::from_micros));
            let taken = transport_cc::write(Ssrc(1), Ssrc(2), count, first, times, &mut out);
            if taken == 0 {
                let skipped = rest.iter().take_while(|at| at.is_none()).count();
                prop_assert!(skipped >= transport_cc::MAX_PACKETS);
                reported = reported.wrapping_add(skipped as u16);
                rest = &rest[skipped..];
                continue;
            }
            prop_assert!(out.len() <= 1200);
            prop_assert!(rest[taken - 1].is_some(), "ends with an arrival");

            let expected: Vec<_> = rest[..taken].iter().map(|at| at.map(|at| (at / 250) as i64)).collect();
            let read = theirs(&out);
            let packet: &TransportLayerCc = as_type(read[0].as_ref());
            prop_assert_eq!((packet.sender_ssrc, packet.media_ssrc), (1, 2));
            prop_assert_eq!((packet.base_sequence_number, packet.fb_pkt_count), (first, count));
            prop_assert_eq!(&their_arrivals(packet), &expected);

            match ours(&out)[..] {
                [Packet::TransportFeedback(read)] => {
                    prop_assert_eq!((read.sender, read.media), (Ssrc(1), Ssrc(2)));
                    prop_assert_eq!(read.feedback_count, count);
                    let read: Vec<_> = read.arrivals().collect();
                    for (at, (number, arrival)) in read.iter().enumerate() {
                        prop_assert_eq!(*number, first.wrapping_add(at as u16));
                        prop_assert_eq!(arrival.map(|us| us / 250), expected[at]);
                    }
                    prop_assert_eq!(read.len(), taken);
                }
                ref other => prop_assert!(false, "{:?}", other),
            }
            reported = reported.wrapping_add(taken as u16);
            rest = &rest[taken..];
            count = count.wrapping_add(1);
        }
    }

    /// Reading and iterating over anything ends, and without a panic.
    #[test]
    fn any_octets_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 200u8..208, count in 0u8..32) {
        let mut bytes = bytes;
        if let [first, packet_type, high, ..] = &mut bytes[..] {
            (*first, *packet_type, *high) = (0x80 | *first & 0x20 | count, kind, 0);
        }
        for packet in packets(&bytes).flatten() {
            match packet {
                Packet::SenderReport(report) => drop(report.blocks().count()),
                Packet::ReceiverReport(report) => drop(report.blocks().count()),
                Packet::Nack(nack) => drop(nack.sequence_numbers().count()),
                Packet::FullIntraRequest(fir) => drop(fir.requests().count()),
                Packet::Remb(remb) => drop(remb.ssrcs().count()),
                Packet::TransportFeedback(feedback) => {
                    prop_assert_eq!(feedback.arrivals().count(), usize::from(feedback.packet_count));
                }
                _ => {}
            }
        }
    }
}

/// The example of a status vector in the draft's §3.1.4, and runs before it.
#[test]
fn a_mix_of_chunks_is_the_shortest() {
    let mut out = Vec::new();
    let arrived = |at| Some(Duration::from_millis(at));
    let mut arrivals = vec![arrived(64); 20];
    arrivals.extend([None, arrived(65), None, arrived(66)]);
    let taken = transport_cc::write(Ssrc(1), Ssrc(2), 0, 100, arrivals, &mut out);
    assert_eq!(taken, 24);
    // A run of 20 small deltas, then a one-bit vector 0101.
    assert_eq!(out[20..24], [0x20, 20, 0x94, 0]);
}
