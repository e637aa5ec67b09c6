//! `hookward serve` and `hookward migrate`.

use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::config::{DatabaseArguments, Role, Settings, read_database};
use crate::metrics::Metrics;
use crate::store::{Store, Target};
use crate::telemetry::Telemetry;

use super::Failure;

/// Runs the service until SIGTERM or SIGINT; a second signal ends it at once.
///
/// # Errors
///
/// When it cannot start.
pub async fn serve(settings: Settings) -> Result<(), Failure> {
    let telemetry = Telemetry::start(&settings.telemetry)?;
    let role = settings.role;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let app = App::start(settings, Metrics::new()).await?;
    announce(&app, role);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: no new calls, requests under way are finished");
    tokio::select! {
        () = app.stop() => tracing::info!("stopped"),
        _ = terminate.recv() => tracing::warn!("stopped at once, by a second signal"),
        _ = interrupt.recv() => tracing::warn!("stopped at once, by a second signal"),
    }
    telemetry.flush().await;
    Ok(())
}

/// Brings a database to this version.
///
/// # Errors
///
/// When the database cannot be reached or used.
pub async fn migrate(arguments: &DatabaseArguments) -> Result<(), Failure> {
    let settings = read_database(arguments)?;
    Store::migrate(&settings).await?;
    let what = match settings.target {
        Target::Sqlite(path) => path.display().to_string(),
        Target::Postgres(_) => "PostgreSQL".to_owned(),
    };
    super::say(&format!("{what} is at the schema of hookward {}", env!("CARGO_PKG_VERSION")))?;
    Ok(())
}

/// The one line on standard output: where the service is. Scripts wait for it.
fn announce(app: &App, role: Role) {
    let at = |address: Option<std::net::SocketAddr>| {
        address.map_or_else(|| "nowhere".to_owned(), |address| address.to_string())
    };
    let line = format!(
        "hookward is serving gRPC on {}, admin on {}",
        at(app.grpc_address()),
        at(app.admin_address())
    );
    tracing::info!(?role, "{line}");
    // Whoever closed standard output does not want the line.
    let _ = super::say(&line);
}
