//! Counters and gauges of a shard: plain numbers, added up by the control plane.

/// What one shard has counted since its start, and its gauges of the moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardStats {
    /// RTP packets received from and sent to endpoints.
    pub packets_received: u64,
    pub packets_sent: u64,
    /// Octets of those, as datagram payloads.
    pub bytes_received: u64,
    pub bytes_sent: u64,
}
