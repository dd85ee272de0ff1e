//! H.264 payloads (RFC 6184), as far as to tell a key frame: that is one that
//! brings a sequence parameter set or a slice of an instantaneous refresh.

/// Slice of an IDR picture, and sequence parameter set (RFC 6184 §5.4, ITU-T
/// H.264 table 7-1).
const IDR: u8 = 5;
const SPS: u8 = 7;
/// Packets of several NAL units, or of a part of one (RFC 6184 table 1).
const STAP_A: u8 = 24;
const STAP_B: u8 = 25;
const FU_A: u8 = 28;
const FU_B: u8 = 29;

/// Whether a NAL unit that only key frames have begins in this payload. What
/// cannot be read has none: it may be encrypted end to end.
pub fn begins_key_frame(payload: &[u8]) -> bool {
    let Some((&first, rest)) = payload.split_first() else {
        return false;
    };
    match nal_type(first) {
        STAP_A => aggregated(rest).any(of_key_frame),
        // Behind a decoding order number.
        STAP_B => rest
            .get(2..)
            .is_some_and(|rest| aggregated(rest).any(of_key_frame)),
        FU_A | FU_B => rest
            .first()
            .is_some_and(|header| header & 0x80 != 0 && of_key_frame(*header)),
        _ => of_key_frame(first),
    }
}

fn nal_type(octet: u8) -> u8 {
    octet & 0x1f
}

fn of_key_frame(octet: u8) -> bool {
    matches!(nal_type(octet), IDR | SPS)
}

/// The first octets of the NAL units of an aggregation packet, each behind its
/// length.
fn aggregated(mut rest: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let (len, tail) = rest.split_first_chunk::<2>()?;
        let first = *tail.first()?;
        rest = tail.get(usize::from(u16::from_be_bytes(*len))..)?;
        Some(first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_frames_are_told_in_every_form_of_packet() {
        for (payload, key) in [
            (&[0x65, 1][..], true),
            (&[0x67, 1], true),
            (&[0x61, 1], false),
            (&[0x68, 1], false),
            // SPS and PPS in one packet; PPS and a slice of another picture.
            (&[0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 1], true),
            (&[0x78, 0, 2, 0x68, 1, 0, 2, 0x65, 1], true),
            (&[0x78, 0, 2, 0x68, 1, 0, 2, 0x61, 1], false),
            (&[0x79, 0, 9, 0, 2, 0x67, 1], true),
            // Fragments: only the first one begins anything.
            (&[0x7c, 0x85, 1], true),
            (&[0x7c, 0x05, 1], false),
            (&[0x7c, 0x45, 1], false),
            (&[0x7c, 0x81, 1], false),
            (&[0x7d, 0x87, 0, 1], true),
        ] {
            assert_eq!(begins_key_frame(payload), key, "{payload:x?}");
        }
    }

    #[test]
    fn what_is_cut_short_is_no_key_frame() {
        for payload in [
            &[][..],
            &[0x78],
            &[0x78, 0],
            &[0x78, 0, 2],
            // The second unit lies beyond the end.
            &[0x78, 0, 9, 0x68, 1, 0, 1, 0x67],
            &[0x79, 0],
            &[0x7c],
        ] {
            assert!(!begins_key_frame(payload), "{payload:x?}");
        }
    }
}
