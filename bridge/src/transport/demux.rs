//! What a datagram is, told from its first octets, and whom it is for.
//!
//! One port carries STUN, DTLS, SRTP and SRTCP of all endpoints. The kind is
//! told by RFC 7983 §7 and RFC 5761 §4. A STUN request names its owner by the
//! local user name fragment in USERNAME (RFC 8445 §7.2.2); all else is known by
//! the address it comes from. Nothing here is authenticated yet.

/// What a datagram carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Stun,
    Dtls,
    /// SRTP, not yet opened.
    Rtp,
    /// SRTCP, not yet opened.
    Rtcp,
}

/// The protocol of a datagram; `None` for one that nobody here speaks.
///
/// TURN channels (64 to 79) and ZRTP (16 to 19) count as such.
pub fn demux(datagram: &[u8]) -> Option<Kind> {
    match *datagram {
        [0..=3, _, ..] => Some(Kind::Stun),
        [20..=63, _, ..] => Some(Kind::Dtls),
        [128..=191, 192..=223, ..] => Some(Kind::Rtcp),
        [128..=191, _, ..] => Some(Kind::Rtp),
        _ => None,
    }
}

/// The class of a STUN message (RFC 8489 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Request,
    Indication,
    Success,
    Error,
}

/// Identifies a request and its answer (RFC 8489 §5).
pub type TransactionId = [u8; 12];

/// A STUN Binding message whose header and attribute lengths are in order.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    pub class: Class,
    pub transaction: TransactionId,
    attributes: &'a [u8],
}

const STUN_HEADER: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const USERNAME: u16 = 0x0006;

/// Why a datagram is no STUN Binding message. The peer's doing, never ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StunError {
    /// Not as long as its header says, or no multiple of four (RFC 8489 §5).
    #[error("length does not fit the datagram")]
    Length,
    /// RFC 3489 or no STUN at all.
    #[error("no magic cookie")]
    Cookie,
    /// A method other than Binding.
    #[error("not a Binding message")]
    Method,
    /// An attribute reaches beyond the message.
    #[error("attribute beyond the end")]
    Attribute,
}

impl<'a> Binding<'a> {
    /// Checks the frame of a message; no integrity, no meaning.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, StunError> {
        let (header, attributes) = datagram
            .split_at_checked(STUN_HEADER)
            .ok_or(StunError::Length)?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if length != attributes.len() || length % 4 != 0 {
            return Err(StunError::Length);
        }
        if header[4..8] != MAGIC_COOKIE {
            return Err(StunError::Cookie);
        }
        let class = match [header[0], header[1]] {
            [0x00, 0x01] => Class::Request,
            [0x00, 0x11] => Class::Indication,
            [0x01, 0x01] => Class::Success,
            [0x01, 0x11] => Class::Error,
            _ => return Err(StunError::Method),
        };
        let binding = Self {
            class,
            transaction: header[8..20].try_into().expect("12 octets"),
            attributes,
        };
        if binding.attributes().any(|a| a.is_none()) {
            return Err(StunError::Attribute);
        }
        Ok(binding)
    }

    /// The user name fragment before the colon of USERNAME: in a request, that
    /// of the receiver.
    pub fn local_ufrag(&self) -> Option<&'a str> {
        let (_, name) = self.attributes().flatten().find(|(t, _)| *t == USERNAME)?;
        let (local, _) = std::str::from_utf8(name).ok()?.split_once(':')?;
        Some(local)
    }

    /// Type and value of each attribute; ends after a `None` where one does
    /// not fit.
    fn attributes(&self) -> impl Iterator<Item = Option<(u16, &'a [u8])>> + use<'a> {
        let mut rest = self.attributes;
        std::iter::from_fn(move || {
            let (head, tail) = match rest {
                [] => return None,
                _ => rest.split_at_checked(4).unwrap_or((&[], &[])),
            };
            rest = &[];
            let &[t0, t1, l0, l1] = head else {
                return Some(None);
            };
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            // Padded to four octets; only a broken length overshoots the end,
            // as the whole message is a multiple of four.
            let Some((_, next)) = tail.split_at_checked(length.next_multiple_of(4)) else {
                return Some(None);
            };
            rest = next;
            Some(Some((u16::from_be_bytes([t0, t1]), &tail[..length])))
        })
    }
}

/// The local user name fragment a STUN request asks for: the key under which
/// its endpoint is found. `None` for everything that is no such request.
pub fn requested_ufrag(datagram: &[u8]) -> Option<&str> {
    let binding = Binding::parse(datagram).ok()?;
    (binding.class == Class::Request).then(|| binding.local_ufrag())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use Kind::{Dtls, Rtcp, Rtp, Stun};
    use proptest::prelude::*;

    /// Edges of the first-octet ranges of RFC 7983 §7; RTCP types as in RFC 5761 §4.
    #[test]
    fn demux_follows_rfc_7983() {
        for (octets, kind) in [
            ([0, 0], Some(Stun)),
            ([3, 1], Some(Stun)),
            ([4, 1], None),
            ([19, 0], None),
            ([20, 0], Some(Dtls)),
            ([63, 0], Some(Dtls)),
            ([64, 0], None),
            ([127, 0], None),
            ([128, 191], Some(Rtp)),
            ([128, 192], Some(Rtcp)),
            ([191, 223], Some(Rtcp)),
            ([191, 224], Some(Rtp)),
            ([192, 200], None),
        ] {
            assert_eq!(demux(&octets), kind, "octets {octets:?}");
        }
        assert_eq!(demux(&[]), None);
        assert_eq!(demux(&[128]), None);
    }

    /// The sample request of RFC 5769 §2.1, whose USERNAME is "evtj:h6vY".
    const REQUEST: [u8; 108] = [
        0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6,
        0x86, 0xfa, 0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x10, 0x53, 0x54, 0x55, 0x4e, 0x20, 0x74,
        0x65, 0x73, 0x74, 0x20, 0x63, 0x6c, 0x69, 0x65, 0x6e, 0x74, 0x00, 0x24, 0x00, 0x04, 0x6e,
        0x00, 0x01, 0xff, 0x80, 0x29, 0x00, 0x08, 0x93, 0x2f, 0xf9, 0xb1, 0x51, 0x26, 0x3b, 0x36,
        0x00, 0x06, 0x00, 0x09, 0x65, 0x76, 0x74, 0x6a, 0x3a, 0x68, 0x36, 0x76, 0x59, 0x20, 0x20,
        0x20, 0x00, 0x08, 0x00, 0x14, 0x9a, 0xea, 0xa7, 0x0c, 0xbf, 0xd8, 0xcb, 0x56, 0x78, 0x1e,
        0xf2, 0xb5, 0xb2, 0xd3, 0xf2, 0x49, 0xc1, 0xb5, 0x71, 0xa2, 0x80, 0x28, 0x00, 0x04, 0xe5,
        0x7a, 0x3b, 0xcf,
    ];

    #[test]
    fn a_request_names_its_owner() {
        assert_eq!(requested_ufrag(&REQUEST), Some("evtj"));
        let binding = Binding::parse(&REQUEST).expect("the sample of the RFC");
        assert_eq!(binding.class, Class::Request);
        assert_eq!(binding.transaction[..2], [0xb7, 0xe7]);
    }

    #[test]
    fn broken_frames_are_named() {
        let broken = |at: usize, value: u8| {
            let mut message = REQUEST;
            message[at] = value;
            Binding::parse(&message).map(|b| b.class)
        };
        assert_eq!(broken(3, 0x59), Err(StunError::Length));
        assert_eq!(broken(4, 0x20), Err(StunError::Cookie));
        assert_eq!(broken(1, 0x03), Err(StunError::Method));
        assert_eq!(broken(22, 0x01), Err(StunError::Attribute));
        assert_eq!(broken(1, 0x01), Ok(Class::Request));
        assert_eq!(broken(0, 0x01), Ok(Class::Success));
        assert_eq!(
            Binding::parse(&REQUEST[..19]).map(|b| b.class),
            Err(StunError::Length)
        );
        let mut response = REQUEST;
        response[0] = 1;
        assert_eq!(requested_ufrag(&response), None);
    }

    proptest! {
        #[test]
        fn no_octets_are_a_surprise(
            flips in prop::collection::vec((0usize..108, any::<u8>()), 0..6),
            cut in 0usize..=108,
        ) {
            let mut message = REQUEST;
            for (at, value) in flips {
                message[at] = value;
            }
            let _ = requested_ufrag(&message);
            let _ = requested_ufrag(&message[..cut]);
        }
    }
}
