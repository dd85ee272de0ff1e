//! Which SASL mechanism to log in with (RFC 6120 §6), and the exchange.
//!
//! The strongest that both sides know: SCRAM with the login bound to the TLS
//! channel (RFC 9266), SCRAM, and PLAIN, that one over TLS only.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sasl::client::Mechanism;
use sasl::client::mechanisms::{Plain, Scram};
use sasl::common::scram::{Sha1, Sha256};
use sasl::common::{ChannelBinding, Credentials};

use super::Trouble;
use crate::xml::{Element, set, xml_ncname};

/// Namespace of SASL's elements.
pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
/// Namespace in which a server lists its channel bindings (XEP-0440).
const BINDINGS: &str = "urn:xmpp:sasl-cb:0";
/// Rounds of key derivation a server may ask for; Prosody asks for 10000.
const MAX_ITERATIONS: u64 = 1_000_000;

/// What the server's stream features say about logging in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    mechanisms: Vec<String>,
    /// Channel bindings, if the server names them.
    bindings: Option<Vec<String>>,
}

impl Offer {
    pub fn from_features(features: &Element) -> Self {
        Self {
            mechanisms: features
                .get_child("mechanisms", SASL)
                .into_iter()
                .flat_map(Element::children)
                .filter(|child| child.is("mechanism", SASL))
                .map(Element::text)
                .collect(),
            bindings: features
                .get_child("sasl-channel-binding", BINDINGS)
                .map(|list| {
                    list.children()
                        .filter_map(|child| child.attr("type"))
                        .map(str::to_owned)
                        .collect()
                }),
        }
    }

    fn has(&self, mechanism: &str) -> bool {
        self.mechanisms.iter().any(|offered| offered == mechanism)
    }
}

/// One login.
pub struct Exchange {
    mechanism: Box<dyn Mechanism + Send>,
    /// SCRAM's server proves that it knows the password.
    mutual: bool,
}

impl Exchange {
    /// Chooses among what is offered. `exporter`: the channel binding data
    /// of the TLS connection (RFC 9266), if there is one. `encrypted`:
    /// whether there is TLS.
    pub fn new(
        offer: &Offer,
        username: &str,
        password: &str,
        encrypted: bool,
        exporter: Option<Vec<u8>>,
    ) -> Result<Self, Trouble> {
        // A server whose list leaves our binding out has chosen for us.
        let exporter = exporter.filter(|_| {
            offer
                .bindings
                .as_ref()
                .is_none_or(|types| types.iter().any(|name| name == "tls-exporter"))
        });
        let bound = exporter.is_some();
        let binding = |plus: bool| match &exporter {
            Some(data) if plus => ChannelBinding::TlsExporter(data.clone()),
            // "I could, but you seem unable to": a server that is able then
            // knows that someone took the offer away (RFC 5802 §6).
            Some(_) => ChannelBinding::Unsupported,
            None => ChannelBinding::None,
        };
        let credentials = |plus| {
            Credentials::default()
                .with_username(escape(username))
                .with_password(password)
                .with_channel_binding(binding(plus))
        };
        let scram256 = |plus| Scram::<Sha256>::from_credentials(credentials(plus)).map(boxed);
        let scram1 = |plus| Scram::<Sha1>::from_credentials(credentials(plus)).map(boxed);
        let mechanism = if bound && offer.has("SCRAM-SHA-256-PLUS") {
            scram256(true)
        } else if bound && offer.has("SCRAM-SHA-1-PLUS") {
            scram1(true)
        } else if offer.has("SCRAM-SHA-256") {
            scram256(false)
        } else if offer.has("SCRAM-SHA-1") {
            scram1(false)
        } else if encrypted && offer.has("PLAIN") {
            Ok(boxed(Plain::new(username, password)))
        } else {
            let offered = match offer.mechanisms.as_slice() {
                [] => "none".to_owned(),
                names => names.join(", "),
            };
            return Err(Trouble::NoMechanism(format!("it offers {offered}")));
        }
        .map_err(|error| Trouble::Credentials(error.to_string()))?;
        Ok(Self {
            mutual: mechanism.name() != "PLAIN",
            mechanism,
        })
    }

    /// The name of the mechanism.
    pub fn name(&self) -> &str {
        self.mechanism.name()
    }

    /// `<auth/>`.
    pub fn start(&mut self) -> Element {
        let mut auth = Element::bare("auth", SASL);
        set(&mut auth, xml_ncname!("mechanism"), self.mechanism.name());
        auth.append_text(STANDARD.encode(self.mechanism.initial()));
        auth
    }

    /// Takes the server's next element: `Some` is to be sent, `None` means
    /// logged in.
    pub fn receive(&mut self, element: &Element) -> Result<Option<Element>, Trouble> {
        if element.ns() != SASL {
            return Err(unexpected(element));
        }
        match element.name() {
            "challenge" => {
                let challenge = decode(element)?;
                check_iterations(&challenge)?;
                let answer = self
                    .mechanism
                    .response(&challenge)
                    .map_err(|error| Trouble::Protocol(error.to_string()))?;
                let mut response = Element::bare("response", SASL);
                response.append_text(STANDARD.encode(answer));
                Ok(Some(response))
            }
            "success" => {
                if self.mutual {
                    self.mechanism
                        .success(&decode(element)?)
                        .map_err(|error| Trouble::ServerUnproved(error.to_string()))?;
                }
                Ok(None)
            }
            "failure" => {
                let condition = element
                    .children()
                    .find(|child| child.name() != "text")
                    .map_or("no reason given", Element::name);
                let text = element
                    .get_child("text", SASL)
                    .map(|text| format!(" ({})", text.text()))
                    .unwrap_or_default();
                Err(Trouble::Credentials(format!("{condition}{text}")))
            }
            _ => Err(unexpected(element)),
        }
    }
}

fn boxed<M: Mechanism + Send + 'static>(mechanism: M) -> Box<dyn Mechanism + Send> {
    Box::new(mechanism)
}

fn unexpected(element: &Element) -> Trouble {
    Trouble::Protocol(format!("unexpected <{}/> during login", element.name()))
}

fn decode(element: &Element) -> Result<Vec<u8>, Trouble> {
    match element.text().trim() {
        "" | "=" => Ok(Vec::new()),
        text => STANDARD
            .decode(text)
            .map_err(|error| Trouble::Protocol(format!("login data: {error}"))),
    }
}

/// The work of a login is the server's to set, within reason.
fn check_iterations(challenge: &[u8]) -> Result<(), Trouble> {
    let text = String::from_utf8_lossy(challenge);
    let iterations = text
        .split(',')
        .find_map(|part| part.strip_prefix("i="))
        .and_then(|count| count.parse::<u64>().ok());
    match iterations {
        Some(count) if count > MAX_ITERATIONS => Err(Trouble::Protocol(format!(
            "the login asks for {count} rounds of key derivation"
        ))),
        _ => Ok(()),
    }
}

/// A user name as SCRAM writes it (RFC 5802 §5.1).
fn escape(username: &str) -> String {
    username.replace('=', "=3D").replace(',', "=2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(names: &[&str], bindings: Option<&[&str]>) -> Offer {
        let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Offer {
            mechanisms: own(names),
            bindings: bindings.map(own),
        }
    }

    /// Mechanism chosen, and how the first message starts: `n` no binding,
    /// `y` able but not offered, `p` bound.
    #[test]
    fn chooses_the_strongest_that_the_channel_allows() {
        let all = &[
            "PLAIN",
            "SCRAM-SHA-1",
            "SCRAM-SHA-1-PLUS",
            "SCRAM-SHA-256",
            "SCRAM-SHA-256-PLUS",
        ];
        let data = Some(vec![7; 32]);
        for (names, bindings, encrypted, exporter, chosen, start) in [
            (
                &all[..],
                None,
                true,
                &data,
                "SCRAM-SHA-256-PLUS",
                "p=tls-exporter,,",
            ),
            (
                &all[..3],
                None,
                true,
                &data,
                "SCRAM-SHA-1-PLUS",
                "p=tls-exporter,,",
            ),
            (&all[..], None, true, &None, "SCRAM-SHA-256", "n,,"),
            (
                &all[..],
                Some(&["tls-unique"][..]),
                true,
                &data,
                "SCRAM-SHA-256",
                "n,,",
            ),
            (&all[..2], None, true, &data, "SCRAM-SHA-1", "y,,"),
            (&all[..2], None, false, &None, "SCRAM-SHA-1", "n,,"),
            (&all[..1], None, true, &None, "PLAIN", "\0u"),
        ] {
            let offer = offer(names, bindings);
            let mut exchange =
                Exchange::new(&offer, "u", "p", encrypted, exporter.clone()).expect("a mechanism");
            assert_eq!(exchange.name(), chosen);
            let first = STANDARD.decode(exchange.start().text()).expect("base64");
            assert!(
                first.starts_with(start.as_bytes()),
                "{chosen}: {}",
                String::from_utf8_lossy(&first)
            );
        }
    }

    #[test]
    fn a_password_is_never_sent_in_clear() {
        for names in [&["PLAIN"][..], &["X-OAUTH2"], &[]] {
            let result = Exchange::new(&offer(names, None), "u", "p", false, None);
            assert!(matches!(result, Err(Trouble::NoMechanism(_))));
        }
    }

    fn element(text: &str) -> Element {
        text.parse().expect("an element")
    }

    #[test]
    fn success_without_the_servers_proof_is_none() {
        let offer = offer(&["SCRAM-SHA-1"], None);
        let mut exchange = Exchange::new(&offer, "u", "p", false, None).expect("a mechanism");
        exchange.start();
        for success in [
            "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
            "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>dj1ybUY=</success>",
        ] {
            assert!(matches!(
                exchange.receive(&element(success)),
                Err(Trouble::ServerUnproved(_))
            ));
        }
    }

    #[test]
    fn refusals_and_nonsense_are_told_apart() {
        let offer = offer(&["SCRAM-SHA-1"], None);
        let mut exchange = Exchange::new(&offer, "u", "p", false, None).expect("a mechanism");
        exchange.start();
        let failure = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/><text>No</text></failure>";
        assert_eq!(
            exchange.receive(&element(failure)),
            Err(Trouble::Credentials("not-authorized (No)".to_owned()))
        );
        let costly = STANDARD.encode("r=abc,s=QSXCR+Q6sek8bf92,i=4000000000");
        for text in [
            format!("<challenge xmlns='{SASL}'>{costly}</challenge>"),
            format!("<challenge xmlns='{SASL}'>***</challenge>"),
            format!("<challenge xmlns='{SASL}'/>"),
            "<iq xmlns='jabber:client'/>".to_owned(),
        ] {
            assert!(matches!(
                exchange.receive(&element(&text)),
                Err(Trouble::Protocol(_))
            ));
        }
    }

    #[test]
    fn user_names_are_escaped_for_scram() {
        assert_eq!(escape("a=b,c"), "a=3Db=2Cc");
    }
}
