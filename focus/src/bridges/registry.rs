//! The bridges of the brewery: what their presence says, what was booked on
//! them since, and their health.
//!
//! Identity is the occupant address (room/nick). A bridge exists from its first
//! statistics on; a statistic that is absent keeps its last value, `drain` counts
//! as true until it is received, and the two shutdown flags never fall back
//! (`jicofo:Bridge.kt`). Elsewhere: the choice among them (`select`).

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use viaduct_signalling::jid::{FullJid, Jid};

use super::health::{self, Answer, Echo, Health, Verdict};
use super::select::{self, Candidate, Choice, NoBridge, Request};

/// Occupants of the brewery kept as bridges. Beyond it newcomers are ignored:
/// only accounts of the operator can enter that room.
pub const MAX_BRIDGES: usize = 10_000;
/// Endpoints that one bridge is asked for at once, over all conferences. More
/// would only wait there, and grow old in the queue of one that is slow.
pub const MAX_ASKED: usize = 64;
/// A presence older than that is not recent: `presence-timeout` of jicofo.
const FRESH: Duration = Duration::from_secs(45);

/// `jicofo.bridge.*`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub select: select::Settings,
    pub health: health::Settings,
    /// Stress of one participant where the bridge does not say.
    pub average_participant_stress: f64,
    /// A booking is forgotten after that, whatever was reported.
    pub rampup: Duration,
    /// How long a bridge not seen after our own rejoin is waited for.
    pub absence: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            select: select::Settings::default(),
            health: health::Settings::default(),
            average_participant_stress: 0.01,
            rampup: Duration::from_secs(20),
            absence: Duration::from_secs(15),
        }
    }
}

/// The statistics the focus acts on; `None` is "not in this presence".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub stress: Option<f64>,
    pub average_participant_stress: Option<f64>,
    pub drain: Option<bool>,
    pub graceful_shutdown: Option<bool>,
    pub shutting_down: Option<bool>,
    pub version: Option<String>,
    pub release: Option<String>,
    pub region: Option<String>,
    pub relay_id: Option<String>,
}

/// What conferences must react to.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// New, or usable again: whoever waits for a bridge may try.
    Usable,
    /// Its calls must leave it now.
    Lost { bridge: FullJid, why: &'static str },
    /// It may have been another process meanwhile: ask for the conference.
    Doubtful { bridge: FullJid },
}

/// One bridge.
#[derive(Debug)]
pub struct Bridge {
    /// Address of the process behind the nick; another one is another bridge.
    real: Option<Jid>,
    /// Two processes share the nick: the server shows only the first.
    doubled: bool,
    /// Not seen since our own rejoin at that time.
    absent_since: Option<Instant>,
    stress: f64,
    average_participant_stress: f64,
    drain: bool,
    graceful_shutdown: bool,
    shutting_down: bool,
    version: Option<String>,
    release: Option<String>,
    region: Option<String>,
    relay_id: Option<String>,
    health: Health,
    bookings: VecDeque<Booking>,
    /// Participants this focus has on it.
    participants: usize,
    /// Endpoints asked for and neither given nor refused yet.
    asked: usize,
    /// The last presence.
    seen: Instant,
    /// Tells its stay in the brewery from earlier ones under the same name.
    tenure: u64,
}

/// Load that was placed and is not yet in what the bridge reports.
#[derive(Debug)]
struct Booking {
    at: Instant,
    stress: f64,
}

impl Bridge {
    /// Reported stress and what was placed since.
    pub fn corrected_stress(&self) -> f64 {
        self.stress + self.bookings.iter().map(|b| b.stress).sum::<f64>()
    }

    /// `version-release` where a release is known (`jicofo:Bridge.kt`).
    pub fn full_version(&self) -> Option<String> {
        let version = self.version.as_deref()?;
        Some(match &self.release {
            Some(release) => format!("{version}-{release}"),
            None => version.to_owned(),
        })
    }

    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    pub fn participants(&self) -> usize {
        self.participants
    }

    pub fn tenure(&self) -> u64 {
        self.tenure
    }

    pub fn operational(&self) -> bool {
        self.health.operational() && self.absent_since.is_none()
    }

    /// It answers; new calls only where no operational bridge is.
    pub fn usable(&self) -> bool {
        (self.health.operational() || self.health.recovering()) && self.absent_since.is_none()
    }

    /// It is in the brewery and answers nothing: it may be slow, or dead.
    pub fn silent(&self) -> bool {
        self.health.silent() && self.absent_since.is_none() && !self.shutting_down
    }

    pub fn in_shutdown(&self) -> bool {
        self.graceful_shutdown || self.shutting_down
    }

    fn apply(&mut self, report: Report) {
        if let Some(stress) = report.stress.filter(|s| s.is_finite()) {
            // What the report rose by is what was booked before: count it once.
            let mut rise = stress - self.stress;
            while rise > 0.0 {
                let Some(first) = self.bookings.front_mut() else {
                    break;
                };
                if first.stress > rise {
                    first.stress -= rise;
                    break;
                }
                rise -= first.stress;
                self.bookings.pop_front();
            }
            self.stress = stress.max(0.0);
        }
        if let Some(average) = report.average_participant_stress.filter(|s| s.is_finite()) {
            self.average_participant_stress = average.max(0.0);
        }
        self.drain = report.drain.unwrap_or(self.drain);
        self.graceful_shutdown |= report.graceful_shutdown.unwrap_or(false);
        self.shutting_down |= report.shutting_down.unwrap_or(false);
        for (mine, new) in [
            (&mut self.version, report.version),
            (&mut self.release, report.release),
            (&mut self.region, report.region),
            (&mut self.relay_id, report.relay_id),
        ] {
            if new.is_some() {
                *mine = new;
            }
        }
    }
}

/// A health IQ to send; `number` comes back with the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    pub bridge: FullJid,
    pub number: u64,
}

/// All bridges of the brewery.
#[derive(Debug)]
pub struct Registry {
    settings: Settings,
    bridges: BTreeMap<FullJid, Bridge>,
    /// Of the server by which bridges are reached.
    echo: Option<Echo>,
    /// Bridges that vanished without announcing it.
    lost: u64,
    tenures: u64,
}

impl Registry {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            bridges: BTreeMap::new(),
            echo: None,
            lost: 0,
            tenures: 0,
        }
    }

    pub fn get(&self, bridge: &FullJid) -> Option<&Bridge> {
        self.bridges.get(bridge)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&FullJid, &Bridge)> {
        self.bridges.iter()
    }

    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// An available presence; `items` are the real addresses it shows.
    pub fn presence(
        &mut self,
        now: Instant,
        occupant: &FullJid,
        items: &[Jid],
        report: Option<Report>,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.bridges.contains_key(occupant) {
            let Some(report) = report else { return events };
            if self.bridges.len() >= MAX_BRIDGES {
                tracing::warn!(%occupant, limit = MAX_BRIDGES, "too many bridges, ignored");
                return events;
            }
            tracing::info!(bridge = %occupant.resource(), version = report.version, "bridge seen");
            self.tenures += 1;
            let mut bridge = Bridge {
                real: items.first().cloned(),
                doubled: false,
                absent_since: None,
                stress: 0.0,
                average_participant_stress: self.settings.average_participant_stress,
                drain: true,
                graceful_shutdown: false,
                shutting_down: false,
                version: None,
                release: None,
                region: None,
                relay_id: None,
                health: Health::new(now, &self.settings.health),
                bookings: VecDeque::new(),
                participants: 0,
                asked: 0,
                seen: now,
                tenure: self.tenures,
            };
            note_doubled(&mut bridge, occupant, items);
            bridge.apply(report);
            self.bridges.insert(occupant.clone(), bridge);
            events.push(Event::Usable);
            return events;
        }
        let bridge = self.bridges.get_mut(occupant).expect("looked up above");
        bridge.seen = now;
        note_doubled(bridge, occupant, items);
        if let Some(real) = items.first()
            && bridge.real.as_ref() != Some(real)
        {
            if bridge.real.is_some() {
                tracing::warn!(bridge = %occupant.resource(), "another process took the bridge's name");
                events.push(Event::Doubtful {
                    bridge: occupant.clone(),
                });
            }
            bridge.real = Some(real.clone());
        }
        if bridge.absent_since.take().is_some() {
            events.push(Event::Doubtful {
                bridge: occupant.clone(),
            });
            events.push(Event::Usable);
        }
        if let Some(report) = report {
            let stopping = bridge.shutting_down;
            let unusable = bridge.drain || bridge.in_shutdown();
            bridge.apply(report);
            if bridge.shutting_down && !stopping {
                events.push(Event::Lost {
                    bridge: occupant.clone(),
                    why: "it is shutting down",
                });
            } else if unusable && !bridge.drain && !bridge.in_shutdown() {
                events.push(Event::Usable);
            }
        }
        events
    }

    /// The occupant left the brewery.
    pub fn gone(&mut self, occupant: &FullJid) -> Vec<Event> {
        let Some(bridge) = self.bridges.remove(occupant) else {
            return Vec::new();
        };
        if bridge.in_shutdown() {
            tracing::info!(bridge = %occupant.resource(), "bridge left");
        } else {
            self.lost += 1;
            tracing::warn!(bridge = %occupant.resource(), "bridge lost: it left the brewery without a word");
        }
        vec![Event::Lost {
            bridge: occupant.clone(),
            why: "it left the brewery",
        }]
    }

    /// We entered the brewery anew: who is not in `seen` may come back shortly.
    pub fn rejoined(&mut self, now: Instant, seen: &dyn Fn(&FullJid) -> bool) {
        for (occupant, bridge) in &mut self.bridges {
            if !seen(occupant) {
                bridge.absent_since.get_or_insert(now);
            }
        }
    }

    /// Someone doubts the bridge (ICE failures, no answer to an allocation).
    pub fn suspect(&mut self, now: Instant, bridge: &FullJid) -> Option<HealthCheck> {
        let health = &mut self.bridges.get_mut(bridge)?.health;
        let number = health.suspect(now, &self.settings.health)?;
        Some(HealthCheck {
            bridge: bridge.clone(),
            number,
        })
    }

    pub fn health_answer(
        &mut self,
        now: Instant,
        bridge: &FullJid,
        number: u64,
        answer: Answer,
    ) -> Vec<Event> {
        let Some(known) = self.bridges.get_mut(bridge) else {
            return Vec::new();
        };
        let verdict = known
            .health
            .answered(now, number, answer, self.echo, &self.settings.health);
        verdict_event(bridge, verdict, "it reports itself broken")
    }

    /// The server by which bridges are reached answered a ping.
    pub fn server_answered(&mut self, now: Instant, sent: Instant) {
        let took = now.saturating_duration_since(sent);
        if self.echo.is_none_or(|echo| echo.sent <= sent) {
            self.echo = Some(Echo { sent, took });
        }
    }

    /// A request to it has waited for too long.
    pub fn slow(&mut self, bridge: &FullJid) {
        if let Some(known) = self.bridges.get_mut(bridge) {
            known.health.slow();
        }
    }

    /// Whether the bridge has answered anything asked after that.
    pub fn heard_since(&self, bridge: &FullJid, asked: Instant) -> bool {
        let known = self.bridges.get(bridge);
        known.is_some_and(|known| known.health.heard_since(asked))
    }

    /// It refused a conference because it takes nothing new.
    pub fn graceful(&mut self, bridge: &FullJid) {
        if let Some(known) = self.bridges.get_mut(bridge) {
            known.graceful_shutdown = true;
        }
    }

    /// Checks to send and what ran out of time.
    pub fn handle_timeout(&mut self, now: Instant) -> (Vec<HealthCheck>, Vec<Event>) {
        let (mut checks, mut events) = (Vec::new(), Vec::new());
        let mut forgotten = Vec::new();
        for (occupant, bridge) in &mut self.bridges {
            while bridge
                .bookings
                .front()
                .is_some_and(|b| b.at + self.settings.rampup <= now)
            {
                bridge.bookings.pop_front();
            }
            if let Some(since) = bridge.absent_since {
                if since + self.settings.absence <= now {
                    forgotten.push(occupant.clone());
                }
                continue;
            }
            let was_operational = bridge.health.operational();
            let verdict = bridge.health.expire(now, self.echo, &self.settings.health);
            if was_operational && !bridge.health.operational() {
                tracing::warn!(bridge = %occupant.resource(), "bridge does not answer, it is the last choice");
            }
            events.extend(verdict_event(occupant, verdict, "it does not answer"));
            if let Some(number) = bridge.health.due(now, &self.settings.health) {
                checks.push(HealthCheck {
                    bridge: occupant.clone(),
                    number,
                });
            }
        }
        for occupant in forgotten {
            events.extend(self.gone(&occupant));
        }
        (checks, events)
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.bridges
            .values()
            .filter_map(|bridge| match bridge.absent_since {
                Some(since) => Some(since + self.settings.absence),
                None => bridge.health.next_timeout(&self.settings.health),
            })
            .min()
    }

    /// Chooses a bridge for one participant and books it at once, as a request
    /// that it has to answer too.
    pub fn place(&mut self, now: Instant, request: &Request<'_>) -> Result<Choice, NoBridge> {
        let candidates = self.candidates(now);
        let choice = select::select(&candidates, request, &self.settings.select)?;
        let bridge = self
            .bridges
            .get_mut(&choice.bridge)
            .expect("a candidate is a known bridge");
        if bridge.asked >= MAX_ASKED {
            return Err(NoBridge::Busy);
        }
        bridge.asked += 1;
        bridge.bookings.push_back(Booking {
            at: now,
            stress: bridge.average_participant_stress,
        });
        bridge.participants += 1;
        Ok(choice)
    }

    /// Whether any other bridge could take a conference now.
    pub fn other_than(&self, bridge: &FullJid) -> bool {
        self.bridges.iter().any(|(occupant, other)| {
            occupant != bridge && other.operational() && !other.shutting_down
        })
    }

    /// Whether there is a bridge to which calls should go from one that does not
    /// answer: not from one slow bridge to the next.
    pub fn better_than(&self, bridge: &FullJid) -> bool {
        self.bridges.iter().any(|(occupant, other)| {
            let well = other.operational() && !other.health.degraded();
            occupant != bridge && well && !other.shutting_down
        })
    }

    /// A request of [`Self::place`] is over: answered, or waited for no longer.
    pub fn settled(&mut self, bridge: &FullJid, tenure: u64) {
        if let Some(known) = self.bridges.get_mut(bridge)
            && known.tenure == tenure
        {
            known.asked = known.asked.saturating_sub(1);
        }
    }

    /// The figures a choice was made from, for `/debug`.
    pub fn summary(&self) -> Value {
        self.bridges
            .iter()
            .map(|(occupant, bridge)| {
                let figures = json!({
                    "corrected-stress": bridge.corrected_stress(),
                    "participants": bridge.participants,
                    "operational": bridge.operational(),
                    "drain": bridge.drain,
                });
                (occupant.resource().to_string(), figures)
            })
            .collect::<serde_json::Map<String, Value>>()
            .into()
    }

    /// A participant placed by [`Self::place`] is no longer on the bridge. One
    /// that left and came back meanwhile has another tenure and owes nothing.
    pub fn release(&mut self, bridge: &FullJid, tenure: u64) {
        if let Some(known) = self.bridges.get_mut(bridge)
            && known.tenure == tenure
        {
            known.participants = known.participants.saturating_sub(1);
        }
    }

    /// A bridge came back and still has these participants of an earlier tenure.
    pub fn adopt(&mut self, bridge: &FullJid, tenure: u64, participants: usize) -> u64 {
        let Some(known) = self.bridges.get_mut(bridge) else {
            return tenure;
        };
        if known.tenure != tenure {
            known.participants += participants;
        }
        known.tenure
    }

    fn candidates(&self, now: Instant) -> Vec<Candidate> {
        self.bridges
            .iter()
            .map(|(occupant, bridge)| {
                let stale = |b: &&Booking| b.at + self.settings.rampup > now;
                let booked: f64 = bridge.bookings.iter().filter(stale).map(|b| b.stress).sum();
                Candidate {
                    bridge: occupant.clone(),
                    stress: bridge.stress + booked,
                    participants: bridge.participants,
                    operational: bridge.operational(),
                    recovering: bridge.usable() && !bridge.operational(),
                    degraded: bridge.health.degraded(),
                    silent: bridge.silent(),
                    fresh: now < bridge.seen + FRESH,
                    busy: bridge.asked >= MAX_ASKED,
                    drain: bridge.drain,
                    graceful_shutdown: bridge.graceful_shutdown,
                    shutting_down: bridge.shutting_down,
                    version: bridge.full_version(),
                    region: bridge.region.clone(),
                    relay_id: bridge.relay_id.clone(),
                }
            })
            .collect()
    }

    /// The bridge list of `/debug`, in jicofo's form and with what ours knows beside it.
    pub fn debug(&self) -> Value {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".into());
        let bridges: serde_json::Map<String, Value> = self
            .bridges
            .iter()
            .map(|(occupant, bridge)| {
                let stress = bridge.corrected_stress();
                (
                    occupant.to_string(),
                    json!({
                        "corrected-stress": stress,
                        "drain": bridge.drain,
                        "endpoints": bridge.participants,
                        "asked": bridge.asked,
                        "graceful-shutdown": bridge.graceful_shutdown,
                        "healthy": bridge.usable(),
                        "health": format!("{:?}", bridge.health.state()),
                        "operational": bridge.operational(),
                        "overloaded": stress >= self.settings.select.stress_threshold,
                        "region": text(&bridge.region),
                        "relay-id": text(&bridge.relay_id),
                        "release": text(&bridge.release),
                        "shutting-down": bridge.shutting_down,
                        "stress": bridge.stress,
                        "version": text(&bridge.version),
                        "two-under-one-name": bridge.doubled,
                        "absent": bridge.absent_since.is_some(),
                        "address": bridge.real.as_ref().map(ToString::to_string),
                    }),
                )
            })
            .collect();
        json!({ "strategy": format!("{:?}", self.settings.select.strategy), "bridge": bridges })
    }
}

fn verdict_event(bridge: &FullJid, verdict: Verdict, why: &'static str) -> Vec<Event> {
    match verdict {
        Verdict::Nothing => Vec::new(),
        Verdict::Dead => vec![Event::Lost {
            bridge: bridge.clone(),
            why,
        }],
        Verdict::Usable => vec![Event::Usable],
    }
}

/// Two sessions of one account under one nick are one occupant with two items;
/// only the first is reached (focus-bridge §1.2, 6).
fn note_doubled(bridge: &mut Bridge, occupant: &FullJid, items: &[Jid]) {
    let doubled = items.len() > 1;
    if doubled && !bridge.doubled {
        let addresses: Vec<String> = items.iter().map(ToString::to_string).collect();
        tracing::warn!(
            bridge = %occupant.resource(),
            ?addresses,
            "two bridges use one nickname: give each its own, only the first is used"
        );
    }
    bridge.doubled = doubled;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(nick: &str) -> FullJid {
        FullJid::new(&format!("brewery@internal.example/{nick}")).expect("a valid address")
    }

    fn real(resource: &str) -> Jid {
        Jid::new(&format!("jvb@auth.example/{resource}")).expect("a valid address")
    }

    fn idle() -> Option<Report> {
        Some(Report {
            stress: Some(0.0),
            drain: Some(false),
            ..Report::default()
        })
    }

    fn stress(stress: f64) -> Option<Report> {
        Some(Report {
            stress: Some(stress),
            ..Report::default()
        })
    }

    #[test]
    fn absent_statistics_keep_and_shutdown_latches() {
        let now = Instant::now();
        let mut registry = Registry::new(Settings::default());
        let a = jid("a");
        assert!(
            registry.presence(now, &a, &[real("1")], None).is_empty(),
            "no statistics, no bridge"
        );
        assert_eq!(
            registry.presence(now, &a, &[real("1")], stress(0.2)),
            [Event::Usable]
        );
        assert!(
            registry.get(&a).expect("known").drain,
            "true until received"
        );
        let told = Report {
            drain: Some(false),
            graceful_shutdown: Some(true),
            ..Report::default()
        };
        registry.presence(now, &a, &[real("1")], Some(told));
        let told = Report {
            graceful_shutdown: Some(false),
            ..Report::default()
        };
        registry.presence(now, &a, &[real("1")], Some(told));
        let bridge = registry.get(&a).expect("known");
        assert!(bridge.graceful_shutdown && !bridge.drain);
        assert!((bridge.stress - 0.2).abs() < 1e-9);
        let told = Report {
            shutting_down: Some(true),
            ..Report::default()
        };
        let events = registry.presence(now, &a, &[real("1")], Some(told.clone()));
        assert!(matches!(&events[..], [Event::Lost { .. }]));
        assert!(
            registry
                .presence(now, &a, &[real("1")], Some(told))
                .is_empty(),
            "told once"
        );
    }

    /// Two rooms started at once land on different bridges, and a booking is not
    /// counted a second time when the bridge reports it.
    #[test]
    fn placements_are_booked_and_decay_as_the_report_rises() {
        let now = Instant::now();
        let mut registry = Registry::new(Settings::default());
        for nick in ["a", "b"] {
            registry.presence(now, &jid(nick), &[real(nick)], idle());
        }
        let first = registry
            .place(now, &Request::default())
            .expect("two bridges");
        let second = registry
            .place(now, &Request::default())
            .expect("two bridges");
        assert_ne!(first.bridge, second.bridge);

        for _ in 0..9 {
            registry
                .place(now, &Request::default())
                .expect("two bridges");
        }
        let a = registry.get(&jid("a")).expect("known");
        assert!(
            (a.corrected_stress() - 0.06).abs() < 1e-9,
            "six bookings of a hundredth"
        );
        registry.presence(now, &jid("a"), &[real("a")], stress(0.045));
        let a = registry.get(&jid("a")).expect("known");
        assert!(
            (a.corrected_stress() - 0.06).abs() < 1e-9,
            "the rise replaced bookings"
        );
        let later = now + Duration::from_secs(20);
        registry.handle_timeout(later);
        let a = registry.get(&jid("a")).expect("known");
        assert!(
            (a.corrected_stress() - 0.045).abs() < 1e-9,
            "what was never reported is forgotten"
        );
    }

    #[test]
    fn a_bridge_owes_so_many_answers_and_no_more() {
        let now = Instant::now();
        let mut registry = Registry::new(Settings::default());
        registry.presence(now, &jid("a"), &[real("a")], idle());
        let tenure = registry.get(&jid("a")).expect("known").tenure();
        for _ in 0..MAX_ASKED {
            registry.place(now, &Request::default()).expect("a place");
        }
        let full = registry.get(&jid("a")).expect("known").participants();
        let refused = registry.place(now, &Request::default());
        assert_eq!(refused, Err(NoBridge::Busy));
        assert_eq!(registry.get(&jid("a")).expect("known").participants(), full);
        registry.settled(&jid("a"), tenure + 1);
        assert_eq!(refused, registry.place(now, &Request::default()));
        registry.settled(&jid("a"), tenure);
        registry.place(now, &Request::default()).expect("a place");
        // Others are preferred while it is busy.
        let loaded = Report {
            drain: Some(false),
            ..stress(0.9).expect("a report")
        };
        registry.presence(now, &jid("b"), &[real("b")], Some(loaded));
        let choice = registry.place(now, &Request::default()).expect("a place");
        assert_eq!(choice.bridge, jid("b"));
    }

    #[test]
    fn another_process_under_the_name_is_doubted_and_two_are_noticed() {
        let now = Instant::now();
        let mut registry = Registry::new(Settings::default());
        let a = jid("a");
        registry.presence(now, &a, &[real("1")], idle());
        registry.presence(now, &a, &[real("1"), real("2")], idle());
        assert!(registry.get(&a).expect("known").doubled);
        let events = registry.presence(now, &a, &[real("2")], idle());
        assert_eq!(events, [Event::Doubtful { bridge: a.clone() }]);
        assert!(!registry.get(&a).expect("known").doubled);
    }

    #[test]
    fn absent_after_a_rejoin_is_waited_for_then_lost() {
        let now = Instant::now();
        let mut registry = Registry::new(Settings::default());
        for nick in ["a", "b"] {
            registry.presence(now, &jid(nick), &[real(nick)], idle());
        }
        registry.rejoined(now, &|occupant| occupant == &jid("b"));
        assert_eq!(
            registry.place(now, &Request::default()).expect("b").bridge,
            jid("b")
        );
        let (_, events) = registry.handle_timeout(now + Duration::from_secs(15));
        assert!(matches!(&events[..], [Event::Lost { bridge, .. }] if bridge == &jid("a")));
    }

    #[test]
    fn health_checks_go_out_every_ten_seconds() {
        let now = Instant::now();
        let mut registry = Registry::new(Settings::default());
        registry.presence(now, &jid("a"), &[real("a")], idle());
        let mut sent = Vec::new();
        for second in 1..=40 {
            let at = now + Duration::from_secs(second);
            let (checks, _) = registry.handle_timeout(at);
            for check in checks {
                registry.health_answer(at, &check.bridge, check.number, Answer::Alive);
                sent.push(second);
            }
        }
        assert_eq!(sent, [10, 20, 30, 40]);
    }
}
