//! Every option of the bridge: its key, unit and default.
//!
//! The file is HOCON with JVB's keys where the meaning is the same, so that an
//! existing `jvb.conf` works; ours stand under `viaduct`. Keys of JVB not read
//! here are ignored, as JVB ignores what it does not know. Defaults are those of
//! `jitsi-videobridge:jvb/src/main/resources/reference.conf` unless a comment
//! says why not.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use viaduct_signalling::config::{Config as File, Faults};
use viaduct_signalling::io::ClientSettings;
use viaduct_signalling::jid::BareJid;
use viaduct_signalling::session::Security;

use crate::candidates::{Harvest, StaticMapping};
use crate::colibri::MAX_ENDPOINTS;
use crate::lifecycle::ShutdownSettings;
use crate::peers::MAX_WORKERS;
use crate::placement::ENDPOINTS_PER_WORKER;
use crate::settings::ShardSettings;

/// Where the kept id lies, unless systemd or the file names another directory.
const STATE_DIR: &str = "/var/lib/viaduct-bridge";

/// The configuration, complete and consistent.
#[derive(Clone, Debug)]
pub struct Config {
    /// `videobridge.apis.xmpp-client.configs`; none is fine.
    pub xmpp: Vec<XmppConnection>,
    /// How often statistics are published, and how often they are sampled.
    pub presence_interval: Duration,
    pub stats_interval: Duration,
    /// Names to publish in presence; `None` publishes all.
    pub stats_filter: Option<Vec<String>>,
    pub rest: Rest,
    /// `videobridge.http-servers.{private,public}`; `None` is off.
    pub private_http: Option<(IpAddr, u16)>,
    pub public_http: Option<(IpAddr, u16)>,
    /// `videobridge.websockets`; `None` is off.
    pub websockets: Option<WebSockets>,
    /// `videobridge.sctp.enabled`: bridge channels over SCTP.
    pub data_channels: bool,
    /// `videobridge.ice.udp.port`: media of all endpoints.
    pub media_port: u16,
    pub ufrag_prefix: String,
    pub advertise_private: bool,
    pub harvest: Harvest,
    pub health: Health,
    pub region: Option<String>,
    pub release: Option<String>,
    pub initial_drain: bool,
    pub shutdown: ShutdownSettings,
    pub average_participant_stress: f64,
    /// Load at which `stress_level` is 1.
    pub load_threshold: f64,
    pub shard: ShardSettings,
    /// `viaduct.bridge.workers`: threads that carry media; as many as there are
    /// CPUs to run on, if it is not set.
    pub workers: Option<usize>,
    /// `viaduct.bridge.endpoints-per-worker`: how many endpoints of one
    /// conference a worker gets before others do.
    pub endpoints_per_worker: usize,
    /// `viaduct.bridge.steer`: whether the kernel is told whose datagrams are.
    pub steer: Steer,
    /// `viaduct.bridge.state-dir`: where the kept id lies.
    pub state_dir: StateDir,
    /// What is not wrong, but not going to be what the file says.
    pub warnings: Vec<String>,
}

/// One block of `videobridge.apis.xmpp-client.configs`.
#[derive(Clone, Debug)]
pub struct XmppConnection {
    /// Its resource is set when it is used.
    pub client: ClientSettings,
    /// `MUC_JIDS`: brewery rooms.
    pub rooms: Vec<BareJid>,
    /// `MUC_NICKNAME`, which JVB requires; without one, the kept id makes it.
    pub nickname: Option<String>,
}

/// Which parts of the private HTTP server there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// `videobridge.apis.rest.enabled`: everything under `/colibri`.
    pub colibri: bool,
    pub debug: bool,
    pub drain: bool,
    /// `videobridge.rest.shutdown.enabled`, off by default.
    pub shutdown: bool,
    pub health: bool,
    pub prometheus: bool,
    pub version: bool,
}

/// `videobridge.websockets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSockets {
    /// Part of the path, by which a proxy tells bridges apart.
    pub server_id: String,
    /// Hosts, with a port where it is not the scheme's own.
    pub domains: Vec<String>,
    /// Whether clients are to use `wss`: TLS is the proxy's affair.
    pub tls: bool,
}

impl WebSockets {
    /// The beginnings of bridge-channel URLs, one for each domain.
    pub fn urls(&self) -> Vec<String> {
        let scheme = if self.tls { "wss" } else { "ws" };
        self.domains
            .iter()
            .map(|domain| format!("{scheme}://{domain}/colibri-ws/{}/", self.server_id))
            .collect()
    }
}

/// `videobridge.health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Fail without an address that strangers can reach.
    pub require_valid_address: bool,
}

/// When the kernel is told which worker datagrams belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// If it is known to be up to it.
    Auto,
    Always,
    Never,
}

/// Where the kept id lies, and who says so: a directory that the operator named
/// must serve, while the default one may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateDir {
    Named(PathBuf),
    Default(PathBuf),
}

impl Config {
    /// Reads a file, or answers all that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        let environment = std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
        Self::read(&File::load(path)?, environment)
    }

    /// Reads a parsed file. `state_directory` is what systemd provides.
    fn read(file: &File, state_directory: Option<PathBuf>) -> Result<Self, Faults> {
        let bridge = file.section("videobridge");
        let ours = file.section("viaduct.bridge");
        let mut warnings = Vec::new();
        let stats_interval = positive(&bridge, "stats.interval", Duration::from_secs(5));
        let config = Self {
            xmpp: connections(&bridge, ours.text("nickname")),
            presence_interval: positive(
                &bridge,
                "apis.xmpp-client.presence-interval",
                stats_interval,
            ),
            stats_interval,
            stats_filter: stats_filter(&bridge),
            rest: Rest {
                colibri: bridge.boolean("apis.rest.enabled", false),
                debug: bridge.boolean("rest.debug.enabled", true),
                drain: bridge.boolean("rest.drain.enabled", true),
                shutdown: bridge.boolean("rest.shutdown.enabled", false),
                health: bridge.boolean("rest.health.enabled", true),
                prometheus: bridge.boolean("rest.prometheus.enabled", true),
                version: bridge.boolean("rest.version.enabled", true),
            },
            private_http: server(
                &bridge.section("http-servers.private"),
                Ipv4Addr::LOCALHOST,
                8080,
            ),
            public_http: server(
                &bridge.section("http-servers.public"),
                Ipv4Addr::UNSPECIFIED,
                -1,
            ),
            websockets: websockets(&bridge),
            data_channels: bridge.boolean("sctp.enabled", true),
            media_port: bridge.integer("ice.udp.port", 10_000, 1..=u16::MAX),
            ufrag_prefix: ufrag_prefix(&bridge),
            advertise_private: bridge.boolean("ice.advertise-private-candidates", true),
            harvest: harvest(
                &file.section("ice4j.harvest"),
                ours.boolean("advertise-loopback", false),
            ),
            health: Health {
                require_valid_address: bridge.boolean("health.require-valid-address", true),
            },
            region: bridge.text("relay.region"),
            release: bridge.text("version.release"),
            initial_drain: bridge.boolean("initial-drain-mode", false),
            shutdown: ShutdownSettings {
                graceful_max_duration: bridge.duration(
                    "shutdown.graceful-shutdown-max-duration",
                    Duration::from_secs(24 * 3600),
                ),
                graceful_min_participants: bridge.integer(
                    "shutdown.graceful-shutdown-min-participants",
                    0,
                    0..=usize::MAX,
                ),
                shutting_down_delay: bridge
                    .duration("shutdown.shutting-down-delay", Duration::from_secs(60)),
            },
            average_participant_stress: bridge.number(
                "load-management.average-participant-stress",
                0.01,
                0.0..=1.0,
            ),
            load_threshold: bridge.number(
                "load-management.load-measurements.cpu-usage.load-threshold",
                0.9,
                0.01..=1.0,
            ),
            shard: shard(file, &bridge),
            workers: ours.optional_integer("workers", 1..=MAX_WORKERS),
            endpoints_per_worker: ours.integer(
                "endpoints-per-worker",
                ENDPOINTS_PER_WORKER,
                1..=MAX_ENDPOINTS,
            ),
            steer: ours.choice(
                "steer",
                Steer::Auto,
                &[
                    ("auto", Steer::Auto),
                    ("always", Steer::Always),
                    ("never", Steer::Never),
                ],
            ),
            state_dir: match (ours.path("state-dir"), state_directory) {
                (Some(path), _) => StateDir::Named(path),
                (None, Some(path)) => StateDir::Default(path),
                (None, None) => StateDir::Default(STATE_DIR.into()),
            },
            warnings: Vec::new(),
        };
        if config.websockets.is_some() && config.public_http.is_none() {
            bridge.fault(
                "websockets.enabled",
                "bridge channels need the public HTTP server, which is off",
                "set videobridge.http-servers.public.port",
            );
        }
        if !config.data_channels && config.websockets.is_none() {
            warnings.push(
                "videobridge.sctp.enabled and videobridge.websockets.enabled are both false: \
                 without a bridge channel no client gets video"
                    .to_owned(),
            );
        }
        if bridge.boolean("relay.enabled", false) {
            warnings.push(
                "videobridge.relay.enabled: this release has no relays; conferences stay on one \
                 bridge"
                    .to_owned(),
            );
        }
        file.check()?;
        Ok(Self { warnings, ..config })
    }
}

/// A duration that is not zero: it paces a timer.
fn positive(section: &File, key: &str, default: Duration) -> Duration {
    let value = section.duration(key, default);
    if value.is_zero() {
        section.fault(
            key,
            "must be longer than nothing",
            "write for example 5 seconds",
        );
        return default;
    }
    value
}

fn connections(bridge: &File, nickname: Option<String>) -> Vec<XmppConnection> {
    bridge
        .sections("apis.xmpp-client.configs")
        .into_iter()
        .filter_map(|(_, section)| connection(&section.ignoring_case(), nickname.clone()))
        .collect()
}

/// One connection (`focus-bridge` §1.1); what is missing is noted.
fn connection(section: &File, nickname: Option<String>) -> Option<XmppConnection> {
    let host = section.required_text("HOSTNAME", "name the XMPP server's host");
    let username = section.required_text("USERNAME", "name the bridges' account, usually jvb");
    let password = section.required_text("PASSWORD", "give that account's password");
    let rooms = section.required_text(
        "MUC_JIDS",
        "name the brewery room, for example jvbbrewery@internal.auth.meet.example",
    );
    let rooms = rooms.and_then(|_| {
        section.parsed_list::<BareJid>(
            "MUC_JIDS",
            "a list of room addresses",
            "jvbbrewery@internal.auth.meet.example",
        )
    });
    let host = host?;
    let domain = section.text_or("DOMAIN", &host);
    let mut client = ClientSettings::new(
        host.clone(),
        section.integer("PORT", 5222, 1..=u16::MAX),
        domain,
        username?,
        password?,
    );
    client.verify_certificate = !section.boolean("DISABLE_CERTIFICATE_VERIFICATION", false);
    client.security = section.choice(
        "SECURITY_MODE",
        Security::default_for(&host),
        &[
            ("required", Security::Required),
            ("ifpossible", Security::IfPossible),
            ("disabled", Security::Disabled),
        ],
    );
    Some(XmppConnection {
        client,
        rooms: rooms?,
        nickname: section.text("MUC_NICKNAME").or(nickname),
    })
}

/// The default list is JVB's (`focus-bridge` §1.3).
fn stats_filter(bridge: &File) -> Option<Vec<String>> {
    if !bridge.boolean("apis.xmpp-client.stats-filter.enabled", false) {
        return None;
    }
    let default = || {
        [
            "average_participant_stress",
            "colibri2",
            "current_timestamp",
            "drain",
            "graceful_shutdown",
            "healthy",
            "region",
            "relay_id",
            "release",
            "shutting_down",
            "stress_level",
            "version",
        ]
        .map(str::to_owned)
        .to_vec()
    };
    let names = bridge.texts("apis.xmpp-client.stats-filter.whitelist");
    Some(names.unwrap_or_else(default))
}

/// `None` when the port is -1.
fn server(section: &File, host: Ipv4Addr, port: i32) -> Option<(IpAddr, u16)> {
    if section.has("key-store-path") || section.integer("tls-port", -1, -1..=65_535) != -1 {
        section.fault(
            if section.has("tls-port") {
                "tls-port"
            } else {
                "key-store-path"
            },
            "TLS is not served here",
            "let a reverse proxy do it and set port",
        );
    }
    let host = section.address("host").unwrap_or(IpAddr::V4(host));
    let port = section.integer("port", port, -1..=65_535);
    if port == 0 {
        section.fault("port", "0 is no port", "choose a port, or -1 for none");
    }
    u16::try_from(port).ok().map(|port| (host, port))
}

fn websockets(bridge: &File) -> Option<WebSockets> {
    let section = bridge.section("websockets");
    if !section.boolean("enabled", false) {
        return None;
    }
    let domains = section.texts("domains").unwrap_or_default();
    // The name it had before there could be several.
    let domains: Vec<String> = domains.into_iter().chain(section.text("domain")).collect();
    if domains.is_empty() {
        section.fault(
            "domains",
            "missing while WebSockets are enabled",
            "list the hosts at which clients reach /colibri-ws, for example [ \"meet.example\" ]",
        );
    }
    let server_id = section.text_or("server-id", "default-id");
    if server_id.contains(['/', '?', '#', '%']) || server_id.contains(char::is_whitespace) {
        section.fault(
            "server-id",
            "not a plain path segment",
            "use letters, digits, dots and dashes",
        );
    }
    Some(WebSockets {
        server_id,
        domains,
        tls: section.boolean("tls", false),
    })
}

fn ufrag_prefix(bridge: &File) -> String {
    let prefix = bridge.text_or("ice.ufrag-prefix", "");
    let ice_char = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    if !prefix.chars().all(ice_char) || prefix.len() > 64 {
        bridge.fault(
            "ice.ufrag-prefix",
            "not at most 64 ICE characters (RFC 8839 §5.4)",
            "use letters, digits, + and /",
        );
    }
    prefix
}

fn harvest(section: &File, loopback: bool) -> Harvest {
    let mapping = |item: &File| {
        let port = |key| item.optional_integer(key, 1..=u16::MAX);
        for key in ["local-address", "public-address"] {
            if !item.has(key) {
                item.fault(key, "missing", "give an IP address");
            }
        }
        Some(StaticMapping {
            local: item.address("local-address")?,
            local_port: port("local-port"),
            public: item.address("public-address")?,
            public_port: port("public-port"),
        })
    };
    Harvest {
        allowed_addresses: section.addresses("allowed-addresses").unwrap_or_default(),
        blocked_addresses: section.addresses("blocked-addresses").unwrap_or_default(),
        allowed_interfaces: section.texts("allowed-interfaces").unwrap_or_default(),
        blocked_interfaces: section.texts("blocked-interfaces").unwrap_or_default(),
        use_ipv6: section.boolean("use-ipv6", true),
        use_link_local: section.boolean("use-link-local-addresses", false),
        loopback,
        static_mappings: section
            .items("mapping.static-mappings")
            .iter()
            .filter_map(mapping)
            .collect(),
    }
}

fn shard(file: &File, bridge: &File) -> ShardSettings {
    let default = ShardSettings::default();
    let height = |key, default| bridge.integer(key, default, 0..=100_000);
    // Checked for what follows JVB's key; there is no estimator yet to trust.
    bridge.boolean("cc.trust-bwe", true);
    ShardSettings {
        initial_max_height: height("cc.initial-max-height-px", default.initial_max_height),
        default_max_height: height("cc.default-max-height-px", default.default_max_height),
        onstage_preferred_height: height(
            "cc.onstage-preferred-height-px",
            default.onstage_preferred_height,
        ),
        onstage_preferred_framerate: bridge.number(
            "cc.onstage-preferred-framerate",
            f64::from(default.onstage_preferred_framerate),
            0.0..=1000.0,
        ) as f32,
        allow_oversend_onstage: bridge
            .boolean("cc.allow-oversend-onstage", default.allow_oversend_onstage),
        max_oversend_bitrate: bridge
            .bandwidth("cc.max-oversend-bitrate", default.max_oversend_bitrate),
        last_n: bridge.integer("cc.jvb-last-n", default.last_n, -1..=i32::MAX),
        assumed_bandwidth_limit: bridge.optional_bandwidth("cc.assumed-bandwidth-limit"),
        recent_speakers: bridge.integer(
            "speech-activity.recent-speakers-count",
            default.recent_speakers,
            0..=1000,
        ),
        stats_filter_threshold: bridge.integer(
            "stats-filter-threshold",
            default.stats_filter_threshold,
            0..=usize::MAX,
        ),
        forwarded_silence_packets: file.integer(
            "jmt.audio.level.forwarded-silence-packets-limit",
            default.forwarded_silence_packets,
            0..=u32::MAX,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, Faults> {
        Config::read(&File::parse(text).expect("a test's HOCON"), None)
    }

    #[test]
    fn nothing_configured_is_a_bridge_on_its_own() {
        let config = read("").expect("defaults are consistent");
        assert!(config.xmpp.is_empty());
        assert_eq!(config.media_port, 10_000);
        let private = (IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
        assert_eq!(config.private_http, Some(private));
        assert_eq!(config.public_http, None);
        assert!(config.health.require_valid_address);
        assert!(!config.rest.colibri && config.rest.health);
        assert_eq!(config.presence_interval, Duration::from_secs(5));
        assert_eq!(config.state_dir, StateDir::Default(STATE_DIR.into()));
    }

    /// What Debian's package writes, with the WebSocket block of its nginx.
    #[test]
    fn a_stock_jvb_conf_is_understood() {
        let config = read(
            r#"videobridge {
                http-servers { public { port = 9090 } }
                websockets { enabled = true, domain = "meet.example:443", tls = true }
                apis.xmpp-client.configs { shard {
                    HOSTNAME = "localhost", DOMAIN = "auth.meet.example", USERNAME = "jvb",
                    PASSWORD = "secret", MUC_JIDS = "JvbBrewery@internal.auth.meet.example",
                    muc_nickname = "0c8a0b9e"
                } }
                stats.interval = 2 seconds
                ice { udp { port = 10010 } }
            }
            ice4j.harvest.mapping { aws.enabled = false, stun.addresses = [ "stun.example:443" ],
                static-mappings = [ { local-address = "10.0.0.5", public-address = "203.0.113.7" } ] }
            "#,
        )
        .expect("a stock file");
        let connection = &config.xmpp[0];
        assert_eq!(connection.client.domain, "auth.meet.example");
        assert_eq!(connection.client.security, Security::IfPossible);
        assert!(connection.client.verify_certificate);
        assert_eq!(
            connection.rooms[0].to_string(),
            "jvbbrewery@internal.auth.meet.example"
        );
        assert_eq!(connection.nickname.as_deref(), Some("0c8a0b9e"));
        assert_eq!(config.presence_interval, Duration::from_secs(2));
        assert_eq!(config.media_port, 10_010);
        assert_eq!(config.harvest.static_mappings.len(), 1);
        let websockets = config.websockets.expect("enabled");
        assert_eq!(
            websockets.urls(),
            ["wss://meet.example:443/colibri-ws/default-id/"]
        );
    }

    #[test]
    fn every_fault_is_listed_with_key_value_and_remedy() {
        let faults = read(
            r#"videobridge {
                ice.udp.port = 99999
                stats.interval = 0 seconds
                apis.xmpp-client.configs.a { HOSTNAME = "h", PASSWORD = "p", MUC_JIDS = "@" }
                websockets.enabled = true
                http-servers.private { tls-port = 8443 }
            }
            ice4j.harvest.allowed-addresses = [ "localhost" ]
            viaduct.bridge { wrokers = 2 }
            "#,
        )
        .expect_err("a file with faults");
        let text = faults.to_string();
        for key in [
            "videobridge.ice.udp.port = \"99999\"",
            "videobridge.stats.interval",
            "videobridge.apis.xmpp-client.configs.a.USERNAME: missing",
            "videobridge.apis.xmpp-client.configs.a.MUC_JIDS = \"@\"",
            "videobridge.websockets.domains: missing",
            "videobridge.websockets.enabled = \"true\": bridge channels need",
            "videobridge.http-servers.private.tls-port = \"8443\"",
            "ice4j.harvest.allowed-addresses",
            "viaduct.bridge.wrokers = \"2\": unknown key",
        ] {
            assert!(text.contains(key), "{key} in\n{text}");
        }
        assert!(text.lines().all(|line| line.contains("; ")), "{text}");
    }

    #[test]
    fn what_this_release_lacks_is_said() {
        let config = read("videobridge { relay.enabled = true }").expect("no fault");
        assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    }
}
