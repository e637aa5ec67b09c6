//! Resident memory of a process, from `/proc/<pid>/status` (see `proc_pid_status(5)`).

use std::fs;

use anyhow::Context as _;

/// Resident memory, in MiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resident {
    /// Most of it since the measurement began (`VmHWM`).
    pub(crate) peak: f64,
    /// At its end (`VmRSS`).
    pub(crate) end: f64,
}

/// Lets the peak be counted from now on: what 5 does is in `proc_pid_clear_refs(5)`.
pub(crate) fn forget_peak(pid: u32) -> anyhow::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("the service has ended")
}

/// What it takes.
pub(crate) fn resident(pid: u32) -> anyhow::Result<Resident> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    let status = status.context("the service has ended")?;
    let mib = |name: &str| -> anyhow::Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        Ok(kib.context("a process has resident memory")?.parse::<f64>()? / 1024.0)
    };
    Ok(Resident { peak: mib("VmHWM:")?, end: mib("VmRSS:")? })
}
