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
