//! The service under demonstration, in this process, with the settings that a user
//! would give it.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use crate::cli::receiver::Receiver;

/// A running service.
#[derive(Debug)]
pub(super) struct Service {
    store_file: PathBuf,
    grpc_address: SocketAddr,
}

impl Service {
    /// Starts one that keeps its store in `folder` and may call `receiver`, over TLS
    /// and nowhere else on this machine.
    pub(super) async fn start(folder: &Path, receiver: &Receiver) -> anyhow::Result<Service> {
        let _ = (folder, receiver);
        anyhow::bail!("waits for app")
    }

    pub(super) fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    pub(super) fn store_file(&self) -> PathBuf {
        self.store_file.clone()
    }

    /// Stops it in good order.
    pub(super) async fn stop(self) {}
}
