//! What was found of one source at one receiver, and the sums of that, kept so
//! that a run of any length and any number of participants takes bounded memory.

use serde::Serialize;

use super::audio::AudioReceiver;
use super::mute::MuteStats;
use super::video::VideoReceiver;
use crate::source::tag::Kind;

/// Pairs that are listed one by one; of the others only the sums are known.
const MAX_LISTED: usize = 20_000;
/// Times that are kept for their median.
const MAX_TIMES: usize = 10_000;

/// One source at one receiver.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Pair {
    pub receiver: u16,
    pub sender: u16,
    pub kind: &'static str,
    /// Whether both were there long enough for it to be heard or seen.
    pub expected: bool,
    pub delivered: u64,
    pub lost: u64,
    pub reordered: u64,
    pub recovered: u64,
    pub duplicate: u64,
    pub foreign: u64,
    pub corrupt: u64,
    pub misnumbered: u64,
    pub delay_max_ms: f64,
    pub gap_ms: f64,
    pub mutes: u64,
    pub while_muted: u64,
    pub unresumed: u64,
    pub resumed_ms: f64,
    /// Pictures, from the receiver's first packet on.
    pub frames: u64,
    pub key_frames: u64,
    pub undecodable: u64,
    pub switches: u64,
    pub bad_switches: u64,
    pub padding: u64,
    pub height: u16,
    pub switch_ms: Vec<f64>,
    pub unmet_heights: u64,
    pub strayed: u64,
}

impl Pair {
    /// Of a source that never came.
    pub fn silent(receiver: u16, sender: u16, kind: Kind) -> Self {
        Self {
            receiver,
            sender,
            kind: match kind {
                Kind::Audio => "audio",
                Kind::Camera => "video",
                Kind::Desktop => "desktop",
            },
            ..Self::default()
        }
    }

    /// Of a microphone; closed before.
    pub fn audio(self, audio: &AudioReceiver) -> Self {
        let stats = &audio.stats;
        Self {
            delivered: stats.received,
            lost: stats.lost,
            reordered: stats.reordered,
            duplicate: stats.duplicate,
            foreign: stats.foreign,
            corrupt: stats.corrupt,
            misnumbered: stats.misnumbered,
            delay_max_ms: stats.delay_max_ns as f64 / 1e6,
            gap_ms: stats.gap.longest_ms(),
            ..self.mutes(&audio.mutes.stats)
        }
    }

    /// Of a camera or screen; closed before.
    pub fn video(self, video: &VideoReceiver) -> Self {
        let (stats, heights) = (&video.stats, &video.heights.stats);
        Self {
            delivered: stats.received,
            lost: stats.lost,
            reordered: stats.reordered,
            recovered: stats.recovered,
            duplicate: stats.duplicate,
            foreign: stats.foreign,
            corrupt: stats.corrupt,
            misnumbered: stats.misnumbered,
            delay_max_ms: stats.delay_max_ns as f64 / 1e6,
            gap_ms: stats.gap.longest_ms(),
            frames: stats.frames,
            key_frames: stats.key_frames,
            undecodable: stats.undecodable,
            switches: stats.switches,
            bad_switches: stats.bad_switches,
            padding: stats.padding,
            height: heights.last.unwrap_or(0),
            switch_ms: heights.switch_ms.clone(),
            unmet_heights: heights.unmet,
            strayed: heights.strayed,
            ..self.mutes(&video.mutes.stats)
        }
    }

    fn mutes(self, stats: &MuteStats) -> Self {
        Self {
            mutes: stats.ends,
            while_muted: stats.while_muted,
            unresumed: stats.unresumed,
            resumed_ms: stats.resumed_ms,
            ..self
        }
    }

    /// Whether it should have been heard or seen, and was not.
    pub fn is_missing(&self) -> bool {
        self.expected && (self.delivered == 0 || self.kind != "audio" && self.frames == 0)
    }
}

/// Sums over pairs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Totals {
    pub delivered: u64,
    pub lost: u64,
    pub reordered: u64,
    pub recovered: u64,
    pub duplicate: u64,
    pub foreign: u64,
    pub corrupt: u64,
    pub misnumbered: u64,
    pub undecodable: u64,
    pub bad_switches: u64,
    pub unmet_heights: u64,
    /// Pictures of another height after the right one had come.
    pub strayed: u64,
    pub mutes: u64,
    pub while_muted: u64,
    pub unresumed: u64,
}

impl Totals {
    fn of(pair: &Pair) -> Self {
        Self {
            delivered: pair.delivered,
            lost: pair.lost,
            reordered: pair.reordered,
            recovered: pair.recovered,
            duplicate: pair.duplicate,
            foreign: pair.foreign,
            corrupt: pair.corrupt,
            misnumbered: pair.misnumbered,
            undecodable: pair.undecodable,
            bad_switches: pair.bad_switches,
            unmet_heights: pair.unmet_heights,
            strayed: pair.strayed,
            mutes: pair.mutes,
            while_muted: pair.while_muted,
            unresumed: pair.unresumed,
        }
    }

    fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.reordered += other.reordered;
        self.recovered += other.recovered;
        self.duplicate += other.duplicate;
        self.foreign += other.foreign;
        self.corrupt += other.corrupt;
        self.misnumbered += other.misnumbered;
        self.undecodable += other.undecodable;
        self.bad_switches += other.bad_switches;
        self.unmet_heights += other.unmet_heights;
        self.strayed += other.strayed;
        self.mutes += other.mutes;
        self.while_muted += other.while_muted;
        self.unresumed += other.unresumed;
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Gaps {
    pub audio: f64,
    pub video: f64,
}

/// Pairs, summed up.
#[derive(Clone, Debug, Default)]
pub struct Pairs {
    pub totals: Totals,
    pub gaps: Gaps,
    pub padding: u64,
    /// How many there are; how many were to be heard or seen; how many of
    /// those were not.
    pub count: u64,
    pub expected: u64,
    pub missing: u64,
    pub switch_ms: Vec<f64>,
    pub resumed_ms: f64,
    pub listed: Vec<Pair>,
}

impl Pairs {
    pub fn add(&mut self, pair: Pair) {
        // A screen's pictures are too rare for its gaps to compare.
        let gap = |kind| if pair.kind == kind { pair.gap_ms } else { 0.0 };
        self.merge(Self {
            totals: Totals::of(&pair),
            gaps: Gaps {
                audio: gap("audio"),
                video: gap("video"),
            },
            padding: pair.padding,
            count: 1,
            expected: u64::from(pair.expected),
            missing: u64::from(pair.is_missing()),
            switch_ms: pair.switch_ms.clone(),
            resumed_ms: pair.resumed_ms,
            listed: vec![pair],
        });
    }

    pub fn merge(&mut self, other: Self) {
        self.totals.add(&other.totals);
        self.gaps.audio = self.gaps.audio.max(other.gaps.audio);
        self.gaps.video = self.gaps.video.max(other.gaps.video);
        self.padding += other.padding;
        self.count += other.count;
        self.expected += other.expected;
        self.missing += other.missing;
        self.resumed_ms = self.resumed_ms.max(other.resumed_ms);
        let room = MAX_TIMES.saturating_sub(self.switch_ms.len());
        self.switch_ms.extend(other.switch_ms.iter().take(room));
        let room = MAX_LISTED.saturating_sub(self.listed.len());
        self.listed.extend(other.listed.into_iter().take(room));
    }
}
