//! The program: binds everything, starts the workers and the control plane, and
//! ends on a signal.
//!
//! Order of the start: the kept id, the media port, the HTTP ports, the workers,
//! and XMPP last, so that the fleet hears of a bridge only when all of it works.
//! Order of the end: the brewery first, so that the focus moves people at once.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use viaduct_signalling::program::Failure;

use super::control::{Bridge, Parts, handle_events, keep_time};
use super::identity::{Identity, IdentityError};
use super::udp::{Sockets, Steering, replaces_safely};
use super::{addresses, certificate, http, metrics, rng, worker, xmpp};
use crate::candidates::{candidates, is_public, usable};
use crate::colibri::{self, Colibri};
use crate::command::{Candidate, CandidateKind, Fingerprint, Setup};
use crate::config::{Config, StateDir, Steer};
use crate::peers::Site;
use crate::shard::Shard;

/// How long leaving may take in all; supervisors kill after 5 s and more.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(4);
/// Threads for XMPP, HTTP and bridge channels, of which there may be thousands.
const CONTROL_THREADS: usize = 2;

/// Runs until a signal or a shutdown ends it; answers the exit code.
pub fn run(config: Config) -> Result<u8, Failure> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let identity = identity(&config)?;
    let bases = bases(&config)?;
    let workers = config.workers.unwrap_or_else(worker::default_count);
    let sockets = Sockets::open(&bases, workers, config.steer != Steer::Never)
        .map_err(anyhow::Error::from)?;
    let listen = |server, address: Option<_>| {
        address
            .map(|(host, port)| http::bind(server, host, port))
            .transpose()
    };
    let private = listen("private", config.private_http)?;
    let public = listen("public", config.public_http)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control plane")?;
    runtime.block_on(async {
        // Before anything is announced, so that no signal finds the default
        // action, which would not leave the brewery.
        let end = Signals::new().context("cannot listen to signals")?;
        let (bridge, reports) = start(config, &bases, sockets)?;
        tokio::spawn(handle_events(Arc::clone(&bridge), reports));
        tokio::spawn(keep_time(Arc::clone(&bridge)));
        for (listener, router) in [
            (private, http::private(Arc::clone(&bridge))),
            (public, http::public(Arc::clone(&bridge))),
        ] {
            if let Some(listener) = listener {
                tokio::spawn(http::serve(listener, router));
            }
        }
        let (stop, stopped) = watch::channel(false);
        let identity = Arc::new(Mutex::new(identity));
        let connections: Vec<_> = bridge
            .config
            .xmpp
            .iter()
            .map(|connection| {
                tokio::spawn(xmpp::run(
                    Arc::clone(&bridge),
                    Arc::clone(&identity),
                    connection.clone(),
                    stopped.clone(),
                ))
            })
            .collect();
        let code = tokio::select! {
            signal = end.received() => 128 + signal,
            () = bridge.ended() => 0,
        };
        tracing::info!(code, "leaving");
        stop.send_replace(true);
        let left = timeout(LEAVE_TIMEOUT, async {
            for connection in connections {
                // A task that panicked has left as well.
                let _ = connection.await;
            }
        });
        if left.await.is_err() {
            tracing::warn!("not all XMPP servers let us leave in time");
        }
        Ok(code)
    })
}

/// The kept id. A directory that the operator named must serve; without the
/// default one the bridge runs under an id that lasts as long as the process.
fn identity(config: &Config) -> Result<Identity, Failure> {
    let load = |dir| Identity::load(dir, config.media_port);
    match &config.state_dir {
        StateDir::Named(dir) => load(dir).map_err(|error| {
            Failure::Configuration(format!(
                "viaduct.bridge.state-dir = \"{}\": {error}; make it a directory this user may \
                 write, with no broken file in it",
                dir.display()
            ))
        }),
        StateDir::Default(dir) => Ok(load(dir).unwrap_or_else(|error: IdentityError| {
            tracing::warn!(
                %error,
                "the bridge's id cannot be kept, so its name changes with every start; set \
                 viaduct.bridge.state-dir"
            );
            Identity::transient(config.media_port)
        })),
    }
}

/// The addresses to receive media on.
fn bases(config: &Config) -> Result<Vec<SocketAddr>, Failure> {
    let present = addresses::interface_addresses().context("cannot list network interfaces")?;
    let bases: Vec<SocketAddr> = usable(&config.harvest, &present)
        .into_iter()
        .map(|ip| SocketAddr::new(ip, config.media_port))
        .collect();
    if bases.is_empty() {
        let present: Vec<String> = present.iter().map(|a| a.address.to_string()).collect();
        return Err(anyhow::anyhow!(
            "no address to receive media on: this machine has {}, and ice4j.harvest excludes \
             them; name one in ice4j.harvest.allowed-addresses (127.0.0.1 is used only then)",
            present.join(", ")
        )
        .into());
    }
    for mapping in &config.harvest.static_mappings {
        if bases.iter().all(|base| base.ip() != mapping.local) {
            tracing::warn!(
                local = %mapping.local,
                public = %mapping.public,
                "a static mapping is of no use: its local-address is not used for media"
            );
        }
    }
    Ok(bases)
}

/// Starts the workers, and makes what the control plane shares.
pub fn start(
    config: Config,
    bases: &[SocketAddr],
    mut sockets: Vec<Sockets>,
) -> anyhow::Result<(Arc<Bridge>, mpsc::UnboundedReceiver<worker::Report>)> {
    let certificate = Arc::new(certificate::generate());
    let announced = candidates(bases, &config.harvest.static_mappings);
    let colibri = Colibri::new(
        colibri::Settings {
            candidates: announced.clone(),
            fingerprint: Fingerprint {
                hash: "sha-256".to_owned(),
                bytes: certificate.fingerprint(),
                setup: Setup::ActPass,
            },
            ufrag_prefix: config.ufrag_prefix.clone(),
            advertise_private: config.advertise_private,
            channel_urls: config
                .websockets
                .as_ref()
                .map(|websockets| websockets.urls())
                .unwrap_or_default(),
            data_channels: config.data_channels,
            workers: sockets.len(),
            endpoints_per_worker: config.endpoints_per_worker,
        },
        rng::generator(),
    );
    let (reports, received) = mpsc::unbounded_channel();
    let steering = steering(&mut sockets, config.steer);
    let shards = (0..sockets.len()).map(|number| {
        let site = Site {
            number,
            count: sockets.len(),
            ufrag_prefix: config.ufrag_prefix.len(),
        };
        let certificate = Arc::clone(&certificate);
        Shard::new(site, config.shard.clone(), certificate)
    });
    let shards = shards.collect();
    let mailboxes = worker::spawn(sockets, shards, &reports).context("cannot start the workers")?;
    tracing::info!(
        version = metrics::VERSION,
        media = ?bases,
        workers = mailboxes.len(),
        steered = steering.as_ref().is_some_and(Steering::knows_homes),
        private_http = ?config.private_http,
        public_http = ?config.public_http,
        xmpp = config.xmpp.len(),
        "bridge started"
    );
    let bridge = Bridge::new(Parts {
        has_valid_address: announced.iter().any(|c| is_public(c.address.ip())),
        address: best_address(&announced),
        config,
        colibri,
        mailboxes,
        steering,
    });
    Ok((Arc::new(bridge), received))
}

/// What lets the kernel give datagrams to the worker whose they are, and keep RTCP
/// apart.
fn steering(sockets: &mut [Sockets], steer: Steer) -> Option<Steering> {
    let replaces = match steer {
        Steer::Never => return None,
        Steer::Auto => replaces_safely(),
        Steer::Always => true,
    };
    if !replaces && sockets.len() > 1 {
        tracing::info!(
            "workers hand datagrams to each other, since this kernel is not known to have the \
             fix of CVE-2026-52910; if it has, set viaduct.bridge.steer = always"
        );
    }
    let steering = Steering::new(sockets, replaces);
    let failed = |error| tracing::info!(%error, "the kernel cannot steer datagrams");
    steering.map_err(failed).ok()
}

/// Where to look for this bridge: a mapped address if there is one, else the
/// host candidate that others prefer.
fn best_address(candidates: &[Candidate]) -> String {
    candidates
        .iter()
        .max_by_key(|c| (c.kind == CandidateKind::ServerReflexive, c.priority))
        .map(|c| c.address.to_string())
        .unwrap_or_default()
}

/// The signals that end the program.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one of them and answers its number (POSIX).
    async fn received(mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 15,
            _ = self.interrupt.recv() => 2,
            _ = self.hangup.recv() => 1,
        }
    }
}
