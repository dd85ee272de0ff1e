//! The XMPP session against a real Prosody: login, loss and return.

mod prosody;

use std::time::{Duration, Instant};

use prosody::{COMPONENT, DOMAIN, PASSWORD, Prosody, Proxy, SECRET, Wishes, free_port};
use tokio::time::timeout;
use viaduct_signalling::io::{
    ClientSettings, ComponentSettings, Events, Session, SessionEvent, client, component,
};
use viaduct_signalling::session::{Security, Trouble};
use viaduct_signalling::xml::{Element, NcName};

/// A busy machine runs these; none of the waits below is a measurement.
const PATIENCE: Duration = Duration::from_secs(60);
const CLIENT: &str = "jabber:client";

/// Starts a server, or ends the test if there is none.
macro_rules! prosody {
    ($wishes:expr) => {
        match Prosody::start($wishes) {
            Some(prosody) => prosody,
            None => return,
        }
    };
}

fn settings(port: u16, account: &str, resource: &str) -> ClientSettings {
    ClientSettings {
        security: Security::Disabled,
        resource: Some(resource.to_owned()),
        ..ClientSettings::new("127.0.0.1", port, DOMAIN, account, PASSWORD)
    }
}

async fn next(events: &mut Events) -> SessionEvent {
    timeout(PATIENCE, events.recv())
        .await
        .expect("an event in time")
        .expect("a session that runs")
}

/// Waits until online, through failed attempts.
async fn online(events: &mut Events) -> (String, bool) {
    loop {
        if let SessionEvent::Online { jid, resumed } = next(events).await {
            return (jid.to_string(), resumed);
        }
    }
}

async fn offline(events: &mut Events) -> Trouble {
    loop {
        if let SessionEvent::Offline { reason, .. } = next(events).await {
            return reason;
        }
    }
}

async fn stanza(events: &mut Events) -> Element {
    loop {
        if let SessionEvent::Stanza(stanza) = next(events).await {
            return stanza;
        }
    }
}

fn element(text: &str) -> Element {
    text.parse().expect("an element")
}

fn message(to: &str, text: &str) -> Element {
    element(&format!(
        "<message xmlns='{CLIENT}' to='{to}'><body>{text}</body></message>"
    ))
}

fn body(message: &Element) -> String {
    message
        .get_child("body", CLIENT)
        .map(Element::text)
        .unwrap_or_default()
}

/// Median time of a ping to the server.
async fn round_trip(session: &Session, events: &mut Events) -> Duration {
    let mut times = Vec::new();
    for number in 0..101 {
        let start = Instant::now();
        session.send(element(&format!(
            "<iq xmlns='{CLIENT}' type='get' id='r{number}' to='{DOMAIN}'><ping xmlns='urn:xmpp:ping'/></iq>"
        )));
        let answer = stanza(events).await;
        assert_eq!(answer.attr("id"), Some(&*format!("r{number}")));
        times.push(start.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
async fn logs_in_over_tls_and_asks_without_delay() {
    let prosody = prosody!(Wishes { tls: Some(DOMAIN) });
    for resumption in [false, true] {
        let settings = ClientSettings {
            security: Security::Required,
            trusted_certificates: vec![prosody.certificate()],
            resumption,
            ..settings(prosody.c2s, "alice", "fixed")
        };
        let (session, mut events) = client(settings);
        let expected = (format!("alice@{DOMAIN}/fixed"), false);
        assert_eq!(online(&mut events).await, expected);
        assert_eq!(session.stream_state().is_some(), resumption);
        let median = round_trip(&session, &mut events).await;
        println!("median round trip over TLS, stream management {resumption}: {median:?}");
        // Nagle's algorithm and delayed acknowledgements would make it 44.
        assert!(median < Duration::from_millis(35), "{median:?}");
        session.close();
        while timeout(PATIENCE, events.recv())
            .await
            .expect("an end")
            .is_some()
        {}
    }
}

#[tokio::test]
async fn believes_only_certificates_that_are_trusted_and_for_the_domain() {
    let prosody = prosody!(Wishes { tls: Some(DOMAIN) });
    let base = ClientSettings {
        security: Security::Required,
        ..settings(prosody.c2s, "alice", "a")
    };
    let (_session, mut events) = client(base.clone());
    let reason = offline(&mut events).await;
    assert!(matches!(reason, Trouble::Certificate(_)), "{reason:?}");

    let (_session, mut events) = client(ClientSettings {
        verify_certificate: false,
        ..base
    });
    online(&mut events).await;
}

#[tokio::test]
async fn a_trusted_certificate_for_another_name_is_refused() {
    let prosody = prosody!(Wishes {
        tls: Some("other.test"),
    });
    let (_session, mut events) = client(ClientSettings {
        security: Security::Required,
        trusted_certificates: vec![prosody.certificate()],
        ..settings(prosody.c2s, "alice", "a")
    });
    let reason = offline(&mut events).await;
    assert!(matches!(reason, Trouble::Certificate(_)), "{reason:?}");
}

#[tokio::test]
async fn keeps_to_its_tls_policy() {
    let prosody = prosody!(Wishes::default());
    let with = |security| ClientSettings {
        security,
        ..settings(prosody.c2s, "alice", "a")
    };
    let (_session, mut events) = client(with(Security::Required));
    assert_eq!(offline(&mut events).await, Trouble::NoTls);
    let (_session, mut events) = client(with(Security::IfPossible));
    online(&mut events).await;
}

#[tokio::test]
async fn says_what_is_wrong_and_keeps_trying() {
    let prosody = prosody!(Wishes::default());
    let good = settings(prosody.c2s, "alice", "a");
    let (_session, mut events) = client(ClientSettings {
        password: "wrong".to_owned(),
        ..good.clone()
    });
    for _ in 0..2 {
        let reason = offline(&mut events).await;
        assert!(matches!(reason, Trouble::Credentials(_)), "{reason:?}");
    }
    let (_session, mut events) = client(ClientSettings {
        domain: "unknown.test".to_owned(),
        ..good.clone()
    });
    assert_eq!(offline(&mut events).await, Trouble::HostUnknown);
    let (_session, mut events) = client(ClientSettings {
        port: free_port(),
        ..good.clone()
    });
    let reason = offline(&mut events).await;
    assert!(matches!(reason, Trouble::Connect(_)), "{reason:?}");
    let (_session, mut events) = client(ClientSettings {
        host: "no.such.host.invalid".to_owned(),
        ..good
    });
    let reason = offline(&mut events).await;
    assert!(matches!(reason, Trouble::Resolve(_)), "{reason:?}");
}

#[tokio::test]
async fn comes_back_after_a_restart_of_the_server() {
    let mut prosody = prosody!(Wishes::default());
    let (session, mut events) = client(ClientSettings {
        resumption: true,
        ..settings(prosody.c2s, "alice", "a")
    });
    online(&mut events).await;
    prosody.stop();
    offline(&mut events).await;
    // A resumable stream's stanzas wait; a server that has forgotten the
    // stream never gets them.
    session.send(message(&format!("alice@{DOMAIN}/a"), "too late"));
    prosody.run();
    assert_eq!(
        online(&mut events).await,
        (format!("alice@{DOMAIN}/a"), false)
    );
    session.send(message(&format!("alice@{DOMAIN}/a"), "in time"));
    assert_eq!(body(&stanza(&mut events).await), "in time");
}

#[tokio::test]
async fn a_cut_connection_loses_nothing() {
    let prosody = prosody!(Wishes::default());
    let proxy = Proxy::to(prosody.c2s);
    let (alice, mut alices) = client(ClientSettings {
        resumption: true,
        ..settings(proxy.port, "alice", "a")
    });
    let (bob, mut bobs) = client(settings(prosody.c2s, "bob", "b"));
    let (jid, _) = online(&mut alices).await;
    online(&mut bobs).await;
    for round in 0..3 {
        proxy.cut();
        offline(&mut alices).await;
        alice.send(message(&format!("bob@{DOMAIN}/b"), &format!("out {round}")));
        bob.send(message(&jid, &format!("in {round}")));
        assert_eq!(online(&mut alices).await, (jid.clone(), true));
        assert_eq!(body(&stanza(&mut alices).await), format!("in {round}"));
        assert_eq!(body(&stanza(&mut bobs).await), format!("out {round}"));
    }
}

/// The server repeats what was not written down; the owner sees it once.
#[tokio::test]
async fn a_cut_connection_doubles_nothing_where_a_journal_lags() {
    let prosody = prosody!(Wishes::default());
    let proxy = Proxy::to(prosody.c2s);
    let (alice, mut alices) = client(ClientSettings {
        resumption: true,
        journaled: true,
        ..settings(proxy.port, "alice", "a")
    });
    let (bob, mut bobs) = client(settings(prosody.c2s, "bob", "b"));
    let (jid, _) = online(&mut alices).await;
    online(&mut bobs).await;
    for round in 0..3 {
        for text in ["x", "y", "z"] {
            bob.send(message(&jid, &format!("{text} {round}")));
        }
        for text in ["x", "y", "z"] {
            assert_eq!(body(&stanza(&mut alices).await), format!("{text} {round}"));
            if text == "y" {
                alice.written_down(&alice.stream_state().expect("a resumable stream"));
            }
        }
        proxy.cut();
        assert_eq!(online(&mut alices).await, (jid.clone(), true));
    }
    bob.send(message(&jid, "last"));
    assert_eq!(body(&stanza(&mut alices).await), "last");
}

#[tokio::test]
async fn another_process_resumes_the_stream() {
    let prosody = prosody!(Wishes::default());
    let base = ClientSettings {
        resumption: true,
        journaled: true,
        ..settings(prosody.c2s, "alice", "a")
    };
    let (bob, mut bobs) = client(settings(prosody.c2s, "bob", "b"));
    online(&mut bobs).await;
    let (first, mut events) = client(base.clone());
    let (jid, _) = online(&mut events).await;
    for text in ["one", "two"] {
        bob.send(message(&jid, text));
    }
    assert_eq!(body(&stanza(&mut events).await), "one");
    assert_eq!(body(&stanza(&mut events).await), "two");
    // The owner has not come back from the second: it is not handled yet.
    let state = first.stream_state().expect("a resumable stream");
    assert_eq!(state.handled, 1);
    first.written_down(&state);
    // It does, but dies before it has written that down.
    assert_eq!(events.try_recv(), None);
    tokio::time::sleep(Duration::from_millis(500)).await;
    first.abandon();
    while timeout(PATIENCE, events.recv())
        .await
        .expect("an end")
        .is_some()
    {}
    bob.send(message(&jid, "three"));

    let (second, mut events) = client(ClientSettings {
        resume: Some(state),
        ..base.clone()
    });
    assert_eq!(online(&mut events).await, (jid.clone(), true));
    let texts = [stanza(&mut events).await, stanza(&mut events).await];
    assert_eq!(texts.map(|text| body(&text)), ["two", "three"]);
    second.send(message(&format!("bob@{DOMAIN}/b"), "thanks"));
    assert_eq!(body(&stanza(&mut bobs).await), "thanks");

    // A stream the server does not know: bound afresh.
    let mut state = second.stream_state().expect("a resumable stream");
    state.id = "unknown".to_owned();
    second.close();
    let (_third, mut events) = client(ClientSettings {
        resume: Some(state),
        ..base
    });
    assert_eq!(online(&mut events).await, (jid, false));
}

/// Prosody merely closes the connection of the process whose stream another
/// has resumed, and would let it resume in turn, for ever.
#[tokio::test]
async fn of_two_processes_the_one_that_went_on_keeps_the_stream() {
    let prosody = prosody!(Wishes::default());
    let proxy = Proxy::to(prosody.c2s);
    let (_bob, mut bobs) = client(settings(prosody.c2s, "bob", "b"));
    online(&mut bobs).await;
    let old = ClientSettings {
        resumption: true,
        ..settings(proxy.port, "alice", "a")
    };
    let (first, mut firsts) = client(old.clone());
    let (jid, _) = online(&mut firsts).await;
    proxy.refuse(true);
    let (second, mut seconds) = client(ClientSettings {
        port: prosody.c2s,
        resume: first.stream_state(),
        ..old
    });
    assert_eq!(online(&mut seconds).await, (jid.clone(), true));
    second.send(message(&format!("bob@{DOMAIN}/b"), "mine"));
    assert_eq!(body(&stanza(&mut bobs).await), "mine");
    proxy.refuse(false);
    loop {
        match next(&mut firsts).await {
            SessionEvent::Offline { .. } => {}
            SessionEvent::Replaced { .. } => break,
            event => panic!("{event:?}"),
        }
    }
    // The attempt cut the second's connection; it has its stream back.
    assert_eq!(online(&mut seconds).await, (jid, true));
}

#[tokio::test]
async fn one_that_is_replaced_rests_until_told_to_go_on() {
    let prosody = prosody!(Wishes::default());
    let (first, mut firsts) = client(settings(prosody.c2s, "alice", "same"));
    online(&mut firsts).await;
    let (_second, mut seconds) = client(settings(prosody.c2s, "alice", "same"));
    online(&mut seconds).await;
    let event = next(&mut firsts).await;
    assert!(matches!(event, SessionEvent::Replaced { .. }), "{event:?}");
    let quiet = timeout(Duration::from_secs(2), firsts.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    first.rebind("other");
    assert_eq!(
        online(&mut firsts).await,
        (format!("alice@{DOMAIN}/other"), false)
    );
    assert_eq!(seconds.try_recv(), None);
}

#[tokio::test]
async fn a_component_speaks_as_a_client_does() {
    let prosody = prosody!(Wishes::default());
    let mut wrong = ComponentSettings::new("127.0.0.1", prosody.component, COMPONENT, "wrong");
    let (_session, mut events) = component(wrong.clone());
    let reason = offline(&mut events).await;
    assert!(matches!(reason, Trouble::Secret(_)), "{reason:?}");
    wrong.domain = "unknown.test".to_owned();
    let (_session, mut events) = component(wrong);
    assert_eq!(offline(&mut events).await, Trouble::HostUnknown);

    let settings_of = ComponentSettings {
        ping_interval: Duration::from_secs(1),
        ..ComponentSettings::new("127.0.0.1", prosody.component, COMPONENT, SECRET)
    };
    let (focus, mut focuses) = component(settings_of);
    assert_eq!(online(&mut focuses).await, (COMPONENT.to_owned(), false));
    let (alice, mut alices) = client(settings(prosody.c2s, "alice", "a"));
    online(&mut alices).await;
    for round in 0..4 {
        alice.send(element(&format!(
            "<iq xmlns='{CLIENT}' type='set' id='q{round}' to='{COMPONENT}'><q xmlns='u:q'/></iq>"
        )));
        let request = stanza(&mut focuses).await;
        assert!(request.is("iq", CLIENT) && request.has_child("q", "u:q"));
        let from = request.attr("from").expect("an address");
        focus.send(element(&format!(
            "<iq xmlns='{CLIENT}' type='error' id='q{round}' from='{COMPONENT}' to='{from}'>\
             <error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        )));
        let answer = stanza(&mut alices).await;
        assert!(answer.has_child("error", CLIENT), "{answer:?}");
        // Its own pings go round by way of the server meanwhile.
        tokio::time::sleep(Duration::from_millis(1200)).await;
    }
    alice.send(element(&format!(
        "<iq xmlns='{CLIENT}' type='get' id='p' to='{COMPONENT}'><ping xmlns='urn:xmpp:ping'/></iq>"
    )));
    let answer = stanza(&mut alices).await;
    assert_eq!(answer.attr("type"), Some("result"));
    assert_eq!(
        focuses.try_recv(),
        None,
        "neither pings nor losses are seen"
    );
}

#[tokio::test]
async fn notices_a_server_that_falls_silent() {
    let prosody = prosody!(Wishes::default());
    let proxy = Proxy::to(prosody.c2s);
    let (_session, mut events) = client(ClientSettings {
        ping_interval: Duration::from_secs(1),
        ..settings(proxy.port, "alice", "a")
    });
    online(&mut events).await;
    // Pings are answered: nothing happens.
    let quiet = timeout(Duration::from_secs(4), events.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    proxy.freeze(true);
    assert_eq!(offline(&mut events).await, Trouble::Unanswered);
    proxy.freeze(false);
    online(&mut events).await;
}

/// All of these pass the server; none may end the stream of the receiver.
#[tokio::test]
async fn hostile_stanzas_cost_only_their_sender() {
    let prosody = prosody!(Wishes::default());
    let (_alice, mut alices) = client(settings(prosody.c2s, "alice", "a"));
    let (bob, mut bobs) = client(settings(prosody.c2s, "bob", "b"));
    let (jid, _) = online(&mut alices).await;
    online(&mut bobs).await;
    let mut deep = Element::bare("deep", "u:x");
    for _ in 0..150 {
        let mut outer = Element::bare("deep", "u:x");
        outer.append_child(deep);
        deep = outer;
    }
    let mut iq = element(&format!(
        "<iq xmlns='{CLIENT}' type='get' id='d' to='{jid}'/>"
    ));
    iq.append_child(deep);
    bob.send(iq);
    let answer = stanza(&mut bobs).await;
    let error = answer.get_child("error", CLIENT).expect("an error");
    assert!(error.has_child("policy-violation", "urn:ietf:params:xml:ns:xmpp-stanzas"));

    let long = "x".repeat(60_000);
    let mut attribute = Element::builder("x", "u:x");
    attribute = attribute.attr(NcName::try_from("a").expect("a name"), long);
    let mut stanza_of = message(&jid, "long");
    stanza_of.append_child(attribute.build());
    bob.send(stanza_of);
    bob.send(message(&jid, "after"));
    assert_eq!(body(&stanza(&mut alices).await), "long");
    assert_eq!(body(&stanza(&mut alices).await), "after");
}
