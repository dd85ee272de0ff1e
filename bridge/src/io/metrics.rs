//! What the bridge publishes about itself: one set of figures, written three
//! ways - brewery presence, `/colibri/stats` (both with the names of
//! `focus-bridge` §1.3) and Prometheus text (§4.4, prefix `jitsi_jvb_`).
//!
//! Names of JVB whose subject does not exist here (relays, SCTP, a Java
//! machine) are still in the statistics where tools read them, as zero.
//! Ours begin with `viaduct_`.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Value, json};

use super::clock;
use super::control::{Bridge, WorkerFigures, read};
use crate::lifecycle::Lifecycle;

/// The program's name, as `/about/version` and `jabber:iq:version` tell it.
pub const NAME: &str = "Viaduct";
/// The version announced: bridges that share conferences must agree on it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// All statistics, by JVB's names, in a fixed order.
pub fn statistics(bridge: &Bridge) -> Vec<(&'static str, Value)> {
    let shard = bridge.shard_stats();
    let (counters, gauges) = (&shard.counters, &shard.gauges);
    let (rates, life) = (bridge.rates(), bridge.lifecycle());
    let (registered, totals) = bridge.colibri(|c| (c.registered(), c.totals()));
    let kbps = |octets: f64| (octets * 8.0 / 1000.0).round() as u64;
    let rtt = gauges.rtt_ms_sum / f64::from(gauges.rtt_count.max(1));
    let active = registered
        .endpoints
        .saturating_sub(gauges.inactive_endpoints as usize);
    let mut all = vec![
        ("incoming_loss", json!(rates.incoming_loss)),
        ("outgoing_loss", json!(rates.outgoing_loss)),
        ("overall_loss", json!(rates.overall_loss)),
        (
            "endpoints_with_high_outgoing_loss",
            json!(gauges.endpoints_with_high_outgoing_loss),
        ),
        (
            "tcc_unmatched_feedback",
            json!(counters.tcc_unmatched_feedback),
        ),
        ("local_active_endpoints", json!(active)),
        ("bit_rate_download", json!(kbps(rates.bytes_received))),
        ("bit_rate_upload", json!(kbps(rates.bytes_sent))),
        (
            "packet_rate_download",
            json!(rates.packets_received.round() as u64),
        ),
        (
            "packet_rate_upload",
            json!(rates.packets_sent.round() as u64),
        ),
        ("rtt_aggregate", json!(rtt)),
        ("num_eps_oversending", json!(gauges.endpoints_oversending)),
        ("octo_conferences", json!(0)),
        ("inactive_conferences", json!(gauges.inactive_conferences)),
        ("p2p_conferences", json!(gauges.p2p_conferences)),
        ("endpoints", json!(registered.endpoints)),
        ("participants", json!(registered.endpoints)),
        ("local_endpoints", json!(registered.endpoints)),
        ("visitors", json!(registered.visitors)),
        (
            "receive_only_endpoints",
            json!(gauges.receive_only_endpoints),
        ),
        ("inactive_endpoints", json!(gauges.inactive_endpoints)),
        ("octo_endpoints", json!(0)),
        (
            "endpoints_sending_audio",
            json!(gauges.endpoints_sending_audio),
        ),
        (
            "endpoints_sending_video",
            json!(gauges.endpoints_sending_video),
        ),
        (
            "endpoints_with_suspended_sources",
            json!(gauges.endpoints_with_suspended_sources),
        ),
        (
            "endpoints_with_spurious_remb",
            json!(gauges.endpoints_with_spurious_remb),
        ),
        ("largest_conference", json!(registered.largest_conference)),
        ("conferences", json!(registered.conferences)),
        ("octo_receive_bitrate", json!(0)),
        ("octo_send_bitrate", json!(0)),
        ("octo_receive_packet_rate", json!(0)),
        ("octo_send_packet_rate", json!(0)),
        (
            "total_conferences_created",
            json!(totals.conferences_created),
        ),
        (
            "total_conferences_completed",
            json!(totals.conferences_completed),
        ),
        ("total_conference_seconds", json!(totals.conference_seconds)),
        ("total_participants", json!(totals.endpoints)),
        ("total_visitors", json!(totals.visitors)),
        ("total_relays", json!(0)),
        (
            "num_eps_no_msg_transport_after_delay",
            json!(counters.endpoints_without_channel),
        ),
        ("num_relays_no_msg_transport_after_delay", json!(0)),
        (
            "total_keyframes_received",
            json!(counters.keyframes_received),
        ),
        (
            "total_layering_changes_received",
            json!(counters.layering_changes_received),
        ),
        (
            "total_video_stream_milliseconds_received",
            json!(counters.video_stream_milliseconds_received),
        ),
        (
            "total_data_channel_messages_received",
            json!(counters.data_channel_messages_received),
        ),
        (
            "total_data_channel_messages_sent",
            json!(counters.data_channel_messages_sent),
        ),
        (
            "total_colibri_web_socket_messages_received",
            json!(read(&bridge.channels.messages_received)),
        ),
        (
            "total_colibri_web_socket_messages_sent",
            json!(read(&bridge.channels.messages_sent)),
        ),
        ("total_bytes_received", json!(counters.bytes_received)),
        ("total_bytes_sent", json!(counters.bytes_sent)),
        ("total_packets_received", json!(counters.packets_received)),
        ("total_packets_sent", json!(counters.packets_sent)),
        ("total_bytes_received_octo", json!(0)),
        ("total_bytes_sent_octo", json!(0)),
        ("total_packets_received_octo", json!(0)),
        ("total_packets_sent_octo", json!(0)),
        ("endpoints_ice_failed", json!(totals.endpoints_ice_failed)),
        ("dtls_failed_endpoints", json!(totals.endpoints_dtls_failed)),
        ("relays_ice_failed", json!(0)),
        ("dtls_failed_relays", json!(0)),
        ("total_ice_failed", json!(counters.ice_failed)),
        ("total_ice_succeeded", json!(counters.ice_succeeded)),
        ("total_ice_succeeded_relayed", json!(0)),
        (
            "total_dominant_speaker_changes",
            json!(counters.dominant_speaker_changes),
        ),
        (
            "preemptive_kfr_sent",
            json!(counters.preemptive_keyframe_requests_sent),
        ),
        ("preemptive_kfr_suppressed", json!(0)),
        (
            "endpoints_disconnected",
            json!(counters.endpoints_disconnected),
        ),
        (
            "endpoints_reconnected",
            json!(counters.endpoints_reconnected),
        ),
        ("stress_level", json!(bridge.stress())),
        (
            "average_participant_stress",
            json!(bridge.config.average_participant_stress),
        ),
        ("graceful_shutdown", json!(life != Lifecycle::Running)),
        (
            "shutting_down",
            json!(matches!(
                life,
                Lifecycle::ShuttingDown { .. } | Lifecycle::Ended
            )),
        ),
        ("drain", json!(bridge.drain.load(Relaxed))),
        ("healthy", json!(bridge.unhealthy().is_none())),
        (
            "current_timestamp",
            json!(clock::timestamp(clock::unix_ms())),
        ),
        ("version", json!(VERSION)),
        (
            "muc_clients_configured",
            json!(bridge.xmpp.clients_configured),
        ),
        (
            "muc_clients_connected",
            json!(bridge.xmpp.clients_connected.load(Relaxed)),
        ),
        ("mucs_configured", json!(bridge.xmpp.mucs_configured)),
        ("mucs_joined", json!(bridge.xmpp.mucs_joined.load(Relaxed))),
        ("viaduct_address", json!(bridge.address)),
    ];
    if let Some(region) = &bridge.config.region {
        all.push(("region", json!(region)));
    }
    if let Some(release) = &bridge.config.release {
        all.push(("release", json!(release)));
    }
    all
}

/// The statistics as presence carries them: strings, and only those of the
/// filter where one is configured.
pub fn presence_statistics(bridge: &Bridge) -> Vec<(String, String)> {
    let filter = bridge.config.stats_filter.as_ref();
    statistics(bridge)
        .into_iter()
        .filter(|(name, _)| filter.is_none_or(|names| names.iter().any(|n| n == name)))
        .map(|(name, value)| {
            let value = match value {
                Value::String(text) => text,
                other => other.to_string(),
            };
            (name.to_owned(), value)
        })
        .collect()
}

/// Statistics published as Prometheus counters and gauges: JVB's metric name,
/// the name of the statistic, and what to multiply by.
const GAUGES: &[(&str, &str, f64)] = &[
    ("graceful_shutdown", "graceful_shutdown", 1.0),
    ("shutting_down", "shutting_down", 1.0),
    ("drain_mode", "drain", 1.0),
    ("healthy", "healthy", 1.0),
    ("stress", "stress_level", 1.0),
    ("muc_clients_configured", "muc_clients_configured", 1.0),
    ("muc_clients_connected", "muc_clients_connected", 1.0),
    ("mucs_connected", "mucs_configured", 1.0),
    ("mucs_joined", "mucs_joined", 1.0),
    ("conferences", "conferences", 1.0),
    ("conferences_inactive", "inactive_conferences", 1.0),
    ("conferences_p2p", "p2p_conferences", 1.0),
    ("conferences_with_relay", "octo_conferences", 1.0),
    ("largest_conference", "largest_conference", 1.0),
    ("local_endpoints", "local_endpoints", 1.0),
    ("current_endpoints", "endpoints", 1.0),
    ("current_visitors", "visitors", 1.0),
    ("active_endpoints", "local_active_endpoints", 1.0),
    ("endpoints_sending_audio", "endpoints_sending_audio", 1.0),
    ("endpoints_sending_video", "endpoints_sending_video", 1.0),
    ("endpoints_relayed", "octo_endpoints", 1.0),
    ("endpoints_oversending", "num_eps_oversending", 1.0),
    ("endpoints_recvonly", "receive_only_endpoints", 1.0),
    ("endpoints_inactive", "inactive_endpoints", 1.0),
    (
        "endpoints_with_high_outgoing_loss",
        "endpoints_with_high_outgoing_loss",
        1.0,
    ),
    (
        "endpoints_with_spurious_remb",
        "endpoints_with_spurious_remb",
        1.0,
    ),
    (
        "endpoints_with_suspended_sources",
        "endpoints_with_suspended_sources",
        1.0,
    ),
    ("tcc_unmatched_feedback", "tcc_unmatched_feedback", 1.0),
    // The statistics count kbit/s, the metrics bit/s.
    ("incoming_bitrate", "bit_rate_download", 1000.0),
    ("outgoing_bitrate", "bit_rate_upload", 1000.0),
    ("relay_incoming_bitrate", "octo_receive_bitrate", 1.0),
    ("relay_outgoing_bitrate", "octo_send_bitrate", 1.0),
    ("incoming_packet_rate", "packet_rate_download", 1.0),
    ("outgoing_packet_rate", "packet_rate_upload", 1.0),
    (
        "relay_incoming_packet_rate",
        "octo_receive_packet_rate",
        1.0,
    ),
    ("relay_outgoing_packet_rate", "octo_send_packet_rate", 1.0),
    ("incoming_loss_fraction", "incoming_loss", 1.0),
    ("outgoing_loss_fraction", "outgoing_loss", 1.0),
    ("loss_fraction", "overall_loss", 1.0),
    ("average_rtt", "rtt_aggregate", 1.0),
];

/// As [`GAUGES`]; the metric's name gets the suffix `_total`.
const COUNTERS: &[(&str, &str)] = &[
    ("conferences_created", "total_conferences_created"),
    ("conferences_completed", "total_conferences_completed"),
    ("conference_seconds", "total_conference_seconds"),
    ("endpoints", "total_participants"),
    ("visitors", "total_visitors"),
    ("relays", "total_relays"),
    (
        "endpoints_no_message_transport_after_delay",
        "num_eps_no_msg_transport_after_delay",
    ),
    (
        "relays_no_message_transport_after_delay",
        "num_relays_no_msg_transport_after_delay",
    ),
    ("dominant_speaker_changes", "total_dominant_speaker_changes"),
    ("endpoints_disconnected", "endpoints_disconnected"),
    ("endpoints_reconnected", "endpoints_reconnected"),
    ("ice_succeeded", "total_ice_succeeded"),
    ("ice_succeeded_relayed", "total_ice_succeeded_relayed"),
    ("ice_failed", "total_ice_failed"),
    ("endpoints_ice_failed", "endpoints_ice_failed"),
    ("endpoints_dtls_failed", "dtls_failed_endpoints"),
    ("relays_ice_failed", "relays_ice_failed"),
    ("relays_dtls_failed", "dtls_failed_relays"),
    ("packets_received", "total_packets_received"),
    ("packets_sent", "total_packets_sent"),
    ("bytes_received", "total_bytes_received"),
    ("bytes_sent", "total_bytes_sent"),
    ("relay_packets_received", "total_packets_received_octo"),
    ("relay_packets_sent", "total_packets_sent_octo"),
    ("relay_bytes_received", "total_bytes_received_octo"),
    ("relay_bytes_sent", "total_bytes_sent_octo"),
    (
        "video_milliseconds_received",
        "total_video_stream_milliseconds_received",
    ),
    ("keyframes_received", "total_keyframes_received"),
    (
        "layering_changes_received",
        "total_layering_changes_received",
    ),
    ("preemptive_keyframe_requests_sent", "preemptive_kfr_sent"),
    (
        "preemptive_keyframe_requests_suppressed",
        "preemptive_kfr_suppressed",
    ),
    (
        "data_channel_messages_received",
        "total_data_channel_messages_received",
    ),
    (
        "data_channel_messages_sent",
        "total_data_channel_messages_sent",
    ),
    (
        "colibri_web_socket_messages_received",
        "total_colibri_web_socket_messages_received",
    ),
    (
        "colibri_web_socket_messages_sent",
        "total_colibri_web_socket_messages_sent",
    ),
];

/// Prometheus text format 0.0.4.
pub fn prometheus(bridge: &Bridge) -> String {
    let statistics = statistics(bridge);
    let value = |name: &str| {
        let (_, value) = statistics
            .iter()
            .find(|(n, _)| *n == name)
            .expect("the tables name statistics that exist");
        match value {
            Value::Bool(set) => f64::from(u8::from(*set)),
            other => other.as_f64().expect("the tables name numbers"),
        }
    };
    let mut text = Exposition::default();
    for (metric, statistic, factor) in GAUGES {
        text.one(
            "gauge",
            &format!("jitsi_jvb_{metric}"),
            value(statistic) * factor,
        );
    }
    for (metric, statistic) in COUNTERS {
        text.one(
            "counter",
            &format!("jitsi_jvb_{metric}_total"),
            value(statistic),
        );
    }
    let started = bridge.started_unix_ms as f64;
    text.one("gauge", "jitsi_jvb_startup_time", started);
    let channels = &bridge.channels;
    for (metric, counter) in [
        ("xmpp_disconnects", &bridge.xmpp.disconnects),
        ("colibri_web_socket_close_normal", &channels.closed_normally),
        (
            "colibri_web_socket_close_abnormal",
            &channels.closed_abnormally,
        ),
        ("colibri_web_socket_error", &channels.errors),
    ] {
        let name = format!("jitsi_jvb_{metric}_total");
        text.one("counter", &name, read(counter) as f64);
    }
    if let Some(region) = &bridge.config.region {
        text.kind("gauge", "jitsi_jvb_region_info");
        text.labelled("jitsi_jvb_region_info", "region", region, 1.0);
    }
    let (counters, sockets) = (bridge.shard_stats().counters, bridge.sockets());
    text.one(
        "counter",
        "jitsi_jvb_rejected_data_channels_total",
        counters.rejected_data_channels as f64,
    );
    for (metric, count) in [
        ("retransmissions_sent", counters.retransmissions_sent),
        (
            "retransmissions_received",
            counters.retransmissions_received,
        ),
        ("nacks_sent", counters.nacks_sent),
        ("nacks_received", counters.nacks_received),
        ("keyframe_requests_sent", counters.keyframe_requests_sent),
        (
            "keyframe_requests_received",
            counters.keyframe_requests_received,
        ),
        ("packets_lost", counters.packets_lost),
        ("udp_datagrams_handed_over", counters.datagrams_handed_over),
        ("udp_datagrams_received", sockets.received),
        ("udp_datagrams_sent", sockets.sent),
        ("udp_messages_sent", sockets.messages),
    ] {
        text.one("counter", &format!("viaduct_{metric}_total"), count as f64);
    }
    text.one("gauge", "viaduct_worker_busy_fraction", bridge.rates().busy);
    text.workers(&bridge.workers());
    let name = "viaduct_dropped_packets_total";
    text.kind("counter", name);
    let of_sockets = [
        ("send_no_room", sockets.send_no_room),
        ("send_refused", sockets.send_refused),
        ("receive_too_long", sockets.receive_too_long),
        ("receive_failed", sockets.receive_failed),
    ];
    for (cause, count) in counters.drops.iter().chain(of_sockets) {
        text.labelled(name, "cause", cause, count as f64);
    }
    text.0
}

/// Text under construction.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn kind(&mut self, kind: &str, name: &str) {
        writeln!(self.0, "# TYPE {name} {kind}").expect("a string takes all");
    }

    fn one(&mut self, kind: &str, name: &str, value: f64) {
        self.kind(kind, name);
        writeln!(self.0, "{name} {value}").expect("a string takes all");
    }

    /// What each worker does, under its number.
    fn workers(&mut self, workers: &[WorkerFigures]) {
        type Figure = fn(&WorkerFigures) -> f64;
        let figures: [(&str, &str, Figure); 10] = [
            ("gauge", "proved_addresses", |w| {
                f64::from(w.shard.gauges.proved_addresses)
            }),
            ("gauge", "timers", |w| f64::from(w.shard.gauges.timers)),
            ("gauge", "conference_parts", |w| {
                f64::from(w.shard.gauges.conference_parts)
            }),
            ("counter", "packets_published_total", |w| {
                w.shard.counters.packets_published as f64
            }),
            ("counter", "busy_seconds_total", |w| w.busy.as_secs_f64()),
            ("gauge", "endpoints", |w| {
                f64::from(w.shard.gauges.endpoints)
            }),
            ("counter", "udp_datagrams_received_total", |w| {
                w.sockets.received as f64
            }),
            ("counter", "udp_datagrams_handed_over_total", |w| {
                w.shard.counters.datagrams_handed_over as f64
            }),
            ("counter", "packets_received_total", |w| {
                w.shard.counters.packets_received as f64
            }),
            ("counter", "packets_sent_total", |w| {
                w.shard.counters.packets_sent as f64
            }),
        ];
        for (kind, metric, figure) in figures {
            let name = format!("viaduct_worker_{metric}");
            self.kind(kind, &name);
            for (number, worker) in workers.iter().enumerate() {
                self.labelled(&name, "worker", &number.to_string(), figure(worker));
            }
        }
    }

    fn labelled(&mut self, name: &str, label: &str, text: &str, value: f64) {
        let text = text
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        writeln!(self.0, "{name}{{{label}=\"{text}\"}} {value}").expect("a string takes all");
    }
}
