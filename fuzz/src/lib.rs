//! What several targets need: a runtime, the service, a receiver on loopback that does as
//! told, and inputs of several parts.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use hookward::app::App;
use hookward::config::Settings;
use hookward::domain::address::AddressPolicy;
use hookward::domain::endpoint_url::EndpointUrl;
use hookward::egress::{self, Egress, Target};
use hookward::metrics::Metrics;
use hookward::store::Store;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::{Channel, Endpoint};

/// One thread beside the fuzzer's own: what runs in the background goes on between two
/// inputs.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
});

/// How long this thread has been on a processor: what a busy machine does to a clock on
/// the wall is nobody's fault. Linux only.
pub fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("nanoseconds come first"))
}

/// The real way out. Only loopback may be called.
pub static EGRESS: LazyLock<Egress> = LazyLock::new(|| {
    let allow = vec!["127.0.0.1/32".parse().expect("an address")];
    Egress::new(egress::Settings::new(AddressPolicy { allow, ..AddressPolicy::default() }))
        .expect("opens")
});

/// The parts of an input between these two bytes; at least one.
pub fn split<'a>(mut text: &'a [u8], separator: &[u8; 2]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = text.windows(2).position(|two| two == separator) {
        parts.push(&text[..at]);
        text = &text[at + 2..];
    }
    parts.push(text);
    parts
}

/// The service in this process, on a SQLite file of its own, and a connection to it. It
/// answers calls and sends nothing.
pub struct Server {
    _folder: TempDir,
    _app: App,
    /// Where it takes calls.
    pub address: SocketAddr,
    /// A connection to there.
    pub channel: Channel,
}

impl Server {
    /// Starts one that calls on nobody but loopback and asks for no credentials.
    pub async fn start() -> Server {
        let folder = TempDir::new().expect("a temporary folder");
        let settings = Server::settings(&folder, &["--egress-allow=127.0.0.1/32"]);
        Store::migrate(&settings.database).await.expect("migrates");
        Server::run(folder, settings).await
    }

    /// The settings of one whose file is in `folder`, with these flags besides.
    pub fn settings(folder: &TempDir, flags: &[&str]) -> Settings {
        let usual = [
            &*format!("--database-url=sqlite:{}", folder.path().join("hookward.db").display()),
            "--grpc-listen=127.0.0.1:0",
            "--admin-listen=off",
            "--role=api",
            "--max-call-rate-organization=off",
        ];
        let flags = usual.iter().chain(flags).map(|flag| (*flag).to_owned());
        Settings::from_flags(flags).expect("they are right")
    }

    /// Starts one on a database that is ready.
    pub async fn run(folder: TempDir, settings: Settings) -> Server {
        let app = App::start(settings, Metrics::new()).await.expect("starts");
        let address = app.grpc_address().expect("it takes calls");
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an endpoint");
        let channel = endpoint.connect().await.expect("connects");
        Server { _folder: folder, _app: app, address, channel }
    }
}

/// How a receiver treats a connection.
#[derive(Clone, Debug)]
pub struct Script {
    /// What the receiver writes after the first request, the second, and so on, over all
    /// its connections.
    pub answers: Vec<Vec<u8>>,
    /// Whether it waits for another request after each answer; it closes otherwise.
    pub keeps_open: bool,
    /// How long it waits.
    pub patience: Duration,
}

/// A receiver with a port of its own.
pub struct Receiver {
    target: Arc<Target>,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Starts one.
    pub async fn start(script: Script) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let url = EndpointUrl::stored(&format!("http://127.0.0.1:{port}/hook"));
        let target = Target::new(&url.expect("a URL")).expect("a target");
        let requests: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let (script, seen) = (Arc::new(script), Arc::clone(&requests));
        let task = tokio::spawn(async move {
            // Dropped with this task, and its connections with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&script), Arc::clone(&seen)));
            }
        });
        Receiver { target: Arc::new(target), requests, task }
    }

    /// Where it listens.
    pub fn target(&self) -> Arc<Target> {
        Arc::clone(&self.target)
    }

    /// The requests that it has read, each with head and body.
    pub fn requests(&self) -> Vec<Vec<u8>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, seen: Arc<Mutex<Vec<Vec<u8>>>>) {
    loop {
        let request = tokio::time::timeout(script.patience, read_request(&mut stream));
        let Ok(Some(request)) = request.await else { return };
        let answer = {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(request);
            script.answers.get(seen.len() - 1)
        };
        let Some(answer) = answer else { return };
        if stream.write_all(answer).await.is_err() || !script.keeps_open {
            return;
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        if let Some(length) = whole_length(&text) {
            text.truncate(length);
            return Some(text);
        }
        if stream.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
    }
}

/// The length of the request at the start of `text`, once all of it is there.
fn whole_length(text: &[u8]) -> Option<usize> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(text).expect("we send HTTP") {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => return None,
    };
    let length = request.headers.iter().find(|header| header.name == "content-length");
    let length = length.map_or(0, |header| {
        let digits = std::str::from_utf8(header.value).expect("digits");
        digits.parse::<usize>().expect("a number")
    });
    (head + length <= text.len()).then_some(head + length)
}
