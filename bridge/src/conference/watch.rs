//! What changes in a conference by time alone: who speaks, who is still there,
//! which layers ceased; and the figures of the moment.

use std::time::{Duration, Instant};

use tracing::{debug, info};

use super::parts::Floor;
use super::sources::Ties;
use super::{Conference, TICK, Turn};
use crate::channel;
use crate::command::{Event, ExpiryReason, VideoType};
use crate::peers::{Audience, News, Senders};
use crate::receive::keyframe::Asker;
use crate::stats::Gauges;

/// An endpoint is inactive that has sent nothing for the second time, or not
/// for the first since it joined
/// (`jitsi-videobridge:jvb/…/EndpointConnectionStatusMonitor`).
const FIRST_TRANSFER: Duration = Duration::from_secs(15);
const MAX_INACTIVITY: Duration = Duration::from_secs(8);
/// How often endpoints are looked at that may have gone without a word, after
/// which time of silence they have, and after which if they never came
/// (`jitsi-videobridge:jvb/…/VideobridgeExpireThread`).
pub(super) const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);
const EXPIRY_SILENCE: Duration = Duration::from_secs(60);
const EXPIRY_NEVER: Duration = Duration::from_secs(120);
/// Allocation runs at least so often (`videobridge.cc.max-time-between-calculations`).
const MAX_BETWEEN_ALLOCATIONS: Duration = Duration::from_secs(5);
/// Time after which the want of a bridge channel is counted.
const CHANNEL_EXPECTED: Duration = Duration::from_secs(30);
/// Media so recent counts as being sent.
const RECENT: Duration = Duration::from_secs(2);
/// Loss above which an endpoint counts as having much of it.
const HIGH_LOSS: f32 = 0.1;

/// A key frame to ask of a new dominant speaker, once its audience is ready.
#[derive(Debug)]
pub(super) struct Plan {
    /// Its place, and when it became dominant.
    pub(super) speaker: usize,
    decided: Instant,
    audience: Audience,
    /// Not before it is known that somebody has a stage.
    due: Option<Instant>,
}

impl Conference {
    /// When the conference has something to do that is no endpoint's.
    pub fn next_timeout(&self) -> Instant {
        let due = [
            match &self.floor {
                Floor::Decided(speakers) => speakers.next_timeout(),
                Floor::Told(_) => None,
            },
            self.plan.as_ref().and_then(|plan| plan.due),
            self.next_acquaintance(),
        ];
        due.into_iter().flatten().fold(self.next_tick, Instant::min)
    }

    /// Does what has come due.
    pub fn handle_timeout(&mut self, turn: &mut Turn<'_>) {
        if let Floor::Decided(speakers) = &mut self.floor
            && speakers.handle_timeout(turn.now)
        {
            turn.counters.dominant_speaker_changes += 1;
            self.tell_parts(turn, &self.floor_news(true));
            self.floor_changed(turn);
        }
        if let Some(plan) = &self.plan
            && plan.due.is_some_and(|due| due <= turn.now)
        {
            let speaker = plan.speaker;
            self.plan = None;
            self.ask_speaker(turn, speaker);
        }
        self.make_acquaintances(turn);
        if self.next_tick > turn.now {
            return;
        }
        self.next_tick = turn.now + TICK;
        self.watch_connectivity(turn);
        let mut layers_changed = false;
        for slot in 0..self.endpoints.len() {
            let Some(endpoint) = &mut self.endpoints[slot] else {
                continue;
            };
            endpoint.uplink.tidy(turn.now, turn.counters);
            let waiting = endpoint.connected.is_some_and(|connected| {
                turn.now.saturating_duration_since(connected) >= CHANNEL_EXPECTED
            });
            if waiting && !endpoint.channel_missed && endpoint.channels.current().is_none() {
                debug!(conference = %self.id, endpoint = %endpoint.id, "no bridge channel yet");
                turn.counters.endpoints_without_channel += 1;
            }
            endpoint.channel_missed |= waiting;
            for (place, changed) in endpoint.uplink.take_layer_changes(turn.now) {
                layers_changed |= changed;
                self.note_layers(turn, place, false, changed);
            }
        }
        for placed in self.sources.iter_mut().flatten() {
            placed.outputs.tidy(turn.now);
            if let Ties::Elsewhere { stores, .. } = &mut placed.ties {
                stores.iter_mut().for_each(|store| store.tidy(turn.now));
            }
        }
        let since = turn.now.saturating_duration_since(self.last_allocation);
        if layers_changed || since >= MAX_BETWEEN_ALLOCATIONS {
            self.allocate(turn, None);
        }
        if self.shard != self.lead {
            let senders = self.count_senders(turn.now);
            if self.senders.insert(self.shard, senders) != Some(senders) {
                self.tell(turn, self.lead, News::Senders(senders));
            }
        }
        if self.next_expiry <= turn.now {
            self.next_expiry = turn.now + EXPIRY_INTERVAL;
            self.report_expired(turn);
        }
    }

    /// Another endpoint is the dominant speaker.
    pub(super) fn floor_changed(&mut self, turn: &mut Turn<'_>) {
        if let Some(text) = self.dominant_speaker(turn) {
            self.broadcast(turn, None, &text);
        }
        self.allocate(turn, None);
        let Some(speaker) = self.floor.order().dominant() else {
            return;
        };
        let Some(member) = self.members[speaker]
            .as_ref()
            .filter(|_| self.by_id.len() > 2)
        else {
            return;
        };
        let audience = self.audience_of(speaker);
        if member.home == self.shard {
            self.note_audience(turn.now, speaker, audience);
        } else {
            let news = News::Audience {
                speaker: member.number,
                audience,
            };
            self.tell(turn, member.home, news);
        }
    }

    /// The receivers here of a new dominant speaker.
    fn audience_of(&self, speaker: usize) -> Audience {
        let receivers = self.endpoints.iter().enumerate();
        let receivers = receivers.filter_map(|(slot, e)| Some((slot, e.as_ref()?)));
        let mut audience = Audience::default();
        for (slot, receiver) in receivers {
            let on_stage = &receiver.constraints.on_stage;
            let round_trip = receiver.downlink.round_trip().filter(|_| slot != speaker);
            audience = audience.and(Audience {
                staged: on_stage.iter().any(|name| self.is_camera(name)),
                round_trip,
            });
        }
        audience
    }

    /// A new speaker here will soon be on somebody's stage: the key frame is
    /// asked for so that it comes when the last receiver has made the change.
    pub(super) fn note_audience(&mut self, now: Instant, speaker: usize, audience: Audience) {
        let Some(endpoint) = &self.endpoints[speaker] else {
            return;
        };
        let earlier = self.plan.take().filter(|plan| plan.speaker == speaker);
        let mut plan = earlier.unwrap_or(Plan {
            speaker,
            decided: now,
            audience: Audience::default(),
            due: None,
        });
        plan.audience = plan.audience.and(audience);
        if plan.audience.staged {
            let own = endpoint.downlink.round_trip().unwrap_or_default();
            let longest = plan.audience.round_trip.unwrap_or_default();
            let delay = (longest + Duration::from_millis(10)).saturating_sub(own);
            plan.due = Some(plan.decided + delay);
        }
        self.plan = Some(plan);
    }

    fn is_camera(&self, name: &str) -> bool {
        self.sources.iter().flatten().any(|placed| {
            let owner = self.members[placed.owner].as_ref();
            let named = *placed.source.name.0 == *name || owner.is_some_and(|o| *o.id.0 == *name);
            named && placed.is_video() && placed.source.video_type == VideoType::Camera
        })
    }

    fn ask_speaker(&mut self, turn: &mut Turn<'_>, speaker: usize) {
        let Some(member) = &self.members[speaker] else {
            return;
        };
        let camera = member.sources.iter().copied().find(|place| {
            self.sources[*place].as_ref().is_some_and(|placed| {
                placed.is_video() && placed.source.video_type == VideoType::Camera
            })
        });
        if let Some(place) = camera {
            turn.counters.preemptive_keyframe_requests_sent += 1;
            self.request_keyframe(turn, place, Asker::Bridge);
        }
    }

    fn watch_connectivity(&mut self, turn: &mut Turn<'_>) {
        let mut changes = Vec::new();
        for (endpoint, member) in self.endpoints.iter().zip(&mut self.members) {
            let (Some(endpoint), Some(member)) = (endpoint, member) else {
                continue;
            };
            let active = match endpoint.last_activity {
                Some(last) => turn.now.saturating_duration_since(last) <= MAX_INACTIVITY,
                None => turn.now.saturating_duration_since(endpoint.created) <= FIRST_TRANSFER,
            };
            if endpoint.visitor || active == member.active {
                continue;
            }
            member.active = active;
            if active {
                turn.counters.endpoints_reconnected += 1;
            } else {
                turn.counters.endpoints_disconnected += 1;
            }
            debug!(conference = %self.id, endpoint = %endpoint.id, active, "connectivity changed");
            let text = channel::connectivity(&endpoint.id, active);
            changes.push((member.number, active, text));
        }
        for (endpoint, active, text) in changes {
            self.broadcast(turn, None, &text);
            self.tell_parts(turn, &News::Connectivity { endpoint, active });
        }
    }

    /// Reports endpoints that have gone without a word; they stay until the
    /// registry, having heard of it, expires them everywhere.
    fn report_expired(&mut self, turn: &mut Turn<'_>) {
        for (endpoint, member) in self.endpoints.iter_mut().zip(&self.members) {
            let (Some(endpoint), Some(member)) = (endpoint, member) else {
                continue;
            };
            let (since, limit) = match endpoint.last_activity {
                Some(last) => (last, EXPIRY_SILENCE),
                None => (endpoint.created, EXPIRY_NEVER),
            };
            let silent = turn.now.saturating_duration_since(since) >= limit;
            let reason = endpoint.failed.or(silent.then_some(ExpiryReason::Inactive));
            let Some(reason) = reason.filter(|_| !endpoint.expired) else {
                continue;
            };
            endpoint.expired = true;
            info!(conference = %self.id, endpoint = %endpoint.id, ?reason, "endpoint has gone");
            turn.events.push_back(Event::EndpointExpired {
                conference: self.id,
                member: member.number,
                reason,
            });
        }
    }

    fn count_senders(&self, now: Instant) -> Senders {
        let endpoints = self.endpoints.iter().flatten();
        endpoints.fold(Senders::default(), |sum, endpoint| {
            let audio = recent(now, endpoint.uplink.last_audio);
            let video = recent(now, endpoint.uplink.last_video);
            sum.and(Senders {
                any: u32::from(audio || video),
                audio: u32::from(audio),
                video: u32::from(video),
            })
        })
    }

    /// Adds the figures of the moment.
    pub fn measure(&self, now: Instant, gauges: &mut Gauges) {
        for endpoint in self.endpoints.iter().flatten() {
            gauges.endpoints += 1;
            gauges.visitors += u32::from(endpoint.visitor);
            gauges.endpoints_with_high_outgoing_loss +=
                u32::from(endpoint.downlink.loss > HIGH_LOSS);
            gauges.endpoints_with_suspended_sources += u32::from(endpoint.suspended);
            gauges.endpoints_oversending += u32::from(endpoint.oversending);
            gauges.endpoints_with_spurious_remb += u32::from(endpoint.spurious_remb);
            if let Some(round_trip) = endpoint.downlink.round_trip() {
                gauges.rtt_ms_sum += round_trip.as_secs_f64() * 1000.0;
                gauges.rtt_count += 1;
            }
        }
        gauges.conference_parts += 1;
        // The conference as a whole counts once.
        if self.shard == self.lead {
            let size = self.by_id.len() as u32;
            let here = self.count_senders(now);
            let senders = self.senders.values().copied().fold(here, Senders::and);
            let idle = senders.any == 0;
            gauges.conferences += 1;
            gauges.by_size.count(size);
            gauges.by_audio_senders.count(senders.audio);
            gauges.by_video_senders.count(senders.video);
            gauges.endpoints_sending_audio += senders.audio;
            gauges.endpoints_sending_video += senders.video;
            gauges.inactive_endpoints += if idle { size } else { 0 };
            gauges.receive_only_endpoints += if idle {
                0
            } else {
                size.saturating_sub(senders.any)
            };
            gauges.largest_conference = gauges.largest_conference.max(size);
            gauges.inactive_conferences += u32::from(idle);
            gauges.p2p_conferences += u32::from(idle && size == 2);
        }
    }
}

fn recent(now: Instant, at: Option<Instant>) -> bool {
    at.is_some_and(|at| now.saturating_duration_since(at) <= RECENT)
}
