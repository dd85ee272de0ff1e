//! Bridge control as JSON, which a bridge takes over HTTP (`focus-bridge` §3).
//!
//! In: a [`ConferenceModify`] or [`ConferenceModified`] as text. Out: the same.
//! Attributes keep their names, elements that may repeat become arrays. What is
//! not known here is passed over, `connects` and tracing included, and `null` is
//! absence; what is known and has the wrong shape is a [`JsonError`] that names
//! the place, since here, unlike in XML, a program's mistake is nearer than a
//! newer peer. Numbers may come as strings and, wherever a bridge's attribute
//! was one, are written as such.
//!
//! Three things have no form in JSON: owners of sources, `sctpmap`, and
//! parameters beyond the first of a name.

mod object;
mod read;
mod write;

use super::{ConferenceModified, ConferenceModify};
use object::Object;

/// Why a text is no bridge control.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("no JSON: {0}")]
    Syntax(String),
    /// A value that cannot be what it has to be.
    #[error("{at}: {expected} expected")]
    Shape { at: String, expected: &'static str },
    #[error("{at} is missing")]
    Missing { at: String },
}

impl ConferenceModify {
    /// Reads a request that names its conference itself.
    pub fn from_json(text: &[u8]) -> Result<Self, JsonError> {
        let value = object::parse(text)?;
        let object = Object::of(&value)?;
        let meeting_id = object.required("meeting-id")?;
        read::modify(meeting_id, object)
    }

    /// Reads a request about a conference that was named beside it; what it
    /// says of the name itself does not count.
    pub fn from_json_about(meeting_id: &str, text: &[u8]) -> Result<Self, JsonError> {
        let value = object::parse(text)?;
        read::modify(meeting_id.to_owned(), Object::of(&value)?)
    }

    pub fn to_json(&self) -> String {
        write::modify(self).to_string()
    }
}

impl ConferenceModified {
    pub fn from_json(text: &[u8]) -> Result<Self, JsonError> {
        let value = object::parse(text)?;
        read::modified(Object::of(&value)?)
    }

    pub fn to_json(&self) -> String {
        write::modified(self).to_string()
    }
}

#[cfg(test)]
mod tests;
