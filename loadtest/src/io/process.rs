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

/// A thread's time on CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    pub id: u32,
    pub name: String,
    pub cpu_ns: u64,
}

/// Exact times of all threads of a process, from the scheduler's accounts; empty
/// when it does not run.
pub fn threads(pid: u32) -> Vec<Thread> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| {
            let path = task.path();
            let name = std::fs::read_to_string(path.join("comm")).ok()?;
            Some(Thread {
                id: task.file_name().to_str()?.parse().ok()?,
                name: name.trim().to_owned(),
                cpu_ns: schedstat(&path)?,
            })
        })
        .collect()
}

fn schedstat(task: &std::path::Path) -> Option<u64> {
    let text = std::fs::read_to_string(task.join("schedstat")).ok()?;
    text.split(' ').next()?.parse().ok()
}

/// The CPU that a process is bound to, if it is one.
pub fn only_cpu(pid: u32) -> Option<usize> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    list.trim().parse().ok()
}

/// Most memory that a process has had resident.
pub fn peak_rss_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// CPU time of a core's softirq thread: work taken away from what runs there,
/// which counts too. 0 where it cannot be read.
pub fn softirq_ns(core: usize) -> u64 {
    let name = format!("ksoftirqd/{core}");
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let thread = processes.map(|entry| entry.path()).find(|path| {
        let comm = std::fs::read_to_string(path.join("comm"));
        comm.is_ok_and(|comm| comm.trim() == name)
    });
    thread.and_then(|path| schedstat(&path)).unwrap_or(0)
}

/// Datagrams that sockets at these local ports had no room for, in the network
/// of the calling thread.
pub fn dropped_datagrams(ports: &std::collections::BTreeSet<u16>) -> u64 {
    let tables = ["udp", "udp6"].map(|table| {
        let path = format!("/proc/thread-self/net/{table}");
        std::fs::read_to_string(path).unwrap_or_default()
    });
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    lines.filter_map(|line| drops(line, ports)).sum()
}

/// The last column of a line, if its local port is one of those.
fn drops(line: &str, ports: &std::collections::BTreeSet<u16>) -> Option<u64> {
    let mut columns = line.split_whitespace();
    let (_, port) = columns.nth(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    ports.contains(&port).then_some(())?;
    columns.last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_threads_are_seen() {
        let pid = std::process::id();
        // Of this thread only: others, and what they had used, come and go.
        let own = std::fs::read_link("/proc/thread-self").expect("a thread of its own");
        let seen = || {
            let mut all = threads(pid).into_iter();
            all.find(|thread| own.ends_with(thread.id.to_string()))
                .expect("this thread runs")
        };
        let before = seen();
        assert!(!before.name.is_empty());
        let began = std::time::Instant::now();
        while seen().cpu_ns <= before.cpu_ns {
            assert!(began.elapsed().as_secs() < 60, "no time is accounted");
        }
        assert!(peak_rss_kib(pid).is_some_and(|kib| kib > 0));
        assert!(threads(u32::MAX).is_empty());
    }

    #[test]
    fn drops_are_those_of_the_ports() {
        let line = " 3: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 5 2 00000 17";
        assert_eq!(drops(line, &[8080].into()), Some(17));
        assert_eq!(drops(line, &[8081].into()), None);
        assert_eq!(drops("", &[8080].into()), None);
    }

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
