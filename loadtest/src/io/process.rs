//! What another process of this machine uses, from `/proc`.

/// CPU time and memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub cpu_seconds: f64,
    pub rss_kib: u64,
}

/// Clock ticks in a second: fixed at 100 for user space on Linux.
const TICKS: f64 = 100.0;

/// Reads the usage of `pid` as of now; `None` when it does not run.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    parse(&stat, &status)
}

fn parse(stat: &str, status: &str) -> Option<Usage> {
    // The name in brackets may hold anything, so counting begins behind it;
    // utime and stime are fields 14 and 15 (proc(5)).
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<f64>);
    let ticks = times.next()?.ok()? + times.next()?.ok()?;
    let rss = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(Usage {
        cpu_seconds: ticks / TICKS,
        rss_kib: rss.split_whitespace().next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 5 0 100";
        let status = "Name:\ta) b\nVmRSS:\t   12345 kB\n";
        let expected = Usage {
            cpu_seconds: 2.0,
            rss_kib: 12345,
        };
        assert_eq!(parse(stat, status), Some(expected));
        assert!(usage(std::process::id()).is_some());
        assert_eq!(parse("", ""), None);
    }
}
