//! A synthetic participant: real ICE, DTLS and SRTP, VP8 simulcast with valid
//! descriptors and Opus-like audio, whose payloads say who sent them and where
//! they belong.

pub(crate) mod data_channel;
pub(crate) mod signalled;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use data_channel::ClientChannel;
use signalled::{BridgeSide, credentials, fingerprint, host};
use viaduct_bridge::command::{EndpointSettings, RemoteTransport, Setup};
use viaduct_bridge::outbox::Outbox;
use viaduct_bridge::receive::nack::NackGenerator;
use viaduct_bridge::rtcp::report::{
    ReportBlock, SenderInfo, write_receiver_report, write_sender_report,
};
use viaduct_bridge::rtcp::{Packet, keyframe_request, nack, packets, remb};
use viaduct_bridge::rtp::extension::Writer;
use viaduct_bridge::rtp::vp8::Descriptor;
use viaduct_bridge::rtp::{PacketIndex, RtpPacket, Ssrc, Unwrapper, rtx};
use viaduct_bridge::transport::{Certificate, Output, Received, Transport};

pub(crate) const OPUS: u8 = 111;
pub(crate) const VP8: u8 = 100;
pub(crate) const VP8_RTX: u8 = 96;
pub(crate) const AUDIO_LEVEL: u8 = 1;
pub(crate) const TRANSPORT_CC: u8 = 5;
pub(crate) const ENCODINGS: usize = 3;

const FRAME: Duration = Duration::from_micros(33_333);
const AUDIO_FRAME: Duration = Duration::from_millis(20);
const REPORT: Duration = Duration::from_millis(500);
/// Octets behind the descriptor: what the receivers check.
const CONTENT: usize = 12;

/// One packet of a frame, as its sender made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Content {
    pub(crate) owner: u8,
    pub(crate) encoding: u8,
    pub(crate) frame: u32,
    pub(crate) part: u8,
    pub(crate) parts: u8,
    pub(crate) key: bool,
    pub(crate) temporal_id: u8,
}

impl Content {
    fn write(self, out: &mut Vec<u8>) {
        // The first octet is VP8's own: its lowest bit is set for delta frames.
        out.push(u8::from(!self.key || self.part > 0));
        out.extend_from_slice(&[self.owner, self.encoding]);
        out.extend_from_slice(&self.frame.to_be_bytes());
        out.extend_from_slice(&[
            self.part,
            self.parts,
            u8::from(self.key),
            self.temporal_id,
            0,
        ]);
    }

    fn read(bytes: &[u8]) -> Self {
        let &[
            _,
            owner,
            encoding,
            a,
            b,
            c,
            d,
            part,
            parts,
            key,
            temporal_id,
            _,
        ] = bytes
            .first_chunk::<CONTENT>()
            .expect("the payload is whole");
        Self {
            owner,
            encoding,
            frame: u32::from_be_bytes([a, b, c, d]),
            part,
            parts,
            key: key == 1,
            temporal_id,
        }
    }
}

/// A video packet as a receiver saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) at: Duration,
    pub(crate) timestamp: u32,
    pub(crate) picture_id: u16,
    pub(crate) tl0_pic_idx: u8,
    pub(crate) marker: bool,
    pub(crate) by_rtx: bool,
    pub(crate) content: Content,
}

/// What came under one SSRC.
#[derive(Default)]
pub(crate) struct Track {
    pub(crate) video: BTreeMap<u64, Seen>,
    pub(crate) audio: BTreeMap<u64, (u8, u32)>,
    pub(crate) duplicates: usize,
    numbers: Unwrapper,
    nack: NackGenerator,
    last_sr: Option<(Instant, u32)>,
}

struct Sender {
    ssrc: u32,
    rtx: u32,
    number: u16,
    rtx_number: u16,
    picture_id: u16,
    tl0_pic_idx: u8,
    frame: u32,
    timestamp: u32,
    want_key: bool,
    sent: BTreeMap<u16, Vec<u8>>,
    last_frame: Option<u32>,
}

/// A participant.
pub(crate) struct Client {
    pub(crate) id: &'static str,
    pub(crate) number: u8,
    pub(crate) address: SocketAddr,
    start: Instant,
    transport: Transport,
    outbox: Outbox,
    video: Vec<Sender>,
    audio: (u16, u32),
    /// 127 is silence.
    pub(crate) audio_level: u8,
    /// The greatest height anyone wants, as the bridge told.
    pub(crate) wanted_height: i32,
    pub(crate) sends: bool,
    /// Octets of a video packet behind descriptor and content.
    pub(crate) fill: usize,
    next_frame: Option<Instant>,
    next_audio: Option<Instant>,
    next_report: Option<Instant>,
    tcc: u16,
    pub(crate) connected: Option<Duration>,
    pub(crate) tracks: BTreeMap<Ssrc, Track>,
    /// Messages with the time at which they came.
    pub(crate) messages: Vec<(Duration, String)>,
    /// Dials as soon as there is a connection.
    pub(crate) dials: bool,
    pub(crate) data_channel: Option<ClientChannel>,
    /// Those of the messages that came on it.
    pub(crate) data_messages: usize,
    pub(crate) nacked: usize,
    pub(crate) resent: usize,
    pub(crate) key_requests: Vec<Duration>,
    pub(crate) feedback: usize,
    pub(crate) reports: Vec<ReportBlock>,
    /// Highest transport-wide numbers seen, for gaps and repeats.
    pub(crate) tagged: BTreeSet<u16>,
}

impl Client {
    pub(crate) fn new(
        now: Instant,
        start: Instant,
        id: &'static str,
        number: u8,
        certificate: Arc<Certificate>,
        bridge: &BridgeSide,
    ) -> Self {
        let address = SocketAddr::from(([192, 0, 2, number], 4000 + u16::from(number)));
        Self::at(address, now, start, id, number, certificate, bridge)
    }

    /// One with a socket at this address.
    pub(crate) fn at(
        address: SocketAddr,
        now: Instant,
        start: Instant,
        id: &'static str,
        number: u8,
        certificate: Arc<Certificate>,
        bridge: &BridgeSide,
    ) -> Self {
        let settings = EndpointSettings {
            local_ice: credentials(number),
            ice_controlling: false,
            ice_tie_breaker: u64::from(number),
            local_candidates: vec![host(address)],
            visitor: false,
        };
        let mut transport = Transport::new(now, &settings, certificate, &[address]);
        transport.set_remote(
            now,
            &RemoteTransport {
                ice: Some(bridge.ice.clone()),
                fingerprints: vec![fingerprint(bridge.fingerprint.clone(), Setup::Passive)],
                candidates: vec![host(bridge.address)],
            },
        );
        let base = u32::from(number) * 100;
        let sender = |i: u32| Sender {
            ssrc: base + 10 + i,
            rtx: base + 20 + i,
            // Some start close to the rollover.
            number: 65_000u16.wrapping_add(200 * i as u16),
            rtx_number: 1,
            picture_id: 32_000 + i as u16,
            tl0_pic_idx: 200,
            frame: 0,
            timestamp: 1_000_000 * i,
            want_key: true,
            sent: BTreeMap::new(),
            last_frame: None,
        };
        Self {
            id,
            number,
            address,
            start,
            transport,
            outbox: Outbox::default(),
            video: (0..ENCODINGS as u32).map(sender).collect(),
            audio: (60_000, 5),
            audio_level: 40,
            wanted_height: -1,
            sends: true,
            fill: 100,
            next_frame: None,
            next_audio: None,
            next_report: None,
            tcc: 0,
            connected: None,
            tracks: BTreeMap::new(),
            messages: Vec::new(),
            dials: false,
            data_channel: None,
            data_messages: 0,
            nacked: 0,
            resent: 0,
            key_requests: Vec::new(),
            feedback: 0,
            reports: Vec::new(),
            tagged: BTreeSet::new(),
        }
    }

    pub(crate) fn audio_ssrc(&self) -> Ssrc {
        Ssrc(u32::from(self.number) * 100 + 1)
    }

    pub(crate) fn video_ssrcs(&self) -> Vec<(Ssrc, Ssrc)> {
        let ssrcs = self.video.iter().map(|s| (Ssrc(s.ssrc), Ssrc(s.rtx)));
        ssrcs.collect()
    }

    pub(crate) fn primary(&self) -> Ssrc {
        Ssrc(self.video[0].ssrc)
    }

    /// All that came, a line each, in a fixed order.
    pub(crate) fn transcript(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (ssrc, track) in &self.tracks {
            let mut line = |what: String| lines.push(format!("{} {ssrc:?} {what}", self.id));
            for (index, seen) in &track.video {
                line(format!("{index} {seen:?}"));
            }
            for (index, heard) in &track.audio {
                line(format!("{index} {heard:?}"));
            }
        }
        let mut line = |what: String| lines.push(format!("{} {what}", self.id));
        for (at, text) in &self.messages {
            line(format!("{at:?} {text}"));
        }
        for at in &self.key_requests {
            line(format!("asked for a key frame at {at:?}"));
        }
        for report in &self.reports {
            line(format!("{report:?}"));
        }
        let (nacked, resent) = (self.nacked, self.resent);
        line(format!("{nacked} asked for again, {resent} sent"));
        let (feedback, tagged) = (self.feedback, self.tagged.len());
        line(format!("feedback about {feedback}, {tagged} tagged"));
        lines
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let nacks = self.tracks.values().filter_map(|t| t.nack.next_timeout());
        let channel = self.data_channel.as_ref();
        [
            self.transport.next_timeout(),
            channel.and_then(ClientChannel::next_timeout),
            self.next_frame,
            self.next_audio,
            self.next_report,
        ]
        .into_iter()
        .flatten()
        .chain(nacks)
        .min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.transport.handle_timeout(now);
        if let Some(channel) = &mut self.data_channel {
            channel.handle_timeout(now);
        }
        self.poll(now);
        if self.next_frame.is_some_and(|at| at <= now) {
            self.next_frame = Some(now + FRAME);
            self.send_frame();
        }
        if self.next_audio.is_some_and(|at| at <= now) {
            self.next_audio = Some(now + AUDIO_FRAME);
            self.send_audio();
        }
        if self.next_report.is_some_and(|at| at <= now) {
            self.next_report = Some(now + REPORT);
            self.send_reports(now);
        }
        self.send_nacks(now);
    }

    pub(crate) fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        let received = match self.transport.handle(now, self.address, from, datagram) {
            Ok(Received::Rtp(_, packet)) => Some((false, packet.to_vec())),
            Ok(Received::Rtcp(packet)) => Some((true, packet.to_vec())),
            Ok(Received::Consumed) => None,
            Err(error) => panic!("{}: {error} for {} octets", self.id, datagram.len()),
        };
        match received {
            Some((false, packet)) => self.receive_rtp(now, packet),
            Some((true, packet)) => self.receive_rtcp(now, &packet),
            None => {}
        }
        self.poll(now);
        self.send_nacks(now);
    }

    pub(crate) fn handle_message(&mut self, now: Instant, text: &str) {
        self.messages.push((now - self.start, text.to_owned()));
        if text.contains("SenderSourceConstraints") {
            let height = text.rsplit(':').next().expect("rsplit gives at least one");
            let height = height.trim_end_matches('}').parse();
            self.wanted_height = height.expect("a height ends the message");
        }
    }

    pub(crate) fn take_datagrams(&mut self, mut send: impl FnMut(SocketAddr, SocketAddr, &[u8])) {
        for entry in self.outbox.entries() {
            send(entry.from, entry.to, self.outbox.datagram(entry));
        }
        self.outbox.clear();
    }

    fn poll(&mut self, now: Instant) {
        while let Some(output) = self.transport.poll() {
            match output {
                Output::Connected { .. } if self.connected.is_none() => {
                    self.connected = Some(now - self.start);
                    if self.sends {
                        self.next_frame = Some(now);
                        self.next_audio = Some(now);
                    }
                    self.next_report = Some(now + REPORT);
                    if self.dials {
                        self.dial(now);
                    }
                }
                Output::ApplicationData(packet) => {
                    let channel = self.data_channel.as_mut().expect("the client dials");
                    channel.handle(now, &packet);
                }
                _ => {}
            }
        }
        if let Some(channel) = &mut self.data_channel {
            channel.transmit(now, |packet| {
                self.transport.send_application_data(now, packet);
            });
            while let Some(text) = self.data_channel.as_mut().and_then(ClientChannel::hear) {
                self.data_messages += 1;
                self.handle_message(now, &text);
            }
        }
        self.transport.transmit(&mut self.outbox);
    }

    /// Opens a data channel, on an even stream as the side does that began DTLS.
    pub(crate) fn dial(&mut self, now: Instant) {
        self.data_channel = Some(ClientChannel::dial(now, 0));
    }

    /// Says something on the data channel.
    pub(crate) fn say(&mut self, now: Instant, text: &str) {
        let channel = self.data_channel.as_mut().expect("it was dialled");
        channel.say(now, text);
        self.poll(now);
    }

    fn send_rtp(&mut self, index: PacketIndex, packet: &[u8]) {
        let Some((from, to)) = self.transport.path() else {
            return;
        };
        let Some(srtp) = self.transport.outbound() else {
            return;
        };
        self.outbox.write(from, to, |arena, start| {
            arena.extend_from_slice(packet);
            srtp.seal_rtp(index, arena, start);
            true
        });
    }

    fn send_rtcp(&mut self, packet: &[u8]) {
        let (Some((from, to)), false) = (self.transport.path(), packet.is_empty()) else {
            return;
        };
        let Some(srtp) = self.transport.outbound() else {
            return;
        };
        self.outbox.write(from, to, |arena, start| {
            arena.extend_from_slice(packet);
            srtp.seal_rtcp(arena, start);
            true
        });
    }

    fn send_frame(&mut self) {
        for encoding in 0..ENCODINGS {
            let height = 180 << encoding;
            let wanted = self.wanted_height;
            let active = wanted < 0 || wanted >= height || (encoding == 0 && wanted > 0);
            let sender = &mut self.video[encoding];
            // A clock runs on while the encoding is off.
            sender.timestamp = sender.timestamp.wrapping_add(3000);
            if !active {
                sender.want_key = true;
                continue;
            }
            self.send_encoding(encoding);
        }
    }

    fn send_encoding(&mut self, encoding: usize) {
        let sender = &mut self.video[encoding];
        let key = std::mem::take(&mut sender.want_key);
        if key {
            sender.frame = 0;
        }
        let temporal_id = match sender.frame % 4 {
            0 => 0,
            2 => 1,
            _ => 2,
        };
        let number = sender.last_frame.map_or(0, |last| last + 1);
        sender.last_frame = Some(number);
        sender.frame += 1;
        sender.picture_id = (sender.picture_id + 1) & 0x7fff;
        if temporal_id == 0 {
            sender.tl0_pic_idx = sender.tl0_pic_idx.wrapping_add(1);
        }
        let parts = (1u8 << encoding) + u8::from(key);
        for part in 0..parts {
            let content = Content {
                owner: self.number,
                encoding: encoding as u8,
                frame: number,
                part,
                parts,
                key,
                temporal_id,
            };
            let sender = &mut self.video[encoding];
            let mut packet = header(
                VP8,
                part + 1 == parts,
                sender.number,
                sender.timestamp,
                sender.ssrc,
            );
            self.tcc = self.tcc.wrapping_add(1);
            packet[0] |= 0x10;
            let mut extensions = Writer::new(&mut packet, false);
            extensions.push(TRANSPORT_CC, &self.tcc.to_be_bytes());
            extensions.finish();
            packet.push(if part == 0 { 0x90 } else { 0x80 });
            packet.push(0xe0);
            packet.extend_from_slice(&(0x8000 | sender.picture_id).to_be_bytes());
            packet.push(sender.tl0_pic_idx);
            packet.push(temporal_id << 6);
            content.write(&mut packet);
            packet.resize(packet.len() + self.fill, part);
            let (number, index) = (sender.number, unrolled(sender.number, 65_000));
            sender.number = number.wrapping_add(1);
            sender.sent.insert(number, packet.clone());
            if sender.sent.len() > 1000 {
                sender.sent.remove(&number.wrapping_sub(1000));
            }
            self.send_rtp(index, &packet);
        }
    }

    fn send_audio(&mut self) {
        let (number, timestamp) = self.audio;
        self.audio = (number.wrapping_add(1), timestamp.wrapping_add(960));
        let mut packet = header(OPUS, false, number, timestamp, self.audio_ssrc().0);
        packet[0] |= 0x10;
        let mut extensions = Writer::new(&mut packet, false);
        extensions.push(AUDIO_LEVEL, &[self.audio_level]);
        extensions.finish();
        packet.extend_from_slice(&[self.number, 1, 2, 3]);
        self.send_rtp(unrolled(number, 60_000), &packet);
    }

    fn send_reports(&mut self, now: Instant) {
        let mut compound = Vec::new();
        let passed = now - self.start;
        let ntp = (passed.as_secs() << 32) | u64::from(passed.subsec_micros()) << 12;
        let mut streams = vec![(self.audio_ssrc().0, self.audio.1)];
        streams.extend(self.video.iter().map(|s| (s.ssrc, s.timestamp)));
        for (ssrc, rtp_timestamp) in streams.into_iter().filter(|_| self.sends) {
            let info = SenderInfo {
                ssrc: Ssrc(ssrc),
                ntp: ntp + u64::from(ssrc),
                rtp_timestamp,
                packet_count: 1,
                octet_count: 1,
            };
            write_sender_report(&info, &mut compound);
        }
        let blocks: Vec<_> = self
            .tracks
            .iter()
            .filter_map(|(ssrc, track)| {
                let (at, ntp) = track.last_sr?;
                let delay = (now - at).as_micros() << 16;
                Some(ReportBlock {
                    ssrc: *ssrc,
                    last_sender_report: ntp,
                    delay_since_last_sender_report: (delay / 1_000_000) as u32,
                    ..ReportBlock::default()
                })
            })
            .collect();
        if !blocks.is_empty() {
            write_receiver_report(Ssrc(u32::from(self.number) * 100), &blocks, &mut compound);
        }
        self.send_rtcp(&compound);
    }

    /// Tells the bridge how many bits a second there is room for.
    pub(crate) fn estimate(&mut self, bits: u64) {
        let mut packet = Vec::new();
        let ssrcs: Vec<Ssrc> = self.tracks.keys().copied().collect();
        remb::write(Ssrc(1), bits, &ssrcs, &mut packet);
        self.send_rtcp(&packet);
    }

    fn send_nacks(&mut self, now: Instant) {
        let mut compound = Vec::new();
        for (ssrc, track) in &mut self.tracks {
            let mut missing = Vec::new();
            track.nack.take_due(now, &mut missing);
            nack::write(Ssrc(1), *ssrc, missing, &mut compound);
        }
        self.send_rtcp(&compound);
    }

    fn receive_rtp(&mut self, now: Instant, mut packet: Vec<u8>) {
        let view = RtpPacket::parse(&packet).expect("the bridge sends valid RTP");
        let payload_type = view.payload_type().0;
        if let Some(tag) = view.extension(TRANSPORT_CC) {
            let fresh = self.tagged.insert(u16::from_be_bytes([tag[0], tag[1]]));
            assert!(fresh, "a transport-wide number came twice");
            assert_ne!(payload_type, OPUS, "audio is not tagged");
        }
        if payload_type == OPUS {
            let number = view.sequence_number();
            let from = view.payload()[0];
            let heard = (from, view.timestamp());
            let track = self.tracks.entry(view.ssrc()).or_default();
            let index = track.numbers.unwrap(number);
            let again = track.audio.insert(index.0, heard).is_some();
            track.duplicates += usize::from(again);
            return;
        }
        let by_rtx = payload_type == VP8_RTX;
        if by_rtx {
            // RTX has its own SSRC, ten above that of the source.
            let media = Ssrc(view.ssrc().0 - 10);
            packet = rtx::restore(&mut packet, VP8, media)
                .expect("the bridge sends no empty RTX")
                .to_vec();
        }
        let view = RtpPacket::parse(&packet).expect("it was restored");
        assert_eq!(view.payload_type().0, VP8);
        let descriptor = Descriptor::parse(view.payload()).expect("a valid descriptor");
        let seen = Seen {
            at: now - self.start,
            timestamp: view.timestamp(),
            picture_id: descriptor.picture_id.expect("it was sent").value,
            tl0_pic_idx: descriptor.tl0_pic_idx.expect("it was sent"),
            marker: view.marker(),
            by_rtx,
            content: Content::read(&view.payload()[descriptor.len..]),
        };
        let track = self.tracks.entry(view.ssrc()).or_default();
        let index = track.numbers.unwrap(view.sequence_number());
        track.nack.received(now, index);
        let undecodable = track.video.is_empty() && !(seen.content.key && seen.content.part == 0);
        let before = *track.video.entry(index.0).or_insert(seen);
        if before != seen {
            // A packet that was only overtaken has been asked for already.
            track.duplicates += usize::from(!before.by_rtx && !by_rtx);
            assert_eq!(before.content, seen.content, "one number, two contents");
        }
        if undecodable {
            // The very first packet was lost: nobody can know its number.
            let mut request = Vec::new();
            keyframe_request::write_pli(Ssrc(1), view.ssrc(), &mut request);
            self.send_rtcp(&request);
        }
    }

    fn receive_rtcp(&mut self, now: Instant, compound: &[u8]) {
        for packet in packets(compound) {
            match packet.expect("the bridge sends valid RTCP") {
                Packet::SenderReport(report) => {
                    let track = self.tracks.entry(report.info.ssrc).or_default();
                    track.last_sr = Some((now, report.info.compact_ntp()));
                }
                Packet::Nack(nack) => {
                    for number in nack.sequence_numbers() {
                        self.resend(nack.media, number);
                    }
                }
                Packet::PictureLoss(_) => {
                    self.key_requests.push(now - self.start);
                    for sender in &mut self.video {
                        sender.want_key = true;
                    }
                }
                Packet::TransportFeedback(feedback) => {
                    self.feedback += feedback.arrivals().filter(|(_, at)| at.is_some()).count();
                }
                Packet::ReceiverReport(report) => self.reports.extend(report.blocks()),
                other => panic!("the bridge sent {other:?}"),
            }
        }
    }

    fn resend(&mut self, media: Ssrc, number: u16) {
        self.nacked += 1;
        let sender = self.video.iter_mut().find(|s| s.ssrc == media.0);
        let sender = sender.expect("asked for one of ours");
        let Some(original) = sender.sent.get(&number) else {
            return;
        };
        self.resent += 1;
        let header_len = RtpPacket::parse(original).expect("our own").header_len();
        let mut packet = original[..header_len].to_vec();
        packet[1] = packet[1] & 0x80 | VP8_RTX;
        packet[2..4].copy_from_slice(&sender.rtx_number.to_be_bytes());
        packet[8..12].copy_from_slice(&sender.rtx.to_be_bytes());
        packet.extend_from_slice(&number.to_be_bytes());
        packet.extend_from_slice(&original[header_len..]);
        self.tcc = self.tcc.wrapping_add(1);
        // The tag stands right behind the fixed header and block header.
        packet[17..19].copy_from_slice(&self.tcc.to_be_bytes());
        let index = PacketIndex(u64::from(sender.rtx_number));
        sender.rtx_number += 1;
        self.send_rtp(index, &packet);
    }
}

/// The index of a number of a stream that started at `first` and is less than
/// one cycle old.
fn unrolled(number: u16, first: u16) -> PacketIndex {
    PacketIndex(u64::from(number) + if number < first { 1 << 16 } else { 0 })
}

fn header(payload_type: u8, marker: bool, number: u16, timestamp: u32, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, u8::from(marker) << 7 | payload_type];
    packet.extend_from_slice(&number.to_be_bytes());
    packet.extend_from_slice(&timestamp.to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet
}
