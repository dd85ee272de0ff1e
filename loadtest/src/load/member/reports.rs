//! RTCP of a member, both ways: what the server wants of its sources, and what it
//! says of what came.

use std::time::Instant;

use bytes::Bytes;
use rtcp::Packet;
use rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtcp::sender_report::SenderReport;
use rtcp::transport_feedbacks::transport_layer_nack::{
    TransportLayerNack, nack_pairs_from_sequence_numbers,
};

use super::super::found::Around;
use super::super::layout::{Layout, StreamOf};
use super::{FEEDBACK_INTERVAL, KEY_PATIENCE, Member, NACK_INTERVAL, REPORT_INTERVAL};

impl Member {
    pub(super) fn handle_rtcp(&mut self, now: Instant, mut compound: Bytes) {
        let Ok(packets) = rtcp::packet::unmarshal(&mut compound) else {
            self.found.corrupt += 1;
            return;
        };
        for packet in packets {
            let packet = packet.as_any();
            if let Some(report) = packet.downcast_ref::<SenderReport>() {
                self.reports.receive_report(now, report);
            } else if let Some(nack) = packet.downcast_ref::<TransportLayerNack>() {
                let transport = &mut self.transport;
                self.sender
                    .resend(now, nack, |packet| transport.send_rtp(packet));
            } else if let Some(pli) = packet.downcast_ref::<PictureLossIndication>() {
                self.key_frame_wanted(pli.media_ssrc);
            } else if let Some(fir) = packet.downcast_ref::<FullIntraRequest>() {
                for entry in &fir.fir {
                    self.key_frame_wanted(entry.ssrc);
                }
            }
        }
    }

    fn key_frame_wanted(&mut self, ssrc: u32) {
        let kind = self.sender.video_of(ssrc);
        if let (Some(kind), Some(media)) = (kind, &mut self.media)
            && let Some(video) = media.video(kind)
        {
            self.sender.stats.key_requests += 1;
            video.request_key_frame();
        }
    }

    /// RTCP that is due, as one compound packet.
    pub(super) fn report(&mut self, now: Instant, around: &Around) {
        let ssrc = self.sender.feedback_ssrc();
        let mut packets: Vec<Box<dyn Packet>> = Vec::new();
        if now >= self.report_due {
            self.report_due = now + REPORT_INTERVAL;
            if self.sending {
                for report in self.sender.reports(now, &around.clock) {
                    packets.push(Box::new(report));
                }
            }
            packets.extend(self.reports.receiver_reports(now, ssrc));
        }
        if now >= self.feedback_due {
            self.feedback_due = now + FEEDBACK_INTERVAL;
            if let Some(feedback) = self.reports.transport(ssrc, &around.clock) {
                packets.push(Box::new(feedback));
            }
        }
        if now >= self.nack_due {
            self.nack_due = now + NACK_INTERVAL;
            self.repair(now, ssrc, &mut packets);
        }
        if packets.is_empty() {
            return;
        }
        match rtcp::packet::marshal(&packets) {
            Ok(compound) => {
                self.transport.send_rtcp(&compound);
            }
            Err(error) => tracing::warn!(%error, "RTCP not sent"),
        }
    }

    fn repair(&mut self, now: Instant, ssrc: u32, packets: &mut Vec<Box<dyn Packet>>) {
        let layout: Layout = self.settings.layout;
        let ask = now >= self.key_asked + KEY_PATIENCE;
        for (place, slot) in (self.first..).zip(&mut self.slots) {
            let seat = slot.seat(place);
            let media_ssrc = layout.ssrc(seat, StreamOf::Camera(0));
            let wanted = slot.video.wanted(now);
            if !wanted.is_empty() {
                self.found.nacks += wanted.len() as u64;
                packets.push(Box::new(TransportLayerNack {
                    sender_ssrc: ssrc,
                    media_ssrc,
                    nacks: nack_pairs_from_sequence_numbers(&wanted),
                }));
            }
            let stuck = slot.video.has_begun()
                && slot.video.is_broken()
                && slot
                    .video
                    .last()
                    .is_none_or(|last| now >= last + KEY_PATIENCE);
            if stuck && ask {
                self.key_asked = now;
                self.found.key_requests += 1;
                packets.push(Box::new(PictureLossIndication {
                    sender_ssrc: ssrc,
                    media_ssrc,
                }));
            }
        }
    }
}
