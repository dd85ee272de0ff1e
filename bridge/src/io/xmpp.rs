//! The bridge's XMPP connections: one task for each, which carries events of
//! the session to the connection's state machine ([`crate::brewery`]) and its
//! stanzas back. Media goes on while XMPP is away.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use rand::Rng;
use tokio::sync::watch;
use tokio::time::{Duration, MissedTickBehavior, interval, timeout};
use viaduct_signalling::brewery::Stats;
use viaduct_signalling::colibri2::{ConferenceModified, ConferenceModify};
use viaduct_signalling::disco::Version;
use viaduct_signalling::io::{ClientSettings, SessionEvent, client};
use viaduct_signalling::iq::StanzaError;

use super::control::{Bridge, Login};
use super::identity::Identity;
use super::{clock, metrics, rng};
use crate::brewery::{Brewery, Host};
use crate::config::XmppConnection;

/// How long a stream may take to end when the process does.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The bridge as a [`Host`] of one connection.
struct Answers<'a>(&'a Bridge);

impl Host for Answers<'_> {
    fn modify(&mut self, request: &ConferenceModify) -> Result<ConferenceModified, StanzaError> {
        self.0.colibri(|c| c.handle(clock::now(), request))
    }

    fn unhealthy(&mut self) -> Option<String> {
        self.0.unhealthy()
    }

    fn statistics(&mut self) -> Stats {
        metrics::presence_statistics(self.0).into_iter().collect()
    }

    fn version(&self) -> Version {
        Version {
            name: Some(metrics::NAME.to_owned()),
            version: Some(metrics::VERSION.to_owned()),
            os: Some(std::env::consts::OS.to_owned()),
        }
    }
}

/// Keeps one connection until `stop` turns true; then leaves its rooms.
pub async fn run(
    bridge: Arc<Bridge>,
    identity: Arc<Mutex<Identity>>,
    connection: XmppConnection,
    mut stop: watch::Receiver<bool>,
) {
    let configured = connection.nickname.as_deref();
    let (resource, nickname, suffix) = {
        let identity = identity.lock().expect("no holder panics");
        (
            identity.resource(),
            identity.nickname(configured),
            identity.suffix(),
        )
    };
    let (session, mut events) = client(ClientSettings {
        resource: Some(resource),
        // A kept stream would hide the death of a bridge.
        resumption: false,
        ..connection.client.clone()
    });
    let mut brewery = Brewery::new(
        &connection.rooms,
        &nickname,
        suffix,
        rng::generator().random(),
        clock::now(),
    );
    let mut online = Gauge::new(&bridge.xmpp.clients_connected);
    let mut joined = Gauge::new(&bridge.xmpp.mucs_joined);
    let mut publish = interval(bridge.config.presence_interval);
    publish.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut second = interval(Duration::from_secs(1));
    let mut host = Answers(&bridge);
    let server = format!("{}:{}", connection.client.host, connection.client.port);
    let mut logged_in = None;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(SessionEvent::Online { jid, .. }) => match jid.try_into_full() {
                    Ok(own) => {
                        online.set(1);
                        logged_in = Some(own.to_string());
                        brewery.online(clock::now(), own);
                    }
                    Err(bare) => tracing::error!(%bare, "the server bound no resource"),
                },
                Some(SessionEvent::Stanza(stanza)) => {
                    brewery.handle_stanza(clock::now(), &stanza, &mut host);
                }
                Some(SessionEvent::Offline { .. }) => {
                    if online.value == 1 {
                        bridge.xmpp.disconnects.fetch_add(1, Relaxed);
                    }
                    online.set(0);
                    logged_in = None;
                    brewery.offline(clock::now());
                }
                Some(SessionEvent::Replaced { text }) => {
                    online.set(0);
                    logged_in = None;
                    bridge.xmpp.disconnects.fetch_add(1, Relaxed);
                    let resource = give_up(&identity, &mut brewery, &text);
                    session.rebind(resource);
                }
                None => return,
            },
            _ = publish.tick() => brewery.publish(&mut host),
            _ = second.tick() => brewery.handle_timeout(clock::now()),
            _ = stop.wait_for(|stop| *stop) => break,
        }
        joined.set(brewery.joined());
        note_login(&bridge, &server, logged_in.as_deref(), brewery.nickname());
        for stanza in brewery.take_outgoing() {
            session.send(stanza);
        }
    }
    brewery.leave();
    for stanza in brewery.take_outgoing() {
        session.send(stanza);
    }
    session.close();
    let ended = timeout(CLOSE_TIMEOUT, async {
        while events.recv().await.is_some() {}
    });
    if ended.await.is_err() {
        tracing::warn!(
            host = connection.client.host,
            "the XMPP stream did not end in time"
        );
    }
}

/// Keeps [`super::control::XmppGauges::logins`] true.
fn note_login(bridge: &Bridge, server: &str, jid: Option<&str>, nickname: &str) {
    let mut logins = bridge.xmpp.logins.lock().expect("no holder panics");
    let Some(jid) = jid else {
        logins.remove(server);
        return;
    };
    let known = logins.get(server);
    if known.is_none_or(|login| login.jid != jid || login.nickname != nickname) {
        let login = Login {
            jid: jid.to_owned(),
            nickname: nickname.to_owned(),
        };
        logins.insert(server.to_owned(), login);
    }
}

/// Another bridge bound our resource: a new identity, and what to bind now.
fn give_up(identity: &Mutex<Identity>, brewery: &mut Brewery, text: &str) -> String {
    let mut identity = identity.lock().expect("no holder panics");
    let old = brewery.nickname().to_owned();
    let (nickname, kept) = identity.give_up(&old);
    tracing::error!(
        nickname = old,
        now = nickname,
        server_says = text,
        "another bridge logged in with our XMPP resource, so it has our kept id: a copied disk \
         image? Going on under a new id and name; running calls are not disturbed. Remove the \
         kept id from the copy, or from the image"
    );
    if let Err(error) = kept {
        tracing::error!(%error, "the new id will not outlast this process");
    }
    brewery.replaced(clock::now(), nickname, identity.suffix());
    identity.resource()
}

/// This connection's part of a number that all connections add to.
struct Gauge<'a> {
    sum: &'a std::sync::atomic::AtomicUsize,
    value: usize,
}

impl<'a> Gauge<'a> {
    fn new(sum: &'a std::sync::atomic::AtomicUsize) -> Self {
        Self { sum, value: 0 }
    }

    fn set(&mut self, value: usize) {
        self.sum.fetch_add(value, Relaxed);
        self.sum.fetch_sub(self.value, Relaxed);
        self.value = value;
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}
