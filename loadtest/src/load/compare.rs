//! Two targets under the same load, round by round: medians, spreads, and the
//! ratio of each round, which a machine that is slower for a while leaves alone.

use std::fmt;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::report::{Report, per};

/// Values of several rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    /// In the order of the rounds.
    pub values: Vec<f64>,
}

impl Spread {
    /// Of values that there are; zeros for none.
    pub fn of(values: Vec<f64>) -> Self {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        Self {
            median: median(&sorted),
            least: sorted.first().copied().unwrap_or(0.0),
            most: sorted.last().copied().unwrap_or(0.0),
            values,
        }
    }
}

/// The median of sorted values: of an even number the mean of the middle two; 0
/// of none.
pub fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.values.is_empty() {
            true => write!(f, "-"),
            false => write!(
                f,
                "{:.3} ({:.3} - {:.3})",
                self.median, self.least, self.most
            ),
        }
    }
}

/// One figure of both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    pub name: String,
    pub unit: String,
    pub a: Spread,
    pub b: Spread,
    /// Of the rounds in which both had a figure.
    pub ratio: Spread,
}

/// One of the two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    pub name: String,
}

/// What was found of both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub shape: String,
    pub a: Side,
    pub b: Side,
    pub metrics: Vec<Metric>,
    /// Reports of A and B, round by round.
    pub rounds: Vec<(Report, Report)>,
}

type Of = fn(&Report) -> Option<f64>;

const METRICS: [(&str, &str, Of); 9] = [
    ("Server CPU a forwarded packet", "us", |r| {
        Some(r.server.as_ref()?.cpu_us_per_packet)
    }),
    ("Times the roofline", "", |r| r.roofline.as_ref()?.ratio),
    ("Delivered", "share", |r| Some(r.delivered_ratio)),
    ("Forwarded", "packets/s", |r| Some(r.packets_per_second)),
    ("Forward delay p50", "ms", |r| Some(r.delay_ms.p50)),
    ("Forward delay p99", "ms", |r| Some(r.delay_ms.p99)),
    ("Time to first frame", "ms", |r| {
        Some(r.joins_ms.first_frame)
    }),
    ("Server memory", "MB", |r| {
        Some(r.server.as_ref()?.rss_kib as f64 / 1024.0)
    }),
    ("Freezes", "", |r| Some(r.freezes as f64)),
];

impl Comparison {
    /// Of rounds of the same load.
    pub fn new(rounds: Vec<(Report, Report)>) -> Self {
        let name = |of: fn(&(Report, Report)) -> &Report| Side {
            name: rounds
                .first()
                .map_or(String::new(), |round| of(round).asked.target.clone()),
        };
        let metrics = METRICS.iter().map(|(name, unit, of)| {
            let pairs: Vec<_> = rounds.iter().map(|(a, b)| (of(a), of(b))).collect();
            Metric {
                name: (*name).to_owned(),
                unit: (*unit).to_owned(),
                a: Spread::of(pairs.iter().filter_map(|pair| pair.0).collect()),
                b: Spread::of(pairs.iter().filter_map(|pair| pair.1).collect()),
                ratio: Spread::of(
                    pairs
                        .iter()
                        .filter_map(|pair| Some((pair.0?, pair.1?)))
                        .filter(|pair| pair.1 != 0.0)
                        .map(|(a, b)| per(a, b))
                        .collect(),
                ),
            }
        });
        Self {
            shape: rounds
                .first()
                .map_or(String::new(), |round| round.0.asked.shape_text()),
            a: name(|round| &round.0),
            b: name(|round| &round.1),
            metrics: metrics.collect(),
            rounds,
        }
    }

    /// Why figures are not to be believed, by round.
    pub fn invalid(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (number, (a, b)) in (1..).zip(&self.rounds) {
            for (side, report) in [("A", a), ("B", b)] {
                all.extend(
                    report
                        .invalid
                        .iter()
                        .map(|why| format!("round {number}, {side}: {why}")),
                );
            }
        }
        all
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data has a JSON form")
    }

    /// The table for people.
    pub fn to_table(&self) -> String {
        let mut out = String::new();
        let mut row = |cells: [&str; 4]| {
            writeln!(
                out,
                "{:<32} {:<32} {:<32} {}",
                cells[0], cells[1], cells[2], cells[3]
            )
            .expect("a string takes all");
        };
        row([
            &self.shape,
            &format!("A {}", self.a.name),
            &format!("B {}", self.b.name),
            "A / B",
        ]);
        for metric in &self.metrics {
            let name = match metric.unit.as_str() {
                "" => metric.name.clone(),
                unit => format!("{}, {unit}", metric.name),
            };
            row([
                &name,
                &metric.a.to_string(),
                &metric.b.to_string(),
                &metric.ratio.to_string(),
            ]);
        }
        for why in self.invalid() {
            writeln!(out, "INVALID {why}").expect("a string takes all");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Half of the values are on either side of a median, and a spread keeps
        /// all of them.
        #[test]
        fn medians_divide(values in prop::collection::vec(0.001f64..1e6, 1..40)) {
            let spread = Spread::of(values.clone());
            let below = values.iter().filter(|v| **v < spread.median).count();
            let above = values.iter().filter(|v| **v > spread.median).count();
            prop_assert!(below <= values.len() / 2 && above <= values.len() / 2);
            prop_assert!(spread.least <= spread.median && spread.median <= spread.most);
            prop_assert!(values.contains(&spread.least) && values.contains(&spread.most));
            prop_assert_eq!(spread.values, values);
        }
    }

    #[test]
    fn of_nothing_there_is_no_figure() {
        assert_eq!(Spread::of(Vec::new()).to_string(), "-");
        assert_eq!(median(&[1.0, 3.0]), 2.0);
        assert_eq!(per(1.0, 0.0), 0.0);
    }
}
