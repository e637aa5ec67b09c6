//! Every method with structured requests, at the real server on a real store: answers
//! have the codes that the API documents, errors have their form, and what was stored
//! is there and nobody else's.
#![no_main]

mod call;
mod caller;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use hookward::app::App;
use hookward::config::Settings;
use hookward::metrics::Metrics;
use hookward::store::Store;
use hookward_fuzz::RUNTIME;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use self::call::Call;
use self::caller::Caller;

/// Most calls of one input.
const CALLS_MAX: usize = 24;

static ORGANIZATION: AtomicU64 = AtomicU64::new(0);
static SERVER: LazyLock<Server> = LazyLock::new(|| RUNTIME.block_on(Server::start()));

/// The service in this process. It answers calls and sends nothing.
struct Server {
    _folder: TempDir,
    _app: App,
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
            "--egress-allow=127.0.0.1/32".to_owned(),
            "--max-call-rate-organization=off".to_owned(),
        ];
        let settings = Settings::from_flags(flags).expect("they are right");
        Store::migrate(&settings.database).await.expect("migrates");
        let app = App::start(settings, Metrics::new()).await.expect("starts");
        let address = app.grpc_address().expect("it takes calls");
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an endpoint");
        let channel = endpoint.connect().await.expect("connects");
        Server { _folder: folder, _app: app, channel }
    }
}

fuzz_target!(|calls: Vec<Call>| {
    let number = ORGANIZATION.fetch_add(1, Ordering::Relaxed);
    let mut caller = Caller::new(SERVER.channel.clone(), format!("organization-{number}"));
    RUNTIME.block_on(async move {
        for call in calls.into_iter().take(CALLS_MAX) {
            caller.make(call).await;
        }
        caller.check().await;
    });
});
