//! The bridge channel over WebSocket: `/colibri-ws/<server-id>/<conference>/<endpoint>?pwd=`.
//!
//! Rules of `media` §7.2: another path or server id is 404; a conference or
//! endpoint that is not here, or a wrong password, is 403, before the upgrade.
//! Pings leave every 15 s; a connection that says nothing for 60 s is closed.
//! A shard decides what is said; here are only the connections.
//!
//! Bounds: a peer has at most [`UNHANDLED_MESSAGES`] messages waiting at its
//! shard, after which its TCP window fills; a peer that does not read has at
//! most [`QUEUED_MESSAGES`](super::channels) waiting, after which it is disconnected
//! and, when it comes back, told everything anew.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::channels::Outgoing;
use super::control::Bridge;
use crate::command::{ChannelCloseReason, Command};
use crate::id::{ChannelId, ConferenceId, EndpointId};

/// `videobridge.websockets.keepalive-ping-interval`.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// `videobridge.websockets.idle-timeout`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A message larger than this closes the connection (code 1009). What clients
/// send are kilobytes at most, for a conference of hundreds.
const MAX_MESSAGE: usize = 256 * 1024;
/// Room at hand for what is read of a channel and written to it; it grows for
/// longer messages. What is usual takes less, and there are many channels.
const BUFFER: usize = 4096;
/// Messages of one peer that its shard has yet to take.
const UNHANDLED_MESSAGES: usize = 32;
/// How long one message, or a closing handshake, may take to leave.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The password of the endpoint.
#[derive(Debug, Deserialize)]
pub(super) struct Login {
    #[serde(default)]
    pwd: String,
}

/// Answers a request for a bridge channel.
pub(super) async fn accept(
    State(bridge): State<Arc<Bridge>>,
    Path((server, conference, endpoint)): Path<(String, String, String)>,
    Query(login): Query<Login>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    let ours = bridge.config.websockets.as_ref();
    if ours.is_none_or(|ours| ours.server_id != server) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let endpoint = EndpointId::from(endpoint.as_str());
    let found = u64::from_str_radix(&conference, 16)
        .ok()
        .map(ConferenceId)
        .and_then(|conference| {
            let worker = bridge.colibri(|c| c.channel(conference, &endpoint, &login.pwd))?;
            Some((conference, worker))
        });
    let Some((conference, worker)) = found else {
        return StatusCode::FORBIDDEN.into_response();
    };
    match upgrade {
        Ok(upgrade) => upgrade
            .max_message_size(MAX_MESSAGE)
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            .max_frame_size(MAX_MESSAGE)
            .on_upgrade(move |socket| async move {
                Connection {
                    bridge,
                    worker,
                    conference,
                    endpoint,
                }
                .run(socket)
                .await;
            }),
        Err(rejection) => rejection.into_response(),
    }
}

/// One open connection.
struct Connection {
    bridge: Arc<Bridge>,
    worker: usize,
    conference: ConferenceId,
    endpoint: EndpointId,
}

/// How a connection ended.
enum End {
    /// A closing handshake by either side.
    Closed,
    /// Silence, a broken transport, or a peer that does not read.
    Broken(&'static str),
}

impl Connection {
    async fn run(self, socket: WebSocket) {
        let channels = &self.bridge.channels;
        let (channel, outgoing) = channels.register();
        let (conference, endpoint) = (self.conference, self.endpoint.clone());
        tracing::debug!(%conference, %endpoint, ?channel, "bridge channel opened");
        let opened = Command::ChannelOpened {
            conference,
            endpoint: endpoint.clone(),
            channel,
        };
        self.bridge.channel_command(self.worker, opened, None);
        match self.converse(channel, socket, outgoing).await {
            End::Closed => {
                channels.closed_normally.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%conference, %endpoint, ?channel, "bridge channel closed");
            }
            End::Broken(why) => {
                channels.closed_abnormally.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%conference, %endpoint, ?channel, why, "bridge channel lost");
            }
        }
        channels.forget(channel);
        let closed = Command::ChannelClosed {
            conference,
            endpoint,
            channel,
        };
        self.bridge.channel_command(self.worker, closed, None);
    }

    async fn converse(
        &self,
        channel: ChannelId,
        socket: WebSocket,
        mut outgoing: mpsc::Receiver<Outgoing>,
    ) -> End {
        let channels = &self.bridge.channels;
        let (mut sink, mut stream) = socket.split();
        let unhandled = Arc::new(Semaphore::new(UNHANDLED_MESSAGES));
        let mut ping = interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.reset();
        let mut heard = Instant::now();
        loop {
            let message = tokio::select! {
                // The permit is taken before the message is read, so a peer
                // that talks faster than its shard listens waits in TCP.
                (permit, message) = async {
                    let permit = Arc::clone(&unhandled).acquire_owned().await;
                    (permit.expect("never closed"), stream.next().await)
                } => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => {
                            channels.messages_received.fetch_add(1, Ordering::Relaxed);
                            let command = Command::ChannelMessage {
                                conference: self.conference,
                                endpoint: self.endpoint.clone(),
                                channel,
                                text: text.as_str().to_owned(),
                            };
                            self.bridge.channel_command(self.worker, command, Some(permit));
                        }
                        // Pings are answered by the library. Binary messages
                        // have no meaning here.
                        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_))) => {}
                        Some(Ok(Message::Close(_))) | None => return End::Closed,
                        Some(Err(_)) => {
                            channels.errors.fetch_add(1, Ordering::Relaxed);
                            return End::Broken("transport");
                        }
                    }
                    continue;
                }
                outgoing = outgoing.recv() => match outgoing {
                    Some(Outgoing::Text(text)) => {
                        channels.messages_sent.fetch_add(1, Ordering::Relaxed);
                        Message::Text(text.into())
                    }
                    Some(Outgoing::Close(reason)) => {
                        let (code, reason) = match reason {
                            ChannelCloseReason::Replaced => (1000, "replaced"),
                            ChannelCloseReason::EndpointClosed => (1001, "endpoint closed"),
                        };
                        let frame = CloseFrame { code, reason: reason.into() };
                        let _ = timeout(SEND_TIMEOUT, async {
                            sink.send(Message::Close(Some(frame))).await?;
                            // Until the peer has answered the close, or gone.
                            while let Some(Ok(_)) = stream.next().await {}
                            Ok::<_, axum::Error>(())
                        }).await;
                        return End::Closed;
                    }
                    None => return End::Broken("peer does not read"),
                },
                _ = ping.tick() => Message::Ping(axum::body::Bytes::new()),
                () = sleep_until(heard + IDLE_TIMEOUT) => return End::Broken("idle"),
            };
            match timeout(SEND_TIMEOUT, sink.send(message)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return End::Broken("transport"),
                Err(_) => return End::Broken("peer does not read"),
            }
        }
    }
}
