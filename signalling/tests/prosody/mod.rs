//! A real Prosody on free ports of the loopback interface, for one test, and
//! a proxy before it whose connections can be cut or frozen.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The virtual host, where the accounts are.
pub(crate) const DOMAIN: &str = "auth.test";
/// The external component.
pub(crate) const COMPONENT: &str = "focus.test";
pub(crate) const SECRET: &str = "component secret";
pub(crate) const PASSWORD: &str = "correct horse";

/// What a test wants otherwise than usual.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wishes {
    /// The server offers TLS, with a certificate for this name.
    pub(crate) tls: Option<&'static str>,
}

pub(crate) struct Prosody {
    folder: PathBuf,
    user: bool,
    process: Option<Child>,
    pub(crate) c2s: u16,
    pub(crate) component: u16,
}

impl Prosody {
    /// Starts a server; `None`, said loudly, if it is not installed.
    pub(crate) fn start(wishes: Wishes) -> Option<Self> {
        if !Path::new("/usr/bin/prosody").exists() {
            eprintln!("SKIPPED: /usr/bin/prosody is not installed, nothing was tested");
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("viaduct-session-{}-{count}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let accounts = folder.join("data/auth%2etest/accounts");
        fs::create_dir_all(&accounts).expect("a folder");
        for account in ["alice", "bob"] {
            let content = format!("return {{ [\"password\"] = \"{PASSWORD}\" }}");
            fs::write(accounts.join(format!("{account}.dat")), content).expect("an account");
        }
        if let Some(name) = wishes.tls {
            make_certificate(&folder, name);
        }
        let mut prosody = Self {
            user: output("id", &["-u"]) == "0" && !output("id", &["-u", "prosody"]).is_empty(),
            process: None,
            c2s: free_port(),
            component: free_port(),
            folder,
        };
        fs::write(
            prosody.folder.join("prosody.cfg.lua"),
            prosody.config(wishes),
        )
        .expect("a file");
        if prosody.user {
            let folder = prosody.folder.to_string_lossy().into_owned();
            output("chown", &["-R", "prosody:prosody", &folder]);
        }
        prosody.run();
        Some(prosody)
    }

    /// The certificate, self-signed and marked as an authority, as Debian's
    /// packages of Jitsi make it.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join("server.crt")
    }

    /// Kills the server.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the server was running");
            process.wait().expect("the server was ours");
        }
    }

    /// Starts it again, and waits until it listens.
    pub(crate) fn run(&mut self) {
        let config = self.folder.join("prosody.cfg.lua");
        let mut command = if self.user {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid=prosody",
                "--regid=prosody",
                "--init-groups",
                "prosody",
            ]);
            command
        } else {
            Command::new("prosody")
        };
        let process = command
            .arg("--config")
            .arg(&config)
            .arg("-F")
            .current_dir(&self.folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prosody starts");
        self.process = Some(process);
        let deadline = Instant::now() + Duration::from_secs(60);
        for port in [self.c2s, self.component] {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
                assert!(Instant::now() < deadline, "{}", self.log());
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("prosody.log")).unwrap_or_default()
    }

    fn config(&self, wishes: Wishes) -> String {
        let folder = self.folder.display();
        let (c2s, component) = (self.c2s, self.component);
        let (tls, certificate) = match wishes.tls {
            Some(_) => (
                "'tls';",
                format!(
                    "ssl = {{ certificate = '{folder}/server.crt', key = '{folder}/server.key' }}\n"
                ),
            ),
            None => ("", String::new()),
        };
        format!(
            "pidfile = '{folder}/prosody.pid'\n\
             data_path = '{folder}/data'\n\
             log = {{ {{ levels = {{ min = 'debug' }}, to = 'file', filename = '{folder}/prosody.log' }} }}\n\
             daemonize = false\n\
             interfaces = {{ '127.0.0.1' }}\n\
             component_interfaces = {{ '127.0.0.1' }}\n\
             c2s_ports = {{ {c2s} }}\n\
             component_ports = {{ {component} }}\n\
             c2s_direct_tls_ports = {{}}\n\
             modules_enabled = {{ 'roster'; 'saslauth'; 'disco'; 'ping'; 'smacks'; {tls} }}\n\
             modules_disabled = {{ 's2s'; 'offline' }}\n\
             c2s_require_encryption = false\n\
             authentication = 'internal_hashed'\n\
             VirtualHost('{DOMAIN}')\n\
             {certificate}\
             Component('{COMPONENT}')\n\
             component_secret = '{SECRET}'\n"
        )
    }
}

impl Drop for Prosody {
    fn drop(&mut self) {
        self.stop();
        if thread::panicking() {
            eprintln!("{}", self.log());
        }
        fs::remove_dir_all(&self.folder).ok();
    }
}

fn make_certificate(folder: &Path, domain: &str) {
    let path = |extension: &str| folder.join(format!("server.{extension}"));
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30",
        ])
        .args(["-subj", &format!("/CN={domain}")])
        .args(["-addext", &format!("subjectAltName=DNS:{domain}")])
        .arg("-keyout")
        .arg(path("key"))
        .arg("-out")
        .arg(path("crt"))
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{made:?}");
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("a standard program");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound socket").port()
}

/// Passes connections on to a port, until told otherwise.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    frozen: Arc<AtomicBool>,
    refusing: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let proxy = Self {
            port: listener.local_addr().expect("a bound socket").port(),
            streams: Arc::default(),
            frozen: Arc::default(),
            refusing: Arc::default(),
        };
        let (streams, frozen) = (Arc::clone(&proxy.streams), Arc::clone(&proxy.frozen));
        let refusing = Arc::clone(&proxy.refusing);
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a connection");
                if refusing.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    from.set_nodelay(true).expect("a socket");
                    let from = from.try_clone().expect("a socket");
                    let to = to.try_clone().expect("a socket");
                    let frozen = Arc::clone(&frozen);
                    streams
                        .lock()
                        .expect("no panics")
                        .push(from.try_clone().expect("a socket"));
                    thread::spawn(move || pass(from, to, &frozen));
                }
            }
        });
        proxy
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        for stream in self.streams.lock().expect("no panics").drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    /// Closes new connections at once, or no longer.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.refusing.store(refusing, Ordering::SeqCst);
    }

    /// Swallows all that is sent, or no longer.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, frozen: &AtomicBool) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if !frozen.load(Ordering::SeqCst) && to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
}
