//! Speech and silence as the audio-level header extension tells them (RFC 6464).

use crate::rtp::extension::AudioLevel;

/// The level (-127 dBov) that encoders give for digital silence.
const SILENCE: u8 = 127;

/// Whether a packet is silent.
pub fn is_silence(level: AudioLevel) -> bool {
    level.level == SILENCE
}

/// Loudness from 0, silence, to 127.
pub fn loudness(level: AudioLevel) -> u8 {
    SILENCE - level.level
}

/// Lets the beginning of each silence of an endpoint through and drops the rest.
#[derive(Debug, Default)]
pub struct SilenceGate {
    silent: u32,
}

impl SilenceGate {
    /// Whether to pass a packet on. `limit` is that of
    /// [`crate::settings::ShardSettings::forwarded_silence_packets`]; one packet
    /// more than it passes, as with JVB.
    pub fn pass(&mut self, level: Option<AudioLevel>, limit: u32) -> bool {
        if !level.is_some_and(is_silence) {
            self.silent = 0;
            return true;
        }
        let pass = self.silent <= limit;
        self.silent = self.silent.saturating_add(u32::from(pass));
        pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_silent_packets_pass_and_the_fifth_does_not_until_speech() {
        let mut gate = SilenceGate::default();
        let silent = AudioLevel::parse(&[0xff]);
        let speech = AudioLevel::parse(&[0x80 | 30]);
        assert_eq!(speech.map(loudness), Some(97));
        for _ in 0..2 {
            for expected in [true, true, true, true, false, false] {
                assert_eq!(gate.pass(silent, 3), expected);
            }
            assert!(gate.pass(speech, 3));
        }
        assert!(gate.pass(None, 3));
    }
}
