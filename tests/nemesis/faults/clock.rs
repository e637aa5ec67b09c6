//! A replica whose clock is wrong, by libfaketime: deliveries are scheduled by the
//! database's clock and signed with a time that receivers accept.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Scene, pause, secs};
use crate::world::START_LIMIT;

const SKEWS: [&str; 4] = ["+3600s", "-3600s", "+86400s", "-600s"];

impl Scene<'_> {
    pub(super) async fn clock(&mut self) -> Result<(), String> {
        let Some(library) = library() else {
            self.world.ledger.leave_out(self.fault.name(), "libfaketime is not installed");
            return Ok(());
        };
        let slot = self.any_slot();
        let replica = &self.world.replicas[slot];
        let skew = SKEWS[self.rng.usize(0..SKEWS.len())];
        let environment = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME", skew.to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        self.end(slot).await;
        let from = replica.start(&environment, START_LIMIT).await?;
        pause(secs(5)).await;
        let to = Instant::now();
        self.end(slot).await;
        replica.start(&[], START_LIMIT).await?;
        let sent = self.world.sent_by(slot, from, to);
        let off = sent.iter().filter_map(|request| request.clock_off);
        let most = off.map(f64::abs).fold(0.0, f64::max);
        self.time("time in headers off by", Duration::from_secs_f64(most), secs(2), from);
        Ok(())
    }

    /// Has a replica end in good order.
    async fn end(&self, slot: usize) {
        let replica = &self.world.replicas[slot];
        replica.signal("TERM");
        if replica.ends(secs(20)).await.is_none() {
            self.world.ledger.broken(format!("replica {slot} does not end"));
            replica.kill();
        }
    }
}

fn library() -> Option<PathBuf> {
    let machines = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let mut libraries = machines.map(|machine| machine.path().join("faketime/libfaketime.so.1"));
    libraries.find(|library| library.exists())
}
