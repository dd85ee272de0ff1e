//! The program from outside: command line, configuration, ports, HTTP, signals.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A directory of its own for each test, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("viaduct-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a temporary directory");
        Self(dir)
    }

    fn config(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a temporary file");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Ports that were free a moment ago.
struct Ports {
    media: u16,
    private: u16,
    public: u16,
}

impl Ports {
    fn free() -> Self {
        let tcp = || {
            let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
            socket.local_addr().expect("bound").port()
        };
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        Self {
            media: socket.local_addr().expect("bound").port(),
            private: tcp(),
            public: tcp(),
        }
    }

    fn config(&self, state: &Path) -> String {
        format!(
            "videobridge {{
               apis.rest.enabled = true
               http-servers {{ private.port = {}, public {{ host = 127.0.0.1, port = {} }} }}
               websockets {{ enabled = true, server-id = here, domains = [ \"127.0.0.1:{}\" ] }}
               ice.udp.port = {}
               health.require-valid-address = false
               relay.region = north
             }}
             ice4j.harvest.allowed-addresses = [ 127.0.0.1 ]
             viaduct.bridge.state-dir = \"{}\"",
            self.private,
            self.public,
            self.public,
            self.media,
            state.display()
        )
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_viaduct-bridge"))
}

fn run(arguments: &[&str]) -> Output {
    program()
        .args(arguments)
        .output()
        .expect("the program runs")
}

/// A bridge that is killed when the test ends, however it ends.
struct Bridge {
    child: Child,
}

impl Bridge {
    fn start(config: &Path) -> Self {
        let mut child = program()
            .args(["run", "--config"])
            .arg(config)
            .env("NO_COLOR", "1")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = child.stderr.take().expect("piped");
        let mut lines = BufReader::new(stderr).lines();
        let mut said = Vec::new();
        while !said
            .last()
            .is_some_and(|l: &String| l.contains("bridge started"))
        {
            match lines.next() {
                Some(line) => said.push(line.expect("text")),
                None => panic!("the bridge did not start: {said:#?}"),
            }
        }
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child }
    }

    fn end(mut self, signal: &str) -> (Option<i32>, Duration) {
        let asked = Instant::now();
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &id]).status();
        assert!(sent.expect("kill runs").success());
        let status = self.child.wait().expect("it ends");
        (status.code(), asked.elapsed())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body of an HTTP request.
fn http(port: u16, method: &str, path: &str, body: &str) -> (u16, String) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "port {port}: {error}"),
        }
    };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status line");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    (status, body.to_owned())
}

fn get(port: u16, path: &str) -> (u16, String) {
    http(port, "GET", path, "")
}

#[test]
fn a_bridge_without_xmpp_serves_its_operators_and_ends_on_sigterm() {
    let dir = Directory::new("program-serves");
    let ports = Ports::free();
    let config = dir.config("jvb.conf", &ports.config(&dir.0));
    let bridge = Bridge::start(&config);

    assert_eq!(get(ports.private, "/about/health"), (200, String::new()));
    let (status, version) = get(ports.private, "/about/version");
    assert_eq!(status, 200);
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");

    let (status, stats) = get(ports.private, "/colibri/stats");
    assert_eq!(status, 200);
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
    for (name, value) in [
        ("participants", serde_json::json!(0)),
        ("conferences", serde_json::json!(0)),
        ("drain", serde_json::json!(false)),
        ("healthy", serde_json::json!(true)),
        ("graceful_shutdown", serde_json::json!(false)),
        ("muc_clients_configured", serde_json::json!(0)),
        ("region", serde_json::json!("north")),
    ] {
        assert_eq!(stats[name], value, "{name}");
    }
    assert!(stats["stress_level"].is_f64(), "{stats}");
    assert_eq!(
        http(ports.private, "POST", "/colibri/drain/enable", "").0,
        200
    );
    let (_, drain) = get(ports.private, "/colibri/drain");
    assert_eq!(drain, r#"{"drain":true}"#);

    let (status, metrics) = get(ports.private, "/metrics");
    assert_eq!(status, 200);
    for line in [
        "jitsi_jvb_local_endpoints 0",
        "jitsi_jvb_drain_mode 1",
        "jitsi_jvb_conferences_created_total 0",
        "jitsi_jvb_region_info{region=\"north\"} 1",
        "viaduct_dropped_packets_total{cause=\"forged\"} 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} in\n{metrics}");
    }

    let (status, debug) = get(ports.private, "/debug");
    assert_eq!(status, 200);
    assert!(debug.contains("\"xmpp\":{}"), "{debug}");
    assert_eq!(get(ports.private, "/debug/none").0, 404);
    assert_eq!(get(ports.private, "/colibri-ws/here/1/a?pwd=x").0, 404);
    assert_eq!(get(ports.public, "/about/health").0, 404);
    assert_eq!(get(ports.public, "/colibri-ws/there/1/a?pwd=x").0, 404);
    assert_eq!(get(ports.public, "/colibri-ws/here/1/a?pwd=x").0, 403);
    assert_eq!(get(ports.public, "/colibri-ws/here/xyz/a").0, 403);

    let (code, took) = bridge.end("TERM");
    assert_eq!(code, Some(143));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_graceful_shutdown_of_an_idle_bridge_exits_0() {
    let dir = Directory::new("program-shutdown");
    let ports = Ports::free();
    let config = ports.config(&dir.0)
        + "\nvideobridge { rest.shutdown.enabled = true, shutdown.shutting-down-delay = 1 second }";
    let mut bridge = Bridge::start(&dir.config("jvb.conf", &config));
    let ask = |body: &str| http(ports.private, "POST", "/colibri/shutdown", body).0;
    assert_eq!(ask("{}"), 400);
    assert_eq!(ask(r#"{"graceful-shutdown":"true"}"#), 200);
    let (_, stats) = get(ports.private, "/colibri/stats");
    assert!(stats.contains("\"graceful_shutdown\":true"), "{stats}");
    let status = bridge.child.wait().expect("it ends");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn what_is_turned_off_is_not_found() {
    let dir = Directory::new("program-off");
    let ports = Ports::free();
    let config = ports.config(&dir.0)
        + "\nvideobridge { apis.rest.enabled = false, rest { health.enabled = false, \
           prometheus.enabled = false, version.enabled = false } }";
    let bridge = Bridge::start(&dir.config("jvb.conf", &config));
    for path in [
        "/about/health",
        "/about/version",
        "/metrics",
        "/colibri/stats",
        "/colibri/v2/conferences",
    ] {
        assert_eq!(get(ports.private, path).0, 404, "{path}");
    }
    assert_eq!(bridge.end("INT").0, Some(130));
}

#[test]
fn without_a_valid_address_the_bridge_says_it_is_not_well() {
    let dir = Directory::new("program-health");
    let ports = Ports::free();
    let config = ports.config(&dir.0) + "\nvideobridge.health.require-valid-address = true";
    let _bridge = Bridge::start(&dir.config("jvb.conf", &config));
    let why = "No valid IP addresses available for harvesting.".to_owned();
    assert_eq!(get(ports.private, "/about/health"), (500, why));
}

#[test]
fn wrong_command_lines_exit_64() {
    for arguments in [&["--port", "1"][..], &["walk"], &["run", "--config"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
    for arguments in [&["--help"][..], &["--version"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn wrong_configurations_exit_78_with_every_fault_and_bind_nothing() {
    let dir = Directory::new("program-faults");
    let ports = Ports::free();
    let faulty = ports.config(&dir.0)
        + "\nvideobridge { stats.interval = soon, health.require-valid-address = perhaps }\n\
           viaduct.bridge.statedir = x";
    let blocked = dir.config("file", "not a directory");
    let state = ports.config(&blocked.join("below"));
    for (name, text, said) in [
        (
            "faulty.conf",
            faulty.as_str(),
            &[
                "videobridge.stats.interval = \"soon\"",
                "videobridge.health.require-valid-address = \"perhaps\"",
                "viaduct.bridge.statedir",
            ][..],
        ),
        ("broken.conf", "videobridge = }", &["broken.conf"]),
        ("state.conf", &state, &["viaduct.bridge.state-dir"]),
    ] {
        let path = dir.config(name, text);
        // The port is held here: a program that tried to bind it would say so.
        let _held = UdpSocket::bind(("127.0.0.1", ports.media)).expect("a free port");
        let output = run(&["--config", path.to_str().expect("UTF-8")]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{name}: {stderr}");
        for words in said {
            assert!(stderr.contains(words), "{words} in {stderr}");
        }
        assert!(!stderr.contains("in use"), "{stderr}");
    }
    let output = run(&["--config", "/no/such/file.conf"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/file.conf"));
}

#[test]
fn a_second_bridge_on_a_port_in_use_is_refused_by_name() {
    let dir = Directory::new("program-ports");
    let ports = Ports::free();
    let config = dir.config("jvb.conf", &ports.config(&dir.0));
    let bridge = Bridge::start(&config);
    let refused = |ports: &Ports, name: &str| {
        let path = dir.config(name, &ports.config(&dir.0));
        let output = run(&["--config", path.to_str().expect("UTF-8")]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let others = || {
        let other = Ports::free();
        [
            (
                Ports {
                    media: ports.media,
                    ..Ports::free()
                },
                ports.media,
                "videobridge.ice.udp.port",
            ),
            (
                Ports {
                    private: ports.private,
                    ..other
                },
                ports.private,
                "videobridge.http-servers.private.port",
            ),
        ]
    };
    for (ports, port, key) in others() {
        let said = refused(&ports, key);
        let address = format!("127.0.0.1:{port}");
        assert!(said.contains(&address) && said.contains(key), "{said}");
    }
    assert_eq!(get(ports.private, "/about/health").0, 200);
    assert_eq!(bridge.end("TERM").0, Some(143));
}
