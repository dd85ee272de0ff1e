//! One synthetic participant, without socket or clock: signalling ([`room`],
//! [`jingle`]), transport ([`transport`]), media both ways ([`media`], [`send`],
//! [`receive`], [`feedback`]) and the bridge channel ([`channel`], over a
//! WebSocket of the driver's or [`data_channel`]); [`participant`] joins them.

pub mod board;
pub mod channel;
pub mod data_channel;
pub mod feedback;
pub mod habits;
pub mod jingle;
pub mod login;
pub mod media;
pub mod participant;
pub mod receive;
pub mod room;
pub mod rtp;
pub mod send;
pub mod srtp;
pub mod transport;

use std::time::Instant;

use crate::source::tag::Kind;

/// The one clock of a run.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Send times in packets count from here.
    pub epoch: Instant,
    /// NTP time (RFC 5905 §6, 32.32 bits) of the epoch.
    pub epoch_ntp: u64,
}

impl Clock {
    /// NTP time at `now`.
    pub fn ntp(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch);
        let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
        self.epoch_ntp
            .wrapping_add(since.as_secs() << 32)
            .wrapping_add(fraction)
    }
}

/// The name of a source, as the client library makes them.
pub fn source_name(endpoint: &str, kind: Kind) -> String {
    let suffix = match kind {
        Kind::Audio => "a0",
        Kind::Camera => "v0",
        Kind::Desktop => "v1",
    };
    format!("{endpoint}-{suffix}")
}

/// The kind of a source with such a name.
pub fn kind_of_name(name: &str) -> Option<Kind> {
    match name.rsplit_once('-')?.1 {
        "a0" => Some(Kind::Audio),
        "v0" => Some(Kind::Camera),
        "v1" => Some(Kind::Desktop),
        _ => None,
    }
}
