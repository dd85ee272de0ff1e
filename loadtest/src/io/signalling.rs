//! A participant's connections that are not media: its XMPP stream and, where
//! the bridge channel is a WebSocket, that one ([`super::channel`]). Both are
//! tasks that hand what comes to the media thread of the participant.

use std::sync::Arc;

use tokio::sync::mpsc;
use viaduct_signalling::xml::Element;

use super::media::{Input, Post};
use super::xmpp::Wire;
use crate::scenario::Scenario;

/// Stanzas that may wait to be sent: a room's worth of answers.
const MAX_WAITING: usize = 4096;

/// What a stream is to do.
#[derive(Debug)]
enum Order {
    Send(Box<Element>),
    Close,
}

/// The owner's end of a stream; the stream closes when it is dropped.
pub struct Stream {
    orders: mpsc::Sender<Order>,
}

impl Stream {
    /// Logs in, and then hands every stanza to `post`.
    pub fn open(scenario: Arc<Scenario>, post: Post) -> Self {
        let (orders, to_do) = mpsc::channel(MAX_WAITING);
        tokio::spawn(run(scenario, post, to_do));
        Self { orders }
    }

    /// Sends a stanza. False if the server does not take them, or is gone.
    pub fn send(&self, stanza: Element) -> bool {
        self.orders.try_send(Order::Send(Box::new(stanza))).is_ok()
    }

    /// Closes the stream behind what waits.
    pub fn close(&self) {
        // Where nothing more fits it closes by being dropped.
        let _ = self.orders.try_send(Order::Close);
    }
}

async fn run(scenario: Arc<Scenario>, post: Post, mut orders: mpsc::Receiver<Order>) {
    let login = Wire::login(&scenario.server, scenario.domain.as_str());
    let mut wire = match login.await {
        Ok((wire, jid)) => {
            tracing::debug!(%jid, "logged in");
            post.send(Input::Online);
            wire
        }
        Err(error) => return post.send(Input::Offline(format!("{error:#}"))),
    };
    let failure = loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Send(stanza)) => {
                    if let Err(error) = wire.send(&stanza).await {
                        break Some(error);
                    }
                }
                Some(Order::Close) | None => break None,
            },
            received = wire.receive() => match received {
                Ok(stanza) => post.send(Input::Stanza(Box::new(stanza))),
                Err(error) => break Some(error),
            },
        }
    };
    match failure {
        Some(error) => post.send(Input::Offline(format!("{error:#}"))),
        None => wire.close().await,
    }
}
