//! Rooms (XEP-0045): entering, who is there, the owner's form, affiliations, and
//! what a room says about itself.

use crate::disco::{DataForm, DiscoInfo};
use crate::jid::{BareJid, FullJid, Jid};
use crate::presence::Presence;
use crate::xml::codec::{Lax, words};
use crate::xml::ns;

/// What a presence carries to enter a room. Sent by an occupant, it makes
/// Prosody send all occupants' presences again (`client-focus` §6.5).
#[derive(Clone, Debug, Default, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::MUC, name = "x")]
pub struct Join {
    #[xml(extract(name = "password", default, fields(text(type_ = String))))]
    pub password: Option<String>,
}

/// The presence that enters a room under that nickname; more children may follow.
pub fn join(occupant: FullJid, password: Option<String>) -> Presence {
    Presence::available(occupant).with(&Join { password })
}

words! {
    /// Long-lived relation to a room.
    Affiliation {
        Owner = "owner",
        Admin = "admin",
        Member = "member",
        None = "none",
        Outcast = "outcast",
    }
}

words! {
    /// What an occupant may do now.
    Role {
        Moderator = "moderator",
        Participant = "participant",
        Visitor = "visitor",
        None = "none",
    }
}

/// What the room adds to an occupant's presence.
#[derive(Clone, Debug, Default, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::MUC_USER, name = "x")]
pub struct MucUser {
    #[xml(child(n = ..))]
    statuses: Vec<StatusCode>,
    /// One for each session behind the nickname; the first is the one that
    /// requests reach.
    #[xml(child(n = ..))]
    pub items: Vec<Item>,
    /// The room is gone.
    #[xml(child(default))]
    pub destroy: Option<Destroy>,
}

/// A session of an occupant.
#[derive(Clone, Debug, Default, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::MUC_USER, name = "item")]
pub struct Item {
    #[xml(attribute(default))]
    pub affiliation: Option<Affiliation>,
    #[xml(attribute(default))]
    pub role: Option<Role>,
    /// The real address, in rooms that are not anonymous.
    #[xml(attribute(codec = Lax, default))]
    pub jid: Option<Jid>,
    /// The new nickname (status 303).
    #[xml(attribute(default))]
    pub nick: Option<String>,
    #[xml(extract(name = "reason", default, fields(text(type_ = String))))]
    pub reason: Option<String>,
}

/// Why a room is gone.
#[derive(Clone, Debug, Default, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::MUC_USER, name = "destroy")]
pub struct Destroy {
    #[xml(attribute(codec = Lax, default))]
    pub jid: Option<Jid>,
    #[xml(extract(name = "reason", default, fields(text(type_ = String))))]
    pub reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::MUC_USER, name = "status")]
struct StatusCode {
    #[xml(attribute(codec = Lax, default))]
    code: Option<u16>,
}

/// Status codes that matter here (XEP-0045 §15.6).
pub mod status {
    /// This presence is one's own.
    pub const SELF: u16 = 110;
    /// The room was made by this entering.
    pub const CREATED: u16 = 201;
    /// Banned.
    pub const BANNED: u16 = 301;
    /// The nickname changed.
    pub const NICK_CHANGED: u16 = 303;
    /// Kicked.
    pub const KICKED: u16 = 307;
    /// Removed because of an error: the session behind the occupant is gone.
    pub const ERROR: u16 = 333;
}

impl MucUser {
    /// Items and status codes.
    pub fn new(items: Vec<Item>, codes: &[u16]) -> Self {
        Self {
            statuses: codes
                .iter()
                .map(|&code| StatusCode { code: Some(code) })
                .collect(),
            items,
            destroy: None,
        }
    }

    /// Whether a status code is there.
    pub fn has_status(&self, code: u16) -> bool {
        self.status_codes().any(|c| c == code)
    }

    /// All status codes.
    pub fn status_codes(&self) -> impl Iterator<Item = u16> {
        self.statuses.iter().filter_map(|status| status.code)
    }
}

/// `muc#owner`: the question for the room's settings (no form), the answer with
/// the form, and the settings to apply.
#[derive(Clone, Debug, Default, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::MUC_OWNER, name = "query")]
pub struct OwnerQuery {
    #[xml(child(default))]
    pub form: Option<DataForm>,
}

impl OwnerQuery {
    /// Lets every occupant see real addresses: what jicofo sends, and all it
    /// takes to unlock a room that was just made.
    pub fn whois_anyone() -> Self {
        Self {
            form: Some(DataForm::submit(
                "http://jabber.org/protocol/muc#roomconfig",
                &[("muc#roomconfig_whois", "anyone")],
            )),
        }
    }
}

/// `muc#admin`: changes of affiliation and role.
#[derive(Clone, Debug, Default, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::MUC_ADMIN, name = "query")]
pub struct AdminQuery {
    #[xml(child(n = ..))]
    pub items: Vec<AdminItem>,
}

/// One change.
#[derive(Clone, Debug, Default, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::MUC_ADMIN, name = "item")]
pub struct AdminItem {
    #[xml(attribute(default))]
    pub affiliation: Option<Affiliation>,
    #[xml(attribute(default))]
    pub role: Option<Role>,
    #[xml(attribute(codec = Lax, default))]
    pub jid: Option<Jid>,
    #[xml(attribute(default))]
    pub nick: Option<String>,
    #[xml(extract(name = "reason", default, fields(text(type_ = String))))]
    pub reason: Option<String>,
}

impl AdminQuery {
    /// Makes an account an owner of the room.
    pub fn grant_owner(account: BareJid) -> Self {
        Self {
            items: vec![AdminItem {
                affiliation: Some(Affiliation::Owner),
                jid: Some(account.into()),
                ..AdminItem::default()
            }],
        }
    }

    /// Removes an occupant from the room.
    pub fn kick(nick: impl Into<String>, reason: Option<String>) -> Self {
        Self {
            items: vec![AdminItem {
                nick: Some(nick.into()),
                role: Some(Role::None),
                reason,
                ..AdminItem::default()
            }],
        }
    }
}

/// What a room tells about itself, in the owner's form or to disco#info.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomInfo {
    /// Known to Jitsi's room plugins only.
    pub meeting_id: Option<String>,
    pub is_breakout: bool,
    /// The room a breakout room belongs to.
    pub breakout_main_room: Option<String>,
    /// Settings of the conference will follow as room metadata.
    pub presets_enabled: bool,
    /// The room's password, which only the owner's form has.
    pub password: Option<String>,
    /// Whether a password is asked (disco#info).
    pub password_protected: bool,
}

impl RoomInfo {
    /// Reads the form that `muc#owner` returned.
    pub fn from_form(form: &DataForm) -> Self {
        let text = |var| {
            form.value(var)
                .filter(|value| !value.is_empty())
                .map(str::to_owned)
        };
        let flag = |var| form.value(var).is_some_and(|v| v == "1" || v == "true");
        Self {
            meeting_id: text("muc#roominfo_meetingId"),
            is_breakout: flag("muc#roominfo_isbreakout"),
            breakout_main_room: text("muc#roominfo_breakout_main_room"),
            presets_enabled: flag("muc#roominfo_conference_presets_service_enabled"),
            password: text("muc#roomconfig_roomsecret"),
            password_protected: flag("muc#roomconfig_passwordprotectedroom"),
        }
    }

    /// Reads the answer of a room to disco#info.
    pub fn from_disco(info: &DiscoInfo) -> Self {
        let mut room = info.forms.first().map(Self::from_form).unwrap_or_default();
        room.password_protected |= info.has("muc_passwordprotected");
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml;

    fn jid(text: &str) -> BareJid {
        BareJid::new(text).expect("an address")
    }

    #[test]
    fn entering_says_so_and_no_more() {
        let occupant = crate::jid::occupant(&jid("room@muc"), "focus").expect("an occupant");
        let presence = join(occupant.clone(), None);
        let text = xml::write(&presence.to_element());
        assert!(text.contains(r#"to="room@muc/focus""#) || text.contains("to='room@muc/focus'"));
        assert_eq!(presence.payload(), Some(Join { password: None }));
        let locked = join(occupant, Some("secret".to_owned()));
        let entry: Join = locked.payload().expect("an entry");
        assert_eq!(entry.password.as_deref(), Some("secret"));
    }

    #[test]
    fn a_nickname_has_to_be_a_resource() {
        assert!(crate::jid::occupant(&jid("room@muc"), "").is_none());
        assert!(crate::jid::occupant(&jid("room@muc"), "a\u{7}").is_none());
    }

    #[test]
    fn a_room_tells_about_itself() {
        let form = DataForm::submit(
            "http://jabber.org/protocol/muc#roominfo",
            &[
                ("muc#roominfo_meetingId", "m"),
                ("muc#roominfo_isbreakout", "1"),
                ("muc#roominfo_breakout_main_room", ""),
                ("muc#roomconfig_roomsecret", "s"),
            ],
        );
        let mut info = DiscoInfo::features(["muc_passwordprotected"]);
        info.forms.push(form);
        let room = RoomInfo::from_disco(&info);
        assert_eq!(room.meeting_id.as_deref(), Some("m"));
        assert!(room.is_breakout && room.password_protected && !room.presets_enabled);
        assert_eq!(room.breakout_main_room, None);
        assert_eq!(room.password.as_deref(), Some("s"));
        assert!(!RoomInfo::from_form(&info.forms[0]).password_protected);
        assert_eq!(
            RoomInfo::from_disco(&DiscoInfo::default()),
            RoomInfo::default()
        );
    }

    #[test]
    fn affiliations_are_changed_by_account_and_roles_by_nickname() {
        let grant = xml::write(&xml::to_element(&AdminQuery::grant_owner(jid("a@b"))));

        assert!(grant.contains("owner") && grant.contains("a@b"), "{grant}");
        let kick = AdminQuery::kick("nick", Some("bye".to_owned()));
        assert_eq!(kick.items[0].role, Some(Role::None));
        assert_eq!(kick.items[0].affiliation, None);
    }
}
