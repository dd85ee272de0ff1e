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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml;

    #[test]
    fn statistics_keep_their_order_and_their_last_value() {
        let mut stats: Stats = [("b", "1"), ("a", "x")].into_iter().collect();
        stats.set("b", 0.25);
        stats.set(stat::DRAIN, false);
        let all: Vec<_> = stats.iter().collect();
        assert_eq!(all, [("b", "0.25"), ("a", "x"), ("drain", "false")]);
        let again: Stats = xml::from_element(xml::to_element(&stats)).expect("statistics");
        assert_eq!(again, stats);
    }

    #[test]
    fn values_are_read_by_what_is_asked_for() {
        let stats: Stats = [
            ("decimal", "0.13"),
            ("java", "1.0E-4"),
            ("whole", "7"),
            ("odd", "NaN"),
            ("yes", "True"),
        ]
        .into_iter()
        .collect();
        assert_eq!(stats.number("decimal"), Some(0.13));
        assert_eq!(stats.number("java"), Some(0.0001));
        assert_eq!(stats.number("whole"), Some(7.0));
        assert_eq!(stats.number("odd"), None);
        assert_eq!(stats.number("yes"), None);
        assert_eq!(stats.number("absent"), None);
        assert_eq!(stats.flag("yes"), Some(true));
        assert_eq!(stats.flag("whole"), None);
        assert_eq!(stats.text("odd"), Some("NaN"));
    }
}
