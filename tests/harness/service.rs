//! One server, as an operator would run it: started, killed, stopped, restarted.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitStatus;
use std::sync::Arc;

use tonic::transport::{Channel, Endpoint};

use super::admin;
use super::authority::AUTHORITY;
use super::client::Organization;
use super::confided::Confided;
use super::engine::Engine;
use super::eventually::eventually;
use super::process::Process;

/// How to run `hookward serve`. Receivers on 127.0.0.1 may be called and the test
/// authority is trusted, unless told otherwise; the tests have no other way around the
/// rules of egress. Callers may call as often as they like.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    engine: Engine,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    loopback: bool,
    /// To all servers with these settings.
    confided: Arc<Confided>,
}

pub(crate) struct Service {
    settings: Settings,
    process: Process,
    ports: Ports,
}

struct Ports {
    admin: SocketAddr,
    /// Where it takes calls, and a connection to there; `None` where it only sends.
    grpc: Option<(SocketAddr, Channel)>,
}

impl Settings {
    pub(crate) fn new(engine: Engine) -> Settings {
        let rates = ["PUBLISH", "CALL"];
        let off = |kind| (format!("HOOKWARD_MAX_{kind}_RATE_ORGANIZATION"), "off".to_owned());
        let environment = rates.map(off).into();
        Settings {
            engine,
            arguments: Vec::new(),
            environment,
            loopback: true,
            confided: Arc::default(),
        }
    }

    /// Adds a flag with a value.
    pub(crate) fn flag(mut self, name: &str, value: &str) -> Settings {
        self.arguments.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Settings {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Opens no address: only public ones may be called.
    pub(crate) fn public_addresses_only(mut self) -> Settings {
        self.loopback = false;
        self
    }

    /// Starts a server and waits until it is ready.
    pub(crate) async fn start(self) -> Service {
        let mut process = self.launch();
        let ports = ready(&mut process).await;
        Service { settings: self, process, ports }
    }

    /// Starts a server that is not expected to get ready.
    pub(crate) fn launch(&self) -> Process {
        let folder = self.engine.folder();
        let authority = folder.join("authority.pem");
        // Once: servers that run look at it now and then, and must not find half of it.
        if !authority.exists() {
            fs::write(&authority, AUTHORITY.pem()).expect("the folder is ours");
        }
        let mut arguments: Vec<String> = [
            "serve",
            "--database-url",
            self.engine.url(),
            "--grpc-listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
            "--egress-ca",
            &authority.display().to_string(),
        ]
        .map(str::to_owned)
        .into();
        if self.loopback {
            arguments.extend(["--egress-allow", "127.0.0.1/32"].map(str::to_owned));
        }
        arguments.extend(self.arguments.iter().cloned());
        Process::start(&arguments, &self.environment, folder)
    }
}

impl Service {
    /// A server with the usual settings on a database of its own.
    pub(crate) async fn start(engine: Engine) -> Service {
        Settings::new(engine).start().await
    }

    /// Another server with the same settings on the same database.
    pub(crate) async fn replica(&self) -> Service {
        self.settings.clone().start().await
    }

    /// The words of one organization's caller, at this server.
    pub(crate) fn organization(&self, name: &str) -> Organization {
        Organization::new(name, self.channel(), self.confided())
    }

    /// What callers confide to it.
    pub(crate) fn confided(&self) -> Arc<Confided> {
        Arc::clone(&self.settings.confided)
    }

    /// A connection to the gRPC port.
    pub(crate) fn channel(&self) -> Channel {
        let (_, channel) = self.ports.grpc.as_ref().expect("this replica takes calls");
        channel.clone()
    }

    pub(crate) fn grpc_address(&self) -> SocketAddr {
        let (address, _) = self.ports.grpc.as_ref().expect("this replica takes calls");
        *address
    }

    /// A connection from 127.0.0.`last`, so that callers can have addresses of their own.
    pub(crate) async fn channel_from(&self, last: u8) -> Channel {
        connect(self.grpc_address(), Some(IpAddr::from([127, 0, 0, last]))).await
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.ports.admin
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The most memory that it ever had, in KiB.
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.expect("Linux says it").trim().trim_end_matches(" kB");
        kib.parse().expect("a number")
    }

    /// What its metrics page says of one series.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        admin::metric(self.ports.admin, series).await
    }

    /// The settings it runs with.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM; does not wait.
    pub(crate) fn terminate(&self) {
        self.process.terminate();
    }

    /// SIGHUP; does not wait.
    pub(crate) fn hang_up(&self) {
        self.process.hang_up();
    }

    /// SIGSTOP.
    pub(crate) fn freeze(&self) {
        self.process.freeze();
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.process.thaw();
    }

    /// Waits until the process has ended.
    pub(crate) async fn ends(&mut self) -> ExitStatus {
        self.process.ends().await
    }

    /// Everything it logged and printed.
    pub(crate) fn written(&self) -> String {
        self.process.written()
    }

    /// Starts it again after its end, on the same database and on other ports.
    pub(crate) async fn restart(&mut self) {
        self.process.end();
        self.search();
        self.process = self.settings.launch();
        self.ports = ready(&mut self.process).await;
    }
}

impl Service {
    /// Panics when the server has written what was confided to it.
    fn search(&self) {
        self.settings.confided.assert_absent("what the server wrote", &self.written());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.process.end();
            self.search();
        }
    }
}

/// Waits until it serves; where its gRPC port is, if it has one, and its admin port.
pub(crate) async fn addresses(process: &mut Process) -> (Option<SocketAddr>, SocketAddr) {
    let line = process.says("hookward is serving gRPC on ").await;
    let (grpc, admin) = line.split_once(", admin on ").expect("the line names both ports");
    let grpc = (grpc != "nowhere").then(|| grpc.parse().expect("an address"));
    (grpc, admin.parse().expect("an address"))
}

/// Waits until it serves; its admin port and a connection to its gRPC port, if it has
/// one.
async fn ready(process: &mut Process) -> Ports {
    let (grpc, admin) = addresses(process).await;
    let Some(grpc) = grpc else { return Ports { admin, grpc: None } };
    Ports { admin, grpc: Some((grpc, connect(grpc, None).await)) }
}

async fn connect(grpc: SocketAddr, from: Option<IpAddr>) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{grpc}")).expect("a URL");
    let endpoint = endpoint.local_address(from);
    eventually("a connection", async || endpoint.connect().await.ok()).await
}
