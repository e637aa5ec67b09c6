//! PostgreSQL as in production: a primary and a synchronous standby, so that a failover
//! loses nothing. Stopped, started, promoted and rebuilt by the faults.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::command::{Watchdog, run, unprivileged};

/// The database of the run, and the role that owns it: no superuser, as it should be.
pub(crate) const DATABASE: &str = "nemesis";
pub(crate) const OWNER: &str = "hookward";
/// More than three replicas use; few enough to be used up.
pub(crate) const CONNECTIONS_MAX: usize = 100;

/// Both nodes. A standby that wants to follow again must not wait 5 s for it.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
max_connections = 100
shared_buffers = '64MB'
fsync = on
synchronous_commit = on
wal_keep_size = '1GB'
wal_retrieve_retry_interval = '200ms'
log_min_messages = warning
include_if_exists = 'clock.conf'
";
/// The database's clock for everybody who does not name the schema, so that it can be set.
const CLOCK: &str = "
CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
    SELECT pg_catalog.clock_timestamp()
        + coalesce(current_setting('nemesis.ahead', true), '0')::interval
$$";
/// How long a start or a stop may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) struct Cluster {
    programs: PathBuf,
    folder: PathBuf,
    ports: [u16; 2],
    /// Which of the two takes writes.
    primary: AtomicUsize,
    /// Whether the other one has everything that was acknowledged.
    followed: AtomicBool,
    _watchdog: Watchdog,
}

impl Cluster {
    /// Makes a primary with the run's database, and a standby that follows it.
    pub(crate) async fn start() -> Result<Cluster, String> {
        let programs = programs().ok_or("no /usr/lib/postgresql/*/bin")?;
        let mut make = unprivileged(Path::new("mktemp"));
        make.args(["-d", "/tmp/hookward-nemesis-XXXXXX"]);
        let folder = PathBuf::from(run(make).await?.trim());
        let script = r#"
            for node in 0 1; do "$1/pg_ctl" stop -m immediate -s -D "$2/node-$node"; done
            rm -rf "$2""#;
        let watchdog =
            Watchdog::start(unprivileged(Path::new("sh")), script, &[&programs, &folder]);
        let ports = free_ports().map_err(|error| error.to_string())?;
        let cluster = Cluster {
            programs,
            folder,
            ports,
            primary: AtomicUsize::new(0),
            followed: AtomicBool::new(false),
            _watchdog: watchdog,
        };
        let mut initdb = cluster.program("initdb");
        initdb.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"]);
        initdb.args(["--locale=C", "-D"]).arg(cluster.data(0));
        run(initdb).await?;
        let mut settings = unprivileged(Path::new("sh"));
        settings.args(["-c", "printf '%s' \"$1\" >> \"$2/postgresql.conf\"", "sh", SETTINGS]);
        run({
            settings.arg(cluster.data(0));
            settings
        })
        .await?;
        cluster.launch(0, &[]).await?;
        // It may make no roles; the one of callers' work is made for it, as an operator would.
        for sql in [
            format!("CREATE ROLE {OWNER} LOGIN"),
            format!("CREATE ROLE {OWNER}_api NOLOGIN"),
            format!("GRANT {OWNER}_api TO {OWNER}"),
        ] {
            cluster.sql(0, "postgres", &sql).await?;
        }
        let create = format!("CREATE DATABASE {DATABASE} OWNER {OWNER}");
        cluster.sql(0, "postgres", &create).await?;
        cluster.sql(0, DATABASE, CLOCK).await?;
        let path = format!("ALTER DATABASE {DATABASE} SET search_path = public, pg_catalog");
        cluster.sql(0, "postgres", &path).await?;
        cluster.follow().await?;
        Ok(cluster)
    }

    /// The node that takes writes.
    pub(crate) fn primary(&self) -> usize {
        self.primary.load(Ordering::SeqCst)
    }

    /// The node that only follows.
    pub(crate) fn standby(&self) -> usize {
        1 - self.primary()
    }

    /// Whether a failover would lose nothing.
    pub(crate) fn is_followed(&self) -> bool {
        self.followed.load(Ordering::SeqCst)
    }

    pub(crate) fn address(&self, node: usize) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[node]))
    }

    /// `pg_ctl stop -m immediate`: the server ends as in a crash.
    pub(crate) async fn crash(&self, node: usize) -> Result<(), String> {
        let mut stop = self.program("pg_ctl");
        stop.args(["stop", "-m", "immediate", "-s", "-D"]).arg(self.data(node));
        run(stop).await.map(drop)
    }

    /// Starts a node that was stopped; tells when it took a write.
    pub(crate) async fn revive(&self, node: usize) -> Result<Instant, String> {
        self.launch(node, &[]).await?;
        self.takes_writes(node).await
    }

    /// Sets the primary's clock so far `ahead` of what it is, an interval.
    pub(crate) async fn set_clock(&self, ahead: &str) -> Result<(), String> {
        let node = self.primary();
        let mut write = unprivileged(Path::new("sh"));
        write.args([
            "-c",
            "printf \"nemesis.ahead = '%s'\\n\" \"$1\" > \"$2/clock.conf\"",
            "sh",
            ahead,
        ]);
        write.arg(self.data(node));
        run(write).await?;
        self.sql(node, "postgres", "SELECT pg_reload_conf()").await.map(drop)
    }

    /// Makes the standby the primary, for ever; tells when it took a write.
    pub(crate) async fn promote(&self) -> Result<Instant, String> {
        let node = self.standby();
        self.followed.store(false, Ordering::SeqCst);
        let mut promote = self.program("pg_ctl");
        promote.args(["promote", "-w", "-s", "-D"]).arg(self.data(node));
        run(promote).await?;
        self.primary.store(node, Ordering::SeqCst);
        self.takes_writes(node).await
    }

    /// Makes the node that does not take writes a standby of the other, from nothing, and
    /// has commits wait for it.
    pub(crate) async fn follow(&self) -> Result<(), String> {
        let (primary, standby) = (self.primary(), self.standby());
        let mut clear = unprivileged(Path::new("rm"));
        clear.arg("-rf").arg(self.data(standby));
        run(clear).await?;
        let mut copy = self.program("pg_basebackup");
        copy.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &self.ports[primary].to_string()]);
        copy.args(["-X", "stream", "-c", "fast", "-R", "--no-sync", "-D"]).arg(self.data(standby));
        run(copy).await?;
        self.launch(standby, &[]).await?;
        let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        self.until(primary, streaming, "1").await?;
        self.sql(primary, "postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'").await?;
        self.sql(primary, "postgres", "SELECT pg_reload_conf()").await?;
        let synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        self.until(primary, synchronous, "1").await?;
        self.followed.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Runs SQL on a node as the superuser; the answer without headings.
    pub(crate) async fn sql(&self, node: usize, base: &str, sql: &str) -> Result<String, String> {
        let mut psql = self.psql(node, base);
        psql.args(["-c", sql]);
        run(psql).await.map(|answer| answer.trim().to_owned())
    }

    /// Starts SQL that takes its time, in the run's database of the primary.
    pub(crate) fn begin(&self, sql: &str) -> Child {
        let mut psql = self.psql(self.primary(), DATABASE);
        psql.args(["-c", sql]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        psql.spawn().expect("psql is installed with PostgreSQL")
    }

    async fn launch(&self, node: usize, environment: &[(&str, &str)]) -> Result<(), String> {
        let mut start = self.program("pg_ctl");
        start.envs(environment.iter().copied());
        start.args(["start", "-w", "-s", "-t", &PATIENCE.as_secs().to_string(), "-D"]);
        start.arg(self.data(node)).arg("-l").arg(self.folder.join(format!("log-{node}")));
        start.args(["-o", &format!("-p {} -k {}", self.ports[node], self.folder.display())]);
        // Its output would be kept open by the server.
        start.stdout(Stdio::null()).stderr(Stdio::null());
        let status = tokio::task::spawn_blocking(move || start.stdin(Stdio::null()).status());
        let status = status.await.expect("it does not panic").map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("node {node} does not start")) }
    }

    /// Waits until a commit is answered, which takes the standby too while it is asked for.
    async fn takes_writes(&self, node: usize) -> Result<Instant, String> {
        let write = "CREATE TABLE IF NOT EXISTS nemesis_probe (at timestamptz);
                     INSERT INTO nemesis_probe VALUES (now())";
        let begin = Instant::now();
        loop {
            match self.sql(node, "postgres", write).await {
                Ok(_) => return Ok(Instant::now()),
                Err(error) if PATIENCE < begin.elapsed() => return Err(error),
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    async fn until(&self, node: usize, sql: &str, answer: &str) -> Result<(), String> {
        let begin = Instant::now();
        while self.sql(node, "postgres", sql).await.as_deref() != Ok(answer) {
            if PATIENCE < begin.elapsed() {
                return Err(format!("never {answer}: {sql}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn psql(&self, node: usize, base: &str) -> Command {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres"]);
        psql.args(["-h", "127.0.0.1", "-p", &self.ports[node].to_string(), "-d", base]);
        psql.env("PGCONNECT_TIMEOUT", "5");
        psql
    }

    fn program(&self, name: &str) -> Command {
        unprivileged(&self.programs.join(name))
    }

    fn data(&self, node: usize) -> PathBuf {
        self.folder.join(format!("node-{node}"))
    }
}

/// Directory of the newest installed version's programs.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.flatten().map(|entry| entry.path()).filter(|path| number(path).is_some());
    let programs = newest.max_by_key(number)?.join("bin");
    programs.join("initdb").exists().then_some(programs)
}

/// Two ports that nobody listened on a moment ago.
fn free_ports() -> std::io::Result<[u16; 2]> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (first, second) = (listen()?, listen()?);
    Ok([first.local_addr()?.port(), second.local_addr()?.port()])
}
