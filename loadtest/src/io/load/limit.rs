//! The roofline of the load that was run: the same fan-out, size and rates.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::super::roofline::{self, Send};
use crate::load::report::{Limit, Report, per};

/// Seconds of each run under the load's pace, and forwarded packets of each run
/// without one.
const PACED_SECONDS: f64 = 2.0;
const UNPACED_PACKETS: u64 = 400_000;
const RUNS: usize = 3;
/// Sizes that the roofline can do.
const SIZES: std::ops::RangeInclusive<f64> = 64.0..=1472.0;

/// The way that packets take: the server's address, the members', and the latter's
/// network namespace.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) server: Ipv4Addr,
    pub(super) members: Ipv4Addr,
    pub(super) netns: Option<String>,
}

impl Default for Way {
    fn default() -> Self {
        Self {
            server: Ipv4Addr::LOCALHOST,
            members: Ipv4Addr::LOCALHOST,
            netns: None,
        }
    }
}

/// Measures the roofline for a report, on `core`, with its peers on `peer_core`.
pub(super) fn measure(report: &Report, way: &Way, core: usize, peer_core: usize) -> Result<Limit> {
    let fanout = report.asked.shape().fanout().max(1) as usize;
    let pace = report.sent_per_second.round() as u64;
    let forwarded = per(report.expected as f64, report.seconds);
    let size = report
        .mean_octets
        .clamp(*SIZES.start(), *SIZES.end())
        .round() as usize;
    let keep = per(forwarded, report.sent_per_second * fanout as f64).clamp(0.01, 1.0);
    let options = roofline::Options {
        fanout,
        packets: (report.sent_per_second * fanout as f64 * PACED_SECONDS) as u64,
        send: Send::Mmsg,
        size,
        runs: RUNS,
        core,
        peer_core,
        pace,
        keep,
        fwd_ip: way.server,
        peer_ip: way.members,
        netns: way.netns.clone(),
        ..roofline::Options::default()
    };
    let paced = roofline::measure(&options).context("the roofline")?;
    let unpaced = roofline::Options {
        packets: UNPACED_PACKETS.max(options.burst as u64 * fanout as u64),
        pace: 0,
        ..options
    };
    let unpaced = roofline::measure(&unpaced).context("the roofline")?;
    Ok(Limit {
        paced_us: paced.ns_per_fwd / 1000.0,
        unpaced_us: unpaced.ns_per_fwd / 1000.0,
        ratio: None,
        fanout,
        size,
        pace,
        keep,
    })
}
