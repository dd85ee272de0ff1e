//! The machine below: what Linux tells of it under `/proc`.

use std::fs;

/// Threads of this process; 0 if that cannot be told.
pub(super) fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Time of all CPUs since the machine started, in whatever unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuTime {
    all: u64,
    /// What the machine was ready to run in, while its host ran others.
    stolen: u64,
}

impl CpuTime {
    pub(super) fn now() -> Self {
        fs::read_to_string("/proc/stat").map_or(Self::default(), |text| Self::read(&text))
    }

    /// The first line has, after its name, the times as `user`, `nice`, `system`,
    /// `idle`, `iowait`, `irq`, `softirq`, `steal`; those behind are parts of others.
    fn read(text: &str) -> Self {
        let line = text.lines().next().unwrap_or_default();
        let fields = line.split_whitespace().skip(1).take(8);
        let times: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
        Self {
            all: times.iter().sum(),
            stolen: times.get(7).copied().unwrap_or(0),
        }
    }

    /// The share that was stolen since `before`, 0 to 1.
    pub(super) fn steal_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all);
        let stolen = self.stolen.saturating_sub(before.stolen);
        stolen as f64 / all.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_a_share_of_all() {
        let before = CpuTime::read("cpu  10 0 10 70 5 1 4 0 3 0\ncpu0 1 2 3\n");
        let after = CpuTime::read("cpu  20 0 20 130 5 1 4 20 9 9\n");
        assert_eq!(after.steal_since(before), 0.2);
        assert_eq!(CpuTime::read("").steal_since(before), 0.0);
    }

    #[test]
    fn this_process_has_threads() {
        assert!(threads() >= 1);
    }
}
