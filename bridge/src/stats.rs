//! Counters and gauges of a shard: plain numbers, added up by the control plane.
//!
//! Counters only grow; the control plane derives rates from two readings.
//! Gauges are of the moment at which [`crate::command::Event::Stats`] was made.

use std::ops::{Index, IndexMut};

/// Why something that arrived, or was asked for, went no further. Every drop is
/// counted under exactly one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropCause {
    /// Not a STUN request, from an address no check has proved.
    UnknownAddress,
    /// A STUN request for a user name fragment nobody here has.
    UnknownUfrag,
    /// STUN that is malformed or fails its integrity check.
    Stun,
    /// A first octet outside the ranges of RFC 7983.
    NotDemuxed,
    /// A DTLS record refused.
    Dtls,
    /// Media before the keys for it.
    NotReady,
    /// SRTP or SRTCP whose tag does not verify.
    Forged,
    /// SRTP or SRTCP received before.
    Replayed,
    /// RTP that is malformed.
    MalformedRtp,
    /// RTCP that is malformed.
    MalformedRtcp,
    /// A payload type that was not negotiated.
    UnknownPayloadType,
    /// An SSRC that was not signalled, or not yet.
    UnknownSsrc,
    /// An SSRC that another endpoint signalled.
    ForeignSsrc,
    /// RTX whose association is unknown, or that is a bandwidth probe.
    RtxWithoutPayload,
    /// A video packet that came already, by retransmission or by itself.
    Duplicate,
    /// Too late for its place to be known.
    TooOld,
    /// Padding alone: probing by the sender.
    PaddingOnly,
    /// Audio beyond the run of silence that is forwarded.
    Silence,
    /// Media of an endpoint that a moderator muted.
    ForceMuted,
    /// Media of a visitor.
    Visitor,
    /// A payload descriptor that cannot be read.
    UnreadablePayload,
    /// More SSRCs than are kept track of for one receiver.
    TooManySsrcs,
    /// A packet with more to it than fits one datagram.
    TooLong,
    /// A resend asked for after the packet was forgotten.
    NotInCache,
    /// A resend asked for without RTX: the same SRTP index is never used twice.
    ResendWithoutRtx,
    /// A resend asked for again before the last one can have arrived.
    ResendTooSoon,
    /// A key-frame request beyond the limits of `receive::keyframe`.
    KeyframeLimit,
    /// A key-frame request for an SSRC that is not forwarded.
    KeyframeUnknownSsrc,
    /// A bridge-channel message that cannot be read, or is too large.
    ChannelMessage,
    /// A datagram of another worker's endpoint, for which its queue had no room.
    HandoverFull,
    /// A packet published for another worker, for which its queue had no room.
    PublishFull,
    /// A packet published for this worker, of a source that has gone meanwhile.
    UnwantedPublished,
    /// Word for another worker that is too far behind to be told all.
    PeerBehind,
    /// SCTP or DCEP that is malformed, beyond a bound, or was not offered.
    Sctp,
    /// A bridge-channel message to a client that takes none of those before.
    ChannelBehind,
}

impl DropCause {
    /// All causes with the names under which they are published.
    pub const ALL: [(Self, &'static str); 35] = [
        (Self::UnknownAddress, "unknown_address"),
        (Self::UnknownUfrag, "unknown_ufrag"),
        (Self::Stun, "stun"),
        (Self::NotDemuxed, "not_demuxed"),
        (Self::Dtls, "dtls"),
        (Self::NotReady, "not_ready"),
        (Self::Forged, "forged"),
        (Self::Replayed, "replayed"),
        (Self::MalformedRtp, "malformed_rtp"),
        (Self::MalformedRtcp, "malformed_rtcp"),
        (Self::UnknownPayloadType, "unknown_payload_type"),
        (Self::UnknownSsrc, "unknown_ssrc"),
        (Self::ForeignSsrc, "foreign_ssrc"),
        (Self::RtxWithoutPayload, "rtx_without_payload"),
        (Self::Duplicate, "duplicate"),
        (Self::TooOld, "too_old"),
        (Self::PaddingOnly, "padding_only"),
        (Self::Silence, "silence"),
        (Self::ForceMuted, "force_muted"),
        (Self::Visitor, "visitor"),
        (Self::UnreadablePayload, "unreadable_payload"),
        (Self::TooManySsrcs, "too_many_ssrcs"),
        (Self::TooLong, "too_long"),
        (Self::NotInCache, "not_in_cache"),
        (Self::ResendWithoutRtx, "resend_without_rtx"),
        (Self::ResendTooSoon, "resend_too_soon"),
        (Self::KeyframeLimit, "keyframe_limit"),
        (Self::KeyframeUnknownSsrc, "keyframe_unknown_ssrc"),
        (Self::ChannelMessage, "channel_message"),
        (Self::HandoverFull, "handover_full"),
        (Self::PublishFull, "publish_full"),
        (Self::UnwantedPublished, "unwanted_published"),
        (Self::PeerBehind, "peer_behind"),
        (Self::Sctp, "sctp"),
        (Self::ChannelBehind, "channel_behind"),
    ];
}

/// Drops by cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drops([u64; DropCause::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; DropCause::ALL.len()])
    }
}

impl Drops {
    /// Every cause by name with its count, in the order of [`DropCause::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        DropCause::ALL
            .iter()
            .map(|&(cause, name)| (name, self[cause]))
    }

    /// Adds another shard's counts.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

impl Index<DropCause> for Drops {
    type Output = u64;

    fn index(&self, cause: DropCause) -> &u64 {
        &self.0[cause as usize]
    }
}

impl IndexMut<DropCause> for Drops {
    fn index_mut(&mut self, cause: DropCause) -> &mut u64 {
        &mut self.0[cause as usize]
    }
}

/// What one shard has counted since its start, and its gauges of the moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardStats {
    /// What has been counted since the start.
    pub counters: Counters,
    /// What is so at this moment.
    pub gauges: Gauges,
}

impl ShardStats {
    /// Adds another shard's counters and gauges, for those of the bridge.
    pub fn add(&mut self, other: &Self) {
        let (mine, theirs) = (&mut self.counters, &other.counters);
        mine.datagrams_handed_over += theirs.datagrams_handed_over;
        mine.packets_published += theirs.packets_published;
        mine.packets_received += theirs.packets_received;
        mine.packets_sent += theirs.packets_sent;
        mine.bytes_received += theirs.bytes_received;
        mine.bytes_sent += theirs.bytes_sent;
        mine.packets_lost += theirs.packets_lost;
        mine.outgoing_lost += theirs.outgoing_lost;
        mine.outgoing_expected += theirs.outgoing_expected;
        mine.retransmissions_sent += theirs.retransmissions_sent;
        mine.retransmissions_received += theirs.retransmissions_received;
        mine.nacks_sent += theirs.nacks_sent;
        mine.nacks_received += theirs.nacks_received;
        mine.keyframe_requests_sent += theirs.keyframe_requests_sent;
        mine.keyframe_requests_received += theirs.keyframe_requests_received;
        mine.preemptive_keyframe_requests_sent += theirs.preemptive_keyframe_requests_sent;
        mine.keyframes_received += theirs.keyframes_received;
        mine.layering_changes_received += theirs.layering_changes_received;
        mine.video_stream_milliseconds_received += theirs.video_stream_milliseconds_received;
        mine.tcc_unmatched_feedback += theirs.tcc_unmatched_feedback;
        mine.ice_succeeded += theirs.ice_succeeded;
        mine.ice_failed += theirs.ice_failed;
        mine.dtls_failed += theirs.dtls_failed;
        mine.endpoints_without_channel += theirs.endpoints_without_channel;
        mine.endpoints_disconnected += theirs.endpoints_disconnected;
        mine.endpoints_reconnected += theirs.endpoints_reconnected;
        mine.dominant_speaker_changes += theirs.dominant_speaker_changes;
        mine.channel_messages_received += theirs.channel_messages_received;
        mine.channel_messages_sent += theirs.channel_messages_sent;
        mine.data_channel_messages_received += theirs.data_channel_messages_received;
        mine.data_channel_messages_sent += theirs.data_channel_messages_sent;
        mine.rejected_data_channels += theirs.rejected_data_channels;
        mine.drops.add(&theirs.drops);
        let (mine, theirs) = (&mut self.gauges, &other.gauges);
        mine.conferences += theirs.conferences;
        mine.conference_parts += theirs.conference_parts;
        mine.proved_addresses += theirs.proved_addresses;
        mine.user_fragments += theirs.user_fragments;
        mine.timers += theirs.timers;
        mine.inactive_conferences += theirs.inactive_conferences;
        mine.p2p_conferences += theirs.p2p_conferences;
        mine.largest_conference = mine.largest_conference.max(theirs.largest_conference);
        mine.by_size.add(&theirs.by_size);
        mine.by_audio_senders.add(&theirs.by_audio_senders);
        mine.by_video_senders.add(&theirs.by_video_senders);
        mine.endpoints += theirs.endpoints;
        mine.visitors += theirs.visitors;
        mine.receive_only_endpoints += theirs.receive_only_endpoints;
        mine.inactive_endpoints += theirs.inactive_endpoints;
        mine.endpoints_sending_audio += theirs.endpoints_sending_audio;
        mine.endpoints_sending_video += theirs.endpoints_sending_video;
        mine.endpoints_with_high_outgoing_loss += theirs.endpoints_with_high_outgoing_loss;
        mine.endpoints_with_suspended_sources += theirs.endpoints_with_suspended_sources;
        mine.endpoints_oversending += theirs.endpoints_oversending;
        mine.endpoints_with_spurious_remb += theirs.endpoints_with_spurious_remb;
        mine.rtt_ms_sum += theirs.rtt_ms_sum;
        mine.rtt_count += theirs.rtt_count;
    }
}

/// How many conferences have so many of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Those that have 0, 1 … up to [`Self::MOST`], and those that have more.
    counts: [u32; Self::MOST as usize + 2],
    sum: u64,
}

impl Distribution {
    /// The greatest number told apart (`jitsi-videobridge:jvb/…/VideobridgePeriodicMetrics.kt`).
    pub const MOST: u32 = 20;

    /// Counts a conference that has `number`.
    pub fn count(&mut self, number: u32) {
        self.counts[number.min(Self::MOST + 1) as usize] += 1;
        self.sum += u64::from(number);
    }

    /// Adds those of another shard.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.sum += other.sum;
    }

    /// For each number up to [`Self::MOST`] how many have at most that.
    pub fn cumulative(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let counts = self.counts.iter().scan(0, |sum, count| {
            *sum += u64::from(*count);
            Some(*sum)
        });
        (0..=Self::MOST).zip(counts)
    }

    /// How many conferences there are.
    pub fn total(&self) -> u64 {
        self.counts.iter().copied().map(u64::from).sum()
    }

    /// How many of it all conferences have.
    pub fn sum(&self) -> u64 {
        self.sum
    }
}

/// Counters since the start of the shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams of whatever kind that came to another shard, were handed over and
    /// found their endpoint.
    pub datagrams_handed_over: u64,
    /// RTP packets published for other shards, as often as for one of them.
    pub packets_published: u64,
    /// RTP packets received from and sent to endpoints.
    pub packets_received: u64,
    pub packets_sent: u64,
    /// Octets of those, as datagram payloads.
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// RTP packets that senders sent and that did not come at first.
    pub packets_lost: u64,
    /// RTP packets that receivers reported as lost, and those they should have had.
    pub outgoing_lost: u64,
    pub outgoing_expected: u64,
    /// Packets sent again on request, a part of `packets_sent`.
    pub retransmissions_sent: u64,
    /// Packets that came by retransmission.
    pub retransmissions_received: u64,
    /// Sequence numbers asked for by us and by receivers.
    pub nacks_sent: u64,
    pub nacks_received: u64,
    /// Key-frame requests (PLI and FIR).
    pub keyframe_requests_sent: u64,
    pub keyframe_requests_received: u64,
    pub preemptive_keyframe_requests_sent: u64,
    /// Key frames that arrived, each encoding and layer of a simulcast one.
    pub keyframes_received: u64,
    /// Changes of the layers a sender sends.
    pub layering_changes_received: u64,
    /// Time during which a video SSRC was being received.
    pub video_stream_milliseconds_received: u64,
    /// Transport-cc feedback about packets we have no record of.
    pub tcc_unmatched_feedback: u64,
    pub ice_succeeded: u64,
    pub ice_failed: u64,
    pub dtls_failed: u64,
    /// Endpoints without a bridge channel 30 s after DTLS.
    pub endpoints_without_channel: u64,
    /// Changes of connectivity status.
    pub endpoints_disconnected: u64,
    pub endpoints_reconnected: u64,
    pub dominant_speaker_changes: u64,
    /// Bridge-channel messages.
    pub channel_messages_received: u64,
    pub channel_messages_sent: u64,
    /// Those of them that came and went on data channels.
    pub data_channel_messages_received: u64,
    pub data_channel_messages_sent: u64,
    /// A client asked for a second one.
    pub rejected_data_channels: u64,
    /// What went no further.
    pub drops: Drops,
}

/// The state of the shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gauges {
    pub conferences: u32,
    /// Parts of conferences: as many as there are shards with endpoints of each.
    pub conference_parts: u32,
    /// Addresses whose owner is known, of this shard's endpoints or of others'.
    pub proved_addresses: u32,
    /// ICE user name fragments that checks may name.
    pub user_fragments: u32,
    /// Timers that are set, or were and have been overtaken.
    pub timers: u32,
    /// Conferences in which nobody sends.
    pub inactive_conferences: u32,
    /// Conferences of two who talk to each other directly.
    pub p2p_conferences: u32,
    pub largest_conference: u32,
    /// Conferences by how many endpoints they have, and by how many of those send.
    pub by_size: Distribution,
    pub by_audio_senders: Distribution,
    pub by_video_senders: Distribution,
    pub endpoints: u32,
    pub visitors: u32,
    /// Endpoints that send nothing, in conferences in which somebody does.
    pub receive_only_endpoints: u32,
    /// Endpoints of conferences in which nobody sends.
    pub inactive_endpoints: u32,
    pub endpoints_sending_audio: u32,
    pub endpoints_sending_video: u32,
    /// Endpoints that reported more than 10 % of loss.
    pub endpoints_with_high_outgoing_loss: u32,
    /// Endpoints for which a wanted source does not fit their bandwidth.
    pub endpoints_with_suspended_sources: u32,
    /// Endpoints that get more than their bandwidth for a source on stage.
    pub endpoints_oversending: u32,
    /// Endpoints that sent REMB though it was not agreed.
    pub endpoints_with_spurious_remb: u32,
    /// Sum of the known round-trip times, and of how many endpoints.
    pub rtt_ms_sum: f64,
    pub rtt_count: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_counts_up_to_twenty_and_what_is_beyond() {
        let mut one = Distribution::default();
        for number in [0, 2, 2, 20, 500] {
            one.count(number);
        }
        let mut both = one;
        both.add(&one);
        let cumulative: Vec<_> = both.cumulative().collect();
        assert_eq!(cumulative[..4], [(0, 2), (1, 2), (2, 6), (3, 6)]);
        assert_eq!(cumulative[19..], [(19, 6), (20, 8)]);
        assert_eq!((both.total(), both.sum()), (10, 1048));
    }
}
