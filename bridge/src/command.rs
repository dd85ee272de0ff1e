//! What the control plane asks of a shard, and what a shard tells it.
//!
//! Both directions are queues of plain data. A shard never refuses a command:
//! all that can be wrong with a request is found by [`crate::colibri`] from its
//! own registry before a command is made. Commands of one conference arrive in
//! the order in which they were made.

use std::net::SocketAddr;
use std::time::Instant;

use crate::id::{ChannelId, ConferenceId, EndpointId, MemberId, SourceName};
use crate::rtp::{PayloadType, Ssrc};
use crate::view::{Part, Subject};

/// A change to the conferences of one shard.
///
/// A conference has a part on each shard on which some of its endpoints are
/// homed. Every part is told of all endpoints and sources, in the same order.
#[derive(Debug)]
pub enum Command {
    /// A conference, or another part of one, begins.
    CreateConference {
        conference: ConferenceId,
        settings: Box<ConferenceSettings>,
    },
    /// A conference, or this part of it, ends with all its endpoints.
    ExpireConference { conference: ConferenceId },
    /// An endpoint joins here. ICE starts once its remote credentials are known.
    CreateEndpoint {
        conference: ConferenceId,
        endpoint: EndpointId,
        member: MemberId,
        settings: Box<EndpointSettings>,
    },
    /// An endpoint joins elsewhere.
    RemoteJoined {
        conference: ConferenceId,
        endpoint: Box<RemoteEndpoint>,
    },
    /// All sources of an endpoint that is homed elsewhere.
    RemoteSources {
        conference: ConferenceId,
        member: MemberId,
        sources: Vec<Source>,
    },
    /// An endpoint that was homed elsewhere leaves.
    RemoteLeft {
        conference: ConferenceId,
        member: MemberId,
    },
    /// Something about an endpoint changed; `None` leaves a part as it is.
    UpdateEndpoint {
        conference: ConferenceId,
        endpoint: EndpointId,
        update: Box<EndpointUpdate>,
    },
    /// An endpoint leaves.
    ExpireEndpoint {
        conference: ConferenceId,
        endpoint: EndpointId,
    },
    /// Tell what there is to see of a conference's part here, under that number.
    Describe {
        conference: ConferenceId,
        query: u64,
        subject: Subject,
    },
    /// A WebSocket bridge channel opened. It replaces the endpoint's earlier one.
    ChannelOpened {
        conference: ConferenceId,
        endpoint: EndpointId,
        channel: ChannelId,
    },
    /// A text message arrived on a bridge channel.
    ChannelMessage {
        conference: ConferenceId,
        endpoint: EndpointId,
        channel: ChannelId,
        text: String,
    },
    /// A WebSocket bridge channel closed.
    ChannelClosed {
        conference: ConferenceId,
        endpoint: EndpointId,
        channel: ChannelId,
    },
}

/// What a part of a conference is created with.
#[derive(Clone, Debug)]
pub struct ConferenceSettings {
    /// When its first part began, from which all parts count.
    pub created: Instant,
    /// The senders of all RTCP that this bridge makes itself (sources `jvb-a0`,
    /// `jvb-v0`).
    pub audio_feedback: Ssrc,
    pub video_feedback: Ssrc,
    /// The shard whose part decides who speaks. It lasts as long as the
    /// conference.
    pub lead: usize,
    /// Who is there already, in the order in which they joined.
    pub members: Vec<RemoteEndpoint>,
}

/// An endpoint that is homed on another shard.
#[derive(Clone, Debug)]
pub struct RemoteEndpoint {
    pub member: MemberId,
    pub id: EndpointId,
    /// That shard's number.
    pub home: usize,
    pub sources: Vec<Source>,
}

/// What an endpoint is created with.
#[derive(Clone, Debug)]
pub struct EndpointSettings {
    /// Our own ICE credentials, already promised to the focus.
    pub local_ice: IceCredentials,
    /// Whether this side nominates (colibri2 `ice-controlling`).
    pub ice_controlling: bool,
    /// Tie breaker for a role conflict (RFC 8445 §7.3.1.1).
    pub ice_tie_breaker: u64,
    /// The addresses we announced, so that checks know their bases.
    pub local_candidates: Vec<Candidate>,
    /// A visitor sends nothing but key-frame requests.
    pub visitor: bool,
}

/// A change to an endpoint.
#[derive(Clone, Debug, Default)]
pub struct EndpointUpdate {
    /// Payload types and header extensions; added to those known, never removed.
    pub media: Option<Vec<Media>>,
    /// The client's side of ICE and DTLS.
    pub transport: Option<RemoteTransport>,
    /// All sources of the endpoint: replaces what was known. No SSRC is another
    /// source's in the conference.
    pub sources: Option<Vec<Source>>,
    /// lastN until the first `ReceiverVideoConstraints`; -1 is unlimited.
    pub initial_last_n: Option<i32>,
    /// Whose media is to be dropped by order of a moderator.
    pub force_mute: Option<ForceMute>,
    /// From now on the client may open a data channel for its bridge channel.
    pub data_channel: bool,
}

/// Colibri2 `force-mute`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForceMute {
    pub audio: bool,
    pub video: bool,
}

/// ICE user name fragment and password (RFC 8445 §5.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceCredentials {
    pub ufrag: String,
    pub pwd: String,
}

/// An ICE candidate over UDP, component 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub kind: CandidateKind,
    pub address: SocketAddr,
    /// The base of a server-reflexive candidate.
    pub base: Option<SocketAddr>,
    pub priority: u32,
    pub foundation: String,
}

/// Candidate types of RFC 8445 §5.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateKind {
    Host,
    ServerReflexive,
    PeerReflexive,
    Relayed,
}

/// What a peer told about its end of the transport.
#[derive(Clone, Debug)]
pub struct RemoteTransport {
    /// Absent when the update carries only candidates or a fingerprint.
    pub ice: Option<IceCredentials>,
    /// Empty keeps those known.
    pub fingerprints: Vec<Fingerprint>,
    pub candidates: Vec<Candidate>,
}

/// A certificate fingerprint (RFC 8122 §5) with the DTLS role of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Lower-case hash name, e.g. `sha-256`.
    pub hash: String,
    pub bytes: Vec<u8>,
    pub setup: Setup,
}

/// `a=setup` of RFC 4145 §4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    Active,
    Passive,
    ActPass,
}

/// Audio or video, as colibri2 and Jingle tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MediaType {
    Audio,
    Video,
}

/// What was negotiated for one media type.
#[derive(Clone, Debug)]
pub struct Media {
    pub media_type: MediaType,
    pub payload_types: Vec<Payload>,
    pub header_extensions: Vec<HeaderExtension>,
}

/// One payload type of the session.
#[derive(Clone, Debug)]
pub struct Payload {
    pub payload_type: PayloadType,
    pub codec: Codec,
    pub clock_rate: u32,
    pub feedback: Feedback,
}

/// Codecs the bridge tells apart; all others pass through unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Codec {
    Opus,
    Red,
    Vp8,
    Vp9,
    Av1,
    H264,
    /// RFC 4588, for the payload type named by `apt`.
    Rtx {
        apt: PayloadType,
    },
    Other(String),
}

/// `rtcp-fb` of a payload type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feedback {
    pub nack: bool,
    pub pli: bool,
    pub fir: bool,
    pub transport_cc: bool,
    pub remb: bool,
}

/// A header extension (RFC 8285) of the session.
#[derive(Clone, Debug)]
pub struct HeaderExtension {
    pub id: u8,
    pub uri: String,
}

/// A source: one microphone, camera or screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub name: SourceName,
    pub media_type: MediaType,
    pub video_type: VideoType,
    /// Primary SSRCs, each with its RTX partner where one is signalled.
    /// Simulcast encodings in the order of the `SIM` group: low to high.
    pub encodings: Vec<Encoding>,
}

/// One encoding of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    pub primary: Ssrc,
    pub rtx: Option<Ssrc>,
}

/// What a video source shows (`SourceVideoTypeMessage`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VideoType {
    #[default]
    Camera,
    Desktop,
    DesktopHighFps,
    None,
}

/// What a shard tells the control plane.
#[derive(Debug)]
pub enum Event {
    /// Send this text on that bridge channel.
    ChannelSend {
        conference: ConferenceId,
        endpoint: EndpointId,
        channel: ChannelId,
        text: String,
    },
    /// Close that bridge channel.
    ChannelClose {
        conference: ConferenceId,
        endpoint: EndpointId,
        channel: ChannelId,
        reason: ChannelCloseReason,
    },
    /// An endpoint has gone without a word: expire it.
    EndpointExpired {
        conference: ConferenceId,
        member: MemberId,
        reason: ExpiryReason,
    },
    /// An endpoint can send and receive media: ICE connected, DTLS done, and
    /// the SRTP profile both sides settled on.
    EndpointConnected {
        conference: ConferenceId,
        endpoint: EndpointId,
        remote: SocketAddr,
        srtp_profile: &'static str,
    },
    /// The answer to [`Command::Describe`]; empty if no part is here (any more).
    Described { query: u64, part: Box<Part> },
    /// Whose every proved address is: the number of a shard. Told by the first shard
    /// of several, in no order, when it has changed, and not more often than the
    /// kernel should learn of it.
    Homes(Vec<(SocketAddr, usize)>),
    /// The counters and gauges of this shard, once a second.
    Stats(Box<crate::stats::ShardStats>),
}

/// Why a bridge channel is closed by us; both close with code 1000 or 1001.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelCloseReason {
    /// Code 1000, "replaced": another connection took its place.
    Replaced,
    /// Code 1001, "endpoint closed".
    EndpointClosed,
}

/// Why an endpoint is taken to have gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryReason {
    IceFailed,
    DtlsFailed,
    /// Nothing arrived for the documented time.
    Inactive,
}
