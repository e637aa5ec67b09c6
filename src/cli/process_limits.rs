//! Limits that the operating system sets to this process.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

use crate::egress::IDLE_IN_ALL_MAX;

/// Open files beside the connections to receivers: those of callers, the database's, and
/// some to spare.
const OTHER_FILES: usize = 1024;

/// Takes as many open files as the system grants, since the usual 1024 is meant for
/// programs that use `select`, and forbids core dumps: memory holds patient data and
/// secrets. Tells how many connections to receivers may be kept beside `in_flight`
/// requests: half of the files at most, so that there are some for everything else.
pub(super) fn set(in_flight: usize) -> usize {
    let files = getrlimit(Resource::Nofile);
    // Whoever may not raise it runs with what there is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    // None: as many as one likes.
    let granted = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let granted = usize::try_from(granted).unwrap_or(usize::MAX);
    let wanted = in_flight.saturating_add(IDLE_IN_ALL_MAX + OTHER_FILES);
    if granted < wanted {
        tracing::warn!(
            granted,
            wanted,
            "few files may be open at once; raise the hard limit (ulimit -Hn, LimitNOFILE)"
        );
    }
    forbid_core_dumps();
    IDLE_IN_ALL_MAX.min(granted / 2)
}

/// By the limit for who writes the file, and by the kernel's own flag, without which a
/// program behind `kernel.core_pattern` would be given the memory whatever the limit says.
/// The flag also keeps other processes of the same user from reading this one's memory.
fn forbid_core_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = setrlimit(Resource::Core, none).is_ok();
    let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable).is_ok();
    if !limited || !hidden {
        tracing::warn!("core dumps cannot be forbidden; switch them off where this runs");
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn memory_is_written_nowhere_by_the_kernel() {
        forbid_core_dumps();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
        assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
    }
}
