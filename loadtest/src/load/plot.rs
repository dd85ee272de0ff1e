//! Plots as inline SVG: lines over time and bars, with a scale that a reader can
//! follow. Colours are classes, which the page defines for light and dark.

use std::fmt::Write as _;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 30.0;
/// Lines of the scale, about.
const TICKS: f64 = 4.0;

/// A line: its name, and its points from left to right.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// A round step that divides a range into about so many parts.
pub fn step(range: f64, parts: f64) -> f64 {
    if range.is_nan() || range <= 0.0 {
        return 1.0;
    }
    let rough = range / parts;
    let magnitude = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0, 10.0];
    let fits = factor.iter().find(|f| **f * magnitude >= rough * 0.999);
    fits.unwrap_or(&10.0) * magnitude
}

/// A number with as many digits as its scale needs.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 10_000.0 => return format!("{:.0}k", value / 1000.0),
        v if v >= 1000.0 && v % 1000.0 != 0.0 => return format!("{:.1}k", value / 1000.0),
        v if v >= 1000.0 => return format!("{:.0}k", value / 1000.0),
        v if v >= 10.0 || v == 0.0 => 0,
        v if v >= 1.0 => 1,
        v if v >= 0.1 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Text safe in HTML and in attributes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Lines over a common scale that begins at 0; from left to right it begins at
/// `from`.
pub fn lines(unit: &str, (from, across): (f64, &str), lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| &line.points);
    let most = all().map(|point| point.1).fold(0.0, f64::max);
    let (first, last) = all().fold((from, f64::MIN), |(low, high), point| {
        (low.min(point.0), high.max(point.0))
    });
    let tick = step(most, TICKS);
    let top = ((most / tick).ceil() * tick).max(tick);
    let span = (last - first).max(1e-9);
    let x = |value: f64| LEFT + (value - first) / span * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);
    let mut out = open(HEIGHT);
    let mut value = 0.0;
    while value <= top * 1.001 {
        rule(&mut out, y(value), &number(value));
        value += tick;
    }
    let across_tick = step(span, 6.0);
    let mut value = (first / across_tick).ceil() * across_tick;
    while value <= last + 1e-9 && first <= last {
        put(
            &mut out,
            format_args!(
                "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{} {}</text>",
                x(value),
                HEIGHT - BOTTOM + 16.0,
                number(value),
                escape(across)
            ),
        );
        value += across_tick;
    }
    for (index, line) in lines.iter().enumerate() {
        let points: Vec<String> = line
            .points
            .iter()
            .map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1)))
            .collect();
        put(
            &mut out,
            format_args!(
                "<polyline class=\"line c{}\" points=\"{}\"/>",
                index % 4,
                points.join(" ")
            ),
        );
        for (point, at) in line.points.iter().zip(&points) {
            let (px, py) = at.split_once(',').unwrap_or_default();
            put(
                &mut out,
                format_args!(
                    "<circle class=\"dot c{}\" cx=\"{px}\" cy=\"{py}\" r=\"2.5\"><title>{}: {} {} at {} {}</title></circle>",
                    index % 4,
                    escape(&line.name),
                    number(point.1),
                    escape(unit),
                    number(point.0),
                    escape(across)
                ),
            );
        }
    }
    out.push_str("</svg>");
    out + &legend(lines.iter().map(|line| line.name.as_str()))
}

/// Bars from left to right; their texts stand beside them.
pub fn bars(unit: &str, bars: &[(String, f64)]) -> String {
    const ROW: f64 = 26.0;
    const NAMES: f64 = 190.0;
    let height = ROW * bars.len() as f64 + 8.0;
    let most = bars.iter().map(|bar| bar.1).fold(0.0, f64::max).max(1e-9);
    let mut out = open(height);
    for (index, (name, value)) in bars.iter().enumerate() {
        let y = ROW * index as f64 + 4.0;
        let width = (value / most * (WIDTH - NAMES - 90.0)).max(1.0);
        put(
            &mut out,
            format_args!(
                "<text class=\"label\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"bar\" x=\"{NAMES}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.0}\" rx=\"2\"/>\
             <text class=\"label\" x=\"{:.1}\" y=\"{:.1}\">{} {}</text>",
                NAMES - 8.0,
                y + 14.0,
                escape(name),
                ROW - 8.0,
                NAMES + width + 6.0,
                y + 14.0,
                number(*value),
                escape(unit)
            ),
        );
    }
    out.push_str("</svg>");
    out
}

fn open(height: f64) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">")
}

fn rule(out: &mut String, y: f64, text: &str) {
    put(
        out,
        format_args!(
            "<line class=\"rule\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
         <text class=\"tick\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0
        ),
    );
}

fn legend<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::from("<div class=\"legend\">");
    for (index, name) in names.enumerate() {
        put(
            &mut out,
            format_args!(
                "<span><i class=\"c{}\"></i>{}</span>",
                index % 4,
                escape(name)
            ),
        );
    }
    out + "</div>"
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes all");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Steps are round, and few enough to read.
        #[test]
        fn steps_are_round(range in 1e-6f64..1e9) {
            let step = step(range, TICKS);
            let lines = range / step;
            prop_assert!((1.0..=TICKS * 1.01).contains(&lines), "{lines}");
            let lead = step / 10f64.powf(step.log10().floor());
            let round = [1.0, 2.0, 2.5, 5.0, 10.0].iter().any(|f| (lead - f).abs() < 1e-6);
            prop_assert!(round, "{lead}");
        }

        /// Whatever the figures, a plot stays within its frame.
        #[test]
        fn lines_stay_within_the_plot(points in prop::collection::vec((0.0f64..1e4, 0.0f64..1e9), 0..40)) {
            let mut points = points;
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let svg = lines("ms", (0.0, "s"), &[Line { name: "a".into(), points }]);
            let at = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a line");
            for point in at.split_whitespace() {
                let (x, y) = point.split_once(',').expect("two numbers");
                let (x, y): (f64, f64) = (x.parse().expect("a number"), y.parse().expect("a number"));
                prop_assert!((LEFT - 0.1..=WIDTH - RIGHT + 0.1).contains(&x) && (TOP - 0.1..=HEIGHT - BOTTOM + 0.1).contains(&y));
            }
        }
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.125, "0.12"),
            (0.004, "0.004"),
            (1.5, "1.5"),
            (2.0, "2"),
            (12.0, "12"),
            (1000.0, "1k"),
            (1500.0, "1.5k"),
            (20_000.0, "20k"),
            (100.0, "100"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn names_cannot_break_the_page() {
        let svg = bars("<us>", &[("<script>\"&".to_owned(), 1.0)]);
        assert!(!svg.contains("<script") && svg.contains("&lt;script&gt;&quot;&amp;"));
    }
}
