//! Names nobody can guess, from one seeded generator.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The focus' source of chance. The seed comes from outside, so a run repeats.
#[derive(Debug)]
pub struct Random(StdRng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// A random UUID (RFC 9562 §5.4).
    pub fn uuid(&mut self) -> String {
        let mut bytes: [u8; 16] = self.0.random();
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }

    /// A Jingle session id: 64 random bits in base 32, as jicofo's.
    pub fn sid(&mut self) -> String {
        const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
        let mut bits: u64 = self.0.random();
        (0..13)
            .map(|_| {
                let digit = DIGITS[(bits & 31) as usize];
                bits >>= 5;
                char::from(digit)
            })
            .collect()
    }

    pub fn id(&mut self) -> u64 {
        self.0.random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_form_and_differ() {
        let mut random = Random::new(7);
        let uuid = random.uuid();
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "4");
        assert_ne!(uuid, random.uuid());
        assert_eq!(random.sid().len(), 13);
        assert_ne!(random.sid(), random.sid());
        assert_eq!(Random::new(7).uuid(), uuid, "a seed repeats");
    }
}
