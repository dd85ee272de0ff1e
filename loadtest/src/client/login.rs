//! Anonymous login (RFC 6120 §6 to §7, XEP-0175): from the server's stream
//! features to a bound address, whatever carries the stream.

use viaduct_signalling::iq::{Iq, Kind};
use viaduct_signalling::jid::FullJid;
use viaduct_signalling::xml::{Element, xml_ncname};

const STREAM: &str = "http://etherx.jabber.org/streams";
const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";

/// Why there is no login.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error(
        "the server has no anonymous login for this domain, it offers: {0} \
         (Prosody: authentication = \"anonymous\")"
    )]
    NotAnonymous(String),
    #[error("the server refused: {0}")]
    Refused(String),
    #[error("unexpected <{0}/> during the login")]
    Unexpected(String),
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub enum Step {
    Send(Element),
    /// Start TLS, then open the stream anew (RFC 6120 §5).
    Encrypt,
    /// Open the stream anew, as after any SASL success.
    Restart,
    Done(FullJid),
    /// Wait for the next element.
    Wait,
}

#[derive(Debug, PartialEq)]
enum State {
    Start,
    Encrypting,
    Authenticating,
    Authenticated,
    Binding,
}

/// One login.
#[derive(Debug)]
pub struct Login {
    state: State,
}

impl Default for Login {
    fn default() -> Self {
        Self {
            state: State::Start,
        }
    }
}

impl Login {
    /// Takes the server's next element.
    pub fn receive(&mut self, element: &Element) -> Result<Step, LoginError> {
        if element.is("error", STREAM) {
            let condition = element
                .children()
                .next()
                .map_or("stream error", Element::name);
            return Err(LoginError::Refused(condition.to_owned()));
        }
        match self.state {
            State::Start if element.is("features", STREAM) => self.authenticate(element),
            State::Encrypting if element.is("proceed", TLS) => {
                self.state = State::Start;
                Ok(Step::Encrypt)
            }
            State::Authenticating if element.is("success", SASL) => {
                self.state = State::Authenticated;
                Ok(Step::Restart)
            }
            State::Authenticating if element.is("failure", SASL) => {
                let condition = element.children().next().map_or("no reason", Element::name);
                Err(LoginError::Refused(condition.to_owned()))
            }
            State::Authenticated if element.is("features", STREAM) => {
                self.state = State::Binding;
                let bind = Iq {
                    from: None,
                    to: None,
                    id: "bind".to_owned(),
                    kind: Kind::Set(Element::bare("bind", BIND)),
                }
                .to_element();
                Ok(Step::Send(bind))
            }
            State::Binding if element.name() == "iq" => match Iq::from_element(element) {
                Ok(Iq {
                    kind: Kind::Result(Some(bind)),
                    ..
                }) => bind
                    .get_child("jid", BIND)
                    .and_then(|jid| FullJid::new(&jid.text()).ok())
                    .map(Step::Done)
                    .ok_or_else(|| LoginError::Unexpected("bind".to_owned())),
                Ok(Iq {
                    kind: Kind::Error(error),
                    ..
                }) => Err(LoginError::Refused(error.to_string())),
                _ => Ok(Step::Wait),
            },
            _ => Err(LoginError::Unexpected(element.name().to_owned())),
        }
    }

    fn authenticate(&mut self, features: &Element) -> Result<Step, LoginError> {
        let mechanisms: Vec<String> = features
            .get_child("mechanisms", SASL)
            .into_iter()
            .flat_map(Element::children)
            .map(Element::text)
            .collect();
        if !mechanisms.iter().any(|name| name == "ANONYMOUS") {
            // Many servers offer a login only behind TLS.
            if mechanisms.is_empty() && features.has_child("starttls", TLS) {
                self.state = State::Encrypting;
                return Ok(Step::Send(Element::bare("starttls", TLS)));
            }
            return Err(LoginError::NotAnonymous(mechanisms.join(", ")));
        }
        self.state = State::Authenticating;
        let auth = Element::builder("auth", SASL)
            .attr(xml_ncname!("mechanism").to_owned(), "ANONYMOUS")
            .build();
        Ok(Step::Send(auth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use viaduct_signalling::xml;

    fn element(text: &str) -> Element {
        xml::parse(text.as_bytes()).expect("XML")
    }

    fn features(inner: &str) -> Element {
        element(&format!("<features xmlns='{STREAM}'>{inner}</features>"))
    }

    #[test]
    fn logs_in_as_prosody_expects() {
        let mut login = Login::default();
        let offered = features(&format!(
            "<mechanisms xmlns='{SASL}'><mechanism>ANONYMOUS</mechanism></mechanisms>"
        ));
        let Ok(Step::Send(auth)) = login.receive(&offered) else {
            panic!("no <auth/>");
        };
        assert!(auth.is("auth", SASL) && auth.attr("mechanism") == Some("ANONYMOUS"));
        let success = element(&format!("<success xmlns='{SASL}'/>"));
        assert_eq!(login.receive(&success).expect("logged in"), Step::Restart);
        let Ok(Step::Send(bind)) = login.receive(&features("<bind xmlns='urn:x'/>")) else {
            panic!("no bind");
        };
        assert!(bind.has_child("bind", BIND) && bind.attr("type") == Some("set"));
        let bound = element(&format!(
            "<iq xmlns='jabber:client' type='result' id='bind'><bind xmlns='{BIND}'>\
             <jid>a@b/c</jid></bind></iq>"
        ));
        let jid = FullJid::new("a@b/c").expect("an address");
        assert_eq!(login.receive(&bound).expect("bound"), Step::Done(jid));
    }

    #[test]
    fn encrypts_where_there_is_no_login_without() {
        let mut login = Login::default();
        let tls = features(&format!("<starttls xmlns='{TLS}'><required/></starttls>"));
        let Ok(Step::Send(start)) = login.receive(&tls) else {
            panic!("no <starttls/>");
        };
        assert!(start.is("starttls", TLS));
        let proceed = element(&format!("<proceed xmlns='{TLS}'/>"));
        assert_eq!(login.receive(&proceed).expect("TLS"), Step::Encrypt);
        let none = login.receive(&features("<bind xmlns='urn:x'/>"));
        assert!(matches!(none, Err(LoginError::NotAnonymous(_))));
    }

    #[test]
    fn says_what_is_wrong_with_the_server() {
        let scram = features(&format!(
            "<mechanisms xmlns='{SASL}'><mechanism>PLAIN</mechanism></mechanisms>"
        ));
        assert!(matches!(
            Login::default().receive(&scram),
            Err(LoginError::NotAnonymous(offered)) if offered == "PLAIN"
        ));
    }
}
