//! Who sends which SSRC in one conference.
//!
//! [`Sources`] holds what every endpoint announced and refuses what would break
//! another's call; the rules are jicofo's (`ValidatingConferenceSourceMap.kt`,
//! client-focus §4.5), with one more: nobody may use another's source name,
//! because clients key remote sources by it. [`announced`] is what receivers are
//! told, [`difference`] what has changed for one of them.

use std::collections::{BTreeMap, BTreeSet};

use viaduct_signalling::sources::{EndpointSources, Group, MediaType, Semantics, Source};

/// Bounds of what one endpoint may announce: `max-ssrcs-per-user`, `max-ssrc-groups-per-user`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub ssrcs: usize,
    pub groups: usize,
}

/// Why an announcement was refused: the client's fault, answered `bad-request`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("SSRC 0 is not valid")]
    ZeroSsrc,
    #[error("SSRC {0} is already used")]
    SsrcInUse(u32),
    #[error("msid {0:?} is already used by another endpoint")]
    MsidInUse(String),
    #[error("source name {0:?} is used by another endpoint or for the other media type")]
    NameInUse(String),
    #[error("more than {0} SSRCs")]
    TooManySsrcs(usize),
    #[error("more than {0} SSRC groups")]
    TooManyGroups(usize),
    #[error("group names SSRC {0}, which is no source")]
    GroupWithoutSource(u32),
    #[error("an FID group has two SSRCs, not {0}")]
    FidSize(usize),
    #[error("grouped source {0} has no msid")]
    GroupedWithoutMsid(u32),
    #[error("the sources of one group have different msids")]
    GroupOfSeveralMsids,
    #[error("msid {0:?} is used by unrelated groups")]
    MsidInSeveralGroups(String),
    #[error("SSRC {0} does not exist")]
    UnknownSsrc(u32),
    #[error("such a group does not exist")]
    UnknownGroup,
}

/// What receivers are told of an endpoint's sources: those with a msid, of each
/// simulcast only the first SSRC with its retransmissions, and no groups but FID.
pub fn announced(sources: &EndpointSources, strip_simulcast: bool) -> EndpointSources {
    let mut told = if strip_simulcast {
        sources.without_simulcast()
    } else {
        sources.clone()
    };
    told.sources.retain(|source| source.msid.is_some());
    let kept: BTreeSet<u32> = told.sources.iter().map(|source| source.ssrc).collect();
    told.groups.retain(|group| {
        matches!(group.semantics, Semantics::Fid | Semantics::Sim)
            && group.ssrcs.iter().all(|ssrc| kept.contains(ssrc))
    });
    told
}

/// What is in `new` and not in `old`, whole sources (names) at a time: a client
/// finds and forgets a remote source by its name.
pub fn difference(new: &EndpointSources, old: &EndpointSources) -> EndpointSources {
    let (new, old) = (by_name(new), by_name(old));
    let mut result = EndpointSources::default();
    for (name, part) in new {
        if old.get(&name) != Some(&part) {
            result.sources.extend(part.0.into_iter().cloned());
            result.groups.extend(part.1.into_iter().cloned());
        }
    }
    result
}

type Named<'a> = (Vec<&'a Source>, Vec<&'a Group>);

fn by_name(set: &EndpointSources) -> BTreeMap<Option<&str>, Named<'_>> {
    let mut names: BTreeMap<Option<&str>, Named<'_>> = BTreeMap::new();
    for source in &set.sources {
        names
            .entry(source.name.as_deref())
            .or_default()
            .0
            .push(source);
    }
    for group in &set.groups {
        if let Some(source) = group.ssrcs.first().and_then(|first| set.get(*first)) {
            names
                .entry(source.name.as_deref())
                .or_default()
                .1
                .push(group);
        }
    }
    names
}

/// The sources of all endpoints of a conference.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    endpoints: BTreeMap<String, EndpointSources>,
}

impl Sources {
    pub fn get(&self, endpoint: &str) -> Option<&EndpointSources> {
        self.endpoints.get(endpoint)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&String, &EndpointSources)> {
        self.endpoints.iter()
    }

    /// Takes an announcement whole or not at all.
    pub fn add(
        &mut self,
        endpoint: &str,
        more: &EndpointSources,
        limits: Limits,
    ) -> Result<(), SourceError> {
        let empty = EndpointSources::default();
        let present = self.endpoints.get(endpoint).unwrap_or(&empty);
        let mut merged = present.clone();
        merged.sources.extend(more.sources.iter().cloned());
        for group in more.groups.iter().filter(|group| !group.ssrcs.is_empty()) {
            if !merged.groups.contains(group) {
                merged.groups.push(group.clone());
            }
        }
        if merged.sources.len() > limits.ssrcs {
            return Err(SourceError::TooManySsrcs(limits.ssrcs));
        }
        if merged.groups.len() > limits.groups {
            return Err(SourceError::TooManyGroups(limits.groups));
        }
        let mut used: BTreeSet<u32> = self
            .endpoints
            .values()
            .flat_map(|set| set.sources.iter().map(|s| s.ssrc))
            .collect();
        for source in &more.sources {
            if source.ssrc == 0 {
                return Err(SourceError::ZeroSsrc);
            }
            if !used.insert(source.ssrc) {
                return Err(SourceError::SsrcInUse(source.ssrc));
            }
        }
        merged.name_nameless(endpoint);
        let others = || {
            self.endpoints
                .iter()
                .filter(|(owner, _)| *owner != endpoint)
                .flat_map(|(_, set)| set.sources.iter())
        };
        for source in &merged.sources[present.sources.len()..] {
            if source.msid.is_some() && others().any(|other| other.msid == source.msid) {
                return Err(SourceError::MsidInUse(
                    source.msid.clone().unwrap_or_default(),
                ));
            }
            let both_media = merged
                .sources
                .iter()
                .any(|other| other.name == source.name && other.media_type != source.media_type);
            if both_media || others().any(|other| other.name == source.name) {
                return Err(SourceError::NameInUse(
                    source.name.clone().unwrap_or_default(),
                ));
            }
        }
        check_groups(&merged)?;
        if !merged.is_empty() {
            self.endpoints.insert(endpoint.to_owned(), merged);
        }
        Ok(())
    }

    /// Removes exactly what is listed, and groups that lose a member.
    pub fn remove(&mut self, endpoint: &str, listed: &EndpointSources) -> Result<(), SourceError> {
        let mut listed = listed.clone();
        listed.groups.retain(|group| !group.ssrcs.is_empty());
        let empty = EndpointSources::default();
        let present = self.endpoints.get(endpoint).unwrap_or(&empty);
        for source in &listed.sources {
            if present.get(source.ssrc).is_none() {
                return Err(SourceError::UnknownSsrc(source.ssrc));
            }
        }
        let known = |group: &Group| {
            present
                .groups
                .iter()
                .any(|p| p.semantics == group.semantics && p.ssrcs == group.ssrcs)
        };
        if !listed.groups.iter().all(known) {
            return Err(SourceError::UnknownGroup);
        }
        let Some(set) = self.endpoints.get_mut(endpoint) else {
            return Ok(());
        };
        set.remove(&listed);
        if set.is_empty() {
            self.endpoints.remove(endpoint);
        }
        Ok(())
    }

    /// All sources of an endpoint are gone; whether it had any.
    pub fn forget(&mut self, endpoint: &str) -> bool {
        self.endpoints.remove(endpoint).is_some()
    }
}

fn check_groups(set: &EndpointSources) -> Result<(), SourceError> {
    // Groups that share an SSRC are related; a msid belongs to one such family.
    let mut families: Vec<(MediaType, String, BTreeSet<u32>)> = Vec::new();
    for group in &set.groups {
        if group.semantics == Semantics::Fid && group.ssrcs.len() != 2 {
            return Err(SourceError::FidSize(group.ssrcs.len()));
        }
        let mut msid: Option<&String> = None;
        for ssrc in &group.ssrcs {
            let source = set
                .get(*ssrc)
                .ok_or(SourceError::GroupWithoutSource(*ssrc))?;
            let own = source
                .msid
                .as_ref()
                .ok_or(SourceError::GroupedWithoutMsid(*ssrc))?;
            if msid.is_some_and(|msid| msid != own) {
                return Err(SourceError::GroupOfSeveralMsids);
            }
            msid = Some(own);
        }
        let Some(msid) = msid else { continue };
        let mut members: BTreeSet<u32> = group.ssrcs.iter().copied().collect();
        families.retain(|(media, _, ssrcs)| {
            let related = *media == group.media_type && !ssrcs.is_disjoint(&members);
            if related {
                members.extend(ssrcs.iter().copied());
            }
            !related
        });
        families.push((group.media_type, msid.clone(), members));
    }
    let mut seen = BTreeSet::new();
    for (media, msid, _) in families {
        if !seen.insert((media, msid.clone())) {
            return Err(SourceError::MsidInSeveralGroups(msid));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        ssrcs: 20,
        groups: 20,
    };

    fn source(ssrc: u32, name: &str, msid: &str) -> Source {
        let media_type = if name.contains("-a") {
            MediaType::Audio
        } else {
            MediaType::Video
        };
        Source {
            ssrc,
            media_type,
            name: Some(name.to_owned()),
            msid: (!msid.is_empty()).then(|| msid.to_owned()),
            video_type: None,
        }
    }

    fn group(semantics: Semantics, ssrcs: &[u32]) -> Group {
        Group {
            semantics,
            media_type: MediaType::Video,
            ssrcs: ssrcs.to_vec(),
        }
    }

    /// Three layers with retransmission, as a current client sends a camera.
    fn camera(endpoint: &str, base: u32) -> EndpointSources {
        let name = format!("{endpoint}-v0");
        let msid = format!("{endpoint}-video-0-1 t{base}-1");
        EndpointSources {
            sources: (0..6).map(|i| source(base + i, &name, &msid)).collect(),
            groups: vec![
                group(Semantics::Fid, &[base, base + 3]),
                group(Semantics::Sim, &[base, base + 1, base + 2]),
                group(Semantics::Fid, &[base + 1, base + 4]),
                group(Semantics::Fid, &[base + 2, base + 5]),
            ],
        }
    }

    #[test]
    fn simulcast_is_announced_as_one_pair() {
        let stripped = announced(&camera("a", 10), true);
        let ssrcs: Vec<u32> = stripped.sources.iter().map(|s| s.ssrc).collect();
        assert_eq!(ssrcs, [10, 13]);
        assert_eq!(stripped.groups, [group(Semantics::Fid, &[10, 13])]);
        assert_eq!(announced(&camera("a", 10), false).sources.len(), 6);
        let mut bare = camera("a", 10);
        bare.sources.push(source(99, "a-v1", ""));
        assert_eq!(
            announced(&bare, true).sources.len(),
            2,
            "no msid, no line at the client"
        );
    }

    #[test]
    fn each_rule_refuses_its_own_fault() {
        let with = |sources: Vec<Source>, groups: Vec<Group>| EndpointSources { sources, groups };
        let fid = |a, b| group(Semantics::Fid, &[a, b]);
        for (set, expected) in [
            (
                with(vec![source(0, "a-v0", "m")], vec![]),
                SourceError::ZeroSsrc,
            ),
            (
                with(vec![source(500, "a-v0", "m")], vec![]),
                SourceError::SsrcInUse(500),
            ),
            (
                with(vec![source(1, "a-v0", "m"), source(1, "a-v0", "m")], vec![]),
                SourceError::SsrcInUse(1),
            ),
            (
                with(vec![source(1, "a-v0", "b-video-0-1 t500-1")], vec![]),
                SourceError::MsidInUse("b-video-0-1 t500-1".into()),
            ),
            (
                with(vec![source(1, "b-v0", "m")], vec![]),
                SourceError::NameInUse("b-v0".into()),
            ),
            (
                with((1..=21).map(|i| source(i, "a-v0", "m")).collect(), vec![]),
                SourceError::TooManySsrcs(20),
            ),
            (
                with(
                    vec![source(1, "a-v0", "m")],
                    (0..21)
                        .map(|i| group(Semantics::Other(i.to_string()), &[1]))
                        .collect(),
                ),
                SourceError::TooManyGroups(20),
            ),
            (
                with(vec![source(1, "a-v0", "m")], vec![fid(1, 2)]),
                SourceError::GroupWithoutSource(2),
            ),
            (
                with(
                    vec![source(1, "a-v0", "m")],
                    vec![group(Semantics::Fid, &[1])],
                ),
                SourceError::FidSize(1),
            ),
            (
                with(
                    vec![source(1, "a-v0", ""), source(2, "a-v0", "")],
                    vec![fid(1, 2)],
                ),
                SourceError::GroupedWithoutMsid(1),
            ),
            (
                with(
                    vec![source(1, "a-v0", "m"), source(2, "a-v0", "n")],
                    vec![fid(1, 2)],
                ),
                SourceError::GroupOfSeveralMsids,
            ),
            (
                with(
                    (1..=4).map(|i| source(i, "a-v0", "m")).collect(),
                    vec![fid(1, 2), fid(3, 4)],
                ),
                SourceError::MsidInSeveralGroups("m".into()),
            ),
        ] {
            let mut sources = Sources::default();
            sources
                .add("b", &camera("b", 500), LIMITS)
                .expect("a good camera");
            assert_eq!(sources.add("a", &set, LIMITS), Err(expected));
            assert!(
                sources.get("a").is_none(),
                "nothing of a refused announcement stays"
            );
        }
    }

    #[test]
    fn first_owner_wins_and_keeps_its_sources() {
        let mut sources = Sources::default();
        sources.add("a", &camera("a", 10), LIMITS).expect("good");
        let mut same = camera("b", 100);
        same.sources[0].ssrc = 10;
        same.groups.clear();
        assert_eq!(
            sources.add("b", &same, LIMITS),
            Err(SourceError::SsrcInUse(10))
        );
        assert_eq!(sources.get("a").map(|s| s.sources.len()), Some(6));
    }

    #[test]
    fn removal_needs_what_it_lists() {
        let mut sources = Sources::default();
        sources.add("a", &camera("a", 10), LIMITS).expect("good");
        let only = |ssrc| EndpointSources {
            sources: vec![source(ssrc, "", "")],
            groups: vec![],
        };
        assert_eq!(
            sources.remove("a", &only(9)),
            Err(SourceError::UnknownSsrc(9))
        );
        let group = EndpointSources {
            sources: vec![],
            groups: vec![group(Semantics::Sim, &[10, 11])],
        };
        assert_eq!(sources.remove("a", &group), Err(SourceError::UnknownGroup));
        sources
            .remove("a", &only(11))
            .expect("matched by SSRC alone");
        let left = sources.get("a").expect("five left");
        assert_eq!(
            (left.sources.len(), left.groups.len()),
            (5, 2),
            "groups of 11 went too"
        );
        sources.remove("a", &left.clone()).expect("all of it");
        assert!(sources.get("a").is_none());
    }

    /// gst-meet sends no names: one for each stream, the pair of an FID group shares it.
    #[test]
    fn nameless_sources_get_names() {
        let mut sources = Sources::default();
        let mut audio = source(1, "-a", "stream audio");
        audio.name = None;
        let mut set = camera("g", 10);
        set.sources.iter_mut().for_each(|s| s.name = None);
        set.sources.push(audio);
        sources.add("g", &set, LIMITS).expect("good");
        let names: Vec<&str> = sources
            .get("g")
            .expect("added")
            .sources
            .iter()
            .filter_map(|s| s.name.as_deref())
            .collect();
        assert_eq!(
            names,
            ["g-v0", "g-v0", "g-v0", "g-v0", "g-v0", "g-v0", "g-a0"]
        );
        let mut second = source(40, "-v", "other");
        second.name = None;
        sources
            .add(
                "g",
                &EndpointSources {
                    sources: vec![second],
                    groups: vec![],
                },
                LIMITS,
            )
            .expect("good");
        assert_eq!(
            sources.get("g").expect("added").sources[7].name.as_deref(),
            Some("g-v1")
        );
    }

    proptest! {
        /// Whatever was told before, removing what only `old` has and adding
        /// what only `new` has tells a receiver exactly the new set.
        #[test]
        fn difference_leads_from_old_to_new(
            old in proptest::collection::vec((1u32..30, 0u8..4), 0..10),
            new in proptest::collection::vec((1u32..30, 0u8..4), 0..10),
        ) {
            let set = |list: &[(u32, u8)]| {
                let mut set = EndpointSources::default();
                for (ssrc, name) in list {
                    if set.get(*ssrc).is_none() {
                        set.sources.push(source(*ssrc, &format!("e-v{name}"), "m"));
                    }
                }
                set
            };
            let (old, new) = (set(&old), set(&new));
            let (gone, come) = (difference(&old, &new), difference(&new, &old));
            let mut told: Vec<Source> =
                old.sources.iter().filter(|s| !gone.sources.contains(s)).cloned().collect();
            prop_assert!(gone.sources.iter().all(|s| old.sources.contains(s)));
            for source in come.sources {
                prop_assert!(!told.contains(&source), "added twice");
                told.push(source);
            }
            told.sort_by_key(|s| s.ssrc);
            let mut expected = new.sources.clone();
            expected.sort_by_key(|s| s.ssrc);
            prop_assert_eq!(told, expected);
        }
    }
}
