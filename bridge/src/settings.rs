//! What the operator can choose about the media plane.

/// What the operator can choose about a shard. Keys of JVB's configuration are
/// named beside each field.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// Height granted before the first `ReceiverVideoConstraints`;
    /// `videobridge.cc.initial-max-height-px`.
    pub initial_max_height: i32,
    /// Height granted by a first `ReceiverVideoConstraints` that names no
    /// default; `videobridge.cc.default-max-height-px`.
    pub default_max_height: i32,
    /// Height reached eagerly on stage; `videobridge.cc.onstage-preferred-height-px`.
    pub onstage_preferred_height: i32,
    /// Frames a second below which a layer of that height is not considered;
    /// `videobridge.cc.onstage-preferred-framerate`.
    pub onstage_preferred_framerate: f32,
    /// Whether a screen share on stage may exceed the bandwidth;
    /// `videobridge.cc.allow-oversend-onstage`.
    pub allow_oversend_onstage: bool,
    /// By how much, bit/s; `videobridge.cc.max-oversend-bitrate`.
    pub max_oversend_bitrate: u64,
    /// A limit for every receiver, -1 for none; `videobridge.cc.jvb-last-n`.
    pub last_n: i32,
    /// Upper bound of `assumedBandwidthBps`, bit/s; without it that field is
    /// ignored; `videobridge.cc.assumed-bandwidth-limit`.
    pub assumed_bandwidth_limit: Option<u64>,
    /// `videobridge.speech-activity.recent-speakers-count`.
    pub recent_speakers: usize,
    /// Conferences up to this size get all `EndpointStats`;
    /// `videobridge.stats-filter-threshold`.
    pub stats_filter_threshold: usize,
    /// Silent audio packets forwarded before the rest of a silence is dropped;
    /// `videobridge.…forwarded-silence-packets-limit`.
    pub forwarded_silence_packets: u32,
}

impl Default for ShardSettings {
    /// The defaults of `jitsi-videobridge:jvb/src/main/resources/reference.conf`.
    fn default() -> Self {
        Self {
            initial_max_height: 0,
            default_max_height: 180,
            onstage_preferred_height: 360,
            onstage_preferred_framerate: 30.0,
            allow_oversend_onstage: true,
            max_oversend_bitrate: 500_000,
            last_n: -1,
            assumed_bandwidth_limit: None,
            recent_speakers: 10,
            stats_filter_threshold: 20,
            forwarded_silence_packets: 3,
        }
    }
}
