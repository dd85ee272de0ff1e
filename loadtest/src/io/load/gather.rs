//! From what the threads found to the outcome of a run.

use std::collections::BTreeMap;

use super::thread::Taken;
use super::{JOIN_TIME, Load};
use crate::client::send::SendStats;
use crate::load::found::{Found, Milestones};
use crate::load::report::{Asked, Client, Joins, Outcome, Quantiles, Second, per};
use crate::measure::delay::Histogram;

impl Load {
    /// Puts together what all threads found, and what the server used in each
    /// second.
    pub(super) fn outcome(&self, taken: Vec<Taken>, samples: &[Option<(f64, u64)>]) -> Outcome {
        let options = &self.options;
        let (mut found, mut senders) = (Found::default(), SendStats::default());
        let (mut delays, mut lateness) = (Histogram::default(), Histogram::default());
        let mut steps: [Histogram; 5] = Default::default();
        let mut srtp = BTreeMap::new();
        let mut client = Client {
            threads: taken.len(),
            ..Client::default()
        };
        let (mut seconds, mut sent, mut handled, mut cpu) = (0.0f64, 0, 0, 0);
        let (mut connected, mut heard) = (0, 0);
        for part in &taken {
            found.add(&part.found);
            senders.add(&part.senders);
            delays.merge(&part.delays);
            lateness.merge(&part.lateness);
            let length = (part.end - part.begin).as_secs_f64();
            seconds = seconds.max(length);
            sent += part.sent;
            handled += part.sent + part.received;
            cpu += part.cpu_ns;
            client.busy = client.busy.max(per(part.cpu_ns as f64 / 1e9, length));
            client.overflow += part.overflow;
            for (name, count) in &part.profiles {
                *srtp.entry(*name).or_default() += count;
            }
            for times in &part.milestones {
                connected += u64::from(times.connected.is_some());
                heard += u64::from(times.frame.is_some());
                note(times, &mut steps);
            }
        }
        client.cpu_us_per_packet = per(cpu as f64 / 1000.0, handled as f64);
        client.lateness_ms = Quantiles::from(&lateness);
        let median = |step: usize| steps[step].quantile_ms(0.5);
        let joins = Joins {
            count: heard,
            ice: median(0),
            connected: median(1),
            channel: median(2),
            first_audio: median(3),
            first_frame: median(4),
            first_frame_p99: steps[4].quantile_ms(0.99),
            first_frame_max: steps[4].max_ms(),
        };
        let end = taken.iter().map(|part| part.end).max();
        let came = self.replacements.iter();
        let late = came.filter(|came| end.is_some_and(|end| **came + JOIN_TIME > end));
        let late = late.count() as u64;
        let picture = &self.doors.settings.picture;
        Outcome {
            asked: Asked {
                target: self.target.to_string(),
                conferences: options.conferences,
                senders: options.shape().senders,
                participants: options.shape().participants,
                codec: picture.codec.name().to_owned(),
                profile: word(&options.profile),
                kilobits: picture
                    .layers
                    .iter()
                    .map(|l| l.bits_per_second / 1000)
                    .collect(),
                frame_rate: options.fps,
                heights: options.height.clone(),
                last_n: options.last_n,
                channel: word(&options.channel),
                feedback: word(&options.feedback),
                churn: options.churn,
                loss: options.loss,
                limit_bits: options.limit_kbits * 1000,
                seconds: options.seconds,
                warmup: options.warmup,
                open_every: options.open_every,
                gro: options.gro,
                kernel_times: !options.own_time,
                seed: self.seed,
            },
            srtp,
            joined: self.joined,
            joining: late.min(self.joined.saturating_sub(connected)),
            connected,
            left: self.replacements.len() as u64,
            seconds,
            found,
            senders,
            sent,
            delays,
            joins,
            server: None,
            client,
            series: series(&taken, samples),
            failures: self.failures.clone(),
        }
    }
}

/// The word on the command line for a choice.
fn word(choice: &impl clap::ValueEnum) -> String {
    let value = choice.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Steps of a join, since it was first asked for.
fn note(times: &Milestones, steps: &mut [Histogram; 5]) {
    let reached = [
        times.ice,
        times.connected,
        times.channel,
        times.audio,
        times.frame,
    ];
    for (step, at) in steps.iter_mut().zip(reached) {
        if let (Some(asked), Some(at)) = (times.asked, at) {
            step.record(at.saturating_duration_since(asked).as_nanos() as u64);
        }
    }
}

/// Seconds of all threads together.
fn series(taken: &[Taken], samples: &[Option<(f64, u64)>]) -> Vec<Second> {
    let count = taken
        .iter()
        .map(|part| part.samples.len())
        .min()
        .unwrap_or(0);
    (0..count)
        .map(|index| {
            let mut delays = Histogram::default();
            let mut second = Second::default();
            for part in taken {
                let sample = &part.samples[index];
                let begin = match index {
                    0 => part.begin,
                    _ => part.samples[index - 1].end,
                };
                let length = (sample.end - begin).as_secs_f64();
                delays.merge(&sample.delays);
                second.at = (sample.end - part.begin).as_secs_f64();
                second.received_per_second += per(sample.received as f64, length);
                second.sent_per_second += per(sample.sent as f64, length);
                let busy = per(sample.cpu_ns as f64 / 1e9, length);
                second.client_busy = second.client_busy.max(busy);
            }
            second.delay_p50_ms = delays.quantile_ms(0.5);
            second.delay_p99_ms = delays.quantile_ms(0.99);
            if let Some(Some((cores, rss_kib))) = samples.get(index) {
                second.server_cores = Some(*cores);
                second.server_rss_kib = Some(*rss_kib);
            }
            second
        })
        .collect()
}
