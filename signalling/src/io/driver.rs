//! The thread of a session: log in, carry stanzas, notice death, come back.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::connection::{Connection, stream_error};
use super::login::{self, Login, MANAGEMENT, counter};
use super::{ClientSettings, ComponentSettings, Delivery, Mark, Request, SessionEvent, Shared};
use crate::jid::Jid;
use crate::session::stream::Incoming;
use crate::session::{Backoff, Receipt, Trouble, Verdict, Watchdog};
use crate::xml::ns::{CLIENT, PING, STANZAS};
use crate::xml::{Element, set, xml_ncname};

/// How long a login may take, from the first packet on.
const LOGIN: Duration = Duration::from_secs(20);
/// How long the server may take to end its side of the stream.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long an acknowledgement waits for the owner to handle what came.
const CATCH_UP: Duration = Duration::from_millis(100);
/// The same complaint is not repeated at `warn` within this time.
const REPEAT: Duration = Duration::from_secs(60);
/// Octets to gather before they are sent.
const BATCH: usize = 64 << 10;

/// Which kind of session.
pub(super) enum Role {
    Client(ClientSettings),
    Component(ComponentSettings),
}

impl Role {
    fn domain(&self) -> &str {
        match self {
            Self::Client(settings) => &settings.domain,
            Self::Component(settings) => &settings.domain,
        }
    }

    fn server(&self) -> (&str, u16) {
        match self {
            Self::Client(settings) => (&settings.host, settings.port),
            Self::Component(settings) => (&settings.host, settings.port),
        }
    }

    fn account(&self) -> String {
        match self {
            Self::Client(settings) => format!("{}@{}", settings.username, settings.domain),
            Self::Component(settings) => settings.domain.clone(),
        }
    }

    fn ping_interval(&self) -> Duration {
        match self {
            Self::Client(settings) => settings.ping_interval,
            Self::Component(settings) => settings.ping_interval,
        }
    }
}

pub(super) fn spawn(role: Role, shared: Arc<Shared>, events: mpsc::Sender<Delivery>) {
    thread::Builder::new()
        .name("xmpp".to_owned())
        .spawn(move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("the system grants an event queue");
            let driver = Driver {
                role,
                shared,
                events,
                pings: 0,
                complaint: None,
            };
            runtime.block_on(driver.run());
            // A name may still be being resolved; nobody waits for it.
            runtime.shutdown_background();
        })
        .expect("the system grants a thread");
}

/// Why a stream ended.
enum End {
    Lost(Trouble),
    Replaced(String),
    Requested(Request),
}

struct Driver {
    role: Role,
    shared: Arc<Shared>,
    events: mpsc::Sender<Delivery>,
    /// Counts pings, to tell their answers apart.
    pings: u64,
    /// What was last complained about, and when.
    complaint: Option<(Trouble, Instant)>,
}

impl Driver {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let end = self.attempt(&mut backoff).await;
            self.shared.disconnected();
            let request = match end {
                End::Requested(request) => Some(request),
                End::Lost(reason) => {
                    let retry = backoff.failed(Instant::now(), random());
                    self.complain(&reason, retry);
                    self.pause(reason, retry).await
                }
                End::Replaced(text) => {
                    let (host, port) = self.role.server();
                    warn!(
                        host,
                        port,
                        account = self.role.account(),
                        text,
                        "another session has taken our place: its program uses the same account \
                         with the same resource, or the same component name"
                    );
                    self.shared.outgoing().management.reset();
                    match self.tell(SessionEvent::Replaced { text }).await {
                        Some(request) => Some(request),
                        None => Some(self.shared.next_request().await),
                    }
                }
            };
            match request {
                None => {}
                Some(Request::Rebind(resource)) => self.rebind(resource),
                Some(Request::Close | Request::Abandon) => return,
            }
        }
    }

    /// One login and, if it succeeds, its stream to the end.
    async fn attempt(&mut self, backoff: &mut Backoff) -> End {
        let login = async {
            match &self.role {
                Role::Client(settings) => login::client(settings, &self.shared).await,
                Role::Component(settings) => login::component(settings, &self.shared).await,
            }
        };
        let login = tokio::select! {
            login = timeout(LOGIN, login) => login,
            request = self.shared.next_request() => return End::Requested(request),
        };
        match login {
            Ok(Ok(login)) => {
                backoff.online(Instant::now());
                self.complaint = None;
                info!(
                    jid = login.jid.as_str(),
                    resumed = login.resumed,
                    encrypted = login.connection.encrypted(),
                    "XMPP session online"
                );
                self.serve(login).await
            }
            // The other process comes back when we let go of its stream;
            // binding the resource anew would end it for good.
            Ok(Err(trouble @ Trouble::TakenOver)) => End::Replaced(trouble.to_string()),
            Ok(Err(trouble)) => End::Lost(trouble),
            Err(_) => End::Lost(Trouble::TimedOut(LOGIN.as_secs(), "logging in")),
        }
    }

    /// Tells the owner and waits for the next attempt.
    async fn pause(&self, reason: Trouble, retry: Duration) -> Option<Request> {
        if let Some(request) = self.tell(SessionEvent::Offline { reason, retry }).await {
            return Some(request);
        }
        tokio::select! {
            () = sleep(retry) => None,
            request = self.shared.next_request() => Some(request),
        }
    }

    fn rebind(&mut self, resource: String) {
        self.shared.outgoing().management.reset();
        match &mut self.role {
            Role::Client(settings) => settings.resource = Some(resource),
            // A component's name is its address: it is merely taken back.
            Role::Component(_) => {}
        }
    }

    fn complain(&mut self, trouble: &Trouble, retry: Duration) {
        let now = Instant::now();
        let (host, port) = self.role.server();
        let account = self.role.account();
        let retry_ms = retry.as_millis() as u64;
        let remedy = trouble.remedy();
        let repeated = self
            .complaint
            .as_ref()
            .is_some_and(|(last, at)| last == trouble && now.duration_since(*at) < REPEAT);
        if repeated {
            debug!(host, port, account, %trouble, retry_ms, "XMPP session still offline");
        } else {
            warn!(host, port, account, %trouble, remedy, retry_ms, "XMPP session offline");
            self.complaint = Some((trouble.clone(), now));
        }
    }

    /// Hands an event to the owner, unless the owner wants something else.
    async fn tell(&self, event: SessionEvent) -> Option<Request> {
        let delivery = Delivery {
            mark: None,
            event: Some(event),
        };
        tokio::select! {
            sent = self.events.send(delivery) => sent.is_err().then_some(Request::Close),
            request = self.shared.next_request() => Some(request),
        }
    }

    /// Carries stanzas until the stream ends.
    async fn serve(&mut self, login: Login) -> End {
        let Login {
            mut connection,
            jid,
            resumed,
            early,
        } = login;
        let mut stream = Stream {
            epoch: self.shared.outgoing().epoch,
            watchdog: Watchdog::new(Instant::now(), self.role.ping_interval()),
            ping: None,
            owes: None,
            told: 0,
            lags: false,
            asked: false,
            jid: jid.clone(),
        };
        let mut first = vec![SessionEvent::Online { jid, resumed }];
        first.extend(early.into_iter().map(SessionEvent::Stanza));
        for event in first {
            if let Some(request) = self.tell(event).await {
                return self.finish(connection, stream, request).await;
            }
        }
        loop {
            if let Err(trouble) = self.write(&mut connection, &mut stream).await {
                return End::Lost(trouble);
            }
            let due = stream.owes.map_or(stream.watchdog.due(), |owed| {
                owed.min(stream.watchdog.due())
            });
            // Reading waits for room in the owner's queue, so that what
            // cannot be taken stays with the server.
            let read = async {
                let permit = self.events.reserve().await.ok()?;
                Some((permit, connection.next().await))
            };
            tokio::select! {
                request = self.shared.next_request() => {
                    return self.finish(connection, stream, request).await;
                }
                () = self.shared.wake.notified() => {}
                () = sleep_until(due.into()) => {}
                read = read => {
                    let Some((permit, incoming)) = read else {
                        return self.finish(connection, stream, Request::Close).await;
                    };
                    let taken = match incoming {
                        Ok(incoming) => self.take(&mut stream, incoming),
                        Err(trouble) => Err(End::Lost(trouble)),
                    };
                    match taken {
                        Ok(Some(delivery)) => permit.send(delivery),
                        Ok(None) => {}
                        Err(end) => return end,
                    }
                }
            }
            match stream.watchdog.check(Instant::now()) {
                Verdict::Alive => {}
                Verdict::Ping => self.ping(&mut stream),
                Verdict::Dead => return End::Lost(Trouble::Unanswered),
            }
        }
    }

    /// Sends what waits: acknowledgements first, then stanzas.
    async fn write(&self, connection: &mut Connection, stream: &mut Stream) -> Result<(), Trouble> {
        self.acknowledge(connection, stream)?;
        loop {
            let more = self.fill(connection, stream)?;
            connection.flush().await?;
            if !more {
                return Ok(());
            }
        }
    }

    /// Moves stanzas from the queue into the buffer; `true` if some are left.
    fn fill(&self, connection: &mut Connection, stream: &mut Stream) -> Result<bool, Trouble> {
        let mut outgoing = self.shared.outgoing();
        let management = &mut outgoing.management;
        while let Some(stanza) = management.unwritten() {
            if connection.buffered() >= BATCH {
                return Ok(true);
            }
            match connection.write(stanza) {
                Ok(()) => management.wrote(),
                Err(error) => {
                    warn!(name = stanza.name(), %error, "a stanza of ours cannot be written");
                    management.discard();
                }
            }
        }
        if management.full() {
            return Err(Trouble::Unacknowledged(management.pending()));
        }
        if management.pending() > 0 && !stream.asked {
            stream.asked = true;
            put(connection, &Element::bare("r", MANAGEMENT))?;
        }
        Ok(false)
    }

    /// Tells the server how far the owner has come, if it asked.
    fn acknowledge(&self, connection: &mut Connection, stream: &mut Stream) -> Result<(), Trouble> {
        if stream.owes.is_none() && !stream.lags {
            return Ok(());
        }
        let handled = self.shared.tellable(stream.epoch);
        let all = handled == self.shared.outgoing().management.received();
        let tell = all
            || match stream.owes {
                Some(due) => Instant::now() >= due,
                None => handled != stream.told,
            };
        if !tell {
            return Ok(());
        }
        stream.owes = None;
        stream.told = handled;
        stream.lags = !all;
        self.shared.awaited.store(!all, Ordering::SeqCst);
        let mut answer = Element::bare("a", MANAGEMENT);
        set(&mut answer, xml_ncname!("h"), handled.to_string());
        put(connection, &answer)
    }

    /// Takes what came: what is for the owner is returned.
    fn take(&self, stream: &mut Stream, incoming: Incoming) -> Result<Option<Delivery>, End> {
        let (element, oversized) = match incoming {
            Incoming::Element(element) => (element, false),
            Incoming::Oversized(element) => (element, true),
            Incoming::Footer => return Err(End::Lost(Trouble::Closed)),
            Incoming::Header { .. } => {
                let text = "a stream within the stream".to_owned();
                return Err(End::Lost(Trouble::Protocol(text)));
            }
        };
        match stream_error(&element) {
            Some(Trouble::StreamError { condition, text }) if condition == "conflict" => {
                return Err(End::Replaced(text));
            }
            Some(trouble) => return Err(End::Lost(trouble)),
            None => {}
        }
        if element.has_ns(MANAGEMENT) {
            self.manage(stream, &element).map_err(End::Lost)?;
            return Ok(None);
        }
        if !element.has_ns(CLIENT) || !matches!(element.name(), "iq" | "message" | "presence") {
            debug!(name = element.name(), "neither stanza nor known");
            return Ok(None);
        }
        let mark = match self.shared.outgoing().management.receive() {
            Receipt::Repeated => return Ok(None),
            Receipt::Uncounted => None,
            Receipt::Number(number) => Some(Mark {
                epoch: stream.epoch,
                number,
            }),
        };
        let event = if oversized {
            debug!(
                from = element.attr("from"),
                name = element.name(),
                "an oversized stanza was refused"
            );
            if element.name() == "iq" && matches!(element.attr("type"), Some("get" | "set")) {
                self.push(refusal(&element));
            }
            None
        } else if stream.pong(&element) || self.answer_ping(&element) {
            None
        } else {
            Some(SessionEvent::Stanza(element))
        };
        // Without an event there is still a number for the owner to pass.
        Ok((mark.is_some() || event.is_some()).then_some(Delivery { mark, event }))
    }

    /// An element of stream management.
    fn manage(&self, stream: &mut Stream, element: &Element) -> Result<(), Trouble> {
        match element.name() {
            "r" => {
                self.shared.awaited.store(true, Ordering::SeqCst);
                stream.owes.get_or_insert(Instant::now() + CATCH_UP);
            }
            "a" => {
                stream.asked = false;
                self.shared
                    .outgoing()
                    .management
                    .acknowledge(counter(element)?)
                    .map_err(|error| Trouble::Protocol(error.to_string()))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Answers a ping; `false` if it is none.
    fn answer_ping(&self, stanza: &Element) -> bool {
        let is_ping = stanza.name() == "iq"
            && stanza.attr("type") == Some("get")
            && stanza.has_child("ping", PING);
        if is_ping {
            self.push(reply(stanza, "result"));
        }
        is_ping
    }

    fn ping(&mut self, stream: &mut Stream) {
        self.pings += 1;
        let id = format!("ping-{}", self.pings);
        let mut iq = Element::bare("iq", CLIENT);
        set(&mut iq, xml_ncname!("type"), "get");
        set(&mut iq, xml_ncname!("id"), &id);
        set(&mut iq, xml_ncname!("to"), self.role.domain());
        // A component's stanzas must say where they are from. It pings
        // itself by way of the server.
        if let Role::Component(settings) = &self.role {
            set(&mut iq, xml_ncname!("from"), &settings.domain);
        }
        iq.append_child(Element::bare("ping", PING));
        stream.ping = Some(id);
        self.push(iq);
    }

    /// Queues a stanza of the session's own.
    fn push(&self, stanza: Element) {
        // A full queue ends the stream at the next write.
        self.shared.outgoing().management.push(stanza);
    }

    /// Does what was asked, with the stream still up.
    async fn finish(
        &self,
        mut connection: Connection,
        mut stream: Stream,
        request: Request,
    ) -> End {
        if !matches!(request, Request::Abandon) {
            let farewell = async {
                self.write(&mut connection, &mut stream).await?;
                connection.write_footer();
                connection.flush().await?;
                while connection.next().await? != Incoming::Footer {}
                Ok::<_, Trouble>(())
            };
            // What the server makes of it does not matter any more.
            match timeout(FAREWELL, farewell).await {
                Ok(Ok(())) => debug!("stream ended"),
                Ok(Err(trouble)) => debug!(%trouble, "stream ended"),
                Err(_) => debug!("stream ended without the server's word"),
            }
        }
        End::Requested(request)
    }
}

/// One stream's own state.
struct Stream {
    epoch: u32,
    watchdog: Watchdog,
    /// The id of our last ping, until it is answered.
    ping: Option<String>,
    /// The server asked how far we are; the answer waits no longer than this.
    owes: Option<Instant>,
    /// What the last answer said.
    told: u32,
    /// It said less than had come; the rest follows when the owner is there.
    lags: bool,
    /// We asked the server, and have no answer yet.
    asked: bool,
    /// Our own address.
    jid: Jid,
}

impl Stream {
    /// Whether this answers our ping. Only the server, or a component's own
    /// name, can.
    fn pong(&mut self, stanza: &Element) -> bool {
        let server = stanza
            .attr("from")
            .is_none_or(|from| from == self.jid.domain().as_str());
        let answers = stanza.name() == "iq"
            && server
            && self.ping.is_some()
            && stanza.attr("id") == self.ping.as_deref();
        if answers {
            self.ping = None;
            self.watchdog.answered(Instant::now());
        }
        answers
    }
}

impl Shared {
    /// The stream is over.
    fn disconnected(&self) {
        let mut outgoing = self.outgoing();
        outgoing.online = false;
        outgoing.management.disconnected();
    }

    /// Waits for a request and takes it.
    async fn next_request(&self) -> Request {
        loop {
            let request = self
                .request
                .lock()
                .expect("no one panics while holding the request")
                .take();
            if let Some(request) = request {
                return request;
            }
            self.requested.notified().await;
        }
    }
}

/// Puts an element of ours into the buffer.
fn put(connection: &mut Connection, element: &Element) -> Result<(), Trouble> {
    connection
        .write(element)
        .map_err(|error| Trouble::Protocol(error.to_string()))
}

/// The head of an answer to an IQ.
fn reply(request: &Element, kind: &str) -> Element {
    let mut reply = Element::bare("iq", CLIENT);
    set(&mut reply, xml_ncname!("type"), kind);
    for (ours, value) in [
        (xml_ncname!("id"), request.attr("id")),
        (xml_ncname!("to"), request.attr("from")),
        (xml_ncname!("from"), request.attr("to")),
    ] {
        if let Some(value) = value {
            set(&mut reply, ours, value);
        }
    }
    reply
}

/// The answer to a request that is too large to look at.
fn refusal(request: &Element) -> Element {
    let mut error = Element::bare("error", CLIENT);
    set(&mut error, xml_ncname!("type"), "modify");
    error.append_child(Element::bare("policy-violation", STANZAS));
    let mut reply = reply(request, "error");
    reply.append_child(error);
    reply
}

/// A number nobody can foresee; the standard library seeds its maps so.
fn random() -> u32 {
    RandomState::new().build_hasher().finish() as u32
}
