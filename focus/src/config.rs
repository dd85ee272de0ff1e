//! Every option of the focus: jicofo's keys where the meaning is the same
//! (focus-bridge §7.4), ours under `viaduct.focus`.
//!
//! All faults are found before anything is bound or connected. What this version
//! cannot do and must not pretend to do (authentication) is a fault; what it does
//! otherwise than jicofo without harm is said in the log.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use viaduct_signalling::config::{Config as File, Faults};
use viaduct_signalling::io::{ClientSettings, ComponentSettings};
use viaduct_signalling::jid::BareJid;
use viaduct_signalling::session::Security;

use crate::bridges::select::Strategy;
use crate::bridges::{health, registry, select};
use crate::conference::sources::Limits;
use crate::context::{ConferenceSettings, Settings};
use crate::jingle::codec::{Codecs, Extension, Opus, VideoCodec};
use crate::outbox::Link;

/// All that the file says.
#[derive(Clone, Debug)]
pub struct Config {
    pub focus: Settings,
    pub client: ClientSettings,
    /// A server of its own for bridges.
    pub service: Option<ClientSettings>,
    /// A component that answers conference requests.
    pub component: Option<ComponentSettings>,
    pub http: Http,
}

/// `jicofo.rest`, `jicofo.health`.
#[derive(Clone, Debug)]
pub struct Http {
    /// `None`: no HTTP at all.
    pub listen: Option<SocketAddr>,
    pub health: bool,
    pub metrics: bool,
    pub conference_request: bool,
    pub debug: bool,
    /// Origins whose pages may ask for a conference; `*` is any.
    pub origins: Vec<String>,
}

impl Config {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        Self::read(&File::load(path)?)
    }

    /// Reads a text.
    pub fn parse(text: &str) -> Result<Self, Faults> {
        Self::read(&File::parse(text)?)
    }

    fn read(file: &File) -> Result<Self, Faults> {
        let jicofo = file.section("jicofo");
        let ours = file.section("viaduct.focus");
        let client = xmpp_client(&jicofo.section("xmpp.client"), &ours, 5222);
        let section = jicofo.section("xmpp.service");
        let service = section
            .boolean("enabled", false)
            .then(|| xmpp_client(&section, &ours, 6222))
            .flatten();
        let component = component(&ours.section("component"), &jicofo);
        let http = http(&jicofo, &ours);
        let focus = settings(&jicofo, &ours, service.is_some());
        refuse_what_is_missing(&jicofo);
        file.check()?;
        let (Some(client), Some(focus)) = (client, focus) else {
            // Each of these has noted its fault.
            return file.check().and_then(|()| Err(Faults(Vec::new())));
        };
        Ok(Self {
            focus,
            client,
            service,
            component,
            http,
        })
    }
}

fn xmpp_client(section: &File, ours: &File, port: u16) -> Option<ClientSettings> {
    let host = section.text_or("hostname", "localhost");
    let port = section.integer("port", port, 1..=u16::MAX);
    let domain = section.required_text(
        "domain",
        "name the domain of the account, as auth.meet.example",
    );
    let username = section.text_or("username", "focus");
    let password = section.required_text("password", "give the account's password");
    let mut client = ClientSettings::new(host.clone(), port, domain?, username.clone(), password?);
    client.resource = Some(section.text_or("resource", &username));
    client.security = if section.boolean("use-tls", true) {
        Security::default_for(&host)
    } else {
        Security::Disabled
    };
    client.verify_certificate = !section.boolean("disable-certificate-verification", false);
    client.trusted_certificates = ours
        .texts("trusted-certificates")
        .unwrap_or_default()
        .into_iter()
        .map(Into::into)
        .collect();
    client.resumption = true;
    // A link that died without a word must be noticed well within the time in
    // which clients wait for answers.
    client.ping_interval = ours.duration("ping-interval", Duration::from_secs(10));
    Some(client)
}

fn component(section: &File, jicofo: &File) -> Option<ComponentSettings> {
    let secret = section.text("secret");
    let domain = section.text("domain");
    let host = section
        .text("hostname")
        .unwrap_or_else(|| jicofo.text_or("xmpp.client.hostname", "localhost"));
    let port = section.integer("port", 5347, 1..=u16::MAX);
    match (domain, secret) {
        (Some(domain), Some(secret)) => Some(ComponentSettings::new(host, port, domain, secret)),
        (None, None) => None,
        (None, Some(_)) => {
            section.fault(
                "domain",
                "missing",
                "name the component, as focus.meet.example",
            );
            None
        }
        (Some(_), None) => {
            section.fault(
                "secret",
                "missing",
                "give the component's secret, as in Prosody",
            );
            None
        }
    }
}

fn http(jicofo: &File, ours: &File) -> Http {
    let rest = jicofo.section("rest");
    let port = rest.integer("port", 8888, 1..=u16::MAX);
    let ip = match rest.text("host").as_deref() {
        Some("localhost") => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => rest
            .address("host")
            .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    };
    Http {
        listen: rest
            .boolean("enabled", true)
            .then_some(SocketAddr::new(ip, port)),
        // Upstream's is off by default; ours costs nothing and is on.
        health: jicofo.boolean("health.enabled", true),
        metrics: rest.boolean("prometheus.enabled", true),
        conference_request: rest.boolean("conference-request.enabled", true),
        debug: rest.boolean("debug.enabled", true),
        origins: ours
            .texts("allowed-origins")
            .unwrap_or_else(|| vec!["*".to_owned()]),
    }
}

fn settings(jicofo: &File, ours: &File, has_service: bool) -> Option<Settings> {
    let xmpp = jicofo.section("xmpp.client");
    let username = xmpp.text_or("username", "focus");
    let account = xmpp.text("domain").and_then(|domain| {
        BareJid::new(&format!("{username}@{domain}"))
            .map_err(|error| {
                let problem = format!("no address with {username:?}: {error}");
                xmpp.fault("domain", problem, "correct it");
            })
            .ok()
    });
    // Everything is read even without an account, so that every fault shows.
    let nobody = || BareJid::new("nobody@invalid").expect("a valid address");
    let mut settings = Settings::new(account.clone().unwrap_or_else(nobody));
    settings.brewery = jicofo.parsed(
        "bridge.brewery-jid",
        "the address of a room",
        "jvbbrewery@internal.auth.meet.example",
    );
    if settings.brewery.is_none() && !jicofo.has("bridge.brewery-jid") {
        jicofo.fault(
            "bridge.brewery-jid",
            "missing",
            "name the room that the bridges join, as jvbbrewery@internal.auth.meet.example",
        );
    }
    let wanted = jicofo.choice(
        "bridge.xmpp-connection-name",
        Link::Service,
        &[("Service", Link::Service), ("Client", Link::Client)],
    );
    settings.brewery_link = if has_service { wanted } else { Link::Client };
    settings.xmpp_domain = xmpp.text("xmpp-domain");
    settings.conference_muc = xmpp.text("conference-muc-jid").or_else(|| {
        settings
            .xmpp_domain
            .as_ref()
            .map(|domain| format!("conference.{domain}"))
    });
    settings.client_proxy = xmpp.parsed("client-proxy", "a domain", "focus.meet.example");
    settings.reply_timeout = xmpp.duration("reply-timeout", settings.reply_timeout);
    settings.sctp = jicofo.boolean("sctp.enabled", settings.sctp);
    settings.bridge = bridge(jicofo, ours);
    settings.codecs = codecs(&jicofo.section("codec"));
    settings.conference = conference(&jicofo.section("conference"), &ours.section("conference"));
    account.map(|_| settings)
}

impl FromStr for Strategy {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::from_class(name).ok_or(())
    }
}

fn bridge(jicofo: &File, ours: &File) -> registry::Settings {
    const STRATEGY: (&str, &str) = ("a known strategy", "SingleBridgeSelectionStrategy");
    let section = jicofo.section("bridge");
    let usual = registry::Settings::default();
    let named = section.text_or("selection-strategy", "SingleBridgeSelectionStrategy");
    let key = if named.rsplit('.').next() == Some("VisitorSelectionStrategy") {
        "participant-selection-strategy"
    } else {
        "selection-strategy"
    };
    let at_most = |path: &str, default: i64| {
        let limit = section.integer(path, default, -1..=i64::from(u32::MAX));
        usize::try_from(limit).ok().filter(|limit| *limit > 0)
    };
    if jicofo.boolean("octo.enabled", false) {
        tracing::warn!("jicofo.octo.enabled: this version keeps each conference on one bridge");
    }
    registry::Settings {
        select: select::Settings {
            strategy: section
                .parsed(key, STRATEGY.0, STRATEGY.1)
                .unwrap_or_default(),
            stress_threshold: section.number("stress-threshold", 0.8, 0.0..=1e6),
            max_participants: at_most("max-bridge-participants", 80),
            max_added: at_most("max-bridge-participants-per-interval", -1),
            local_region: jicofo.text("local-region"),
            region_groups: section.text_lists("region-groups").unwrap_or_default(),
            octo: false,
            allow_mixed_versions: jicofo.boolean("octo.allow-mixed-versions", false),
        },
        health: health(&section, &ours.section("health")),
        average_participant_stress: section.number("average-participant-stress", 0.01, 0.0..=1.0),
        rampup: section.duration("participant-rampup-interval", usual.rampup),
        absence: ours.duration("bridge-absence", usual.absence),
    }
}

fn health(section: &File, ours: &File) -> health::Settings {
    let usual = health::Settings::default();
    if section.boolean("health-checks.use-presence", false) {
        tracing::warn!("jicofo.bridge.health-checks.use-presence: this version always asks");
    }
    let interval = section.duration("health-checks.interval", usual.interval);
    if interval < Duration::from_secs(1) {
        section.fault(
            "health-checks.interval",
            "too short",
            "write at least 1 second",
        );
    }
    health::Settings {
        enabled: section.boolean("health-checks.enabled", usual.enabled),
        interval,
        slow: ours.duration("slow", usual.slow),
        timeout: ours.duration("timeout", usual.timeout),
        suspicion_timeout: ours.duration("suspicion-timeout", usual.suspicion_timeout),
        fall: ours.integer("fall", usual.fall, 1..=100),
        rise: ours.integer("rise", usual.rise, 1..=100),
        reset: section.duration("failure-reset-threshold", usual.reset),
    }
}

fn codecs(section: &File) -> Codecs {
    let usual = Codecs::default();
    // Dynamic payload types, and those below 64 that RTCP leaves free (RFC 5761 §4).
    let payload_type = |path: &str, default: u8| section.integer(path, default, 1..=127);
    let video = |name: &str, usual: VideoCodec| VideoCodec {
        enabled: section.boolean(&format!("video.{name}.enabled"), usual.enabled),
        pt: payload_type(&format!("video.{name}.pt"), usual.pt),
        rtx_pt: u8::try_from(section.integer(
            &format!("video.{name}.rtx-pt"),
            i16::from(usual.rtx_pt.unwrap_or(0)),
            -1..=127,
        ))
        .ok()
        .filter(|pt| *pt > 0),
        remb: section.boolean(&format!("video.{name}.enable-remb"), usual.remb),
    };
    let extension = |name: &str, usual: Extension| Extension {
        enabled: section.boolean(&format!("rtp-extensions.{name}.enabled"), usual.enabled),
        id: section.integer(&format!("rtp-extensions.{name}.id"), usual.id, 1..=255),
    };
    let red = section.boolean("audio.opus.red.enabled", false);
    let red_pt = payload_type("audio.opus.red.pt", 112);
    let opus = Opus {
        pt: payload_type("audio.opus.pt", 111),
        minptime: section.integer("audio.opus.minptime", 10, 1..=120),
        inband_fec: section.boolean("audio.opus.use-inband-fec", true),
        red: red.then_some(red_pt),
    };
    let telephone_event = payload_type("audio.telephone-event.pt", 126);
    let codecs = Codecs {
        av1: video("av1", usual.av1),
        vp8: video("vp8", usual.vp8),
        h264: video("h264", usual.h264),
        vp9: video("vp9", usual.vp9),
        opus: section.boolean("audio.opus.enabled", true).then_some(opus),
        telephone_event: section
            .boolean("audio.telephone-event.enabled", true)
            .then_some(telephone_event),
        audio_level: extension("audio-level", usual.audio_level),
        dependency_descriptor: extension("av1-dependency-descriptor", usual.dependency_descriptor),
        video_layers_allocation: extension(
            "video-layers-allocation",
            usual.video_layers_allocation,
        ),
        toffset: extension("tof", usual.toffset),
        abs_send_time: extension("abs-send-time", usual.abs_send_time),
        rid: extension("rid", usual.rid),
        tcc: extension("tcc", usual.tcc),
        video_content_type: extension("video-content-type", usual.video_content_type),
        framemarking: extension("framemarking", usual.framemarking),
        mid: extension("mid", usual.mid),
        extmap_allow_mixed: section.boolean("rtp-extensions.extmap-allow-mixed", true),
    };
    let mut used: Vec<u8> = [codecs.av1, codecs.vp8, codecs.h264, codecs.vp9]
        .into_iter()
        .filter(|codec| codec.enabled)
        .flat_map(|codec| std::iter::once(codec.pt).chain(codec.rtx_pt))
        .chain(
            codecs
                .opus
                .into_iter()
                .flat_map(|opus| std::iter::once(opus.pt).chain(opus.red)),
        )
        .chain(codecs.telephone_event)
        .collect();
    used.sort_unstable();
    if let Some(twice) = used.windows(2).find(|pair| pair[0] == pair[1]) {
        section.fault(
            "video",
            format!("payload type {} is used twice", twice[0]),
            "give each codec and each rtx-pt a number of its own",
        );
    }
    codecs
}

fn conference(section: &File, ours: &File) -> ConferenceSettings {
    let usual = ConferenceSettings::default();
    let ssrcs = section.integer("max-ssrcs-per-user", usual.limits.ssrcs, 1..=10_000);
    let limits = section.section("restart-request-rate-limits");
    let method = section.text_or("reinvite-method", "RestartJingle");
    if method != "RestartJingle" {
        section.fault(
            "reinvite-method",
            "clients ignore it",
            "remove it or write RestartJingle",
        );
    }
    let delays = section.section("source-signaling-delays");
    let source_delays = section
        .names("source-signaling-delays")
        .into_iter()
        .filter_map(|name| match name.parse::<usize>() {
            Ok(size) => {
                let delay = delays.integer(&name, 0u64, 0..=60_000);
                Some((size, Duration::from_millis(delay)))
            }
            Err(_) => {
                delays.fault(
                    &name,
                    "not a number of members",
                    "write for example 50 = 500",
                );
                None
            }
        })
        .collect();
    ConferenceSettings {
        initial_timeout: section.duration("initial-timeout", usual.initial_timeout),
        single_timeout: section.duration("single-participant-timeout", usual.single_timeout),
        min_participants: section.integer("min-participants", usual.min_participants, 1..=1_000),
        limits: Limits {
            ssrcs,
            groups: section.integer("max-ssrc-groups-per-user", ssrcs, 1..=10_000),
        },
        max_audio_senders: section.integer(
            "max-audio-senders",
            usual.max_audio_senders,
            0..=usize::MAX,
        ),
        max_video_senders: section.integer(
            "max-video-senders",
            usual.max_video_senders,
            0..=usize::MAX,
        ),
        auto_owner: section.boolean("enable-auto-owner", true),
        moderator_checks: section.boolean("enable-moderator-checks", true),
        strip_simulcast: section.boolean("strip-simulcast", true),
        json_sources: section.boolean("use-json-encoded-sources", true),
        source_delays,
        restart_min_interval: limits.duration("min-interval", usual.restart_min_interval),
        restart_max: limits.integer("max-requests", usual.restart_max, 1..=1_000),
        restart_interval: limits.duration("interval", usual.restart_interval),
        random_document: section.boolean("shared-document.use-random-name", false),
        ready_wait: ours.duration("ready-wait", usual.ready_wait),
        features_timeout: ours.duration("features-timeout", usual.features_timeout),
        accept_timeout: ours.duration("accept-timeout", usual.accept_timeout),
        slow_allocation: ours.duration("slow-allocation", usual.slow_allocation),
        max_conferences: ours.integer("max", usual.max_conferences, 1..=10_000_000),
    }
}

/// A deployment that counts on authentication must not run without.
fn refuse_what_is_missing(jicofo: &File) {
    let section = jicofo.section("authentication");
    let kind = section.text_or("type", "NONE");
    if section.boolean("enabled", false) && kind != "NONE" {
        section.fault(
            "enabled",
            "this version has no authentication",
            "set jicofo.authentication.enabled = false, and everybody may open rooms",
        );
    }
    if jicofo.boolean("visitors.enabled", false) {
        tracing::warn!("jicofo.visitors.enabled: this version has no visitor nodes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"
        jicofo {
          xmpp.client { domain = "auth.meet.example", password = "secret", xmpp-domain = "meet.example" }
          bridge.brewery-jid = "jvbbrewery@internal.auth.meet.example"
        }
    "#;

    #[test]
    fn defaults_are_jicofos() {
        let config = Config::parse(LEAST).expect("the least that works");
        assert_eq!(config.client.host, "localhost");
        assert_eq!(config.client.port, 5222);
        assert_eq!(config.client.resource.as_deref(), Some("focus"));
        assert!(config.client.resumption);
        assert_eq!(config.focus.account.to_string(), "focus@auth.meet.example");
        assert_eq!(
            config.focus.conference_muc.as_deref(),
            Some("conference.meet.example")
        );
        assert_eq!(config.focus.brewery_link, Link::Client);
        assert_eq!(config.focus.codecs, Codecs::default());
        assert_eq!(config.focus.bridge, registry::Settings::default());
        assert_eq!(
            config.http.listen,
            Some(SocketAddr::from(([127, 0, 0, 1], 8888)))
        );
        assert!(config.component.is_none() && config.service.is_none());
    }

    #[test]
    fn keys_of_jicofo_are_read() {
        let text = LEAST.to_owned()
            + r#"
            jicofo {
              codec { video { av1.enabled = false, vp8 { pt = 98, rtx-pt = -1 } }, audio.opus.red.enabled = true
                      rtp-extensions { mid.enabled = false } }
              bridge { selection-strategy = org.jitsi.jicofo.bridge.RegionBasedBridgeSelectionStrategy
                       region-groups = [["r1", "r2"], ["r3"]], max-bridge-participants = -1 }
              conference { min-participants = 1, source-signaling-delays { 50 = 500, 100 = 1000 } }
              rest { port = 9999 }
              sctp.enabled = false
            }
            viaduct.focus { component { domain = focus.meet.example, secret = s }, health.fall = 3 }
        "#;
        let config = Config::parse(&text).expect("all of it is right");
        let codecs = &config.focus.codecs;
        assert!(!codecs.av1.enabled && !codecs.mid.enabled);
        assert_eq!((codecs.vp8.pt, codecs.vp8.rtx_pt), (98, None));
        assert_eq!(codecs.opus.and_then(|opus| opus.red), Some(112));
        let select = &config.focus.bridge.select;
        assert_eq!(select.strategy, Strategy::RegionBased);
        assert_eq!(select.region_groups, [vec!["r1", "r2"], vec!["r3"]]);
        assert_eq!(select.max_participants, None);
        assert_eq!(config.focus.bridge.health.fall, 3);
        let mut delays = config.focus.conference.source_delays.clone();
        delays.sort();
        assert_eq!(
            delays,
            [
                (50, Duration::from_millis(500)),
                (100, Duration::from_millis(1000))
            ]
        );
        assert!(!config.focus.sctp);
        assert_eq!(
            config.component.map(|c| c.domain).as_deref(),
            Some("focus.meet.example")
        );
    }

    #[test]
    fn every_fault_is_listed_at_once() {
        let faults = Config::parse(
            r#"
            jicofo {
              authentication { enabled = true, type = XMPP }
              bridge { selection-strategy = NoSuchStrategy }
              codec.video.vp8.pt = 41
              rest.port = 0
            }
            viaduct.focus.helth = 1
            "#,
        )
        .expect_err("nothing of it is right");
        let keys: Vec<&str> = faults.0.iter().map(|fault| fault.key.as_str()).collect();
        for expected in [
            "jicofo.authentication.enabled",
            "jicofo.bridge.brewery-jid",
            "jicofo.bridge.selection-strategy",
            "jicofo.codec.video",
            "jicofo.rest.port",
            "jicofo.xmpp.client.domain",
            "jicofo.xmpp.client.password",
            "viaduct.focus.helth",
        ] {
            assert!(
                keys.contains(&expected),
                "{expected} is missing in {keys:?}"
            );
        }
    }
}
