//! The statistics by JVB's names (`focus-bridge` §1.3), as `/colibri/stats` and
//! the brewery presence have them.

use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Value, json};

use super::VERSION;
use crate::io::clock;
use crate::io::control::{Bridge, read};
use crate::lifecycle::Lifecycle;

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
