//! Prometheus text format 0.0.4 under construction.

use std::fmt::{Display, Write};

/// A metric about to be written: its name and, for ours, what it is.
#[derive(Clone, Copy)]
pub(super) struct Metric<'a> {
    pub(super) name: &'a str,
    pub(super) help: &'a str,
}

#[derive(Default)]
pub(super) struct Exposition(pub(super) String);

impl Exposition {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes all");
    }

    fn head(&mut self, kind: &str, Metric { name, help }: Metric<'_>) {
        if !help.is_empty() {
            self.line(format_args!("# HELP {name} {help}"));
        }
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    pub(super) fn one(&mut self, kind: &str, metric: Metric<'_>, value: impl Display) {
        self.head(kind, metric);
        self.line(format_args!("{} {value}", metric.name));
    }

    /// A metric with a value for each text of a label.
    pub(super) fn labelled<L: Display, V: Display>(
        &mut self,
        kind: &str,
        metric: Metric<'_>,
        label: &str,
        values: impl IntoIterator<Item = (L, V)>,
    ) {
        self.head(kind, metric);
        for (text, value) in values {
            let text = text.to_string();
            let text = text
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            self.line(format_args!(
                "{}{{{label}=\"{text}\"}} {value}",
                metric.name
            ));
        }
    }

    /// A histogram, by its buckets' upper bounds and how much is within each.
    pub(super) fn histogram<B: Display>(
        &mut self,
        metric: Metric<'_>,
        buckets: impl IntoIterator<Item = (B, u64)>,
        (count, sum): (u64, f64),
    ) {
        self.head("histogram", metric);
        let name = metric.name;
        for (bound, within) in buckets {
            self.line(format_args!("{name}_bucket{{le=\"{bound}\"}} {within}"));
        }
        self.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {count}"));
        self.line(format_args!("{name}_sum {sum}"));
        self.line(format_args!("{name}_count {count}"));
    }
}
