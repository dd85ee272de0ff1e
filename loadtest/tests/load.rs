//! Loads on a bridge in this process, over its REST interface and loopback.

use std::net::TcpListener;
use std::sync::Arc;

use clap::Parser;
use viaduct_bridge::io::control::Bridge;
use viaduct_bridge::io::http;
use viaduct_loadtest::io::load::{Options, Target, run};
use viaduct_loadtest::load::report::Report;

#[path = "../../bridge/tests/server/start.rs"]
mod start;

/// The command line of a load.
#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

struct Server {
    bridge: Arc<Bridge>,
    target: Target,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start(name: &str) -> Self {
        let listen = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            listener.set_nonblocking(true).expect("a socket");
            let port = listener.local_addr().expect("bound").port();
            (listener, port)
        };
        let ((private, control), (public, channels)) = (listen(), listen());
        let options = format!(
            "videobridge {{ apis.rest.enabled = true, http-servers.public.port = {channels}
               websockets {{ enabled = true, server-id = here, domains = [ \"127.0.0.1:{channels}\" ], tls = false }} }}"
        );
        let (bridge, runtime) = start::start(&format!("load-{name}"), 1, &options);
        runtime.spawn(http::serve(private, http::private(Arc::clone(&bridge))));
        runtime.spawn(http::serve(public, http::public(Arc::clone(&bridge))));
        let target = format!("colibri2+http://127.0.0.1:{control}");
        Self {
            bridge,
            target: target.parse().expect("a target"),
            _runtime: runtime,
        }
    }

    fn load(&self, options: &str) -> Report {
        let words = ["load"].into_iter().chain(options.split_whitespace());
        let line = Line::try_parse_from(words).expect("a command line");
        let report = run(&self.target, &line.options).expect("a load");
        let table = report.to_table();
        assert_eq!(
            (report.forged, report.corrupt, report.foreign),
            (0, 0, 0),
            "{table}"
        );
        assert_eq!(
            (report.connected, report.failures.len()),
            (report.joined, 0),
            "{table}"
        );
        report
    }
}

/// Everybody hears and sees everybody, on both channels and in every codec, and
/// the conferences are gone behind it.
#[test]
fn all_that_is_sent_arrives() {
    let server = Server::start("all");
    for options in [
        "--shape 3x3 --channel datachannel --codec vp8",
        "--conferences 2 --shape 1to3 --channel websocket --codec av1 --profile real",
        "--shape 2of3 --channel datachannel --codec vp9 --srtp cm --open-every 1 --gro",
    ] {
        let report = server.load(&format!("{options} --seconds 1.5 --warmup 0.3"));
        let table = report.to_table();
        assert_eq!(
            (report.silent, report.lost, report.reordered),
            (0, 0, 0),
            "{table}"
        );
        // Key pictures have lower layers as well.
        assert!((0.98..=1.05).contains(&report.delivered_ratio), "{table}");
        // 30 a second of each.
        assert!((35.0..=55.0).contains(&report.frames_per_stream), "{table}");
        assert!(report.opened > 0 && report.delay_ms.count > 0, "{table}");
        assert!(
            report.layers[2] > 0.2 && !report.series.is_empty(),
            "{table}"
        );
    }
    assert_eq!(
        server
            .bridge
            .colibri(|colibri| colibri.registered().conferences),
        0
    );
}

/// What a bad network loses comes again to those who ask for it.
#[test]
fn lost_packets_come_again() {
    let server = Server::start("repair");
    let report = server.load(
        "--shape 2x2 --feedback full --loss 0.03 --seconds 2 --warmup 0.5 --codec vp8 --seed 7",
    );
    let table = report.to_table();
    assert!(report.thrown_away > 10 && report.recovered > 5, "{table}");
    let lost_for_good = report.lost as f64 / report.expected as f64;
    assert!(lost_for_good < 0.02, "{table}");
}

/// A receiver gets as many pictures at a time as it wants.
#[test]
fn receivers_get_as_many_pictures_as_they_want() {
    let server = Server::start("last-n");
    let report =
        server.load("--shape 4x4 --last-n 1 --seconds 1.5 --warmup 0.3 --codec vp8 --open-every 1");
    let table = report.to_table();
    // 45 for each of four, where all of them would be twelve times as many.
    assert!((120..=260).contains(&report.frames), "{table}");
    assert_eq!(
        (report.lost, report.silent, report.freezes),
        (0, 0, 0),
        "{table}"
    );
    assert!((0.98..=1.05).contains(&report.delivered_ratio), "{table}");
}

/// Who leaves makes room for others; who wants less gets less, newcomers too, and
/// none of it counts as lost.
#[test]
fn members_come_and_go_and_change_their_minds() {
    let server = Server::start("churn");
    let report = server.load(
        "--shape 3x3 --churn 2 --height 720,180 --seconds 3 --warmup 0.3 --codec vp8 --open-every 1",
    );
    let table = report.to_table();
    assert!(
        report.left >= 4 && report.joined == report.left + 3,
        "{table}"
    );
    // As much time for each height, and a picture of 180 lines is one packet.
    let [low, _, high] = report.layers;
    assert!(low > 0.05 && high > 0.6, "{:?} {table}", report.layers);
    assert_eq!((report.lost, report.reordered), (0, 0), "{table}");
    assert_eq!(report.silent, 0, "{table}");
    assert!((0.97..=1.05).contains(&report.delivered_ratio), "{table}");
}
