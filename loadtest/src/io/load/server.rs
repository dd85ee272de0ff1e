//! What the server under load uses, thread by thread.

use std::collections::BTreeMap;
use std::time::Instant;

use super::super::process::{self, Thread};
use crate::load::report::{Server, ServerThread, per};

/// A process that is looked at in the measured time.
pub(super) struct Watch {
    pid: u32,
    cpu: Option<usize>,
    rss_before_kib: u64,
    threads: Vec<Thread>,
    softirq_ns: u64,
    latest: (Instant, u64),
}

impl Watch {
    /// Before any load; `None` if there is no such process.
    pub(super) fn new(pid: u32) -> Option<Self> {
        let usage = process::usage(pid)?;
        Some(Self {
            pid,
            cpu: process::only_cpu(pid),
            rss_before_kib: usage.rss_kib,
            threads: Vec::new(),
            softirq_ns: 0,
            latest: (Instant::now(), 0),
        })
    }

    /// The measured time begins.
    pub(super) fn begin(&mut self) {
        self.threads = process::threads(self.pid);
        self.softirq_ns = self.cpu.map_or(0, process::softirq_ns);
        let total = self.threads.iter().map(|thread| thread.cpu_ns).sum();
        self.latest = (Instant::now(), total);
    }

    /// Cores used since the last call, and memory in KiB now.
    pub(super) fn sample(&mut self) -> Option<(f64, u64)> {
        let usage = process::usage(self.pid)?;
        let total = process::threads(self.pid).iter().map(|t| t.cpu_ns).sum();
        let (now, before) = (Instant::now(), self.latest);
        self.latest = (now, total);
        let since = now.saturating_duration_since(before.0).as_secs_f64();
        let used = total.saturating_sub(before.1) as f64 / 1e9;
        Some((per(used, since), usage.rss_kib))
    }

    /// CPU times of all threads now; call at the end of the measured time.
    pub(super) fn read(&self) -> Reading {
        Reading {
            threads: process::threads(self.pid),
            softirq_ns: self.cpu.map_or(0, process::softirq_ns),
        }
    }

    /// What the measured time took; `None` if the process has ended.
    pub(super) fn end(&self, reading: &Reading, seconds: f64, packets: u64) -> Option<Server> {
        let usage = process::usage(self.pid)?;
        let before: BTreeMap<u32, u64> = self.threads.iter().map(|t| (t.id, t.cpu_ns)).collect();
        let mut by_name: BTreeMap<&str, u64> = BTreeMap::new();
        for thread in &reading.threads {
            let since = before.get(&thread.id).copied().unwrap_or(0);
            *by_name.entry(&thread.name).or_default() += thread.cpu_ns.saturating_sub(since);
        }
        let softirq = reading.softirq_ns.saturating_sub(self.softirq_ns);
        let total = by_name.values().sum::<u64>() + softirq;
        let each = |ns: u64| per(ns as f64 / 1000.0, packets as f64);
        let cores = |ns: u64| per(ns as f64 / 1e9, seconds);
        let mut threads: Vec<ServerThread> = by_name
            .into_iter()
            .map(|(name, ns)| ServerThread {
                name: name.to_owned(),
                cpu_us_per_packet: each(ns),
                cores: cores(ns),
            })
            .collect();
        threads.sort_by(|a, b| b.cores.total_cmp(&a.cores));
        Some(Server {
            pid: self.pid,
            cpu_us_per_packet: each(total),
            cores: cores(total),
            softirq_us_per_packet: each(softirq),
            threads,
            rss_kib: usage.rss_kib,
            peak_rss_kib: process::peak_rss_kib(self.pid).unwrap_or(0),
            rss_before_kib: self.rss_before_kib,
            cpu: self.cpu,
        })
    }
}

/// CPU times at one moment.
pub(super) struct Reading {
    threads: Vec<Thread>,
    softirq_ns: u64,
}
