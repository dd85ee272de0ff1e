//! One conference, or one shard's part of it: who is in it, whose SSRC is whose,
//! and all that one endpoint does which concerns the others.
//!
//! A part knows all members and sources of its conference. Members homed on its
//! own shard are its endpoints; what it knows of the others, and what it has to
//! tell their shards, is in [`parts`].
//!
//! Endpoints and sources have numbered places, reused when free, so that a
//! packet finds its outputs without a search; whatever is iterated is iterated
//! in a fixed order, so that a run repeats exactly.

mod acquaint;
mod allocate;
mod channels;
mod describe;
mod endpoint;
mod forward;
mod messages;
mod parts;
mod sources;
pub mod speakers;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tracing::{debug, info};

use crate::command::{
    ConferenceSettings, EndpointUpdate, Event, ExpiryReason, RemoteEndpoint, Source, VideoType,
};
use crate::id::{ConferenceId, EndpointId, MemberId};
use crate::outbox::Outbox;
use crate::peers::{PeerOutbox, Senders};
use crate::receive::FeedbackSsrcs;
use crate::rtp::Ssrc;
use crate::settings::ShardSettings;
use crate::stats::{Counters, DropCause};
use crate::transport::{Output, Received, Transport, demux};
use endpoint::Endpoint;
use parts::Floor;
use sources::Placed;
use watch::Plan;

/// Time between looks at what changes by time alone: connectivity
/// (`jitsi-videobridge:jvb/…/EndpointConnectionStatusMonitor`), layers that
/// ceased, idle memory.
pub const TICK: Duration = Duration::from_millis(500);

/// What a conference works with during one call.
pub struct Turn<'a> {
    pub now: Instant,
    pub settings: &'a ShardSettings,
    pub outbox: &'a mut Outbox,
    pub events: &'a mut VecDeque<Event>,
    pub counters: &'a mut Counters,
    /// For other parts of the conference.
    pub peers: &'a mut PeerOutbox,
    /// Changes to who is at which address, for the shard to take over.
    pub addresses: &'a mut Vec<AddressChange>,
    /// Endpoints that may have something to do earlier than before, though
    /// nothing came from them.
    pub rearm: &'a mut Vec<usize>,
}

impl Turn<'_> {
    fn drop(&mut self, cause: DropCause) {
        self.counters.drops[cause] += 1;
    }
}

/// An address that has become, or ceased to be, that of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressChange {
    pub endpoint: usize,
    pub address: SocketAddr,
    pub bound: bool,
}

/// A participant, as every part of its conference knows it.
#[derive(Debug)]
struct Member {
    number: MemberId,
    id: EndpointId,
    /// The shard it is homed on.
    home: usize,
    /// What the others were told of its connection.
    active: bool,
    /// What the client said its sources show, by name.
    video_types: BTreeMap<String, VideoType>,
    /// The other parts are to be told of that.
    retell_types: bool,
    /// The places of its sources, in the order in which signalling named them.
    sources: Vec<usize>,
}

/// Whose an SSRC is.
#[derive(Clone, Copy, Debug)]
struct Owner {
    endpoint: usize,
    slot: usize,
}

/// One conference, or a part of it.
pub struct Conference {
    id: ConferenceId,
    bridge: FeedbackSsrcs,
    /// The shard that has this part.
    shard: usize,
    /// The shard whose part decides who speaks.
    lead: usize,
    members: Vec<Option<Member>>,
    /// Those homed here, at the places they have as members.
    endpoints: Vec<Option<Box<Endpoint>>>,
    by_id: BTreeMap<EndpointId, usize>,
    by_number: BTreeMap<MemberId, usize>,
    sources: Vec<Option<Placed>>,
    ssrcs: BTreeMap<Ssrc, Owner>,
    /// The other shards that have a part.
    parts: BTreeSet<usize>,
    /// How many endpoints are sending on each of them, as told.
    senders: BTreeMap<usize, Senders>,
    floor: Floor,
    /// A key frame to ask of a new dominant speaker.
    plan: Option<Plan>,
    /// Receivers may want something else of sources than was told.
    unsettled: bool,
    /// Grows with every change to the layers of a source here.
    layer_version: u32,
    /// When somebody will be taken to know of a source.
    acquaintances: BTreeSet<Instant>,
    last_allocation: Instant,
    next_tick: Instant,
    next_expiry: Instant,
}

impl Conference {
    /// A conference, or another part of one, on the shard of this number.
    pub fn new(
        now: Instant,
        shard: usize,
        id: ConferenceId,
        settings: &ConferenceSettings,
    ) -> Self {
        // Conferences that begin together need not look around together; the
        // parts of one do.
        let phase = Duration::from_millis(id.0 % TICK.as_millis() as u64);
        let mut conference = Self {
            id,
            bridge: FeedbackSsrcs {
                audio: settings.audio_feedback,
                video: settings.video_feedback,
            },
            shard,
            lead: settings.lead,
            members: Vec::new(),
            endpoints: Vec::new(),
            by_id: BTreeMap::new(),
            by_number: BTreeMap::new(),
            sources: Vec::new(),
            ssrcs: BTreeMap::new(),
            parts: BTreeSet::from([settings.lead]),
            senders: BTreeMap::new(),
            floor: Floor::new(settings.lead == shard),
            plan: None,
            unsettled: false,
            layer_version: 0,
            acquaintances: BTreeSet::new(),
            last_allocation: now,
            next_tick: next_tick(now, settings.created + phase),
            next_expiry: now + watch::EXPIRY_INTERVAL,
        };
        conference.parts.remove(&shard);
        conference
    }

    /// The place of an endpoint that is homed here.
    pub fn find(&self, endpoint: &EndpointId) -> Option<usize> {
        let slot = *self.by_id.get(endpoint)?;
        self.endpoints[slot].is_some().then_some(slot)
    }

    /// Whether an endpoint has no keys for media yet.
    pub fn is_handshaking(&self, slot: usize) -> bool {
        let endpoint = self.endpoints.get(slot).and_then(Option::as_ref);
        endpoint.is_some_and(|endpoint| !endpoint.peer.transport.has_keys())
    }

    /// Places of all endpoints homed here.
    pub fn places(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.endpoints.len()).filter(|slot| self.endpoints[*slot].is_some())
    }

    /// Adds an endpoint here, and answers its place; `None` if it is there
    /// already.
    pub fn join(
        &mut self,
        turn: &mut Turn<'_>,
        (number, id): (MemberId, EndpointId),
        visitor: bool,
        transport: Transport,
    ) -> Option<usize> {
        let endpoint = Endpoint::new(turn.now, id.clone(), visitor, transport, turn.settings);
        let slot = self.add_member(number, id, self.shard)?;
        self.endpoints[slot] = Some(Box::new(endpoint));
        for place in 0..self.sources.len() {
            self.offer_audio(turn, place, slot);
        }
        self.allocate(turn, Some(slot));
        Some(slot)
    }

    /// Adds an endpoint that is homed on another shard.
    pub fn join_elsewhere(&mut self, turn: &mut Turn<'_>, endpoint: RemoteEndpoint) {
        let RemoteEndpoint {
            member: number,
            id,
            home,
            sources,
        } = endpoint;
        let Some(slot) = self.add_member(number, id, home) else {
            return;
        };
        if self.parts.insert(home) {
            self.introduce(turn, home);
        }
        if !sources.is_empty() {
            self.set_sources(turn, slot, sources);
            self.allocate(turn, None);
        }
    }

    fn add_member(&mut self, number: MemberId, id: EndpointId, home: usize) -> Option<usize> {
        if self.by_id.contains_key(&id) {
            debug!(conference = %self.id, endpoint = %id, "endpoint is there already");
            return None;
        }
        info!(conference = %self.id, endpoint = %id, home, "endpoint joined");
        let slot = free_place(&mut self.members);
        self.endpoints.resize_with(self.members.len(), || None);
        self.by_id.insert(id.clone(), slot);
        self.by_number.insert(number, slot);
        self.members[slot] = Some(Member {
            number,
            id,
            home,
            active: true,
            video_types: BTreeMap::new(),
            retell_types: false,
            sources: Vec::new(),
        });
        self.floor.join(slot);
        Some(slot)
    }

    /// Replaces the sources of an endpoint that is homed on another shard.
    pub fn set_sources_elsewhere(
        &mut self,
        turn: &mut Turn<'_>,
        number: MemberId,
        sources: Vec<Source>,
    ) {
        if let Some(&slot) = self.by_number.get(&number) {
            self.set_sources(turn, slot, sources);
            self.allocate(turn, None);
        }
    }

    /// Takes an endpoint out, with all its sources.
    pub fn leave(&mut self, turn: &mut Turn<'_>, slot: usize) {
        self.set_sources(turn, slot, Vec::new());
        for placed in self.sources.iter_mut().flatten() {
            placed.outputs.remove(slot);
        }
        let Some(member) = self.members[slot].take() else {
            return;
        };
        info!(conference = %self.id, endpoint = %member.id, "endpoint left");
        self.by_id.remove(&member.id);
        self.by_number.remove(&member.number);
        self.floor.leave(slot);
        if self.plan.as_ref().is_some_and(|plan| plan.speaker == slot) {
            self.plan = None;
        }
        if let Some(endpoint) = self.endpoints[slot].take() {
            self.finish(turn, *endpoint);
        }
        self.forget_part(member.home);
        self.allocate(turn, None);
    }

    /// Takes an endpoint out that is homed on another shard.
    pub fn leave_elsewhere(&mut self, turn: &mut Turn<'_>, number: MemberId) {
        if let Some(&slot) = self.by_number.get(&number) {
            self.leave(turn, slot);
        }
    }

    /// Ends the conference, or this part of it, with all its endpoints.
    pub fn end(&mut self, turn: &mut Turn<'_>) {
        for slot in 0..self.endpoints.len() {
            if let Some(endpoint) = self.endpoints[slot].take() {
                self.finish(turn, *endpoint);
            }
        }
        self.tell_ended(turn);
    }

    fn finish(&self, turn: &mut Turn<'_>, mut endpoint: Endpoint) {
        endpoint.uplink.finish(turn.now, turn.counters);
        if let Some(channel) = endpoint.channels.web_socket() {
            turn.events.push_back(Event::ChannelClose {
                conference: self.id,
                endpoint: endpoint.id,
                channel,
                reason: crate::command::ChannelCloseReason::EndpointClosed,
            });
        }
    }

    /// Changes an endpoint as signalling says.
    pub fn update(&mut self, turn: &mut Turn<'_>, slot: usize, update: EndpointUpdate) {
        let Some(endpoint) = &mut self.endpoints[slot] else {
            return;
        };
        if let Some(media) = &update.media {
            endpoint.formats.add(media);
        }
        if let Some(force_mute) = update.force_mute {
            endpoint.force_mute = force_mute;
        }
        if let Some(last_n) = update.initial_last_n
            && !endpoint.constraints.spoken
        {
            endpoint.constraints.last_n = last_n;
        }
        if update.data_channel {
            endpoint.peer.offer_channel();
        }
        if let Some(remote) = &update.transport {
            endpoint.peer.transport.set_remote(turn.now, remote);
            if remote.ice.is_some() && endpoint.answered.is_none() {
                self.offer_answered(turn.now, slot);
            }
            self.transport_changed(turn, slot);
        }
        if let Some(sources) = update.sources {
            self.set_sources(turn, slot, sources);
        }
        self.allocate(turn, None);
    }

    /// Whether there may be something to [`Self::tell_homes`] and
    /// [`Self::tell_senders`].
    pub fn is_unsettled(&self) -> bool {
        self.unsettled
    }

    /// Takes a datagram that belongs to an endpoint.
    pub fn handle_datagram(
        &mut self,
        turn: &mut Turn<'_>,
        slot: usize,
        (local, from): (SocketAddr, SocketAddr),
        datagram: &mut [u8],
    ) {
        let Some(endpoint) = &mut self.endpoints[slot] else {
            return;
        };
        let len = datagram.len() as u64;
        let proves = demux(datagram) != Some(crate::transport::Kind::Dtls);
        match endpoint
            .peer
            .transport
            .handle(turn.now, local, from, datagram)
        {
            Ok(received) => {
                // DTLS records are not authentic until much later.
                if proves {
                    endpoint.last_activity = Some(turn.now);
                }
                match received {
                    Received::Rtp(index, packet) => {
                        endpoint.peer.heard_media();
                        turn.counters.packets_received += 1;
                        turn.counters.bytes_received += len;
                        self.forward(turn, slot, index, packet);
                    }
                    Received::Rtcp(packet) => {
                        endpoint.peer.heard_media();
                        self.handle_rtcp(turn, slot, packet);
                    }
                    Received::Consumed => self.transport_changed(turn, slot),
                }
            }
            Err(refused) => turn.drop(refused.into()),
        }
    }

    /// Does what has come due for an endpoint.
    pub fn handle_endpoint_timeout(&mut self, turn: &mut Turn<'_>, slot: usize) {
        let Some(endpoint) = &mut self.endpoints[slot] else {
            return;
        };
        if endpoint
            .peer
            .next_timeout()
            .is_some_and(|due| due <= turn.now)
        {
            endpoint.peer.handle_timeout(turn.now);
            self.transport_changed(turn, slot);
        }
        self.send_feedback(turn, slot);
    }

    /// When an endpoint has something to do.
    pub fn next_endpoint_timeout(&self, slot: usize) -> Option<Instant> {
        self.endpoints.get(slot)?.as_ref()?.next_timeout()
    }

    /// Takes from a transport what it has to say and to send.
    fn transport_changed(&mut self, turn: &mut Turn<'_>, slot: usize) {
        let Some(endpoint) = &mut self.endpoints[slot] else {
            return;
        };
        endpoint.peer.refresh();
        let mut ready = false;
        while let Some(output) = endpoint.peer.transport.poll() {
            match output {
                Output::AddressValidated(address) => turn.addresses.push(AddressChange {
                    endpoint: slot,
                    address,
                    bound: true,
                }),
                Output::AddressForgotten(address) => turn.addresses.push(AddressChange {
                    endpoint: slot,
                    address,
                    bound: false,
                }),
                Output::Connected { profile } => {
                    ready = true;
                    endpoint.failed = None;
                    if let Some((_, remote)) = endpoint.peer.transport.path()
                        && endpoint.connected.is_none()
                    {
                        endpoint.connected = Some(turn.now);
                        turn.counters.ice_succeeded += 1;
                        debug!(conference = %self.id, endpoint = %endpoint.id, %remote, "connected");
                        turn.events.push_back(Event::EndpointConnected {
                            conference: self.id,
                            endpoint: endpoint.id.clone(),
                            remote,
                            srtp_profile: profile.name(),
                        });
                    }
                }
                Output::IceFailed => {
                    turn.counters.ice_failed += 1;
                    endpoint.failed = Some(ExpiryReason::IceFailed);
                }
                Output::DtlsFailed(error) => {
                    debug!(conference = %self.id, endpoint = %endpoint.id, %error, "DTLS failed");
                    turn.counters.dtls_failed += 1;
                    endpoint.failed = Some(ExpiryReason::DtlsFailed);
                }
                Output::DtlsClosed => endpoint.peer.close_channel(turn.now),
                Output::ApplicationData(packet) => {
                    if !endpoint.peer.handle_channel(turn.now, &packet) {
                        turn.drop(DropCause::Sctp);
                    }
                }
            }
        }
        endpoint.peer.transmit(turn.now, turn.outbox);
        if ready {
            self.allocate(turn, Some(slot));
        }
        self.data_channel_changed(turn, slot);
    }
}

/// A free place in a list, made if there is none.
fn free_place<T>(list: &mut Vec<Option<T>>) -> usize {
    list.iter().position(Option::is_none).unwrap_or_else(|| {
        list.push(None);
        list.len() - 1
    })
}

/// The first moment after `now` that is a multiple of [`TICK`] after `origin`.
fn next_tick(now: Instant, origin: Instant) -> Instant {
    let ticks = now.saturating_duration_since(origin).as_nanos() / TICK.as_nanos();
    let ticks = u32::try_from(ticks + 1).expect("less than 68 years");
    origin + TICK * if now < origin { 0 } else { ticks }
}
