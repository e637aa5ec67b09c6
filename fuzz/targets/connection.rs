//! Whatever bytes somebody sends to the gRPC port, the server does not panic, and others are
//! served. That it does not grow is seen by the fuzzer's own limit of memory only.
//!
//! The first byte of an input says how it begins: odd, as a client of HTTP/2 does.
#![no_main]

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use hookward::app::App;
use hookward::config::Settings;
use hookward::grpc::pb::ListEventsRequest;
use hookward::grpc::pb::event_service_client::EventServiceClient;
use hookward::metrics::Metrics;
use hookward::store::Store;
use hookward_fuzz::RUNTIME;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

/// The client's preface and empty SETTINGS (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The server need not say more than this to one input.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// How long its answer is waited for: some inputs leave it waiting for more.
const PATIENCE: Duration = Duration::from_millis(20);
/// Longest call on a machine that does other things as well.
const CALL_MAX: Duration = Duration::from_secs(10);

static SERVER: LazyLock<Server> = LazyLock::new(|| RUNTIME.block_on(Server::start()));

/// The service in this process, and a connection to it.
struct Server {
    _folder: TempDir,
    _app: App,
    address: SocketAddr,
    channel: Channel,
}

impl Server {
    async fn start() -> Server {
        let folder = TempDir::new().expect("a temporary folder");
        let flags = [
            format!("--database-url=sqlite:{}", folder.path().join("hookward.db").display()),
            "--grpc-listen=127.0.0.1:0".to_owned(),
            "--admin-listen=off".to_owned(),
            "--role=api".to_owned(),
            "--max-call-rate-organization=off".to_owned(),
        ];
        let settings = Settings::from_flags(flags).expect("they are right");
        Store::migrate(&settings.database).await.expect("migrates");
        let app = App::start(settings, Metrics::new()).await.expect("starts");
        let address = app.grpc_address().expect("it takes calls");
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an endpoint");
        let channel = endpoint.connect().await.expect("connects");
        Server { _folder: folder, _app: app, address, channel }
    }

    /// Writes all of it, ends, and hears what the server has to say.
    async fn send(&self, parts: [&[u8]; 2]) {
        let mut stream = TcpStream::connect(self.address).await.expect("it accepts");
        for part in parts {
            if stream.write_all(part).await.is_err() {
                return;
            }
        }
        // It may have closed the connection by now.
        let _ = stream.shutdown().await;
        let (mut answer, mut rest) = (Vec::new(), stream.take(ANSWER_BYTES_MAX));
        let _ = timeout(PATIENCE, rest.read_to_end(&mut answer)).await;
        assert!((answer.len() as u64) < ANSWER_BYTES_MAX, "it says much for {parts:?}");
    }

    async fn serves_others(&self) {
        let organization_id = "clinic".to_owned();
        let request = ListEventsRequest { organization_id, ..ListEventsRequest::default() };
        let mut client = EventServiceClient::new(self.channel.clone());
        let answer = timeout(CALL_MAX, client.list_events(request)).await;
        answer.expect("it answers in time").expect("it is right");
    }
}

fuzz_target!(|input: &[u8]| {
    let server = &*SERVER;
    let Some((first, rest)) = input.split_first() else { return };
    let begin = if first % 2 == 1 { PREFACE } else { &[] };
    RUNTIME.block_on(async {
        server.send([begin, rest]).await;
        server.serves_others().await;
    });
});
