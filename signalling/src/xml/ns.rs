//! Namespaces, named after the specification or program they belong to.

/// RFC 6120: stanzas. The session gives those of a component's stream
/// (XEP-0114) this namespace too. Elements without a namespace of
/// their own, as Jitsi's presence extensions, are in it too.
pub const CLIENT: &str = "jabber:client";
/// RFC 6120 §8.3.3: conditions of a stanza error.
pub const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
/// RFC 6121 §2.
pub const ROSTER: &str = "jabber:iq:roster";
/// XEP-0004.
pub const DATA_FORMS: &str = "jabber:x:data";
/// XEP-0030.
pub const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
/// XEP-0045.
pub const MUC: &str = "http://jabber.org/protocol/muc";
/// XEP-0045.
pub const MUC_USER: &str = "http://jabber.org/protocol/muc#user";
/// XEP-0045.
pub const MUC_ADMIN: &str = "http://jabber.org/protocol/muc#admin";
/// XEP-0045.
pub const MUC_OWNER: &str = "http://jabber.org/protocol/muc#owner";
/// XEP-0092.
pub const VERSION: &str = "jabber:iq:version";
/// XEP-0115.
pub const CAPS: &str = "http://jabber.org/protocol/caps";
/// XEP-0172.
pub const NICK: &str = "http://jabber.org/protocol/nick";
/// XEP-0199.
pub const PING: &str = "urn:xmpp:ping";

/// XEP-0166.
pub const JINGLE: &str = "urn:xmpp:jingle:1";
/// XEP-0166 §10.
pub const JINGLE_ERRORS: &str = "urn:xmpp:jingle:errors:1";
/// XEP-0167.
pub const RTP: &str = "urn:xmpp:jingle:apps:rtp:1";
/// XEP-0293.
pub const RTCP_FB: &str = "urn:xmpp:jingle:apps:rtp:rtcp-fb:0";
/// XEP-0294.
pub const RTP_HDREXT: &str = "urn:xmpp:jingle:apps:rtp:rtp-hdrext:0";
/// XEP-0339.
pub const SSMA: &str = "urn:xmpp:jingle:apps:rtp:ssma:0";
/// XEP-0338.
pub const GROUPING: &str = "urn:xmpp:jingle:apps:grouping:0";
/// XEP-0176.
pub const ICE_UDP: &str = "urn:xmpp:jingle:transports:ice-udp:1";
/// XEP-0320.
pub const DTLS: &str = "urn:xmpp:jingle:apps:dtls:0";
/// XEP-0343.
pub const SCTP: &str = "urn:xmpp:jingle:transports:dtls-sctp:1";

/// Bridge control.
pub const COLIBRI2: &str = "jitsi:colibri2";
/// The older bridge control: statistics, WebSocket addresses.
pub const COLIBRI: &str = "http://jitsi.org/protocol/colibri";
/// A focus asks whether a bridge is well.
pub const HEALTH_CHECK: &str = "http://jitsi.org/protocol/healthcheck";
/// Conference requests and what else belongs to the focus.
pub const FOCUS: &str = "http://jitsi.org/protocol/focus";
/// Sources, JSON messages, versions.
pub const JITMEET: &str = "http://jitsi.org/jitmeet";
/// `<ignore/>` only; note the slash.
pub const JITMEET_SLASH: &str = "http://jitsi.org/jitmeet/";
/// Mute of a microphone.
pub const MUTE_AUDIO: &str = "http://jitsi.org/jitmeet/audio";
/// Mute of a camera.
pub const MUTE_VIDEO: &str = "http://jitsi.org/jitmeet/video";
/// Mute of a shared screen.
pub const MUTE_DESKTOP: &str = "http://jitsi.org/jitmeet/desktop";
/// Who joins muted.
pub const START_MUTED: &str = "http://jitsi.org/jitmeet/start-muted";
/// The name of a shared document.
pub const ETHERPAD: &str = "http://jitsi.org/jitmeet/etherpad";
/// The tracing context that jicofo adds to its requests.
pub const OPENTELEMETRY: &str = "jitsi:opentelemetry";
