//! A participant as one state machine.
//!
//! Its driver feeds stanzas, datagrams, channel messages and the time, and
//! carries out what [`Participant::poll`] returns.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use rtcp::Packet;
use rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtcp::sender_report::SenderReport;
use rtcp::source_description::{
    SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem,
};
use rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use viaduct_signalling::jitsi::SourceState;
use viaduct_signalling::sources::{EndpointSources, VideoType};
use viaduct_signalling::xml::Element;

use super::board::Board;
use super::channel::{Incoming, MaxHeight, Outgoing};
use super::data_channel::{ChannelEvent, DataChannel};
use super::habits::{Act, Habits};
use super::jingle::Offer;
use super::media::{Media, Owner};
use super::receive::{Expectations, ReceiveStats, Receiver};
use super::room::{Event, Room, RoomSettings};
use super::send::{SendStats, Sender};
use super::transport::{Identity, Progress, Received, Transport};
use super::{Clock, kind_of_name, source_name};
use crate::measure::pair::Pairs;
use crate::scenario::{ChannelKind, Roster};
use crate::source::Codec;
use crate::source::tag::Kind;
use crate::source::video::Picture;

/// Restarts a client asks for in one conference (client-focus §4.7).
const MAX_RESTARTS: u32 = 3;
/// Interval of `EndpointStats`.
const STATS_INTERVAL: Duration = Duration::from_secs(10);
/// Failures kept for the report.
const MAX_FAILURES: usize = 16;

/// What a participant is.
#[derive(Clone)]
pub struct Settings {
    pub room: RoomSettings,
    /// Number in the run.
    pub number: u16,
    pub sends: bool,
    /// How many take turns in talking.
    pub senders: u16,
    pub run: u32,
    pub codec: Codec,
    /// Whether to say layers in dependency descriptors where they are agreed.
    pub descriptors: bool,
    pub channel: ChannelKind,
    pub max_height: u16,
    pub shares: bool,
    pub share_height: u16,
    pub mutes: bool,
    pub roster: Roster,
    pub board: Arc<Board>,
    /// A source of who was there that long must have been heard or seen.
    pub patience: Duration,
    pub seed: u64,
}

/// What the driver is to do.
#[derive(Debug)]
pub enum Output {
    Stanza(Element),
    /// Open a UDP socket in place of the former one and report its address.
    Bind {
        ipv6: bool,
    },
    Datagram(SocketAddr, BytesMut),
    /// Open the bridge channel in place of the former one.
    OpenChannel(String),
    ChannelText(String),
    CloseChannel,
}

/// When what was reached for the first time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Milestones {
    pub started: Option<Instant>,
    pub online: Option<Instant>,
    pub ready: Option<Instant>,
    pub joined: Option<Instant>,
    /// For one who was alone at first: when somebody came.
    pub company: Option<Instant>,
    pub offered: Option<Instant>,
    pub accepted: Option<Instant>,
    pub ice: Option<Instant>,
    pub connected: Option<Instant>,
    pub channel: Option<Instant>,
}

/// A synthetic participant.
pub struct Participant {
    settings: Settings,
    clock: Clock,
    identity: Identity,
    rng: SmallRng,
    room: Room,
    offer: Option<Offer>,
    transport: Option<Transport>,
    progress: Option<Progress>,
    sessions: u32,
    sender: Option<Sender>,
    /// Once the formats are agreed; of senders only.
    media: Option<Media>,
    habits: Habits,
    /// Whose mute, or end of it, is not told of yet.
    unsaid: Option<Kind>,
    receiver: Receiver,
    data_channel: Option<DataChannel>,
    channel_open: bool,
    /// Screens that the bridge was told the height of.
    constrained: BTreeSet<String>,
    stats_due: Instant,
    stopped: Option<Instant>,
    own_ssrc: u32,
    outputs: VecDeque<Output>,
    pub milestones: Milestones,
    pub failures: Vec<String>,
    pub restarts: u32,
    pub invitations: u32,
    pub dominant_changes: u64,
    sent: SendStats,
}

impl Participant {
    pub fn new(
        settings: Settings,
        clock: Clock,
        identity: Identity,
        now: Instant,
    ) -> Result<Self, String> {
        let mut rng = SmallRng::seed_from_u64(settings.seed);
        let expect = Expectations {
            run: settings.run,
            number: settings.number,
            roster: settings.roster,
            board: settings.board.clone(),
            codec: settings.codec,
            camera: settings.max_height,
            desktop: settings.share_height,
            patience: settings.patience,
        };
        Ok(Self {
            room: Room::new(settings.room.clone(), rng.random())?,
            own_ssrc: rng.random_range(1..=u32::MAX),
            habits: Habits::new(
                settings.sends && settings.mutes,
                settings.sends && settings.shares,
                rng.random(),
            ),
            unsaid: None,
            settings,
            clock,
            identity,
            rng,
            offer: None,
            transport: None,
            progress: None,
            sessions: 0,
            sender: None,
            media: None,
            receiver: Receiver::new(expect, now),
            data_channel: None,
            channel_open: false,
            constrained: BTreeSet::new(),
            stats_due: now,
            stopped: None,
            outputs: VecDeque::new(),
            milestones: Milestones {
                started: Some(now),
                ..Milestones::default()
            },
            failures: Vec::new(),
            restarts: 0,
            invitations: 0,
            dominant_changes: 0,
            sent: SendStats::default(),
        })
    }

    /// Whether media can flow both ways.
    pub fn connected(&self) -> bool {
        self.progress == Some(Progress::Ready)
    }

    /// What is missing before this participant takes part in full; `None`
    /// when nothing is.
    pub fn missing(&self) -> Option<String> {
        let times = &self.milestones;
        let refusal = || {
            self.room
                .refusal
                .clone()
                .unwrap_or_else(|| "no answer".to_owned())
        };
        if times.online.is_none() {
            Some("never logged in".to_owned())
        } else if times.ready.is_none() {
            Some(format!("the focus was never ready: {}", refusal()))
        } else if times.joined.is_none() {
            Some(format!("never let into the room: {}", refusal()))
        } else if times.offered.is_none() {
            Some("no usable offer came".to_owned())
        } else if times.accepted.is_none() {
            Some("session-accept was not answered".to_owned())
        } else if times.ice.is_none() {
            Some("ICE never connected".to_owned())
        } else if times.connected.is_none() {
            Some("DTLS was never done".to_owned())
        } else if times.channel.is_none() {
            Some("the bridge channel never opened".to_owned())
        } else {
            None
        }
    }

    /// The SRTP profile in use.
    pub fn profile(&self) -> Option<&'static str> {
        self.transport.as_ref().and_then(Transport::profile)
    }

    /// All that came, and what of it went wrong.
    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    pub fn receive_stats(&self) -> &ReceiveStats {
        &self.receiver.stats
    }

    /// Nothing counts from `end` on: what was found of all sources; see
    /// [`Receiver::close`].
    pub fn close(&mut self, end: Instant, settled: bool) -> Pairs {
        self.receiver.close(end, settled)
    }

    /// All that was sent in all sessions.
    pub fn send_stats(&self) -> SendStats {
        let mut total = self.sent;
        if let Some(sender) = &self.sender {
            total.add(&sender.stats);
        }
        total
    }

    /// How often the focus was asked, and seen to leave.
    pub fn focus_counts(&self) -> (u32, u32) {
        (self.room.requests, self.room.focus_left)
    }

    /// The stream is logged in.
    pub fn handle_online(&mut self, now: Instant) {
        self.milestones.online.get_or_insert(now);
        self.room.start(now);
        self.settle(now);
    }

    /// The connection to the server is lost, or never came about.
    pub fn handle_offline(&mut self, text: String) {
        self.fail(format!("XMPP: {text}"));
    }

    pub fn handle_stanza(&mut self, now: Instant, stanza: &Element) {
        self.room.handle_stanza(now, stanza);
        self.settle(now);
    }

    /// The socket asked for by [`Output::Bind`] is open on `local`.
    pub fn handle_bound(&mut self, now: Instant, local: SocketAddr) {
        let Some(offer) = &self.offer else { return };
        // No candidate of ours is signalled; the bridge sees where the checks
        // come from. ICE only needs one to name the socket by.
        let named = match local.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let local = SocketAddr::new(named, local.port());
        let transport = match Transport::new(now, &self.identity, local, &offer.remote) {
            Ok(transport) => transport,
            Err(error) => {
                self.fail(error.to_string());
                return;
            }
        };
        self.sessions += 1;
        let mut signalled = EndpointSources::default();
        if let Some(old) = self.sender.take() {
            self.sent.add(&old.stats);
        }
        let endpoint = &self.settings.room.endpoint;
        if self.settings.sends {
            let formats = offer.formats.clone();
            let descriptors = self.settings.descriptors && formats.dependency_descriptor.is_some();
            let mut sender = Sender::new(formats, &mut self.rng);
            let media = self.media.get_or_insert_with(|| {
                let owner = Owner {
                    run: self.settings.run,
                    number: self.settings.number,
                    senders: self.settings.senders,
                };
                let camera = Picture::camera(self.settings.codec, descriptors);
                Media::new(owner, camera, self.rng.random(), now)
            });
            if media.kinds().any(|kind| kind == Kind::Desktop) {
                sender.add(Kind::Desktop, endpoint, self.sessions, &mut self.rng);
            }
            signalled = sender.signalled(endpoint, self.sessions);
            self.sender = Some(sender);
        }
        let (own, focus) = self.room.addresses();
        let accept = offer.accept(
            &own,
            &focus,
            transport.local_credentials(),
            self.identity.fingerprint(),
            &signalled,
        );
        self.receiver
            .begin(offer.formats.clone(), offer.sources.clone());
        self.transport = Some(transport);
        self.progress = Some(Progress::Checking);
        self.room.accept(now, &accept);
        match (self.settings.channel, &offer.channel_url, offer.sctp_port) {
            (ChannelKind::Websocket, Some(url), _) => {
                self.outputs.push_back(Output::OpenChannel(url.clone()));
            }
            (ChannelKind::Websocket, None, _) => self.fail("no WebSocket was offered".to_owned()),
            (ChannelKind::Datachannel, _, Some(_)) => {}
            (ChannelKind::Datachannel, _, None) => {
                self.fail("no data channel was offered".to_owned());
            }
        }
        self.settle(now);
    }

    /// True if nothing is to be done for it: no output, no other deadline.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> bool {
        let Some(transport) = &mut self.transport else {
            return true;
        };
        match transport.handle(now, from, datagram) {
            Received::Rtp(packet) => {
                self.receiver.receive(now, &self.clock, packet.freeze());
                true
            }
            Received::Rtcp(packet) => {
                self.handle_rtcp(now, packet.freeze());
                false
            }
            Received::Consumed => {
                self.pump_channel(now);
                self.settle(now);
                false
            }
            Received::Dropped => {
                self.receiver.stats.malformed += 1;
                true
            }
        }
    }

    fn handle_rtcp(&mut self, now: Instant, mut compound: Bytes) {
        let Ok(packets) = rtcp::packet::unmarshal(&mut compound) else {
            self.receiver.stats.malformed += 1;
            return;
        };
        for packet in packets {
            let packet = packet.as_any();
            if let Some(report) = packet.downcast_ref::<SenderReport>() {
                self.receiver.receive_report(now, report);
            } else if let Some(nack) = packet.downcast_ref::<TransportLayerNack>() {
                if let (Some(sender), Some(transport)) = (&mut self.sender, &mut self.transport) {
                    sender.resend(now, nack, |packet| transport.send_rtp(packet));
                }
            } else if let Some(pli) = packet.downcast_ref::<PictureLossIndication>() {
                self.key_frame_wanted([pli.media_ssrc]);
            } else if let Some(fir) = packet.downcast_ref::<FullIntraRequest>() {
                self.key_frame_wanted(fir.fir.iter().map(|entry| entry.ssrc));
            }
        }
    }

    fn key_frame_wanted(&mut self, ssrcs: impl IntoIterator<Item = u32>) {
        let (Some(sender), Some(media)) = (&mut self.sender, &mut self.media) else {
            return;
        };
        let wanted: BTreeSet<Kind> = ssrcs
            .into_iter()
            .filter_map(|s| sender.video_of(s))
            .collect();
        for kind in wanted {
            sender.stats.key_requests += 1;
            if let Some(video) = media.video(kind) {
                video.request_key_frame();
            }
        }
    }

    /// Moves packets between DTLS and the data channel, and does what the
    /// channel brought.
    fn pump_channel(&mut self, now: Instant) {
        loop {
            let (Some(transport), Some(channel)) = (&mut self.transport, &mut self.data_channel)
            else {
                return;
            };
            while let Some(packet) = transport.poll_data() {
                channel.receive(now, &packet);
            }
            while let Some(packet) = channel.poll_packet() {
                transport.send_data(now, &packet);
            }
            match channel.poll_event() {
                Some(ChannelEvent::Opened) => self.handle_channel_open(now),
                Some(ChannelEvent::Text(text)) => self.handle_channel_text(&text),
                Some(ChannelEvent::Closed(reason)) => {
                    self.handle_channel_closed();
                    self.data_channel = None;
                    self.fail(reason);
                }
                None => return,
            }
        }
    }

    /// The bridge channel is open.
    pub fn handle_channel_open(&mut self, now: Instant) {
        self.milestones.channel.get_or_insert(now);
        self.channel_open = true;
        self.stats_due = now + STATS_INTERVAL;
        let kinds: Vec<Kind> = self.media.iter().flat_map(Media::kinds).collect();
        for kind in kinds {
            self.say_video_type(now, kind);
        }
        self.constrain(now);
    }

    /// The bridge channel closed; the driver opens it again.
    pub fn handle_channel_closed(&mut self) {
        self.channel_open = false;
    }

    pub fn handle_channel_text(&mut self, text: &str) {
        match Incoming::from_json(text) {
            Some(Incoming::SenderSourceConstraints {
                source_name,
                max_height,
            }) => {
                let ours = source_name.starts_with(&self.settings.room.endpoint);
                let kind = kind_of_name(&source_name).filter(|_| ours);
                let media = self.media.as_mut();
                if let Some(video) = kind.and_then(|kind| media?.video(kind)) {
                    video.set_max_height(max_height);
                }
            }
            Some(Incoming::DominantSpeakerEndpointChangeEvent { .. }) => {
                self.dominant_changes += 1;
            }
            Some(_) => {}
            None => self.fail(format!("not a channel message: {text:.100}")),
        }
    }

    /// Asks the bridge for pictures of at most that height.
    pub fn set_max_height(&mut self, now: Instant, height: u16) {
        self.settings.max_height = height;
        if self.channel_open {
            self.constrain(now);
        }
    }

    fn constrain(&mut self, now: Instant) {
        let height = self.settings.max_height;
        self.receiver.set_max_height(now, height);
        self.constrained = self.receiver.desktops();
        let share = MaxHeight {
            max_height: i32::from(self.settings.share_height),
        };
        let constraints: BTreeMap<String, MaxHeight> = self
            .constrained
            .iter()
            .map(|name| (name.clone(), share))
            .collect();
        let message = Outgoing::ReceiverVideoConstraints {
            last_n: -1,
            assumed_bandwidth_bps: -1,
            default_constraints: MaxHeight {
                max_height: i32::from(height),
            },
            constraints,
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
                self.pump_channel(now);
            }
            None => self.outputs.push_back(Output::ChannelText(text)),
        }
    }

    /// What a camera or screen shows, as the client tells the bridge.
    fn say_video_type(&mut self, now: Instant, kind: Kind) {
        let muted = self
            .media
            .as_ref()
            .is_some_and(|media| media.is_muted(kind));
        let video_type = match kind {
            Kind::Audio => return,
            Kind::Camera | Kind::Desktop if muted => "none",
            Kind::Camera => "camera",
            Kind::Desktop => "desktop",
        };
        let message = Outgoing::SourceVideoTypeMessage {
            source_name: source_name(&self.settings.room.endpoint, kind),
            video_type,
        };
        self.say(now, &message);
    }

    /// What the room is told of our sources.
    fn source_states(&self) -> Vec<(String, SourceState)> {
        let Some(media) = &self.media else {
            return Vec::new();
        };
        let state = |kind| {
            let state = SourceState {
                muted: media.is_muted(kind),
                video_type: match kind {
                    Kind::Desktop => VideoType::Desktop,
                    Kind::Audio | Kind::Camera => VideoType::Camera,
                },
                media_type: None,
            };
            (source_name(&self.settings.room.endpoint, kind), state)
        };
        media.kinds().map(state).collect()
    }

    /// What the participant does by itself.
    fn act(&mut self, now: Instant, act: Act) {
        let (Some(sender), Some(media)) = (&mut self.sender, &mut self.media) else {
            return;
        };
        match act {
            Act::Mute(kind, muted) => {
                media.set_muted(now, kind, muted);
                self.unsaid = Some(kind);
            }
            // As a client does: source-add, and at once presence.
            Act::Share => {
                let endpoint = &self.settings.room.endpoint;
                let screen = sender.add(Kind::Desktop, endpoint, self.sessions, &mut self.rng);
                self.room.add_source(now, &screen);
                let mut states = self.source_states();
                let state = SourceState {
                    muted: false,
                    video_type: VideoType::Desktop,
                    media_type: None,
                };
                states.push((source_name(endpoint, Kind::Desktop), state));
                self.room.publish(states);
            }
        }
    }

    /// The focus took the screen: its pictures begin.
    fn share(&mut self, now: Instant) {
        let Some(media) = &mut self.media else { return };
        let descriptors = media
            .video(Kind::Camera)
            .is_some_and(|camera| camera.picture().descriptors);
        let screen = Picture::desktop(self.settings.codec, descriptors);
        media.share(screen, self.rng.random(), now);
        let number = self.settings.number;
        self.settings.board.begin(number, Kind::Desktop, now);
        self.say_video_type(now, Kind::Desktop);
    }

    /// Sends no more media; all else goes on.
    pub fn stop_sending(&mut self, now: Instant) {
        if self.stopped.is_none() {
            self.stopped = Some(now);
            self.habits.end();
            if let Some(media) = &self.media {
                let board = &self.settings.board;
                board.end(self.settings.number, media.audio_sent(), now);
            }
        }
    }

    /// Leaves the conference.
    pub fn leave(&mut self) {
        self.room.leave();
        self.outputs.push_back(Output::CloseChannel);
    }

    /// Does whatever has come due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.room.handle_timeout(now);
        if let Some(transport) = &mut self.transport
            && transport.next_timeout().is_some_and(|due| due <= now)
        {
            transport.handle_timeout(now);
        }
        if let Some(channel) = &mut self.data_channel {
            channel.handle_timeout(now);
        }
        self.pump_channel(now);
        self.settle(now);
        if !self.connected() {
            return;
        }
        while let Some(act) = self.habits.poll(now) {
            self.act(now, act);
        }
        let Some(transport) = &mut self.transport else {
            return;
        };
        if let (None, Some(sender), Some(media)) = (self.stopped, &mut self.sender, &mut self.media)
        {
            sender.poll(now, self.clock.epoch, media, |_, _, packet| {
                transport.send_rtp(packet)
            });
        }
        self.say_mutes(now);
        self.report(now);
        if now >= self.stats_due {
            self.stats_due = now + STATS_INTERVAL;
            let stats = Outgoing::EndpointStats {
                connection_quality: 100,
            };
            self.say(now, &stats);
        }
    }

    /// Tells of a source that was muted or unmuted. Once told the bridge passes
    /// nothing on, so the last picture goes before.
    fn say_mutes(&mut self, now: Instant) {
        let sends = |kind| self.media.as_ref().is_some_and(|m| m.ends_picture(kind));
        if let Some(kind) = self.unsaid.take_if(|kind| !sends(*kind)) {
            self.say_video_type(now, kind);
            self.room.publish(self.source_states());
        }
    }

    /// RTCP that is due, as one compound packet.
    fn report(&mut self, now: Instant) {
        let ssrc = self
            .sender
            .as_ref()
            .map_or(self.own_ssrc, Sender::feedback_ssrc);
        let mut packets: Vec<Box<dyn Packet>> = Vec::new();
        if self.receiver.reports_due(now) {
            let reports = self.sender.as_ref().filter(|_| self.stopped.is_none());
            for report in reports
                .into_iter()
                .flat_map(|sender| sender.reports(now, &self.clock))
            {
                packets.push(Box::new(report));
            }
            packets.extend(self.receiver.receiver_reports(now, ssrc));
            packets.push(Box::new(SourceDescription {
                chunks: vec![SourceDescriptionChunk {
                    source: ssrc,
                    items: vec![SourceDescriptionItem {
                        sdes_type: SdesType::SdesCname,
                        text: Bytes::from(self.settings.room.endpoint.clone()),
                    }],
                }],
            }));
        }
        packets.extend(self.receiver.feedback(now, ssrc, &self.clock));
        if packets.is_empty() {
            return;
        }
        let Some(transport) = &mut self.transport else {
            return;
        };
        match rtcp::packet::marshal(&packets) {
            Ok(compound) => {
                transport.send_rtcp(&compound);
            }
            Err(error) => tracing::warn!(%error, "RTCP not sent"),
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_timeout(&mut self) -> Option<Instant> {
        let transport = self.transport.as_mut().and_then(Transport::next_timeout);
        let channel = self
            .data_channel
            .as_ref()
            .and_then(DataChannel::next_timeout);
        let mut due = [
            self.room.next_timeout(),
            transport,
            channel,
            None,
            None,
            None,
        ];
        if self.connected() {
            due[3] = Some(self.receiver.next_feedback());
            due[4] = self.habits.next_due();
            if self.stopped.is_none() {
                due[5] = self.media.as_ref().and_then(Media::next_due);
            }
        }
        due.into_iter().flatten().min()
    }

    /// What is to be done next. Call until `None` after every `handle_*`.
    pub fn poll(&mut self) -> Option<Output> {
        if let Some(stanza) = self.room.poll_stanza() {
            return Some(Output::Stanza(stanza));
        }
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let (to, datagram) = self.transport.as_mut()?.poll_transmit()?;
        Some(Output::Datagram(to, datagram))
    }

    /// Follows up what the parts report.
    fn settle(&mut self, now: Instant) {
        while let Some(event) = self.room.poll_event() {
            self.handle_event(now, event);
        }
        let progress = self.transport.as_ref().map(Transport::progress);
        if progress == self.progress {
            return;
        }
        self.progress = progress;
        match progress {
            Some(Progress::IceConnected) => {
                self.milestones.ice.get_or_insert(now);
            }
            Some(Progress::Ready) => {
                self.milestones.ice.get_or_insert(now);
                self.milestones.connected.get_or_insert(now);
                self.begin_media(now);
            }
            Some(Progress::Failed) => {
                self.fail("ICE or DTLS failed".to_owned());
                self.transport = None;
                self.data_channel = None;
                self.progress = None;
                self.restarts += 1;
                if self.restarts <= MAX_RESTARTS {
                    self.room.restart(now);
                }
            }
            Some(Progress::Checking) | None => {}
        }
    }

    /// Media can flow.
    fn begin_media(&mut self, now: Instant) {
        self.receiver.set_connected(now);
        self.habits.begin(now);
        if let Some(media) = &mut self.media {
            media.resume(now);
            for kind in media.kinds() {
                self.settings.board.begin(self.settings.number, kind, now);
            }
        }
        let addresses = self.transport.as_ref().and_then(Transport::addresses);
        let offered = self
            .offer
            .as_ref()
            .is_some_and(|offer| offer.sctp_port.is_some());
        if let (ChannelKind::Datachannel, true, Some((local, peer))) =
            (self.settings.channel, offered, addresses)
        {
            match DataChannel::new(now, local, peer) {
                Ok(channel) => self.data_channel = Some(channel),
                Err(error) => self.fail(error),
            }
            self.pump_channel(now);
        }
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Ready => {
                self.milestones.ready.get_or_insert(now);
            }
            Event::Joined { alone } => {
                self.milestones.joined.get_or_insert(now);
                if !alone {
                    self.milestones.company = self.milestones.started;
                }
            }
            Event::Company => {
                self.milestones.company.get_or_insert(now);
            }
            Event::Offer(offer) => match Offer::read(&offer, self.settings.codec) {
                Ok(offer) => {
                    self.invitations += 1;
                    self.milestones.offered.get_or_insert(now);
                    let ipv6 = offer.remote.candidates.iter().all(SocketAddr::is_ipv6);
                    self.end_session();
                    self.offer = Some(offer);
                    self.outputs.push_back(Output::Bind { ipv6 });
                }
                Err(error) => self.fail(format!("unusable offer: {error}")),
            },
            Event::Accepted => {
                self.milestones.accepted.get_or_insert(now);
                if self.sender.is_some() && self.sessions == 1 {
                    self.room.publish(self.source_states());
                }
            }
            Event::SourcesAdded(sources) => {
                self.receiver.add(now, &self.clock, &sources);
                // A screen is wanted at a height of its own.
                if self.channel_open && self.receiver.desktops() != self.constrained {
                    self.constrain(now);
                }
            }
            Event::SourcesRemoved(sources) => self.receiver.remove(&sources),
            Event::SourceAccepted => self.share(now),
            Event::SourceInfo(owner, info) => self.receiver.set_muted(now, &owner, &info),
            Event::Left(owner) => self.receiver.remove_owner(now, &owner),
            Event::Terminated => self.end_session(),
            Event::Failed(text) => self.fail(text),
        }
    }

    fn end_session(&mut self) {
        if self.transport.take().is_some() {
            self.outputs.push_back(Output::CloseChannel);
        }
        self.progress = None;
        self.data_channel = None;
        self.channel_open = false;
        self.offer = None;
    }

    fn fail(&mut self, text: String) {
        tracing::warn!(endpoint = %self.settings.room.endpoint, "{text}");
        if self.failures.len() < MAX_FAILURES {
            self.failures.push(text);
        }
    }
}
