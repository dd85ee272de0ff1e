//! One synthetic participant, without socket or clock: signalling ([`room`],
//! [`jingle`]), transport ([`transport`]), media both ways ([`send`],
//! [`receive`]) and the bridge channel ([`channel`]).
//!
//! Its driver feeds stanzas, datagrams, channel messages and the time, and
//! carries out what [`Participant::poll`] returns.

pub mod channel;
pub mod jingle;
pub mod login;
pub mod receive;
pub mod room;
pub mod send;
pub mod transport;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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
use viaduct_signalling::sources::EndpointSources;
use viaduct_signalling::xml::Element;

use crate::source::Codec;
use crate::source::audio::AudioSource;
use crate::source::video::{CAMERA, VideoSource};
use channel::{Incoming, MaxHeight, Outgoing};
use jingle::Offer;
use receive::Receiver;
use room::{Event, Room, RoomSettings};
use send::Sender;
use transport::{Identity, Progress, Received, Transport};

/// Restarts a client asks for in one conference (client-focus §4.7).
const MAX_RESTARTS: u32 = 3;
/// Interval of `EndpointStats`.
const STATS_INTERVAL: Duration = Duration::from_secs(10);
/// Failures kept for the report.
const MAX_FAILURES: usize = 16;

/// The one clock of a run.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Send times in packets count from here.
    pub epoch: Instant,
    /// NTP time (RFC 5905 §6, 32.32 bits) of the epoch.
    pub epoch_ntp: u64,
}

impl Clock {
    /// NTP time at `now`.
    pub fn ntp(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch);
        let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
        self.epoch_ntp
            .wrapping_add(since.as_secs() << 32)
            .wrapping_add(fraction)
    }
}

/// What a participant is.
#[derive(Clone)]
pub struct Settings {
    pub room: RoomSettings,
    /// Number in the run; senders have the lowest.
    pub index: u16,
    pub senders: u16,
    /// Endpoints that send, and their numbers.
    pub sending: BTreeMap<String, u16>,
    pub run: u32,
    pub codec: Codec,
    pub max_height: u16,
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
    audio: Option<AudioSource>,
    video: Option<VideoSource>,
    pub receiver: Receiver,
    channel_open: bool,
    stats_due: Instant,
    stopped: Option<Instant>,
    own_ssrc: u32,
    outputs: VecDeque<Output>,
    pub milestones: Milestones,
    pub failures: Vec<String>,
    pub restarts: u32,
    pub invitations: u32,
    pub dominant_changes: u64,
    sent: send::SendStats,
}

impl Participant {
    pub fn new(
        settings: Settings,
        clock: Clock,
        identity: Identity,
        now: Instant,
    ) -> Result<Self, String> {
        let mut rng = SmallRng::seed_from_u64(settings.seed);
        let sends = settings.index < settings.senders;
        let audio = sends.then(|| {
            AudioSource::new(
                settings.run,
                settings.index,
                settings.senders,
                rng.random(),
                now,
            )
        });
        let video = sends.then(|| {
            VideoSource::new(
                settings.run,
                settings.index,
                settings.codec,
                &CAMERA,
                rng.random(),
                now,
            )
        });
        let receiver = Receiver::new(settings.run, settings.sending.clone(), now);
        Ok(Self {
            room: Room::new(settings.room.clone(), rng.random())?,
            own_ssrc: rng.random_range(1..=u32::MAX),
            settings,
            clock,
            identity,
            rng,
            offer: None,
            transport: None,
            progress: None,
            sessions: 0,
            sender: None,
            audio,
            video,
            receiver,
            channel_open: false,
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
            sent: send::SendStats::default(),
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

    /// Audio packets made so far.
    pub fn audio_sent(&self) -> u32 {
        self.audio.as_ref().map_or(0, AudioSource::sent)
    }

    /// All that was sent in all sessions.
    pub fn send_stats(&self) -> send::SendStats {
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
        if self.audio.is_some() {
            let sender = Sender::new(offer.formats.clone(), CAMERA.len(), &mut self.rng);
            signalled = sender.signalled(&self.settings.room.endpoint, self.sessions);
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
        if let Some(url) = &offer.channel_url {
            self.outputs.push_back(Output::OpenChannel(url.clone()));
        }
        self.settle(now);
    }

    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let Some(transport) = &mut self.transport else {
            return;
        };
        match transport.handle(now, from, datagram) {
            Received::Rtp(packet) => {
                self.receiver.receive(now, &self.clock, packet.freeze());
            }
            Received::Rtcp(packet) => self.handle_rtcp(now, packet.freeze()),
            Received::Consumed => self.settle(now),
            Received::Dropped => self.receiver.stats.malformed += 1,
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
        let (Some(sender), Some(video)) = (&mut self.sender, &mut self.video) else {
            return;
        };
        if ssrcs.into_iter().any(|ssrc| sender.sends_video(ssrc)) {
            sender.stats.key_requests += 1;
            video.request_key_frame();
        }
    }

    /// The bridge channel is open.
    pub fn handle_channel_open(&mut self, now: Instant) {
        self.milestones.channel.get_or_insert(now);
        self.channel_open = true;
        self.stats_due = now + STATS_INTERVAL;
        if self.video.is_some() {
            self.say(&Outgoing::SourceVideoTypeMessage {
                source_name: self.camera_name(),
                video_type: "camera",
            });
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
                if source_name == self.camera_name()
                    && let Some(video) = &mut self.video
                {
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
        self.say(&Outgoing::ReceiverVideoConstraints {
            last_n: -1,
            assumed_bandwidth_bps: -1,
            default_constraints: MaxHeight {
                max_height: i32::from(height),
            },
        });
    }

    fn say(&mut self, message: &Outgoing) {
        if self.channel_open {
            self.outputs
                .push_back(Output::ChannelText(message.to_json()));
        }
    }

    fn camera_name(&self) -> String {
        format!("{}-v0", self.settings.room.endpoint)
    }

    /// Sends no more media; all else goes on.
    pub fn stop_sending(&mut self, now: Instant) {
        self.stopped.get_or_insert(now);
    }

    /// Leaves the conference.
    pub fn leave(&mut self) {
        self.room.leave();
        self.outputs.push_back(Output::CloseChannel);
    }

    /// Does whatever has come due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.room.handle_timeout(now);
        if let Some(transport) = &mut self.transport {
            transport.handle_timeout(now);
        }
        self.settle(now);
        if !self.connected() {
            return;
        }
        let Some(transport) = &mut self.transport else {
            return;
        };
        if let (None, Some(sender), Some(audio), Some(video)) = (
            self.stopped,
            &mut self.sender,
            &mut self.audio,
            &mut self.video,
        ) {
            sender.poll(now, self.clock.epoch, audio, video, |packet| {
                transport.send_rtp(packet)
            });
        }
        self.report(now);
        if now >= self.stats_due {
            self.stats_due = now + STATS_INTERVAL;
            self.say(&Outgoing::EndpointStats {
                connection_quality: 100,
            });
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
        let mut due = vec![self.room.next_timeout()];
        if let Some(transport) = &mut self.transport {
            due.push(transport.next_timeout());
        }
        if self.connected() {
            due.push(Some(self.receiver.next_feedback()));
            if self.stopped.is_none() {
                due.push(self.audio.as_ref().map(AudioSource::next_due));
                due.push(self.video.as_ref().map(VideoSource::next_due));
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
                if let (Some(audio), Some(video)) = (&mut self.audio, &mut self.video) {
                    audio.resume(now);
                    video.resume(now);
                }
            }
            Some(Progress::Failed) => {
                self.fail("ICE or DTLS failed".to_owned());
                self.transport = None;
                self.progress = None;
                self.restarts += 1;
                if self.restarts <= MAX_RESTARTS {
                    self.room.restart(now);
                }
            }
            Some(Progress::Checking) | None => {}
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
                    let endpoint = &self.settings.room.endpoint;
                    let names = [format!("{endpoint}-a0"), format!("{endpoint}-v0")];
                    self.room.publish(names);
                }
            }
            Event::SourcesAdded(sources) => self.receiver.add(&self.clock, &sources),
            Event::SourcesRemoved(sources) => self.receiver.remove(&sources),
            Event::Left(owner) => self.receiver.remove_owner(&owner),
            Event::Terminated => self.end_session(),
            Event::Failed(text) => self.fail(text),
        }
    }

    fn end_session(&mut self) {
        if self.transport.take().is_some() {
            self.outputs.push_back(Output::CloseChannel);
        }
        self.progress = None;
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
