//! What a conference reaches beside itself while it handles one event.

use std::time::{Duration, Instant};

use viaduct_signalling::brewery::HealthCheck as HealthCheckIq;
use viaduct_signalling::disco::Ping;
use viaduct_signalling::jid::{BareJid, FullJid, Jid};
use viaduct_signalling::xml::{Element, to_element};

use crate::bridges::registry::{self, HealthCheck, Registry};
use crate::conference::sources::Limits;
use crate::jingle::codec::Codecs;
use crate::jingle::features::Remembered;
use crate::outbox::{Expected, Link, Outbox};
use crate::random::Random;
use crate::stats::Counters;

/// Answers to health checks are taken for so long.
const LATE: Duration = Duration::from_secs(60);

/// What the operator chose, as far as the state machines need it.
#[derive(Clone, Debug)]
pub struct Settings {
    pub brewery: Option<BareJid>,
    /// The connection over which bridges are reached.
    pub brewery_link: Link,
    /// The account, whose address clients know the focus by.
    pub account: BareJid,
    /// Where conferences are; with `xmpp_domain` what requests are admitted for.
    pub conference_muc: Option<String>,
    /// The domain of the clients.
    pub xmpp_domain: Option<String>,
    /// `mod_client_proxy`, whose subscription is accepted.
    pub client_proxy: Option<BareJid>,
    pub bridge: registry::Settings,
    pub codecs: Codecs,
    /// Data channels are offered to those who can.
    pub sctp: bool,
    /// How long answers are waited for: `reply-timeout`.
    pub reply_timeout: Duration,
    pub conference: ConferenceSettings,
}

/// `jicofo.conference` and `viaduct.focus.conference`.
#[derive(Clone, Debug)]
pub struct ConferenceSettings {
    pub initial_timeout: Duration,
    pub single_timeout: Duration,
    pub min_participants: usize,
    pub limits: Limits,
    pub max_audio_senders: usize,
    pub max_video_senders: usize,
    pub auto_owner: bool,
    pub moderator_checks: bool,
    pub strip_simulcast: bool,
    pub json_sources: bool,
    /// From that many members on, sources are signalled that much later.
    pub source_delays: Vec<(usize, Duration)>,
    pub restart_min_interval: Duration,
    pub restart_max: usize,
    pub restart_interval: Duration,
    /// The shared document's name is random, not the room's.
    pub random_document: bool,
    /// A conference request is answered by then, ready or not.
    pub ready_wait: Duration,
    /// A client's features are waited for that long.
    pub features_timeout: Duration,
    /// An offer not accepted by then is made anew.
    pub accept_timeout: Duration,
    /// An allocation without answer by then makes its bridge suspect.
    pub slow_allocation: Duration,
    /// Conferences at once; more are not admitted.
    pub max_conferences: usize,
}

impl Default for ConferenceSettings {
    fn default() -> Self {
        Self {
            initial_timeout: Duration::from_secs(15),
            single_timeout: Duration::from_secs(20),
            min_participants: 2,
            limits: Limits {
                ssrcs: 20,
                groups: 20,
            },
            max_audio_senders: 999_999,
            max_video_senders: 999_999,
            auto_owner: true,
            moderator_checks: true,
            strip_simulcast: true,
            json_sources: true,
            source_delays: Vec::new(),
            restart_min_interval: Duration::from_secs(5),
            restart_max: 5,
            restart_interval: Duration::from_secs(60),
            random_document: false,
            ready_wait: Duration::from_millis(800),
            features_timeout: Duration::from_secs(3),
            accept_timeout: Duration::from_secs(45),
            slow_allocation: Duration::from_secs(3),
            max_conferences: 50_000,
        }
    }
}

impl Settings {
    /// Defaults for everything but the account.
    pub fn new(account: BareJid) -> Self {
        Self {
            account,
            conference_muc: None,
            brewery: None,
            brewery_link: Link::Client,
            xmpp_domain: None,
            client_proxy: None,
            bridge: registry::Settings::default(),
            codecs: Codecs::default(),
            sctp: true,
            reply_timeout: Duration::from_secs(15),
            conference: ConferenceSettings::default(),
        }
    }
}

/// All of it, borrowed for one event.
#[derive(Debug)]
pub struct Context<'a> {
    pub now: Instant,
    pub settings: &'a Settings,
    /// The account, with its resource.
    pub me: &'a FullJid,
    pub registry: &'a mut Registry,
    pub remembered: &'a mut Remembered,
    pub random: &'a mut Random,
    pub out: &'a mut Outbox,
    pub counters: &'a mut Counters,
    /// Bridges found dead meanwhile: all conferences will hear of it.
    pub lost: &'a mut Vec<registry::Event>,
}

impl Context<'_> {
    pub fn reply_deadline(&self) -> Instant {
        self.now + self.settings.reply_timeout
    }

    /// Tells a bridge, if it is there, what it may forget.
    pub fn expire(&mut self, bridge: &FullJid, request: Element) {
        if self.registry.get(bridge).is_some() {
            let link = self.settings.brewery_link;
            self.out.ask(link, bridge.clone(), request);
        }
    }

    /// There is reason to doubt a bridge: ask it at once. If it was down already,
    /// that reason is enough.
    pub fn suspect(&mut self, bridge: &FullJid) {
        let Some(known) = self.registry.get(bridge) else {
            return;
        };
        if !known.usable() {
            self.lost.push(registry::Event::Lost {
                bridge: bridge.clone(),
                why: "it does not answer, and calls on it fail",
            });
            return;
        }
        if let Some(check) = self.registry.suspect(self.now, bridge) {
            send_checks(self.out, self.settings, self.now, &[check]);
        }
    }
}

/// Sends health checks, and a ping to the server by which they go, so that its
/// slowness can be told from the bridges'.
pub fn send_checks(out: &mut Outbox, settings: &Settings, now: Instant, checks: &[HealthCheck]) {
    let (Some(_), Some(brewery)) = (checks.first(), &settings.brewery) else {
        return;
    };
    let link = settings.brewery_link;
    // The registry keeps the time; the entry here only has to outlive it, and
    // late answers count.
    let deadline = now + LATE.max(settings.bridge.health.timeout);
    for check in checks {
        let expected = Expected::Health {
            bridge: check.bridge.clone(),
            number: check.number,
        };
        let bridge = check.bridge.clone();
        out.get(link, bridge, to_element(&HealthCheckIq), deadline, expected);
    }
    let server: Jid = BareJid::from_parts(None, brewery.domain()).into();
    let expected = Expected::ServerPing { sent: now };
    out.get(link, server, to_element(&Ping), deadline, expected);
}
