//! Open bridge channels over WebSocket, and what waits to leave by each. Their
//! connections are in `websocket`.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use tokio::sync::mpsc;

use crate::command::ChannelCloseReason;
use crate::id::ChannelId;

/// Messages waiting for one peer to read them.
const QUEUED_MESSAGES: usize = 1024;

/// Open connections.
#[derive(Debug, Default)]
pub struct Channels {
    next: AtomicU64,
    open: DashMap<ChannelId, mpsc::Sender<Outgoing>>,
    pub messages_received: AtomicU64,
    pub messages_sent: AtomicU64,
    pub closed_normally: AtomicU64,
    pub closed_abnormally: AtomicU64,
    pub errors: AtomicU64,
}

/// What is to leave by a connection.
#[derive(Debug)]
pub(super) enum Outgoing {
    Text(String),
    Close(ChannelCloseReason),
}

impl Channels {
    /// Queues a message. A channel that has gone, or whose queue is full, is
    /// dropped: its task then closes the connection.
    pub fn send(&self, channel: ChannelId, text: String) {
        self.queue(channel, Outgoing::Text(text));
    }

    /// Closes a channel once all that was queued has left.
    pub fn close(&self, channel: ChannelId, reason: ChannelCloseReason) {
        self.queue(channel, Outgoing::Close(reason));
    }

    fn queue(&self, channel: ChannelId, outgoing: Outgoing) {
        let full = match self.open.get(&channel) {
            Some(sender) => sender.try_send(outgoing).is_err(),
            None => false,
        };
        if full {
            self.open.remove(&channel);
        }
    }

    /// A connection opens: what is to leave by it.
    pub(super) fn register(&self) -> (ChannelId, mpsc::Receiver<Outgoing>) {
        let channel = ChannelId(self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = mpsc::channel(QUEUED_MESSAGES);
        self.open.insert(channel, sender);
        (channel, receiver)
    }

    /// A connection has ended.
    pub(super) fn forget(&self, channel: ChannelId) {
        self.open.remove(&channel);
    }
}
