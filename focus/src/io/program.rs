//! The loop that drives the focus: events in, time, outputs out.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use viaduct_signalling::io::{self, Events, Session, SessionEvent};
use viaduct_signalling::iq::StanzaError;
use viaduct_signalling::jitsi::Conference as ConferenceIq;

use crate::config::Config;
use crate::focus::Focus;
use crate::io::http::{self, Query};
use crate::outbox::{Link, Output};

/// Questions of HTTP that wait; more make their askers wait.
const MAX_QUERIES: usize = 256;
/// Leaving the rooms and closing the streams may take that long.
const FAREWELL: Duration = Duration::from_secs(3);

/// Runs until a signal ends it; its number.
pub fn run(config: Config) -> anyhow::Result<u8> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?
        .block_on(serve(config))
}

/// A connection that may not be configured: it then never has an event.
struct Connection {
    link: Link,
    ends: Option<(Session, Events)>,
}

impl Connection {
    async fn event(&mut self) -> SessionEvent {
        if let Some((_, events)) = &mut self.ends
            && let Some(event) = events.recv().await
        {
            return event;
        }
        std::future::pending().await
    }
}

async fn serve(config: Config) -> anyhow::Result<u8> {
    let (queries, mut asked) = mpsc::channel(MAX_QUERIES);
    if let Some(address) = config.http.listen {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| {
                format!(
                    "jicofo.rest.host and jicofo.rest.port = {address} cannot be listened on; \
                 stop what uses it or choose another port"
                )
            })?;
        tracing::info!(%address, "HTTP");
        let router = http::router(&config.http, queries.clone());
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "HTTP ended");
            }
        });
    }
    let mut terminate = signal(SignalKind::terminate()).context("no signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no signals")?;
    let mut focus = Focus::new(config.focus, rand::random());
    let mut client = Connection {
        link: Link::Client,
        ends: Some(io::client(config.client)),
    };
    let mut service = Connection {
        link: Link::Service,
        ends: config.service.map(io::client),
    };
    let mut component = Connection {
        link: Link::Component,
        ends: config.component.map(io::component),
    };
    let mut http_askers = HashMap::new();
    let mut next_asker = 0u64;
    let ended_by = loop {
        deliver(
            &mut focus,
            [&client, &service, &component],
            &mut http_askers,
        );
        let wake = focus
            .next_timeout()
            .unwrap_or_else(|| Instant::now() + FAREWELL);
        tokio::select! {
            biased;
            _ = terminate.recv() => break libc_signal::TERMINATE,
            _ = interrupt.recv() => break libc_signal::INTERRUPT,
            event = client.event() => happened(&mut focus, Link::Client, event),
            event = service.event() => happened(&mut focus, Link::Service, event),
            event = component.event() => happened(&mut focus, Link::Component, event),
            query = asked.recv() => match query {
                Some(Query::Conference(request, answer)) => {
                    next_asker += 1;
                    http_askers.insert(next_asker, answer);
                    focus.http_request(Instant::now(), next_asker, request);
                }
                Some(Query::Statistics(answer)) => drop(answer.send(focus.statistics())),
                Some(Query::Debug(answer)) => drop(answer.send(focus.debug())),
                Some(Query::Rooms(answer)) => drop(answer.send(focus.rooms())),
                Some(Query::Room(room, answer)) => {
                    drop(answer.send(focus.debug_conference(&room)));
                }
                None => {}
            },
            () = tokio::time::sleep_until(wake.into()) => {}
        }
        let now = Instant::now();
        if focus.next_timeout().is_some_and(|at| at <= now) {
            focus.handle_timeout(now);
        }
    };
    tracing::info!("leaving");
    focus.shut_down();
    deliver(
        &mut focus,
        [&client, &service, &component],
        &mut http_askers,
    );
    for connection in [&client, &service, &component] {
        if let Some((session, _)) = &connection.ends {
            session.close();
        }
    }
    let farewell = async {
        for connection in [client, service, component] {
            if let Some((_session, mut events)) = connection.ends {
                while events.recv().await.is_some() {}
            }
        }
    };
    // Prosody may be gone already; then there is nobody to take leave of.
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
    Ok(ended_by)
}

/// Numbers of POSIX signals, as they appear in the exit code.
mod libc_signal {
    pub(super) const INTERRUPT: u8 = 2;
    pub(super) const TERMINATE: u8 = 15;
}

fn happened(focus: &mut Focus, link: Link, event: SessionEvent) {
    let now = Instant::now();
    match event {
        SessionEvent::Online { jid, resumed } => {
            tracing::info!(?link, %jid, resumed, "connected");
            focus.online(now, link, &jid, resumed);
        }
        SessionEvent::Stanza(stanza) => focus.stanza(now, link, &stanza),
        // The session has logged why.
        SessionEvent::Offline { .. } => focus.offline(now, link),
        SessionEvent::Replaced { text } => {
            focus.offline(now, link);
            tracing::error!(
                ?link,
                text,
                "another program logged in with this account and resource and has taken over: \
                 run one focus for an account, or give the other a resource of its own; \
                 this one rests"
            );
        }
    }
}

type HttpAskers = HashMap<u64, oneshot::Sender<Result<ConferenceIq, StanzaError>>>;

fn deliver(focus: &mut Focus, connections: [&Connection; 3], askers: &mut HttpAskers) {
    for output in focus.take_outputs() {
        match output {
            Output::Stanza(link, stanza) => {
                let connection = connections.iter().find(|c| c.link == link);
                if let Some((session, _)) = connection.and_then(|c| c.ends.as_ref()) {
                    session.send(stanza);
                }
            }
            Output::Http(number, answer) => {
                if let Some(asker) = askers.remove(&number) {
                    // The asker may have hung up.
                    let _ = asker.send(answer);
                }
            }
        }
    }
}
