//! A PostgreSQL of the tests' own: one cluster a process, one database a test.
//!
//! The cluster lives in a temporary directory, on a free port, and is real about
//! durability (`fsync=on`). It goes away with the process that started it, however
//! that ends: a shell watches a pipe from the process and stops the cluster when
//! the pipe closes. Only the standard library is used, so that unit tests and
//! integration tests can share this file.
//!
//! `HOOKWARD_TEST_POSTGRES`: `auto` (the default) leaves the tests out, loudly,
//! where PostgreSQL is not installed; `required` fails them; `off` leaves them out.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A fresh database; its URL. `name` makes it recognisable. `None`: PostgreSQL
/// tests are left out.
///
/// # Panics
///
/// When PostgreSQL is required and cannot be had.
pub(crate) fn database(name: &str) -> Option<String> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let cluster = CLUSTER.as_ref()?;
    let plain = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
    let name: String = name.chars().filter(plain).take(40).collect::<String>().to_lowercase();
    let name = format!("t{}_{name}", NUMBER.fetch_add(1, Ordering::Relaxed));
    cluster.sql("postgres", &format!("CREATE DATABASE {name}"));
    Some(cluster.url(&name))
}

/// Everything in a database, as `pg_dump` writes it: what whoever has a backup can read.
#[allow(dead_code, reason = "unit tests do not read dumps")]
pub(crate) fn dump(url: &str) -> String {
    let programs = programs().expect("the database is there, and so are its programs");
    run(Command::new(programs.join("pg_dump")).arg(url)).expect("a running cluster is dumped")
}

/// A new database with everything of another one, by way of a file in `folder`; its URL.
#[allow(dead_code, reason = "unit tests restore nothing")]
pub(crate) fn copy(url: &str, folder: &Path) -> String {
    let programs = programs().expect("the database is there, and so are its programs");
    let name = url.rsplit('/').next().expect("a URL has a database");
    let copied = database(&format!("copy_of_{name}")).expect("as the first one");
    let file = folder.join("hookward.dump");
    let mut dump = Command::new(programs.join("pg_dump"));
    dump.arg("--format=custom").arg("--file").arg(&file).arg(url);
    run(&mut dump).expect("a running cluster is dumped");
    let mut restore = Command::new(programs.join("pg_restore"));
    restore.args(["--exit-on-error", "--dbname", &copied]).arg(&file);
    run(&mut restore).expect("what was dumped is restored");
    copied
}

/// A cluster that runs for as long as the pipe to its watchdog is open.
pub(crate) struct Cluster {
    programs: PathBuf,
    /// Holds its data and its log.
    directory: PathBuf,
    port: u16,
    _watchdog: ChildStdin,
}

#[allow(dead_code, reason = "unit tests only share one cluster and say nothing to it")]
impl Cluster {
    /// One more, with these settings besides; for a test that stops it or sets it up
    /// otherwise. `None`: PostgreSQL tests are left out.
    pub(crate) fn own(settings: &str) -> Option<Cluster> {
        CLUSTER.as_ref()?;
        Some(start(&format!("{SETTINGS}{settings}")).expect("a second one starts as well"))
    }

    /// For `--database-url`.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Executes SQL, one statement a transaction; what it answers, without decoration.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        run(&mut self.psql(database, sql)).expect("a running cluster executes SQL")
    }

    /// A client that is about to execute SQL.
    pub(crate) fn psql(&self, database: &str, sql: &str) -> Command {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-U", "postgres", "-h", "127.0.0.1", "-p"]);
        psql.arg(self.port.to_string()).args(["-d", database, "-c", sql]);
        psql
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> Vec<u8> {
        std::fs::read(self.directory.join("log")).expect("the folder is ours")
    }

    /// Ends it as a crash would, and starts it again. Returns when it takes connections.
    pub(crate) fn crash_and_restart(&self) {
        let control = |arguments: &[&str]| {
            let mut control = as_user(&self.programs.join("pg_ctl"));
            control.current_dir("/").arg("-D").arg(self.directory.join("data")).args(arguments);
            control
        };
        run(&mut control(&["stop", "-s", "-m", "immediate"])).expect("it stops");
        let options = format!("-p {} -k {}", self.port, self.directory.display());
        let mut start = control(&["start", "-s", "-w", "-t", "60", "-o", &options, "-l"]);
        start.arg(self.directory.join("log")).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(start.stdin(Stdio::null()).status().expect("it runs").success(), "it starts");
    }
}

/// Never dropped, as statics are not; the end of the process closes the pipe.
static CLUSTER: LazyLock<Option<Cluster>> = LazyLock::new(|| {
    let wish = std::env::var("HOOKWARD_TEST_POSTGRES").unwrap_or_else(|_| "auto".into());
    assert!(
        ["auto", "required", "off"].contains(&wish.as_str()),
        "HOOKWARD_TEST_POSTGRES is auto, required or off"
    );
    if wish == "off" {
        return None;
    }
    match start(SETTINGS) {
        Ok(cluster) => Some(cluster),
        Err(why) => {
            assert!(wish != "required", "PostgreSQL is required for these tests: {why}");
            // Past the capture of the test harness: nobody should believe that they ran.
            let _ = writeln!(
                std::io::stderr().lock(),
                "\n!!! TESTS ON POSTGRESQL ARE LEFT OUT: {why} !!!\n"
            );
            None
        }
    }
});

/// `$1` directory of the programs, `$2` the cluster's directory, `$3` port. Says
/// "ready", then waits for the end of its input.
const WATCHDOG: &str = r#"
    trap '' INT TERM HUP
    cd "$2" || exit 1
    "$1/pg_ctl" start -w -t 60 -s -D "$2/data" -l "$2/log" -o "-p $3 -k $2" </dev/null >/dev/null 2>&1 \
        && echo ready || { echo failed; tail -n 5 "$2/log" | tr '\n' ' '; }
    exec >/dev/null
    cat >/dev/null
    "$1/pg_ctl" stop -m immediate -s -D "$2/data" </dev/null >/dev/null 2>&1
    rm -rf "$2"
"#;

/// What the tests need beside the defaults.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
max_connections = 400
shared_buffers = '64MB'
fsync = on
synchronous_commit = on
";

fn start(settings: &str) -> Result<Cluster, String> {
    let programs = programs().ok_or("no /usr/lib/postgresql/*/bin")?;
    let mut make = as_user(Path::new("mktemp"));
    make.current_dir("/").args(["-d", "/tmp/hookward-postgres-XXXXXX"]);
    let directory = PathBuf::from(run(&mut make)?.trim());
    let data = directory.join("data");
    let mut initdb = as_user(&programs.join("initdb"));
    initdb.current_dir("/").args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"]);
    run(initdb.args(["--locale=C", "-D"]).arg(&data))?;
    let mut append = as_user(Path::new("tee"));
    append.current_dir("/").arg("-a").arg(data.join("postgresql.conf"));
    feed(&mut append, settings)?;
    let port = free_port().map_err(|error| error.to_string())?;
    let mut watchdog = as_user(Path::new("sh"));
    watchdog.current_dir("/").args(["-c", WATCHDOG, "sh"]).arg(&programs).arg(&directory);
    watchdog.arg(port.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = watchdog.stderr(Stdio::null()).spawn().map_err(|error| error.to_string())?;
    let pipe = child.stdin.take().ok_or("no pipe to the watchdog")?;
    let mut said = String::new();
    let output = child.stdout.take().ok_or("no pipe from the watchdog")?;
    let mut output = BufReader::new(output);
    output.read_line(&mut said).map_err(|error| error.to_string())?;
    if said.trim() != "ready" {
        // Best effort: the log's end explains.
        let _ = output.read_line(&mut said);
        return Err(format!("PostgreSQL does not start: {said}"));
    }
    Ok(Cluster { programs, directory, port, _watchdog: pipe })
}

/// PostgreSQL refuses to run as root.
fn as_user(program: &Path) -> Command {
    let id = Command::new("id").arg("-u").output();
    if id.is_ok_and(|id| id.stdout.trim_ascii() == b"0") {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
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

/// A port that nobody listened on a moment ago.
fn free_port() -> std::io::Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.port())
}

/// Runs to the end; what it wrote.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Runs with an input.
fn feed(command: &mut Command, input: &str) -> Result<(), String> {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let mut pipe = child.stdin.take().ok_or("no pipe")?;
    pipe.write_all(input.as_bytes()).map_err(|error| error.to_string())?;
    drop(pipe);
    let status = child.wait().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err("a program failed".into()) }
}
