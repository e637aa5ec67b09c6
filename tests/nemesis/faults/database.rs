//! Faults of PostgreSQL.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Scene, millis, pause, secs};
use crate::cluster::{CONNECTIONS_MAX, Cluster, DATABASE, OWNER};
use crate::figure::percentile;
use crate::ledger::CallAnswer;

/// A replica that could not renew its lease needs a moment to know where it stands.
const RECOVERY: Duration = Duration::from_secs(10);
/// Tables that every publish or settlement needs.
const TABLES: [&str; 7] =
    ["event", "attempt", "due", "replica", "subscription", "routing_clock", "event_key"];

impl Scene<'_> {
    pub(super) async fn database_crash(&mut self) -> Result<(), String> {
        let cluster = self.cluster();
        let window = self.world.ledger.disturb(self.fault, None);
        let node = cluster.primary();
        cluster.crash(node).await?;
        self.last(200..2500).await;
        let accepted = self.cluster().revive(node).await?;
        self.recovers(accepted, secs(2)).await;
        self.world.ledger.calm(window, RECOVERY);
        Ok(())
    }

    pub(super) async fn failover(&mut self) -> Result<(), String> {
        if !self.cluster().is_followed() {
            return Err("there is no standby to fail over to".into());
        }
        let window = self.world.ledger.disturb(self.fault, None);
        let node = self.cluster().primary();
        self.cluster().crash(node).await?;
        self.last(100..1500).await;
        let accepted = self.cluster().promote().await?;
        self.world.repoint();
        self.recovers(accepted, secs(5)).await;
        self.world.ledger.calm(window, RECOVERY);
        self.cluster().follow().await
    }

    pub(super) async fn read_only(&mut self) -> Result<(), String> {
        let window = self.world.ledger.disturb(self.fault, None);
        let (world, standby) = (self.world, self.cluster().standby());
        for replica in &world.replicas {
            replica.database.point_at(self.cluster().address(standby));
            replica.database.reset();
        }
        self.last(2000..4000).await;
        // The address leads to the primary again; connections stay where they are.
        world.repoint();
        let at = Instant::now();
        self.recovers(at, secs(5)).await;
        pause(secs(10).saturating_sub(at.elapsed())).await;
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{OWNER}'");
        let left = self.cluster().sql(standby, "postgres", &count).await?;
        let left = left.parse().map_err(|_| "a count is a number")?;
        self.count("read-only connections after 10 s", left, 0, at);
        // What is left would do nothing for ever.
        if 0 < left {
            let end = format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{OWNER}'"
            );
            self.cluster().sql(standby, "postgres", &end).await?;
        }
        self.world.ledger.calm(window, RECOVERY);
        Ok(())
    }

    pub(super) async fn exhausted(&mut self) -> Result<(), String> {
        let window = self.world.ledger.disturb(self.fault, None);
        let hogs = Hogs::start(self.cluster().address(self.cluster().primary()));
        pause(millis(500)).await;
        // They may have the places that are kept for superusers as well, for a moment.
        let begun = Instant::now();
        while let Err(why) = self.end_connections(1000).await {
            if !why.contains("too many clients") || secs(5) < begun.elapsed() {
                return Err(why);
            }
            pause(millis(20)).await;
        }
        let at = Instant::now();
        self.last(3000..5000).await;
        let refused = |answer| matches!(answer, CallAnswer::Refused(_) | CallAnswer::Silent);
        let refused = self.world.call_times(None, at, Instant::now(), refused);
        if let Some(p99) = percentile(refused, 99) {
            self.time("refusals, p99", p99, secs(1), at);
        }
        drop(hogs);
        let freed = Instant::now();
        self.recovers(freed, secs(2)).await;
        self.world.ledger.calm(window, RECOVERY);
        Ok(())
    }

    pub(super) async fn snapshot(&mut self) -> Result<(), String> {
        let span = self.rng.u64(8..12);
        let sql = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM due; \
             SELECT pg_sleep({span}); COMMIT"
        );
        let at = Instant::now();
        let mut child = self.cluster().begin(&sql);
        pause(secs(span)).await;
        let until = Instant::now().checked_sub(secs(1)).unwrap_or(at);
        if let Some(p99) = percentile(self.world.latencies(at, until), 99) {
            self.time("OK to arrival, p99", p99, secs(1), at);
        }
        // It ends by itself.
        drop(tokio::task::spawn_blocking(move || child.wait()));
        Ok(())
    }

    pub(super) async fn terminate(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        let span = millis(self.rng.u64(2000..4000));
        while begun.elapsed() < span {
            self.end_connections(3).await?;
            self.last(100..400).await;
        }
        self.recovers(Instant::now(), secs(2)).await;
        Ok(())
    }

    pub(super) async fn locks(&mut self) -> Result<(), String> {
        let table = TABLES[self.rng.usize(0..TABLES.len())];
        let held = self.rng.u64(1..5);
        let sql = format!(
            "BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({held}); COMMIT"
        );
        let mut child = self.cluster().begin(&sql);
        let ended = tokio::task::spawn_blocking(move || child.wait()).await;
        ended.expect("waiting does not panic").map_err(|error| error.to_string())?;
        self.recovers(Instant::now(), secs(2)).await;
        Ok(())
    }

    /// Both steps are sudden, as those of a clock that is set by hand. By more than five minutes,
    /// and receivers that look at the time in the signature refuse what comes.
    pub(super) async fn database_clock(&mut self) -> Result<(), String> {
        let window = self.world.ledger.hurry(self.fault);
        self.cluster().set_clock("-240 s").await?;
        let at = Instant::now();
        self.last(6000..9000).await;
        let until = Instant::now().checked_sub(secs(1)).unwrap_or(at);
        if let Some(p99) = percentile(self.world.latencies(at, until), 99) {
            self.time("OK to arrival, p99", p99, secs(1), at);
        }
        self.cluster().set_clock("0").await?;
        self.recovers(Instant::now(), secs(1)).await;
        self.world.ledger.calm(window, RECOVERY);
        Ok(())
    }

    fn cluster(&self) -> &Cluster {
        self.world.cluster.as_ref().expect("these faults are PostgreSQL's")
    }

    /// Ends up to so many connections of the replicas.
    async fn end_connections(&self, count: usize) -> Result<(), String> {
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity \
             WHERE usename = '{OWNER}' AND application_name <> '' ORDER BY random() \
             LIMIT {count}) AS some_of_them"
        );
        let cluster = self.cluster();
        cluster.sql(cluster.primary(), "postgres", &end).await.map(drop)
    }

    /// Measures how soon events are taken, and how soon one that was arrives.
    async fn recovers(&mut self, since: Instant, goal: Duration) {
        let limit = secs(20);
        loop {
            let ok = self.world.first_ok(since, None);
            let arrived = self.world.first_request(since, |book, request| {
                let event = request.event.map(|event| &book.events[event]);
                event.is_some_and(|event| event.begun >= since && request.slot.is_some())
            });
            let now = since.elapsed();
            if (ok + millis(100) < now && arrived + millis(100) < now) || limit < now {
                self.time("publish OK again", ok, goal, since);
                self.time("delivery again", arrived, goal + secs(1), since);
                return;
            }
            pause(millis(20)).await;
        }
    }
}

/// Holders of connections, and waiters for more, as many as PostgreSQL may have.
struct Hogs {
    stop: Arc<AtomicBool>,
}

impl Hogs {
    fn start(address: SocketAddr) -> Hogs {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..CONNECTIONS_MAX {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    hog(address, &stop);
                    std::thread::park_timeout(millis(20));
                }
            });
        }
        Hogs { stop }
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Holds a connection until it is refused, broken or to be given back.
fn hog(address: SocketAddr, stop: &AtomicBool) {
    use std::io::Read as _;
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    // A startup message of protocol 3.0.
    let words = format!("user\0{OWNER}\0database\0{DATABASE}\0\0");
    let length = u32::try_from(words.len() + 8).expect("a short message");
    let mut message = length.to_be_bytes().to_vec();
    message.extend([0, 3, 0, 0]);
    message.extend(words.as_bytes());
    let limit = stream.set_read_timeout(Some(millis(100)));
    if limit.and_then(|()| stream.write_all(&message)).is_err() {
        return;
    }
    let mut buffer = [0; 1024];
    while !stop.load(Ordering::SeqCst) {
        match stream.read(&mut buffer) {
            // An end, or an error message, which begins with E.
            Ok(0) => return,
            Ok(_) if buffer[0] == b'E' => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
