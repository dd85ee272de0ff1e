//! Questions to shards, and who waits for their answers. A shard answers when it
//! comes to it; who asks waits for a while, and takes what has come by then.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::view::Part;

/// How long a worker may take to answer: it takes a turn twice a second at least,
/// and is woken for a question.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// Questions that have not been answered by all.
#[derive(Debug, Default)]
pub struct Queries {
    next: AtomicU64,
    waiting: Mutex<BTreeMap<u64, mpsc::UnboundedSender<Part>>>,
}

impl Queries {
    pub(super) fn begin(&self) -> Query<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // As many answers come as there are parts of a conference.
        let (sender, answers) = mpsc::unbounded_channel();
        let mut waiting = self.waiting.lock().expect("no holder panics");
        waiting.insert(number, sender);
        Query {
            all: self,
            number,
            answers,
        }
    }

    /// Takes a shard's answer; one that comes too late is for nobody.
    pub(super) fn answer(&self, number: u64, part: Part) {
        let waiting = self.waiting.lock().expect("no holder panics");
        if let Some(sender) = waiting.get(&number) {
            let _ = sender.send(part);
        }
    }
}

/// A question; forgotten with this.
pub(super) struct Query<'a> {
    all: &'a Queries,
    pub(super) number: u64,
    answers: mpsc::UnboundedReceiver<Part>,
}

impl Query<'_> {
    /// What `asked` shards answer, those that do so in time.
    pub(super) async fn answers(&mut self, asked: usize) -> Vec<Part> {
        let deadline = Instant::now() + ANSWER_TIME;
        let mut parts = Vec::new();
        while parts.len() < asked {
            match timeout_at(deadline, self.answers.recv()).await {
                Ok(Some(part)) => parts.push(part),
                Ok(None) | Err(_) => break,
            }
        }
        parts
    }
}

impl Drop for Query<'_> {
    fn drop(&mut self) {
        let mut waiting = self.all.waiting.lock().expect("no holder panics");
        waiting.remove(&self.number);
    }
}
