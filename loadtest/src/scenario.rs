//! What one run is.

use std::str::FromStr;
use std::time::Duration;

use viaduct_signalling::jid::{BareJid, Jid};

use crate::source::Codec;

/// Participants of one run at a time.
pub const MAX_PARTICIPANTS: u16 = 10_000;
/// Participants of one run in all; their numbers in packets have 16 bits.
const MAX_NUMBERS: f64 = 65_535.0;

/// How to reach the XMPP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// RFC 7395.
    WebSocket(String),
    /// RFC 6120 over TCP, `HOST:PORT`, with TLS where there is no login without.
    Tcp(String),
}

/// What carries the bridge channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ChannelKind {
    Websocket,
    /// SCTP over the media transport's DTLS.
    Datachannel,
}

/// Participants that leave and are replaced, a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(pub f64);

impl FromStr for Rate {
    type Err = String;

    /// Reads `5/s` or `5`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix("/s").unwrap_or(text);
        match number.parse::<f64>() {
            Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(Self(rate)),
            _ => Err("a number a second is wanted, for instance 5/s".to_owned()),
        }
    }
}

/// A room of synthetic participants for a while.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub server: Server,
    pub domain: BareJid,
    pub room: BareJid,
    pub focus: Jid,
    pub participants: u16,
    pub senders: u16,
    pub codec: Codec,
    /// Whether to say layers in dependency descriptors where they are agreed.
    pub descriptors: bool,
    pub channel: ChannelKind,
    pub duration: Duration,
    /// Heights to ask for, one after the other, each for an equal part.
    pub heights: Vec<u16>,
    /// Senders that share a screen as well, and the height to ask of it.
    pub shares: u16,
    pub share_height: u16,
    /// Whether senders mute and unmute.
    pub mute: bool,
    /// Participants that leave and are replaced, a second.
    pub churn: f64,
    /// Time between two joins.
    pub join_interval: Duration,
    /// Time for everybody to be connected after the last began to join.
    pub join_timeout: Duration,
    /// Packets that may be lost.
    pub max_lost: u64,
    /// Process whose CPU time and memory are measured.
    pub bridge_pid: Option<u32>,
    /// Whether to be a client that reads sources in XML only.
    pub xml_sources: bool,
    pub seed: u64,
}

/// Why options make no run. The operator's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    #[error("--{option} {value}: {problem}")]
    Value {
        option: &'static str,
        value: String,
        problem: String,
    },
}

impl ScenarioError {
    pub(crate) fn new(
        option: &'static str,
        value: impl Into<String>,
        problem: impl Into<String>,
    ) -> Self {
        Self::Value {
            option,
            value: value.into(),
            problem: problem.into(),
        }
    }
}

impl Scenario {
    /// Checks what the types do not.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let count = self.participants;
        if !(2..=MAX_PARTICIPANTS).contains(&count) {
            let problem = format!("must be 2 to {MAX_PARTICIPANTS}: a focus invites from two on");
            return Err(ScenarioError::new(
                "participants",
                count.to_string(),
                problem,
            ));
        }
        if self.senders > count {
            let problem = format!("more than the {count} participants");
            return Err(ScenarioError::new(
                "senders",
                self.senders.to_string(),
                problem,
            ));
        }
        if self.shares > self.senders {
            let problem = format!("more than the {} senders", self.senders);
            return Err(ScenarioError::new(
                "share",
                self.shares.to_string(),
                problem,
            ));
        }
        if self.codec == Codec::Av1 && !self.descriptors {
            let problem = "AV1 has no layers without them: take another codec";
            return Err(ScenarioError::new("no-dependency-descriptor", "", problem));
        }
        let joins = self.churn * self.duration.as_secs_f64();
        if joins + f64::from(count) > MAX_NUMBERS {
            let problem = format!("with --seconds that is over {MAX_NUMBERS} participants in all");
            return Err(ScenarioError::new("churn", self.churn.to_string(), problem));
        }
        if self.heights.is_empty() {
            return Err(ScenarioError::new("height", "", "at least one is needed"));
        }
        Ok(())
    }

    /// The names of the participants.
    pub fn roster(&self) -> Roster {
        Roster {
            seed: self.seed as u32,
            count: self.numbers(),
        }
    }

    /// Participants that there may be in all, one after the other.
    pub fn numbers(&self) -> u16 {
        let joins = self.churn * self.duration.as_secs_f64();
        // Fits: it was checked.
        self.participants.saturating_add(joins.ceil() as u16)
    }
}

/// The endpoints of a run: which number goes by which name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roster {
    seed: u32,
    count: u16,
}

/// Odd, so that multiplying by it is a bijection of the 32 bits: no two names
/// are equal, and each leads back to its number by the inverse.
const SPREAD: u32 = 0x9e37_79b1;
const INVERSE: u32 = inverse(SPREAD);

/// Inverse modulo 2^32 of an odd number, by Newton's iteration.
const fn inverse(odd: u32) -> u32 {
    let mut result = odd;
    let mut step = 0;
    while step < 5 {
        result = result.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(result)));
        step += 1;
    }
    result
}

impl Roster {
    /// Of a run with that seed and so many participants at most.
    pub fn new(seed: u32, count: u16) -> Self {
        Self { seed, count }
    }

    /// The endpoint of a participant: 8 hexadecimal digits as the clients',
    /// different for each and, with the seed, from run to run.
    pub fn endpoint(&self, number: u16) -> String {
        let number = self.seed.wrapping_add(u32::from(number));
        format!("{:08x}", number.wrapping_mul(SPREAD))
    }

    /// The number of a participant of this run.
    pub fn number(&self, endpoint: &str) -> Option<u16> {
        let named = (endpoint.len() == 8).then(|| u32::from_str_radix(endpoint, 16).ok())??;
        let number = named.wrapping_mul(INVERSE).wrapping_sub(self.seed);
        u16::try_from(number)
            .ok()
            .filter(|number| *number < self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn scenario() -> Scenario {
        Scenario {
            server: Server::Tcp("127.0.0.1:5222".to_owned()),
            domain: BareJid::new("meet.example").expect("an address"),
            room: BareJid::new("a@conference.meet.example").expect("an address"),
            focus: Jid::new("focus.meet.example").expect("an address"),
            participants: 10,
            senders: 2,
            codec: Codec::Vp8,
            descriptors: true,
            channel: ChannelKind::Websocket,
            duration: Duration::from_secs(1),
            heights: vec![720],
            shares: 0,
            share_height: 720,
            mute: false,
            churn: 0.0,
            join_interval: Duration::ZERO,
            join_timeout: Duration::from_secs(30),
            max_lost: 0,
            bridge_pid: None,
            xml_sources: false,
            seed: 1,
        }
    }

    #[test]
    fn endpoints_are_all_different_and_lead_back() {
        let roster = Roster::new(0xffff_fff0, MAX_PARTICIPANTS);
        let mut all = std::collections::BTreeSet::new();
        for number in 0..MAX_PARTICIPANTS {
            let name = roster.endpoint(number);
            assert_eq!((name.len(), roster.number(&name)), (8, Some(number)));
            all.insert(name);
        }
        assert_eq!(all.len(), usize::from(MAX_PARTICIPANTS));
        let later = Roster::new(0xffff_fff0, u16::MAX).endpoint(MAX_PARTICIPANTS);
        for stranger in [later.as_str(), "jvb", "abcdefgh", "", "+1234567"] {
            assert_eq!(roster.number(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn impossible_runs_are_named() {
        let fine = scenario();
        assert_eq!(fine.check(), Ok(()));
        let refused = |change: &dyn Fn(&mut Scenario), named: &str| {
            let mut scenario = fine.clone();
            change(&mut scenario);
            let error = scenario.check().expect_err("impossible").to_string();
            assert!(error.contains(named), "{error}");
        };
        refused(
            &|s| (s.participants, s.senders) = (1, 1),
            "--participants 1",
        );
        refused(&|s| s.senders = 11, "--senders 11");
        refused(&|s| s.shares = 3, "--share 3");
        refused(
            &|s| (s.codec, s.descriptors) = (Codec::Av1, false),
            "--no-dependency-descriptor",
        );
        refused(&|s| s.churn = 70_000.0, "--churn 70000");
        refused(&|s| s.heights.clear(), "--height");
    }

    #[test]
    fn rates_are_read() {
        let read = |text: &str| text.parse::<Rate>().ok().map(|rate| rate.0);
        assert_eq!(
            [read("5/s"), read("0.5"), read("0/s")],
            [Some(5.0), Some(0.5), Some(0.0)]
        );
        assert_eq!([read("-1/s"), read("5/m"), read("")], [None; 3]);
    }

    #[test]
    fn who_joins_later_has_a_number_too() {
        let churning = Scenario {
            churn: 2.5,
            duration: Duration::from_secs(3),
            ..scenario()
        };
        assert_eq!(churning.numbers(), 18);
        assert_eq!(scenario().numbers(), 10);
    }
}
