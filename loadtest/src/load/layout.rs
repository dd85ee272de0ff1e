//! Who is where in a run: conferences of equal size, a place for each
//! participant, and from an SSRC back to whose stream it is without a table.

use std::str::FromStr;

use serde::Serialize;

use crate::client::send::ENCODINGS;

/// Participants of a run at a time; their places in tags have 16 bits.
pub const MAX_PLACES: u32 = 50_000;
/// Bits of an SSRC's number: stream, place, generation.
const STREAM_BITS: u32 = 3;
const PLACE_BITS: u32 = 17;
/// Odd, so that multiplying by it is a bijection of the 32 bits.
const SPREAD: u32 = 0x9e37_79b1;
/// Its inverse modulo 2^32.
const INVERSE: u32 = 0x0e8b_2f51;

/// How many of a conference's participants send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shape {
    pub senders: u32,
    pub participants: u32,
}

impl Shape {
    /// `senders` to `receivers`: as many of both are the same people, who all
    /// send and receive; else the senders come on top.
    pub fn new(senders: u32, receivers: u32) -> Self {
        let participants = match senders == receivers {
            true => senders,
            false => senders.saturating_add(receivers),
        };
        Self {
            senders,
            participants,
        }
    }

    /// Receivers of each sender's streams.
    pub fn fanout(&self) -> u32 {
        self.participants.saturating_sub(1)
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.senders == self.participants {
            true => write!(f, "{0}x{0}", self.senders),
            false => write!(
                f,
                "{} to {}",
                self.senders,
                self.participants - self.senders
            ),
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    /// `10x10`: ten who all send and receive; `1to30`: one sends to thirty;
    /// `3of10`: ten, three of whom send.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<u32>().ok().filter(|n| *n > 0);
        let pair = |by: &str| {
            let (one, other) = text.split_once(by)?;
            Some((number(one)?, number(other)?))
        };
        let shape = if let Some((senders, receivers)) = pair("to") {
            Self {
                senders,
                participants: senders.saturating_add(receivers),
            }
        } else if let Some((senders, participants)) = pair("of") {
            Self {
                senders,
                participants,
            }
        } else if let Some((senders, receivers)) = pair("x") {
            Self::new(senders, receivers)
        } else {
            return Err("wanted is a shape such as 10x10, 1to30 or 3of10".to_owned());
        };
        match shape.senders <= shape.participants {
            true => Ok(shape),
            false => Err(format!("more senders than the {}", shape.participants)),
        }
    }
}

/// One participant: its place, and how many were there before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    pub place: u32,
    pub generation: u16,
}

/// A stream of a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamOf {
    Audio,
    Camera(u8),
    Retransmission(u8),
}

impl StreamOf {
    fn number(self) -> u32 {
        match self {
            Self::Audio => 0,
            Self::Camera(encoding) => 1 + u32::from(encoding),
            Self::Retransmission(encoding) => 4 + u32::from(encoding),
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        match number as u8 {
            0 => Some(Self::Audio),
            number @ 1..=3 => Some(Self::Camera(number - 1)),
            number @ 4..=6 => Some(Self::Retransmission(number - 4)),
            _ => None,
        }
    }
}

/// All places of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub conferences: u32,
    pub shape: Shape,
    /// Sets the SSRCs of one run apart from those of others.
    pub salt: u32,
}

impl Layout {
    pub fn places(&self) -> u32 {
        self.conferences.saturating_mul(self.shape.participants)
    }

    pub fn conference(&self, place: u32) -> u32 {
        place / self.shape.participants
    }

    /// The first place of the conference of `place`.
    pub fn first(&self, place: u32) -> u32 {
        self.conference(place) * self.shape.participants
    }

    pub fn sends(&self, place: u32) -> bool {
        place - self.first(place) < self.shape.senders
    }

    /// Generations are told apart modulo 4096.
    pub fn ssrc(&self, seat: Seat, stream: StreamOf) -> u32 {
        self.spread(seat, stream.number())
    }

    fn spread(&self, seat: Seat, number: u32) -> u32 {
        let generation = u32::from(seat.generation) << (STREAM_BITS + PLACE_BITS);
        let raw = generation | seat.place << STREAM_BITS | number;
        raw.wrapping_mul(SPREAD).wrapping_add(self.salt)
    }

    /// Whose stream an SSRC is; nonsense for those that are no participant's.
    pub fn owner(&self, ssrc: u32) -> Option<(Seat, StreamOf)> {
        let raw = ssrc.wrapping_sub(self.salt).wrapping_mul(INVERSE);
        let stream = StreamOf::from_number(raw & ((1 << STREAM_BITS) - 1))?;
        let seat = Seat {
            place: raw >> STREAM_BITS & ((1 << PLACE_BITS) - 1),
            generation: (raw >> (STREAM_BITS + PLACE_BITS)) as u16,
        };
        (seat.place < self.places()).then_some((seat, stream))
    }

    /// The name of an endpoint: 8 hexadecimal digits, as the clients'.
    pub fn endpoint(&self, seat: Seat) -> String {
        format!("{:08x}", self.spread(seat, (1 << STREAM_BITS) - 1))
    }

    /// SSRCs of a participant's sources: microphone, and each encoding of the
    /// camera with its retransmissions.
    pub fn ssrcs(&self, seat: Seat) -> (u32, [[u32; 2]; ENCODINGS]) {
        let camera = std::array::from_fn(|encoding| {
            let encoding = encoding as u8;
            [
                self.ssrc(seat, StreamOf::Camera(encoding)),
                self.ssrc(seat, StreamOf::Retransmission(encoding)),
            ]
        });
        (self.ssrc(seat, StreamOf::Audio), camera)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shapes_read_back() {
        for (text, senders, participants, said) in [
            ("10x10", 10, 10, "10x10"),
            ("1x30", 1, 31, "1 to 30"),
            ("1to30", 1, 31, "1 to 30"),
            ("3of10", 3, 10, "3 to 7"),
        ] {
            let shape: Shape = text.parse().expect("a shape");
            assert_eq!((shape.senders, shape.participants), (senders, participants));
            assert_eq!(shape.to_string(), said);
        }
        for text in ["", "10", "0x0", "11of10", "axb", "10x"] {
            assert!(text.parse::<Shape>().is_err(), "{text}");
        }
    }

    proptest! {
        /// An SSRC leads back to its stream, and no two streams share one.
        #[test]
        fn ssrcs_lead_back(
            salt in any::<u32>(), place in 0u32..1000, other in 0u32..1000, generation in 0u16..4096, later in 0u16..4096,
            number in 0u32..7, another in 0u32..7,
        ) {
            let layout = Layout { conferences: 100, shape: Shape::new(10, 10), salt };
            let seat = Seat { place, generation };
            let stream = StreamOf::from_number(number).expect("one of seven");
            prop_assert_eq!(layout.owner(layout.ssrc(seat, stream)), Some((seat, stream)));
            let second = (Seat { place: other, generation: later }, StreamOf::from_number(another).expect("one of seven"));
            prop_assert_eq!(layout.ssrc(seat, stream) == layout.ssrc(second.0, second.1), (seat, stream) == second);
        }
    }

    #[test]
    fn senders_come_first_in_each_conference() {
        let layout = Layout {
            conferences: 3,
            shape: Shape {
                senders: 2,
                participants: 5,
            },
            salt: 1,
        };
        let senders: Vec<u32> = (0..layout.places())
            .filter(|place| layout.sends(*place))
            .collect();
        assert_eq!(senders, [0, 1, 5, 6, 10, 11]);
        assert_eq!((layout.conference(7), layout.first(7)), (1, 5));
    }
}
