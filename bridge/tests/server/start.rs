//! A bridge in this process, without XMPP and HTTP.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use tokio::runtime::{self, Runtime};
use viaduct_bridge::config::Config;
use viaduct_bridge::io::control::{Bridge, handle_events};
use viaduct_bridge::io::program;
use viaduct_bridge::io::udp::Sockets;

/// Starts one of so many workers on a free port of the loopback, with these
/// options beside. It lives as long as the runtime.
pub(crate) fn start(name: &str, workers: usize, options: &str) -> (Arc<Bridge>, Runtime) {
    let media = UdpSocket::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
        .port();
    let path = std::env::temp_dir().join(format!("viaduct-{name}-{}.conf", std::process::id()));
    let text = format!(
        "videobridge {{ ice.udp.port = {media}, health.require-valid-address = false }}
         ice4j.harvest.allowed-addresses = [ 127.0.0.1 ]
         {options}"
    );
    std::fs::write(&path, text).expect("a temporary file");
    let config = Config::load(&path).expect("a test's configuration");
    std::fs::remove_file(&path).expect("the file just written");
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let bases = [SocketAddr::from((Ipv4Addr::LOCALHOST, media))];
    let sockets = Sockets::open(&bases, workers, true).expect("a free port");
    let (bridge, reports) = program::start(config, &bases, sockets).expect("a bridge");
    runtime.spawn(handle_events(Arc::clone(&bridge), reports));
    (bridge, runtime)
}
