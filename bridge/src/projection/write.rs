//! Makes the outgoing packet from the received one and its [`Rewrite`]: one
//! copy into the send arena, in which it is then sealed.

use super::{CodecRewrite, Rewrite};
use crate::rtp::dependency_descriptor;
use crate::rtp::extension::Writer;
use crate::rtp::{PacketIndex, PayloadType, RtpPacket, Ssrc, vp8, vp9};

/// A set of header-extension ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdSet([u64; 4]);

impl IdSet {
    /// Adds an id.
    pub fn insert(&mut self, id: u8) {
        self.0[usize::from(id >> 6)] |= 1 << (id & 63);
    }

    /// Whether the id is in the set.
    pub fn contains(&self, id: u8) -> bool {
        self.0[usize::from(id >> 6)] >> (id & 63) & 1 == 1
    }
}

impl FromIterator<u8> for IdSet {
    fn from_iter<T: IntoIterator<Item = u8>>(ids: T) -> Self {
        let mut set = Self::default();
        for id in ids {
            set.insert(id);
        }
        set
    }
}

/// Which header extensions an outgoing packet has.
#[derive(Clone, Copy, Debug, Default)]
pub struct EgressExtensions {
    /// Copied as received; all others are left out.
    pub keep: IdSet,
    /// The id of the dependency descriptor: sent, rewritten, where the packet
    /// was projected by it, and left out elsewhere.
    pub dependency_descriptor: Option<u8>,
    /// Id and value of the transport-wide sequence number.
    pub transport_cc: Option<(u8, u16)>,
    /// Id and value of the absolute send time.
    pub abs_send_time: Option<(u8, u32)>,
}

/// What is different in a retransmission (RFC 4588).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtxHeader {
    pub payload_type: PayloadType,
    pub ssrc: Ssrc,
    pub index: PacketIndex,
}

/// Appends the outgoing packet to `out`, without padding and CSRCs changed.
pub fn write_packet(
    packet: &RtpPacket<'_>,
    rewrite: &Rewrite,
    extensions: &EgressExtensions,
    out: &mut Vec<u8>,
) {
    let header = RtxHeader {
        payload_type: packet.payload_type(),
        ssrc: rewrite.ssrc,
        index: rewrite.index,
    };
    write(packet, rewrite, &header, extensions, None, out);
}

/// Appends the outgoing packet to `out` as a retransmission.
pub fn write_rtx(
    packet: &RtpPacket<'_>,
    rewrite: &Rewrite,
    rtx: &RtxHeader,
    extensions: &EgressExtensions,
    out: &mut Vec<u8>,
) {
    let original = rewrite.index.sequence_number();
    write(packet, rewrite, rtx, extensions, Some(original), out);
}

fn write(
    packet: &RtpPacket<'_>,
    rewrite: &Rewrite,
    header: &RtxHeader,
    extensions: &EgressExtensions,
    original: Option<u16>,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let csrcs = packet.csrcs();
    out.push(0x80 | (csrcs.len() / 4) as u8);
    out.push(u8::from(rewrite.marker) << 7 | header.payload_type.0);
    out.extend_from_slice(&header.index.sequence_number().to_be_bytes());
    out.extend_from_slice(&rewrite.timestamp.to_be_bytes());
    out.extend_from_slice(&header.ssrc.0.to_be_bytes());
    out.extend_from_slice(csrcs);
    if write_extensions(packet, rewrite, extensions, out) {
        out[start] |= 0x10;
    }
    if let Some(original) = original {
        out.extend_from_slice(&original.to_be_bytes());
    }
    let payload = out.len();
    out.extend_from_slice(packet.payload());
    let payload = &mut out[payload..];
    match rewrite.codec {
        CodecRewrite::Vp8 {
            picture_id,
            tl0_pic_idx,
        } => vp8::patch(payload, picture_id, tl0_pic_idx),
        CodecRewrite::Vp9 {
            picture_id,
            tl0_pic_idx,
        } => vp9::patch(payload, picture_id, tl0_pic_idx),
        CodecRewrite::None | CodecRewrite::Dd(_) => {}
    }
}

fn write_extensions(
    packet: &RtpPacket<'_>,
    rewrite: &Rewrite,
    extensions: &EgressExtensions,
    out: &mut Vec<u8>,
) -> bool {
    let descriptor = match (rewrite.codec, extensions.dependency_descriptor) {
        (CodecRewrite::Dd(with), Some(id)) => packet
            .extension(id)
            .and_then(|data| dependency_descriptor::rewrite(data, &with).ok())
            .map(|rewritten| (id, rewritten)),
        _ => None,
    };
    let kept = || {
        packet.extensions().filter(|(id, _)| {
            extensions.keep.contains(*id) && extensions.dependency_descriptor != Some(*id)
        })
    };
    let two_byte = kept().any(|(id, data)| Writer::needs_two_byte(id, data.len()))
        || descriptor
            .as_ref()
            .is_some_and(|(id, d)| Writer::needs_two_byte(*id, d.as_slice().len()))
        || [
            extensions.transport_cc.map(|(id, _)| id),
            extensions.abs_send_time.map(|(id, _)| id),
        ]
        .into_iter()
        .flatten()
        .any(|id| id > 14);
    let mut writer = Writer::new(out, two_byte);
    for (id, data) in kept() {
        writer.push(id, data);
    }
    if let Some((id, descriptor)) = &descriptor {
        writer.push(*id, descriptor.as_slice());
    }
    if let Some((id, value)) = extensions.abs_send_time {
        writer.push(id, &value.to_be_bytes()[1..]);
    }
    if let Some((id, value)) = extensions.transport_cc {
        writer.push(id, &value.to_be_bytes());
    }
    writer.finish()
}
