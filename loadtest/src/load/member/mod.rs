//! One member of a load: transport and sources of a participant, a receiver that
//! reads headers.
//!
//! In: datagrams, channel texts, the time. Out: datagrams, channel texts, a
//! deadline.

mod receive;
mod reports;
mod slot;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use viaduct_signalling::sources::EndpointSources;

use super::found::{Around, Found, Milestones};
use super::layout::{Seat, StreamOf};
use super::{Channel, Feedback, Settings};
use crate::client::channel::{Incoming, MaxHeight, Outgoing};
use crate::client::data_channel::{ChannelEvent, DataChannel};
use crate::client::feedback::Feedback as Reports;
use crate::client::jingle::Formats;
use crate::client::media::{Media, Owner};
use crate::client::send::{SendStats, Sender};
use crate::client::transport::{Identity, Progress, Received, Remote, Transport, TransportError};
use crate::client::{kind_of_name, source_name};
use crate::source::tag::Kind;
use slot::{Slot, unheard};

/// As a client's.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(50);
const NACK_INTERVAL: Duration = Duration::from_millis(20);
/// A camera without a whole picture for that long is asked for a key picture.
const KEY_PATIENCE: Duration = Duration::from_millis(500);

/// A token bucket of octets.
struct Limit {
    bits_per_second: u64,
    octets: f64,
    filled: Instant,
}

impl Limit {
    /// Whether a datagram gets through; the bucket holds 100 ms.
    fn takes(&mut self, now: Instant, len: usize) -> bool {
        if self.bits_per_second == 0 {
            return true;
        }
        let rate = self.bits_per_second as f64 / 8.0;
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.octets = (self.octets + passed * rate).min(rate / 10.0);
        self.filled = now;
        let takes = self.octets >= len as f64;
        self.octets -= if takes { len as f64 } else { 0.0 };
        takes
    }
}

/// A member.
pub struct Member {
    settings: Arc<Settings>,
    formats: Formats,
    pub seat: Seat,
    endpoint: String,
    transport: Transport,
    progress: Progress,
    sender: Sender,
    media: Option<Media>,
    sending: bool,
    /// By sender, from the first place of the conference on.
    slots: Vec<Slot>,
    first: u32,
    until_open: u32,
    height: u16,
    data_channel: Option<DataChannel>,
    channel_open: bool,
    texts: Vec<String>,
    reports: Reports,
    report_due: Instant,
    feedback_due: Instant,
    nack_due: Instant,
    key_asked: Instant,
    rng: SmallRng,
    limit: Limit,
    found: Found,
    pub milestones: Milestones,
}

impl Member {
    /// A member at `seat` over the socket bound to `local`; `formats` were agreed.
    pub fn new(
        now: Instant,
        settings: Arc<Settings>,
        formats: Formats,
        identity: &Identity,
        seat: Seat,
        local: SocketAddr,
        remote: &Remote,
    ) -> Result<Self, TransportError> {
        let layout = settings.layout;
        let seed = settings.seed ^ u64::from(layout.ssrc(seat, StreamOf::Audio)) << 16;
        let mut rng = SmallRng::seed_from_u64(seed);
        let (audio, camera) = layout.ssrcs(seat);
        let sender = Sender::with_ssrcs(formats.clone(), audio, &camera, &mut rng);
        Ok(Self {
            formats,
            endpoint: layout.endpoint(seat),
            transport: Transport::new(now, identity, local, remote)?,
            progress: Progress::Checking,
            sender,
            media: None,
            sending: layout.sends(seat.place),
            slots: (0..layout.shape.senders).map(|_| Slot::default()).collect(),
            first: layout.first(seat.place),
            until_open: rng.random_range(1..=settings.open_every),
            height: settings.height,
            data_channel: None,
            channel_open: false,
            texts: Vec::new(),
            reports: Reports::default(),
            report_due: now + REPORT_INTERVAL.mul_f64(rng.random_range(0.5..1.5)),
            feedback_due: now,
            nack_due: now,
            key_asked: now,
            limit: Limit {
                bits_per_second: settings.limit,
                octets: 0.0,
                filled: now,
            },
            rng,
            settings,
            seat,
            found: Found::default(),
            milestones: Milestones {
                asked: Some(now),
                ..Milestones::default()
            },
        })
    }

    pub fn local_credentials(&self) -> (&str, &str) {
        self.transport.local_credentials()
    }

    /// What is signalled of its sources.
    pub fn signalled(&self) -> EndpointSources {
        match self.sending {
            true => self.sender.signalled(&self.endpoint, 1),
            false => EndpointSources::default(),
        }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn progress(&self) -> Progress {
        self.progress
    }

    pub fn profile(&self) -> Option<&'static str> {
        self.transport.profile()
    }

    pub fn send_stats(&self) -> SendStats {
        self.sender.stats
    }

    /// Whether it takes part in full.
    pub fn is_complete(&self) -> bool {
        self.progress == Progress::Ready
            && (self.channel_open || self.settings.channel == Channel::None)
    }

    /// Whether something came of every sender there is, and as many pictures as are
    /// wanted.
    pub fn hears_all(&self) -> bool {
        let (mut others, mut heard, mut seen) = (0, 0, 0);
        for (place, slot) in (self.first..).zip(&self.slots) {
            if place != self.seat.place {
                others += 1;
                heard += u32::from(slot.audio.has_begun());
                seen += u32::from(slot.video.has_begun());
            }
        }
        let pictures = self.settings.wanted_layer(self.height);
        let wanted = pictures.map_or(0, |_| self.settings.pictures_wanted(others));
        heard == others && seen >= wanted
    }

    /// A datagram. True if nothing else is to be done for it.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        around: &mut Around,
    ) -> bool {
        match datagram {
            [128..=191, kind, ..] if !(192..=223).contains(kind) => {
                around.received += 1;
                self.handle_rtp(now, datagram, around);
                true
            }
            _ => {
                match self.transport.handle(now, from, datagram) {
                    Received::Rtcp(compound) => self.handle_rtcp(now, compound.freeze()),
                    Received::Consumed => {
                        self.pump_channel(now);
                        self.settle(now, around);
                    }
                    Received::Rtp(_) | Received::Dropped => self.found.other += 1,
                }
                false
            }
        }
    }

    fn pump_channel(&mut self, now: Instant) {
        while let Some(channel) = &mut self.data_channel {
            while let Some(packet) = self.transport.poll_data() {
                channel.receive(now, &packet);
            }
            while let Some(packet) = channel.poll_packet() {
                self.transport.send_data(now, &packet);
            }
            match channel.poll_event() {
                Some(ChannelEvent::Opened) => self.handle_channel_open(now),
                Some(ChannelEvent::Text(text)) => self.handle_channel_text(&text),
                Some(ChannelEvent::Closed(reason)) => {
                    tracing::warn!(endpoint = self.endpoint, reason, "bridge channel lost");
                    self.channel_open = false;
                    self.data_channel = None;
                }
                None => return,
            }
        }
    }

    pub fn handle_channel_open(&mut self, now: Instant) {
        self.channel_open = true;
        self.milestones.channel.get_or_insert(now);
        if self.sending {
            let message = Outgoing::SourceVideoTypeMessage {
                source_name: source_name(&self.endpoint, Kind::Camera),
                video_type: "camera",
            };
            self.say(now, &message);
        }
        self.constrain(now);
    }

    pub fn handle_channel_closed(&mut self) {
        self.channel_open = false;
    }

    pub fn handle_channel_text(&mut self, text: &str) {
        if let Some(Incoming::SenderSourceConstraints {
            source_name,
            max_height,
        }) = Incoming::from_json(text)
            && source_name.starts_with(&self.endpoint)
            && let (Some(kind), Some(media)) = (kind_of_name(&source_name), &mut self.media)
            && let Some(video) = media.video(kind)
        {
            video.set_max_height(max_height);
        }
    }

    /// Asks for pictures of another height from now on.
    pub fn set_height(&mut self, now: Instant, height: u16, around: &Around) {
        // What was expected so far was of the former height.
        for (place, slot) in (self.first..).zip(&mut self.slots) {
            let seat = slot.seat(place);
            let sent = around.sent.of(seat);
            self.found.expected += slot.take_expected(&self.settings, self.height, sent);
        }
        self.height = height;
        self.constrain(now);
    }

    fn constrain(&mut self, now: Instant) {
        let message = Outgoing::ReceiverVideoConstraints {
            last_n: self.settings.last_n,
            assumed_bandwidth_bps: -1,
            default_constraints: MaxHeight {
                max_height: i32::from(self.height),
            },
            constraints: BTreeMap::new(),
        };
        self.say(now, &message);
    }

    fn say(&mut self, now: Instant, message: &Outgoing) {
        if !self.channel_open {
            return;
        }
        let text = message.to_json();
        match &mut self.data_channel {
            Some(channel) => {
                channel.send(now, &text);
                while let Some(packet) = channel.poll_packet() {
                    self.transport.send_data(now, &packet);
                }
            }
            None => self.texts.push(text),
        }
    }

    /// Channel texts for the WebSocket.
    pub fn poll_text(&mut self) -> Option<String> {
        (!self.texts.is_empty()).then(|| self.texts.remove(0))
    }

    /// The next datagram for the socket.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, bytes::BytesMut)> {
        self.transport.poll_transmit()
    }

    /// Notes how far the transport has come.
    fn settle(&mut self, now: Instant, around: &Around) {
        let progress = self.transport.progress();
        if progress == self.progress {
            return;
        }
        self.progress = progress;
        let times = &mut self.milestones;
        match progress {
            Progress::Checking | Progress::Failed => {}
            Progress::IceConnected => {
                times.ice.get_or_insert(now);
            }
            Progress::Ready => {
                times.ice.get_or_insert(now);
                times.connected.get_or_insert(now);
                self.begin(now, around);
            }
        }
    }

    fn begin(&mut self, now: Instant, around: &Around) {
        if self.sending {
            let settings = &self.settings;
            let owner = Owner {
                run: settings.run,
                number: self.seat.place as u16,
                senders: settings.layout.shape.senders as u16,
            };
            let after = now.saturating_duration_since(around.clock.epoch);
            around.sent.begin(self.seat, after);
            // Senders are not in step with each other.
            let start = now + settings.frame_time().mul_f64(self.rng.random());
            let seed = self.rng.random();
            self.media = Some(Media::new(owner, settings.picture.clone(), seed, start));
        }
        if self.settings.channel == Channel::Datachannel
            && let Some((local, peer)) = self.transport.addresses()
        {
            match DataChannel::new(now, local, peer) {
                Ok(channel) => self.data_channel = Some(channel),
                Err(error) => tracing::warn!(error, "no data channel"),
            }
            self.pump_channel(now);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_due(&mut self) -> Option<Instant> {
        let media = self
            .media
            .as_ref()
            .filter(|_| self.sending)
            .and_then(Media::next_due);
        let reports = (self.settings.feedback == Feedback::Full
            && self.progress == Progress::Ready)
            .then(|| self.report_due.min(self.feedback_due).min(self.nack_due));
        let channel = self
            .data_channel
            .as_ref()
            .and_then(DataChannel::next_timeout);
        [media, reports, channel, self.transport.next_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what has come due.
    pub fn handle_timeout(&mut self, now: Instant, around: &mut Around) {
        if let (true, Some(media)) = (self.sending, &mut self.media)
            && let Some(due) = media.next_due()
            && due <= now
        {
            let late = now.saturating_duration_since(due).as_nanos() as u64;
            let (transport, sent, seat) = (&mut self.transport, &around.sent, self.seat);
            let mut count = 0;
            self.sender
                .poll(now, around.clock.epoch, media, |kind, layer, packet| {
                    count += 1;
                    let number = match kind {
                        Kind::Audio => 0,
                        Kind::Camera | Kind::Desktop => 1 + usize::from(layer),
                    };
                    sent.count(seat, number);
                    transport.send_rtp(packet)
                });
            around.transmitted += count;
            for _ in 0..count {
                around.lateness.record(late);
            }
        }
        if self.transport.next_timeout().is_some_and(|due| due <= now) {
            self.transport.handle_timeout(now);
            self.settle(now, around);
        }
        if let Some(channel) = &mut self.data_channel
            && channel.next_timeout().is_some_and(|due| due <= now)
        {
            channel.handle_timeout(now);
            self.pump_channel(now);
        }
        if self.settings.feedback == Feedback::Full && self.progress == Progress::Ready {
            self.report(now, around);
        }
    }

    /// Sends no more media.
    pub fn stop_sending(&mut self) {
        self.sending = false;
    }

    /// Counts from now on.
    pub fn mark(&mut self, now: Instant, around: &Around) {
        self.found = Found::default();
        self.sender.stats = SendStats::default();
        for (place, slot) in (self.first..).zip(&mut self.slots) {
            if place == self.seat.place {
                continue;
            }
            let seat = slot.seat(place);
            slot.mark(now, around.sent.of(seat));
        }
    }

    /// What was found until now.
    pub fn close(&mut self, now: Instant, around: &Around) -> Found {
        let mut found = std::mem::take(&mut self.found);
        for (place, slot) in (self.first..).zip(&mut self.slots) {
            if place == self.seat.place {
                continue;
            }
            let seat = slot.seat(place);
            let ended = std::mem::take(slot);
            let end = match around.sent.has_left(seat) {
                true => ended.audio.last().unwrap_or(now),
                false => now,
            };
            let (settings, height) = (&self.settings, self.height);
            if let (Some(connected), Some((present, began))) =
                (self.milestones.connected, around.sent.present(place))
                && !(ended.is_known() && present == seat)
            {
                let since = connected.max(around.clock.epoch + began);
                let time = now.saturating_duration_since(since);
                unheard(time, settings, height, &mut found);
            }
            ended.close(end, settings, height, around.sent.of(seat), &mut found);
        }
        found
    }
}
