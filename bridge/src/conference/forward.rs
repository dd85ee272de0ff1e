//! The fan-out: a packet of one endpoint to all others, and RTCP back.

use super::{Conference, Endpoint, Turn};
use crate::projection::IncomingVideo;
use crate::receive::keyframe::Asker;
use crate::receive::{Arrival, ArrivalMedia};
use crate::rtcp::report::{ReportBlock, SenderReport};
use crate::rtcp::{Packet, packets};
use crate::rtp::{PacketIndex, RtpPacket, Ssrc};
use crate::stats::DropCause;

impl Conference {
    /// Takes an authentic RTP packet of an endpoint, and sends it on.
    pub(super) fn forward(
        &mut self,
        turn: &mut Turn<'_>,
        slot: usize,
        index: PacketIndex,
        packet: &mut [u8],
    ) {
        let Some(sender) = &mut self.endpoints[slot] else {
            return;
        };
        let arrival = if sender.visitor {
            Err(DropCause::Visitor)
        } else {
            sender.uplink.receive(
                turn.now,
                &sender.formats,
                turn.settings.forwarded_silence_packets,
                sender.force_mute,
                (index, packet),
                turn.counters,
            )
        };
        match arrival {
            Ok(arrival) => {
                if let ArrivalMedia::Video {
                    layering_changed: true,
                    ..
                } = arrival.media
                {
                    self.allocate(turn, None);
                }
                // The sender steps aside, so that all others can be changed
                // while its packet is looked at.
                if let Some(mut sender) = self.endpoints[slot].take() {
                    let keyframe = self.fan_out(turn, slot, &mut sender, &arrival, packet);
                    self.endpoints[slot] = Some(sender);
                    if let Some(place) = keyframe {
                        self.request_keyframe(turn, place, Asker::Projection);
                    }
                }
            }
            Err(cause) => self.refused(turn, slot, cause, packet),
        }
        self.send_feedback(turn, slot);
    }

    fn refused(&mut self, turn: &mut Turn<'_>, slot: usize, cause: DropCause, packet: &[u8]) {
        let foreign = cause == DropCause::UnknownSsrc
            && RtpPacket::parse(packet).is_ok_and(|packet| {
                let owner = self.ssrcs.get(&packet.ssrc());
                owner.is_some_and(|owner| owner.endpoint != slot)
            });
        turn.drop(if foreign {
            DropCause::ForeignSsrc
        } else {
            cause
        });
        let unreadable = self.endpoints[slot]
            .as_mut()
            .and_then(|sender| sender.uplink.take_unreadable())
            .map(|source| source.slot);
        if let Some(place) = unreadable {
            self.request_keyframe(turn, place, Asker::Projection);
        }
    }

    /// Sends an arrival to all others. The place of its source, if one of them
    /// waits for a key frame of it.
    fn fan_out(
        &mut self,
        turn: &mut Turn<'_>,
        slot: usize,
        sender: &mut Endpoint,
        arrival: &Arrival,
        packet: &[u8],
    ) -> Option<usize> {
        let packet = &packet[arrival.offset..];
        let view = RtpPacket::parse(packet).ok()?;
        let place = sender.uplink.sources()[arrival.source].slot;
        match &arrival.media {
            ArrivalMedia::Audio { loudness, red } => {
                for receiver in self.endpoints.iter_mut().flatten() {
                    let Some(mut wire) = receiver.peer.wire(turn.outbox, turn.counters) else {
                        continue;
                    };
                    let formats = &receiver.formats;
                    let packet = (&view, *red);
                    receiver
                        .downlink
                        .send_audio(place, arrival.index, packet, formats, &mut wire);
                }
                if let Some(loudness) = loudness {
                    self.speakers.level(turn.now, slot, *loudness);
                }
                None
            }
            ArrivalMedia::Video {
                encoding,
                stored,
                codec,
                ..
            } => {
                let incoming = IncomingVideo {
                    encoding: *encoding as u8,
                    index: arrival.index,
                    timestamp: view.timestamp(),
                    marker: view.marker(),
                    payload_type: view.payload_type(),
                    arrival: turn.now,
                    codec: codec.view(),
                };
                let (mut sent, mut wants_keyframe) = (false, false);
                for receiver in self.endpoints.iter_mut().flatten() {
                    if !receiver.formats.video {
                        continue;
                    }
                    let Some(mut wire) = receiver.peer.wire(turn.outbox, turn.counters) else {
                        continue;
                    };
                    let formats = &receiver.formats;
                    let forwarded = receiver
                        .downlink
                        .send_video(place, &incoming, *stored, &view, formats, &mut wire);
                    sent |= forwarded.sent;
                    wants_keyframe |= forwarded.wants_keyframe;
                }
                if sent {
                    let source = &mut sender.uplink.sources_mut()[arrival.source];
                    source.streams[*encoding]
                        .store
                        .keep(turn.now, *stored, packet);
                }
                wants_keyframe.then_some(place)
            }
        }
    }

    /// Sends an endpoint the feedback that has come due for it.
    pub(super) fn send_feedback(&mut self, turn: &mut Turn<'_>, slot: usize) {
        let bridge = self.bridge;
        let now = turn.now;
        let Some(endpoint) = &mut self.endpoints[slot] else {
            return;
        };
        if !endpoint.uplink.has_feedback(now) {
            return;
        }
        let Endpoint {
            peer,
            uplink,
            formats,
            ..
        } = &mut **endpoint;
        match peer.wire(turn.outbox, turn.counters) {
            Some(mut wire) => wire.rtcp(|out, counters| {
                uplink.take_feedback(now, formats, bridge, counters, out);
            }),
            // It cannot be told now; what is due must not stay due.
            None => uplink.take_feedback(now, formats, bridge, turn.counters, &mut Vec::new()),
        }
    }

    /// Takes authentic RTCP of an endpoint.
    pub(super) fn handle_rtcp(&mut self, turn: &mut Turn<'_>, slot: usize, compound: &[u8]) {
        for packet in packets(compound) {
            match packet {
                Ok(Packet::SenderReport(report)) => {
                    self.handle_blocks(turn, slot, report.blocks());
                    self.forward_sender_report(turn, slot, &report);
                }
                Ok(Packet::ReceiverReport(report)) => {
                    self.handle_blocks(turn, slot, report.blocks());
                }
                Ok(Packet::Nack(nack)) => {
                    self.resend(turn, slot, nack.media, nack.sequence_numbers());
                }
                Ok(Packet::PictureLoss(loss)) => self.keyframe_asked(turn, slot, loss.media),
                Ok(Packet::FullIntraRequest(request)) => {
                    for (media, _) in request.requests() {
                        self.keyframe_asked(turn, slot, media);
                    }
                }
                Ok(Packet::TransportFeedback(feedback)) => {
                    if let Some(receiver) = &self.endpoints[slot] {
                        receiver
                            .downlink
                            .transport_feedback(&feedback, turn.counters);
                    }
                }
                Ok(
                    Packet::Remb(_)
                    | Packet::SourceDescription
                    | Packet::Goodbye
                    | Packet::Other { .. },
                ) => {}
                Err(_) => turn.drop(DropCause::MalformedRtcp),
            }
        }
    }

    fn handle_blocks(
        &mut self,
        turn: &mut Turn<'_>,
        slot: usize,
        blocks: impl Iterator<Item = ReportBlock>,
    ) {
        let Some(receiver) = &mut self.endpoints[slot] else {
            return;
        };
        for block in blocks {
            if let Some(owner) = self.ssrcs.get(&block.ssrc) {
                receiver
                    .downlink
                    .reported(turn.now, owner.slot, &block, turn.counters);
            }
        }
    }

    fn forward_sender_report(
        &mut self,
        turn: &mut Turn<'_>,
        slot: usize,
        report: &SenderReport<'_>,
    ) {
        let Some(sender) = &mut self.endpoints[slot] else {
            return;
        };
        if sender.visitor {
            return;
        }
        let Some((source, encoding)) = sender.uplink.sender_report(turn.now, &report.info) else {
            return;
        };
        let place = sender.uplink.sources()[source].slot;
        for receiver in self.endpoints.iter_mut().flatten() {
            if let Some(mut wire) = receiver.peer.wire(turn.outbox, turn.counters) {
                receiver.downlink.send_report(
                    turn.now,
                    place,
                    encoding as u8,
                    &report.info,
                    &mut wire,
                );
            }
        }
    }

    fn resend(
        &mut self,
        turn: &mut Turn<'_>,
        slot: usize,
        media: Ssrc,
        numbers: impl Iterator<Item = u16>,
    ) {
        let Some(mut receiver) = self.endpoints[slot].take() else {
            return;
        };
        // Of a source a receiver sees one SSRC: the primary.
        let owner = self.ssrcs.get(&media).filter(|owner| {
            let placed = self.sources[owner.slot].as_ref();
            placed.is_some_and(|placed| placed.primary == media)
        });
        let source = owner.and_then(|owner| {
            let sender = self.endpoints[owner.endpoint].as_ref()?;
            sender.uplink.source_at(owner.slot)
        });
        let mut asked = 0;
        let numbers = numbers.inspect(|_| asked += 1);
        match (source, receiver.peer.wire(turn.outbox, turn.counters)) {
            (Some(source), Some(mut wire)) => receiver.downlink.resend(
                turn.now,
                source.slot,
                numbers,
                |encoding, index| source.streams.get(usize::from(encoding))?.store.get(index),
                &receiver.formats,
                &mut wire,
            ),
            _ => {
                let unknown = numbers.count() as u64;
                turn.counters.drops[DropCause::NotInCache] += unknown;
            }
        }
        turn.counters.nacks_received += asked;
        self.endpoints[slot] = Some(receiver);
    }

    fn keyframe_asked(&mut self, turn: &mut Turn<'_>, slot: usize, media: Ssrc) {
        turn.counters.keyframe_requests_received += 1;
        match self.ssrcs.get(&media) {
            Some(owner) if owner.endpoint != slot => {
                let place = owner.slot;
                self.request_keyframe(turn, place, Asker::Receiver(slot));
            }
            _ => turn.drop(DropCause::KeyframeUnknownSsrc),
        }
    }

    /// Asks the sender of a video source for a key frame.
    pub(super) fn request_keyframe(&mut self, turn: &mut Turn<'_>, place: usize, asker: Asker) {
        let Some(Some(placed)) = self.sources.get(place) else {
            return;
        };
        let (primary, owner, bridge) = (placed.primary, placed.owner, self.bridge.video);
        let Some(sender) = &mut self.endpoints[owner] else {
            return;
        };
        let Endpoint {
            peer,
            uplink,
            formats,
            downlink,
            ..
        } = &mut **sender;
        let now = turn.now;
        let Some(mut wire) = peer.wire(turn.outbox, turn.counters) else {
            return;
        };
        let mut result = Ok(());
        wire.rtcp(|out, _| {
            let round_trip = downlink.round_trip();
            let from = (&*formats, bridge);
            result = uplink.request_keyframe(now, asker, primary, round_trip, from, out);
        });
        match result {
            Ok(()) => turn.counters.keyframe_requests_sent += 1,
            Err(cause) => turn.drop(cause),
        }
    }
}
