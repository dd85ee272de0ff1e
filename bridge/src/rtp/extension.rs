//! RTP header extensions (RFC 8285): both forms are read, and written in the
//! one-byte form unless an element needs the two-byte form.
//!
//! Also the payloads of the extensions the bridge itself understands: audio
//! level (RFC 6464), abs-send-time and transport-wide-cc-01.

/// URI of the audio level (RFC 6464 §4).
pub const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
/// URI of the absolute send time.
pub const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
/// URI of the transport-wide sequence number.
pub const TRANSPORT_CC: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
/// URI of the orientation of a picture (3GPP TS 26.114).
pub const VIDEO_ORIENTATION: &str = "urn:3gpp:video-orientation";
/// URI of the dependency descriptor (AV1 RTP payload format, appendix A).
pub const DEPENDENCY_DESCRIPTOR: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";

const ONE_BYTE: u16 = 0xbede;
const TWO_BYTE: u16 = 0x1000;

/// Iterates over `(id, data)`. Malformed elements end the iteration: what came
/// before them is still good.
#[derive(Clone, Copy, Debug)]
pub struct Extensions<'a> {
    rest: &'a [u8],
    two_byte: bool,
}

impl<'a> Extensions<'a> {
    pub(crate) fn none() -> Self {
        Self {
            rest: &[],
            two_byte: false,
        }
    }

    pub(crate) fn new(profile: u16, block: &'a [u8]) -> Self {
        match profile {
            ONE_BYTE => Self {
                rest: block,
                two_byte: false,
            },
            // The low four bits are "appbits" (RFC 8285 §4.3).
            profile if profile & 0xfff0 == TWO_BYTE => Self {
                rest: block,
                two_byte: true,
            },
            _ => Self::none(),
        }
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            // An octet of padding between elements, in both forms.
            if first == 0 {
                self.rest = rest;
                continue;
            }
            let (id, len, rest) = if self.two_byte {
                let (&len, rest) = rest.split_first()?;
                (first, usize::from(len), rest)
            } else if first >> 4 == 15 {
                // Reserved: everything after it is to be ignored (§4.2).
                self.rest = &[];
                return None;
            } else {
                (first >> 4, usize::from(first & 0x0f) + 1, rest)
            };
            let Some((data, rest)) = rest.split_at_checked(len) else {
                self.rest = &[];
                return None;
            };
            self.rest = rest;
            // Id 0 with a length is padding of the one-byte form.
            if id != 0 {
                return Some((id, data));
            }
        }
    }
}

/// Writes a header-extension block at the end of a packet under construction:
/// profile, length, elements, padding. Nothing is written for no elements.
///
/// The form is chosen before the first element: one-byte, unless the caller
/// says that some element needs the other ([`Writer::needs_two_byte`]).
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    two_byte: bool,
}

impl<'a> Writer<'a> {
    /// Begins a block at the end of `out`.
    pub fn new(out: &'a mut Vec<u8>, two_byte: bool) -> Self {
        let start = out.len();
        Self {
            out,
            start,
            two_byte,
        }
    }

    /// Whether an element can only be written in the two-byte form.
    pub fn needs_two_byte(id: u8, len: usize) -> bool {
        id > 14 || len == 0 || len > 16
    }

    /// Appends an element of at most 255 octets; ids are 1 to 255.
    pub fn push(&mut self, id: u8, data: &[u8]) {
        self.push_with(id, |out| out.extend_from_slice(data));
    }

    /// Appends an element that `write` appends to the packet itself.
    pub fn push_with(&mut self, id: u8, write: impl FnOnce(&mut Vec<u8>)) {
        if self.out.len() == self.start {
            let profile = if self.two_byte { TWO_BYTE } else { ONE_BYTE };
            self.out.extend_from_slice(&profile.to_be_bytes());
            self.out.extend_from_slice(&[0, 0]);
        }
        let header = self.out.len();
        self.out
            .extend_from_slice(&[0, 0][..1 + usize::from(self.two_byte)]);
        let data = self.out.len();
        write(self.out);
        let len = self.out.len() - data;
        if self.two_byte {
            debug_assert!(id != 0 && len <= 255, "id {id}, {len} octets");
            self.out[header] = id;
            self.out[header + 1] = len as u8;
        } else {
            debug_assert!(!Self::needs_two_byte(id, len), "id {id}, {len} octets");
            self.out[header] = id << 4 | (len as u8).wrapping_sub(1) & 0x0f;
        }
    }

    /// Pads the block and sets its length. `true` if there is a block, so that
    /// the X bit has to be set.
    pub fn finish(self) -> bool {
        if self.out.len() == self.start {
            return false;
        }
        while !(self.out.len() - self.start).is_multiple_of(4) {
            self.out.push(0);
        }
        let words = ((self.out.len() - self.start) / 4 - 1) as u16;
        self.out[self.start + 2..self.start + 4].copy_from_slice(&words.to_be_bytes());
        true
    }
}

/// What a client says about the loudness of an audio packet (RFC 6464).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioLevel {
    /// The V bit: the encoder believes that this is speech.
    pub voice: bool,
    /// Level in -dBov: 0 is the loudest, 127 silence.
    pub level: u8,
}

impl AudioLevel {
    /// `None` for an empty element.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let octet = *data.first()?;
        Some(Self {
            voice: octet & 0x80 != 0,
            level: octet & 0x7f,
        })
    }
}

/// The transport-wide sequence number; `None` if the element is too short.
pub fn transport_cc(data: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*data.first()?, *data.get(1)?]))
}

/// The 24-bit send time in 6.18 fixed-point seconds; `None` unless 3 octets.
pub fn abs_send_time(data: &[u8]) -> Option<u32> {
    let &[a, b, c] = data else { return None };
    Some(u32::from_be_bytes([0, a, b, c]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_one_byte_example_of_rfc_8285_is_read() {
        // §4.2: three elements of 1, 2 and 4 octets with padding between.
        let block = [0x10, 0xaa, 0x21, 1, 2, 0, 0, 0x33, 1, 2, 3, 4];
        let read: Vec<_> = Extensions::new(ONE_BYTE, &block).collect();
        assert_eq!(read, [(1, &[0xaa][..]), (2, &[1, 2]), (3, &[1, 2, 3, 4])]);
    }

    #[test]
    fn the_two_byte_example_of_rfc_8285_is_read() {
        let block = [1, 0, 2, 1, 0xbb, 0, 200, 4, 1, 2, 3, 4];
        let read: Vec<_> = Extensions::new(0x1005, &block).collect();
        assert_eq!(read, [(1, &[][..]), (2, &[0xbb]), (200, &[1, 2, 3, 4])]);
    }

    #[test]
    fn id_15_and_overlong_elements_end_the_one_byte_form() {
        let stopped = [0x10, 7, 0xf0, 1, 0x20, 9, 0, 0];
        assert_eq!(Extensions::new(ONE_BYTE, &stopped).count(), 1);
        let overlong = [0x10, 7, 0x2f, 1];
        assert_eq!(Extensions::new(ONE_BYTE, &overlong).count(), 1);
        assert_eq!(Extensions::new(0xabcd, &stopped).count(), 0);
    }

    #[test]
    fn audio_level_splits_voice_and_level() {
        assert_eq!(
            AudioLevel::parse(&[0x80 | 30]),
            Some(AudioLevel {
                voice: true,
                level: 30
            })
        );
        assert_eq!(AudioLevel::parse(&[]), None);
        assert_eq!(transport_cc(&[1, 2]), Some(0x102));
        assert_eq!(transport_cc(&[1]), None);
        assert_eq!(abs_send_time(&[1, 2, 3]), Some(0x1_0203));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            elements in prop::collection::vec((1u8..=255, prop::collection::vec(any::<u8>(), 0..60)), 0..6),
        ) {
            let two_byte = elements.iter().any(|(id, data)| Writer::needs_two_byte(*id, data.len()));
            let mut out = Vec::new();
            let mut writer = Writer::new(&mut out, two_byte);
            for (id, data) in &elements {
                writer.push(*id, data);
            }
            prop_assert_eq!(writer.finish(), !elements.is_empty());
            prop_assert_eq!(out.len() % 4, 0);
            if !out.is_empty() {
                let profile = u16::from_be_bytes([out[0], out[1]]);
                prop_assert_eq!(profile, if two_byte { TWO_BYTE } else { ONE_BYTE });
                prop_assert_eq!(usize::from(u16::from_be_bytes([out[2], out[3]])) * 4, out.len() - 4);
                let read: Vec<_> = Extensions::new(profile, &out[4..]).map(|(id, d)| (id, d.to_vec())).collect();
                prop_assert_eq!(read, elements);
            }
        }
    }
}
