//! The page of metrics: every line of it is of the text format, and every name
//! that dashboards of JVB may use is there.

use std::collections::{BTreeMap, BTreeSet};

use crate::http::get;
use crate::server::Test;

/// What there is in JVB, by kind (`focus-bridge` §4.4). Counters are named without
/// their suffix.
const GAUGES: &str = "
    graceful_shutdown shutting_down drain_mode healthy stress startup_time
    muc_clients_configured muc_clients_connected mucs_connected mucs_joined cpu_steal thread_count
    conferences conferences_inactive conferences_p2p conferences_with_relay largest_conference
    local_endpoints current_endpoints current_visitors active_endpoints endpoints_sending_audio
    endpoints_sending_video endpoints_relayed endpoints_oversending endpoints_recvonly
    endpoints_inactive endpoints_with_high_outgoing_loss endpoints_with_spurious_remb
    endpoints_with_suspended_sources tcc_unmatched_feedback
    incoming_bitrate outgoing_bitrate relay_incoming_bitrate relay_outgoing_bitrate
    incoming_packet_rate outgoing_packet_rate relay_incoming_packet_rate
    relay_outgoing_packet_rate incoming_loss_fraction outgoing_loss_fraction loss_fraction
    average_rtt";
const COUNTERS: &str = "
    conferences_created conferences_completed conference_seconds endpoints visitors relays
    endpoints_no_message_transport_after_delay relays_no_message_transport_after_delay
    dominant_speaker_changes endpoints_disconnected endpoints_reconnected
    ice_succeeded ice_succeeded_relayed ice_failed endpoints_ice_failed endpoints_dtls_failed
    relays_ice_failed relays_dtls_failed xmpp_disconnects
    ice_restarts_started ice_restarts_rejected ice_restarts_not_established
    ice_restarts_agent_creation_failed ice_restarts_succeeded ice_restarts_superseded
    ice_restarts_failed
    packets_received packets_sent bytes_received bytes_sent relay_packets_received
    relay_packets_sent relay_bytes_received relay_bytes_sent video_milliseconds_received
    keyframes_received layering_changes_received preemptive_keyframe_requests_sent
    preemptive_keyframe_requests_suppressed
    data_channel_messages_received data_channel_messages_sent
    colibri_web_socket_messages_received colibri_web_socket_messages_sent
    colibri_web_socket_close_normal colibri_web_socket_close_abnormal colibri_web_socket_error
    rejected_data_channels
    rtp_receiver_dropped_packets rtp_receiver_exceptions rtp_sender_dropped_packets
    rtp_sender_exceptions queue_dropped_packets queue_exceptions colibri_queue_dropped_packets
    colibri_queue_exceptions srtp_send_queue_dropped_packets srtp_send_queue_exceptions
    relay_srtp_send_queue_dropped_packets relay_srtp_send_queue_exceptions
    relay_endpoint_srtp_send_queue_dropped_packets relay_endpoint_srtp_send_queue_exceptions
    endpoint_receive_message_queue_dropped_packets endpoint_receive_message_queue_exceptions
    exporter_starts exporter_packets_sent exporter_websocket_failures
    exporter_websocket_internal_errors exporter_transcripts_received
    exporter_media_events_received exporter_sending_changes_received
    exporter_other_messages_received exporter_parse_failures exporter_info_received";
const HISTOGRAMS: &str = "
    conferences_by_size conferences_by_audio_sender conferences_by_video_sender
    tossed_packets_energy";

/// A metric with the values of all its lines.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    /// By what follows the family's name, with the labels in it.
    samples: BTreeMap<String, f64>,
    /// Of a histogram, in the order of the page.
    buckets: Vec<(f64, f64)>,
}

/// Reads the text format, and refuses what is not of it: a line of no metric, a
/// name that is none, a kind there is not, a metric in two places, a value or
/// a bucket out of order.
fn read(page: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut helped = None;
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').expect("a text");
            assert!(!text.is_empty() && !text.contains('\\'), "{line}");
            assert_eq!(helped.replace(name), None, "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a kind");
            assert!(is_name(name), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(helped.take().is_none_or(|helped| helped == name), "{line}");
            name.clone_into(&mut current);
            let family = Family {
                kind: kind.to_owned(),
                ..Family::default()
            };
            assert!(families.insert(current.clone(), family).is_none(), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            let value: f64 = value.parse().expect("a number");
            assert!(value.is_finite(), "{line}");
            let rest = name.strip_prefix(&current).expect("a line of its metric");
            let family = families.get_mut(&current).expect("a kind came first");
            let bound = rest.strip_prefix("_bucket{le=\"");
            if let Some(bound) = bound.and_then(|bound| bound.strip_suffix("\"}")) {
                let bound = bound.parse().expect("a bound");
                let ascends = |(last, count): &(f64, f64)| *last < bound && *count <= value;
                assert!(family.buckets.last().is_none_or(ascends), "{line}");
                family.buckets.push((bound, value));
            } else if family.kind == "histogram" {
                assert!(["_sum", "_count"].contains(&rest), "{line}");
            } else {
                assert!(rest.is_empty() || is_label(rest), "{line}");
            }
            assert!(value >= 0.0 || family.kind == "gauge", "{line}");
            let before = family.samples.insert(rest.to_owned(), value);
            assert_eq!(before, None, "{line}");
        }
    }
    for (name, family) in &families {
        assert!(!family.samples.is_empty(), "{name}");
        if family.kind == "histogram" {
            let count = family.samples.get("_count").copied();
            let all = family.buckets.last().expect("buckets");
            assert_eq!(Some(*all), count.map(|n| (f64::INFINITY, n)), "{name}");
            assert!(family.samples.contains_key("_sum"), "{name}");
        }
    }
    families
}

fn is_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(word) && name.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// One label with a text of plain letters: ours have no others.
fn is_label(labels: &str) -> bool {
    let label = labels.strip_prefix('{').and_then(|l| l.strip_suffix("\"}"));
    label
        .and_then(|label| label.split_once("=\""))
        .is_some_and(|(name, text)| is_name(name) && !text.contains(['"', '\\']))
}

#[test]
fn the_page_is_of_the_text_format_and_has_all_names_of_jvb() {
    let test = Test::start("metrics");
    test.create("a");
    let page = get(test.private, "/metrics");
    assert_eq!(page.status, 200);
    assert!(
        page.head
            .contains("content-type: text/plain; version=0.0.4")
    );
    let families = read(&page.body);
    let mut promised = BTreeSet::new();
    for (kind, names, suffix) in [
        ("gauge", GAUGES, ""),
        ("counter", COUNTERS, "_total"),
        ("histogram", HISTOGRAMS, ""),
    ] {
        for name in names.split_whitespace() {
            let name = format!("jitsi_jvb_{name}{suffix}");
            let family = families.get(&name).unwrap_or_else(|| panic!("no {name}"));
            assert_eq!(family.kind, kind, "{name}");
            promised.insert(name);
        }
    }
    // Under JVB's prefix is what JVB has, and nothing else.
    let jitsi = families
        .keys()
        .filter(|name| name.starts_with("jitsi_jvb_"));
    let unknown: Vec<_> = jitsi.filter(|name| !promised.contains(*name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let one = |name: &str, rest: &str| families[name].samples.get(rest).copied();
    assert_eq!(one("jitsi_jvb_conferences", ""), Some(1.0));
    assert_eq!(one("jitsi_jvb_endpoints_total", ""), Some(1.0));
    assert!(one("jitsi_jvb_thread_count", "") >= Some(2.0));
    let worker = "{worker=\"0\"}";
    assert!(one("viaduct_worker_busy_ratio", worker).is_some());
    assert!(one("viaduct_dropped_packets_total", "{cause=\"forged\"}").is_some());
    let bounds: Vec<f64> = families["viaduct_forward_delay_seconds"]
        .buckets
        .iter()
        .map(|(bound, _)| *bound)
        .collect();
    assert_eq!(bounds.first(), Some(&0.00005));
    assert_eq!(bounds[bounds.len() - 2], 1.0);
    for name in [
        "viaduct_udp_datagrams_sent_total",
        "viaduct_udp_messages_sent_total",
        "viaduct_udp_segmented_messages_sent_total",
        "viaduct_udp_segments_sent_total",
        "viaduct_udp_datagrams_handed_over_total",
    ] {
        assert_eq!(families[name].kind, "counter", "{name}");
    }
}

#[test]
fn a_page_that_is_not_of_the_format_is_refused() {
    for page in [
        "a 1\n",
        "# TYPE a gauge\nb 1\n",
        "# TYPE a gauge\na x\n",
        "# TYPE a gauge\na 1\na 2\n",
        "# TYPE a gauge\na 1\n# TYPE a gauge\na 1\n",
        "# TYPE a counter\na 1\n",
        "# TYPE a_total counter\na_total -1\n",
        "# TYPE a gauge\na{b=c} 1\n",
        "# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n",
        "# TYPE a histogram\na_bucket{le=\"1\"} 2\na_sum 1\na_count 2\n",
    ] {
        assert!(std::panic::catch_unwind(|| read(page)).is_err(), "{page}");
    }
    read("# HELP a What.\n# TYPE a gauge\na{b=\"c\"} -1\n");
}
