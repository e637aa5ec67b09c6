//! One replica: the real `hookward serve`, behind a link to its database and a link to
//! its callers. Its ports change with every start, its links do not.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::admin;
use crate::relay::Relay;

const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A probe that is not answered by then is a no.
const PROBE_LIMIT: Duration = Duration::from_millis(500);

pub(crate) struct Replica {
    /// Its place, from 0; stays over restarts.
    pub(crate) slot: usize,
    /// To PostgreSQL; leads nowhere on SQLite.
    pub(crate) database: Relay,
    /// From the callers.
    pub(crate) calls: Relay,
    arguments: Vec<String>,
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    child: Option<Child>,
    admin: Option<SocketAddr>,
    /// Where in the log the running process began.
    log_from: u64,
}

impl Replica {
    /// A replica that does not run yet. `arguments`: those of `serve` but for the ports.
    pub(crate) async fn new(
        slot: usize,
        database: Relay,
        arguments: Vec<String>,
        folder: &Path,
    ) -> Replica {
        let calls = Relay::open().await;
        let folder = folder.to_owned();
        Replica { slot, database, calls, arguments, folder, state: Mutex::default() }
    }

    /// Starts it, again and again like an orchestrator where it ends by itself, until it is
    /// ready. Tells when the first process was started.
    pub(crate) async fn start(
        &self,
        environment: &[(&str, String)],
        limit: Duration,
    ) -> Result<Instant, String> {
        let begin = Instant::now();
        self.launch(environment);
        loop {
            if self.ready().await {
                return Ok(begin);
            }
            if let Some(status) = self.ended() {
                if limit < begin.elapsed() {
                    return Err(format!("replica {} ends at once: {status}", self.slot));
                }
                self.launch(environment);
            }
            if limit < begin.elapsed() {
                return Err(format!("replica {} is not ready after {limit:?}", self.slot));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        let mut state = self.state();
        if let Some(mut child) = state.child.take() {
            // One that has ended needs no killing.
            let _ = child.kill();
            let _ = child.wait();
        }
        state.admin = None;
    }

    /// SIGTERM, SIGSTOP, SIGCONT.
    pub(crate) fn signal(&self, name: &str) {
        if let Some(child) = &self.state().child {
            let _ = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
        }
    }

    /// Waits for its end; `None`: it did not end within the limit.
    pub(crate) async fn ends(&self, limit: Duration) -> Option<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                let mut state = self.state();
                (state.child, state.admin) = (None, None);
                return Some(status);
            }
            if limit < begin.elapsed() {
                return None;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// How it ended, if it ended by itself.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        let mut state = self.state();
        state.child.as_mut().and_then(|child| child.try_wait().expect("it is our child"))
    }

    /// Whether a process is meant to run.
    pub(crate) fn is_up(&self) -> bool {
        self.state().child.is_some()
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.state().child.as_ref().map(Child::id)
    }

    /// Whether `/readyz` says so. Learns the ports of a process that has just begun.
    pub(crate) async fn ready(&self) -> bool {
        if self.state().admin.is_none() {
            self.learn_ports();
        }
        let Some(admin) = self.state().admin else { return false };
        let probe = tokio::time::timeout(PROBE_LIMIT, admin::get(admin, "/readyz")).await;
        matches!(probe, Ok(Some((200, _))))
    }

    /// Everything that this run's processes wrote.
    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn launch(&self, environment: &[(&str, String)]) {
        let mut state = self.state();
        let log = OpenOptions::new().create(true).append(true).open(self.log_path());
        let log = log.expect("the folder is ours");
        state.log_from = log.metadata().map(|metadata| metadata.len()).unwrap_or_default();
        let child = Command::new(env!("CARGO_BIN_EXE_hookward"))
            .args(["serve", "--grpc-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(&self.arguments)
            .env_clear()
            .env("RUST_BACKTRACE", "1")
            .env("HOOKWARD_MAX_PUBLISH_RATE_ORGANIZATION", "off")
            .env("HOOKWARD_MAX_CALL_RATE_ORGANIZATION", "off")
            .env("HOOKWARD_MAX_OPEN_DELIVERIES_ORGANIZATION", "off")
            .envs(environment.iter().map(|(name, value)| (*name, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be opened twice"))
            .stderr(log)
            .spawn();
        state.child = Some(child.expect("the binary was built with the tests"));
        state.admin = None;
    }

    fn learn_ports(&self) {
        let from = self.state().log_from;
        let mut text = String::new();
        let read = File::open(self.log_path()).and_then(|mut log| {
            log.seek(SeekFrom::Start(from))?;
            log.read_to_string(&mut text)
        });
        if read.is_err() {
            return;
        }
        let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let line = lines.find_map(|line| line.strip_prefix("hookward is serving gRPC on "));
        let ports = line.and_then(|line| line.trim_end().split_once(", admin on "));
        let Some((grpc, admin)) = ports else { return };
        self.calls.point_at(grpc.parse().expect("an address"));
        self.state().admin = Some(admin.parse().expect("an address"));
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join(format!("replica-{}.log", self.slot))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}
