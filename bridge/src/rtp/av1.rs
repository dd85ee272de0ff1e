//! AV1 payloads (AV1 RTP payload format §4.4), as far as to tell a key frame.
//! What else there is to know is in the dependency descriptor.

/// Whether a coded video sequence begins with this payload, that is a key
/// frame (N of the aggregation header).
pub fn begins_sequence(payload: &[u8]) -> bool {
    payload.first().is_some_and(|header| header & 0x08 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_begins_where_its_bit_is_set() {
        // One OBU element, continued in the next packet; the same later on.
        assert!(begins_sequence(&[0x58, 0x0a]));
        assert!(!begins_sequence(&[0x50, 0x32]));
        assert!(!begins_sequence(&[]));
    }
}
