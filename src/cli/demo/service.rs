//! The service under demonstration, in this process, with the settings that a user
//! would give it.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;

use crate::app::App;
use crate::cli::receiver::Receiver;
use crate::config::ServeArguments;
use crate::config::Settings;
use crate::metrics::Metrics;

/// A running service.
pub(super) struct Service {
    store_file: PathBuf,
    grpc_address: SocketAddr,
    app: App,
}

/// `serve`'s own command line.
#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    serve: ServeArguments,
}

impl Service {
    /// Starts one that keeps its store in `folder` and may call `receiver`, over TLS
    /// and nowhere else on this machine.
    pub(super) async fn start(folder: &Path, receiver: &Receiver) -> anyhow::Result<Service> {
        let store_file = folder.join("hookward.db");
        let ca_file = folder.join("receiver-ca.pem");
        std::fs::write(&ca_file, receiver.authority_pem().unwrap_or_default())
            .context("cannot write the receiver's certificate authority")?;
        let line = Line::try_parse_from([
            "serve".to_owned(),
            format!("--database-url=sqlite:{}", store_file.display()),
            "--grpc-listen=127.0.0.1:0".to_owned(),
            "--admin-listen=off".to_owned(),
            format!("--egress-allow=127.0.0.1:{}", receiver.address().port()),
            format!("--egress-ca={}", ca_file.display()),
        ])?;
        let settings = Settings::read(&line.serve)?;
        let app = App::start(settings, Metrics::new()).await?;
        let grpc_address = app.grpc_address().context("the service takes no calls")?;
        Ok(Service { store_file, grpc_address, app })
    }

    pub(super) fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    pub(super) fn store_file(&self) -> PathBuf {
        self.store_file.clone()
    }

    /// Stops it in good order.
    pub(super) async fn stop(self) {
        self.app.stop().await;
    }
}
