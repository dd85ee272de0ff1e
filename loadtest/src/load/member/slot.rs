//! What a member gets of one other participant, and what it was to get.

use std::time::{Duration, Instant};

use super::super::found::Found;
use super::super::layout::Seat;
use super::super::stream::Stream;
use super::super::{Sent, Settings};

/// How long a stream may take to begin before it counts as silent: receivers get
/// the sources of newcomers half a second late, and pictures with a key picture.
const SILENT_AFTER: Duration = Duration::from_secs(1);

/// The streams of one other participant.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) generation: u16,
    pub(super) audio: Stream,
    pub(super) video: Stream,
    since: Option<Since>,
}

/// What was sent before the count, of each stream that has begun or was marked.
struct Since {
    at: Instant,
    audio: Option<u32>,
    video: Option<[u32; 3]>,
}

/// A stream that begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    Audio,
    Video,
}

impl Slot {
    pub(super) fn of(generation: u16) -> Self {
        Self {
            generation,
            ..Self::default()
        }
    }

    /// Whose streams they are, who is at `place`.
    pub(super) fn seat(&self, place: u32) -> Seat {
        let generation = self.generation;
        Seat { place, generation }
    }

    /// Whether anything is known of it.
    pub(super) fn is_known(&self) -> bool {
        self.since.is_some()
    }

    /// Counts from the packet at hand on, if it is the first of its stream.
    pub(super) fn begin(&mut self, now: Instant, stream: Begins, sent: impl FnOnce() -> Sent) {
        let since = self.since.get_or_insert(Since {
            at: now,
            audio: None,
            video: None,
        });
        let before = || sent().map(|count| count.saturating_sub(1));
        match stream {
            Begins::Audio => {
                since.audio.get_or_insert_with(|| before()[0]);
            }
            Begins::Video => {
                since.video.get_or_insert_with(|| {
                    let [_, layers @ ..] = before();
                    layers
                });
            }
        }
    }

    /// Counts from now on, whether a stream has begun or not.
    pub(super) fn mark(&mut self, now: Instant, [audio, layers @ ..]: Sent) {
        self.audio.mark();
        self.video.mark();
        self.since = Some(Since {
            at: now,
            audio: Some(audio),
            video: Some(layers),
        });
    }

    /// Packets that were to come until now, of the wanted layer alone, since lower
    /// ones are referred to by key pictures only, of which there are few (K-SVC), or
    /// by none (simulcast). Later ones count from here.
    pub(super) fn take_expected(&mut self, settings: &Settings, height: u16, sent: Sent) -> u64 {
        let Some(since) = &mut self.since else {
            return 0;
        };
        let [audio, layers @ ..] = sent;
        let heard = since.audio.as_mut().map_or(0, |since| {
            u64::from(audio.wrapping_sub(std::mem::replace(since, audio)))
        });
        let wanted = settings.due_layer(height);
        let seen = since.video.as_mut().map_or(0, |since| {
            let before = std::mem::replace(since, layers);
            wanted.map_or(0, |layer| {
                u64::from(layers[layer].wrapping_sub(before[layer]))
            })
        });
        heard + seen
    }

    /// Adds what was found until `end`.
    pub(super) fn close(
        mut self,
        end: Instant,
        settings: &Settings,
        height: u16,
        sent: Sent,
        found: &mut Found,
    ) {
        found.expected += self.take_expected(settings, height, sent);
        let Some(since) = &self.since else { return };
        let long = end.saturating_duration_since(since.at) >= SILENT_AFTER;
        let all = settings.due_layer(height).is_some();
        for (begun, wanted) in [
            (self.audio.has_begun(), true),
            (self.video.has_begun(), all),
        ] {
            found.streams += u64::from(wanted && (begun || long));
            found.silent += u64::from(wanted && !begun && long);
        }
        found.audio.add(&self.audio.close(end, None));
        let freeze = Some(settings.freeze_after()).filter(|_| all);
        let video = self.video.close(end, freeze);
        if settings.wanted_layer(height).is_some() && !all {
            // What was to come is told by the numbers.
            found.expected += video.numbered;
        }
        found.video.add(&video);
    }
}

/// Counts the streams of somebody who has been there for `time` and of whom nothing
/// came.
pub(super) fn unheard(time: Duration, settings: &Settings, height: u16, found: &mut Found) {
    if time >= SILENT_AFTER {
        let streams = 1 + u64::from(settings.due_layer(height).is_some());
        found.streams += streams;
        found.silent += streams;
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::layout::{Layout, Shape};
    use super::super::super::stream::Head;
    use super::super::super::{Channel, Feedback};
    use super::*;
    use crate::source::Codec;
    use crate::source::video::Profile;

    fn settings(last_n: i32) -> Settings {
        Settings {
            layout: Layout {
                conferences: 1,
                shape: Shape::new(3, 3),
                salt: 0,
            },
            run: 1,
            picture: Settings::picture(Codec::Vp8, Profile::Even, 30, &[150, 500, 1500]),
            channel: Channel::None,
            feedback: Feedback::None,
            height: 720,
            last_n,
            open_every: 16,
            loss: 0.0,
            limit: 0,
            seed: 1,
        }
    }

    fn head(sequence: u16) -> Head {
        Head {
            sequence,
            timestamp: u32::from(sequence),
            marker: true,
        }
    }

    /// A slot that heard ten packets of audio and three of video, after half a second,
    /// and what was sent of each.
    fn heard(settings: &Settings, start: Instant) -> (Slot, Sent) {
        let mut slot = Slot::of(1);
        for n in 0..10u16 {
            let now = start + Duration::from_millis(20 * u64::from(n));
            let sent = [26 + u32::from(n), 15, 15, 90];
            slot.audio.audio(now, head(n));
            slot.begin(now, Begins::Audio, || sent);
            if n >= 7 {
                let freeze = settings.freeze_after();
                slot.video.video(now, head(n), freeze, false);
                slot.begin(now, Begins::Video, || [33, 16, 16, 101 + u32::from(n - 7)]);
            }
        }
        (slot, [35, 17, 17, 103])
    }

    #[test]
    fn a_stream_counts_from_its_first_packet_on() {
        let (settings, start) = (settings(-1), Instant::now());
        let (slot, sent) = heard(&settings, start);
        let mut found = Found::default();
        let end = start + Duration::from_millis(180);
        slot.close(end, &settings, 720, sent, &mut found);
        assert_eq!((found.expected, found.streams, found.silent), (13, 2, 0));
        assert_eq!((found.audio.received, found.video.received), (10, 3));
    }

    #[test]
    fn each_height_expects_packets_of_its_own_layer() {
        let (settings, start) = (settings(-1), Instant::now());
        let (mut slot, mut sent) = heard(&settings, start);
        assert_eq!(slot.take_expected(&settings, 720, sent), 13);
        sent = sent.map(|count| count + 5);
        assert_eq!(slot.take_expected(&settings, 180, sent), 10);
        sent = sent.map(|count| count + 5);
        assert_eq!(slot.take_expected(&settings, 0, sent), 5);
        assert_eq!(Slot::of(0).take_expected(&settings, 720, sent), 0);
    }

    /// Which pictures come is then the server's choice: no pause is a freeze, and no
    /// camera silent.
    #[test]
    fn where_not_all_are_wanted_numbers_tell_what_was_to_come() {
        let (settings, start) = (settings(1), Instant::now());
        let (mut slot, mut sent) = heard(&settings, start);
        let now = start + Duration::from_secs(3);
        slot.video
            .video(now, head(10), settings.freeze_after(), false);
        sent[3] += 1000;
        let mut found = Found::default();
        let end = now + Duration::from_secs(3);
        slot.close(end, &settings, 720, sent, &mut found);
        assert_eq!((found.expected, found.streams, found.silent), (14, 1, 0));
        assert_eq!(found.video.freezes, 0);
    }

    #[test]
    fn silent_is_what_had_time_to_begin() {
        let (settings, start) = (settings(-1), Instant::now());
        for (ms, silent) in [(900, 0), (1100, 2)] {
            let mut slot = Slot::default();
            slot.mark(start, [0; 4]);
            let mut found = Found::default();
            let time = Duration::from_millis(ms);
            slot.close(start + time, &settings, 720, [50, 30, 30, 180], &mut found);
            assert_eq!((found.expected, found.silent), (230, silent));
            let mut found = Found::default();
            unheard(time, &settings, 720, &mut found);
            assert_eq!((found.streams, found.silent), (silent, silent));
        }
    }
}
