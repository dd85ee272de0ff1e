//! A bridge in this process, without XMPP, and clients of its WebSockets.

mod start;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use start::start;
use viaduct_bridge::io::control::Bridge;
use viaduct_bridge::io::http;
use viaduct_signalling::colibri2::{Capability, ConferenceModify, Endpoint, Transport, capability};

/// The bridge.
pub(crate) struct Test {
    pub(crate) bridge: Arc<Bridge>,
    pub(crate) port: u16,
    /// Of the private HTTP server.
    pub(crate) private: u16,
    _runtime: tokio::runtime::Runtime,
}

impl Test {
    pub(crate) fn start(name: &str) -> Self {
        let [(listener, port), (private_listener, private)] = [(); 2].map(|()| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            listener.set_nonblocking(true).expect("a socket");
            let port = listener.local_addr().expect("bound").port();
            (listener, port)
        });
        let options = format!(
            "videobridge {{ http-servers.public.port = {port}, apis.rest.enabled = true
               websockets {{ enabled = true, server-id = here, domains = [ \"127.0.0.1:{port}\" ] }} }}"
        );
        let (bridge, runtime) = start(name, 1, &options);
        runtime.spawn(http::serve(listener, http::public(Arc::clone(&bridge))));
        let private_router = http::private(Arc::clone(&bridge));
        runtime.spawn(http::serve(private_listener, private_router));
        Self {
            bridge,
            port,
            private,
            _runtime: runtime,
        }
    }

    pub(crate) fn modify(&self, create: bool, endpoint: Endpoint) -> Option<String> {
        let request = ConferenceModify {
            create,
            endpoints: vec![endpoint],
            ..ConferenceModify::new("m")
        };
        let answer = self.bridge.colibri(|c| c.handle(Instant::now(), &request));
        let transport = answer.expect("an answer").endpoints.remove(0).transport?;
        transport
            .ice_udp?
            .web_sockets
            .into_iter()
            .find_map(|w| w.url)
    }

    /// Creates an endpoint, and the meeting if it is not there; answers the path
    /// of its channel.
    pub(crate) fn create(&self, id: &str) -> String {
        let endpoint = Endpoint {
            create: true,
            transport: Some(Transport::default()),
            capabilities: vec![Capability {
                name: capability::SOURCE_NAMES.into(),
            }],
            ..Endpoint::new(id)
        };
        let none = self.bridge.colibri(|c| c.registered().conferences) == 0;
        let url = self.modify(none, endpoint).expect("a URL");
        let beginning = format!("ws://127.0.0.1:{}", self.port);
        url.strip_prefix(&beginning)
            .expect("this server")
            .to_owned()
    }

    /// Opens a channel, or answers the status that refuses it.
    pub(crate) fn open(&self, path: &str) -> Result<Channel, u16> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a socket");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .expect("written");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut octet = [0];
            stream.read_exact(&mut octet).expect("a head");
            head.extend(octet);
        }
        let head = String::from_utf8(head).expect("ASCII");
        let status = head.split(' ').nth(1).expect("a status");
        match status.parse().expect("a status") {
            101 => Ok(Channel(stream)),
            status => Err(status),
        }
    }
}

/// A client's end of an open channel.
pub(crate) struct Channel(pub(crate) TcpStream);

#[derive(Debug, PartialEq)]
pub(crate) enum Frame {
    Text(String),
    Close(u16, String),
}

impl Channel {
    /// The next message or close; pings are passed over.
    pub(crate) fn read(&mut self) -> Frame {
        loop {
            let mut head = [0; 2];
            self.0.read_exact(&mut head).expect("a frame");
            let mut len = usize::from(head[1]);
            if len == 126 {
                let mut long = [0; 2];
                self.0.read_exact(&mut long).expect("a length");
                len = usize::from(u16::from_be_bytes(long));
            }
            let mut payload = vec![0; len];
            self.0.read_exact(&mut payload).expect("a payload");
            match head[0] & 0x0f {
                1 => return Frame::Text(String::from_utf8(payload).expect("UTF-8")),
                8 => {
                    let code = u16::from_be_bytes([payload[0], payload[1]]);
                    let reason = String::from_utf8(payload.split_off(2)).expect("UTF-8");
                    return Frame::Close(code, reason);
                }
                _ => {}
            }
        }
    }

    /// The close that ends the channel, whatever was said before.
    pub(crate) fn close(&mut self) -> Frame {
        loop {
            if let close @ Frame::Close(..) = self.read() {
                return close;
            }
        }
    }
}
