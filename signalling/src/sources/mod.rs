//! Who sends which SSRC: one model for the forms it travels in.
//!
//! | form | from, to | here |
//! |---|---|---|
//! | Jingle XML | client to focus; focus to older clients, with `ssrc-info` | [`EndpointSources::from_contents`], [`ConferenceSources::add_to_contents`] |
//! | compact JSON | focus to client | [`ConferenceSources::to_json`], [`ConferenceSources::from_json`] |
//! | colibri2 | focus to bridge | [`EndpointSources::to_colibri2`], [`EndpointSources::from_colibri2`] |
//!
//! Nothing is validated here beyond the form: whether an SSRC is free, a group
//! makes sense or a limit is kept is for the focus to say.

mod json;

use std::collections::{BTreeMap, BTreeSet};

use crate::colibri2;
use crate::jingle::{self, Content, Description, SourceParameter, SsrcGroup, SsrcInfo};

pub use crate::jingle::ssma::Semantics;
pub use json::JsonError;

/// The owner of the sources that a bridge sends itself.
pub const BRIDGE_OWNER: &str = "jvb";

/// Audio or video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MediaType {
    Audio,
    Video,
}

impl MediaType {
    /// Both, in the order in which contents are offered.
    pub const ALL: [Self; 2] = [Self::Audio, Self::Video];

    /// `audio` or `video`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }

    /// The reverse of [`MediaType::as_str`].
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|media| media.as_str() == word)
    }

    /// What a source's name tells: `a` or `v` behind the first hyphen.
    pub fn of_source_name(name: &str) -> Option<Self> {
        match name.split_once('-')?.1.chars().next()? {
            'a' => Some(Self::Audio),
            'v' => Some(Self::Video),
            _ => None,
        }
    }
}

impl From<MediaType> for colibri2::MediaType {
    fn from(media: MediaType) -> Self {
        match media {
            MediaType::Audio => Self::Audio,
            MediaType::Video => Self::Video,
        }
    }
}

/// What a video shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VideoType {
    #[default]
    Camera,
    Desktop,
}

impl VideoType {
    /// `camera` or `desktop`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Camera => "camera",
            Self::Desktop => "desktop",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Camera, Self::Desktop]
            .into_iter()
            .find(|video| video.as_str() == word)
    }
}

/// One SSRC of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub ssrc: u32,
    pub media_type: MediaType,
    /// Of the source; an SSRC and its retransmissions share it.
    pub name: Option<String>,
    /// `stream track`; an SSRC without it makes no sense to a client.
    pub msid: Option<String>,
    /// Absent is camera.
    pub video_type: Option<VideoType>,
}

/// SSRCs that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub media_type: MediaType,
    pub semantics: Semantics,
    /// For `FID` the stream and its retransmissions; for `SIM` the layers from
    /// the lowest up.
    pub ssrcs: Vec<u32>,
}

/// All that one endpoint sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSources {
    pub sources: Vec<Source>,
    pub groups: Vec<Group>,
}

impl EndpointSources {
    /// Whether there is neither source nor group.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.groups.is_empty()
    }

    /// The source with that SSRC.
    pub fn get(&self, ssrc: u32) -> Option<&Source> {
        self.sources.iter().find(|source| source.ssrc == ssrc)
    }

    /// The sources of these media only.
    pub fn only(&self, wanted: impl Fn(MediaType) -> bool) -> Self {
        Self {
            sources: self
                .sources
                .iter()
                .filter(|source| wanted(source.media_type))
                .cloned()
                .collect(),
            groups: self
                .groups
                .iter()
                .filter(|group| wanted(group.media_type))
                .cloned()
                .collect(),
        }
    }

    /// Adds what is not there yet. An SSRC counts once, a group too.
    pub fn merge(&mut self, more: &Self) {
        for source in &more.sources {
            if self.get(source.ssrc).is_none() {
                self.sources.push(source.clone());
            }
        }
        for group in &more.groups {
            if !self.groups.contains(group) {
                self.groups.push(group.clone());
            }
        }
    }

    /// Takes sources and groups away, and with them each group that loses a
    /// member. Sources are matched by SSRC alone. What was taken is returned.
    pub fn remove(&mut self, less: &Self) -> Self {
        let gone: BTreeSet<u32> = less.sources.iter().map(|source| source.ssrc).collect();
        let (sources, kept) = std::mem::take(&mut self.sources)
            .into_iter()
            .partition(|source| gone.contains(&source.ssrc));
        self.sources = kept;
        let (groups, kept) = std::mem::take(&mut self.groups)
            .into_iter()
            .partition(|group| {
                less.groups.contains(group) || group.ssrcs.iter().any(|ssrc| gone.contains(ssrc))
            });
        self.groups = kept;
        Self { sources, groups }
    }

    /// What receivers are told: of each simulcast group only the first SSRC
    /// with its retransmissions, since the bridge sends all layers as that one
    /// (`client-focus` §4.2).
    pub fn without_simulcast(&self) -> Self {
        let mut dropped = BTreeSet::new();
        for group in &self.groups {
            if group.semantics == Semantics::Sim {
                dropped.extend(group.ssrcs.iter().skip(1).copied());
            }
        }
        let partners: Vec<u32> = self
            .groups
            .iter()
            .filter(|group| group.semantics != Semantics::Sim)
            .filter(|group| group.ssrcs.first().is_some_and(|s| dropped.contains(s)))
            .flat_map(|group| group.ssrcs.iter().copied())
            .collect();
        dropped.extend(partners);
        Self {
            sources: self
                .sources
                .iter()
                .filter(|source| !dropped.contains(&source.ssrc))
                .cloned()
                .collect(),
            groups: self
                .groups
                .iter()
                .filter(|group| group.semantics != Semantics::Sim)
                .filter(|group| !group.ssrcs.iter().any(|s| dropped.contains(s)))
                .cloned()
                .collect(),
        }
    }

    /// Gives names to sources without one, as of clients that know none:
    /// `owner-a0`, `owner-v0` and so on, one for each msid.
    pub fn name_nameless(&mut self, owner: &str) {
        let used: BTreeSet<String> = self.sources.iter().filter_map(|s| s.name.clone()).collect();
        let mut given: Vec<(MediaType, Option<String>, String)> = Vec::new();
        for source in &mut self.sources {
            if source.name.is_some() {
                continue;
            }
            let known = given
                .iter()
                .find(|(media, msid, _)| *media == source.media_type && *msid == source.msid);
            let name = match known {
                Some((_, _, name)) => name.clone(),
                None => {
                    let letter = &source.media_type.as_str()[..1];
                    let name = (0..)
                        .map(|n| format!("{owner}-{letter}{n}"))
                        .find(|name| {
                            !used.contains(name) && !given.iter().any(|(_, _, n)| n == name)
                        })
                        .expect("numbers do not run out");
                    given.push((source.media_type, source.msid.clone(), name.clone()));
                    name
                }
            };
            source.name = Some(name);
        }
    }

    /// Reads the sources in a client's contents. Contents of other media are
    /// passed over.
    pub fn from_contents(contents: &[Content]) -> Self {
        let mut sources = Self::default();
        for (media_type, description) in media_descriptions(contents) {
            sources.sources.extend(
                description
                    .sources
                    .iter()
                    .map(|source| Source::from_xml(source, media_type)),
            );
            sources.groups.extend(
                description
                    .ssrc_groups
                    .iter()
                    .map(|group| Group::from_xml(group, media_type)),
            );
        }
        sources
    }

    /// The contents of a client's source-add or source-remove, without owner.
    pub fn to_contents(&self) -> Vec<Content> {
        let mut contents = Vec::new();
        self.add_to_contents(&mut contents, None);
        contents
    }

    fn add_to_contents(&self, contents: &mut Vec<Content>, owner: Option<&str>) {
        for media_type in MediaType::ALL {
            let part = self.only(|media| media == media_type);
            if part.is_empty() {
                continue;
            }
            let name = media_type.as_str();
            let index = contents.iter().position(|content| content.name == name);
            let index = index.unwrap_or_else(|| {
                contents.push(Content {
                    name: name.to_owned(),
                    ..Content::default()
                });
                contents.len() - 1
            });
            let description = contents[index]
                .description
                .get_or_insert_with(|| Description {
                    media: Some(name.to_owned()),
                    ..Description::default()
                });
            description
                .sources
                .extend(part.sources.iter().map(|source| source.to_xml(owner)));
            description
                .ssrc_groups
                .extend(part.groups.iter().map(Group::to_xml));
        }
    }

    /// The form for a bridge: one `media-source` for each name, in order.
    /// Sources without a name have no place in it and are left out.
    pub fn to_colibri2(&self) -> colibri2::Sources {
        let mut all: Vec<colibri2::MediaSource> = Vec::new();
        let mut home = BTreeMap::new();
        for source in &self.sources {
            let Some(name) = &source.name else { continue };
            let index = all.iter().position(|media| media.id == *name);
            let index = index.unwrap_or_else(|| {
                all.push(colibri2::MediaSource {
                    kind: source.media_type.into(),
                    id: name.clone(),
                    synthetic: false,
                    sources: Vec::new(),
                    ssrc_groups: Vec::new(),
                });
                all.len() - 1
            });
            home.insert(source.ssrc, index);
            all[index].sources.push(jingle::Source {
                // The bridge has no use for it.
                parameters: Vec::new(),
                ..source.to_xml(None)
            });
        }
        for group in &self.groups {
            let index = group.ssrcs.first().and_then(|ssrc| home.get(ssrc));
            if let Some(&index) = index {
                all[index].ssrc_groups.push(group.to_xml());
            }
        }
        colibri2::Sources { media_sources: all }
    }

    /// Reads the form for a bridge. The name of a `media-source` holds for all
    /// in it; unknown media are passed over.
    pub fn from_colibri2(form: &colibri2::Sources) -> Self {
        let mut sources = Self::default();
        for media in &form.media_sources {
            let Some(media_type) = MediaType::from_word(media.kind.as_str()) else {
                continue;
            };
            sources
                .sources
                .extend(media.sources.iter().map(|source| Source {
                    name: Some(media.id.clone()),
                    ..Source::from_xml(source, media_type)
                }));
            sources.groups.extend(
                media
                    .ssrc_groups
                    .iter()
                    .map(|group| Group::from_xml(group, media_type)),
            );
        }
        sources
    }

    /// A bridge's feedback sources as clients are to be told them: the focus
    /// adds the msid by which the client library knows them, without which the
    /// client's own sending breaks (`client-focus` §4.2).
    pub fn bridge_feedback(form: &colibri2::Sources) -> Self {
        let mut sources = Self::from_colibri2(form);
        for source in &mut sources.sources {
            let media = source.media_type.as_str();
            source.msid = Some(format!("mixedmslabel mixedlabel{media}0"));
        }
        sources
    }
}

impl Source {
    fn from_xml(source: &jingle::Source, media_type: MediaType) -> Self {
        Self {
            ssrc: source.ssrc,
            media_type,
            name: source.name.clone(),
            msid: source.parameter("msid").map(str::to_owned),
            video_type: source.video_type.as_deref().and_then(VideoType::from_word),
        }
    }

    fn to_xml(&self, owner: Option<&str>) -> jingle::Source {
        jingle::Source {
            ssrc: self.ssrc,
            name: self.name.clone(),
            rid: None,
            video_type: self.video_type.map(|video| video.as_str().to_owned()),
            parameters: self
                .msid
                .iter()
                .map(|msid| SourceParameter {
                    name: Some("msid".to_owned()),
                    value: msid.clone(),
                })
                .collect(),
            info: owner.map(|owner| SsrcInfo {
                owner: owner.to_owned(),
            }),
        }
    }
}

impl Group {
    fn from_xml(group: &SsrcGroup, media_type: MediaType) -> Self {
        Self {
            media_type,
            semantics: group.semantics.clone(),
            ssrcs: group.sources.iter().map(|source| source.ssrc).collect(),
        }
    }

    fn to_xml(&self) -> SsrcGroup {
        SsrcGroup {
            semantics: self.semantics.clone(),
            sources: self
                .ssrcs
                .iter()
                .map(|&ssrc| jingle::Source::bare(ssrc))
                .collect(),
        }
    }
}

/// The descriptions of audio and video among contents. The medium is that of
/// the description, or else the content's name.
fn media_descriptions(contents: &[Content]) -> impl Iterator<Item = (MediaType, &Description)> {
    contents.iter().filter_map(|content| {
        let description = content.description.as_ref()?;
        let word = description.media.as_deref().unwrap_or(&content.name);
        Some((MediaType::from_word(word)?, description))
    })
}

/// What several owners send, by endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConferenceSources(pub BTreeMap<String, EndpointSources>);

impl ConferenceSources {
    /// Whether nobody sends anything: such a set must not be signalled, as the
    /// client's queue would stumble over it (`client-focus` §4.5).
    pub fn is_empty(&self) -> bool {
        self.0.values().all(EndpointSources::is_empty)
    }

    /// Adds what an owner sends.
    pub fn merge(&mut self, owner: &str, sources: &EndpointSources) {
        if !sources.is_empty() {
            self.0.entry(owner.to_owned()).or_default().merge(sources);
        }
    }

    /// Puts all sources into contents, each with its owner: for clients that do
    /// not read JSON. Contents that are missing are added.
    pub fn add_to_contents(&self, contents: &mut Vec<Content>) {
        for (owner, sources) in &self.0 {
            sources.add_to_contents(contents, Some(owner));
        }
    }

    /// Reads contents whose sources name their owners, a full occupant address
    /// standing for its nickname. Sources without owner are passed over; a group
    /// belongs to the owner of its first SSRC.
    pub fn from_contents(contents: &[Content]) -> Self {
        let mut all = Self::default();
        let mut owners = BTreeMap::new();
        for (media_type, description) in media_descriptions(contents) {
            for source in &description.sources {
                let Some(info) = &source.info else { continue };
                let owner = info.owner.split_once('/').map_or(&*info.owner, |(_, r)| r);
                owners.insert(source.ssrc, owner);
                let entry = all.0.entry(owner.to_owned()).or_default();
                entry.sources.push(Source::from_xml(source, media_type));
            }
            for group in &description.ssrc_groups {
                let group = Group::from_xml(group, media_type);
                let owner = group.ssrcs.first().and_then(|ssrc| owners.get(ssrc));
                if let Some(&owner) = owner {
                    let entry = all.0.entry(owner.to_owned()).or_default();
                    entry.groups.push(group);
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::xml;

    fn source(ssrc: u32, media_type: MediaType, name: &str) -> Source {
        Source {
            ssrc,
            media_type,
            name: Some(name.to_owned()),
            msid: Some(format!("{name}-stream track")),
            video_type: None,
        }
    }

    fn group(semantics: Semantics, ssrcs: &[u32]) -> Group {
        Group {
            media_type: MediaType::Video,
            semantics,
            ssrcs: ssrcs.to_vec(),
        }
    }

    /// A camera as the client library signals it: three layers, each with RTX.
    fn camera() -> EndpointSources {
        EndpointSources {
            sources: [1, 4, 2, 3, 5, 6]
                .map(|ssrc| source(ssrc, MediaType::Video, "e-v0"))
                .into_iter()
                .chain([source(9, MediaType::Audio, "e-a0")])
                .collect(),
            groups: vec![
                group(Semantics::Fid, &[1, 4]),
                group(Semantics::Sim, &[1, 2, 3]),
                group(Semantics::Fid, &[2, 5]),
                group(Semantics::Fid, &[3, 6]),
            ],
        }
    }

    fn ssrcs(sources: &EndpointSources) -> Vec<u32> {
        sources.sources.iter().map(|source| source.ssrc).collect()
    }

    #[test]
    fn receivers_are_told_of_one_layer_with_its_retransmissions() {
        let stripped = camera().without_simulcast();
        assert_eq!(ssrcs(&stripped), [1, 4, 9]);
        assert_eq!(stripped.groups, [group(Semantics::Fid, &[1, 4])]);
        // Without simulcast nothing is taken away.
        assert_eq!(stripped.without_simulcast(), stripped);
    }

    #[test]
    fn a_source_goes_with_the_groups_it_is_in() {
        let mut all = camera();
        let less = EndpointSources {
            sources: vec![source(2, MediaType::Video, "other")],
            groups: vec![group(Semantics::Fid, &[3, 6])],
        };
        let taken = all.remove(&less);
        assert_eq!(ssrcs(&all), [1, 4, 3, 5, 6, 9]);
        assert_eq!(all.groups, [group(Semantics::Fid, &[1, 4])]);
        assert_eq!(ssrcs(&taken), [2]);
        assert_eq!(taken.groups.len(), 3);
    }

    #[test]
    fn merging_twice_is_merging_once() {
        let mut all = camera();
        all.merge(&camera());
        assert_eq!(all, camera());
        let mut conference = ConferenceSources::default();
        conference.merge("nobody", &EndpointSources::default());
        assert!(conference.0.is_empty());
        assert!(conference.is_empty());
        conference.merge("e", &camera());
        assert!(!conference.is_empty());
    }

    #[test]
    fn sources_without_a_name_get_one_for_each_msid() {
        let mut all = EndpointSources::default();
        for (ssrc, media_type, msid) in [
            (1, MediaType::Audio, "a"),
            (2, MediaType::Video, "b"),
            (3, MediaType::Video, "b"),
            (4, MediaType::Video, "c"),
        ] {
            all.sources.push(Source {
                ssrc,
                media_type,
                name: None,
                msid: Some(msid.to_owned()),
                video_type: None,
            });
        }
        all.sources.push(source(5, MediaType::Video, "e-v0"));
        all.name_nameless("e");
        let names: Vec<_> = all
            .sources
            .iter()
            .filter_map(|s| s.name.as_deref())
            .collect();
        assert_eq!(names, ["e-a0", "e-v1", "e-v1", "e-v2", "e-v0"]);
    }

    #[test]
    fn names_tell_the_medium() {
        for (name, media) in [
            ("abcd1234-a0", Some(MediaType::Audio)),
            ("abcd1234-v1", Some(MediaType::Video)),
            ("jvb-a0", Some(MediaType::Audio)),
            ("abcd1234", None),
            ("abcd1234-", None),
            ("abcd1234-x0", None),
        ] {
            assert_eq!(MediaType::of_source_name(name), media, "{name}");
        }
    }

    #[test]
    fn a_bridge_gets_one_source_for_each_name() {
        let mut sources = camera();
        let nameless = Source {
            name: None,
            ..source(77, MediaType::Audio, "")
        };
        sources.sources.push(nameless);
        let form = sources.to_colibri2();
        let ids: Vec<_> = form.media_sources.iter().map(|media| &*media.id).collect();
        assert_eq!(ids, ["e-v0", "e-a0"]);
        let camera = &form.media_sources[0];
        assert_eq!(camera.sources.len(), 6);
        assert_eq!(camera.ssrc_groups.len(), 4);
        assert!(camera.sources.iter().all(|s| s.parameters.is_empty()));
        assert_eq!(camera.sources[0].name.as_deref(), Some("e-v0"));
    }

    #[test]
    fn feedback_sources_get_the_msid_that_clients_know_them_by() {
        let form = EndpointSources {
            sources: vec![
                source(1, MediaType::Audio, "jvb-a0"),
                source(2, MediaType::Video, "jvb-v0"),
            ],
            groups: Vec::new(),
        };
        let feedback = EndpointSources::bridge_feedback(&form.to_colibri2());
        let msids: Vec<_> = feedback
            .sources
            .iter()
            .filter_map(|s| s.msid.as_deref())
            .collect();
        assert_eq!(
            msids,
            [
                "mixedmslabel mixedlabelaudio0",
                "mixedmslabel mixedlabelvideo0"
            ]
        );
    }

    #[test]
    fn sources_join_the_contents_that_are_there() {
        let mut contents = vec![Content {
            name: "video".to_owned(),
            description: Some(Description {
                media: Some("video".to_owned()),
                rtcp_mux: true,
                ..Description::default()
            }),
            ..Content::default()
        }];
        let mut conference = ConferenceSources::default();
        conference.merge("e", &camera());
        conference.add_to_contents(&mut contents);
        assert_eq!(contents.len(), 2);
        let video = contents[0].description.as_ref().expect("a description");
        assert!(video.rtcp_mux);
        assert_eq!(video.sources.len(), 6);
        assert_eq!(contents[1].name, "audio");
        assert_eq!(ConferenceSources::from_contents(&contents), conference);
    }

    #[test]
    fn an_owner_may_be_a_full_address() {
        let mut contents = Vec::new();
        let mut conference = ConferenceSources::default();
        conference.merge("room@muc/e", &camera());
        conference.add_to_contents(&mut contents);
        let read = ConferenceSources::from_contents(&contents);
        assert_eq!(read.0.keys().collect::<Vec<_>>(), ["e"]);
        assert_eq!(read.0["e"].groups.len(), 4);
    }

    /// Audio before video, as the XML forms have it.
    fn sorted(all: &ConferenceSources) -> ConferenceSources {
        let sort = |sources: &EndpointSources| {
            let mut sources = sources.clone();
            sources.sources.sort_by_key(|s| s.media_type);
            sources.groups.sort_by_key(|g| g.media_type);
            sources
        };
        let each = all.0.iter().map(|(owner, s)| (owner.clone(), sort(s)));
        ConferenceSources(each.collect())
    }

    fn media_types() -> impl Strategy<Value = MediaType> {
        prop_oneof![Just(MediaType::Audio), Just(MediaType::Video)]
    }

    fn any_source() -> impl Strategy<Value = Source> {
        (
            any::<u32>(),
            media_types(),
            option::of("[a-z0-9]{1,8}-[av][0-9]"),
            option::of(" *[ -~é\"\\\\<&]{1,20}"),
            any::<bool>(),
        )
            .prop_map(|(ssrc, media_type, name, msid, desktop)| Source {
                ssrc,
                media_type,
                name,
                msid,
                video_type: desktop.then_some(VideoType::Desktop),
            })
    }

    fn any_group() -> impl Strategy<Value = Group> {
        let semantics = prop_oneof![Just(Semantics::Fid), Just(Semantics::Sim)];
        (media_types(), semantics, vec(any::<u32>(), 0..4)).prop_map(
            |(media_type, semantics, ssrcs)| Group {
                media_type,
                semantics,
                ssrcs,
            },
        )
    }

    fn any_endpoint() -> impl Strategy<Value = EndpointSources> {
        (vec(any_source(), 0..6), vec(any_group(), 0..4))
            .prop_map(|(sources, groups)| EndpointSources { sources, groups })
    }

    fn any_conference() -> impl Strategy<Value = ConferenceSources> {
        btree_map("[a-z0-9]{1,8}", any_endpoint(), 0..4).prop_map(ConferenceSources)
    }

    /// Video before audio, as the compact form has it.
    fn video_first(all: &ConferenceSources) -> ConferenceSources {
        let sort = |sources: &EndpointSources| {
            let mut sources = sources.clone();
            sources
                .sources
                .sort_by_key(|s| std::cmp::Reverse(s.media_type));
            sources
                .groups
                .sort_by_key(|g| std::cmp::Reverse(g.media_type));
            sources
        };
        let each = all.0.iter().map(|(owner, s)| (owner.clone(), sort(s)));
        ConferenceSources(each.collect())
    }

    proptest! {
        /// The compact form loses nothing but the order between the media.
        #[test]
        fn json_is_read_as_it_was_meant(all in any_conference()) {
            let read = ConferenceSources::from_json(&all.to_json());
            prop_assert_eq!(read.expect("our own JSON"), video_first(&all));
        }

        #[test]
        fn arbitrary_json_is_refused_or_read_and_never_breaks(text in "\\PC{0,60}") {
            let _ = ConferenceSources::from_json(&text);
            let _ = ConferenceSources::from_json(&format!("{{\"sources\":{text}}}"));
            let _ = ConferenceSources::from_json(&format!("{{\"sources\":{{\"a\":{text}}}}}"));
        }

        /// So does the XML form, through text and back.
        #[test]
        fn contents_are_read_as_they_were_meant(sources in any_endpoint()) {
            let contents = sources.to_contents();
            let mut read = Vec::new();
            for content in &contents {
                let text = xml::write(&xml::to_element(content));
                let element = xml::parse(text.as_bytes()).expect("XML");
                read.push(xml::from_element::<Content>(element).expect("a content"));
            }
            prop_assert_eq!(&read, &contents);
            let mut expected = ConferenceSources::default();
            expected.0.insert(String::new(), sources);
            let expected = sorted(&expected).0.remove("");
            prop_assert_eq!(Some(EndpointSources::from_contents(&read)), expected);
        }

        /// Whoever is told less is told nothing that the full set does not have,
        /// and no group with a member that is missing.
        #[test]
        fn stripping_leaves_no_dangling_group(sources in any_endpoint()) {
            let stripped = sources.without_simulcast();
            for source in &stripped.sources {
                prop_assert!(sources.sources.contains(source));
            }
            let gone: Vec<u32> = ssrcs(&sources)
                .into_iter()
                .filter(|s| stripped.get(*s).is_none())
                .collect();
            for group in &stripped.groups {
                prop_assert!(group.semantics != Semantics::Sim);
                prop_assert!(!group.ssrcs.iter().any(|s| gone.contains(s)));
            }
        }
    }
}
