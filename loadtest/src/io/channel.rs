//! The bridge channel: a WebSocket that comes back after a loss as the client
//! library's does, after 1, 2, 4 up to 60 s.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::dial;

/// Messages that may wait in either direction.
const MAX_WAITING: usize = 256;
const MAX_RETRY: Duration = Duration::from_secs(60);

/// What happened on a channel.
#[derive(Debug)]
pub enum ChannelEvent {
    Opened,
    Text(String),
    Closed,
}

/// The owner's end; the channel closes when it is dropped.
pub struct Channel {
    texts: mpsc::Sender<String>,
    events: mpsc::Receiver<ChannelEvent>,
}

impl Channel {
    /// Opens a channel and keeps it open.
    pub fn open(url: String) -> Self {
        let (texts, to_send) = mpsc::channel(MAX_WAITING);
        let (received, events) = mpsc::channel(MAX_WAITING);
        tokio::spawn(keep_open(url, to_send, received));
        Self { texts, events }
    }

    /// Sends a message; dropped while there is no connection.
    pub fn send(&self, text: String) {
        if self.texts.try_send(text).is_err() {
            tracing::debug!("channel message dropped");
        }
    }

    /// The next event. Never returns once the channel is gone.
    pub async fn event(&mut self) -> ChannelEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

async fn keep_open(
    url: String,
    mut texts: mpsc::Receiver<String>,
    events: mpsc::Sender<ChannelEvent>,
) {
    let mut retry = Duration::from_secs(1);
    loop {
        match dial::websocket(&url, None).await {
            Ok(mut socket) => {
                retry = Duration::from_secs(1);
                while texts.try_recv().is_ok() {}
                if events.send(ChannelEvent::Opened).await.is_err() {
                    return;
                }
                loop {
                    tokio::select! {
                        text = texts.recv() => {
                            let Some(text) = text else {
                                // A leaving client closes without a code.
                                if let Err(error) = socket.close(None).await {
                                    tracing::debug!(%error, "closing the channel");
                                }
                                return;
                            };
                            if socket.send(Message::text(text)).await.is_err() {
                                break;
                            }
                        }
                        message = socket.next() => match message {
                            Some(Ok(Message::Text(text))) => {
                                let event = ChannelEvent::Text(text.to_string());
                                if events.send(event).await.is_err() {
                                    return;
                                }
                            }
                            Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                            Some(Ok(_)) => {}
                        },
                    }
                }
                if events.send(ChannelEvent::Closed).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::debug!(%error, "bridge channel"),
        }
        tokio::select! {
            () = tokio::time::sleep(retry) => {}
            () = events.closed() => return,
        }
        retry = (retry * 2).min(MAX_RETRY);
    }
}
