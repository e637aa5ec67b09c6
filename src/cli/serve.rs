//! `hookward serve`: runs the service until it is told to stop.

use std::io::{self, Write};
use std::net::SocketAddr;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{CONFIGURATION, FAILURE, Failure};
use crate::app::{App, StartError};
use crate::config::{ServeArguments, Settings};
use crate::metrics::Metrics;
use crate::telemetry::Telemetry;

/// Exit code when a second signal cuts the shutdown short, as of a shell for SIGINT.
const INTERRUPTED: i32 = 130;

/// Starts the service, says where it listens, and stops it in good order at SIGTERM or
/// SIGINT. A second signal ends the process at once; nothing that was answered OK is lost
/// by that.
pub(super) async fn serve(arguments: &ServeArguments) -> Result<(), Failure> {
    let settings =
        Settings::read(arguments).map_err(|faults| Failure::new(CONFIGURATION, faults))?;
    let mut signals = Signals::new().map_err(|error| Failure::new(FAILURE, error))?;
    let telemetry =
        Telemetry::start(&settings.telemetry).map_err(|error| Failure::new(CONFIGURATION, error))?;
    let served = Box::pin(serve_until(settings, &mut signals)).await;
    tokio::select! {
        () = telemetry.flush() => {}
        () = signals.next() => std::process::exit(INTERRUPTED),
    }
    served
}

async fn serve_until(settings: Settings, signals: &mut Signals) -> Result<(), Failure> {
    let grpc_listen = settings.grpc_listen;
    let app = tokio::select! {
        app = App::start(settings, Metrics::new()) => app.map_err(failure)?,
        // Whatever it had taken lapses like that of a replica that died.
        () = signals.next() => return Ok(()),
    };
    if app.grpc_address().is_some() {
        warn_of_strangers(grpc_listen);
    }
    announce(app.grpc_address(), app.admin_address());
    signals.next().await;
    tracing::info!("stopping");
    tokio::select! {
        () = app.stop() => {}
        () = signals.next() => std::process::exit(INTERRUPTED),
    }
    tracing::info!("stopped");
    Ok(())
}

fn failure(error: StartError) -> Failure {
    match error {
        StartError::Settings(_) | StartError::Listen(..) => Failure::new(CONFIGURATION, error),
        StartError::Store(error) => Failure::from(error),
    }
}

fn warn_of_strangers(grpc_listen: SocketAddr) {
    if grpc_listen.ip().to_canonical().is_loopback() {
        tracing::info!("callers need no credentials; only this machine can call");
    } else {
        tracing::warn!(
            address = %grpc_listen,
            "--insecure-no-auth: whoever reaches this address may read and change everything"
        );
    }
}

/// The one line on stdout, for whoever started this and waits.
fn announce(grpc: Option<SocketAddr>, admin: Option<SocketAddr>) {
    let grpc = grpc.map_or("sending only".to_owned(), |address| format!("serving gRPC on {address}"));
    let admin = admin.map_or("off".to_owned(), |address| address.to_string());
    let mut stdout = io::stdout().lock();
    // Nobody may be reading; the log says the rest.
    let _ = writeln!(stdout, "hookward is {grpc}, admin on {admin}");
    let _ = stdout.flush();
}

/// What tells the process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
