//! Where endpoints are homed, and which shards have to know: what the registry
//! decides becomes commands here, each for the shards it concerns.
//!
//! A conference begins on the worker with the fewest endpoints, and stays there
//! until it has outgrown it; further endpoints are homed on others. Every shard
//! that has some of them has a part of the conference and is told, in the same
//! order, of all who join and leave and of all sources. Whose an SSRC is, is
//! decided here, once for all parts.
//!
//! The order in which shards are told matters, since they talk to each other as
//! soon as they know of each other. What one says about an endpoint must find it
//! known, so an endpoint is told to its home last; what one asks of a source goes
//! to its home, so a source is told there first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use crate::command::{
    Command, ConferenceSettings, EndpointSettings, EndpointUpdate, MediaType, RemoteEndpoint,
    Source,
};
use crate::id::{ConferenceId, EndpointId, MemberId};
use crate::projection::MAX_ENCODINGS;
use crate::rtp::Ssrc;
use crate::view::Subject;

/// Endpoints of one conference on one worker, before more of them are homed
/// elsewhere. So many who all see each other cost a worker about a tenth of its
/// time; beyond, the cost grows with the square, while what goes between two
/// workers is a packet of each sender.
pub const ENDPOINTS_PER_WORKER: usize = 32;

/// A command with the worker whose shard it is for.
#[derive(Debug)]
pub struct Dispatch {
    pub worker: usize,
    pub command: Command,
}

/// All conferences, by where their endpoints are. See the head of this file.
#[derive(Debug)]
pub struct Placement {
    endpoints_per_worker: usize,
    /// Endpoints homed on each worker.
    load: Vec<usize>,
    conferences: BTreeMap<ConferenceId, Spread>,
    last_member: u64,
    dispatches: VecDeque<Dispatch>,
}

/// One conference.
#[derive(Debug)]
struct Spread {
    created: Instant,
    audio_feedback: Ssrc,
    video_feedback: Ssrc,
    lead: usize,
    /// In the order in which they joined.
    members: BTreeMap<MemberId, RemoteEndpoint>,
    ssrcs: BTreeMap<Ssrc, MemberId>,
}

impl Spread {
    /// How many endpoints each part has; the one that leads may have none.
    fn parts(&self) -> BTreeMap<usize, usize> {
        let mut parts = BTreeMap::from([(self.lead, 0)]);
        for member in self.members.values() {
            *parts.entry(member.home).or_default() += 1;
        }
        parts
    }

    /// All shards with a part of it, but one.
    fn others(&self, but: usize) -> BTreeSet<usize> {
        let mut others: BTreeSet<usize> = self.parts().into_keys().collect();
        others.remove(&but);
        others
    }

    /// Leaves sources only those encodings whose SSRCs are nobody else's, nor
    /// another of the same endpoint, and notes whose they are now. An SSRC
    /// belongs to whoever named it first.
    fn claim(&mut self, member: MemberId, sources: &mut Vec<Source>) {
        self.ssrcs.retain(|_, owner| *owner != member);
        for source in &mut *sources {
            let audio = source.media_type == MediaType::Audio;
            let most = if audio { 1 } else { usize::from(MAX_ENCODINGS) };
            source.encodings.retain_mut(|encoding| {
                let primary = self.claim_one(member, encoding.primary);
                if primary {
                    let rtx = encoding.rtx.filter(|_| !audio);
                    encoding.rtx = rtx.filter(|rtx| self.claim_one(member, *rtx));
                }
                primary
            });
            source.encodings.truncate(most);
        }
        sources.retain(|source| !source.encodings.is_empty());
    }

    fn claim_one(&mut self, member: MemberId, ssrc: Ssrc) -> bool {
        let ours = [self.audio_feedback, self.video_feedback];
        let taken = ours.contains(&ssrc) || self.ssrcs.contains_key(&ssrc);
        if taken {
            tracing::debug!(?member, ?ssrc, "SSRC is in use already");
        } else {
            self.ssrcs.insert(ssrc, member);
        }
        !taken
    }
}

impl Placement {
    /// No conferences yet, for so many workers, at least one.
    pub fn new(workers: usize, endpoints_per_worker: usize) -> Self {
        Self {
            endpoints_per_worker: endpoints_per_worker.max(1),
            load: vec![0; workers.max(1)],
            conferences: BTreeMap::new(),
            last_member: 0,
            dispatches: VecDeque::new(),
        }
    }

    /// The commands made since the last call, in order.
    pub fn take_dispatches(&mut self) -> impl Iterator<Item = Dispatch> + '_ {
        self.dispatches.drain(..)
    }

    /// Begins a conference that is not there yet.
    pub fn create_conference(
        &mut self,
        now: Instant,
        conference: ConferenceId,
        audio_feedback: Ssrc,
        video_feedback: Ssrc,
    ) {
        let lead = self.least_loaded(|_| true).expect("at least one worker");
        let spread = Spread {
            created: now,
            audio_feedback,
            video_feedback,
            lead,
            members: BTreeMap::new(),
            ssrcs: BTreeMap::new(),
        };
        self.conferences.insert(conference, spread);
        self.create_part(conference, lead);
    }

    /// Ends a conference on all shards that have a part of it.
    pub fn expire_conference(&mut self, conference: ConferenceId) {
        let Some(spread) = self.conferences.remove(&conference) else {
            return;
        };
        for (worker, endpoints) in spread.parts() {
            self.load[worker] -= endpoints;
            self.dispatch(worker, Command::ExpireConference { conference });
        }
    }

    /// The worker on which the next endpoint of a conference is to be homed:
    /// that of a part with room, else one that has no part yet, else that of the
    /// smallest part.
    pub fn next_home(&self, conference: ConferenceId) -> usize {
        let parts = self.spread(conference).parts();
        let room = parts.iter().find(|(_, n)| **n < self.endpoints_per_worker);
        let with_room = room.map(|(worker, _)| *worker);
        let fresh = || self.least_loaded(|worker| !parts.contains_key(&worker));
        let smallest = || {
            let size = |(worker, n): &(&usize, &usize)| (**n, self.load[**worker]);
            parts.iter().min_by_key(size).map(|(worker, _)| *worker)
        };
        let home = with_room.or_else(fresh).or_else(smallest);
        home.expect("a conference has a part")
    }

    /// Homes an endpoint on a worker that [`Self::next_home`] named.
    pub fn create_endpoint(
        &mut self,
        conference: ConferenceId,
        id: EndpointId,
        home: usize,
        settings: Box<EndpointSettings>,
    ) -> MemberId {
        self.last_member += 1;
        let endpoint = RemoteEndpoint {
            member: MemberId(self.last_member),
            id,
            home,
            sources: Vec::new(),
        };
        let parts = self.spread(conference).parts();
        if !parts.contains_key(&home) {
            self.create_part(conference, home);
        }
        for worker in parts.into_keys().filter(|worker| *worker != home) {
            let endpoint = Box::new(endpoint.clone());
            let command = Command::RemoteJoined {
                conference,
                endpoint,
            };
            self.dispatch(worker, command);
        }
        self.load[home] += 1;
        let (id, member) = (endpoint.id.clone(), endpoint.member);
        self.spread_mut(conference).members.insert(member, endpoint);
        let command = Command::CreateEndpoint {
            conference,
            endpoint: id,
            member,
            settings,
        };
        self.dispatch(home, command);
        member
    }

    /// Changes an endpoint.
    pub fn update_endpoint(
        &mut self,
        conference: ConferenceId,
        member: MemberId,
        mut update: EndpointUpdate,
    ) {
        let spread = self.spread_mut(conference);
        if let Some(sources) = &mut update.sources {
            spread.claim(member, sources);
        }
        let endpoint = spread.member_mut(member);
        if let Some(sources) = &update.sources {
            endpoint.sources.clone_from(sources);
        }
        let (home, id) = (endpoint.home, endpoint.id.clone());
        let sources = update.sources.clone();
        let others = spread.others(home);
        let command = Command::UpdateEndpoint {
            conference,
            endpoint: id,
            update: Box::new(update),
        };
        self.dispatch(home, command);
        let Some(sources) = sources else { return };
        for worker in others {
            let sources = sources.clone();
            let command = Command::RemoteSources {
                conference,
                member,
                sources,
            };
            self.dispatch(worker, command);
        }
    }

    /// Takes an endpoint out, and with the last of a part that part, unless it
    /// leads.
    pub fn expire_endpoint(&mut self, conference: ConferenceId, member: MemberId) {
        let spread = self.spread_mut(conference);
        spread.ssrcs.retain(|_, owner| *owner != member);
        let Some(RemoteEndpoint { id, home, .. }) = spread.members.remove(&member) else {
            return;
        };
        let over = !spread.parts().contains_key(&home);
        let others = spread.others(home);
        self.load[home] -= 1;
        let command = Command::ExpireEndpoint {
            conference,
            endpoint: id,
        };
        self.dispatch(home, command);
        if over {
            self.dispatch(home, Command::ExpireConference { conference });
        }
        for worker in others {
            self.dispatch(worker, Command::RemoteLeft { conference, member });
        }
    }

    /// The worker of an endpoint.
    pub fn home(&self, conference: ConferenceId, member: MemberId) -> Option<usize> {
        let member = self.conferences.get(&conference)?.members.get(&member)?;
        Some(member.home)
    }

    /// Asks all parts of a conference about it; answers how many there are.
    pub fn describe(&mut self, conference: ConferenceId, query: u64, subject: &Subject) -> usize {
        let Some(spread) = self.conferences.get(&conference) else {
            return 0;
        };
        let parts = spread.parts();
        for worker in parts.keys() {
            let subject = subject.clone();
            self.dispatch(
                *worker,
                Command::Describe {
                    conference,
                    query,
                    subject,
                },
            );
        }
        parts.len()
    }

    fn create_part(&mut self, conference: ConferenceId, worker: usize) {
        let spread = self.spread(conference);
        let settings = Box::new(ConferenceSettings {
            created: spread.created,
            audio_feedback: spread.audio_feedback,
            video_feedback: spread.video_feedback,
            lead: spread.lead,
            members: spread.members.values().cloned().collect(),
        });
        let command = Command::CreateConference {
            conference,
            settings,
        };
        self.dispatch(worker, command);
    }

    fn least_loaded(&self, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let workers = (0..self.load.len()).filter(|worker| fits(*worker));
        workers.min_by_key(|worker| self.load[*worker])
    }

    fn dispatch(&mut self, worker: usize, command: Command) {
        self.dispatches.push_back(Dispatch { worker, command });
    }

    fn spread(&self, conference: ConferenceId) -> &Spread {
        let spread = self.conferences.get(&conference);
        spread.expect("the registry names conferences that are there")
    }

    fn spread_mut(&mut self, conference: ConferenceId) -> &mut Spread {
        let spread = self.conferences.get_mut(&conference);
        spread.expect("the registry names conferences that are there")
    }
}

impl Spread {
    fn member_mut(&mut self, member: MemberId) -> &mut RemoteEndpoint {
        let endpoint = self.members.get_mut(&member);
        endpoint.expect("the registry names endpoints that are there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Encoding, IceCredentials, VideoType};
    use crate::id::SourceName;

    const ONE: ConferenceId = ConferenceId(1);

    fn join(placement: &mut Placement, conference: ConferenceId, id: &str) -> (MemberId, usize) {
        let home = placement.next_home(conference);
        let settings = Box::new(EndpointSettings {
            local_ice: IceCredentials {
                ufrag: String::new(),
                pwd: String::new(),
            },
            ice_controlling: true,
            ice_tie_breaker: 0,
            local_candidates: Vec::new(),
            visitor: false,
        });
        let member = placement.create_endpoint(conference, id.into(), home, settings);
        assert_eq!(placement.home(conference, member), Some(home));
        (member, home)
    }

    fn created(workers: usize, conferences: u64) -> Placement {
        let mut placement = Placement::new(workers, 2);
        for conference in 1..=conferences {
            let id = ConferenceId(conference);
            placement.create_conference(Instant::now(), id, Ssrc(1), Ssrc(2));
        }
        placement
    }

    /// What was decided: the worker, and the name of the command.
    fn decided(placement: &mut Placement) -> Vec<String> {
        let name = |dispatch: Dispatch| {
            let command = format!("{:?}", dispatch.command);
            let name = command.split([' ', '{']).next().unwrap_or_default();
            format!("{} {name}", dispatch.worker)
        };
        placement.take_dispatches().map(name).collect()
    }

    #[test]
    fn a_conference_stays_on_its_worker_until_it_has_outgrown_it() {
        let mut placement = created(3, 1);
        let homes: Vec<_> = (0..9)
            .map(|n| join(&mut placement, ONE, &n.to_string()))
            .collect();
        let workers = homes.iter().map(|(_, home)| *home);
        assert!(workers.eq([0, 0, 1, 1, 2, 2, 0, 1, 2]));
        // Who takes the place of one that left is where that was.
        placement.expire_endpoint(ONE, homes[0].0);
        placement.expire_endpoint(ONE, homes[1].0);
        assert_eq!(join(&mut placement, ONE, "next").1, 0);
        // A small conference is not spread, and goes where there is room.
        let two = ConferenceId(2);
        placement.create_conference(Instant::now(), two, Ssrc(1), Ssrc(2));
        assert_eq!(join(&mut placement, two, "a").1, 0);
        assert_eq!(join(&mut placement, two, "b").1, 0);
        placement.expire_conference(ONE);
        assert_eq!(placement.load, [2, 0, 0]);
        placement.expire_conference(two);
        assert_eq!(placement.load, [0, 0, 0]);
    }

    #[test]
    fn every_part_is_told_of_everybody_in_an_order_that_holds() {
        let mut placement = created(2, 1);
        let (a, _) = join(&mut placement, ONE, "a");
        join(&mut placement, ONE, "b");
        assert_eq!(
            decided(&mut placement),
            ["0 CreateConference", "0 CreateEndpoint", "0 CreateEndpoint"]
        );
        let (c, _) = join(&mut placement, ONE, "c");
        let commands: Vec<_> = placement.take_dispatches().collect();
        let Command::CreateConference { settings, .. } = &commands[0].command else {
            panic!("the part first: {commands:?}");
        };
        assert_eq!((commands[0].worker, settings.lead), (1, 0));
        let known = settings.members.iter().map(|m| (&*m.id.0, m.home));
        assert!(known.eq([("a", 0), ("b", 0)]));
        assert!(matches!(commands[1].command, Command::RemoteJoined { .. }));
        assert!(matches!(
            commands[2].command,
            Command::CreateEndpoint { .. }
        ));
        assert_eq!((commands[1].worker, commands[2].worker), (0, 1));
        let update = EndpointUpdate {
            sources: Some(Vec::new()),
            ..EndpointUpdate::default()
        };
        placement.update_endpoint(ONE, a, update);
        assert_eq!(
            decided(&mut placement),
            ["0 UpdateEndpoint", "1 RemoteSources"]
        );
        placement.expire_endpoint(ONE, c);
        assert_eq!(
            decided(&mut placement),
            ["1 ExpireEndpoint", "1 ExpireConference", "0 RemoteLeft"]
        );
        placement.expire_conference(ONE);
        assert_eq!(decided(&mut placement), ["0 ExpireConference"]);
    }

    #[test]
    fn the_part_that_leads_lasts_as_long_as_the_conference() {
        let mut placement = created(2, 1);
        let (a, _) = join(&mut placement, ONE, "a");
        let (b, _) = join(&mut placement, ONE, "b");
        join(&mut placement, ONE, "c");
        decided(&mut placement);
        placement.expire_endpoint(ONE, a);
        placement.expire_endpoint(ONE, b);
        let decided = decided(&mut placement);
        assert!(
            decided.iter().all(|d| !d.contains("ExpireConference")),
            "{decided:?}"
        );
    }

    #[test]
    fn an_ssrc_belongs_to_whoever_named_it_first() {
        let mut placement = created(2, 1);
        let members = ["a", "b", "c"].map(|id| join(&mut placement, ONE, id).0);
        decided(&mut placement);
        let source = |ssrcs: &[(u32, u32)]| Source {
            name: SourceName::from("v0"),
            media_type: MediaType::Video,
            video_type: VideoType::Camera,
            encodings: ssrcs
                .iter()
                .map(|(primary, rtx)| Encoding {
                    primary: Ssrc(*primary),
                    rtx: Some(Ssrc(*rtx)),
                })
                .collect(),
        };
        let mut told = |member, sources: Vec<Source>| {
            let update = EndpointUpdate {
                sources: Some(sources),
                ..EndpointUpdate::default()
            };
            placement.update_endpoint(ONE, member, update);
            let told = placement.take_dispatches().map(|d| match d.command {
                Command::UpdateEndpoint { update, .. } => update.sources.expect("told"),
                Command::RemoteSources { sources, .. } => sources,
                other => panic!("{other:?}"),
            });
            let told: Vec<_> = told.collect();
            assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:?}");
            let ssrcs = told[0].iter().flat_map(|s| &s.encodings);
            ssrcs
                .map(|e| (e.primary.0, e.rtx.map_or(0, |rtx| rtx.0)))
                .collect::<Vec<_>>()
        };
        // Ours, and one named twice, are nobody's.
        let ours = source(&[(1, 11), (10, 2), (20, 10), (20, 21)]);
        assert_eq!(told(members[0], vec![ours]), [(10, 0), (20, 0)]);
        assert_eq!(
            told(members[1], vec![source(&[(20, 30), (31, 10)])]),
            [(31, 0)]
        );
        // Nothing is left of a source whose SSRCs are all another's.
        assert_eq!(told(members[2], vec![source(&[(10, 40)])]), []);
        assert_eq!(told(members[0], Vec::new()), []);
        assert_eq!(told(members[2], vec![source(&[(10, 40)])]), [(10, 40)]);
    }
}
