//! The fan-out: a packet of one endpoint to all others, and RTCP back.

use std::time::Duration;

use super::parts::Floor;
use super::sources::{Placed, Ties};
use super::{Conference, Endpoint, Turn};
use crate::peers::News;
use crate::projection::{IncomingVideo, Rewrite, write_packet};
use crate::receive::keyframe::Asker;
use crate::receive::store::PacketStore;
use crate::receive::{Arrival, ArrivalMedia};
use crate::rtcp::report::{ReportBlock, SenderInfo, SenderReport};
use crate::rtcp::{Packet, packets};
use crate::rtp::{PacketIndex, RtpPacket, Ssrc};
use crate::send::Outputs;
use crate::send::rendition::{Rendition, View};
use crate::stats::DropCause;

/// By how many percent an estimate has to differ from the last one to be taken
/// (`videobridge.cc.bwe-change-threshold`), and how long after that. Browsers send
/// one a second, or when it falls.
const REMB_CHANGE: u64 = 15;
const REMB_INTERVAL: Duration = Duration::from_millis(100);

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
            Ok(arrival) => self.arrived(turn, slot, &arrival, packet),
            Err(cause) => self.refused(turn, slot, cause, packet),
        }
        self.send_feedback(turn, slot);
    }

    /// Sends on what arrived, here and to the parts that get its source.
    fn arrived(&mut self, turn: &mut Turn<'_>, slot: usize, arrival: &Arrival, packet: &[u8]) {
        let Some(sender) = &self.endpoints[slot] else {
            return;
        };
        let place = sender.uplink.sources()[arrival.source].slot;
        if let ArrivalMedia::Video {
            layering_changed: true,
            ..
        } = arrival.media
        {
            self.note_layers(turn, place, true, true);
            self.allocate(turn, None);
        }
        let packet = &packet[arrival.offset..];
        let sent = self.fan_out(turn, place, arrival.index, &arrival.media, packet);
        if let ArrivalMedia::Video {
            encoding, stored, ..
        } = arrival.media
            && sent
            && let Some(sender) = &mut self.endpoints[slot]
        {
            let source = &mut sender.uplink.sources_mut()[arrival.source];
            source.streams[encoding]
                .store
                .keep(turn.now, stored, packet);
        }
        self.publish(turn, place, arrival.index, &arrival.media, packet);
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

    /// Sends a packet of a source to all receivers here. Whether any got it and
    /// may ask for it again.
    pub(super) fn fan_out(
        &mut self,
        turn: &mut Turn<'_>,
        place: usize,
        index: PacketIndex,
        media: &ArrivalMedia,
        packet: &[u8],
    ) -> bool {
        let (Ok(view), Some(placed)) = (RtpPacket::parse(packet), &mut self.sources[place]) else {
            return false;
        };
        let endpoints = &mut self.endpoints;
        match (media, &mut placed.outputs) {
            (ArrivalMedia::Audio { loudness, red }, Outputs::Audio(outputs)) => {
                for (output, receiver) in outputs.iter_mut().zip(endpoints) {
                    let (Some(audio), Some(receiver)) = (output, receiver) else {
                        continue;
                    };
                    if audio.wanted
                        && receiver.formats.audio
                        && let Some(mut wire) = receiver.peer.wire(turn.outbox, turn.counters)
                    {
                        audio.send(index, &view, *red, &receiver.formats, &mut wire);
                    }
                }
                if let (Some(loudness), Floor::Decided(speakers)) = (loudness, &mut self.floor) {
                    speakers.level(turn.now, placed.owner, *loudness);
                }
                false
            }
            (
                ArrivalMedia::Video {
                    encoding,
                    stored,
                    codec,
                    ..
                },
                Outputs::Video(renditions),
            ) => {
                let incoming = IncomingVideo {
                    encoding: *encoding as u8,
                    index,
                    timestamp: view.timestamp(),
                    marker: view.marker(),
                    payload_type: view.payload_type(),
                    arrival: turn.now,
                    codec: codec.view(),
                };
                let (mut sent, mut wants_keyframe) = (false, false);
                for rendition in renditions.awake(&incoming) {
                    let (rewrite, wants) = rendition.project(&incoming);
                    wants_keyframe |= wants;
                    if let Some(rewrite) = rewrite
                        && send_rendition(turn, endpoints, rendition, &view, &rewrite)
                    {
                        sent = true;
                        rendition.sent(&incoming, *stored, &rewrite);
                    }
                }
                if wants_keyframe {
                    self.request_keyframe(turn, place, Asker::Projection);
                }
                sent
            }
            _ => false,
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
                Ok(Packet::Remb(remb)) => self.handle_remb(turn, slot, remb.bits_per_second),
                Ok(Packet::SourceDescription | Packet::Goodbye | Packet::Other { .. }) => {}
                Err(_) => turn.drop(DropCause::MalformedRtcp),
            }
        }
    }

    /// Takes a receiver's own estimate of its bandwidth. It limits what one gets
    /// that gives no transport-wide feedback, from which more could be told.
    fn handle_remb(&mut self, turn: &mut Turn<'_>, slot: usize, bits: u64) {
        let Some(receiver) = &mut self.endpoints[slot] else {
            return;
        };
        receiver.spurious_remb |= !receiver.formats.remb;
        if !receiver.formats.remb || receiver.formats.transport_cc {
            return;
        }
        let news = receiver.remb.is_none_or(|(last, at)| {
            let other = bits.abs_diff(last) > last / 100 * REMB_CHANGE;
            other && turn.now.saturating_duration_since(at) >= REMB_INTERVAL
        });
        if news {
            receiver.remb = Some((bits, turn.now));
            self.allocate(turn, Some(slot));
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
            if let Some(owner) = self.ssrcs.get(&block.ssrc)
                && let Some(placed) = &mut self.sources[owner.slot]
            {
                let primary = placed.primary();
                let outputs = (&mut placed.outputs, slot);
                receiver
                    .downlink
                    .reported(turn.now, outputs, primary, &block, turn.counters);
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
        let encoding = encoding as u8;
        let getting = self.sources[place].as_ref().map(Placed::getting);
        for part in getting.unwrap_or_default().iter() {
            let news = News::SenderReport {
                source: self.key_of(place),
                encoding,
                info: report.info,
            };
            self.tell(turn, part, news);
        }
        self.pass_sender_report(turn, place, encoding, &report.info);
    }

    /// Passes what a sender reports of an encoding on to all receivers here.
    pub(super) fn pass_sender_report(
        &mut self,
        turn: &mut Turn<'_>,
        place: usize,
        encoding: u8,
        info: &SenderInfo,
    ) {
        let Some(placed) = &self.sources[place] else {
            return;
        };
        for (slot, receiver) in self.endpoints.iter_mut().enumerate() {
            let Some(receiver) = receiver else { continue };
            if let Some(mut wire) = receiver.peer.wire(turn.outbox, turn.counters) {
                let outputs = (&placed.outputs, slot);
                receiver
                    .downlink
                    .send_report(turn.now, outputs, encoding, info, &mut wire);
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
        let place = self.ssrcs.get(&media).map(|owner| owner.slot);
        let place = place.filter(|place| {
            let placed = self.sources[*place].as_ref();
            placed.is_some_and(|placed| placed.primary() == media)
        });
        let mut asked = 0;
        let numbers = numbers.inspect(|_| asked += 1);
        match (place, receiver.peer.wire(turn.outbox, turn.counters)) {
            (Some(place), Some(mut wire)) => receiver.downlink.resend(
                turn.now,
                (place, self.view(place, slot)),
                numbers,
                |encoding, index| self.store(place, encoding)?.get(index),
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

    /// A video source as a receiver gets it.
    fn view(&self, place: usize, slot: usize) -> Option<View<'_>> {
        self.sources[place].as_ref()?.outputs.view(slot)
    }

    /// Where the received packets of an encoding are.
    fn store(&self, place: usize, encoding: u8) -> Option<&PacketStore> {
        let placed = self.sources[place].as_ref()?;
        let encoding = usize::from(encoding);
        match &placed.ties {
            Ties::Here { .. } => {
                let sender = self.endpoints[placed.owner].as_ref()?;
                let stream = sender.uplink.source_at(place)?.streams.get(encoding)?;
                Some(&stream.store)
            }
            Ties::Elsewhere { stores, .. } => stores.get(encoding),
        }
    }

    fn keyframe_asked(&mut self, turn: &mut Turn<'_>, slot: usize, media: Ssrc) {
        turn.counters.keyframe_requests_received += 1;
        match self.ssrcs.get(&media) {
            Some(owner) if owner.endpoint != slot => {
                let place = owner.slot;
                if let Some(receiver) = &self.members[slot] {
                    let asker = Asker::Receiver(receiver.number);
                    self.request_keyframe(turn, place, asker);
                }
            }
            _ => turn.drop(DropCause::KeyframeUnknownSsrc),
        }
    }

    /// Asks the sender of a video source for a key frame, through its home.
    pub(super) fn request_keyframe(&mut self, turn: &mut Turn<'_>, place: usize, asker: Asker) {
        let Some(Some(placed)) = self.sources.get(place) else {
            return;
        };
        let (primary, owner, bridge) = (placed.primary(), placed.owner, self.bridge.video);
        let Some(sender) = &mut self.endpoints[owner] else {
            if let Some(home) = self.home_of(place) {
                let source = self.key_of(place);
                self.tell(turn, home, News::Keyframe { source, asker });
            }
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

/// Sends a packet to all receivers of a rendition that can be sent to. Whether
/// there was one.
fn send_rendition(
    turn: &mut Turn<'_>,
    endpoints: &mut [Option<Box<Endpoint>>],
    rendition: &mut Rendition,
    packet: &RtpPacket<'_>,
    rewrite: &Rewrite,
) -> bool {
    let mut any = false;
    for recipient in rendition.recipients_mut() {
        let Some(Some(receiver)) = endpoints.get_mut(recipient.slot) else {
            continue;
        };
        let Some(mut wire) = receiver.peer.wire(turn.outbox, turn.counters) else {
            continue;
        };
        let Some(rewrite) = recipient.rewrite(rewrite) else {
            continue;
        };
        let extensions = receiver.downlink.extensions(turn.now, &receiver.formats);
        let sent = wire.rtp(rewrite.index, |out| {
            write_packet(packet, &rewrite, &extensions, out);
        });
        if sent {
            any = true;
            recipient.sent.count(packet.payload().len());
        }
    }
    any
}
