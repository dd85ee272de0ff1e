//! What the bridge publishes about itself: one set of figures, written three
//! ways - brewery presence, `/colibri/stats` (both with the names of
//! `focus-bridge` §1.3) and Prometheus text (§4.4, prefix `jitsi_jvb_`).
//!
//! Names of JVB whose subject does not exist here (relays, exporting, queues of
//! packets) are still there, as zero, so that nobody's dashboard breaks; those of
//! the Java machine are not. Ours begin with `viaduct_`.

mod exposition;
mod prometheus;
mod statistics;

pub use prometheus::prometheus;
pub use statistics::{presence_statistics, statistics};

/// The program's name, as `/about/version` and `jabber:iq:version` tell it.
pub const NAME: &str = "Viaduct";
/// The version announced: bridges that share conferences must agree on it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
