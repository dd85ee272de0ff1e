//! Names of things the control plane and the shards both speak of.

use std::fmt;
use std::sync::Arc;

/// A conference on this bridge: the hexadecimal number in the path of its
/// bridge channels, never the `meeting-id` of the focus (`focus-bridge` §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConferenceId(pub u64);

impl fmt::Display for ConferenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A participant of a conference as the focus names it: its MUC nickname,
/// usually eight hexadecimal digits, to be treated as opaque.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub Arc<str>);

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for EndpointId {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

/// The name of a source (`abcd1234-a0`, `abcd1234-v1`), unique in its conference.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceName(pub Arc<str>);

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for SourceName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

/// One WebSocket connection of a bridge channel. Never used twice, so a late
/// word about a replaced connection is told from one about its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub u64);

/// An endpoint by number, never used twice on a bridge, so that late word about
/// one that left is told from word about another of the same name. Who joined
/// earlier has the smaller number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(pub u64);
