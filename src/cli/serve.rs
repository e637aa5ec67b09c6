//! `hookward serve` and `hookward migrate`.

use std::io;
use std::net::SocketAddr;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::App;
use crate::config::{
    DatabaseArguments, Marks, Role, Settings, Source, kubernetes_api, read_database,
};
use crate::metrics::Metrics;
use crate::store::{RowSecurity, Store, Target};
use crate::telemetry::Telemetry;

use super::huge_pages::HugePages;
use super::reload::Reloader;
use super::{Failure, process_limits};

/// Exit code when a second signal cuts the shutdown short, as of a shell for SIGINT.
const INTERRUPTED: i32 = 130;

/// Runs the service until SIGTERM or SIGINT. A second signal ends the process at once;
/// nothing that was answered OK is lost by that.
///
/// # Errors
///
/// When it cannot start.
pub async fn serve(
    mut settings: Settings,
    (source, marks): (Source, Marks),
    mut signals: Signals,
    huge_pages: HugePages,
) -> Result<(), Failure> {
    let telemetry = Telemetry::start(&settings.telemetry)?;
    settings.egress.idle_in_all_max = process_limits::set(settings.in_flight.replica);
    settings.kubernetes_api = kubernetes_api();
    let metrics = telemetry.metrics();
    let reloader = Reloader::new(source, marks, metrics.clone());
    let served = match start(settings, metrics, &mut signals.ends).await {
        Ok(Some(app)) => {
            tokio::spawn(huge_pages.take_once_started());
            serve_until(app, reloader, &telemetry, &mut signals).await;
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(failure) => Err(failure),
    };
    tokio::select! {
        () = telemetry.flush() => {}
        () = signals.ends.next() => std::process::exit(INTERRUPTED),
    }
    served
}

async fn serve_until(
    mut app: App,
    reloader: Reloader,
    telemetry: &Telemetry,
    signals: &mut Signals,
) {
    let Signals { ends, hangups } = signals;
    tokio::select! {
        () = ends.next() => {}
        never = reloader.keep(&mut app, telemetry, hangups) => match never {},
    }
    stop(app, ends).await;
}

/// `None`: it was told to stop before it could start.
async fn start(
    settings: Settings,
    metrics: Metrics,
    ends: &mut Ends,
) -> Result<Option<App>, Failure> {
    let (role, open, plain) = (settings.role, settings.auth.is_open(), settings.tls.is_none());
    let primary = settings.database.keyring.primary().map(str::to_owned);
    let app = tokio::select! {
        app = App::start(settings, metrics) => app?,
        // What it had taken by then lapses, like that of a replica that died.
        () = ends.next() => return Ok(None),
    };
    match app.grpc_address() {
        Some(address) if open => warn_of_strangers(address),
        Some(address) if plain => warn_of_listeners(address),
        Some(_) | None => {}
    }
    if let Some(primary) = primary {
        tracing::info!(primary, "what is stored is encrypted");
    } else {
        tracing::info!("no encryption keys: what is stored is plaintext");
    }
    announce(&app, role);
    Ok(Some(app))
}

async fn stop(app: App, ends: &mut Ends) {
    tracing::info!("stopping: no new calls, requests under way are finished");
    tokio::select! {
        () = app.stop() => tracing::info!("stopped"),
        () = ends.next() => {
            tracing::warn!("stopped at once, by a second signal");
            std::process::exit(INTERRUPTED);
        }
    }
}

/// Brings a database to this version.
///
/// # Errors
///
/// When the database cannot be reached or used.
pub async fn migrate(arguments: &DatabaseArguments) -> Result<(), Failure> {
    let settings = read_database(arguments)?;
    let applied = match Store::migrate(&settings).await? {
        0 => "nothing was to be done".to_owned(),
        1 => "1 migration applied".to_owned(),
        count => format!("{count} migrations applied"),
    };
    let row_security = Store::look_at_row_security(&settings).await?;
    let what = match settings.target {
        Target::Sqlite(path) => path.display().to_string(),
        Target::Postgres(_) => "PostgreSQL".to_owned(),
    };
    let version = env!("CARGO_PKG_VERSION");
    super::say(&format!("{what} is at the schema of hookward {version}: {applied}"))?;
    if let RowSecurity::Off(remedy) = row_security {
        super::say(&format!("row-level security is off: {remedy}"))?;
    }
    Ok(())
}

fn warn_of_strangers(address: SocketAddr) {
    if address.ip().to_canonical().is_loopback() {
        tracing::info!("callers need no credentials; only this machine can call");
    } else {
        tracing::warn!(
            %address,
            "--insecure-no-auth: whoever reaches this address may read and change everything"
        );
    }
}

fn warn_of_listeners(address: SocketAddr) {
    if !address.ip().to_canonical().is_loopback() {
        tracing::warn!(
            %address,
            "without --tls-cert credentials and payloads cross the network unencrypted; right \
             only where something in front of this port, such as a sidecar, speaks TLS"
        );
    }
}

/// The one line on standard output: where the service is. Scripts wait for it.
fn announce(app: &App, role: Role) {
    let at = |address: Option<SocketAddr>| {
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

/// What the process is told from outside.
#[derive(Debug)]
pub struct Signals {
    ends: Ends,
    /// Asks for the settings to be read anew. Those that come before there is a service are
    /// kept for it.
    hangups: Signal,
}

impl Signals {
    /// Takes signals in: from now on none of these ends the process by itself.
    ///
    /// # Errors
    ///
    /// When the system does not let it.
    pub fn new() -> io::Result<Signals> {
        let ends = Ends {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        Ok(Signals { ends, hangups: signal(SignalKind::hangup())? })
    }
}

/// What tells the process to stop.
#[derive(Debug)]
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
