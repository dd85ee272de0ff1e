//! Counters, and the names they are published under (focus-bridge §5.2, 5.3).

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What has been counted since the start.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    pub conferences_created: u64,
    /// Of conferences that have ended.
    pub conference_seconds: u64,
    pub participants: u64,
    pub conference_requests: u64,
    pub conference_requests_new: u64,
    pub xmpp_disconnects: u64,
    /// Participants invited again because their bridge failed.
    pub participants_moved: u64,
    /// Times a conference left a bridge that failed it.
    pub bridges_removed: u64,
    pub ice_failed: u64,
    pub restart_requested: u64,
    /// Stanzas that could not be read, and requests refused as malformed.
    pub bad_stanzas: u64,
    pub jingle_received: BTreeMap<String, u64>,
    pub jingle_sent: BTreeMap<String, u64>,
}

impl Counters {
    pub fn sent(&mut self, action: &str) {
        *self.jingle_sent.entry(action.to_owned()).or_default() += 1;
    }

    /// Actions nobody here knows are one entry: the name is the client's.
    pub fn received(&mut self, action: &str, known: bool) {
        let action = if known { action } else { "other" };
        *self.jingle_received.entry(action.to_owned()).or_default() += 1;
    }
}

/// What is true now.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    pub connected: bool,
    pub brewery_joined: bool,
    /// Members of each conference.
    pub sizes: Vec<usize>,
    pub bridges: usize,
    pub bridges_operational: usize,
    pub bridges_in_shutdown: usize,
    pub bridge_versions: usize,
    pub lost_bridges: u64,
    /// By nickname: participants placed on it.
    pub bridge_endpoints: Vec<(String, usize)>,
}

/// Kind of a published figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    Counter,
}

/// A published figure: name without `jitsi_jicofo_`, kind, label, value.
pub type Figure = (String, Kind, Option<(&'static str, String)>, f64);

/// Everything at once, for `/stats` and `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    pub counters: Counters,
    pub gauges: Gauges,
}

/// Buckets of `conference_sizes`: the last holds all larger ones (jicofo's 22).
const SIZES: usize = 22;

impl Statistics {
    pub fn healthy(&self) -> bool {
        self.gauges.connected && self.gauges.brewery_joined
    }

    fn participants(&self) -> usize {
        self.gauges.sizes.iter().sum()
    }

    fn pairs(&self) -> usize {
        self.gauges
            .sizes
            .iter()
            .map(|n| n * n.saturating_sub(1))
            .sum()
    }

    /// The JSON of `/stats`.
    pub fn json(&self, version: &str) -> Value {
        let (c, g) = (&self.counters, &self.gauges);
        let mut sizes = vec![0u64; SIZES];
        for size in &g.sizes {
            sizes[(*size).min(SIZES - 1)] += 1;
        }
        json!({
            "total_participants": c.participants,
            "total_conferences_created": c.conferences_created,
            "conferences": g.sizes.len(),
            "conferences_with_visitors": 0,
            "participants": self.participants(),
            "visitors": 0,
            "largest_conference": g.sizes.iter().max().copied().unwrap_or(0),
            "conference_sizes": sizes,
            "endpoint_pairs": self.pairs(),
            "bridge_failures": {
                "participants_moved": c.participants_moved,
                "bridges_removed": c.bridges_removed,
            },
            "participant_notifications": {
                "ice_failed": c.ice_failed,
                "request_restart": c.restart_requested,
            },
            "bridge_selector": {
                "bridge_count": g.bridges,
                "operational_bridge_count": g.bridges_operational,
                "in_shutdown_bridge_count": g.bridges_in_shutdown,
                "lost_bridges": g.lost_bridges,
                "bridge_version_count": g.bridge_versions,
            },
            "jingle": { "sent": c.jingle_sent, "received": c.jingle_received },
            "version": version,
            "healthy": self.healthy(),
        })
    }

    /// The figures of `/metrics`.
    pub fn figures(&self) -> Vec<Figure> {
        let (c, g) = (&self.counters, &self.gauges);
        let gauge = |name: &str, value: usize| (name.to_owned(), Kind::Gauge, None, value as f64);
        let counter = |name: &str, value: u64| (name.to_owned(), Kind::Counter, None, value as f64);
        let mut figures = vec![
            gauge("bridge_selector_bridge_count", g.bridges),
            gauge(
                "bridge_selector_bridge_count_operational",
                g.bridges_operational,
            ),
            gauge(
                "bridge_selector_bridge_count_in_shutdown",
                g.bridges_in_shutdown,
            ),
            gauge("bridge_selector_bridge_version_count", g.bridge_versions),
            counter("bridge_selector_lost_bridges", g.lost_bridges),
            counter("bridges_removed", c.bridges_removed),
            counter("participants_moved", c.participants_moved),
            gauge("conferences", g.sizes.len()),
            gauge(
                "largest_conference",
                g.sizes.iter().max().copied().unwrap_or(0),
            ),
            gauge("participants_current", self.participants()),
            gauge("participants_pairs", self.pairs()),
            counter("conferences_created", c.conferences_created),
            counter("conferences_seconds", c.conference_seconds),
            counter("participants", c.participants),
            counter("participants_ice_failed", c.ice_failed),
            counter("participants_restart_requested", c.restart_requested),
            counter("conference_requests", c.conference_requests),
            counter("conference_requests_new", c.conference_requests_new),
            counter("xmpp_disconnects", c.xmpp_disconnects),
            counter("bad_stanzas", c.bad_stanzas),
            gauge("healthy", usize::from(self.healthy())),
        ];
        for (actions, direction) in [(&c.jingle_received, "received"), (&c.jingle_sent, "sent")] {
            for (action, count) in actions {
                let name = format!("jingle_{}_{direction}", action.replace('-', "_"));
                figures.push(counter(&name, *count));
            }
        }
        for (bridge, endpoints) in &g.bridge_endpoints {
            figures.push((
                "bridge_endpoints".to_owned(),
                Kind::Gauge,
                Some(("jvb", bridge.clone())),
                *endpoints as f64,
            ));
        }
        figures
    }
}
