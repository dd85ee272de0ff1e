//! Service discovery (XEP-0030), capabilities (XEP-0115), data forms
//! (XEP-0004), software version (XEP-0092) and ping (XEP-0199).

use base64::Engine;
use sha1::{Digest, Sha1};

use crate::xml::{codec::Lax, ns};

/// `disco#info`: the question (node only) and the answer.
#[derive(Clone, Debug, Default, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::DISCO_INFO, name = "query")]
pub struct DiscoInfo {
    /// `caps-node#ver` when capabilities are asked for; the answer repeats it.
    #[xml(attribute(default))]
    pub node: Option<String>,
    #[xml(child(n = ..))]
    pub identities: Vec<Identity>,
    #[xml(child(n = ..))]
    pub features: Vec<Feature>,
    #[xml(child(n = ..))]
    pub forms: Vec<DataForm>,
}

/// What an entity is.
#[derive(Clone, Debug, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::DISCO_INFO, name = "identity")]
pub struct Identity {
    #[xml(attribute)]
    pub category: String,
    #[xml(attribute(name = "type"))]
    pub kind: String,
    #[xml(attribute(name = "xml:lang", default))]
    pub lang: Option<String>,
    #[xml(attribute(default))]
    pub name: Option<String>,
}

/// What an entity can do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::DISCO_INFO, name = "feature")]
pub struct Feature {
    #[xml(attribute)]
    pub var: String,
}

impl DiscoInfo {
    /// The question.
    pub fn query(node: Option<String>) -> Self {
        Self {
            node,
            ..Self::default()
        }
    }

    /// An answer with these features and no identity.
    pub fn features<'a>(features: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            features: features
                .into_iter()
                .map(|var| Feature {
                    var: var.to_owned(),
                })
                .collect(),
            ..Self::default()
        }
    }

    /// Whether a feature is announced.
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|f| f.var == feature)
    }

    /// The verification string of XEP-0115 §5.1, hashed with SHA-1.
    pub fn ver(&self) -> String {
        let mut text = String::new();
        let mut add = |mut parts: Vec<String>| {
            parts.sort_unstable();
            for part in parts {
                text.push_str(&part);
                text.push('<');
            }
        };
        add(self.identities.iter().map(Identity::verification).collect());
        add(self.features.iter().map(|f| f.var.clone()).collect());
        let mut forms: Vec<_> = self
            .forms
            .iter()
            .filter_map(DataForm::verification)
            .collect();
        forms.sort_unstable();
        for form in forms {
            text.push_str(&form);
        }
        base64::engine::general_purpose::STANDARD.encode(Sha1::digest(text))
    }
}

impl Identity {
    fn verification(&self) -> String {
        format!(
            "{}/{}/{}/{}",
            self.category,
            self.kind,
            self.lang.as_deref().unwrap_or_default(),
            self.name.as_deref().unwrap_or_default()
        )
    }
}

/// Capabilities in a presence: which answer a disco#info query would get.
#[derive(Clone, Debug, PartialEq, Eq, Hash, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::CAPS, name = "c")]
pub struct Caps {
    #[xml(attribute(default))]
    pub hash: Option<String>,
    #[xml(attribute)]
    pub node: String,
    #[xml(attribute)]
    pub ver: String,
}

impl Caps {
    /// The capabilities of an entity that answers queries with `info`.
    pub fn new(node: impl Into<String>, info: &DiscoInfo) -> Self {
        Self {
            hash: Some("sha-1".to_owned()),
            node: node.into(),
            ver: info.ver(),
        }
    }

    /// The node to ask for: `node#ver`.
    pub fn query_node(&self) -> String {
        format!("{}#{}", self.node, self.ver)
    }
}

/// A data form.
#[derive(Clone, Debug, Default, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::DATA_FORMS, name = "x")]
pub struct DataForm {
    /// `form`, `submit`, `result` or `cancel`.
    #[xml(attribute(name = "type", default))]
    pub kind: Option<String>,
    #[xml(child(n = ..))]
    pub fields: Vec<Field>,
}

/// A field of a data form.
#[derive(Clone, Debug, Default, PartialEq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::DATA_FORMS, name = "field")]
pub struct Field {
    #[xml(attribute(default))]
    pub var: Option<String>,
    #[xml(attribute(name = "type", default))]
    pub kind: Option<String>,
    #[xml(extract(n = .., name = "value", fields(text(type_ = String))))]
    pub values: Vec<String>,
}

impl DataForm {
    /// A form to submit: its `FORM_TYPE` and the fields in order.
    pub fn submit(form_type: &str, fields: &[(&str, &str)]) -> Self {
        let field = |(var, value): (&str, &str)| Field {
            var: Some(var.to_owned()),
            kind: None,
            values: vec![value.to_owned()],
        };
        Self {
            kind: Some("submit".to_owned()),
            fields: std::iter::once(("FORM_TYPE", form_type))
                .chain(fields.iter().copied())
                .map(field)
                .collect(),
        }
    }

    /// The first value of a field.
    pub fn value(&self, var: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|field| field.var.as_deref() == Some(var))
            .and_then(|field| field.values.first())
            .map(String::as_str)
    }

    /// Its part of the verification string; forms without a type have none
    /// (XEP-0115 §5.4 item 3.6).
    fn verification(&self) -> Option<String> {
        let mut text = format!("{}<", self.value("FORM_TYPE")?);
        let mut fields: Vec<_> = self
            .fields
            .iter()
            .filter(|field| field.var.as_deref() != Some("FORM_TYPE"))
            .map(|field| {
                let mut values = field.values.clone();
                values.sort_unstable();
                (field.var.as_deref().unwrap_or_default(), values)
            })
            .collect();
        fields.sort_unstable();
        for (var, values) in fields {
            for part in std::iter::once(var).chain(values.iter().map(String::as_str)) {
                text.push_str(part);
                text.push('<');
            }
        }
        Some(text)
    }
}

/// Software version: the question (empty) and the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::VERSION, name = "query")]
pub struct Version {
    #[xml(extract(name = "name", default, fields(text(type_ = String))))]
    pub name: Option<String>,
    #[xml(extract(name = "version", default, fields(text(type_ = String))))]
    pub version: Option<String>,
    #[xml(extract(name = "os", default, fields(text(type_ = String))))]
    pub os: Option<String>,
}

/// Ping; the answer is an empty result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::PING, name = "ping")]
pub struct Ping;

/// The priority of an undirected presence (RFC 6121 §4.7.2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::CLIENT, name = "priority")]
pub struct Priority {
    #[xml(text(codec = Lax))]
    pub value: Option<i8>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml;

    /// What the current client library announces (`client-focus` §9.2).
    const CLIENT: [&str; 17] = [
        "http://jabber.org/protocol/caps",
        "http://jitsi.org/json-encoded-sources",
        "http://jitsi.org/receive-multiple-video-streams",
        "http://jitsi.org/remb",
        "http://jitsi.org/source-name",
        "http://jitsi.org/start-muted-room-metadata",
        "http://jitsi.org/tcc",
        "http://jitsi.org/visitors-1",
        "urn:ietf:rfc:4588",
        "urn:xmpp:jingle:1",
        "urn:xmpp:jingle:apps:dtls:0",
        "urn:xmpp:jingle:apps:rtp:1",
        "urn:xmpp:jingle:apps:rtp:audio",
        "urn:xmpp:jingle:apps:rtp:video",
        "urn:xmpp:jingle:transports:dtls-sctp:1",
        "urn:xmpp:jingle:transports:ice-udp:1",
        "urn:xmpp:rayo:client:1",
    ];

    #[test]
    fn capabilities_hash_as_the_client_library_does() {
        let rewriting = "http://jitsi.org/ssrc-rewriting-1";
        let demux = "http://jitsi.org/rtp-mid-demux";
        let mut info = DiscoInfo::features(CLIENT);
        assert_eq!(info.ver(), "dtzK/3xhISaXUMVg59IpXxdvKyQ=");
        // Order does not matter.
        info.features.insert(
            0,
            Feature {
                var: rewriting.to_owned(),
            },
        );
        assert_eq!(info.ver(), "+mpajJhafj8jFogLBKsPbQfMgzU=");
        info.features.insert(
            3,
            Feature {
                var: demux.to_owned(),
            },
        );
        assert_eq!(info.ver(), "51gM9HGbGxB1O0vhf3D8bexpwdk=");
    }

    /// Both examples of XEP-0115: §5.2 (simple), §5.3 (with languages and a form).
    #[test]
    fn capabilities_hash_as_in_xep_0115() {
        let features = "<feature var='http://jabber.org/protocol/caps'/>\
            <feature var='http://jabber.org/protocol/disco#info'/>\
            <feature var='http://jabber.org/protocol/disco#items'/>\
            <feature var='http://jabber.org/protocol/muc'/>";
        let read = |extra: &str| -> DiscoInfo {
            let text = format!(
                "<query xmlns='{}'>{extra}{features}</query>",
                ns::DISCO_INFO
            );
            xml::from_element(xml::parse(text.as_bytes()).expect("XML")).expect("disco#info")
        };
        let simple = read("<identity category='client' name='Exodus 0.9.1' type='pc'/>");
        assert_eq!(simple.ver(), "QgayPKawpkPSDYmwT/WM94uAlu0=");
        let complex = read(
            "<identity xml:lang='en' category='client' name='Psi 0.11' type='pc'/>\
             <identity xml:lang='el' category='client' name='Ψ 0.11' type='pc'/>\
             <x xmlns='jabber:x:data' type='result'>\
             <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:dataforms:softwareinfo</value></field>\
             <field var='ip_version'><value>ipv4</value><value>ipv6</value></field>\
             <field var='os'><value>Mac</value></field>\
             <field var='os_version'><value>10.5.1</value></field>\
             <field var='software'><value>Psi</value></field>\
             <field var='software_version'><value>0.11</value></field></x>",
        );
        assert_eq!(complex.ver(), "q07IKJEyjvHSyhy//CH0CxmKi8w=");
    }

    #[test]
    fn a_form_without_type_is_no_part_of_the_hash() {
        let mut info = DiscoInfo::features(CLIENT);
        info.forms.push(DataForm {
            kind: None,
            fields: vec![Field {
                var: Some("a".to_owned()),
                kind: None,
                values: vec!["b".to_owned()],
            }],
        });
        assert_eq!(info.ver(), "dtzK/3xhISaXUMVg59IpXxdvKyQ=");
    }

    #[test]
    fn caps_name_the_query_for_them() {
        let info = DiscoInfo::features(CLIENT);
        let caps = Caps::new("https://jitsi.org/jitsi-meet", &info);
        assert_eq!(
            caps.query_node(),
            "https://jitsi.org/jitsi-meet#dtzK/3xhISaXUMVg59IpXxdvKyQ="
        );
        assert_eq!(caps.hash.as_deref(), Some("sha-1"));
        assert!(info.has("urn:ietf:rfc:4588"));
        assert!(!info.has("urn:ietf:rfc:4589"));
    }

    #[test]
    fn a_submitted_form_starts_with_its_type() {
        let form = DataForm::submit("type", &[("a", "1"), ("b", "2")]);
        assert_eq!(form.fields[0].var.as_deref(), Some("FORM_TYPE"));
        assert_eq!(form.value("FORM_TYPE"), Some("type"));
        assert_eq!(form.value("b"), Some("2"));
        assert_eq!(form.value("c"), None);
        assert_eq!(form.kind.as_deref(), Some("submit"));
    }
}
