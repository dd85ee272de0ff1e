//! The bridge channel: a WebSocket that comes back after a loss as the client
//! library's does, after 1, 2, 4 up to 60 s.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::dial;

/// Messages that may wait to be sent.
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
    /// Tells this channel from the ones before it.
    pub number: u32,
}

impl Channel {
    /// Opens a channel, keeps it open, and hands what comes to `tell`.
    pub fn open(
        runtime: &Handle,
        url: String,
        number: u32,
        tell: impl Fn(ChannelEvent) + Send + Sync + 'static,
    ) -> Self {
        let (texts, to_send) = mpsc::channel(MAX_WAITING);
        runtime.spawn(keep_open(url, to_send, tell));
        Self { texts, number }
    }

    /// Sends a message; dropped while there is no connection.
    pub fn send(&self, text: String) {
        if self.texts.try_send(text).is_err() {
            tracing::debug!("channel message dropped");
        }
    }
}

async fn keep_open(
    url: String,
    mut texts: mpsc::Receiver<String>,
    tell: impl Fn(ChannelEvent) + Send + Sync,
) {
    let mut retry = Duration::from_secs(1);
    loop {
        match dial::websocket(&url, None).await {
            Ok(mut socket) => {
                retry = Duration::from_secs(1);
                while texts.try_recv().is_ok() {}
                tell(ChannelEvent::Opened);
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
                                tell(ChannelEvent::Text(text.to_string()));
                            }
                            Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                            Some(Ok(_)) => {}
                        },
                    }
                }
                tell(ChannelEvent::Closed);
            }
            Err(error) => tracing::debug!(%error, "bridge channel"),
        }
        let wait = tokio::time::sleep(retry);
        tokio::pin!(wait);
        loop {
            tokio::select! {
                () = &mut wait => break,
                // What is said meanwhile is lost.
                text = texts.recv() => if text.is_none() {
                    return;
                },
            }
        }
        retry = (retry * 2).min(MAX_RETRY);
    }
}
