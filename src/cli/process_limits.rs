//! Limits that the operating system sets to this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::egress::IDLE_IN_ALL_MAX;

/// Files that a busy process has open at once: connections that are kept, those of
/// requests under way and of callers, the database's, and some to spare.
const OPEN_FILES: u64 = 2 * IDLE_IN_ALL_MAX as u64;

/// Takes as many open files as the system grants, since the usual 1024 is meant for
/// programs that use `select`, and forbids core dumps: memory holds patient data and
/// secrets.
pub(super) fn set() {
    let files = getrlimit(Resource::Nofile);
    // Whoever may not raise it runs with what there is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    if let Some(granted) = getrlimit(Resource::Nofile).current.filter(|most| *most < OPEN_FILES) {
        tracing::warn!(
            granted,
            wanted = OPEN_FILES,
            "few files may be open at once; raise the hard limit (ulimit -Hn, LimitNOFILE)"
        );
    }
    if setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).is_err() {
        tracing::warn!("core dumps cannot be forbidden; switch them off where this runs");
    }
}
