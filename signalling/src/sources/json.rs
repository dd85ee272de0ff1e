//! The compact JSON form (`client-focus` §4.5):
//! `{"sources":{owner:[video sources, video groups, audio sources, audio groups]}}`,
//! a source `{"s":ssrc,"n":name,"m":msid,"v":"d"}`, a group `["f",a,b]` or
//! `["s",a,b,c]`.

use serde_json::{Map, Value, json};

use super::{ConferenceSources, EndpointSources, Group, MediaType, Semantics, Source, VideoType};

/// Why JSON is no set of sources.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, or nested too deep (serde_json stops at 128 levels).
    #[error("not JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    #[error("no object \"sources\"")]
    NoSources,
    #[error("not an array of arrays for {owner}")]
    BadOwner { owner: String },
    #[error("not an SSRC in 0..2^32 for {owner}")]
    BadSsrc { owner: String },
}

impl ConferenceSources {
    /// The compact form. Groups other than `FID` and `SIM` have none and are
    /// left out.
    pub fn to_json(&self) -> String {
        let owners: Map<String, Value> = self
            .0
            .iter()
            .map(|(owner, sources)| (owner.clone(), endpoint_to_json(sources)))
            .collect();
        json!({ "sources": owners }).to_string()
    }

    /// Reads the compact form. SSRCs may be decimal text; arrays at the end may
    /// be absent; unknown groups and fields are passed over.
    ///
    /// # Errors
    /// See [`JsonError`].
    pub fn from_json(text: &str) -> Result<Self, JsonError> {
        let value: Value = serde_json::from_str(text)?;
        let owners = value
            .get("sources")
            .and_then(Value::as_object)
            .ok_or(JsonError::NoSources)?;
        let mut all = Self::default();
        for (owner, value) in owners {
            let sources = endpoint_from_json(owner, value)?;
            all.0.insert(owner.clone(), sources);
        }
        Ok(all)
    }
}

fn endpoint_to_json(sources: &EndpointSources) -> Value {
    let list = |media| -> Vec<Value> {
        let of_media = sources.sources.iter().filter(|s| s.media_type == media);
        of_media.map(source_to_json).collect()
    };
    let groups = |media| -> Vec<Value> {
        let of_media = sources.groups.iter().filter(|g| g.media_type == media);
        of_media.filter_map(group_to_json).collect()
    };
    let mut arrays = vec![
        list(MediaType::Video),
        groups(MediaType::Video),
        list(MediaType::Audio),
    ];
    let audio_groups = groups(MediaType::Audio);
    if !audio_groups.is_empty() {
        arrays.push(audio_groups);
    }
    json!(arrays)
}

fn source_to_json(source: &Source) -> Value {
    let mut fields = Map::new();
    fields.insert("s".to_owned(), Value::from(source.ssrc));
    if let Some(name) = &source.name {
        fields.insert("n".to_owned(), Value::from(name.as_str()));
    }
    if let Some(msid) = &source.msid {
        fields.insert("m".to_owned(), Value::from(msid.as_str()));
    }
    if source.video_type == Some(VideoType::Desktop) {
        fields.insert("v".to_owned(), Value::from("d"));
    }
    Value::Object(fields)
}

fn group_to_json(group: &Group) -> Option<Value> {
    let letter = match group.semantics {
        Semantics::Fid => "f",
        Semantics::Sim => "s",
        Semantics::FecFr | Semantics::Other(_) => return None,
    };
    let ssrcs = group.ssrcs.iter().map(|&ssrc| Value::from(ssrc));
    Some(std::iter::once(Value::from(letter)).chain(ssrcs).collect())
}

fn endpoint_from_json(owner: &str, value: &Value) -> Result<EndpointSources, JsonError> {
    let bad_owner = || JsonError::BadOwner {
        owner: owner.to_owned(),
    };
    let bad_ssrc = || JsonError::BadSsrc {
        owner: owner.to_owned(),
    };
    let arrays = value.as_array().ok_or_else(bad_owner)?;
    let part = |index: usize| match arrays.get(index) {
        None => Ok(&[][..]),
        Some(array) => array.as_array().map(Vec::as_slice).ok_or_else(bad_owner),
    };
    let mut sources = EndpointSources::default();
    for (media_type, at) in [(MediaType::Video, 0), (MediaType::Audio, 2)] {
        for source in part(at)? {
            let text = |key| source.get(key).and_then(Value::as_str).map(str::to_owned);
            sources.sources.push(Source {
                ssrc: source.get("s").and_then(ssrc).ok_or_else(bad_ssrc)?,
                media_type,
                name: text("n"),
                msid: text("m"),
                video_type: (text("v").as_deref() == Some("d")).then_some(VideoType::Desktop),
            });
        }
        for group in part(at + 1)? {
            let Some((letter, members)) = group.as_array().and_then(|g| g.split_first()) else {
                continue;
            };
            let semantics = match letter.as_str() {
                Some("f") => Semantics::Fid,
                Some("s") => Semantics::Sim,
                _ => continue,
            };
            let ssrcs: Option<Vec<u32>> = members.iter().map(ssrc).collect();
            sources.groups.push(Group {
                media_type,
                semantics,
                ssrcs: ssrcs.ok_or_else(bad_ssrc)?,
            });
        }
    }
    Ok(sources)
}

fn ssrc(value: &Value) -> Option<u32> {
    match value {
        Value::Number(number) => number.as_u64()?.try_into().ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_jicofo_is_written_exactly() {
        let text = r#"{"sources":{"jvb":[
            [{"s":342735204,"n":"jvb-v0","m":"mixedmslabel mixedlabelvideo0"}],[],
            [{"s":2153933950,"n":"jvb-a0","m":"mixedmslabel mixedlabelaudio0"}]]}}"#;
        let all = ConferenceSources::from_json(text).expect("sources");
        assert_eq!(value(&all.to_json()), value(text));
    }

    fn value(text: &str) -> Value {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn what_may_be_left_out_is_left_out() {
        for text in [
            r#"{"sources":{"a":[]}}"#,
            r#"{"sources":{"a":[[]]},"more":1}"#,
            r#"{"sources":{"a":[[],[],[],[],[],"what"]}}"#,
            r#"{"sources":{"a":[[],[["x",1],[],{},["f"]]]}}"#,
        ] {
            let all = ConferenceSources::from_json(text).expect(text);
            assert!(all.0["a"].sources.is_empty(), "{text}");
        }
        let text = r#"{"sources":{"a":[[{"s":"17","v":"d","q":[]}]]}}"#;
        let all = ConferenceSources::from_json(text).expect("sources");
        let source = &all.0["a"].sources[0];
        assert_eq!(source.ssrc, 17);
        assert_eq!(source.video_type, Some(VideoType::Desktop));
        assert_eq!(source.name, None);
    }

    #[test]
    fn audio_groups_make_a_fourth_array() {
        let text = r#"{"sources":{"a":[[],[],[{"s":1},{"s":2}],[["f",1,2]]]}}"#;
        let all = ConferenceSources::from_json(text).expect("sources");
        assert_eq!(all.0["a"].groups[0].media_type, MediaType::Audio);
        assert_eq!(all.to_json(), text);
    }

    #[test]
    fn faults_are_told_apart() {
        let fault = |text: &str| ConferenceSources::from_json(text).expect_err(text);
        assert!(matches!(fault("{"), JsonError::Syntax(_)));
        let deep = "[".repeat(100_000);
        assert!(matches!(fault(&deep), JsonError::Syntax(_)));
        for text in ["{}", "[]", r#"{"sources":1}"#] {
            assert!(matches!(fault(text), JsonError::NoSources), "{text}");
        }
        for text in [r#"{"sources":{"a":1}}"#, r#"{"sources":{"a":[1]}}"#] {
            assert!(matches!(fault(text), JsonError::BadOwner { .. }), "{text}");
        }
        for source in ["{}", r#"{"s":-1}"#, r#"{"s":4294967296}"#, r#"{"s":"x"}"#] {
            let text = format!(r#"{{"sources":{{"a":[[{source}]]}}}}"#);
            assert!(matches!(fault(&text), JsonError::BadSsrc { .. }), "{text}");
        }
        let text = r#"{"sources":{"a":[[],[["f",1,-2]]]}}"#;
        assert!(matches!(fault(text), JsonError::BadSsrc { .. }));
    }
}
