//! When this process takes memory in huge pages: two MiB that the kernel zeroes at once.
//!
//! Under load they are worth a tenth of the throughput. At a start, when a little is touched
//! here and there, thirty MiB are zeroed for the five that are used: half of the processor
//! time that a start takes, from the replicas that share the machine with it
//! (docs/decisions/0032-huge-pages-after-the-start.md).

use std::time::Duration;

use rustix::thread::{disable_transparent_huge_pages, transparent_huge_pages_are_disabled};

/// When everything has begun that begins with a start, connections to the database included.
const STARTED: Duration = Duration::from_secs(1);

/// Huge pages that may be waiting to be taken.
#[derive(Debug)]
pub struct HugePages {
    /// Whether they are forbidden by this, and not by whoever started the process.
    put_off: bool,
}

impl HugePages {
    /// Takes none until [`run`](super::run), which this is handed to, has served for a second.
    /// Of use before there is more than one thread, since each takes memory of its own.
    #[must_use]
    pub fn put_off() -> HugePages {
        // Where the kernel does not know of this it has none to give, or cannot be told.
        let allowed = transparent_huge_pages_are_disabled() == Ok(false);
        HugePages { put_off: allowed && disable_transparent_huge_pages(true).is_ok() }
    }

    /// For a service that has begun to serve: takes them again from a second later on.
    pub(super) async fn take_once_started(self) {
        tokio::time::sleep(STARTED).await;
        self.take();
    }

    fn take(self) {
        if self.put_off {
            // It was possible to forbid them.
            let _ = disable_transparent_huge_pages(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, since this is a property of the whole process.
    #[test]
    fn they_are_taken_again_unless_somebody_else_has_forbidden_them() {
        let disabled = || transparent_huge_pages_are_disabled().expect("Linux tells");
        let before = disabled();
        disable_transparent_huge_pages(false).expect("nothing keeps it from that");
        let pages = HugePages::put_off();
        assert!(disabled());
        pages.take();
        assert!(!disabled());

        disable_transparent_huge_pages(true).expect("as before");
        HugePages::put_off().take();
        assert!(disabled(), "as whoever started this wants it");
        disable_transparent_huge_pages(before).expect("as before");
    }
}
