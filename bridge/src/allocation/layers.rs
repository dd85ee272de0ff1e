//! From limits and bandwidth to layers: which layers are considered, and the
//! rounds in which the bandwidth is given out.

use crate::command::VideoType;
use crate::settings::ShardSettings;

/// One layer of a source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layer {
    /// Pixels of the shorter side; negative if unknown.
    pub height: i32,
    /// Frames a second; negative if unknown.
    pub frame_rate: f32,
    /// Bit/s of all that has to be sent for this layer; 0: it is not being sent.
    pub bitrate: u64,
}

/// A source that competes for bandwidth.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// In order of quality.
    pub layers: &'a [Layer],
    pub video_type: VideoType,
    /// -1 is unlimited, 0 is none.
    pub max_height: i32,
    pub on_stage: bool,
}

/// What one source gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Position among the source's layers; `None`: not sent.
    pub target: Option<usize>,
    /// What it would get without a limit on bandwidth.
    pub ideal: Option<usize>,
    /// Nothing, for want of bandwidth.
    pub suspended: bool,
}

/// The outcome, choices in the order of the candidates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    pub choices: Vec<Choice>,
    pub oversending: bool,
}

/// Heights up to this are thumbnails: every frame rate is considered.
const THUMBNAIL_HEIGHT: i32 = 180;

/// The layers of one candidate that come into question.
struct Contender {
    /// Positions among the source's layers, ascending.
    considered: Vec<usize>,
    rates: Vec<i64>,
    /// How far a source on stage is raised before others get anything.
    preferred: Option<usize>,
    /// How far the first source may be raised beyond the bandwidth.
    oversend: Option<usize>,
    on_stage: bool,
    target: Option<usize>,
}

impl Contender {
    fn new(settings: &ShardSettings, candidate: &Candidate<'_>) -> Self {
        let mut contender = Self {
            considered: Vec::new(),
            rates: Vec::new(),
            preferred: None,
            oversend: None,
            on_stage: candidate.on_stage,
            target: None,
        };
        if candidate.max_height == 0 || candidate.layers.is_empty() {
            return contender;
        }
        match candidate.video_type {
            VideoType::None => {}
            VideoType::Camera => contender.consider_camera(settings, candidate),
            VideoType::Desktop | VideoType::DesktopHighFps => {
                contender.consider_desktop(settings, candidate);
            }
        }
        contender.rates = contender
            .considered
            .iter()
            .map(|&at| candidate.layers[at].bitrate as i64)
            .collect();
        contender
    }

    fn consider_camera(&mut self, settings: &ShardSettings, candidate: &Candidate<'_>) {
        let layers = candidate.layers;
        let unlimited = candidate.max_height < 0;
        let (preferred_height, preferred_rate) =
            if unlimited || candidate.max_height > THUMBNAIL_HEIGHT {
                let fastest = layers.iter().map(|l| l.frame_rate).fold(-1.0, f32::max);
                (
                    settings.onstage_preferred_height,
                    settings.onstage_preferred_framerate.min(fastest),
                )
            } else {
                (-1, -1.0)
            };
        let lowest = lowest_height(layers.iter());
        let any_sent = layers.iter().any(|layer| layer.bitrate > 0);
        self.considered = (0..layers.len())
            .filter(|&at| {
                let layer = &layers[at];
                let fast = layer.frame_rate < 0.0 || layer.frame_rate >= preferred_rate;
                let fits = unlimited || layer.height <= candidate.max_height;
                (layer.height < preferred_height || (fits && fast) || layer.height == lowest)
                    && (layer.bitrate > 0 || !any_sent)
            })
            .collect();
        self.preferred = self
            .considered
            .iter()
            .rposition(|&at| layers[at].height <= preferred_height.max(lowest));
    }

    fn consider_desktop(&mut self, settings: &ShardSettings, candidate: &Candidate<'_>) {
        let layers = candidate.layers;
        let any_sent = layers.iter().any(|layer| layer.bitrate > 0);
        let sent: Vec<usize> = (0..layers.len())
            .filter(|&at| layers[at].bitrate > 0 || !any_sent)
            .collect();
        self.considered = sent
            .iter()
            .copied()
            .filter(|&at| candidate.max_height < 0 || layers[at].height <= candidate.max_height)
            .collect();
        if self.considered.is_empty() {
            let lowest = lowest_height(sent.iter().map(|&at| &layers[at]));
            self.considered = sent;
            self.considered.retain(|&at| layers[at].height == lowest);
            if !candidate.on_stage && layers[self.considered[0]].frame_rate < 0.0 {
                self.considered.truncate(1);
            }
        }
        let last = self.considered.len() - 1;
        self.preferred = Some(last);
        if candidate.on_stage && settings.allow_oversend_onstage {
            let height = layers[self.considered[last]].height;
            self.oversend = (0..=last)
                .filter(|&i| layers[self.considered[i]].height == height)
                .min_by_key(|&i| layers[self.considered[i]].bitrate);
        }
    }

    fn rate(&self, target: Option<usize>) -> i64 {
        target.map_or(0, |at| self.rates[at])
    }

    fn first_above_target(&self) -> usize {
        self.target.map_or(0, |at| at + 1)
    }

    /// Raises the target as far as this round allows. `max` is all that the
    /// source may use.
    fn improve(&mut self, max: i64) {
        if let (true, None, Some(preferred)) = (self.on_stage, self.target, self.preferred) {
            self.target = (0..=preferred).take_while(|&i| self.rates[i] <= max).last();
        } else {
            let next = self.first_above_target();
            if self.rates.get(next).is_some_and(|rate| *rate < max) {
                self.target = Some(next);
            }
        }
        // A better layer that costs no more is taken at once.
        if let Some(target) = self.target {
            let better = (target + 1..self.rates.len())
                .rev()
                .find(|&i| self.rates[i] <= self.rates[target]);
            self.target = better.or(self.target);
        }
    }

    fn oversend(&mut self, max: i64) {
        if let Some(oversend) = self.oversend
            && let Some(better) = (self.first_above_target()..=oversend)
                .rev()
                .find(|&i| self.rates[i] <= max)
        {
            self.target = Some(better);
        }
    }
}

/// Gives out `available` bit/s (`None`: without limit) over the candidates, the
/// most important first.
pub fn allocate(
    settings: &ShardSettings,
    available: Option<u64>,
    candidates: &[Candidate<'_>],
) -> Allocation {
    // A quarter of the range leaves room for the sums below.
    const UNLIMITED: i64 = i64::MAX / 4;
    let mut contenders: Vec<_> = candidates
        .iter()
        .map(|candidate| Contender::new(settings, candidate))
        .collect();
    let mut remaining = available.map_or(UNLIMITED, |available| {
        i64::try_from(available).unwrap_or(UNLIMITED).min(UNLIMITED)
    });
    let mut oversending = false;
    loop {
        let mut moved = false;
        for (k, contender) in contenders.iter_mut().enumerate() {
            if contender.considered.is_empty() {
                continue;
            }
            let before = contender.target;
            let max = remaining + contender.rate(before);
            contender.improve(max);
            if k == 0 {
                contender.oversend(max.saturating_add_unsigned(settings.max_oversend_bitrate));
            }
            remaining -= contender.rate(contender.target) - contender.rate(before);
            oversending |= remaining < 0;
            moved |= contender.target != before;
            if contender.on_stage && contender.target < contender.preferred {
                break;
            }
        }
        // Upstream stops when a round costs nothing; layers of equal rate then
        // hold a source down.
        if !moved {
            break;
        }
    }
    let choices = contenders
        .iter()
        .map(|contender| Choice {
            target: contender.target.map(|i| contender.considered[i]),
            ideal: contender.considered.last().copied(),
            suspended: contender.target.is_none()
                && contender.rates.first().is_some_and(|rate| *rate > 0),
        })
        .collect();
    Allocation {
        choices,
        oversending,
    }
}

fn lowest_height<'a>(layers: impl Iterator<Item = &'a Layer>) -> i32 {
    layers.map(|layer| layer.height).min().unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layers of the worked examples: bit rates in bit/s.
    const LAYERS: [Layer; 9] = [
        layer(180, 7.5, 49_500),
        layer(180, 15.0, 99_000),
        layer(180, 30.0, 150_000),
        layer(360, 7.5, 165_000),
        layer(360, 15.0, 330_000),
        layer(360, 30.0, 500_000),
        layer(720, 7.5, 660_000),
        layer(720, 15.0, 1_320_000),
        layer(720, 30.0, 2_000_000),
    ];

    const fn layer(height: i32, frame_rate: f32, bitrate: u64) -> Layer {
        Layer {
            height,
            frame_rate,
            bitrate,
        }
    }

    fn candidates<'a>(
        first: VideoType,
        on_stage: bool,
        heights: [i32; 4],
        layers: [&'a [Layer]; 2],
    ) -> Vec<Candidate<'a>> {
        heights
            .iter()
            .enumerate()
            .map(|(i, &max_height)| Candidate {
                layers: layers[i.min(1)],
                video_type: if i == 0 { first } else { VideoType::Camera },
                max_height,
                on_stage: on_stage && i == 0,
            })
            .collect()
    }

    /// `height@rate`, as the tables write it, of each of the four sources.
    fn at(kbps: Option<u64>, candidates: &[Candidate<'_>]) -> (String, bool) {
        let allocation = allocate(
            &ShardSettings::default(),
            kbps.map(|kbps| kbps * 1000),
            candidates,
        );
        let row: Vec<String> = allocation
            .choices
            .iter()
            .zip(candidates)
            .map(|(choice, candidate)| {
                choice.target.map_or("-".to_owned(), |target| {
                    let layer = candidate.layers[target];
                    format!("{}@{}", layer.height, layer.frame_rate)
                })
            })
            .collect();
        (row.join(" "), allocation.oversending)
    }

    /// Each state holds from its bandwidth up to just below the next one's, in
    /// the steps of 10 kbps in which the tables were made.
    fn check(table: &[(u64, &str)], candidates: &[Candidate<'_>]) {
        for (i, (from, expected)) in table.iter().enumerate() {
            assert_eq!(at(Some(*from), candidates).0, *expected, "at {from} kbps");
            if let Some((next, _)) = table.get(i + 1) {
                let before = at(Some(next - 10), candidates).0;
                assert_eq!(before, *expected, "just below {next} kbps");
            }
        }
    }

    #[test]
    fn stage_view() {
        let candidates = candidates(
            VideoType::Camera,
            true,
            [720, 180, 180, 180],
            [&LAYERS, &LAYERS],
        );
        check(
            &[
                (0, "- - - -"),
                (50, "180@7.5 - - -"),
                (100, "180@15 - - -"),
                (150, "180@30 - - -"),
                (500, "360@30 - - -"),
                (550, "360@30 180@7.5 - -"),
                (600, "360@30 180@7.5 180@7.5 -"),
                (650, "360@30 180@7.5 180@7.5 180@7.5"),
                (700, "360@30 180@15 180@7.5 180@7.5"),
                (750, "360@30 180@15 180@15 180@7.5"),
                (800, "360@30 180@15 180@15 180@15"),
                (850, "360@30 180@30 180@15 180@15"),
                (900, "360@30 180@30 180@30 180@15"),
                (960, "360@30 180@30 180@30 180@30"),
                (2150, "720@30 180@7.5 180@7.5 180@7.5"),
                (2200, "720@30 180@15 180@7.5 180@7.5"),
                (2250, "720@30 180@15 180@15 180@7.5"),
                (2300, "720@30 180@15 180@15 180@15"),
                (2350, "720@30 180@30 180@15 180@15"),
                (2400, "720@30 180@30 180@30 180@15"),
                (2460, "720@30 180@30 180@30 180@30"),
            ],
            &candidates,
        );
        assert_eq!(
            at(None, &candidates),
            ("720@30 180@30 180@30 180@30".into(), false)
        );
    }

    #[test]
    fn tile_view() {
        let thumbnails = [
            (0, "- - - -"),
            (50, "180@7.5 - - -"),
            (100, "180@7.5 180@7.5 - -"),
            (150, "180@7.5 180@7.5 180@7.5 -"),
            (200, "180@7.5 180@7.5 180@7.5 180@7.5"),
            (250, "180@15 180@7.5 180@7.5 180@7.5"),
            (300, "180@15 180@15 180@7.5 180@7.5"),
            (350, "180@15 180@15 180@15 180@7.5"),
            (400, "180@15 180@15 180@15 180@15"),
            (450, "180@30 180@15 180@15 180@15"),
            (500, "180@30 180@30 180@15 180@15"),
            (550, "180@30 180@30 180@30 180@15"),
            (610, "180@30 180@30 180@30 180@30"),
        ];
        check(
            &thumbnails,
            &candidates(VideoType::Camera, false, [180; 4], [&LAYERS, &LAYERS]),
        );
        let mut at_360 = thumbnails.to_vec();
        at_360.extend([
            (960, "360@30 180@30 180@30 180@30"),
            (1310, "360@30 360@30 180@30 180@30"),
            (1660, "360@30 360@30 360@30 180@30"),
            (2010, "360@30 360@30 360@30 360@30"),
        ]);
        check(
            &at_360,
            &candidates(VideoType::Camera, false, [360; 4], [&LAYERS, &LAYERS]),
        );
    }

    #[test]
    fn screen_share_on_stage() {
        let all = candidates(
            VideoType::Desktop,
            true,
            [720, 180, 180, 180],
            [&LAYERS, &LAYERS],
        );
        check(
            &[
                (0, "360@30 - - -"),
                (160, "720@7.5 - - -"),
                (1320, "720@15 - - -"),
                (2000, "720@30 - - -"),
                (2050, "720@30 180@7.5 - -"),
                (2100, "720@30 180@7.5 180@7.5 -"),
                (2150, "720@30 180@7.5 180@7.5 180@7.5"),
                (2200, "720@30 180@15 180@7.5 180@7.5"),
            ],
            &all,
        );
        for (kbps, oversending) in [(0, true), (160, true), (659, true), (660, false)] {
            assert_eq!(at(Some(kbps), &all).1, oversending, "at {kbps} kbps");
        }
        assert_eq!(at(Some(2460), &all).0, "720@30 180@30 180@30 180@30");
    }

    #[test]
    fn screen_share_with_only_the_top_encoding() {
        let mut top = LAYERS;
        top[..6].iter_mut().for_each(|layer| layer.bitrate = 0);
        let candidates = candidates(
            VideoType::Desktop,
            true,
            [-1, 180, 180, 180],
            [&top, &LAYERS],
        );
        for (kbps, expected) in [
            (0, ("- - - -", false)),
            (159, ("- - - -", false)),
            (160, ("720@7.5 - - -", true)),
            (660, ("720@7.5 - - -", false)),
        ] {
            let (row, oversending) = at(Some(kbps), &candidates);
            assert_eq!((row.as_str(), oversending), expected, "at {kbps} kbps");
        }
    }

    #[test]
    fn layers_of_equal_rate_do_not_hold_a_source_down() {
        let layers = [
            layer(180, 7.5, 150_000),
            layer(180, 15.0, 150_000),
            layer(180, 30.0, 150_000),
            layer(360, 30.0, 500_000),
            layer(720, 30.0, 1_500_000),
        ];
        for on_stage in [false, true] {
            let mut one = candidates(
                VideoType::Camera,
                on_stage,
                [720, 0, 0, 0],
                [&layers, &layers],
            );
            one.truncate(1);
            assert_eq!(at(None, &one).0, "720@30");
            assert_eq!(at(Some(600), &one).0, "360@30");
        }
    }

    #[test]
    fn layers_that_are_not_sent_are_passed_over_unless_none_is() {
        let mut low = LAYERS;
        low[3..].iter_mut().for_each(|layer| layer.bitrate = 0);
        let silent = LAYERS.map(|layer| Layer {
            bitrate: 0,
            ..layer
        });
        for (layers, max_height, expected) in [
            (&low, 720, "180@30"),
            (&silent, 720, "720@30"),
            (&silent, 360, "360@30"),
            (&silent, 180, "180@30"),
            (&LAYERS, 90, "180@30"),
        ] {
            let mut one = candidates(
                VideoType::Camera,
                false,
                [max_height, 0, 0, 0],
                [layers, layers],
            );
            one.truncate(1);
            assert_eq!(at(None, &one).0, expected);
        }
    }

    #[test]
    fn a_thumbnail_of_a_screen_is_its_lowest_height() {
        let mut top = LAYERS;
        top[..6].iter_mut().for_each(|layer| layer.bitrate = 0);
        let mut one = candidates(VideoType::Desktop, false, [180, 0, 0, 0], [&top, &top]);
        one.truncate(1);
        assert_eq!(at(None, &one).0, "720@30");
    }
}
