//! Faults of a SQLite file: no room, a lock held elsewhere, and whether an OK is on disk.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sea_orm::{ConnectOptions, ConnectionTrait as _, Database};

use super::process::SETTLE;
use super::{Scene, millis, pause, secs};
use crate::api::Api;
use crate::command::is_installed;
use crate::ledger::Known;
use crate::relay::Relay;
use crate::replica::Replica;
use crate::world::START_LIMIT;

/// Events of an organization that nobody listens to, published one after the other.
const SYNCED_EVENTS: usize = 100;
const NOBODY: usize = 6;
/// Events that are looked for in a copy, besides the latest.
const COPY_SAMPLE: usize = 100;
const COPY_LATEST: usize = 200;

impl Scene<'_> {
    pub(super) async fn disk_full(&mut self) -> Result<(), String> {
        if self.world.own_disk.is_none() {
            self.world.ledger.leave_out(self.fault.name(), "no file system of its own");
            return Ok(());
        }
        let window = self.world.ledger.disturb(self.fault, None);
        let path = self.disk().join("filler");
        let filler = path.clone();
        let done = tokio::task::spawn_blocking(move || fill(&filler)).await;
        done.expect("filling does not panic");
        self.last(3000..5000).await;
        fs::remove_file(path).map_err(|error| error.to_string())?;
        let freed = Instant::now();
        let again = self.ok_again(freed).await;
        self.time("publish OK again", again, secs(5), freed);
        self.world.ledger.calm(window, SETTLE + secs(5));
        Ok(())
    }

    pub(super) async fn write_lock(&mut self) -> Result<(), String> {
        let url = format!("sqlite:{}?mode=rw", self.disk().join("hookward.db").display());
        let mut options = ConnectOptions::new(url);
        options.max_connections(1).sqlx_logging(false);
        let connect = async {
            let connection = Database::connect(options).await?;
            connection.execute_unprepared("PRAGMA busy_timeout = 5000").await?;
            connection.execute_unprepared("BEGIN IMMEDIATE").await?;
            Ok::<_, sea_orm::DbErr>(connection)
        };
        let connection = connect.await.map_err(|error| error.to_string())?;
        let at = Instant::now();
        self.last(6000..8000).await;
        let to = Instant::now();
        let released = connection.execute_unprepared("COMMIT").await;
        released.map_err(|error| error.to_string())?;
        let closed = connection.close().await;
        closed.map_err(|error| error.to_string())?;
        let released = Instant::now();
        let again = self.ok_again(released).await;
        let longest = self.world.call_times(None, at, to, |_| true).into_iter().max();
        self.time("longest call", longest.unwrap_or_default(), millis(5500), at);
        self.time("publish OK again", again, secs(1), released);
        Ok(())
    }

    /// The files as they are at one moment must hold every event that was acknowledged.
    pub(super) async fn copy(&mut self) -> Result<(), String> {
        let folder = self.world.folder.join(format!("copy-{}", self.number));
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        self.world.replicas[0].signal("STOP");
        // Whoever has an OK by now has it for good.
        let acknowledged: Vec<(usize, String)> = {
            let book = self.world.ledger.book();
            let ok = book.events.iter().filter(|event| event.known == Known::Ok);
            ok.map(|event| (event.organization, event.id.clone())).collect()
        };
        for name in ["hookward.db", "hookward.db-wal"] {
            let copied = fs::copy(self.disk().join(name), folder.join(name));
            copied.map_err(|error| error.to_string())?;
        }
        self.world.replicas[0].signal("CONT");
        let url = format!("sqlite:{}", folder.join("hookward.db").display());
        let arguments = ["--database-url", &url, "--role", "api"].map(str::to_owned);
        let link = Relay::open().await;
        let reader = Replica::new(0, link, arguments.to_vec(), &folder).await;
        reader.start(&[], START_LIMIT).await?;
        let readers = [reader];
        let api = Api::new(&readers, std::sync::Arc::clone(&self.world.ledger));
        let latest = acknowledged.len().saturating_sub(COPY_LATEST);
        let mut looked_for = acknowledged[latest..].to_vec();
        for _ in 0..COPY_SAMPLE.min(latest) {
            looked_for.push(acknowledged[self.rng.usize(0..latest)].clone());
        }
        for (organization, id) in looked_for {
            if !api.has_event(organization, &id).await {
                self.world.ledger.broken(format!("{id} was acknowledged and is not on disk"));
            }
        }
        drop(readers);
        fs::remove_dir_all(folder).map_err(|error| error.to_string())
    }

    /// Watches the system calls: a sync ends between the begin of each call and its OK.
    pub(super) async fn synced(&mut self) -> Result<(), String> {
        if !is_installed("strace") {
            self.world.ledger.leave_out(self.fault.name(), "strace is not installed");
            return Ok(());
        }
        let trace = self.world.folder.join("strace.log");
        let pid = self.world.replicas[0].pid().ok_or("it runs")?.to_string();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-ttt", "-T", "-e", "trace=fsync,fdatasync", "-p", &pid, "-o"]);
        strace.arg(&trace).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.world.hold_publishers(true);
        pause(secs(1)).await;
        let mut strace = strace.spawn().map_err(|error| error.to_string())?;
        pause(secs(1)).await;
        let mut calls = Vec::new();
        for number in 0..SYNCED_EVENTS {
            let id = format!("synced-{}-{number}", self.number);
            let batch = self.world.draft(NOBODY, vec![(id, "nobody.hears".to_owned(), 200)]);
            let begun = wall();
            if self.world.api.publish(0, NOBODY, batch.events.clone()).await.is_ok() {
                batch.numbers.iter().for_each(|number| self.world.ledger.acknowledge(*number, 0));
                calls.push((begun, wall()));
            }
        }
        self.world.hold_publishers(false);
        let mut end = Command::new("kill");
        end.args(["-s", "INT", &strace.id().to_string()]);
        self.must(end).await?;
        let ended = tokio::task::spawn_blocking(move || strace.wait()).await;
        ended.expect("waiting does not panic").map_err(|error| error.to_string())?;
        let syncs = syncs(&fs::read_to_string(&trace).map_err(|error| error.to_string())?);
        if syncs.is_empty() {
            self.world.ledger.leave_out(self.fault.name(), "strace may not watch processes here");
            return Ok(());
        }
        let unsynced = calls
            .iter()
            .filter(|(begun, ok)| !syncs.iter().any(|synced| begun < synced && synced < ok));
        let unsynced = unsynced.count();
        if 0 < unsynced {
            let what = format!("{unsynced} of {} OKs came before a sync", calls.len());
            self.world.ledger.broken(what);
        }
        self.count("OKs before a sync", unsynced, 0, Instant::now());
        Ok(())
    }

    fn disk(&self) -> PathBuf {
        self.world.folder.join("disk")
    }

    /// Waits until a call is answered OK.
    async fn ok_again(&self, since: Instant) -> Duration {
        loop {
            let ok = self.world.first_ok(since, None);
            if ok + millis(50) < since.elapsed() || secs(20) < since.elapsed() {
                return ok;
            }
            pause(millis(20)).await;
        }
    }
}

/// Writes until there is no room left.
fn fill(path: &std::path::Path) {
    let mut file = File::create(path).expect("the folder is ours");
    for size in [1 << 20, 1 << 12, 1] {
        let piece = vec![7_u8; size];
        while file.write_all(&piece).is_ok() {}
    }
}

fn wall() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// When each sync ended, from lines such as `7 1700000000.25 fdatasync(9) = 0 <0.003>`.
/// One that another thread interrupts ends in a line of its own, `<... fdatasync resumed>`.
fn syncs(trace: &str) -> Vec<f64> {
    let ended = trace.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let begun: f64 = words.nth(1)?.parse().ok()?;
        let took = line.rsplit_once(" <")?.1.strip_suffix('>')?.parse::<f64>().ok()?;
        if !line.contains(" = 0 ") {
            return None;
        }
        // The time of such a line is that of the end.
        Some(if line.contains("resumed>") { begun } else { begun + took })
    });
    ended.collect()
}
