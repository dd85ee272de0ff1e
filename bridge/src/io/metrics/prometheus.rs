//! The figures as Prometheus text: tables from statistics to JVB's metrics, then
//! what JVB counts outside its statistics, then ours.

use serde_json::Value;

use super::exposition::{Exposition, Metric};
use super::statistics;
use crate::forward_delay::ForwardDelays;
use crate::io::control::{Bridge, WorkerFigures, read};
use crate::io::{host, udp};
use crate::stats::{Counters, Distribution};

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

/// Counters of JVB whose subject does not exist here. They get the suffix
/// `_total`, too.
const ABSENT: &[&str] = &[
    "colibri_queue_dropped_packets",
    "colibri_queue_exceptions",
    "endpoint_receive_message_queue_dropped_packets",
    "endpoint_receive_message_queue_exceptions",
    "exporter_info_received",
    "exporter_media_events_received",
    "exporter_other_messages_received",
    "exporter_packets_sent",
    "exporter_parse_failures",
    "exporter_sending_changes_received",
    "exporter_starts",
    "exporter_transcripts_received",
    "exporter_websocket_failures",
    "exporter_websocket_internal_errors",
    "ice_restarts_agent_creation_failed",
    "ice_restarts_failed",
    "ice_restarts_not_established",
    "ice_restarts_rejected",
    "ice_restarts_started",
    "ice_restarts_succeeded",
    "ice_restarts_superseded",
    "queue_dropped_packets",
    "queue_exceptions",
    "relay_endpoint_srtp_send_queue_dropped_packets",
    "relay_endpoint_srtp_send_queue_exceptions",
    "relay_srtp_send_queue_dropped_packets",
    "relay_srtp_send_queue_exceptions",
    "rtp_receiver_dropped_packets",
    "rtp_receiver_exceptions",
    "rtp_sender_dropped_packets",
    "rtp_sender_exceptions",
    "srtp_send_queue_dropped_packets",
    "srtp_send_queue_exceptions",
];

/// Upper bounds of JVB's histogram of the loudness of audio it left out, which
/// does not happen here.
const TOSSED_ENERGY: [u8; 17] = [
    0, 7, 15, 23, 31, 39, 47, 55, 63, 71, 79, 87, 95, 103, 111, 119, 127,
];

/// What all workers have counted together.
struct Sum {
    counters: Counters,
    sockets: udp::Counters,
    delays: ForwardDelays,
}

/// A counter of ours, without prefix and suffix: what it is, and where it stands.
type OwnCounter = (&'static str, &'static str, fn(&Sum) -> u64);
const OURS: &[OwnCounter] = &[
    (
        "retransmissions_sent",
        "RTP packets sent again on request.",
        |sum| sum.counters.retransmissions_sent,
    ),
    (
        "retransmissions_received",
        "RTP packets that came by retransmission.",
        |sum| sum.counters.retransmissions_received,
    ),
    (
        "nacks_sent",
        "Sequence numbers asked for again of senders.",
        |sum| sum.counters.nacks_sent,
    ),
    (
        "nacks_received",
        "Sequence numbers receivers asked for again.",
        |sum| sum.counters.nacks_received,
    ),
    (
        "keyframe_requests_sent",
        "Key frames asked of senders (PLI and FIR).",
        |sum| sum.counters.keyframe_requests_sent,
    ),
    (
        "keyframe_requests_received",
        "Key frames receivers asked for.",
        |sum| sum.counters.keyframe_requests_received,
    ),
    (
        "packets_lost",
        "RTP packets that senders sent and that did not come at first.",
        |sum| sum.counters.packets_lost,
    ),
    (
        "packets_published",
        "RTP packets handed to another worker that has receivers for them.",
        |sum| sum.counters.packets_published,
    ),
    (
        "udp_datagrams_received",
        "Datagrams taken from the media port, of whatever kind.",
        |sum| sum.sockets.received,
    ),
    (
        "udp_datagrams_handed_over",
        "Datagrams that came to another worker than their endpoint's.",
        |sum| sum.counters.datagrams_handed_over,
    ),
    (
        "udp_datagrams_sent",
        "Datagrams sent from the media port.",
        |sum| sum.sockets.sent,
    ),
    (
        "udp_messages_sent",
        "Messages in which they were handed to the kernel.",
        |sum| sum.sockets.messages,
    ),
    (
        "udp_segmented_messages_sent",
        "Messages of several datagrams (GSO).",
        |sum| sum.sockets.segmented_messages,
    ),
    (
        "udp_segments_sent",
        "Datagrams sent in messages of several.",
        |sum| sum.sockets.segments,
    ),
];

/// Figures of each worker: kind, name, what it is, and where it stands.
type WorkerMetric = (
    &'static str,
    &'static str,
    &'static str,
    fn(&WorkerFigures) -> f64,
);
const WORKERS: &[WorkerMetric] = &[
    (
        "gauge",
        "busy_ratio",
        "Share of the last interval in which the worker was not asleep.",
        |w| w.busy_share,
    ),
    (
        "counter",
        "busy_seconds_total",
        "Time in which the worker was not asleep.",
        |w| w.busy.as_secs_f64(),
    ),
    ("gauge", "endpoints", "Endpoints homed here.", |w| {
        f64::from(w.shard.gauges.endpoints)
    }),
    (
        "gauge",
        "conference_parts",
        "Conferences, or parts of one, here.",
        |w| f64::from(w.shard.gauges.conference_parts),
    ),
    (
        "gauge",
        "proved_addresses",
        "Peers' addresses known here, its own and other workers'.",
        |w| f64::from(w.shard.gauges.proved_addresses),
    ),
    ("gauge", "timers", "Timers set.", |w| {
        f64::from(w.shard.gauges.timers)
    }),
    (
        "counter",
        "udp_datagrams_received_total",
        "Datagrams taken from its sockets.",
        |w| w.own.sockets.received as f64,
    ),
    (
        "counter",
        "udp_datagrams_handed_over_total",
        "Datagrams that other workers handed over to it.",
        |w| w.shard.counters.datagrams_handed_over as f64,
    ),
    (
        "counter",
        "packets_received_total",
        "RTP packets of its endpoints.",
        |w| w.shard.counters.packets_received as f64,
    ),
    (
        "counter",
        "packets_sent_total",
        "RTP packets sent to its endpoints.",
        |w| w.shard.counters.packets_sent as f64,
    ),
    (
        "counter",
        "packets_published_total",
        "RTP packets it handed to other workers.",
        |w| w.shard.counters.packets_published as f64,
    ),
];

/// Prometheus text format 0.0.4.
pub fn prometheus(bridge: &Bridge) -> String {
    let mut text = Exposition::default();
    of_statistics(bridge, &mut text);
    of_jvb(bridge, &mut text);
    ours(bridge, &mut text);
    text.0
}

/// A metric of JVB's.
fn jvb(text: &mut Exposition, kind: &str, metric: &str, value: f64) {
    let suffix = if kind == "counter" { "_total" } else { "" };
    let name = &format!("jitsi_jvb_{metric}{suffix}");
    text.one(kind, Metric { name, help: "" }, value);
}

fn of_statistics(bridge: &Bridge, text: &mut Exposition) {
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
    for (metric, statistic, factor) in GAUGES {
        jvb(text, "gauge", metric, value(statistic) * factor);
    }
    for (metric, statistic) in COUNTERS {
        jvb(text, "counter", metric, value(statistic));
    }
}

fn of_jvb(bridge: &Bridge, text: &mut Exposition) {
    let shards = bridge.shard_stats();
    let channels = &bridge.channels;
    jvb(text, "gauge", "startup_time", bridge.started_unix_ms as f64);
    jvb(text, "gauge", "thread_count", host::threads() as f64);
    jvb(text, "gauge", "cpu_steal", bridge.rates().steal);
    for (metric, count) in [
        ("xmpp_disconnects", read(&bridge.xmpp.disconnects)),
        (
            "colibri_web_socket_close_normal",
            read(&channels.closed_normally),
        ),
        (
            "colibri_web_socket_close_abnormal",
            read(&channels.closed_abnormally),
        ),
        ("colibri_web_socket_error", read(&channels.errors)),
        (
            "rejected_data_channels",
            shards.counters.rejected_data_channels,
        ),
    ] {
        jvb(text, "counter", metric, count as f64);
    }
    for metric in ABSENT {
        jvb(text, "counter", metric, 0.0);
    }
    if let Some(region) = &bridge.config.region {
        let name = "jitsi_jvb_region_info";
        text.labelled("gauge", Metric { name, help: "" }, "region", [(region, 1)]);
    }
    let gauges = &shards.gauges;
    for (metric, by) in [
        ("conferences_by_size", &gauges.by_size),
        ("conferences_by_audio_sender", &gauges.by_audio_senders),
        ("conferences_by_video_sender", &gauges.by_video_senders),
    ] {
        distribution(text, metric, by);
    }
    let name = "jitsi_jvb_tossed_packets_energy";
    let none = TOSSED_ENERGY.map(|bound| (bound, 0));
    text.histogram(Metric { name, help: "" }, none, (0, 0.0));
}

fn distribution(text: &mut Exposition, metric: &str, by: &Distribution) {
    let name = &format!("jitsi_jvb_{metric}");
    let total = (by.total(), by.sum() as f64);
    text.histogram(Metric { name, help: "" }, by.cumulative(), total);
}

fn ours(bridge: &Bridge, text: &mut Exposition) {
    let workers = bridge.workers();
    let mut sum = Sum {
        counters: bridge.shard_stats().counters,
        sockets: udp::Counters::default(),
        delays: ForwardDelays::default(),
    };
    for worker in &workers {
        sum.sockets.add(&worker.own.sockets);
        sum.delays.add(&worker.own.forward_delays);
    }
    for (metric, help, count) in OURS {
        let name = &format!("viaduct_{metric}_total");
        text.one("counter", Metric { name, help }, count(&sum));
    }
    let delay = Metric {
        name: "viaduct_forward_delay_seconds",
        help: "From taking a datagram to handing each copy of it to the kernel.",
    };
    let buckets = sum.delays.cumulative();
    let buckets = buckets.map(|(us, count)| (f64::from(us) / 1e6, count));
    let total = (sum.delays.count(), sum.delays.sum().as_secs_f64());
    text.histogram(delay, buckets, total);
    for (kind, metric, help, figure) in WORKERS {
        let name = &format!("viaduct_worker_{metric}");
        let values = workers.iter().map(figure).enumerate();
        text.labelled(kind, Metric { name, help }, "worker", values);
    }
    let dropped = Metric {
        name: "viaduct_dropped_packets_total",
        help: "What arrived or was asked for and went no further, by cause.",
    };
    let of_sockets = [
        ("send_no_room", sum.sockets.send_no_room),
        ("send_refused", sum.sockets.send_refused),
        ("receive_too_long", sum.sockets.receive_too_long),
        ("receive_failed", sum.sockets.receive_failed),
    ];
    let causes = sum.counters.drops.iter().chain(of_sockets);
    text.labelled("counter", dropped, "cause", causes);
}
