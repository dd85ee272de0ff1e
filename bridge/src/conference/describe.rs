//! What an operator may see of a part of a conference. Nothing is changed by
//! looking, and the work has a bound: many endpoints are described in short.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Conference;
use super::channels::Channel;
use super::endpoint::Endpoint;
use super::sources::Placed;
use crate::command::{ExpiryReason, MediaType, VideoType};
use crate::view::{self, MAX_ENDPOINTS, MAX_PAIRS, Subject};

impl Conference {
    /// Describes this part of the conference, or of what is asked about what is
    /// here.
    pub fn describe(&mut self, now: Instant, subject: &Subject) -> view::Part {
        let speakers = || self.describe_speakers();
        match subject {
            Subject::Speakers => view::Part {
                speakers: (self.shard == self.lead).then(speakers),
                ..view::Part::default()
            },
            Subject::Endpoint(id) => {
                let slot = self.find(id);
                let endpoint = slot.and_then(|slot| self.describe_endpoint(now, slot, true));
                view::Part {
                    endpoints: endpoint.into_iter().collect(),
                    ..view::Part::default()
                }
            }
            Subject::Conference => {
                let speakers = (self.shard == self.lead).then(speakers);
                let slots: Vec<usize> = self.places().collect();
                let shown = slots.len().min(MAX_ENDPOINTS);
                let sources = self.sources.iter().flatten().count();
                let pairs = shown * sources <= MAX_PAIRS;
                let described = slots[..shown]
                    .iter()
                    .filter_map(|slot| self.describe_endpoint(now, *slot, pairs));
                view::Part {
                    speakers,
                    endpoints: described.collect(),
                    endpoints_left_out: slots.len() - shown,
                }
            }
        }
    }

    fn describe_speakers(&self) -> view::Speakers {
        let order = self.floor.order();
        let member = |slot: &usize| self.members[*slot].as_ref();
        let name = |slot: &usize| Some(member(slot)?.id.to_string());
        view::Speakers {
            dominant: order.dominant().as_ref().and_then(name),
            order: order.list().iter().filter_map(name).collect(),
        }
    }

    /// An endpoint here under its name, and what it gets of each source if `pairs`.
    fn describe_endpoint(
        &mut self,
        now: Instant,
        slot: usize,
        pairs: bool,
    ) -> Option<(String, view::Endpoint)> {
        let receives = pairs.then(|| self.describe_receives(now, slot));
        let sources = self.describe_sources(now, slot);
        let name_of =
            |place: &usize| Some(self.sources.get(*place)?.as_ref()?.source.name.to_string());
        let endpoint = self.endpoints[slot].as_ref()?;
        let milliseconds = |at: Instant| millis(now.saturating_duration_since(at));
        let channels = endpoint.channels.open().iter().copied().map(channel_name);
        let constraints = &endpoint.constraints;
        let heights = constraints.constraints.iter();
        let mut ice_transport = endpoint.peer.transport.describe_ice();
        if endpoint.failed == Some(ExpiryReason::IceFailed) {
            ice_transport.state = "failed";
        }
        let described = view::Endpoint {
            worker: self.shard,
            visitor: endpoint.visitor,
            age_ms: milliseconds(endpoint.created),
            silent_ms: endpoint.last_activity.map(milliseconds),
            ice_transport,
            dtls_transport: endpoint.peer.transport.describe_dtls(),
            message_transport: view::MessageTransport {
                current: endpoint.channels.current().map(channel_name),
                open: channels.collect(),
            },
            accept_audio: endpoint.formats.audio,
            accept_video: endpoint.formats.video,
            force_mute_audio: endpoint.force_mute.audio,
            force_mute_video: endpoint.force_mute.video,
            rtt_ms: endpoint
                .downlink
                .round_trip()
                .map(|time| time.as_secs_f64() * 1000.0),
            loss: endpoint.downlink.loss,
            bitrate_controller: view::Bandwidth {
                available: endpoint.remb.map(|(bits, _)| bits),
                oversending: endpoint.oversending,
                suspended: endpoint.suspended,
                forwarded_sources: endpoint.forwarded.iter().filter_map(name_of).collect(),
            },
            receiver_video_constraints: view::Wishes {
                spoken: constraints.spoken,
                last_n: constraints.last_n,
                on_stage_sources: constraints.on_stage.clone(),
                selected_sources: constraints.selected.clone(),
                default_max_height: constraints.default.max_height,
                max_heights: heights
                    .map(|(name, constraint)| (name.clone(), constraint.max_height))
                    .collect(),
                assumed_bandwidth_bps: constraints.assumed_bandwidth,
            },
            sources,
            receives,
        };
        Some((endpoint.id.to_string(), described))
    }

    /// What an endpoint here sends.
    fn describe_sources(&mut self, now: Instant, slot: usize) -> BTreeMap<String, view::Source> {
        let wanted = |place: usize| self.wanted(place);
        let member = self.members[slot].as_ref();
        let places: Vec<(usize, Option<i32>)> = member
            .map(|member| member.sources.iter().map(|place| (*place, wanted(*place))))
            .into_iter()
            .flatten()
            .collect();
        let Some(endpoint) = &mut self.endpoints[slot] else {
            return BTreeMap::new();
        };
        let mut described = BTreeMap::new();
        for (place, wanted_height) in places {
            let (Some(Some(placed)), Some(uplink)) = (
                self.sources.get(place),
                endpoint.uplink.source_at_mut(place),
            ) else {
                continue;
            };
            let layers = match placed.is_video() {
                true => uplink.layers.list(now),
                false => Vec::new(),
            };
            let encodings = uplink.streams.iter().enumerate().map(|(number, stream)| {
                let heard = stream.statistics.as_ref().map(|s| s.last_packet());
                let of_it = layers
                    .iter()
                    .filter(|(index, _)| usize::from(index.encoding()) == number);
                view::Encoding {
                    ssrc: stream.encoding.primary.0,
                    rtx: stream.encoding.rtx.map(|ssrc| ssrc.0),
                    silent_ms: heard.map(|at| millis(now.saturating_duration_since(at))),
                    layers: of_it
                        .map(|(index, layer)| view::Layer {
                            index: index.0,
                            height: layer.height,
                            frame_rate: layer.frame_rate,
                            bitrate: layer.bitrate,
                        })
                        .collect(),
                }
            });
            let source = view::Source {
                media_type: match placed.source.media_type {
                    MediaType::Audio => "audio",
                    MediaType::Video => "video",
                },
                video_type: placed
                    .is_video()
                    .then(|| video_type_name(placed.source.video_type)),
                wanted_height,
                encodings: encodings.collect(),
            };
            described.insert(placed.source.name.to_string(), source);
        }
        described
    }

    /// What an endpoint here gets of the sources of all others.
    fn describe_receives(&self, now: Instant, slot: usize) -> BTreeMap<String, view::Received> {
        let Some(endpoint) = &self.endpoints[slot] else {
            return BTreeMap::new();
        };
        let sources = self.sources.iter().enumerate();
        let others = sources
            .filter_map(|(place, placed)| Some((place, placed.as_ref()?)))
            .filter(|(_, placed)| placed.owner != slot);
        others
            .map(|(place, placed)| {
                let known = self.knows(now, slot, place);
                let owner = self.endpoints[placed.owner].as_deref();
                let received = received((slot, endpoint), (place, placed), known, owner);
                (placed.source.name.to_string(), received)
            })
            .collect()
    }
}

/// What a receiver gets of a source; `owner` is known if it is homed here.
fn received(
    (slot, receiver): (usize, &Endpoint),
    (place, placed): (usize, &Placed),
    known: bool,
    owner: Option<&Endpoint>,
) -> view::Received {
    let sent = placed.outputs.sent(slot);
    let mut received = view::Received {
        packets_sent: sent.map_or(0, |sent| sent.packets),
        octets_sent: sent.map_or(0, |sent| sent.octets),
        ..view::Received::default()
    };
    let muted = owner.is_some_and(|owner| match placed.source.media_type {
        MediaType::Audio => owner.force_mute.audio,
        MediaType::Video => owner.force_mute.video,
    });
    let accepted = match placed.source.media_type {
        MediaType::Audio => receiver.formats.audio,
        MediaType::Video => receiver.formats.video,
    };
    let mut why = if muted {
        Some("its sender is muted by a moderator")
    } else if !receiver.peer.ready() {
        Some("the receiver is not connected")
    } else if !accepted {
        Some("the receiver has no format for it")
    } else if !known {
        Some("the receiver may not know it yet")
    } else {
        None
    };
    if placed.is_video() {
        let height = receiver.granted.get(&place).copied();
        let view = placed.outputs.view(slot);
        let target = view.and_then(|view| view.target());
        received.max_height = height;
        received.target = target.map(|target| target.0);
        let flows = placed
            .layers
            .layers
            .iter()
            .any(|(_, layer)| layer.bitrate > 0);
        why = why.or(match (height, target) {
            (None | Some(0), _) => Some("not asked for, or beyond lastN"),
            _ if !flows => Some("its sender sends nothing"),
            (_, None) => Some("no bandwidth for it"),
            _ if view.is_some_and(|view| view.needs_keyframe()) => Some("waits for a key frame"),
            _ => None,
        });
    } else if !receiver.audio.wants(&placed.source.name.0) {
        why = why.or(Some("not subscribed to"));
    }
    received.not_sent = why;
    received
}

fn channel_name(channel: Channel) -> &'static str {
    match channel {
        Channel::WebSocket(_) => "websocket",
        Channel::Data => "datachannel",
    }
}

fn video_type_name(video_type: VideoType) -> &'static str {
    match video_type {
        VideoType::Camera => "camera",
        VideoType::Desktop => "desktop",
        VideoType::DesktopHighFps => "desktop_high_fps",
        VideoType::None => "none",
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
