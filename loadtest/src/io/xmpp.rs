//! The stream to the XMPP server: over a WebSocket (RFC 7395) or TCP.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use viaduct_signalling::jid::FullJid;
use viaduct_signalling::session::stream::{
    FOOTER, Incoming, StreamKind, StreamReader, write_element,
};
use viaduct_signalling::xml::{self, Element, xml_ncname};

use super::dial::{self, Stream, WebSocket};
use crate::client::login::{Login, Step};
use crate::scenario::Server;

const FRAMING: &str = "urn:ietf:params:xml:ns:xmpp-framing";
/// Time for connection and login.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);

/// A stream of elements.
pub enum Wire {
    WebSocket(Box<WebSocket>),
    Tcp(Box<Tcp>),
}

/// A stream over TCP.
pub struct Tcp {
    socket: Box<dyn Stream>,
    reader: StreamReader,
    buffer: BytesMut,
    read: VecDeque<Incoming>,
}

impl Tcp {
    fn new(socket: Box<dyn Stream>) -> Self {
        Self {
            socket,
            reader: StreamReader::default(),
            buffer: BytesMut::new(),
            read: VecDeque::new(),
        }
    }
}

impl Wire {
    /// Connects and logs in anonymously.
    pub async fn login(server: &Server, domain: &str) -> Result<(Self, FullJid)> {
        tokio::time::timeout(LOGIN_TIMEOUT, Self::connect(server, domain))
            .await
            .map_err(|_| anyhow!("no login within {} s", LOGIN_TIMEOUT.as_secs()))?
    }

    async fn connect(server: &Server, domain: &str) -> Result<(Self, FullJid)> {
        let mut wire = match server {
            Server::WebSocket(url) => {
                Self::WebSocket(Box::new(dial::websocket(url, Some("xmpp")).await?))
            }
            Server::Tcp(address) => {
                let socket = TcpStream::connect(address)
                    .await
                    .with_context(|| format!("connecting to {address}"))?;
                socket.set_nodelay(true).context("TCP_NODELAY")?;
                Self::Tcp(Box::new(Tcp::new(Box::new(socket))))
            }
        };
        wire.open(domain).await?;
        let mut login = Login::default();
        loop {
            let element = wire.receive().await?;
            match login.receive(&element)? {
                Step::Send(element) => wire.send(&element).await?,
                Step::Encrypt => {
                    wire = wire.encrypt(domain).await?;
                    wire.open(domain).await?;
                }
                Step::Restart => wire.open(domain).await?,
                Step::Done(jid) => return Ok((wire, jid)),
                Step::Wait => {}
            }
        }
    }

    async fn encrypt(self, domain: &str) -> Result<Self> {
        match self {
            // Never offered there.
            Self::WebSocket(_) => bail!("STARTTLS inside a WebSocket"),
            Self::Tcp(tcp) => {
                let encrypted = dial::encrypt(tcp.socket, domain).await?;
                Ok(Self::Tcp(Box::new(Tcp::new(encrypted))))
            }
        }
    }

    async fn open(&mut self, domain: &str) -> Result<()> {
        match self {
            Self::WebSocket(socket) => {
                let open = Element::builder("open", FRAMING)
                    .attr(xml_ncname!("to").to_owned(), domain)
                    .attr(xml_ncname!("version").to_owned(), "1.0")
                    .build();
                socket
                    .send(Message::text(xml::write(&open)))
                    .await
                    .context("opening the stream")
            }
            Self::Tcp(tcp) => {
                tcp.reader = StreamReader::default();
                tcp.read.clear();
                let mut header = BytesMut::new();
                StreamKind::Client.write_header(domain, &mut header);
                tcp.socket
                    .write_all(&header)
                    .await
                    .context("opening the stream")
            }
        }
    }

    /// Sends an element.
    pub async fn send(&mut self, element: &Element) -> Result<()> {
        match self {
            Self::WebSocket(socket) => socket
                .send(Message::text(xml::write(element)))
                .await
                .context("sending"),
            Self::Tcp(tcp) => {
                let mut out = BytesMut::new();
                write_element(element, &mut out).context("an element that cannot be sent")?;
                tcp.socket.write_all(&out).await.context("sending")
            }
        }
    }

    /// The next element. May be cancelled without losing anything.
    pub async fn receive(&mut self) -> Result<Element> {
        match self {
            Self::WebSocket(socket) => loop {
                let message = socket
                    .next()
                    .await
                    .context("the server closed the connection")?;
                let text = match message.context("WebSocket")? {
                    Message::Text(text) => text,
                    Message::Close(_) => bail!("the server closed the connection"),
                    _ => continue,
                };
                let element = xml::parse(text.as_bytes()).context("not XML")?;
                if element.is("close", FRAMING) {
                    bail!("the server closed the stream");
                }
                if !element.is("open", FRAMING) {
                    return Ok(element);
                }
            },
            Self::Tcp(tcp) => loop {
                match tcp.read.pop_front() {
                    Some(Incoming::Element(element)) => return Ok(element),
                    Some(Incoming::Footer) => bail!("the server closed the stream"),
                    Some(Incoming::Header { .. } | Incoming::Oversized(_)) => continue,
                    None => {}
                }
                if tcp
                    .socket
                    .read_buf(&mut tcp.buffer)
                    .await
                    .context("receiving")?
                    == 0
                {
                    bail!("the server closed the connection");
                }
                let octets = tcp.buffer.split();
                let mut rest = &octets[..];
                while let Some(incoming) = tcp.reader.read(&mut rest).context("not XML")? {
                    tcp.read.push_back(incoming);
                }
            },
        }
    }

    /// Ends the stream.
    pub async fn close(mut self) {
        let ended = match &mut self {
            Self::WebSocket(socket) => {
                let close = Element::bare("close", FRAMING);
                let sent = socket.send(Message::text(xml::write(&close))).await;
                match sent {
                    Ok(()) => (**socket).close(None).await.map_err(anyhow::Error::from),
                    Err(error) => Err(error.into()),
                }
            }
            Self::Tcp(tcp) => tcp
                .socket
                .write_all(FOOTER)
                .await
                .map_err(anyhow::Error::from),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "closing the stream");
        }
    }
}
