//! The control plane from outside, over real sockets and with a real worker
//! behind it: bridge channels, and the private HTTP server.

mod channels;
mod debug;
mod http;
mod metrics;
mod rest;
#[path = "../server/mod.rs"]
mod server;
#[path = "../../fuzz/websocket.rs"]
mod websocket;
