//! What one run is.

use std::time::Duration;

use viaduct_signalling::jid::{BareJid, Jid};

use crate::source::Codec;

/// Participants of one run; sender numbers in packets have 16 bits.
pub const MAX_PARTICIPANTS: u16 = 10_000;

/// How to reach the XMPP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// RFC 7395.
    WebSocket(String),
    /// RFC 6120 over TCP, `HOST:PORT`, with TLS where there is no login without.
    Tcp(String),
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
    pub duration: Duration,
    /// Heights to ask for, one after the other, each for an equal part.
    pub heights: Vec<u16>,
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
        if self.heights.is_empty() {
            return Err(ScenarioError::new("height", "", "at least one is needed"));
        }
        Ok(())
    }

    /// The endpoint of a participant: 8 hexadecimal digits as the clients',
    /// different for each and, with the seed, from run to run.
    pub fn endpoint(&self, index: u16) -> String {
        // The multiplication is a bijection of the 32 bits, so no two are equal.
        let number = (self.seed as u32).wrapping_add(u32::from(index));
        format!("{:08x}", number.wrapping_mul(0x9e37_79b1))
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
            duration: Duration::from_secs(1),
            heights: vec![720],
            join_interval: Duration::ZERO,
            join_timeout: Duration::from_secs(30),
            max_lost: 0,
            bridge_pid: None,
            xml_sources: false,
            seed: 1,
        }
    }

    #[test]
    fn endpoints_are_all_different() {
        let scenario = scenario();
        let all: std::collections::BTreeSet<_> = (0..MAX_PARTICIPANTS)
            .map(|index| scenario.endpoint(index))
            .collect();
        assert_eq!(all.len(), usize::from(MAX_PARTICIPANTS));
        assert!(all.iter().all(|name| name.len() == 8));
    }

    #[test]
    fn impossible_runs_are_named() {
        let fine = scenario();
        assert_eq!(fine.check(), Ok(()));
        let alone = Scenario {
            participants: 1,
            senders: 1,
            ..fine.clone()
        };
        assert!(
            alone
                .check()
                .expect_err("one is none")
                .to_string()
                .contains("--participants 1")
        );
        let many = Scenario {
            senders: 11,
            ..fine
        };
        assert!(
            many.check()
                .expect_err("too many")
                .to_string()
                .contains("--senders 11")
        );
    }
}
