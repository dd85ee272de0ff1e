//! The report as one page: everything inline, so that the file can be sent
//! around, light or dark as the reader has it.

use std::fmt::Write as _;

use super::compare::Comparison;
use super::plot::{Line, bars, escape, lines};
use super::report::{Report, Second};

const STYLE: &str = "
:root{color-scheme:light dark;--back:#fbfbfa;--card:#fff;--ink:#1c1e21;--soft:#62676f;--line:#e3e5e8;
--c0:#1f6feb;--c1:#d9730d;--c2:#1a7f5a;--c3:#8250df;--good:#1a7f37;--bad:#c62828}
@media(prefers-color-scheme:dark){:root{--back:#14161a;--card:#1d2025;--ink:#e8eaed;--soft:#9aa1ab;--line:#30353d;
--c0:#6ea8fe;--c1:#f0a35e;--c2:#5ec7a0;--c3:#b794f6;--good:#56c271;--bad:#ff7b72}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1240px;margin:0 auto;padding:28px 20px 60px}h1{font-size:22px;margin:0 0 2px}h2{font-size:16px;margin:32px 0 10px}
.sub{color:var(--soft);margin:0 0 18px}.verdict{display:inline-block;padding:2px 10px;border-radius:12px;color:#fff;font-weight:600;font-size:13px}
.good{background:var(--good)}.bad{background:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(168px,1fr));gap:12px;margin:18px 0}
.tile,.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.tile b{display:block;white-space:nowrap;font-size:24px;font-weight:650;font-variant-numeric:tabular-nums}.tile span{color:var(--soft);font-size:13px}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:14px}.card h3{font-size:14px;margin:0 0 6px}.card h3 small{color:var(--soft);font-weight:400}
svg{width:100%;height:auto;display:block}.rule{stroke:var(--line)}.tick,.label{fill:var(--soft);font-size:12px}.label{fill:var(--ink)}
.line{fill:none;stroke-width:2}.line.c0{stroke:var(--c0)}.line.c1{stroke:var(--c1)}.line.c2{stroke:var(--c2)}.line.c3{stroke:var(--c3)}
.dot.c0,i.c0{fill:var(--c0);background:var(--c0)}.dot.c1,i.c1{fill:var(--c1);background:var(--c1)}.dot.c2,i.c2{fill:var(--c2);background:var(--c2)}.dot.c3,i.c3{fill:var(--c3);background:var(--c3)}
.bar{fill:var(--c0)}.legend{display:flex;flex-wrap:wrap;gap:14px;font-size:13px;color:var(--soft)}.legend i{display:inline-block;width:10px;height:10px;border-radius:5px;margin-right:5px}
table{border-collapse:collapse;width:100%;background:var(--card);border:1px solid var(--line);border-radius:8px}td,th{text-align:left;vertical-align:top;padding:7px 12px;border-top:1px solid var(--line)}
tr:first-child td,tr:first-child th{border-top:0}td:first-child{color:var(--soft);white-space:nowrap}td{font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}.why{color:var(--bad)}footer{color:var(--soft);font-size:13px;margin-top:26px}
";

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes all");
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{}</title><style>{STYLE}</style></head><body><main>{body}\
         <footer>viaduct-loadtest {}</footer></main></body></html>\n",
        escape(title),
        env!("CARGO_PKG_VERSION")
    )
}

fn tile(out: &mut String, value: &str, name: &str) {
    put(
        out,
        format_args!(
            "<div class=\"tile\"><b>{}</b><span>{}</span></div>",
            escape(value),
            escape(name)
        ),
    );
}

fn card(out: &mut String, title: &str, unit: &str, plot: &str) {
    put(
        out,
        format_args!(
            "<div class=\"card\"><h3>{} <small>{}</small></h3>{plot}</div>",
            escape(title),
            escape(unit)
        ),
    );
}

fn head(out: &mut String, title: &str, sub: &str, why: &[String]) {
    let (class, word) = match why.is_empty() {
        true => ("good", "valid"),
        false => ("bad", "not valid"),
    };
    put(
        out,
        format_args!(
            "<h1>{} <span class=\"verdict {class}\">{word}</span></h1><p class=\"sub\">{}</p>",
            escape(title),
            escape(sub)
        ),
    );
    for reason in why {
        put(out, format_args!("<p class=\"why\">{}</p>", escape(reason)));
    }
}

fn line(name: &str, series: &[Second], of: impl Fn(&Second) -> Option<f64>) -> Line {
    Line {
        name: name.to_owned(),
        points: series
            .iter()
            .filter_map(|second| Some((second.at, of(second)?)))
            .collect(),
    }
}

/// Lines of which there is something to see.
fn drawn(all: Vec<Line>) -> Vec<Line> {
    all.into_iter()
        .filter(|line| !line.points.is_empty())
        .collect()
}

impl Report {
    /// The page.
    pub fn to_html(&self) -> String {
        let asked = &self.asked;
        let mut out = String::new();
        let title = format!("Load {}", asked.shape_text());
        head(
            &mut out,
            &title,
            &format!(
                "{} on {}, {} s measured after {} s",
                asked.codec, asked.target, asked.seconds, asked.warmup
            ),
            &self.invalid,
        );
        out.push_str("<div class=\"tiles\">");
        tile(
            &mut out,
            &format!("{:.4} %", self.delivered_ratio * 100.0),
            "of the packets delivered",
        );
        tile(
            &mut out,
            &format!("{:.0}", self.packets_per_second),
            "packets a second forwarded",
        );
        if let Some(server) = &self.server {
            tile(
                &mut out,
                &format!("{:.2} us", server.cpu_us_per_packet),
                "server CPU a forwarded packet",
            );
        }
        if let Some(ratio) = self.roofline.as_ref().and_then(|limit| limit.ratio) {
            tile(
                &mut out,
                &format!("{ratio:.2} x"),
                "the least a forwarded packet costs here",
            );
        }
        tile(
            &mut out,
            &format!("{:.2} ms", self.delay_ms.p99),
            "forward delay, p99",
        );
        if let Some(server) = &self.server {
            tile(
                &mut out,
                &format!("{:.1} MB", server.rss_kib as f64 / 1024.0),
                "server memory resident",
            );
        }
        tile(
            &mut out,
            &format!("{:.0} ms", self.joins_ms.first_frame),
            "median time to the first frame",
        );
        tile(&mut out, &self.freezes.to_string(), "freezes");
        out.push_str("</div><div class=\"plots\">");
        self.plots(&mut out);
        out.push_str("</div><h2>All figures</h2><div class=\"scroll\"><table>");
        for (name, value) in self.rows() {
            put(
                &mut out,
                format_args!(
                    "<tr><td>{}</td><td>{}</td></tr>",
                    escape(name),
                    escape(&value)
                ),
            );
        }
        for failure in &self.failures {
            put(
                &mut out,
                format_args!(
                    "<tr><td>failure</td><td class=\"why\">{}</td></tr>",
                    escape(failure)
                ),
            );
        }
        out.push_str("</table></div>");
        page(&title, &out)
    }

    fn plots(&self, out: &mut String) {
        let series = &self.series;
        if series.len() > 1 {
            let delays = [
                line("p50", series, |s| Some(s.delay_p50_ms)),
                line("p99", series, |s| Some(s.delay_p99_ms)),
            ];
            card(
                out,
                "Forward delay",
                "ms",
                &lines("ms", (0.0, "s"), &delays),
            );
            let packets = [
                line("forwarded", series, |s| Some(s.received_per_second)),
                line("sent to the server", series, |s| Some(s.sent_per_second)),
            ];
            card(
                out,
                "Packets",
                "a second",
                &lines("packets/s", (0.0, "s"), &packets),
            );
            let cores = drawn(vec![
                line("server", series, |s| s.server_cores),
                line("busiest thread of the load", series, |s| {
                    Some(s.client_busy)
                }),
            ]);
            card(out, "CPU", "cores", &lines("cores", (0.0, "s"), &cores));
            let memory = drawn(vec![line("server", series, |s| {
                s.server_rss_kib.map(|kib| kib as f64 / 1024.0)
            })]);
            if !memory.is_empty() {
                card(
                    out,
                    "Memory",
                    "MB resident",
                    &lines("MB", (0.0, "s"), &memory),
                );
            }
        }
        let joins = &self.joins_ms;
        let mut steps = vec![
            ("ICE", joins.ice),
            ("DTLS", joins.connected),
            ("bridge channel", joins.channel),
            ("first audio", joins.first_audio),
            ("first frame", joins.first_frame),
            ("first frame, p99", joins.first_frame_p99),
        ];
        steps.retain(|step| step.1 > 0.0);
        let steps: Vec<_> = steps
            .into_iter()
            .map(|(name, ms)| (name.to_owned(), ms))
            .collect();
        card(
            out,
            "From the first request on",
            "ms, median",
            &bars("ms", &steps),
        );
        let mut costs: Vec<(String, f64)> = Vec::new();
        if let Some(limit) = &self.roofline {
            costs.push(("roofline, unpaced".to_owned(), limit.unpaced_us));
            costs.push(("roofline, paced".to_owned(), limit.paced_us));
        }
        if let Some(server) = &self.server {
            costs.push(("server, all threads".to_owned(), server.cpu_us_per_packet));
            let threads = server
                .threads
                .iter()
                .filter(|thread| thread.cpu_us_per_packet > 0.001)
                .take(6);
            costs.extend(
                threads.map(|thread| (format!("thread {}", thread.name), thread.cpu_us_per_packet)),
            );
        }
        if !costs.is_empty() {
            card(out, "CPU a forwarded packet", "us", &bars("us", &costs));
        }
    }
}

impl Comparison {
    /// The page.
    pub fn to_html(&self) -> String {
        let mut out = String::new();
        let title = format!("A against B, {}", self.shape);
        let sub = format!(
            "A is {}, B is {}; {} interleaved rounds",
            self.a.name,
            self.b.name,
            self.rounds.len()
        );
        head(&mut out, &title, &sub, &self.invalid());
        out.push_str("<div class=\"plots\">");
        for metric in &self.metrics {
            let values = |name: &str, of: &[f64]| Line {
                name: name.to_owned(),
                points: (1u32..)
                    .zip(of)
                    .map(|(round, value)| (f64::from(round), *value))
                    .collect(),
            };
            let both = drawn(vec![
                values("A", &metric.a.values),
                values("B", &metric.b.values),
            ]);
            if !both.is_empty() {
                card(
                    &mut out,
                    &metric.name,
                    &metric.unit,
                    &lines(&metric.unit, (1.0, "round"), &both),
                );
            }
        }
        out.push_str("</div><h2>Medians, least and most</h2><div class=\"scroll\"><table><tr><th></th><th>A</th><th>B</th><th>A / B, round by round</th></tr>");
        for metric in &self.metrics {
            put(
                &mut out,
                format_args!(
                    "<tr><td>{} ({})</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                    escape(&metric.name),
                    escape(&metric.unit),
                    metric.a,
                    metric.b,
                    metric.ratio
                ),
            );
        }
        out.push_str("</table></div>");
        page(&title, &out)
    }
}
