//! What a member makes of media: headers into streams, a share opened and held
//! against its tag.

use std::time::Instant;

use rand::Rng;

use super::super::Feedback;
use super::super::found::Around;
use super::super::layout::{Seat, StreamOf};
use super::super::stream::Head;
use super::Member;
use super::slot::{Begins, Slot};
use crate::client::rtp;
use crate::source::payload::Payload;
use crate::source::tag::{Kind, Tag};

impl Member {
    pub(super) fn handle_rtp(&mut self, now: Instant, datagram: &[u8], around: &mut Around) {
        let (loss, full) = {
            let settings = &self.settings;
            (settings.loss, settings.feedback == Feedback::Full)
        };
        let lossy = loss > 0.0 && self.rng.random_bool(loss);
        if lossy || !self.limit.takes(now, datagram.len()) {
            self.found.dropped += 1;
            return;
        }
        let Some(fixed) = datagram.first_chunk::<12>() else {
            self.found.other += 1;
            return;
        };
        self.found.octets += datagram.len() as u64;
        let head = Head {
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            marker: fixed[1] & 0x80 != 0,
        };
        let ssrc = u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]);
        if full {
            self.note(now, datagram);
        }
        let settings = &self.settings;
        let owner = settings.layout.owner(ssrc).and_then(|(seat, stream)| {
            let index = seat.place.checked_sub(self.first)? as usize;
            Some((seat, stream, self.slots.get_mut(index)?))
        });
        let Some((seat, stream, slot)) = owner else {
            self.found.other += 1;
            return;
        };
        if slot.generation != seat.generation {
            let before = slot.seat(seat.place);
            let ended = std::mem::replace(slot, Slot::of(seat.generation));
            // It sent until its last packet of audio.
            let end = ended.audio.last().unwrap_or(now);
            let sent = around.sent.of(before);
            ended.close(end, settings, self.height, sent, &mut self.found);
        }
        let sent = || around.sent.of(seat);
        match stream {
            StreamOf::Audio => {
                slot.audio.audio(now, head);
                slot.begin(now, Begins::Audio, sent);
                self.milestones.audio.get_or_insert(now);
            }
            StreamOf::Camera(_) => {
                if slot.video.video(now, head, settings.freeze_after(), full) {
                    self.milestones.frame.get_or_insert(now);
                }
                slot.begin(now, Begins::Video, sent);
            }
            StreamOf::Retransmission(_) => return self.handle_rtx(now, datagram, seat, head),
        }
        self.until_open -= 1;
        if self.until_open == 0 {
            self.until_open = settings.open_every;
            self.open(now, datagram, seat, stream, around);
        }
    }

    /// Opens a packet and holds it against its tag.
    fn open(
        &mut self,
        now: Instant,
        datagram: &[u8],
        seat: Seat,
        stream: StreamOf,
        around: &mut Around,
    ) {
        self.found.opened += 1;
        if !self.transport.open_payload(datagram, &mut around.payload) {
            self.found.forged += 1;
            return;
        }
        let tag = match stream {
            StreamOf::Audio => Tag::parse(&around.payload).ok(),
            _ if around.payload.is_empty() => {
                self.found.padding += 1;
                return;
            }
            _ => Payload::parse(self.settings.picture.codec, &around.payload)
                .ok()
                .filter(Payload::is_consistent)
                .map(|payload| payload.tag),
        };
        let Some(tag) = tag else {
            // Padding only, as bridges probe with.
            let padded = datagram[0] & 0x20 != 0;
            *(if padded {
                &mut self.found.padding
            } else {
                &mut self.found.corrupt
            }) += 1;
            return;
        };
        let kind = match stream {
            StreamOf::Audio => Kind::Audio,
            _ => Kind::Camera,
        };
        if (tag.run, u32::from(tag.sender), tag.kind) != (self.settings.run, seat.place, kind) {
            self.found.foreign += 1;
            return;
        }
        if kind == Kind::Camera {
            let layer = usize::from(tag.encoding + tag.spatial);
            if let Some(count) = self.found.layers.get_mut(layer) {
                *count += 1;
            }
        }
        let arrived = now.saturating_duration_since(around.clock.epoch).as_nanos() as u64;
        around.delays.record(arrived.saturating_sub(tag.sent_ns));
    }

    /// A packet sent again (RFC 4588 §4), or old ones sent to probe.
    fn handle_rtx(&mut self, now: Instant, datagram: &[u8], seat: Seat, head: Head) {
        let mut payload = Vec::new();
        if !self.transport.open_payload(datagram, &mut payload) {
            self.found.forged += 1;
            return;
        }
        let padding = match datagram[0] & 0x20 {
            0 => 0,
            _ => payload.last().map_or(0, |octets| usize::from(*octets)),
        };
        let number = payload
            .first_chunk::<2>()
            .filter(|_| payload.len() > padding + 2);
        let Some(number) = number else {
            self.found.padding += 1;
            return;
        };
        let head = Head {
            sequence: u16::from_be_bytes(*number),
            ..head
        };
        let freeze = self.settings.freeze_after();
        let index = (seat.place - self.first) as usize;
        if let Some(slot) = self.slots.get_mut(index)
            && slot.video.recovered(now, head, freeze)
        {
            self.milestones.frame.get_or_insert(now);
        }
    }

    /// For reports.
    fn note(&mut self, now: Instant, datagram: &[u8]) {
        let Some(packet) = rtp::Packet::parse(datagram) else {
            return;
        };
        let formats = &self.formats;
        if let Some(number) = formats.transport_cc.and_then(|id| packet.extension(id))
            && let [high, low, ..] = number
        {
            self.reports
                .note_arrival(now, u16::from_be_bytes([*high, *low]));
        }
        let rate = match packet.header.payload_type == formats.audio {
            true => 48_000,
            false => 90_000,
        };
        self.reports.note_reception(now, rate, &packet.header);
    }
}
