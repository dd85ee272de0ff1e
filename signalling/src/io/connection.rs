//! One connection to the server: bytes in and out of an XML stream.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::tcp::Tcp;
use super::tls;
use crate::session::Trouble;
use crate::session::stream::{
    FOOTER, Incoming, STREAM, StreamError, StreamKind, StreamReader, write_element,
};
use crate::xml::Element;

/// Namespace of STARTTLS (RFC 6120 §5).
pub(super) const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
/// Namespace of the conditions of stream errors (RFC 6120 §4.9).
const CONDITIONS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
/// Octets to read at once.
const CHUNK: usize = 16 << 10;
/// How long a write may take.
const WRITE: Duration = Duration::from_secs(20);

/// The transport below.
enum Transport {
    Plain(Tcp),
    Encrypted(Box<TlsStream<Tcp>>),
}

impl Transport {
    /// Safe to drop half-way: nothing read is lost.
    async fn read(&mut self, inbox: &mut BytesMut) -> io::Result<usize> {
        inbox.reserve(CHUNK);
        match self {
            Self::Plain(tcp) => tcp.read_buf(inbox).await,
            Self::Encrypted(tls) => tls.read_buf(inbox).await,
        }
    }

    async fn write(&mut self, outbox: &mut BytesMut) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.write_all_buf(outbox).await,
            Self::Encrypted(tls) => {
                tls.write_all_buf(outbox).await?;
                tls.flush().await
            }
        }
    }
}

/// A connection with a stream on it.
pub(super) struct Connection {
    transport: Transport,
    kind: StreamKind,
    reader: StreamReader,
    inbox: BytesMut,
    outbox: BytesMut,
}

impl Connection {
    pub(super) async fn connect(kind: StreamKind, host: &str, port: u16) -> Result<Self, Trouble> {
        Ok(Self {
            transport: Transport::Plain(Tcp::connect(host, port).await?),
            kind,
            reader: StreamReader::default(),
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
        })
    }

    /// Opens a stream to `domain`, or opens it anew. Returns the server's id
    /// for it.
    pub(super) async fn open(&mut self, domain: &str) -> Result<Option<String>, Trouble> {
        self.reader = StreamReader::default();
        self.kind.write_header(domain, &mut self.outbox);
        self.flush().await?;
        match self.next().await? {
            Incoming::Header { id } => Ok(id),
            other => Err(Trouble::Protocol(format!("{other:?} before the stream"))),
        }
    }

    /// The next element where only an element may come; errors of the stream
    /// are trouble.
    pub(super) async fn element(&mut self) -> Result<Element, Trouble> {
        match self.next().await? {
            Incoming::Element(element) => match stream_error(&element) {
                Some(trouble) => Err(trouble),
                None => Ok(element),
            },
            Incoming::Footer => Err(Trouble::Closed),
            Incoming::Header { .. } | Incoming::Oversized(_) => Err(Trouble::Protocol(
                "something too large during login".to_owned(),
            )),
        }
    }

    /// Whatever comes next. Safe to drop half-way.
    pub(super) async fn next(&mut self) -> Result<Incoming, Trouble> {
        loop {
            let mut bytes = &self.inbox[..];
            let read = self.reader.read(&mut bytes);
            let taken = self.inbox.len() - bytes.len();
            self.inbox.advance(taken);
            match read {
                Ok(Some(incoming)) => return Ok(incoming),
                Ok(None) => {}
                Err(error) => return Err(Trouble::Protocol(error.to_string())),
            }
            let read = self.transport.read(&mut self.inbox).await.map_err(lost)?;
            if read == 0 {
                return Err(Trouble::Closed);
            }
        }
    }

    /// Puts an element into the buffer; `flush` sends it.
    pub(super) fn write(&mut self, element: &Element) -> Result<(), StreamError> {
        write_element(element, &mut self.outbox)
    }

    /// Puts the end of the stream into the buffer.
    pub(super) fn write_footer(&mut self) {
        self.outbox.extend_from_slice(FOOTER);
    }

    /// Octets in the buffer.
    pub(super) fn buffered(&self) -> usize {
        self.outbox.len()
    }

    /// Sends what is in the buffer.
    pub(super) async fn flush(&mut self) -> Result<(), Trouble> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        timeout(WRITE, self.transport.write(&mut self.outbox))
            .await
            .map_err(|_| Trouble::TimedOut(WRITE.as_secs(), "writing"))?
            .map_err(lost)
    }

    /// Sends one element of ours.
    pub(super) async fn send(&mut self, element: &Element) -> Result<(), Trouble> {
        self.write(element)
            .map_err(|error| Trouble::Protocol(error.to_string()))?;
        self.flush().await
    }

    pub(super) fn encrypted(&self) -> bool {
        matches!(self.transport, Transport::Encrypted(_))
    }

    /// STARTTLS (RFC 6120 §5.4). Returns the connection and the data that
    /// bind a login to it.
    pub(super) async fn start_tls(
        mut self,
        domain: &str,
        verify: bool,
        trusted: &[PathBuf],
    ) -> Result<(Self, Option<Vec<u8>>), Trouble> {
        self.send(&Element::bare("starttls", TLS)).await?;
        let answer = self.element().await?;
        if !answer.is("proceed", TLS) {
            return Err(Trouble::Tls(format!(
                "the server answers <{}/>",
                answer.name()
            )));
        }
        // What follows in clear could come from anyone on the way.
        if !self.inbox.is_empty() {
            return Err(Trouble::Protocol("data after the start of TLS".to_owned()));
        }
        let Transport::Plain(tcp) = self.transport else {
            return Err(Trouble::Protocol("TLS within TLS".to_owned()));
        };
        let secured = tls::secure(tcp, domain, verify, trusted).await?;
        self.transport = Transport::Encrypted(Box::new(secured.stream));
        Ok((self, secured.exporter))
    }
}

fn lost(error: io::Error) -> Trouble {
    Trouble::Io(error.to_string())
}

/// `<stream:error/>` as trouble; `None` for other elements.
pub(super) fn stream_error(element: &Element) -> Option<Trouble> {
    if !element.is("error", STREAM) {
        return None;
    }
    let condition = element
        .children()
        .find(|child| child.has_ns(CONDITIONS) && child.name() != "text")
        .map_or("undefined-condition", Element::name);
    if condition == "host-unknown" {
        return Some(Trouble::HostUnknown);
    }
    Some(Trouble::StreamError {
        condition: condition.to_owned(),
        text: element
            .get_child("text", CONDITIONS)
            .map(Element::text)
            .unwrap_or_default(),
    })
}
