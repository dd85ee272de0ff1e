//! A shard: the endpoints of one worker, their conferences, addresses and
//! timers. It has no I/O: a worker hands it datagrams, commands and the time,
//! and sends what lies in the outbox.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, info};

use crate::command::{CandidateKind, Command, ConferenceSettings, EndpointSettings, Event};
use crate::conference::{AddressChange, Conference, Turn};
use crate::directory::{Directory, Home, Misdirected, Resident};
use crate::id::{ConferenceId, EndpointId, MemberId};
use crate::outbox::Outbox;
use crate::peers::{PeerMessage, PeerOutbox, Published, Site};
use crate::settings::ShardSettings;
use crate::stats::{Counters, DropCause, Gauges, ShardStats};
use crate::transport::{Certificate, Kind, Transport, demux};

/// A timer that has fired does not fire again sooner, so that one call does a
/// bounded amount of work whatever a peer makes become due.
const MIN_REARM: Duration = Duration::from_millis(1);
/// Datagrams of handshakes that wait for their turn, of all endpoints and of one:
/// a flight is a few. Beyond it they are dropped, and come again.
const MAX_HANDSHAKES: usize = 4096;
const MAX_FLIGHT: usize = 16;
/// Time between two [`Event::Stats`].
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two [`Event::Homes`]: a thousand addresses take the kernel a
/// quarter of a millisecond, and what comes to the wrong shard until then is handed
/// over.
const HOMES_INTERVAL: Duration = Duration::from_millis(200);

/// An endpoint by its places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    conference: usize,
    /// `None` is the conference itself.
    endpoint: Option<usize>,
}

/// A conference with what the shard keeps about its endpoints.
struct Seat {
    conference: Conference,
    /// By place.
    endpoints: Vec<Option<Tenant>>,
    armed: Option<Instant>,
    /// It is in the list of those that are.
    unsettled: bool,
}

/// What the shard keeps about an endpoint.
struct Tenant {
    ufrag: String,
    addresses: Vec<SocketAddr>,
    /// The timer that is set for it.
    armed: Option<Instant>,
    /// How many of its datagrams wait for their turn.
    waiting: usize,
}

/// A datagram of a handshake.
struct HandshakeStep {
    since: Instant,
    resident: Resident,
    local: SocketAddr,
    from: SocketAddr,
    datagram: Vec<u8>,
}

/// The endpoints of one worker. See the head of this file.
pub struct Shard {
    site: Site,
    settings: ShardSettings,
    certificate: Arc<Certificate>,
    seats: Vec<Option<Box<Seat>>>,
    conferences: BTreeMap<ConferenceId, usize>,
    directory: Directory,
    /// What is due, earliest first. An entry whose time is not the one its
    /// place is armed for has been overtaken.
    timers: BinaryHeap<Reverse<(Instant, Place)>>,
    stats_due: Option<Instant>,
    /// A step of a handshake takes as long as a hundred packets, and many join
    /// at once: so there is one at a time, and media goes between.
    handshakes: VecDeque<HandshakeStep>,
    homes_due: Option<Instant>,
    outbox: Outbox,
    events: VecDeque<Event>,
    counters: Counters,
    address_changes: Vec<AddressChange>,
    rearm: Vec<usize>,
    /// For the other shards.
    peers: PeerOutbox,
    /// Conferences whose receivers may want something else than was told.
    unsettled: Vec<usize>,
}

impl Shard {
    /// An empty shard. Two that are given the same do the same.
    pub fn new(site: Site, settings: ShardSettings, certificate: Arc<Certificate>) -> Self {
        Self {
            site,
            settings,
            certificate,
            seats: Vec::new(),
            conferences: BTreeMap::new(),
            directory: Directory::new(site),
            timers: BinaryHeap::new(),
            stats_due: None,
            handshakes: VecDeque::new(),
            homes_due: None,
            outbox: Outbox::default(),
            events: VecDeque::new(),
            counters: Counters::default(),
            address_changes: Vec::new(),
            rearm: Vec::new(),
            peers: PeerOutbox::default(),
            unsettled: Vec::new(),
        }
    }

    /// Takes a datagram in place, unless it is for nobody here; what it cannot
    /// use it counts and drops.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Result<(), Misdirected> {
        let resident = self.directory.find(from, datagram)?;
        if demux(datagram) == Some(Kind::Dtls) && self.is_handshaking(resident) {
            let full = self.handshakes.len() >= MAX_HANDSHAKES;
            match self.tenant_mut(resident) {
                Some(tenant) if !full && tenant.waiting < MAX_FLIGHT => tenant.waiting += 1,
                _ => {
                    self.count_drop(DropCause::Dtls);
                    return Ok(());
                }
            }
            self.handshakes.push_back(HandshakeStep {
                since: now,
                resident,
                local,
                from,
                datagram: datagram.to_vec(),
            });
        } else {
            self.deliver(now, resident, (local, from), datagram);
        }
        Ok(())
    }

    fn tenant_mut(&mut self, resident: Resident) -> Option<&mut Tenant> {
        let seat = self.seats.get_mut(resident.conference)?.as_mut()?;
        seat.endpoints.get_mut(resident.endpoint)?.as_mut()
    }

    fn is_handshaking(&self, resident: Resident) -> bool {
        let seat = self.seats.get(resident.conference);
        let seat = seat.and_then(Option::as_ref);
        seat.is_some_and(|seat| seat.conference.is_handshaking(resident.endpoint))
    }

    fn deliver(
        &mut self,
        now: Instant,
        resident: Resident,
        pair: (SocketAddr, SocketAddr),
        datagram: &mut [u8],
    ) {
        let Resident {
            conference,
            endpoint,
        } = resident;
        self.with(now, conference, |conference, turn| {
            conference.handle_datagram(turn, endpoint, pair, datagram);
        });
        self.arm(now, conference, Some(endpoint));
        self.arm(now, conference, None);
    }

    /// Takes one step of a handshake. If its endpoint has gone since, another in
    /// its place does not know the address.
    fn step(&mut self, now: Instant) {
        if let Some(mut step) = self.handshakes.pop_front() {
            if let Some(tenant) = self.tenant_mut(step.resident) {
                tenant.waiting = tenant.waiting.saturating_sub(1);
            }
            let pair = (step.local, step.from);
            self.deliver(now, step.resident, pair, &mut step.datagram);
        }
    }

    /// Takes a datagram that another shard handed over. It goes no further: what
    /// is not for anyone here has been overtaken by a change of its address.
    pub fn handle_handed_over(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Result<(), DropCause> {
        match self.handle_datagram(now, local, from, datagram) {
            Ok(()) => {
                self.counters.datagrams_handed_over += 1;
                Ok(())
            }
            Err(Misdirected::Shard(_)) => Err(DropCause::UnknownAddress),
            Err(Misdirected::Nobody(cause)) => Err(cause),
        }
    }

    /// Counts what was dropped on its way to or from this shard.
    pub fn count_drop(&mut self, cause: DropCause) {
        self.count_drops(cause, 1);
    }

    /// As [`Self::count_drop`], of so many.
    pub fn count_drops(&mut self, cause: DropCause, count: u64) {
        self.counters.drops[cause] += count;
    }

    /// RTP packets sent so far that were not asked for again.
    pub fn forwarded(&self) -> u64 {
        self.counters.packets_sent - self.counters.retransmissions_sent
    }

    /// Takes another shard's word.
    pub fn handle_peer(&mut self, now: Instant, from: usize, message: PeerMessage) {
        match message {
            PeerMessage::Part { conference, news } => {
                // Of one that has ended here, nothing is of use any more.
                let Some(&at) = self.conferences.get(&conference) else {
                    return;
                };
                self.with(now, at, |conference, turn| {
                    conference.handle_news(turn, from, news);
                });
                self.arm(now, at, None);
            }
            PeerMessage::AddressBound { address, since } => {
                let changed = self.directory.bind(address, Home::Shard(from), since);
                self.note_homes(now, changed);
            }
            PeerMessage::AddressForgotten { address } => {
                let changed = self.directory.forget(address, Home::Shard(from));
                self.note_homes(now, changed);
            }
        }
    }

    /// Takes a packet that another shard published for this one.
    pub fn handle_published(&mut self, now: Instant, head: Published, packet: &[u8]) {
        let Some(&at) = self.conferences.get(&head.conference) else {
            self.count_drop(DropCause::UnwantedPublished);
            return;
        };
        self.with(now, at, |conference, turn| {
            conference.handle_published(turn, head, packet);
        });
        self.arm(now, at, None);
    }

    /// Tells other shards what is wanted here of sources that are homed there.
    /// To be called once all there was to handle has been, and before
    /// [`Self::tell_senders`].
    pub fn tell_homes(&mut self, now: Instant) {
        for at in 0..self.unsettled.len() {
            self.with(now, self.unsettled[at], Conference::tell_homes);
        }
    }

    /// Tells senders here what is wanted of them.
    pub fn tell_senders(&mut self, now: Instant) {
        let mut unsettled = std::mem::take(&mut self.unsettled);
        for at in unsettled.drain(..) {
            if let Some(Some(seat)) = self.seats.get_mut(at) {
                seat.unsettled = false;
            }
            self.with(now, at, Conference::tell_senders);
        }
        // The list is empty: nothing above unsettles a conference again.
        self.unsettled = unsettled;
    }

    /// What there is for the other shards.
    pub fn peers(&mut self) -> &mut PeerOutbox {
        &mut self.peers
    }

    /// Carries out a command. One about something that is not there any more
    /// has crossed with the news of that.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        self.stats_due.get_or_insert(now + STATS_INTERVAL);
        match command {
            Command::CreateConference {
                conference,
                settings,
            } => self.create_conference(now, conference, *settings),
            Command::ExpireConference { conference } => self.expire_conference(now, conference),
            Command::CreateEndpoint {
                conference,
                endpoint,
                member,
                settings,
            } => self.create_endpoint(now, conference, (member, endpoint), &settings),
            Command::RemoteJoined {
                conference,
                endpoint,
            } => self.with_conference(now, conference, |conference, turn| {
                conference.join_elsewhere(turn, *endpoint);
            }),
            Command::RemoteSources {
                conference,
                member,
                sources,
            } => self.with_conference(now, conference, |conference, turn| {
                conference.set_sources_elsewhere(turn, member, sources);
            }),
            Command::RemoteLeft { conference, member } => {
                self.with_conference(now, conference, |conference, turn| {
                    conference.leave_elsewhere(turn, member);
                });
            }
            Command::UpdateEndpoint {
                conference,
                endpoint,
                update,
            } => self.with_endpoint(now, conference, &endpoint, |conference, turn, slot| {
                conference.update(turn, slot, *update);
            }),
            Command::ExpireEndpoint {
                conference,
                endpoint,
            } => {
                self.with_endpoint(now, conference, &endpoint, |conference, turn, slot| {
                    conference.leave(turn, slot);
                });
                self.forget_gone(now, conference);
            }
            Command::Describe {
                conference,
                query,
                subject,
            } => {
                let at = self.conferences.get(&conference);
                let seat = at.and_then(|at| self.seats[*at].as_mut());
                let part = seat.map(|seat| seat.conference.describe(now, &subject));
                self.events.push_back(Event::Described {
                    query,
                    part: Box::new(part.unwrap_or_default()),
                });
            }
            Command::ChannelOpened {
                conference,
                endpoint,
                channel,
            } => self.with_endpoint(now, conference, &endpoint, |conference, turn, slot| {
                conference.channel_opened(turn, slot, channel);
            }),
            Command::ChannelMessage {
                conference,
                endpoint,
                channel,
                text,
            } => self.with_endpoint(now, conference, &endpoint, |conference, turn, slot| {
                conference.channel_message(turn, slot, channel, &text);
            }),
            Command::ChannelClosed {
                conference,
                endpoint,
                channel,
            } => self.with_endpoint(now, conference, &endpoint, |conference, turn, slot| {
                conference.channel_closed(turn, slot, channel);
            }),
        }
    }

    /// Does whatever has come due at `now`. Calling it early is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&Reverse((due, place))) = self.timers.peek() {
            if due > now {
                break;
            }
            self.timers.pop();
            self.fire(now, due, place);
        }
        self.step(now);
        if self.stats_due.is_some_and(|due| due <= now) {
            self.stats_due = Some(now + STATS_INTERVAL);
            let stats = self.stats(now);
            self.events.push_back(Event::Stats(Box::new(stats)));
        }
        if self.homes_due.is_some_and(|due| due <= now) {
            self.homes_due = None;
            let homes = self.directory.homes().collect();
            self.events.push_back(Event::Homes(homes));
        }
    }

    /// When to call [`Self::handle_timeout`]; changes with every other call.
    pub fn next_timeout(&mut self) -> Option<Instant> {
        while let Some(&Reverse((due, place))) = self.timers.peek() {
            if self
                .armed_mut(place)
                .is_some_and(|armed| *armed == Some(due))
            {
                break;
            }
            self.timers.pop();
        }
        let timer = self.timers.peek().map(|Reverse((due, _))| *due);
        let step = self.handshakes.front().map(|step| step.since);
        [timer, self.stats_due, self.homes_due, step]
            .into_iter()
            .flatten()
            .min()
    }

    /// The datagrams to send; whoever sends them clears it.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> impl Iterator<Item = Event> {
        self.events.drain(..)
    }

    /// What has been counted so far, and how things are.
    pub fn stats(&self, now: Instant) -> ShardStats {
        let (addresses, ufrags) = self.directory.sizes();
        let mut gauges = Gauges {
            proved_addresses: addresses as u32,
            user_fragments: ufrags as u32,
            timers: self.timers.len() as u32,
            ..Gauges::default()
        };
        for seat in self.seats.iter().flatten() {
            seat.conference.measure(now, &mut gauges);
        }
        ShardStats {
            counters: self.counters.clone(),
            gauges,
        }
    }

    /// Sees to it that it is told if an address has changed shards.
    fn note_homes(&mut self, now: Instant, changed: bool) {
        let tells = self.site.number == 0 && self.site.count > 1;
        if changed && tells {
            self.homes_due.get_or_insert(now + HOMES_INTERVAL);
        }
    }

    fn tell_all(&mut self, message: PeerMessage) {
        for number in self.site.others() {
            self.peers.tell(number, message.clone());
        }
    }

    fn create_conference(&mut self, now: Instant, id: ConferenceId, settings: ConferenceSettings) {
        if self.conferences.contains_key(&id) {
            debug!(conference = %id, "conference is there already");
            return;
        }
        info!(conference = %id, "conference created");
        let conference = Conference::new(now, self.site.number, id, &settings);
        let at = match self.seats.iter().position(Option::is_none) {
            Some(at) => at,
            None => {
                self.seats.push(None);
                self.seats.len() - 1
            }
        };
        self.seats[at] = Some(Box::new(Seat {
            conference,
            endpoints: Vec::new(),
            armed: None,
            unsettled: false,
        }));
        self.conferences.insert(id, at);
        self.with(now, at, |conference, turn| {
            for member in settings.members {
                conference.join_elsewhere(turn, member);
            }
        });
        self.arm(now, at, None);
    }

    fn expire_conference(&mut self, now: Instant, id: ConferenceId) {
        let Some(at) = self.conferences.remove(&id) else {
            return;
        };
        info!(conference = %id, "conference expired");
        self.with(now, at, |conference, turn| conference.end(turn));
        if let Some(seat) = self.seats[at].take() {
            for (slot, tenant) in seat.endpoints.into_iter().enumerate() {
                if let Some(tenant) = tenant {
                    self.forget(now, (at, slot), tenant);
                }
            }
        }
    }

    fn create_endpoint(
        &mut self,
        now: Instant,
        conference: ConferenceId,
        endpoint: (MemberId, EndpointId),
        settings: &EndpointSettings,
    ) {
        let Some(&at) = self.conferences.get(&conference) else {
            debug!(%conference, endpoint = %endpoint.1, "no such conference");
            return;
        };
        let local: Vec<SocketAddr> = settings
            .local_candidates
            .iter()
            .filter(|candidate| candidate.kind == CandidateKind::Host)
            .map(|candidate| candidate.address)
            .collect();
        let transport = Transport::new(now, settings, self.certificate.clone(), &local);
        let mut place = None;
        self.with(now, at, |conference, turn| {
            place = conference.join(turn, endpoint, settings.visitor, transport);
        });
        let (Some(slot), Some(seat)) = (place, &mut self.seats[at]) else {
            return;
        };
        let ufrag = settings.local_ice.ufrag.clone();
        let resident = Resident {
            conference: at,
            endpoint: slot,
        };
        self.directory.enter(ufrag.clone(), resident);
        let tenant = Tenant {
            ufrag,
            addresses: Vec::new(),
            armed: None,
            waiting: 0,
        };
        if seat.endpoints.len() <= slot {
            seat.endpoints.resize_with(slot + 1, || None);
        }
        seat.endpoints[slot] = Some(tenant);
        self.arm(now, at, Some(slot));
    }

    /// Works on a conference, then takes over the addresses that changed.
    fn with(&mut self, now: Instant, at: usize, work: impl FnOnce(&mut Conference, &mut Turn<'_>)) {
        let Some(Some(seat)) = self.seats.get_mut(at) else {
            return;
        };
        let mut turn = Turn {
            now,
            settings: &self.settings,
            outbox: &mut self.outbox,
            events: &mut self.events,
            counters: &mut self.counters,
            peers: &mut self.peers,
            addresses: &mut self.address_changes,
            rearm: &mut self.rearm,
        };
        work(&mut seat.conference, &mut turn);
        let unsettled = seat.conference.is_unsettled();
        if unsettled && !std::mem::replace(&mut seat.unsettled, unsettled) {
            self.unsettled.push(at);
        }
        let mut changes = std::mem::take(&mut self.address_changes);
        for change in changes.drain(..) {
            self.change_address(now, at, change);
        }
        self.address_changes = changes;
        while let Some(slot) = self.rearm.pop() {
            self.arm(now, at, Some(slot));
        }
    }

    fn change_address(&mut self, now: Instant, at: usize, change: AddressChange) {
        let Some(Some(seat)) = self.seats.get_mut(at) else {
            return;
        };
        let Some(Some(tenant)) = seat.endpoints.get_mut(change.endpoint) else {
            return;
        };
        let address = change.address;
        tenant.addresses.retain(|known| *known != address);
        let home = Home::Here(Resident {
            conference: at,
            endpoint: change.endpoint,
        });
        if change.bound {
            tenant.addresses.push(address);
            let changed = self.directory.bind(address, home, now);
            self.note_homes(now, changed);
            self.tell_all(PeerMessage::AddressBound {
                address,
                since: now,
            });
        } else if self.directory.forget(address, home) {
            self.note_homes(now, true);
            self.tell_all(PeerMessage::AddressForgotten { address });
        }
    }

    fn with_conference(
        &mut self,
        now: Instant,
        conference: ConferenceId,
        work: impl FnOnce(&mut Conference, &mut Turn<'_>),
    ) {
        let Some(&at) = self.conferences.get(&conference) else {
            debug!(%conference, "no such conference");
            return;
        };
        self.with(now, at, work);
        self.arm(now, at, None);
    }

    fn with_endpoint(
        &mut self,
        now: Instant,
        conference: ConferenceId,
        endpoint: &EndpointId,
        work: impl FnOnce(&mut Conference, &mut Turn<'_>, usize),
    ) {
        let Some(&at) = self.conferences.get(&conference) else {
            debug!(%conference, %endpoint, "no such conference");
            return;
        };
        let mut found = None;
        self.with(now, at, |conference, turn| {
            found = conference.find(endpoint);
            if let Some(slot) = found {
                work(conference, turn, slot);
            }
        });
        self.arm(now, at, None);
        self.arm(now, at, found);
    }

    /// Lets go of what is kept about endpoints that have left.
    fn forget_gone(&mut self, now: Instant, conference: ConferenceId) {
        let Some(&at) = self.conferences.get(&conference) else {
            return;
        };
        let Some(seat) = &mut self.seats[at] else {
            return;
        };
        let mut here = vec![false; seat.endpoints.len()];
        for slot in seat.conference.places() {
            if let Some(here) = here.get_mut(slot) {
                *here = true;
            }
        }
        let tenants = seat.endpoints.iter_mut().zip(here).enumerate();
        let gone: Vec<(usize, Tenant)> = tenants
            .filter(|(_, (_, here))| !here)
            .filter_map(|(slot, (tenant, _))| Some((slot, tenant.take()?)))
            .collect();
        for (slot, tenant) in gone {
            self.forget(now, (at, slot), tenant);
        }
    }

    fn forget(&mut self, now: Instant, (conference, endpoint): (usize, usize), tenant: Tenant) {
        let home = Home::Here(Resident {
            conference,
            endpoint,
        });
        self.directory.leave(&tenant.ufrag);
        for address in tenant.addresses {
            if self.directory.forget(address, home) {
                self.note_homes(now, true);
                self.tell_all(PeerMessage::AddressForgotten { address });
            }
        }
    }

    fn fire(&mut self, now: Instant, due: Instant, place: Place) {
        match self.armed_mut(place) {
            Some(armed) if *armed == Some(due) => *armed = None,
            _ => return,
        }
        let at = place.conference;
        if let Some(slot) = place.endpoint {
            self.with(now, at, |conference, turn| {
                conference.handle_endpoint_timeout(turn, slot);
            });
        } else {
            self.with(now, at, Conference::handle_timeout);
        }
        self.arm(now + MIN_REARM, at, place.endpoint);
    }

    fn armed_mut(&mut self, place: Place) -> Option<&mut Option<Instant>> {
        let seat = self.seats.get_mut(place.conference)?.as_mut()?;
        match place.endpoint {
            None => Some(&mut seat.armed),
            Some(slot) => Some(&mut seat.endpoints.get_mut(slot)?.as_mut()?.armed),
        }
    }

    /// Sets the timer of an endpoint, or of a conference, if what it has to do
    /// comes earlier than the timer that is set, but not before `earliest`.
    fn arm(&mut self, earliest: Instant, at: usize, endpoint: Option<usize>) {
        let Some(Some(seat)) = self.seats.get_mut(at) else {
            return;
        };
        let (due, armed) = match endpoint {
            None => (Some(seat.conference.next_timeout()), &mut seat.armed),
            Some(slot) => match seat.endpoints.get_mut(slot) {
                Some(Some(tenant)) => (
                    seat.conference.next_endpoint_timeout(slot),
                    &mut tenant.armed,
                ),
                _ => return,
            },
        };
        if let Some(due) = due.map(|due| due.max(earliest))
            && armed.is_none_or(|armed| due < armed)
        {
            *armed = Some(due);
            let place = Place {
                conference: at,
                endpoint,
            };
            self.timers.push(Reverse((due, place)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::IceCredentials;
    use crate::id::MemberId;
    use crate::rtp::Ssrc;

    const CONFERENCE: ConferenceId = ConferenceId(1);

    fn address(number: u16) -> SocketAddr {
        ([192, 0, 2, 1], 4000 + number).into()
    }

    /// A shard with endpoints, each with an address that was proved.
    fn shard(now: Instant, endpoints: u16) -> Shard {
        let certificate = Arc::new(Certificate::new(Vec::new(), Vec::new()));
        let mut shard = Shard::new(Site::ALONE, ShardSettings::default(), certificate);
        shard.handle_command(
            now,
            Command::CreateConference {
                conference: CONFERENCE,
                settings: Box::new(ConferenceSettings {
                    created: now,
                    audio_feedback: Ssrc(1),
                    video_feedback: Ssrc(2),
                    lead: 0,
                    members: Vec::new(),
                }),
            },
        );
        for number in 0..endpoints {
            shard.handle_command(
                now,
                Command::CreateEndpoint {
                    conference: CONFERENCE,
                    endpoint: EndpointId::from(format!("e{number}").as_str()),
                    member: MemberId(number.into()),
                    settings: Box::new(EndpointSettings {
                        local_ice: IceCredentials {
                            ufrag: format!("u{number}"),
                            pwd: "p".repeat(22),
                        },
                        ice_controlling: false,
                        ice_tie_breaker: 1,
                        local_candidates: Vec::new(),
                        visitor: false,
                    }),
                },
            );
            let home = Home::Here(Resident {
                conference: 0,
                endpoint: number.into(),
            });
            shard.directory.bind(address(number), home, now);
        }
        shard
    }

    /// The record of a handshake, and RTP: both are refused, the one for its
    /// address and the other for want of keys, when they are looked at.
    const RECORD: [u8; 13] = [22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const MEDIA: [u8; 12] = [128, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];

    #[test]
    fn a_step_of_a_handshake_takes_a_turn_and_media_goes_before_it() {
        let now = Instant::now();
        let local = ([192, 0, 2, 9], 10_000).into();
        let mut shard = shard(now, 3);
        for number in 0..3 {
            let taken = shard.handle_datagram(now, local, address(number), &mut { RECORD });
            assert_eq!(taken, Ok(()));
        }
        for steps in 0..3 {
            assert_eq!(shard.counters.drops[DropCause::UnknownAddress], steps);
            let taken = shard.handle_datagram(now, local, address(0), &mut { MEDIA });
            assert_eq!(taken, Ok(()));
            assert_eq!(shard.counters.drops[DropCause::NotReady], steps + 1);
            assert!(shard.next_timeout().is_some_and(|due| due <= now));
            shard.handle_timeout(now);
        }
        assert_eq!(shard.counters.drops[DropCause::UnknownAddress], 3);
        assert!(shard.next_timeout().is_some_and(|due| due > now));
    }

    #[test]
    fn a_crowd_that_shakes_hands_is_bounded() {
        let now = Instant::now();
        let local = ([192, 0, 2, 9], 10_000).into();
        let crowd = (MAX_HANDSHAKES / MAX_FLIGHT) as u16 + 1;
        let mut shard = shard(now, crowd);
        for _ in 0..MAX_FLIGHT + 1 {
            for number in 0..crowd {
                let taken = shard.handle_datagram(now, local, address(number), &mut { RECORD });
                assert_eq!(taken, Ok(()));
            }
        }
        assert_eq!(shard.handshakes.len(), MAX_HANDSHAKES);
        let dropped = usize::from(crowd) + MAX_FLIGHT;
        assert_eq!(shard.counters.drops[DropCause::Dtls], dropped as u64);
        // One that has had a turn may send again.
        shard.handle_timeout(now);
        let taken = shard.handle_datagram(now, local, address(0), &mut { RECORD });
        assert_eq!(taken, Ok(()));
        assert_eq!(shard.handshakes.len(), MAX_HANDSHAKES);
    }

    /// Whatever time passes, until `end`; what was told, and when.
    fn homes_told(shard: &mut Shard, end: Instant) -> Vec<(Instant, Vec<(SocketAddr, usize)>)> {
        let mut told = Vec::new();
        while let Some(due) = shard.next_timeout().filter(|due| *due <= end) {
            shard.handle_timeout(due);
            told.extend(shard.take_events().filter_map(|event| match event {
                Event::Homes(homes) => Some((due, homes)),
                _ => None,
            }));
        }
        told
    }

    #[test]
    fn the_first_of_several_tells_homes_when_they_have_changed() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let bound = |port, ms| PeerMessage::AddressBound {
            address: address(port),
            since: at(ms),
        };
        let forgotten = PeerMessage::AddressForgotten {
            address: address(1),
        };
        let shard = |number, count| {
            let site = Site {
                number,
                count,
                ..Site::ALONE
            };
            let certificate = Arc::new(Certificate::new(Vec::new(), Vec::new()));
            Shard::new(site, ShardSettings::default(), certificate)
        };
        for mut silent in [shard(0, 1), shard(1, 3)] {
            silent.handle_peer(start, 2, bound(1, 0));
            assert_eq!(homes_told(&mut silent, at(1000)), []);
        }
        let mut first = shard(0, 3);
        // Many changes are told at once, that of no shard is none.
        for port in 1..=3 {
            first.handle_peer(at(u64::from(port)), 2, bound(port, 1));
        }
        let told = homes_told(&mut first, at(5000));
        let (when, mut homes) = told.into_iter().next().expect("something to tell");
        homes.sort_unstable();
        assert_eq!(when, at(201));
        assert_eq!(homes, [1, 2, 3].map(|port| (address(port), 2)));
        first.handle_peer(at(5000), 2, bound(3, 5000));
        assert_eq!(homes_told(&mut first, at(9000)), []);
        // It went to another, and its first owner's word comes late.
        first.handle_peer(at(9000), 1, bound(1, 9000));
        first.handle_peer(at(9001), 2, forgotten.clone());
        let told = homes_told(&mut first, at(9999));
        assert_eq!(told.len(), 1);
        assert!(told[0].1.contains(&(address(1), 1)));
        first.handle_peer(at(10_000), 1, forgotten);
        let told = homes_told(&mut first, at(19_999));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].1.len(), 2);
    }
}
