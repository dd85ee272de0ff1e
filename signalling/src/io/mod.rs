//! The XMPP connection: a session on a thread of its own that logs in, keeps
//! itself alive and comes back.
//!
//! `client` and `component` start one and return its two ends: a `Session`
//! to send with, `Events` to receive from. The thread runs a current-thread
//! runtime: on tokio's multi-thread runtime the same traffic was seen to
//! stall for good, and one connection needs no more.
//!
//! The session answers XMPP pings (XEP-0199) by itself; every other stanza is
//! the owner's.

mod connection;
mod driver;
mod login;
mod tcp;
mod tls;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tracing::debug;

use crate::jid::Jid;
use crate::session::{Management, Security, StreamState, Trouble};
use crate::xml::Element;

/// Events that may wait for the owner; beyond that the session stops reading
/// and the server keeps what it has.
const MAX_EVENTS: usize = 1024;

/// How to log in as a client (RFC 6120).
#[derive(Clone)]
pub struct ClientSettings {
    /// TCP host of the server: a name or an address.
    pub host: String,
    pub port: u16,
    /// XMPP domain of the account; the certificate must be for it.
    pub domain: String,
    pub username: String,
    pub password: String,
    /// The resource to bind; `None` lets the server choose.
    pub resource: Option<String>,
    pub security: Security,
    /// Whether the server's certificate must be trusted and for `domain`.
    pub verify_certificate: bool,
    /// PEM files whose certificates are trusted besides the system's store.
    pub trusted_certificates: Vec<PathBuf>,
    /// Whether to use stream management with resumption: after a loss the
    /// server keeps the stream and nothing is missed. For a bridge that is
    /// wrong: a kept stream hides its death.
    pub resumption: bool,
    /// A stream of an earlier process to resume; needs `resumption`.
    pub resume: Option<StreamState>,
    /// Whether the owner writes the stream's state down for another process.
    /// The server is then told of stanzas only after `Session::written_down`:
    /// Prosody ends a stream that is resumed with a count below the one it
    /// was told last.
    pub journaled: bool,
    /// How often the server is pinged.
    pub ping_interval: Duration,
}

impl ClientSettings {
    /// Settings with the usual defaults: certificate verified, TLS required
    /// unless the server is on this host, no resumption, a ping every 30 s.
    pub fn new(
        host: impl Into<String>,
        port: u16,
        domain: impl Into<String>,
        username: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        let host = host.into();
        Self {
            security: Security::default_for(&host),
            host,
            port,
            domain: domain.into(),
            username: username.into(),
            password: password.into(),
            resource: None,
            verify_certificate: true,
            trusted_certificates: Vec::new(),
            resumption: false,
            resume: None,
            journaled: false,
            ping_interval: PING_INTERVAL,
        }
    }
}

impl fmt::Debug for ClientSettings {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("domain", &self.domain)
            .field("username", &self.username)
            .field("resource", &self.resource)
            .field("security", &self.security)
            .field("verify_certificate", &self.verify_certificate)
            .field("resumption", &self.resumption)
            .finish_non_exhaustive()
    }
}

/// How often a server is pinged (Jitsi's bridges do the same).
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How to connect as an external component (XEP-0114).
#[derive(Clone)]
pub struct ComponentSettings {
    /// TCP host of the server: a name or an address.
    pub host: String,
    pub port: u16,
    /// The component's domain.
    pub domain: String,
    pub secret: String,
    /// How often the server is pinged.
    pub ping_interval: Duration,
}

impl ComponentSettings {
    /// Settings with a ping every 30 s.
    pub fn new(
        host: impl Into<String>,
        port: u16,
        domain: impl Into<String>,
        secret: impl Into<String>,
    ) -> Self {
        Self {
            host: host.into(),
            port,
            domain: domain.into(),
            secret: secret.into(),
            ping_interval: PING_INTERVAL,
        }
    }
}

impl fmt::Debug for ComponentSettings {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComponentSettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

/// What a session tells its owner.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionEvent {
    /// Stanzas flow. `jid` is the full JID bound, or a component's domain.
    /// Unless `resumed`, the server knows nothing of the earlier stream:
    /// rooms must be joined again, and whatever was sent before and not yet
    /// answered is lost.
    Online { jid: Jid, resumed: bool },
    /// A stanza, in the namespace `jabber:client` even from a component's
    /// stream.
    Stanza(Element),
    /// The stream was lost or an attempt to connect failed; the next attempt
    /// comes after `retry`. It has been logged.
    Offline { reason: Trouble, retry: Duration },
    /// Another session took our resource, or our component's name (stream
    /// error `conflict`), or resumed our stream and went on with it. The
    /// session rests until `rebind` or `close`.
    Replaced { text: String },
}

/// The sending end of a session. Clones share the session; when the last is
/// dropped, the session is abandoned.
#[derive(Clone)]
pub struct Session {
    handle: Arc<Handle>,
}

/// Ends the session with its last `Session`.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.request(Request::Abandon);
    }
}

impl Session {
    /// Sends a stanza (in the namespace `jabber:client`). Before the session
    /// is online it is dropped, unless the stream can be resumed: then it
    /// waits for that.
    pub fn send(&self, stanza: Element) {
        let mut outgoing = self.handle.0.outgoing();
        if !outgoing.online && !outgoing.management.resumable() {
            debug!(name = stanza.name(), "stanza dropped: not online");
        } else if !outgoing.management.push(stanza) {
            debug!("stanza dropped: too many are waiting");
        } else {
            drop(outgoing);
            self.handle.0.wake.notify_one();
        }
    }

    /// What another process needs to resume the stream, as of now: stanzas
    /// that `Events` handed out and the owner came back from count as
    /// handled, everything given to `send` and not acknowledged is in it.
    /// `None` if the stream cannot be resumed.
    pub fn stream_state(&self) -> Option<StreamState> {
        let outgoing = self.handle.0.outgoing();
        let handled = self.handle.0.handled.get(outgoing.epoch);
        outgoing.management.state(handled)
    }

    /// Says that this state would survive us; see `journaled`. Call it at
    /// least every few hundred stanzas: Prosody keeps 500 for resumption.
    pub fn written_down(&self, state: &StreamState) {
        let shared = &self.handle.0;
        let outgoing = shared.outgoing();
        if outgoing.management.resumable_id() != Some(&state.id) {
            return;
        }
        shared.written.set(Mark {
            epoch: outgoing.epoch,
            number: state.handled,
        });
        drop(outgoing);
        shared.wake.notify_one();
    }

    /// Logs in anew, with this resource. The way to go on after `Replaced`.
    pub fn rebind(&self, resource: impl Into<String>) {
        self.handle.0.request(Request::Rebind(resource.into()));
    }

    /// Sends what waits, ends the stream properly and stops. `Events` ends
    /// when that is done, within 2 s.
    pub fn close(&self) {
        self.handle.0.request(Request::Close);
    }

    /// Cuts the connection without ending the stream and stops: the server
    /// keeps a resumable stream for another process to resume.
    pub fn abandon(&self) {
        self.handle.0.request(Request::Abandon);
    }
}

/// The receiving end of a session.
pub struct Events {
    receiver: mpsc::Receiver<Delivery>,
    shared: Arc<Shared>,
    /// The stanza handed out last; asking for the next says it is handled.
    last: Option<Mark>,
}

impl Events {
    /// The next event; `None` once the session has stopped. Asking for it
    /// says that the one before has been dealt with.
    pub async fn recv(&mut self) -> Option<SessionEvent> {
        loop {
            self.settle();
            if let Some(event) = self.receiver.recv().await?.open(&mut self.last) {
                return Some(event);
            }
        }
    }

    /// As `recv`, for a thread without a runtime.
    pub fn blocking_recv(&mut self) -> Option<SessionEvent> {
        loop {
            self.settle();
            if let Some(event) = self.receiver.blocking_recv()?.open(&mut self.last) {
                return Some(event);
            }
        }
    }

    /// As `recv`; `None` if nothing waits.
    pub fn try_recv(&mut self) -> Option<SessionEvent> {
        loop {
            self.settle();
            if let Some(event) = self.receiver.try_recv().ok()?.open(&mut self.last) {
                return Some(event);
            }
        }
    }

    fn settle(&mut self) {
        if let Some(mark) = self.last.take() {
            self.shared.handled.set(mark);
            if self.shared.awaited.load(Ordering::SeqCst) {
                self.shared.wake.notify_one();
            }
        }
    }
}

/// The place of a stanza: on which stream, and its number there.
#[derive(Clone, Copy, Debug)]
struct Mark {
    epoch: u32,
    number: u32,
}

/// What the thread puts into the channel. Without an event it only marks a
/// stanza that the session dealt with itself, so that numbers stay in order.
struct Delivery {
    mark: Option<Mark>,
    event: Option<SessionEvent>,
}

impl Delivery {
    fn open(self, last: &mut Option<Mark>) -> Option<SessionEvent> {
        *last = self.mark;
        self.event
    }
}

/// How far the owner has come, written by its threads, read by ours. Epoch in
/// the upper half, number in the lower: a later stream is always greater, so
/// what is left of an earlier one cannot go back.
#[derive(Default)]
struct Position(AtomicU64);

impl Position {
    fn set(&self, Mark { epoch, number }: Mark) {
        let position = u64::from(epoch) << 32 | u64::from(number);
        self.0.fetch_max(position, Ordering::SeqCst);
    }

    fn get(&self, epoch: u32) -> u32 {
        let position = self.0.load(Ordering::SeqCst);
        if (position >> 32) as u32 == epoch {
            position as u32
        } else {
            0
        }
    }
}

/// What the owner asks of the thread.
#[derive(Clone, Debug)]
enum Request {
    Close,
    Abandon,
    Rebind(String),
}

/// What both ends see.
struct Shared {
    outgoing: Mutex<Outgoing>,
    /// Stanzas the owner is done with.
    handled: Position,
    /// Stanzas the owner has written down as such.
    written: Position,
    journaled: bool,
    /// The thread waits for the owner to catch up.
    awaited: AtomicBool,
    request: Mutex<Option<Request>>,
    /// Something to write, or the owner has caught up.
    wake: Notify,
    /// There is a request.
    requested: Notify,
}

/// The queue, under one lock so that what is sent and what is written down
/// cannot disagree.
struct Outgoing {
    online: bool,
    /// Counts streams that were not resumed.
    epoch: u32,
    management: Management,
}

impl Shared {
    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing
            .lock()
            .expect("no one panics while holding the queue")
    }

    /// How many stanzas the server may be told of.
    fn tellable(&self, epoch: u32) -> u32 {
        let handled = self.handled.get(epoch);
        if self.journaled {
            handled.min(self.written.get(epoch))
        } else {
            handled
        }
    }

    fn request(&self, request: Request) {
        let mut slot = self
            .request
            .lock()
            .expect("no one panics while holding the request");
        // An end, once asked for, is final.
        if !matches!(*slot, Some(Request::Close | Request::Abandon)) {
            *slot = Some(request);
        }
        drop(slot);
        self.requested.notify_one();
    }
}

/// Starts a client session. It logs in at once and again after every loss,
/// until it is closed.
pub fn client(settings: ClientSettings) -> (Session, Events) {
    let management = match &settings.resume {
        Some(state) if settings.resumption => Management::restore(state.clone()),
        _ => Management::default(),
    };
    start(driver::Role::Client(settings), management)
}

/// Starts a component session.
pub fn component(settings: ComponentSettings) -> (Session, Events) {
    start(driver::Role::Component(settings), Management::default())
}

fn start(role: driver::Role, management: Management) -> (Session, Events) {
    let start = Mark {
        epoch: 0,
        number: management.received(),
    };
    let shared = Arc::new(Shared {
        outgoing: Mutex::new(Outgoing {
            online: false,
            epoch: 0,
            management,
        }),
        handled: Position::default(),
        written: Position::default(),
        journaled: matches!(&role, driver::Role::Client(settings) if settings.journaled),
        awaited: AtomicBool::new(false),
        request: Mutex::new(None),
        wake: Notify::new(),
        requested: Notify::new(),
    });
    shared.handled.set(start);
    shared.written.set(start);
    let (sender, receiver) = mpsc::channel(MAX_EVENTS);
    driver::spawn(role, Arc::clone(&shared), sender);
    let session = Session {
        handle: Arc::new(Handle(Arc::clone(&shared))),
    };
    let events = Events {
        receiver,
        shared,
        last: None,
    };
    (session, events)
}
