//! Roster (RFC 6121 §2) and subscriptions (§3): what jicofo and JVB ask for at
//! login, and the handshake by which a server component learns that an account
//! is there.

use crate::jid::{BareJid, Jid};
use crate::presence::{Presence, PresenceType};
use crate::xml::ns;

/// The roster: the question (empty) and the answer.
#[derive(Clone, Debug, Default, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::ROSTER, name = "query")]
pub struct Roster {
    #[xml(attribute(default))]
    pub ver: Option<String>,
    #[xml(child(n = ..))]
    pub items: Vec<RosterItem>,
}

/// One contact.
#[derive(Clone, Debug, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::ROSTER, name = "item")]
pub struct RosterItem {
    #[xml(attribute)]
    pub jid: Jid,
    #[xml(attribute(default))]
    pub name: Option<String>,
    /// `none`, `to`, `from`, `both`, or `remove` in a request.
    #[xml(attribute(default))]
    pub subscription: Option<String>,
    /// `subscribe` while an answer is awaited.
    #[xml(attribute(default))]
    pub ask: Option<String>,
}

/// Asks to see a contact's presence.
pub fn subscribe(to: BareJid) -> Presence {
    Presence::new(PresenceType::Subscribe).with_to(to)
}

/// The answer to a presence of type `subscribe`: the sender may see ours.
/// `None` if it is another kind of presence.
pub fn accept_subscription(request: &Presence) -> Option<Presence> {
    let from = request.from.as_ref()?;
    (request.kind == PresenceType::Subscribe)
        .then(|| Presence::new(PresenceType::Subscribed).with_to(from.to_bare()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_is_granted() {
        let asker = Jid::new("asker@host/r").expect("an address");
        let mut request = subscribe(BareJid::new("me@host").expect("an address"));
        assert_eq!(accept_subscription(&request), None, "nobody asks");
        request.from = Some(asker.clone());
        let answer = accept_subscription(&request).expect("an answer");
        assert_eq!(answer.kind, PresenceType::Subscribed);
        assert_eq!(answer.to, Some(asker.to_bare().into()));
        request.kind = PresenceType::Available;
        assert_eq!(accept_subscription(&request), None);
    }
}
