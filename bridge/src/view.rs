//! What an operator may see of a conference: plain data, made by its parts when
//! they are asked ([`crate::command::Command::Describe`]).
//!
//! Names and moments are as the bridge has them; times are told as how long ago
//! they were. Where jitsi-videobridge has a name for something, it is that.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

use crate::id::EndpointId;

/// Endpoints that one part describes at once; of the others it tells how many
/// there are. A shard is busy with each for some microseconds.
pub const MAX_ENDPOINTS: usize = 512;
/// Pairs of a receiver and a source that one part describes at once; beyond that
/// receivers have to be asked about one by one.
pub const MAX_PAIRS: usize = 4096;

/// What is to be described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Conference,
    Endpoint(EndpointId),
    /// Who speaks, and nothing else.
    Speakers,
}

/// One part of a conference.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// Only from the part that decides who speaks.
    pub speakers: Option<Speakers>,
    pub endpoints: BTreeMap<String, Endpoint>,
    /// How many more there are.
    pub endpoints_left_out: usize,
}

/// Who speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Speakers {
    pub dominant: Option<String>,
    /// All endpoints, who spoke last first.
    pub order: Vec<String>,
}

/// A participant, on the worker on which it is homed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Endpoint {
    pub worker: usize,
    pub visitor: bool,
    pub age_ms: u64,
    /// Since something authentic came.
    pub silent_ms: Option<u64>,
    pub ice_transport: Ice,
    pub dtls_transport: Dtls,
    pub message_transport: MessageTransport,
    pub accept_audio: bool,
    pub accept_video: bool,
    pub force_mute_audio: bool,
    pub force_mute_video: bool,
    pub rtt_ms: Option<f64>,
    /// Of what it is sent, as it reported last, 0 to 1.
    pub loss: f32,
    pub bitrate_controller: Bandwidth,
    pub receiver_video_constraints: Wishes,
    /// What it sends.
    pub sources: BTreeMap<String, Source>,
    /// What it gets of each source of others, or why it does not. `None`: too
    /// many to tell of all receivers at once.
    pub receives: Option<BTreeMap<String, Received>>,
}

/// How the peer is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ice {
    pub state: &'static str,
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
    #[serde(rename = "localUfrag")]
    pub local_ufrag: String,
    pub controlling: bool,
    /// Addresses over which something authentic came.
    pub paths: usize,
    pub remote_candidates: usize,
}

/// Who the peer is, and with what media are sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dtls {
    pub state: &'static str,
    pub is_connected: bool,
    pub srtp_profile: Option<&'static str>,
}

/// The bridge channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MessageTransport {
    /// What the client is told things on.
    pub current: Option<&'static str>,
    pub open: Vec<&'static str>,
}

/// What limits all that is sent to a receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bandwidth {
    /// Bit/s; `None` where nothing limits it.
    pub available: Option<u64>,
    pub oversending: bool,
    pub suspended: bool,
    /// What was told to it last that it gets.
    pub forwarded_sources: Vec<String>,
}

/// What a receiver asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Wishes {
    /// Whether it has asked for anything.
    pub spoken: bool,
    pub last_n: i32,
    pub on_stage_sources: Vec<String>,
    pub selected_sources: Vec<String>,
    pub default_max_height: i32,
    /// By source.
    pub max_heights: BTreeMap<String, i32>,
    pub assumed_bandwidth_bps: i64,
}

/// A source, at its sender.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Source {
    pub media_type: &'static str,
    pub video_type: Option<&'static str>,
    /// The height its sender was told that somebody wants.
    pub wanted_height: Option<i32>,
    pub encodings: Vec<Encoding>,
}

/// One encoding of a source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Encoding {
    pub ssrc: u32,
    pub rtx: Option<u32>,
    /// Since its last packet.
    pub silent_ms: Option<u64>,
    pub layers: Vec<Layer>,
}

/// One layer of an encoding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Layer {
    pub index: u16,
    pub height: i32,
    pub frame_rate: f32,
    pub bitrate: u64,
}

/// A source, at a receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Received {
    /// Why nothing is sent just now; `None` if it is, or if its sender is muted
    /// by a moderator on another worker, where alone that is known.
    pub not_sent: Option<&'static str>,
    /// Of video: the height it is limited to, -1 for unlimited.
    pub max_height: Option<i32>,
    /// Of video: the layer aimed for, as [`Layer::index`].
    pub target: Option<u16>,
    pub packets_sent: u32,
    pub octets_sent: u32,
}
