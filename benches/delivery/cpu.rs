//! CPU time of processes, from `/proc/<pid>/stat` (see `proc_pid_stat(5)`).
//!
//! It is counted in ticks, mostly of 10 ms: good enough for seconds of work.

use std::fs;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

/// A process whose time is counted.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    /// As in the table.
    pub(crate) name: &'static str,
    /// Its number.
    pub(crate) pid: u32,
    /// Count its children too, those that have ended included.
    pub(crate) family: bool,
}

impl Watched {
    /// Time in user and kernel mode so far; zero when the process is gone.
    pub(crate) fn used(&self) -> Duration {
        let Some(own) = Stat::of(self.pid) else { return Duration::ZERO };
        if !self.family {
            return ticks(own.used);
        }
        ticks(own.used + own.ended_children + live_children(self.pid))
    }
}

struct Stat {
    parent: u32,
    used: u64,
    ended_children: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Stat> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in brackets, may hold spaces and brackets.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Field 3, the state, is the first of these.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Stat {
            parent: u32::try_from(number(4)?).ok()?,
            used: number(14)? + number(15)?,
            ended_children: number(16)? + number(17)?,
        })
    }
}

fn live_children(parent: u32) -> u64 {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Stat::of)
        .filter(|stat| stat.parent == parent)
        .map(|stat| stat.used)
        .sum()
}

fn ticks(count: u64) -> Duration {
    static PER_SECOND: LazyLock<u64> = LazyLock::new(|| {
        let told = Command::new("getconf").arg("CLK_TCK").output().ok();
        let told = told.and_then(|told| String::from_utf8(told.stdout).ok());
        told.and_then(|told| told.trim().parse().ok()).unwrap_or(100)
    });
    Duration::from_micros(count * 1_000_000 / *PER_SECOND)
}
