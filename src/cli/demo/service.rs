//! The service under demonstration: the one that `hookward serve` starts, in this
//! process, with flags that a user could give.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use clap::Args;
use clap::FromArgMatches;

use crate::app::App;
use crate::cli::receiver::Receiver;
use crate::config::ServeArguments;
use crate::config::Settings;
use crate::metrics::Metrics;

/// A running service.
pub(super) struct Service {
    app: App,
    grpc_address: SocketAddr,
    flags: Vec<String>,
}

impl Service {
    /// Starts one that keeps its store in `folder` and may call `receiver`, over TLS,
    /// and no other private address.
    pub(super) async fn start(folder: &Path, receiver: &Receiver) -> anyhow::Result<Service> {
        let authority = folder.join("receiver-ca.pem");
        fs::write(&authority, receiver.authority_pem().unwrap_or_default())
            .with_context(|| format!("cannot write {}", authority.display()))?;
        let flags = flags(&folder.join("hookward.db"), &authority, receiver.address());
        let app = App::start(settings(&flags)?, Metrics::new()).await?;
        let grpc_address = app.grpc_address().context("the service takes no calls")?;
        Ok(Service { app, grpc_address, flags })
    }

    pub(super) fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// The flags that `hookward serve` would be given, each with its value.
    pub(super) fn flags(&self) -> &[String] {
        &self.flags
    }

    /// Stops it in good order.
    pub(super) async fn stop(self) {
        self.app.stop().await;
    }
}

fn flags(store: &Path, authority: &Path, receiver: SocketAddr) -> Vec<String> {
    vec![
        format!("--database-url=sqlite:{}", store.display()),
        "--grpc-listen=127.0.0.1:0".to_owned(),
        "--admin-listen=off".to_owned(),
        format!("--egress-allow={receiver}"),
        format!("--egress-ca={}", authority.display()),
    ]
}

fn settings(flags: &[String]) -> anyhow::Result<Settings> {
    let arguments = ServeArguments::from_arg_matches(&serve().try_get_matches_from(flags)?)?;
    Ok(Settings::read(&arguments)?)
}

/// What reads flags as `hookward serve` does, but nothing of the environment: a demo
/// must not find its way into a real database.
fn serve() -> clap::Command {
    ServeArguments::augment_args(clap::Command::new("serve").no_binary_name(true))
        .mut_args(|argument| argument.env(None::<&str>))
}

#[cfg(test)]
mod tests {
    use crate::store::Target;

    use super::*;

    #[test]
    fn the_flags_say_all_and_the_environment_nothing() {
        assert!(serve().get_arguments().all(|argument| argument.get_env().is_none()));

        let folder = tempfile::tempdir().expect("a folder");
        let (store, authority) = (folder.path().join("a.db"), folder.path().join("a.pem"));
        fs::write(&authority, "-----BEGIN CERTIFICATE-----").expect("written");
        let receiver: SocketAddr = "127.0.0.1:9000".parse().expect("an address");
        let settings = settings(&flags(&store, &authority, receiver)).expect("they are right");
        assert!(matches!(settings.database.target, Target::Sqlite(path) if path == store));
        let rules = settings.egress.policy.rules(None);
        assert!(rules.permits(receiver.ip(), receiver.port()));
        assert!(!rules.permits(receiver.ip(), 9001));
    }
}
