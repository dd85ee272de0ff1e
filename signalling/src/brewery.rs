//! The room in which bridges publish their load (`focus-bridge` §1): the
//! statistics, and the question whether a bridge is well.

use std::fmt::Display;

use crate::xml::codec::truth;
use crate::xml::ns;

/// Names of the statistics that a focus acts on (`focus-bridge` §1.3).
pub mod stat {
    /// Load, 0 and up; from 0.8 a bridge counts as overloaded.
    pub const STRESS_LEVEL: &str = "stress_level";
    /// Load that one participant adds.
    pub const AVERAGE_PARTICIPANT_STRESS: &str = "average_participant_stress";
    /// Takes no new conferences. A focus assumes `true` until told.
    pub const DRAIN: &str = "drain";
    /// Waits for its conferences to end; never taken back.
    pub const GRACEFUL_SHUTDOWN: &str = "graceful_shutdown";
    /// Ends now; conferences are moved.
    pub const SHUTTING_DOWN: &str = "shutting_down";
    pub const VERSION: &str = "version";
    pub const RELEASE: &str = "release";
    pub const REGION: &str = "region";
    /// Only of bridges that can be cascaded.
    pub const RELAY_ID: &str = "relay_id";
    pub const HEALTHY: &str = "healthy";
}

/// The statistics element of a bridge's presence: names with values, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::COLIBRI, name = "stats")]
pub struct Stats {
    #[xml(child(n = ..))]
    stats: Vec<Stat>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::COLIBRI, name = "stat")]
struct Stat {
    #[xml(attribute)]
    name: String,
    #[xml(attribute(default))]
    value: String,
}

impl Stats {
    /// Sets a value: a number, `true` or `false`, or text.
    pub fn set(&mut self, name: &str, value: impl Display) {
        let value = value.to_string();
        match self.stats.iter_mut().find(|stat| stat.name == name) {
            Some(stat) => stat.value = value,
            None => self.stats.push(Stat {
                name: name.to_owned(),
                value,
            }),
        }
    }

    /// A value as it was written.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.stats
            .iter()
            .find(|stat| stat.name == name)
            .map(|stat| stat.value.as_str())
    }

    /// A number in decimal or in Java's scientific form (`1.0E-4`). `None` also
    /// for what is no finite number.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.text(name)?
            .parse()
            .ok()
            .filter(|n: &f64| n.is_finite())
    }

    /// A truth value.
    pub fn flag(&self, name: &str) -> Option<bool> {
        truth(self.text(name)?)
    }

    /// All names with their values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.stats
            .iter()
            .map(|stat| (stat.name.as_str(), stat.value.as_str()))
    }
}

impl<N: AsRef<str>, V: Display> FromIterator<(N, V)> for Stats {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(stats: I) -> Self {
        let mut all = Self::default();
        for (name, value) in stats {
            all.set(name.as_ref(), value);
        }
        all
    }
}

/// A focus asks whether a bridge is well. The answer is an empty result, or
/// `internal-server-error` with the reason as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, xso::FromXml, xso::AsXml)]
#[xml(namespace = ns::HEALTH_CHECK, name = "healthcheck")]
pub struct HealthCheck;
