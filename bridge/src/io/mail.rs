//! A worker's mail: what the control plane commands, and what the shards of other
//! workers have to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc as queue;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use super::udp::Waker;
use crate::command::Command;
use crate::peers::PeerMessage;
use crate::shard::Shard;

/// Commands taken in a turn.
pub(super) const MAIL_A_TURN: usize = 64;
/// Words of other shards that wait for one, beyond which it is not told what is
/// expendable, and what is wanted of it only when it has caught up, in one.
const FAR_BEHIND: usize = 4096;

/// What is on its way to a shard.
#[derive(Debug)]
pub enum Mail {
    Command {
        command: Command,
        /// Given back when the shard has taken the command.
        permit: Option<OwnedSemaphorePermit>,
    },
    /// The word of another worker's shard.
    Peer { from: usize, message: PeerMessage },
}

/// A letterbox, and what is put into it.
pub(super) fn letterbox(waker: Waker) -> (Letterbox, Inbox) {
    let (sender, mail) = queue::channel();
    let words = Arc::<AtomicUsize>::default();
    let inbox = Inbox {
        mail,
        words: Arc::clone(&words),
    };
    let letters = Letterbox {
        sender,
        waker,
        words,
    };
    (letters, inbox)
}

/// Where a worker's mail is put.
#[derive(Clone, Debug)]
pub(super) struct Letterbox {
    sender: queue::Sender<Mail>,
    pub(super) waker: Waker,
    /// Words of other shards that lie in it.
    words: Arc<AtomicUsize>,
}

impl Letterbox {
    pub(super) fn put(&self, mail: Mail) {
        if let Mail::Peer { .. } = mail {
            self.words.fetch_add(1, Ordering::Relaxed);
        }
        // A worker ends only with the process.
        let _ = self.sender.send(mail);
    }

    pub(super) fn is_far_behind(&self) -> bool {
        self.words.load(Ordering::Relaxed) >= FAR_BEHIND
    }
}

/// What a worker is told.
pub(super) struct Inbox {
    mail: queue::Receiver<Mail>,
    /// How many words of other shards are in it.
    words: Arc<AtomicUsize>,
}

impl Inbox {
    /// Hands mail to the shard, at most as much as a turn takes. How much it was.
    pub(super) fn hand_to(&self, shard: &mut Shard, now: Instant) -> usize {
        let mut taken = 0;
        for mail in self.mail.try_iter().take(MAIL_A_TURN) {
            match mail {
                Mail::Command { command, .. } => shard.handle_command(now, command),
                Mail::Peer { from, message } => {
                    self.words.fetch_sub(1, Ordering::Relaxed);
                    shard.handle_peer(now, from, message);
                }
            }
            taken += 1;
        }
        taken
    }
}
