//! Addresses (RFC 7622), and the two ways in which rooms use them.

pub use xmpp_parsers::jid::{
    BareJid, DomainPart, DomainRef, Error, FullJid, Jid, NodePart, NodeRef, ResourcePart,
    ResourceRef,
};

/// The address of an occupant: the room with the nickname as resource. `None`
/// when the nickname cannot be a resource (empty, too long, control characters).
pub fn occupant(room: &BareJid, nick: &str) -> Option<FullJid> {
    room.with_resource_str(nick).ok()
}

/// The nickname in an occupant's address; for Jitsi the endpoint's name.
pub fn nick(occupant: &Jid) -> Option<&str> {
    occupant.resource().map(ResourceRef::as_str)
}
