//! What a client can do: its disco#info features (client-focus §1.6), and the
//! answers remembered by their verification string.

use std::collections::{BTreeMap, VecDeque};

use viaduct_signalling::disco::{Caps, DiscoInfo};
use viaduct_signalling::jitsi::feature;

use viaduct_signalling::sources::MediaType;

/// Verification strings remembered. Each kind and version of client has one;
/// beyond that the oldest is asked again.
pub const MAX_REMEMBERED: usize = 1024;

/// The features that change what the focus does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    pub audio: bool,
    pub video: bool,
    pub sctp: bool,
    pub rtx: bool,
    pub tcc: bool,
    pub remb: bool,
    pub opus_red: bool,
    pub json_sources: bool,
    /// May be muted though it is a gateway.
    pub audio_mute: bool,
}

impl Features {
    /// For a client that does not answer: what every client of the last years
    /// can do, and sources in the form that all of them read.
    pub const ASSUMED: Self = Self {
        audio: true,
        video: true,
        sctp: true,
        rtx: true,
        tcc: true,
        remb: false,
        opus_red: false,
        json_sources: false,
        audio_mute: false,
    };

    pub fn from_disco(info: &DiscoInfo) -> Self {
        Self {
            audio: info.has(feature::AUDIO),
            video: info.has(feature::VIDEO),
            sctp: info.has(feature::SCTP),
            rtx: info.has(feature::RTX),
            tcc: info.has(feature::TCC),
            remb: info.has(feature::REMB),
            opus_red: info.has(feature::OPUS_RED),
            json_sources: info.has(feature::JSON_SOURCES),
            audio_mute: info.has(feature::AUDIO_MUTE),
        }
    }

    pub fn media(&self, media: MediaType) -> bool {
        match media {
            MediaType::Audio => self.audio,
            MediaType::Video => self.video,
        }
    }
}

/// Answers by verification string.
#[derive(Debug, Default)]
pub struct Remembered {
    answers: BTreeMap<String, Features>,
    order: VecDeque<String>,
}

impl Remembered {
    pub fn get(&self, caps: &Caps) -> Option<Features> {
        self.answers.get(&caps.ver).copied()
    }

    /// Remembers an answer if its hash is the one that was announced: a client
    /// must not be able to speak for others.
    pub fn learn(&mut self, caps: &Caps, info: &DiscoInfo) {
        if info.ver() != caps.ver || self.answers.contains_key(&caps.ver) {
            return;
        }
        if self.order.len() >= MAX_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
        self.order.push_back(caps.ver.clone());
        self.answers
            .insert(caps.ver.clone(), Features::from_disco(info));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn false_claims_are_not_remembered_and_memory_is_bounded() {
        let mut remembered = Remembered::default();
        let rich = DiscoInfo::features([feature::AUDIO, feature::VIDEO, feature::TCC]);
        let poor = DiscoInfo::features([feature::AUDIO]);
        let claimed = Caps::new("https://jitsi.org/jitsi-meet", &rich);
        remembered.learn(&claimed, &poor);
        assert_eq!(remembered.get(&claimed), None);
        remembered.learn(&claimed, &rich);
        assert!(
            remembered
                .get(&claimed)
                .is_some_and(|f| f.tcc && !f.json_sources)
        );
        for number in 0..MAX_REMEMBERED {
            let info = DiscoInfo::features([feature::AUDIO, number.to_string().as_str()]);
            remembered.learn(&Caps::new("n", &info), &info);
        }
        assert_eq!(remembered.get(&claimed), None, "the oldest went");
        assert_eq!(remembered.answers.len(), MAX_REMEMBERED);
    }
}
