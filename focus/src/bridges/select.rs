//! Placement: which bridge a participant goes to.
//!
//! A pure function of the candidates' figures, what the conference already
//! uses, and where the participant is. Eligibility and strategies follow
//! `jicofo:BridgeSelector.kt` and `…/*BridgeSelectionStrategy`; the order among
//! equals is ours: stress differences below [`RESOLUTION`] are noise, then the
//! bridge with fewest of our participants wins. Figures: `registry`.

use viaduct_signalling::jid::FullJid;

/// Two stress levels closer than this are the same load: an idle bridge's own
/// reading wanders by some hundredths on a small machine.
pub const RESOLUTION: f64 = 0.05;

/// What a strategy looks at, one for each bridge the registry knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    pub bridge: FullJid,
    /// Last reported stress plus what was booked since (may exceed 1).
    pub stress: f64,
    /// Participants this focus has on it, over all conferences.
    pub participants: usize,
    pub operational: bool,
    /// Not operational, but answers again: better than nothing.
    pub recovering: bool,
    /// Answers, but late: used only when nothing better is there.
    pub degraded: bool,
    /// Answers nothing, though it is in the brewery: the last to be used.
    pub silent: bool,
    /// Its presence is recent.
    pub fresh: bool,
    /// It owes as many answers as it may.
    pub busy: bool,
    pub drain: bool,
    pub graceful_shutdown: bool,
    pub shutting_down: bool,
    pub version: Option<String>,
    pub region: Option<String>,
    pub relay_id: Option<String>,
}

/// A bridge the conference already uses.
#[derive(Clone, Debug, PartialEq)]
pub struct InUse {
    pub bridge: FullJid,
    pub participants: usize,
    /// Placed on it by this conference within `max-bridge-participants-interval`.
    pub recently_added: usize,
}

/// Who is to be placed, and for which conference.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    /// In the order in which the conference took them.
    pub in_use: &'a [InUse],
    pub region: Option<&'a str>,
    /// Full version the conference must stay with; `None`: any.
    pub version: Option<&'a str>,
    /// Bridges that failed the conference lately: a last choice.
    pub avoided: &'a [FullJid],
}

/// `jicofo.bridge.selection-strategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    #[default]
    Single,
    Split,
    IntraRegion,
    RegionBased,
}

impl Strategy {
    /// By jicofo's class name, simple or qualified.
    pub fn from_class(name: &str) -> Option<Self> {
        match name.rsplit('.').next().unwrap_or(name) {
            "SingleBridgeSelectionStrategy" => Some(Self::Single),
            "SplitBridgeSelectionStrategy" => Some(Self::Split),
            "IntraRegionBridgeSelectionStrategy" => Some(Self::IntraRegion),
            "RegionBasedBridgeSelectionStrategy" => Some(Self::RegionBased),
            _ => None,
        }
    }
}

/// The operator's wishes: `jicofo.bridge.*`, `jicofo.local-region`, `jicofo.octo.*`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub strategy: Strategy,
    /// At or above this corrected stress a bridge is overloaded.
    pub stress_threshold: f64,
    /// Of one conference on one bridge; `None`: no limit.
    pub max_participants: Option<usize>,
    /// Placed on one bridge by one conference within the interval; `None`: no limit.
    pub max_added: Option<usize>,
    pub local_region: Option<String>,
    pub region_groups: Vec<Vec<String>>,
    /// A conference may span bridges.
    pub octo: bool,
    pub allow_mixed_versions: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            strategy: Strategy::Single,
            stress_threshold: 0.8,
            max_participants: Some(80),
            max_added: None,
            local_region: None,
            region_groups: Vec::new(),
            octo: false,
            allow_mixed_versions: false,
        }
    }
}

/// A placement and the rule that made it (shown in `/debug`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub bridge: FullJid,
    pub why: &'static str,
}

/// Why nothing can be placed now. It may change with any bridge presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBridge {
    #[error("no bridge is known")]
    NoneKnown,
    #[error("no bridge is operational")]
    NoneOperational,
    #[error("every operational bridge is shutting down")]
    AllShuttingDown,
    #[error("no operational bridge has the version the conference needs")]
    OtherVersions,
    #[error("the strategy accepts none of the operational bridges")]
    StrategyRefused,
    #[error("the bridge owes as many answers as it may")]
    Busy,
}

/// Chooses among `candidates`; the caller books the choice at once.
pub fn select(
    candidates: &[Candidate],
    request: &Request<'_>,
    settings: &Settings,
) -> Result<Choice, NoBridge> {
    if candidates.is_empty() {
        return Err(NoBridge::NoneKnown);
    }
    let mut left: Vec<&Candidate> = candidates.iter().filter(|c| c.operational).collect();
    if left.is_empty() {
        left = candidates.iter().filter(|c| c.recovering).collect();
    }
    if left.is_empty() {
        left = candidates.iter().filter(|c| c.silent).collect();
        prefer(&mut left, |c| c.fresh);
    }
    if left.is_empty() {
        return Err(NoBridge::NoneOperational);
    }
    left.sort_by_cached_key(|candidate| order(candidate));
    left.retain(|c| !c.shutting_down);
    if left.is_empty() {
        return Err(NoBridge::AllShuttingDown);
    }
    if let Some(version) = request.version
        && !settings.allow_mixed_versions
    {
        left.retain(|c| c.version.as_deref() == Some(version));
        if left.is_empty() {
            return Err(NoBridge::OtherVersions);
        }
    }
    prefer(&mut left, |c| !c.drain);
    prefer(&mut left, |c| !c.graceful_shutdown);
    prefer(&mut left, |c| !c.degraded);
    prefer(&mut left, |c| !c.busy);
    prefer(&mut left, |c| !request.avoided.contains(&c.bridge));

    // Bridges of the conference that no longer work do not count. One that does not
    // answer does, where none is well: its calls do not leave for one newcomer's sake.
    let none_is_well = !left.iter().any(|c| c.operational && !c.degraded);
    let in_use: Vec<(&Candidate, &InUse)> = request
        .in_use
        .iter()
        .filter_map(|used| {
            let candidate = candidates.iter().find(|c| c.bridge == used.bridge)?;
            let works =
                candidate.operational || candidate.recovering || none_is_well && candidate.silent;
            (works && !candidate.shutting_down).then_some((candidate, used))
        })
        .collect();
    if let Some((first, _)) = in_use.first()
        && (!settings.octo || first.relay_id.is_none())
    {
        return Ok(choice(first, "the conference is on it"));
    }
    let view = View {
        left: &left,
        in_use: &in_use,
        settings,
    };
    match settings.strategy {
        Strategy::Single => view.single(request.region),
        Strategy::Split => view.split(),
        Strategy::IntraRegion => view.intra_region(request.region),
        Strategy::RegionBased => view.region_based(request.region),
    }
    .ok_or(NoBridge::StrategyRefused)
}

/// Priority, then load in steps of [`RESOLUTION`], then our participants, then
/// the exact load; the name makes it total.
fn order(c: &Candidate) -> (u8, u64, usize, u64, String) {
    let exact = (c.stress.max(0.0) * 1e6) as u64;
    (
        u8::from(c.graceful_shutdown),
        (c.stress.max(0.0) / RESOLUTION + 1e-9) as u64,
        c.participants,
        exact,
        c.bridge.to_string(),
    )
}

/// Keeps only those that satisfy `wish`, if any does.
fn prefer(left: &mut Vec<&Candidate>, wish: impl Fn(&Candidate) -> bool) {
    if left.iter().any(|c| wish(c)) {
        left.retain(|c| wish(c));
    }
}

fn choice(candidate: &Candidate, why: &'static str) -> Choice {
    Choice {
        bridge: candidate.bridge.clone(),
        why,
    }
}

/// Sorted candidates and the working bridges of the conference.
struct View<'a> {
    left: &'a [&'a Candidate],
    in_use: &'a [(&'a Candidate, &'a InUse)],
    settings: &'a Settings,
}

impl View<'_> {
    fn first(&self, why: &'static str, wish: impl Fn(&Candidate) -> bool) -> Option<Choice> {
        self.left.iter().find(|c| wish(c)).map(|c| choice(c, why))
    }

    fn used(&self, c: &Candidate) -> Option<&InUse> {
        self.in_use
            .iter()
            .find(|(_, used)| used.bridge == c.bridge)
            .map(|(_, used)| *used)
    }

    fn overloaded(&self, c: &Candidate) -> bool {
        c.stress >= self.settings.stress_threshold
    }

    fn full(&self, c: &Candidate) -> bool {
        self.used(c).is_some_and(|used| {
            self.settings
                .max_participants
                .is_some_and(|max| used.participants >= max)
        })
    }

    /// Overloaded for this conference: by itself, or by a cap.
    fn loaded(&self, c: &Candidate) -> bool {
        self.overloaded(c)
            || self.full(c)
            || self.used(c).is_some_and(|used| {
                self.settings
                    .max_added
                    .is_some_and(|max| used.recently_added >= max)
            })
    }

    fn single(&self, region: Option<&str>) -> Option<Choice> {
        match self.in_use {
            [] => region
                .and_then(|r| {
                    self.first("least load in the region", |c| {
                        c.region.as_deref() == Some(r)
                    })
                })
                .or_else(|| self.first("least load", |_| true)),
            [(only, _)] => Some(choice(only, "the conference is on it")),
            _ => None,
        }
    }

    fn split(&self) -> Option<Choice> {
        self.first("not in the conference yet", |c| self.used(c).is_none())
            .or_else(|| {
                let fewest = self
                    .left
                    .iter()
                    .filter_map(|c| self.used(c).map(|used| (used.participants, *c)))
                    .min_by_key(|(participants, _)| *participants)?;
                Some(choice(fewest.1, "fewest participants of the conference"))
            })
    }

    fn intra_region(&self, region: Option<&str>) -> Option<Choice> {
        let Some((first, _)) = self.in_use.first() else {
            return self
                .first("not loaded, in the region", |c| {
                    !self.loaded(c) && c.region.as_deref() == region
                })
                .or_else(|| self.first("least load", |_| true));
        };
        let here = |c: &Candidate| c.region == first.region;
        self.first("not loaded, in the conference", |c| {
            !self.loaded(c) && self.used(c).is_some() && here(c)
        })
        .or_else(|| {
            self.first("not loaded, in the conference's region", |c| {
                !self.loaded(c) && here(c)
            })
        })
        .or_else(|| self.first("in the conference", |c| self.used(c).is_some() && here(c)))
    }

    fn region_based(&self, region: Option<&str>) -> Option<Choice> {
        let local = self.settings.local_region.as_deref();
        let mut region = region.or(local);
        if local.is_some() {
            let group = self.group(region);
            if self.in_use.is_empty()
                && region != local
                && local.is_some_and(|l| group.contains(&l))
            {
                region = local;
            }
            let group = self.group(region);
            if !self
                .left
                .iter()
                .any(|c| c.region.as_deref().is_some_and(|r| group.contains(&r)))
            {
                region = local;
            }
        }
        let group = self.group(region);
        let same = |c: &Candidate| region.is_some() && c.region.as_deref() == region;
        let near = |c: &Candidate| c.region.as_deref().is_some_and(|r| group.contains(&r));
        let used = |c: &Candidate| self.used(c).is_some();
        self.first("1: not loaded, in the conference, in the region", |c| {
            !self.loaded(c) && used(c) && same(c)
        })
        .or_else(|| {
            self.first(
                "2: not loaded, in the conference, in the region's group",
                |c| !self.loaded(c) && used(c) && near(c),
            )
        })
        .or_else(|| {
            self.first("3: not loaded, in the region", |c| {
                !self.loaded(c) && same(c)
            })
        })
        .or_else(|| {
            self.first("4: not loaded, in the region's group", |c| {
                !self.loaded(c) && near(c)
            })
        })
        .or_else(|| {
            self.first("5: not loaded, in the conference", |c| {
                !self.loaded(c) && used(c)
            })
        })
        .or_else(|| self.first("6: not overloaded", |c| !self.overloaded(c)))
        .or_else(|| {
            self.first("7: in the conference, below its cap", |c| {
                used(c) && !self.full(c)
            })
        })
        .or_else(|| self.first("8: least load", |_| true))
    }

    /// The region and those grouped with it; an unknown region is its own group.
    fn group<'s>(&'s self, region: Option<&'s str>) -> Vec<&'s str> {
        let Some(region) = region else {
            return Vec::new();
        };
        self.settings
            .region_groups
            .iter()
            .find(|group| group.iter().any(|r| r == region))
            .map_or_else(
                || vec![region],
                |group| group.iter().map(String::as_str).collect(),
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(nick: &str) -> FullJid {
        FullJid::new(&format!("brewery@internal.example/{nick}")).expect("a valid address")
    }

    fn candidate(nick: &str, stress: f64) -> Candidate {
        Candidate {
            bridge: jid(nick),
            stress,
            participants: 0,
            operational: true,
            recovering: false,
            degraded: false,
            silent: false,
            fresh: true,
            busy: false,
            drain: false,
            graceful_shutdown: false,
            shutting_down: false,
            version: Some("v1".into()),
            region: None,
            relay_id: Some(nick.into()),
        }
    }

    fn chosen(result: Result<Choice, NoBridge>) -> String {
        result.map_or_else(|e| e.to_string(), |c| c.bridge.resource().to_string())
    }

    /// The table of focus-bridge §6.2.
    #[test]
    fn eligibility_follows_jicofo() {
        let settings = Settings::default();
        let with = |change: &dyn Fn(&mut Candidate), mut c: Candidate| {
            change(&mut c);
            c
        };
        let drain = &|c: &mut Candidate| c.drain = true;
        let graceful = &|c: &mut Candidate| c.graceful_shutdown = true;
        let dead = &|c: &mut Candidate| c.operational = false;
        let stopping = &|c: &mut Candidate| c.shutting_down = true;
        let silent = &|c: &mut Candidate| (c.operational, c.silent) = (false, true);
        for (name, candidates, expected) in [
            ("none", vec![], "no bridge is known"),
            (
                "drain",
                vec![with(drain, candidate("a", 0.1)), candidate("b", 0.95)],
                "b",
            ),
            ("drain only", vec![with(drain, candidate("a", 0.1))], "a"),
            (
                "graceful against drain",
                vec![
                    with(graceful, candidate("a", 0.1)),
                    with(drain, candidate("b", 0.1)),
                ],
                "a",
            ),
            (
                "graceful",
                vec![with(graceful, candidate("a", 0.1)), candidate("b", 0.95)],
                "b",
            ),
            (
                "dead",
                vec![with(dead, candidate("a", 0.1)), candidate("b", 0.95)],
                "b",
            ),
            (
                "all dead",
                vec![with(dead, candidate("a", 0.1))],
                "no bridge is operational",
            ),
            (
                "recovering, better than nothing",
                vec![
                    with(dead, candidate("a", 0.0)),
                    with(
                        &|c| (c.operational, c.recovering) = (false, true),
                        candidate("b", 0.5),
                    ),
                ],
                "b",
            ),
            (
                "recovering, and something better",
                vec![
                    with(
                        &|c| (c.operational, c.recovering) = (false, true),
                        candidate("a", 0.0),
                    ),
                    candidate("b", 0.95),
                ],
                "b",
            ),
            (
                "silent, the last of all",
                vec![
                    with(silent, candidate("a", 0.0)),
                    with(
                        &|c| (c.operational, c.recovering) = (false, true),
                        candidate("b", 0.5),
                    ),
                ],
                "b",
            ),
            (
                "silent, but heard of lately",
                vec![
                    with(&|c| c.fresh = false, with(silent, candidate("a", 0.0))),
                    with(silent, candidate("b", 0.5)),
                    with(dead, candidate("c", 0.0)),
                ],
                "b",
            ),
            (
                "busy",
                vec![
                    with(&|c| c.busy = true, candidate("a", 0.0)),
                    candidate("b", 0.95),
                ],
                "b",
            ),
            (
                "all stopping",
                vec![with(stopping, candidate("a", 0.1))],
                "every operational bridge is shutting down",
            ),
            (
                "least load",
                vec![candidate("a", 0.3), candidate("b", 0.1)],
                "b",
            ),
            (
                "noise is no load: fewest participants",
                vec![
                    with(&|c| c.participants = 3, candidate("a", 0.01)),
                    candidate("b", 0.04),
                ],
                "b",
            ),
            (
                "a late answer is a last choice",
                vec![
                    with(&|c| c.degraded = true, candidate("a", 0.0)),
                    candidate("b", 0.9),
                ],
                "b",
            ),
        ] {
            let got = chosen(select(&candidates, &Request::default(), &settings));
            assert_eq!(got, expected, "{name}");
        }
    }

    #[test]
    fn newcomers_follow_their_call_to_a_silent_bridge_unless_another_is_well() {
        let mut silent = candidate("a", 0.9);
        (silent.operational, silent.silent) = (false, true);
        let other = |operational, degraded, recovering| {
            let mut other = candidate("b", 0.0);
            (other.operational, other.degraded, other.recovering) =
                (operational, degraded, recovering);
            other
        };
        let in_use = [InUse {
            bridge: silent.bridge.clone(),
            participants: 90,
            recently_added: 0,
        }];
        let request = Request {
            in_use: &in_use,
            ..Request::default()
        };
        for (other, expected) in [
            (other(true, false, false), "b"),
            (other(true, true, false), "a"),
            (other(false, false, true), "a"),
            (other(false, false, false), "a"),
        ] {
            let candidates = [silent.clone(), other];
            let got = chosen(select(&candidates, &request, &Settings::default()));
            assert_eq!(got, expected, "{candidates:?}");
        }
    }

    #[test]
    fn conference_stays_on_its_bridge_and_leaves_a_dead_one() {
        let settings = Settings::default();
        let in_use = [InUse {
            bridge: jid("a"),
            participants: 2,
            recently_added: 2,
        }];
        let request = Request {
            in_use: &in_use,
            ..Request::default()
        };
        let mut a = candidate("a", 2.0);
        a.drain = true;
        let b = candidate("b", 0.0);
        assert_eq!(
            chosen(select(&[a.clone(), b.clone()], &request, &settings)),
            "a"
        );
        a.operational = false;
        assert_eq!(chosen(select(&[a, b], &request, &settings)), "b");
    }

    /// A conference on version 1 never mixes with a bridge of version 2.
    #[test]
    fn versions_do_not_mix() {
        let mut b = candidate("b", 0.0);
        b.version = Some("v2".into());
        let request = Request {
            version: Some("v1"),
            ..Request::default()
        };
        let settings = Settings::default();
        assert_eq!(
            chosen(select(&[b.clone()], &request, &settings)),
            NoBridge::OtherVersions.to_string()
        );
        assert_eq!(
            chosen(select(&[candidate("a", 0.9), b], &request, &settings)),
            "a"
        );
    }

    /// The test vectors of focus-bridge §6.3.
    #[test]
    fn region_based_follows_jicofo() {
        let place = |nick: &str, region: &str, stress: f64| {
            let mut c = candidate(nick, stress);
            c.region = Some(region.into());
            c
        };
        let fleet = [
            place("A", "r1", 0.1),
            place("B", "r2", 0.3),
            place("C", "r3", 0.5),
            place("D", "r1", 0.9),
        ];
        let hot: Vec<_> = fleet
            .iter()
            .cloned()
            .map(|mut c| {
                c.stress = c.stress.max(0.8) + 0.1 * c.stress;
                c
            })
            .collect();
        let used = |nick: &str, participants| InUse {
            bridge: jid(nick),
            participants,
            recently_added: 0,
        };
        type Case<'a> = (
            &'a [Candidate],
            Vec<InUse>,
            Option<&'a str>,
            Option<&'a str>,
            &'a str,
        );
        let cases: Vec<Case<'_>> = vec![
            (&fleet, vec![], Some("r1"), None, "A"),
            (&fleet, vec![], Some("r2"), Some("r1"), "A"),
            (&fleet, vec![], Some("r3"), Some("r1"), "C"),
            (&fleet, vec![], Some("r9"), Some("r1"), "A"),
            (&fleet, vec![], None, None, "A"),
            (&fleet, vec![used("B", 1)], Some("r1"), None, "B"),
            (&fleet, vec![used("D", 1)], Some("r1"), None, "A"),
            (&fleet, vec![used("C", 1)], Some("r9"), None, "C"),
            (&fleet, vec![used("A", 80)], Some("r1"), None, "B"),
            (&fleet[..1], vec![used("A", 80)], Some("r1"), None, "A"),
            (&hot, vec![used("A", 79)], Some("r1"), None, "A"),
            (&hot, vec![used("A", 80)], Some("r1"), None, "A"),
        ];
        for (candidates, in_use, region, local, expected) in cases {
            let settings = Settings {
                strategy: Strategy::RegionBased,
                local_region: local.map(str::to_owned),
                region_groups: vec![vec!["r1".into(), "r2".into()]],
                octo: true,
                ..Settings::default()
            };
            let request = Request {
                in_use: &in_use,
                region,
                ..Request::default()
            };
            let got = chosen(select(candidates, &request, &settings));
            assert_eq!(got, expected, "{in_use:?} {region:?} {local:?}");
        }
    }

    #[test]
    fn split_takes_a_fresh_bridge_first() {
        let settings = Settings {
            strategy: Strategy::Split,
            octo: true,
            ..Settings::default()
        };
        let fleet = [candidate("a", 0.0), candidate("b", 0.5)];
        let used = |nick: &str, participants| InUse {
            bridge: jid(nick),
            participants,
            recently_added: 0,
        };
        for (in_use, expected) in [
            (vec![], "a"),
            (vec![used("a", 1)], "b"),
            (vec![used("a", 2), used("b", 1)], "b"),
        ] {
            let request = Request {
                in_use: &in_use,
                ..Request::default()
            };
            assert_eq!(chosen(select(&fleet, &request, &settings)), expected);
        }
    }
}
