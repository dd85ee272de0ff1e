//! RTP packets (RFC 3550 §5.1) with header extensions in either form
//! (RFC 8285 §4.2, §4.3), written into one buffer and read in place: thousands
//! of participants in one process leave no time for more.

/// The fixed header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub marker: bool,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
}

const ONE_BYTE: u16 = 0xbede;
const TWO_BYTE: u16 = 0x1000;
/// Longest element of the one-byte form, and its highest number.
const MAX_ONE_BYTE: usize = 16;
const MAX_ONE_BYTE_ID: u8 = 14;

/// Writes a packet in place of what is in `out`. `payload` may come in parts.
pub fn write(header: &Header, extensions: &[(u8, &[u8])], payload: &[&[u8]], out: &mut Vec<u8>) {
    out.clear();
    out.push(0x80 | u8::from(!extensions.is_empty()) << 4);
    out.push(u8::from(header.marker) << 7 | header.payload_type);
    out.extend_from_slice(&header.sequence.to_be_bytes());
    out.extend_from_slice(&header.timestamp.to_be_bytes());
    out.extend_from_slice(&header.ssrc.to_be_bytes());
    if !extensions.is_empty() {
        let short = |(id, data): &(u8, &[u8])| {
            *id <= MAX_ONE_BYTE_ID && (1..=MAX_ONE_BYTE).contains(&data.len())
        };
        let short = extensions.iter().all(short);
        let profile = if short { ONE_BYTE } else { TWO_BYTE };
        out.extend_from_slice(&profile.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        let start = out.len();
        for (id, data) in extensions {
            if short {
                out.push(id << 4 | (data.len() - 1) as u8);
            } else {
                out.extend_from_slice(&[*id, data.len() as u8]);
            }
            out.extend_from_slice(data);
        }
        let words = (out.len() - start).div_ceil(4);
        out.resize(start + 4 * words, 0);
        out[start - 2..start].copy_from_slice(&(words as u16).to_be_bytes());
    }
    for part in payload {
        out.extend_from_slice(part);
    }
}

/// Octets of a packet's header, with extensions; `None` if there are not so many.
pub fn header_len(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let mut len = 12 + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let words = packet.get(len + 2..len + 4)?;
        len += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
    }
    (first >> 6 == 2 && len <= packet.len()).then_some(len)
}

/// A packet that was read.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    pub header: Header,
    two_byte: bool,
    extensions: &'a [u8],
    /// Without padding.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a packet; `None` if its lengths contradict each other.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let (fixed, mut rest) = packet.split_first_chunk::<12>()?;
        if fixed[0] >> 6 != 2 {
            return None;
        }
        let word = |at: usize| {
            u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let header = Header {
            marker: fixed[1] & 0x80 != 0,
            payload_type: fixed[1] & 0x7f,
            sequence: word(0) as u16,
            timestamp: word(4),
            ssrc: word(8),
        };
        rest = rest.get(4 * usize::from(fixed[0] & 0x0f)..)?;
        let (mut two_byte, mut extensions) = (false, &rest[..0]);
        if fixed[0] & 0x10 != 0 {
            let (head, behind) = rest.split_first_chunk::<4>()?;
            let len = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
            let (elements, behind) = behind.split_at_checked(len)?;
            let profile = u16::from_be_bytes([head[0], head[1]]);
            two_byte = profile & 0xfff0 == TWO_BYTE;
            if two_byte || profile == ONE_BYTE {
                extensions = elements;
            }
            rest = behind;
        }
        if fixed[0] & 0x20 != 0 {
            let padding = usize::from(*rest.last()?);
            rest = rest.get(..rest.len().checked_sub(padding)?)?;
        }
        Some(Self {
            header,
            two_byte,
            extensions,
            payload: rest,
        })
    }

    /// The extension element with that number.
    pub fn extension(&self, wanted: u8) -> Option<&'a [u8]> {
        let mut rest = self.extensions;
        loop {
            let (first, behind) = rest.split_first()?;
            if *first == 0 {
                rest = behind;
                continue;
            }
            let (id, len, behind) = if self.two_byte {
                let (len, behind) = behind.split_first()?;
                (*first, usize::from(*len), behind)
            } else {
                (first >> 4, usize::from(first & 0x0f) + 1, behind)
            };
            let (data, behind) = behind.split_at_checked(len)?;
            if id == wanted {
                return Some(data);
            }
            rest = behind;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rtc_shared::marshal::{Marshal, Unmarshal};

    proptest! {
        /// What is written reads back, here and in an independent library.
        #[test]
        fn packets_read_back_here_and_elsewhere(
            marker in any::<bool>(), payload_type in 0u8..128, sequence in any::<u16>(),
            timestamp in any::<u32>(), ssrc in any::<u32>(),
            lengths in prop::collection::vec(1usize..100, 0..4), payload in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let header = Header { marker, payload_type, sequence, timestamp, ssrc };
            let data: Vec<Vec<u8>> = lengths.iter().map(|len| vec![*len as u8; *len]).collect();
            let extensions: Vec<(u8, &[u8])> = (3u8..).step_by(5).zip(data.iter().map(Vec::as_slice)).collect();
            let mut out = vec![1, 2, 3];
            write(&header, &extensions, &[&payload[..payload.len() / 2], &payload[payload.len() / 2..]], &mut out);
            let packet = Packet::parse(&out).expect("it reads");
            prop_assert_eq!(packet.header, header);
            prop_assert_eq!(packet.payload, &payload[..]);
            prop_assert_eq!(header_len(&out), Some(out.len() - payload.len()));
            let theirs = rtp::Packet::unmarshal(&mut out.as_slice()).expect("it reads elsewhere");
            prop_assert_eq!(&theirs.payload[..], &payload[..]);
            prop_assert_eq!((theirs.header.sequence_number, theirs.header.ssrc), (sequence, ssrc));
            for (id, data) in &extensions {
                prop_assert_eq!(packet.extension(*id), Some(*data));
                let said = theirs.header.get_extension(*id);
                prop_assert_eq!(said.as_deref(), Some(*data));
            }
            prop_assert_eq!(packet.extension(2), None);
        }

        /// Packets of an independent writer, with padding and sources that
        /// contributed.
        #[test]
        fn packets_of_others_are_read(
            csrcs in prop::collection::vec(any::<u32>(), 0..15), level in any::<u8>(), padding in 0u8..20,
        ) {
            let mut header = rtp::Header {
                version: 2, csrc: csrcs, padding: padding > 0, sequence_number: 77, ..rtp::Header::default()
            };
            header.set_extension(1, vec![level].into()).expect("a short one");
            let packet = rtp::Packet { header, payload: vec![9; 30].into() };
            let mut octets = packet.marshal().expect("it can be written").to_vec();
            if padding > 0 {
                octets.truncate(octets.len() - usize::from(*octets.last().expect("some")));
                octets.truncate(octets.iter().rposition(|o| *o == 9).expect("payload") + 1);
                octets.extend(vec![0; usize::from(padding) - 1]);
                octets.push(padding);
            }
            let read = Packet::parse(&octets).expect("it reads");
            prop_assert_eq!(read.header.sequence, 77);
            let levels = [level];
            prop_assert_eq!(read.extension(1), Some(&levels[..]));
            prop_assert_eq!(read.payload, &[9; 30][..]);
        }

        #[test]
        fn any_octets_are_read_without_panic(octets in prop::collection::vec(any::<u8>(), 0..60), id in any::<u8>()) {
            header_len(&octets);
            if let Some(packet) = Packet::parse(&octets) {
                packet.extension(id);
            }
        }
    }
}
