//! Conferences in virtual time: a shard, synthetic clients and a seeded network
//! in one thread. Minutes take milliseconds, and a run repeats exactly.

mod association;
mod calls;
mod channels;
mod churn;
mod client;
mod network;
mod paths;
mod receivers;
mod simulator;
mod sources;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use client::signalled::sources;
use client::{Client, ENCODINGS, Seen, Track};
use simulator::{CONFERENCE, Simulation, bridge_address};
use viaduct_bridge::command::{Command, EndpointUpdate, ForceMute};
use viaduct_bridge::id::{ChannelId, EndpointId};
use viaduct_bridge::stats::DropCause;
use viaduct_bridge::view::Subject;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
