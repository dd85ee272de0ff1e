//! From an address to a stream on which stanzas flow: STARTTLS, SASL, then
//! resume or bind (RFC 6120, XEP-0198); or the handshake of a component
//! (XEP-0114).

use sha1::{Digest, Sha1};
use tracing::{debug, info};

use super::connection::{Connection, TLS};
use super::{ClientSettings, ComponentSettings, Mark, Shared};
use crate::jid::{FullJid, Jid};
use crate::session::sasl::{Exchange, Offer};
use crate::session::stream::StreamKind;
use crate::session::{Security, Trouble};
use crate::xml::ns::{CLIENT, STANZAS};
use crate::xml::{Element, set, xml_ncname};

/// Namespace of stream management.
pub(super) const MANAGEMENT: &str = "urn:xmpp:sm:3";
/// Namespace of resource binding (RFC 6120 §7).
const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
/// Id of our bind request.
const BIND_ID: &str = "bind";
/// Stanzas that may come between binding and the start of counting.
const MAX_EARLY: usize = 256;

/// A stream on which stanzas flow.
pub(super) struct Login {
    pub(super) connection: Connection,
    pub(super) jid: Jid,
    pub(super) resumed: bool,
    /// Stanzas that came before both sides began to count.
    pub(super) early: Vec<Element>,
}

/// Logs in as a client. On success `shared` is online.
pub(super) async fn client(settings: &ClientSettings, shared: &Shared) -> Result<Login, Trouble> {
    let domain = &settings.domain;
    let mut connection =
        Connection::connect(StreamKind::Client, &settings.host, settings.port).await?;
    connection.open(domain).await?;
    let mut features = connection.element().await?;
    let offered = features.has_child("starttls", TLS);
    let mut exporter = None;
    match settings.security {
        Security::Required if !offered => return Err(Trouble::NoTls),
        Security::Required | Security::IfPossible if offered => {
            let verify = settings.verify_certificate;
            let trusted = &settings.trusted_certificates;
            (connection, exporter) = connection.start_tls(domain, verify, trusted).await?;
            connection.open(domain).await?;
            features = connection.element().await?;
        }
        _ => {}
    }
    authenticate(settings, &mut connection, &features, exporter).await?;
    connection.open(domain).await?;
    let features = connection.element().await?;
    let managed = settings.resumption && features.has_child("sm", MANAGEMENT);
    if managed && let Some(jid) = resume(&mut connection, shared).await? {
        return Ok(Login {
            connection,
            jid,
            resumed: true,
            early: Vec::new(),
        });
    }
    let jid = bind(&mut connection, settings.resource.as_deref()).await?;
    let (kept, early) = if managed {
        enable(&mut connection).await?
    } else {
        (None, Vec::new())
    };
    let mut outgoing = shared.outgoing();
    let lost = outgoing.management.reset();
    if lost > 0 {
        debug!(lost, "stanzas of the earlier stream are lost");
    }
    if let Some(resume) = kept {
        outgoing.management.enabled(jid.as_str(), resume);
    }
    outgoing.epoch += 1;
    outgoing.online = true;
    shared.handled.set(Mark {
        epoch: outgoing.epoch,
        number: 0,
    });
    drop(outgoing);
    Ok(Login {
        connection,
        jid: jid.into(),
        resumed: false,
        early,
    })
}

async fn authenticate(
    settings: &ClientSettings,
    connection: &mut Connection,
    features: &Element,
    exporter: Option<Vec<u8>>,
) -> Result<(), Trouble> {
    let mut exchange = Exchange::new(
        &Offer::from_features(features),
        &settings.username,
        &settings.password,
        connection.encrypted(),
        exporter,
    )?;
    debug!(
        mechanism = exchange.name(),
        encrypted = connection.encrypted(),
        "logging in"
    );
    connection.send(&exchange.start()).await?;
    loop {
        match exchange.receive(&connection.element().await?)? {
            Some(response) => connection.send(&response).await?,
            None => return Ok(()),
        }
    }
}

/// Asks for the earlier stream. `None`: there is none, or the server has
/// forgotten it.
async fn resume(connection: &mut Connection, shared: &Shared) -> Result<Option<Jid>, Trouble> {
    let (request, bound, told) = {
        let outgoing = shared.outgoing();
        let management = &outgoing.management;
        let (Some(id), Some(bound)) = (management.resumable_id(), management.bound()) else {
            return Ok(None);
        };
        // No further than may be told to the server at all.
        let h = if shared.journaled {
            shared.tellable(outgoing.epoch)
        } else {
            management.received()
        };
        let mut request = Element::bare("resume", MANAGEMENT);
        set(&mut request, xml_ncname!("previd"), id);
        set(&mut request, xml_ncname!("h"), h.to_string());
        (request, bound.to_owned(), h)
    };
    connection.send(&request).await?;
    let answer = connection.element().await?;
    if !answer.is("resumed", MANAGEMENT) {
        let reason = condition(&answer);
        info!(
            account = bound,
            reason, "the server does not resume the stream"
        );
        return Ok(None);
    }
    let h = counter(&answer)?;
    let jid = Jid::new(&bound).map_err(|error| Trouble::Bind(error.to_string()))?;
    let mut outgoing = shared.outgoing();
    if outgoing.management.resumed(told, h).is_err() {
        return Err(Trouble::TakenOver);
    }
    outgoing.online = true;
    Ok(Some(jid))
}

async fn bind(connection: &mut Connection, resource: Option<&str>) -> Result<FullJid, Trouble> {
    let mut bind = Element::bare("bind", BIND);
    if let Some(resource) = resource {
        let mut child = Element::bare("resource", BIND);
        child.append_text(resource);
        bind.append_child(child);
    }
    let mut request = Element::bare("iq", CLIENT);
    set(&mut request, xml_ncname!("type"), "set");
    set(&mut request, xml_ncname!("id"), BIND_ID);
    request.append_child(bind);
    connection.send(&request).await?;
    let answer = connection.element().await?;
    if !answer.is("iq", CLIENT) || answer.attr("id") != Some(BIND_ID) {
        return Err(Trouble::Protocol(format!(
            "<{}/> instead of a bound resource",
            answer.name()
        )));
    }
    if answer.attr("type") != Some("result") {
        let error = answer.get_child("error", CLIENT);
        return Err(Trouble::Bind(
            error.map_or("no reason given".to_owned(), condition),
        ));
    }
    let jid = answer
        .get_child("bind", BIND)
        .and_then(|bind| bind.get_child("jid", BIND))
        .map(Element::text)
        .unwrap_or_default();
    FullJid::new(&jid).map_err(|error| Trouble::Bind(format!("'{jid}': {error}")))
}

/// Id and `max` of a stream that the server will keep.
type Kept = Option<(String, Option<u32>)>;

/// Turns stream management on. The outer `None`: the server does not count.
async fn enable(connection: &mut Connection) -> Result<(Option<Kept>, Vec<Element>), Trouble> {
    let mut request = Element::bare("enable", MANAGEMENT);
    set(&mut request, xml_ncname!("resume"), "true");
    connection.send(&request).await?;
    let mut early = Vec::new();
    loop {
        let element = connection.element().await?;
        if element.is("enabled", MANAGEMENT) {
            let resume = matches!(element.attr("resume"), Some("true" | "1"));
            let id = element.attr("id").filter(|_| resume);
            let max = element.attr("max").and_then(|max| max.parse().ok());
            return Ok((Some(id.map(|id| (id.to_owned(), max))), early));
        }
        if element.is("failed", MANAGEMENT) {
            let reason = condition(&element);
            info!(reason, "the server offers stream management and refuses it");
            return Ok((None, early));
        }
        if early.len() >= MAX_EARLY {
            return Err(Trouble::Protocol(
                "no answer to <enable/> among the stanzas".to_owned(),
            ));
        }
        early.push(element);
    }
}

/// The `h` of an element of stream management.
pub(super) fn counter(element: &Element) -> Result<u32, Trouble> {
    element
        .attr("h")
        .and_then(|h| h.parse().ok())
        .ok_or_else(|| Trouble::Protocol(format!("<{}/> without a count", element.name())))
}

/// The condition an error element names.
fn condition(error: &Element) -> String {
    error
        .children()
        .find(|child| child.has_ns(STANZAS) && child.name() != "text")
        .map_or("no reason given", Element::name)
        .to_owned()
}

/// Connects as a component. On success `shared` is online.
pub(super) async fn component(
    settings: &ComponentSettings,
    shared: &Shared,
) -> Result<Login, Trouble> {
    let domain = &settings.domain;
    let jid = Jid::new(domain).map_err(|error| Trouble::Bind(format!("'{domain}': {error}")))?;
    let mut connection =
        Connection::connect(StreamKind::Component, &settings.host, settings.port).await?;
    let Some(id) = connection.open(domain).await? else {
        return Err(Trouble::Protocol("a stream without an id".to_owned()));
    };
    let mut handshake = Element::bare("handshake", CLIENT);
    handshake.append_text(token(&id, &settings.secret));
    connection.send(&handshake).await?;
    let answer = connection
        .element()
        .await
        .map_err(|trouble| match trouble {
            Trouble::StreamError { condition, text } if condition == "not-authorized" => {
                Trouble::Secret(text)
            }
            trouble => trouble,
        })?;
    if !answer.is("handshake", CLIENT) {
        return Err(Trouble::Protocol(format!(
            "<{}/> instead of the handshake",
            answer.name()
        )));
    }
    let mut outgoing = shared.outgoing();
    outgoing.management.reset();
    outgoing.online = true;
    drop(outgoing);
    Ok(Login {
        connection,
        jid,
        resumed: false,
        early: Vec::new(),
    })
}

/// What proves that a component knows the secret (XEP-0114 §3).
fn token(stream: &str, secret: &str) -> String {
    let digest = Sha1::digest(format!("{stream}{secret}"));
    digest.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of XEP-0114 §3.
    #[test]
    fn handshake_token() {
        assert_eq!(
            token("3BF96D32", "test"),
            "aaee83c26aeeafcbabeabfcbcd50df997e0a2a1e"
        );
    }
}
