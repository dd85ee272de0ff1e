//! What changes in a conference by time alone: who speaks, who is still there,
//! which layers ceased; and the figures of the moment.

use std::time::{Duration, Instant};

use tracing::{debug, info};

use super::{Conference, TICK, Turn};
use crate::channel;
use crate::command::{Event, ExpiryReason, MediaType, VideoType};
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

impl Conference {
    /// When the conference has something to do that is no endpoint's.
    pub fn next_timeout(&self) -> Instant {
        let due = [
            self.speakers.next_timeout(),
            self.preemptive.map(|(at, _)| at),
        ];
        due.into_iter().flatten().fold(self.next_tick, Instant::min)
    }

    /// Does what has come due. Places of endpoints that are to be dropped.
    pub fn handle_timeout(&mut self, turn: &mut Turn<'_>) -> Vec<(usize, ExpiryReason)> {
        if self.speakers.handle_timeout(turn.now) {
            self.speaker_changed(turn);
        }
        if let Some((at, speaker)) = self.preemptive
            && at <= turn.now
        {
            self.preemptive = None;
            self.ask_speaker(turn, speaker);
        }
        if self.next_tick > turn.now {
            return Vec::new();
        }
        self.next_tick = turn.now + TICK;
        self.watch_connectivity(turn);
        let mut layers_changed = false;
        for endpoint in self.endpoints.iter_mut().flatten() {
            endpoint.uplink.tidy(turn.now, turn.counters);
            endpoint.downlink.tidy(turn.now);
            layers_changed |= endpoint.uplink.take_layer_change(turn.now);
            let waiting = endpoint.connected.is_some_and(|connected| {
                turn.now.saturating_duration_since(connected) >= CHANNEL_EXPECTED
            });
            if waiting && !endpoint.channel_missed && endpoint.channels.current().is_none() {
                debug!(conference = %self.id, endpoint = %endpoint.id, "no bridge channel yet");
                turn.counters.endpoints_without_channel += 1;
            }
            endpoint.channel_missed |= waiting;
        }
        let since = turn.now.saturating_duration_since(self.last_allocation);
        if layers_changed || since >= MAX_BETWEEN_ALLOCATIONS {
            self.allocate(turn, None);
        }
        if self.next_expiry > turn.now {
            return Vec::new();
        }
        self.next_expiry = turn.now + EXPIRY_INTERVAL;
        self.expired(turn.now)
    }

    fn speaker_changed(&mut self, turn: &mut Turn<'_>) {
        turn.counters.dominant_speaker_changes += 1;
        if let Some(text) = self.dominant_speaker(turn) {
            self.broadcast(turn, None, &text);
        }
        self.allocate(turn, None);
        self.plan_keyframe(turn.now);
    }

    /// A new speaker will soon be on somebody's stage: the key frame is asked
    /// for so that it comes when the last receiver has made the change.
    fn plan_keyframe(&mut self, now: Instant) {
        let Some(speaker) = self.speakers.dominant() else {
            return;
        };
        let staged = self.endpoints.iter().flatten().any(|receiver| {
            let on_stage = &receiver.constraints.on_stage;
            on_stage.iter().any(|name| self.is_camera(name))
        });
        if self.by_id.len() <= 2 || !staged {
            return;
        }
        let round_trip = |slot: usize| {
            let endpoint = self.endpoints[slot].as_ref();
            endpoint.and_then(|e| e.downlink.round_trip())
        };
        let own = round_trip(speaker).unwrap_or_default();
        let others = (0..self.endpoints.len()).filter(|slot| *slot != speaker);
        let longest = others.filter_map(round_trip).max().unwrap_or_default();
        let delay = (longest + Duration::from_millis(10)).saturating_sub(own);
        self.preemptive = Some((now + delay, speaker));
    }

    fn is_camera(&self, name: &str) -> bool {
        self.endpoints.iter().flatten().any(|endpoint| {
            endpoint.uplink.sources().iter().any(|placed| {
                let named = *placed.source.name.0 == *name || *endpoint.id.0 == *name;
                named
                    && placed.source.media_type == MediaType::Video
                    && placed.source.video_type == VideoType::Camera
            })
        })
    }

    fn ask_speaker(&mut self, turn: &mut Turn<'_>, speaker: usize) {
        let Some(endpoint) = &self.endpoints[speaker] else {
            return;
        };
        let camera = endpoint.uplink.sources().iter().find(|placed| {
            placed.source.media_type == MediaType::Video
                && placed.source.video_type == VideoType::Camera
        });
        if let Some(place) = camera.map(|placed| placed.slot) {
            turn.counters.preemptive_keyframe_requests_sent += 1;
            self.request_keyframe(turn, place, Asker::Bridge);
        }
    }

    fn watch_connectivity(&mut self, turn: &mut Turn<'_>) {
        let mut changes = Vec::new();
        for endpoint in self.endpoints.iter_mut().flatten() {
            let active = match endpoint.last_activity {
                Some(last) => turn.now.saturating_duration_since(last) <= MAX_INACTIVITY,
                None => turn.now.saturating_duration_since(endpoint.created) <= FIRST_TRANSFER,
            };
            if endpoint.visitor || active == endpoint.active {
                continue;
            }
            endpoint.active = active;
            if active {
                turn.counters.endpoints_reconnected += 1;
            } else {
                turn.counters.endpoints_disconnected += 1;
            }
            debug!(conference = %self.id, endpoint = %endpoint.id, active, "connectivity changed");
            changes.push(channel::connectivity(&endpoint.id, active));
        }
        for text in changes {
            self.broadcast(turn, None, &text);
        }
    }

    fn expired(&self, now: Instant) -> Vec<(usize, ExpiryReason)> {
        let reason = |slot: usize| {
            let endpoint = self.endpoints[slot].as_ref()?;
            let (since, limit) = match endpoint.last_activity {
                Some(last) => (last, EXPIRY_SILENCE),
                None => (endpoint.created, EXPIRY_NEVER),
            };
            let silent = now.saturating_duration_since(since) >= limit;
            endpoint.failed.or(silent.then_some(ExpiryReason::Inactive))
        };
        (0..self.endpoints.len())
            .filter_map(|slot| Some((slot, reason(slot)?)))
            .collect()
    }

    /// Drops an endpoint without being told, and says so.
    pub fn expire(&mut self, turn: &mut Turn<'_>, slot: usize, reason: ExpiryReason) {
        let Some(endpoint) = &self.endpoints[slot] else {
            return;
        };
        let endpoint = endpoint.id.clone();
        info!(conference = %self.id, %endpoint, ?reason, "endpoint expired");
        self.leave(turn, slot);
        turn.events.push_back(Event::EndpointExpired {
            conference: self.id,
            endpoint,
            reason,
        });
    }

    /// Adds the figures of the moment.
    pub fn measure(&self, now: Instant, gauges: &mut Gauges) {
        let recent =
            |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) <= RECENT);
        let size = self.by_id.len() as u32;
        let mut senders = 0;
        for endpoint in self.endpoints.iter().flatten() {
            let audio = recent(endpoint.uplink.last_audio);
            let video = recent(endpoint.uplink.last_video);
            senders += u32::from(audio || video);
            gauges.visitors += u32::from(endpoint.visitor);
            gauges.endpoints_sending_audio += u32::from(audio);
            gauges.endpoints_sending_video += u32::from(video);
            let silent = !audio && !video;
            gauges.receive_only_endpoints += u32::from(silent && endpoint.peer.ready());
            gauges.inactive_endpoints += u32::from(silent && !endpoint.peer.ready());
            gauges.endpoints_with_high_outgoing_loss +=
                u32::from(endpoint.downlink.loss > HIGH_LOSS);
            gauges.endpoints_with_suspended_sources += u32::from(endpoint.suspended);
            gauges.endpoints_oversending += u32::from(endpoint.oversending);
            if let Some(round_trip) = endpoint.downlink.round_trip() {
                gauges.rtt_ms_sum += round_trip.as_secs_f64() * 1000.0;
                gauges.rtt_count += 1;
            }
        }
        gauges.conferences += 1;
        gauges.endpoints += size;
        gauges.largest_conference = gauges.largest_conference.max(size);
        gauges.inactive_conferences += u32::from(senders == 0);
        gauges.p2p_conferences += u32::from(senders == 0 && size == 2);
    }
}
