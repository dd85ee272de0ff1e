//! Which layer of which source a receiver gets: its constraints, last-n and
//! bandwidth in, a layer for each source out.
//!
//! Runs when something changed, never for each packet. Rules and worked
//! examples are those of `jitsi-videobridge:jvb/…/cc/allocation`.

mod layers;

use std::collections::BTreeMap;

pub use layers::{Allocation, Candidate, Choice, Layer, allocate};

use crate::command::VideoType;
use crate::id::{EndpointId, SourceName};
use crate::settings::ShardSettings;

/// A limit on one source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constraint {
    /// Pixels; -1 is unlimited, 0 is none.
    pub max_height: i32,
    /// Frames a second; only 0, none, means something.
    pub max_frame_rate: f64,
}

impl Constraint {
    /// A limit on the height alone.
    pub fn height(max_height: i32) -> Self {
        Self {
            max_height,
            max_frame_rate: -1.0,
        }
    }

    /// The height allowed, 0 if the source is not wanted at all.
    fn effective(self) -> i32 {
        if self.max_frame_rate == 0.0 {
            0
        } else {
            self.max_height.max(-1)
        }
    }
}

/// All that a receiver asked for. Names are those of sources or, from clients
/// of before 2022, of endpoints.
#[derive(Clone, Debug)]
pub struct Constraints {
    /// -1 is unlimited.
    pub last_n: i32,
    pub on_stage: Vec<String>,
    pub selected: Vec<String>,
    pub default: Constraint,
    pub constraints: BTreeMap<String, Constraint>,
    /// Bit/s; negative: use the estimate.
    pub assumed_bandwidth: i64,
    /// Whether the receiver has asked for anything yet.
    pub spoken: bool,
}

impl Constraints {
    /// Those of a receiver that has said nothing yet.
    pub fn initial(settings: &ShardSettings) -> Self {
        Self {
            last_n: -1,
            on_stage: Vec::new(),
            selected: Vec::new(),
            default: Constraint::height(settings.initial_max_height),
            constraints: BTreeMap::new(),
            assumed_bandwidth: -1,
            spoken: false,
        }
    }
}

/// A video source of another endpoint, as allocation sees it.
#[derive(Debug)]
pub struct VideoSource<K> {
    pub key: K,
    pub name: SourceName,
    pub owner: EndpointId,
    pub video_type: VideoType,
    pub layers: Vec<Layer>,
}

/// What a receiver gets of one source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Granted<K> {
    pub key: K,
    /// The height it is limited to, -1 for unlimited, 0 for none.
    pub max_height: i32,
    /// Position of the chosen layer among the source's.
    pub target: Option<usize>,
}

/// The outcome for a receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct Grants<K> {
    /// In order of priority.
    pub sources: Vec<Granted<K>>,
    /// More is sent than the bandwidth allows, for a source on stage.
    pub oversending: bool,
    /// Some wanted source does not fit.
    pub suspended: bool,
}

/// Decides for one receiver. `sources` are in speech order; `available` is the
/// bandwidth in bit/s, `None` when it is not limited; `last_n` is the least of
/// all limits but the receiver's own, negative if there is none.
pub fn decide<K: Copy>(
    settings: &ShardSettings,
    constraints: &Constraints,
    last_n: i32,
    available: Option<u64>,
    sources: &[&VideoSource<K>],
) -> Grants<K> {
    let order = prioritize(constraints, sources);
    let limits = limits(constraints, last_n, sources, &order);
    let candidates: Vec<_> = order
        .iter()
        .zip(&limits)
        .map(|(&at, &max_height)| Candidate {
            layers: &sources[at].layers,
            video_type: sources[at].video_type,
            max_height,
            on_stage: names(&constraints.on_stage, sources[at]),
        })
        .collect();
    let available = match (
        settings.assumed_bandwidth_limit,
        constraints.assumed_bandwidth,
    ) {
        (Some(limit), assumed @ 0..) => Some(limit.min(assumed as u64)),
        _ => available,
    };
    let allocation = allocate(settings, available, &candidates);
    Grants {
        sources: order
            .iter()
            .zip(&limits)
            .zip(&allocation.choices)
            .map(|((&at, &max_height), choice)| Granted {
                key: sources[at].key,
                max_height,
                target: choice.target,
            })
            .collect(),
        oversending: allocation.oversending,
        suspended: allocation.choices.iter().any(|choice| choice.suspended),
    }
}

/// Positions in order of priority: enabled sources on stage, then selected, as
/// the receiver listed them; then other enabled ones; then disabled ones.
fn prioritize<K>(constraints: &Constraints, sources: &[&VideoSource<K>]) -> Vec<usize> {
    let enabled = |at: &usize| sources[*at].video_type != VideoType::None;
    let mut order: Vec<usize> = Vec::with_capacity(sources.len());
    let mut taken = vec![false; sources.len()];
    let mut take = |order: &mut Vec<usize>, at: usize| {
        if !std::mem::replace(&mut taken[at], true) {
            order.push(at);
        }
    };
    for name in constraints.on_stage.iter().chain(&constraints.selected) {
        for at in (0..sources.len()).filter(enabled) {
            if is_named(name, sources[at]) {
                take(&mut order, at);
            }
        }
    }
    for at in (0..sources.len()).filter(enabled) {
        take(&mut order, at);
    }
    for at in 0..sources.len() {
        take(&mut order, at);
    }
    order
}

/// The effective height limit of each source in `order`.
fn limits<K>(
    constraints: &Constraints,
    last_n: i32,
    sources: &[&VideoSource<K>],
    order: &[usize],
) -> Vec<i32> {
    let mut left = [constraints.last_n, last_n]
        .into_iter()
        .filter(|n| *n >= 0)
        .min()
        .unwrap_or(i32::MAX);
    order
        .iter()
        .map(|&at| {
            let source = sources[at];
            if source.video_type == VideoType::None || left == 0 {
                return 0;
            }
            let asked = constraints.constraints.get(&*source.name.0);
            let asked = asked.or_else(|| constraints.constraints.get(&*source.owner.0));
            let height = asked.unwrap_or(&constraints.default).effective();
            left -= i32::from(height != 0);
            height
        })
        .collect()
}

fn names<K>(list: &[String], source: &VideoSource<K>) -> bool {
    list.iter().any(|name| is_named(name, source))
}

fn is_named<K>(name: &str, source: &VideoSource<K>) -> bool {
    *name == *source.name.0 || *name == *source.owner.0
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Room {
        names: Vec<(SourceName, EndpointId, VideoType)>,
    }

    impl Room {
        fn new(names: &[(&str, VideoType)]) -> Self {
            Self {
                names: names
                    .iter()
                    .map(|(name, video_type)| {
                        let owner = name.split('-').next().expect("a name has a first part");
                        (
                            SourceName::from(*name),
                            EndpointId::from(owner),
                            *video_type,
                        )
                    })
                    .collect(),
            }
        }

        fn decide(&self, constraints: &Constraints, last_n: i32) -> Vec<(&'static str, i32)> {
            let sources: Vec<_> = self
                .names
                .iter()
                .map(|(name, owner, video_type)| VideoSource {
                    key: &*name.0,
                    name: name.clone(),
                    owner: owner.clone(),
                    video_type: *video_type,
                    layers: Vec::new(),
                })
                .collect();
            let sources: Vec<_> = sources.iter().collect();
            decide(
                &ShardSettings::default(),
                constraints,
                last_n,
                None,
                &sources,
            )
            .sources
            .iter()
            .map(|granted| {
                let known = ["a-v0", "a-v1", "b-v0", "c-v0", "d-v0"];
                let name = known.iter().find(|name| **name == granted.key);
                (*name.expect("a name of this test"), granted.max_height)
            })
            .collect()
        }
    }

    fn constraints(default: i32) -> Constraints {
        Constraints {
            default: Constraint::height(default),
            ..Constraints::initial(&ShardSettings::default())
        }
    }

    use VideoType::{Camera, Desktop};

    #[test]
    fn nothing_is_granted_before_the_first_constraints() {
        let room = Room::new(&[("a-v0", Camera), ("b-v0", Desktop)]);
        let initial = Constraints::initial(&ShardSettings::default());
        assert_eq!(room.decide(&initial, -1), [("a-v0", 0), ("b-v0", 0)]);
    }

    #[test]
    fn stage_then_selected_then_speech_order_then_disabled() {
        let room = Room::new(&[
            ("a-v0", VideoType::None),
            ("b-v0", Camera),
            ("c-v0", Camera),
            ("d-v0", Camera),
        ]);
        let mut wanted = constraints(180);
        wanted.selected = vec!["c-v0".into()];
        wanted.on_stage = vec!["d-v0".into(), "a-v0".into()];
        assert_eq!(
            room.decide(&wanted, -1),
            [("d-v0", 180), ("c-v0", 180), ("b-v0", 180), ("a-v0", 0)]
        );
    }

    #[test]
    fn last_n_counts_only_what_is_wanted_and_the_least_limit_holds() {
        let room = Room::new(&[
            ("a-v0", Camera),
            ("b-v0", Camera),
            ("c-v0", Camera),
            ("d-v0", Camera),
        ]);
        let mut wanted = constraints(180);
        wanted
            .constraints
            .insert("a-v0".into(), Constraint::height(0));
        wanted.last_n = 2;
        let two = [("a-v0", 0), ("b-v0", 180), ("c-v0", 180), ("d-v0", 0)];
        assert_eq!(room.decide(&wanted, -1), two);
        assert_eq!(room.decide(&wanted, 3), two);
        let one = [("a-v0", 0), ("b-v0", 180), ("c-v0", 0), ("d-v0", 0)];
        assert_eq!(room.decide(&wanted, 1), one);
        wanted.last_n = 0;
        assert!(
            room.decide(&wanted, -1)
                .iter()
                .all(|granted| granted.1 == 0)
        );
    }

    #[test]
    fn older_clients_name_endpoints() {
        let room = Room::new(&[("a-v0", Camera), ("a-v1", Desktop), ("b-v0", Camera)]);
        let mut wanted = constraints(180);
        wanted.on_stage = vec!["b".into()];
        wanted
            .constraints
            .insert("b".into(), Constraint::height(720));
        assert_eq!(
            room.decide(&wanted, -1),
            [("b-v0", 720), ("a-v0", 180), ("a-v1", 180)]
        );
    }

    #[test]
    fn a_frame_rate_of_nought_is_no_video() {
        let room = Room::new(&[("a-v0", Camera)]);
        let mut wanted = constraints(180);
        wanted.default.max_frame_rate = 0.0;
        assert_eq!(room.decide(&wanted, -1), [("a-v0", 0)]);
    }
}
