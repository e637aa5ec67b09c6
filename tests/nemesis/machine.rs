//! How much of the time the machine gave: so that a goal missed by us can be told from
//! one missed because nothing ran.
//!
//! One thread asks to be woken every 10 ms, another writes and syncs a page every 200 ms.
//! What they wait beyond the usual is stalled time. The rule: a missed goal is put down to
//! the machine only if it would have been kept without the time that was stalled while it
//! was measured.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const WAKE_EVERY: Duration = Duration::from_millis(10);
const SYNC_EVERY: Duration = Duration::from_millis(200);
/// Waits up to these are nobody's stall.
const WAKE_USUAL: Duration = Duration::from_millis(20);
const SYNC_USUAL: Duration = Duration::from_millis(30);

/// A stretch that was lost.
#[derive(Clone, Copy)]
struct Stall {
    begin: Instant,
    end: Instant,
}

/// The two watchers; they end when this is dropped.
pub(crate) struct Machine {
    processor: Arc<Mutex<Vec<Stall>>>,
    disk: Arc<Mutex<Vec<Stall>>>,
    stop: Arc<AtomicBool>,
}

impl Machine {
    /// Watches the processor, and the disk that `folder` is on.
    pub(crate) fn watch(folder: &Path) -> Machine {
        let machine =
            Machine { processor: Arc::default(), disk: Arc::default(), stop: Arc::default() };
        let (stalls, stop) = (Arc::clone(&machine.processor), Arc::clone(&machine.stop));
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let begin = Instant::now();
                thread::park_timeout(WAKE_EVERY);
                note(&stalls, begin, WAKE_USUAL);
            }
        });
        let (stalls, stop) = (Arc::clone(&machine.disk), Arc::clone(&machine.stop));
        let mut page = File::create(folder.join("sync-probe")).expect("the folder is ours");
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                thread::park_timeout(SYNC_EVERY);
                let begin = Instant::now();
                // A disk that fails shows elsewhere.
                let _ = page.seek(SeekFrom::Start(0));
                let _ = page.write_all(&[7; 4096]);
                let _ = page.sync_data();
                note(&stalls, begin, SYNC_USUAL);
            }
        });
        machine
    }

    /// Time that was lost between two moments.
    pub(crate) fn stalled(&self, from: Instant, to: Instant) -> Duration {
        let lost = |stalls: &Mutex<Vec<Stall>>| {
            let stalls = stalls.lock().unwrap_or_else(PoisonError::into_inner);
            let parts = stalls
                .iter()
                .map(|stall| stall.end.min(to).saturating_duration_since(stall.begin.max(from)));
            parts.sum::<Duration>()
        };
        lost(&self.processor).max(lost(&self.disk))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn note(stalls: &Mutex<Vec<Stall>>, begin: Instant, usual: Duration) {
    let end = Instant::now();
    if usual < end - begin {
        let stall = Stall { begin: begin + usual, end };
        stalls.lock().unwrap_or_else(PoisonError::into_inner).push(stall);
    }
}
