//! The service under measurement: the real command as a process of its own.

use std::fs::File;
use std::io::BufRead as _;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;
use tempfile::TempDir;

use crate::audience::ONE;
use crate::cpu::Watched;
use crate::database::Database;
use crate::database::Store;
use crate::fitting;
use crate::fitting::Credentials;
use crate::fitting::Fitting;
use crate::options::Options;
use crate::pause;

/// What it prints once it takes calls; the address follows.
const READY: &str = "hookward is serving gRPC on ";
/// What stands between the two addresses of that line.
const ADMIN: &str = ", admin on ";
/// Time to read a full database's subscriptions is in it.
const START_MAX: Duration = Duration::from_mins(1);
const STOP_MAX: Duration = Duration::from_secs(40);
/// File of the receiver's authority, in the service's folder.
const AUTHORITY: &str = "authority.pem";

/// A running service with a database of its own. Dropping it stops it.
pub(crate) struct Service {
    program: PathBuf,
    /// One, unless it has grown.
    replicas: Vec<Child>,
    /// Which store it runs on.
    pub(crate) store: Store,
    /// What it is fitted with.
    pub(crate) fitting: Fitting,
    /// How it is called, if it asks who is calling.
    pub(crate) credentials: Option<Credentials>,
    /// Addresses of its gRPC ports, one of each replica.
    pub(crate) addresses: Vec<String>,
    /// Address of its admin port; of several, the last one's.
    pub(crate) admin: String,
    /// Its database.
    pub(crate) database: Database,
    folder: Option<TempDir>,
}

/// Where a replica listens.
struct Ports {
    grpc: String,
    admin: String,
}

impl Service {
    /// Starts it on an empty database; `None`: that store is not installed.
    /// `authority` is whose certificates it trusts, as PEM.
    pub(crate) fn start(
        options: &Options,
        store: Store,
        fitting: Fitting,
        authority: &str,
    ) -> anyhow::Result<Option<Service>> {
        let folder = tempfile::Builder::new().prefix("hookward-bench-").tempdir()?;
        let Some(database) = store.database(folder.path())? else { return Ok(None) };
        let built = Path::new(env!("CARGO_BIN_EXE_hookward")).to_owned();
        let program = options.server.clone().unwrap_or(built);
        if store == Store::Postgres {
            run(command(&program).args(["migrate", "--database-url", &database.url]))?;
        }
        std::fs::write(folder.path().join(AUTHORITY), authority)?;
        fitting.equip(folder.path())?;
        let credentials = || credentials(&program, &database, folder.path());
        let credentials = fitting.asks_callers().then(credentials).transpose()?;
        let (child, Ports { grpc, admin }) = serve(&program, &database, fitting, folder.path())?;
        Ok(Some(Service {
            program,
            replicas: vec![child],
            store,
            fitting,
            credentials,
            addresses: vec![grpc],
            admin,
            database,
            folder: Some(folder),
        }))
    }

    /// Stops it in good order, lets `work` have the database for itself, and starts it
    /// again, at another address.
    pub(crate) fn restart_after(
        &mut self,
        work: impl FnOnce(&Database) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.stop();
        work(&self.database)?;
        self.grow_to(1)
    }

    /// Starts more replicas, until there are so many.
    pub(crate) fn grow_to(&mut self, count: usize) -> anyhow::Result<()> {
        let folder = self.folder.as_ref().context("it is kept at the end only")?;
        while self.replicas.len() < count {
            let (child, ports) = serve(&self.program, &self.database, self.fitting, folder.path())?;
            self.replicas.push(child);
            self.addresses.push(ports.grpc);
            self.admin = ports.admin;
        }
        Ok(())
    }

    /// Its process; of several, the first.
    pub(crate) fn pid(&self) -> u32 {
        self.replicas.first().map_or(0, Child::id)
    }

    /// The processes whose CPU time it costs.
    pub(crate) fn watched(&self) -> Vec<Watched> {
        let own = |child: &Child| Watched { name: "hookward", pid: child.id(), family: false };
        self.replicas.iter().map(own).chain(self.database.server.clone()).collect()
    }

    /// Keeps its folder after the end; says where it is.
    pub(crate) fn keep(&mut self) {
        if let Some(folder) = self.folder.take() {
            eprintln!("kept: {}", folder.keep().display());
        }
    }

    /// Ends it without a word: it would wait for receivers that never answer.
    pub(crate) fn kill(&mut self) {
        for mut child in self.replicas.drain(..) {
            // As well as it goes: what is left is a temporary folder.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.addresses.clear();
    }

    fn stop(&mut self) {
        for child in &mut self.replicas {
            if matches!(child.try_wait(), Ok(None)) {
                let pid = child.id().to_string();
                let _ = Command::new("kill").args(["-TERM", &pid]).status();
            }
        }
        let until = Instant::now() + STOP_MAX;
        let runs = |child: &mut Child| matches!(child.try_wait(), Ok(None));
        while self.replicas.iter_mut().any(runs) && Instant::now() < until {
            pause(Duration::from_millis(20));
        }
        self.kill();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes an API key for what the load generator does, before there is a server.
fn credentials(program: &Path, database: &Database, folder: &Path) -> anyhow::Result<Credentials> {
    let mut create = command(program);
    create.args(["api-key", "create", "--label", "benchmark", "--organization", ONE.organization]);
    create.args(["--scope", "events:publish", "--scope", "subscriptions:write"]);
    let said = run(create.args(["--database-url", &database.url]))?;
    let authority = folder.join(fitting::AUTHORITY).display().to_string();
    Ok(Credentials { authority, api_key: said.trim().to_owned() })
}

/// Runs a command to its end; what it printed.
fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Starts the command; its process and where it listens.
fn serve(
    program: &Path,
    database: &Database,
    fitting: Fitting,
    folder: &Path,
) -> anyhow::Result<(Child, Ports)> {
    let log = folder.join("log");
    let mut command = command(program);
    command.args(["serve", "--database-url", &database.url]).current_dir(folder);
    command.args(["--grpc-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(["--egress-allow", "127.0.0.1/32", "--egress-ca", AUTHORITY]);
    command.args(fitting.flags()).envs(fitting.environment());
    // Not as flags: an older command does not know them.
    command.env("HOOKWARD_MAX_PUBLISH_RATE_ORGANIZATION", "off");
    command.env("HOOKWARD_MAX_CALL_RATE_ORGANIZATION", "off");
    command.env("HOOKWARD_MAX_OPEN_DELIVERIES_ORGANIZATION", "off");
    let log_file = File::options().create(true).append(true).open(&log)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file);
    let mut child = command.spawn().context("cannot start hookward")?;
    match ports(&mut child) {
        Ok(ports) => Ok((child, ports)),
        Err(error) => {
            // It may have ended already.
            let _ = child.kill();
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("{error:#}\n{said}");
        }
    }
}

/// With the defaults, but for rates: settings of the shell that runs the benchmark do not count.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("HOOKWARD_") || text.starts_with("OTEL_") || text == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// Where it listens, from its own words. A thread goes on reading, so that it never
/// waits for us.
fn ports(child: &mut Child) -> anyhow::Result<Ports> {
    let output = child.stdout.take().context("a pipe was asked for")?;
    let (found, ports) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let words = line.split_once(READY).and_then(|(_, rest)| rest.split_once(ADMIN));
            if let Some((grpc, admin)) = words {
                let (grpc, admin) = (grpc.to_owned(), admin.trim().to_owned());
                // Nobody listens any more when it took too long.
                let _ = found.send(Ports { grpc, admin });
            }
        }
    });
    ports.recv_timeout(START_MAX).context("hookward does not say that it serves")
}
