//! What a run is: the command line, and what members have in common by it.

use anyhow::{Context, Result, bail};
use viaduct_signalling::jid::{BareJid, Jid};

use super::xmpp::Deployment;
use crate::client::transport::Profiles;
use crate::io::udp::Kernel;
use crate::load::layout::{Layout, MAX_PLACES, Shape};
use crate::load::{Channel, Feedback, Settings};
use crate::scenario::Server;
use crate::source::Codec;
use crate::source::video::Profile;

/// What a run is; the command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Conferences at a time.
    #[arg(long, default_value_t = 1)]
    pub conferences: u32,
    /// 10x10: ten who all send and receive; 1to30: one sends to thirty; 3of10:
    /// ten, three of whom send.
    #[arg(long, conflicts_with_all = ["senders", "receivers"])]
    pub shape: Option<Shape>,
    /// Senders of a conference; as many as receivers are the same people.
    #[arg(long, default_value_t = 3)]
    pub senders: u32,
    #[arg(long, default_value_t = 3)]
    pub receivers: u32,
    #[arg(long, value_enum, default_value = "vp8")]
    pub codec: Codec,
    /// Sizes of pictures and times of their packets.
    #[arg(long, value_enum, default_value = "even")]
    pub profile: Profile,
    /// Kilobits a second of each layer, from the lowest up [default: the codec's].
    #[arg(long, value_delimiter = ',')]
    pub kbits: Vec<u32>,
    /// Pictures a second.
    #[arg(long, default_value_t = 30)]
    pub fps: u32,
    /// Picture heights to ask for, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "720")]
    pub height: Vec<u16>,
    /// Pictures to ask for; -1 for all.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub last_n: i32,
    /// Measured time.
    #[arg(long, default_value_t = 7.0)]
    pub seconds: f64,
    /// Time before it, once all are there.
    #[arg(long, default_value_t = 2.0)]
    pub warmup: f64,
    /// Joins a second.
    #[arg(long, default_value_t = 200.0)]
    pub ramp: f64,
    /// Seconds for all to be there after the last join began.
    #[arg(long, default_value_t = 20.0)]
    pub join_timeout: f64,
    /// Members that leave and are replaced, a second.
    #[arg(long, default_value_t = 0.0)]
    pub churn: f64,
    #[arg(long, value_enum, default_value = "datachannel")]
    pub channel: Channel,
    /// Scheme, host and port of bridge channels, where what the bridge names
    /// leads elsewhere: ws://127.0.0.1:9090.
    #[arg(long, value_name = "URL")]
    pub ws_base: Option<String>,
    /// What receivers tell the server.
    #[arg(long, value_enum, default_value = "none")]
    pub feedback: Feedback,
    #[arg(long, value_enum, default_value = "gcm128")]
    pub srtp: Profiles,
    /// Share of what arrives that members throw away.
    #[arg(long, default_value_t = 0.0)]
    pub loss: f64,
    /// Kilobits a second beyond which a member throws away all; 0 for no limit.
    #[arg(long, default_value_t = 0)]
    pub limit_kbits: u64,
    /// Open one of so many packets and hold it against its tag.
    #[arg(long, default_value_t = 16)]
    pub open_every: u32,
    /// Process of the server, whose CPU time and memory are measured.
    #[arg(long)]
    pub pid: Option<u32>,
    /// CPU of this program.
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Threads of the members.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Network namespace of the members' sockets.
    #[arg(long)]
    pub netns: Option<String>,
    /// Take runs of datagrams as they were sent (UDP_GRO): spares the server's
    /// CPU what a network card would do, but not the roofline's.
    #[arg(long)]
    pub gro: bool,
    /// Take times of arrival by this program's own clock, not the kernel's: some
    /// 20 ns a packet less for the server, and delays as this program sees them.
    #[arg(long)]
    pub own_time: bool,
    /// Of a whole deployment: the XMPP domain that takes anonymous logins.
    #[arg(long)]
    pub domain: Option<String>,
    /// Domain of its rooms [default: conference.DOMAIN].
    #[arg(long)]
    pub muc: Option<String>,
    /// Address of its focus [default: focus.DOMAIN].
    #[arg(long)]
    pub focus: Option<String>,
    /// Measure the roofline of the same load behind it.
    #[arg(long)]
    pub roofline: bool,
    /// Seed of all random choices [default: another one each time].
    #[arg(long)]
    pub seed: Option<u64>,
}

impl Options {
    pub fn shape(&self) -> Shape {
        self.shape
            .unwrap_or_else(|| Shape::new(self.senders, self.receivers))
    }

    pub(super) fn check(&self) -> Result<()> {
        let shape = self.shape();
        let places = u64::from(self.conferences) * u64::from(shape.participants);
        if places == 0 || shape.senders == 0 {
            bail!("--conferences, --senders, --receivers: none may be 0");
        }
        if places > u64::from(MAX_PLACES) {
            bail!("{places} participants: at most {MAX_PLACES} fit into one run");
        }
        let share = |option: &str, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(anyhow::anyhow!(
                "--{option} {value}: a share from 0 to 1 is wanted"
            )),
        };
        share("loss", self.loss)?;
        for (option, value) in [
            ("seconds", self.seconds),
            ("ramp", self.ramp),
            ("join-timeout", self.join_timeout),
        ] {
            if !(value > 0.0 && value < 1e6) {
                bail!("--{option} {value}: a number above 0 is wanted");
            }
        }
        for (option, value) in [("warmup", self.warmup), ("churn", self.churn)] {
            if !(0.0..1e6).contains(&value) {
                bail!("--{option} {value}: a number from 0 on is wanted");
            }
        }
        for (option, value) in [("open-every", self.open_every), ("fps", self.fps)] {
            if value == 0 {
                bail!("--{option} 0: at least 1 is wanted");
            }
        }
        if self.threads == 0 {
            bail!("--threads 0: at least 1 is wanted");
        }
        if self.height.is_empty() {
            bail!("--height: at least one is wanted");
        }
        Ok(())
    }

    /// Where the rooms of a whole deployment are.
    pub(super) fn deployment(&self, server: &Server) -> Result<Deployment> {
        let Some(domain) = &self.domain else {
            bail!("--domain is needed: the XMPP domain that takes anonymous logins");
        };
        let focus = self.focus.clone().unwrap_or(format!("focus.{domain}"));
        Ok(Deployment {
            server: server.clone(),
            domain: BareJid::new(domain).with_context(|| format!("--domain {domain}"))?,
            muc: self.muc.clone().unwrap_or(format!("conference.{domain}")),
            focus: Jid::new(&focus).with_context(|| format!("--focus {focus}"))?,
        })
    }

    /// What the kernel is to do for members' sockets.
    pub(super) fn kernel(&self) -> Kernel {
        Kernel {
            times: !self.own_time,
            gro: self.gro,
        }
    }

    fn kilobits(&self) -> Vec<u32> {
        match (self.kbits.is_empty(), self.profile, self.codec) {
            (false, ..) => self.kbits.clone(),
            (true, Profile::Even, Codec::Vp8) => vec![150, 500, 1500],
            (true, ..) => Vec::new(),
        }
    }

    pub(super) fn settings(&self, seed: u64) -> Settings {
        Settings {
            layout: Layout {
                conferences: self.conferences,
                shape: self.shape(),
                salt: seed as u32,
            },
            run: (seed >> 32) as u32,
            picture: Settings::picture(self.codec, self.profile, self.fps, &self.kilobits()),
            channel: self.channel,
            feedback: self.feedback,
            height: self.height[0],
            last_n: self.last_n,
            open_every: self.open_every,
            loss: self.loss,
            limit: self.limit_kbits * 1000,
            seed,
        }
    }
}

/// What a load is put on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A bridge's REST interface, `HOST:PORT`.
    Colibri2(String),
    /// A whole deployment.
    Xmpp(Server),
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "wanted is colibri2+http://HOST:PORT, the private HTTP port of a bridge, or a whole \
             deployment by xmpp+ws://HOST:PORT/xmpp-websocket, xmpp+wss://... or xmpp+tcp://HOST:PORT"
                .to_owned()
        };
        let (kind, rest) = text.split_once("://").ok_or_else(wrong)?;
        match (kind, rest.trim_end_matches('/')) {
            (_, "") => Err(wrong()),
            ("colibri2+http", host) => Ok(Self::Colibri2(host.to_owned())),
            ("xmpp+ws" | "xmpp+wss", _) => {
                let url = text.trim_start_matches("xmpp+").to_owned();
                Ok(Self::Xmpp(Server::WebSocket(url)))
            }
            ("xmpp+tcp", host) => Ok(Self::Xmpp(Server::Tcp(host.to_owned()))),
            _ => Err(wrong()),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Colibri2(host) => write!(f, "colibri2+http://{host}"),
            Self::Xmpp(Server::WebSocket(url)) => write!(f, "xmpp+{url}"),
            Self::Xmpp(Server::Tcp(address)) => write!(f, "xmpp+tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_back() {
        for text in [
            "colibri2+http://127.0.0.1:8080",
            "xmpp+ws://127.0.0.1:5280/xmpp-websocket",
            "xmpp+wss://meet.example/xmpp-websocket",
            "xmpp+tcp://127.0.0.1:5222",
        ] {
            let target: Target = text.parse().expect("a target");
            assert_eq!(target.to_string(), text);
        }
        for text in ["", "http://a:1", "colibri2+http://", "xmpp", "xmpp+udp://a"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
