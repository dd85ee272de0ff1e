//! Which encoding of a source a receiver gets. Encodings are changed on key
//! frames only; since a sender answers one request with key frames of all
//! encodings, those that come close together are taken as a group, out of
//! which the best one wins.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Key frames this close to the first of a group belong to it
/// (`jitsi-videobridge:jvb/src/main/java/org/jitsi/videobridge/cc`).
const KEY_GROUP: Duration = Duration::from_millis(300);

/// What the choice of encodings has to say about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Reject,
    /// A key frame that the receiver gets; its encoding is now the current one.
    Enter,
    /// Not a key frame, of the current encoding: the codec decides by layer.
    Continue,
}

/// The current and the wanted encoding.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct EncodingChoice {
    current: Option<u8>,
    target: Option<u8>,
    pub(super) needs_keyframe: bool,
    #[serde(skip)]
    key_group: Option<Instant>,
}

impl EncodingChoice {
    /// The encoding that is being forwarded.
    pub(super) fn current(&self) -> Option<u8> {
        self.current
    }

    /// Whether the wanted encoding is being forwarded, and it is another one.
    pub(super) fn is_settled_beside(&self, encoding: u8) -> bool {
        self.current == self.target && self.current.is_some_and(|current| current != encoding)
    }

    /// Whether it will decide as another one does.
    pub(super) fn is_as(&self, other: &Self, now: Instant) -> bool {
        let group = |choice: &Self| {
            let began = choice.key_group?;
            (now.saturating_duration_since(began) <= KEY_GROUP).then_some(began)
        };
        (self.current, self.target, self.needs_keyframe)
            == (other.current, other.target, other.needs_keyframe)
            && group(self) == group(other)
    }

    /// Nothing is wanted.
    pub(super) fn suspend(&mut self) {
        self.current = None;
        self.target = None;
    }

    /// Takes note of the encoding wanted from now on.
    pub(super) fn aim(&mut self, target: u8) {
        if self.target != Some(target) {
            self.target = Some(target);
            if self.current != Some(target) {
                self.needs_keyframe = true;
            }
        }
    }

    /// Enters an encoding without a key frame, where those cannot be told.
    pub(super) fn enter(&mut self, encoding: u8) {
        self.current = Some(encoding);
    }

    /// Decides on the first packet seen of a frame, after [`Self::aim`].
    pub(super) fn decide(&mut self, encoding: u8, key: bool, arrival: Instant) -> Verdict {
        let Some(target) = self.target else {
            return Verdict::Reject;
        };
        let in_group = self
            .key_group
            .is_some_and(|start| arrival.saturating_duration_since(start) <= KEY_GROUP);
        if key {
            self.needs_keyframe = false;
            let wanted = if !in_group {
                self.key_group = Some(arrival);
                encoding <= target
            } else {
                let upwards = self.current.is_none_or(|current| current <= encoding);
                let downwards = self.current.is_some_and(|current| target < current);
                encoding <= target && (upwards || downwards)
            };
            // While a lower encoding is awaited, the frames that still come of
            // the current one need its key frame: upstream withholds that, and
            // the picture breaks if the awaited key frame is lost.
            let wanted = wanted || self.current == Some(encoding);
            if !wanted {
                return Verdict::Reject;
            }
            self.current = Some(encoding);
            return Verdict::Enter;
        }
        let Some(current) = self.current else {
            // A key frame that was not wanted has answered the last request.
            self.needs_keyframe |= !in_group;
            return Verdict::Reject;
        };
        let towards = current < target && encoding > current && encoding <= target
            || current > target && encoding < current;
        if towards && !in_group {
            self.needs_keyframe = true;
        }
        if encoding == current {
            Verdict::Continue
        } else {
            Verdict::Reject
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A choice that forwards `current` and aims at `target`, its last key
    /// frame at `now`.
    fn forwarding(now: Instant, current: u8, target: u8) -> EncodingChoice {
        let mut choice = EncodingChoice::default();
        choice.aim(current);
        assert_eq!(choice.decide(current, true, now), Verdict::Enter);
        choice.aim(target);
        choice
    }

    #[test]
    fn the_first_key_frame_of_a_group_switches_up_to_the_target() {
        let start = Instant::now();
        for (current, target, encoding, verdict) in [
            (0, 2, 2, Verdict::Enter),
            (0, 2, 1, Verdict::Enter),
            (0, 1, 2, Verdict::Reject),
            (2, 2, 0, Verdict::Enter),
            (2, 0, 1, Verdict::Reject),
        ] {
            let mut choice = forwarding(start, current, target);
            assert_eq!(
                choice.decide(encoding, true, start + 301 * MS),
                verdict,
                "{current} > {target}: {encoding}"
            );
        }
    }

    #[test]
    fn later_key_frames_of_a_group_only_lead_towards_the_target() {
        let start = Instant::now();
        for (current, target, encoding, verdict) in [
            (0, 2, 1, Verdict::Enter),
            (1, 2, 0, Verdict::Reject),
            (1, 1, 1, Verdict::Enter),
            (1, 1, 2, Verdict::Reject),
            (2, 1, 0, Verdict::Enter),
            (2, 1, 1, Verdict::Enter),
            (2, 2, 1, Verdict::Reject),
        ] {
            let mut choice = forwarding(start, current, target);
            assert_eq!(
                choice.decide(encoding, true, start + 300 * MS),
                verdict,
                "{current} > {target}: {encoding}"
            );
        }
    }

    #[test]
    fn a_step_towards_the_target_asks_for_a_key_frame_once_the_group_is_over() {
        let start = Instant::now();
        for (current, target, encoding, later, needs) in [
            (0, 2, 1, 301, true),
            (0, 2, 1, 300, false),
            (0, 1, 2, 301, false),
            (2, 0, 1, 301, true),
            (1, 1, 0, 301, false),
        ] {
            let mut choice = forwarding(start, current, target);
            choice.needs_keyframe = false;
            choice.decide(encoding, false, start + later * MS);
            assert_eq!(
                choice.needs_keyframe, needs,
                "{current} > {target}: {encoding} after {later} ms"
            );
        }
    }

    #[test]
    fn a_change_of_target_asks_for_a_key_frame_and_any_key_frame_answers() {
        let start = Instant::now();
        let mut choice = forwarding(start, 0, 1);
        assert!(choice.needs_keyframe);
        choice.decide(2, true, start + 400 * MS);
        assert!(!choice.needs_keyframe);
        choice.aim(0);
        assert!(!choice.needs_keyframe, "it is what is being forwarded");
    }

    #[test]
    fn suspended_means_nothing_until_a_key_frame() {
        let start = Instant::now();
        let mut choice = forwarding(start, 1, 1);
        choice.suspend();
        assert_eq!(choice.decide(1, true, start), Verdict::Reject);
        choice.aim(1);
        assert!(choice.needs_keyframe);
        assert_eq!(choice.decide(1, false, start), Verdict::Reject);
        assert_eq!(choice.decide(1, true, start), Verdict::Enter);
    }

    #[test]
    fn an_unwanted_key_frame_does_not_end_the_asking() {
        let start = Instant::now();
        let mut choice = EncodingChoice::default();
        choice.aim(0);
        assert_eq!(choice.decide(2, true, start), Verdict::Reject);
        choice.decide(0, false, start + 301 * MS);
        assert!(choice.needs_keyframe);
    }
}
