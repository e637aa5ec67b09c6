//! What a person does on a command line, and what they get to read.

pub mod api_key;
pub mod audit;
pub mod backup;
pub mod config;
pub mod demo;
pub mod health;
pub mod huge_pages;
pub mod keys;
pub mod listen;
pub mod organization;
mod process_limits;
pub mod receiver;
mod reload;
pub mod retention;
pub mod serve;
pub mod terminal;
pub mod verifier;

#[cfg(test)]
mod tests;

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::huge_pages::HugePages;
use crate::app::StartError;
use crate::config::{
    DatabaseArguments, Faults, Marks, ServeArguments, Settings, Source, last, told,
};
use crate::store::StoreError;
use crate::telemetry::TelemetryError;

/// The command line was not understood (sysexits.h).
const EXIT_USAGE: u8 = 64;
/// The settings, or what they point at, cannot be used (sysexits.h).
const EXIT_CONFIG: u8 = 78;

/// Durable, signed webhook delivery for healthcare platforms.
#[derive(Debug, Parser)]
#[command(name = "hookward", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make, list and revoke the keys that callers show
    #[command(subcommand)]
    ApiKey(api_key::Arguments),
    /// Show the audit log, and check that nobody has changed it
    #[command(subcommand)]
    Audit(audit::Arguments),
    /// Copy a SQLite file while a server uses it
    Backup(backup::Arguments),
    /// Check the settings of the service, or print them without secrets
    #[command(subcommand)]
    Config(config::Arguments),
    /// Show the main job at work: events in over gRPC, signed webhooks out
    Demo(demo::Arguments),
    /// Ask a running process how it is
    Health(health::Arguments),
    /// Change what stored values are encrypted under
    #[command(subcommand)]
    Keys(keys::Arguments),
    /// Run a receiver that verifies and shows what arrives
    Listen(listen::Arguments),
    /// Bring a database to this version
    Migrate(DatabaseArguments),
    /// Delete everything of an organization
    #[command(subcommand)]
    Organization(organization::Arguments),
    /// Show and change how long data is kept
    #[command(subcommand)]
    Retention(retention::Arguments),
    /// Run the service
    Serve(Box<ServeArguments>),
}

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The settings have faults.
    #[error("{0}")]
    Settings(#[from] Faults),
    /// The service cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Logs and traces.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Signals or standard output.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A command for people.
    #[error("{0:#}")]
    Command(#[from] anyhow::Error),
    /// The demo ran, and not all of it held.
    #[error("the demo did not hold")]
    Demo,
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        let config = match self {
            Failure::Settings(_) | Failure::Telemetry(_) => true,
            Failure::Start(error) => match error {
                StartError::Settings(_) | StartError::Store(StoreError::Setup(_)) => true,
                StartError::Listen(..) | StartError::OwnAddresses(_) | StartError::Store(_) => {
                    false
                }
            },
            Failure::Store(error) => {
                matches!(error, StoreError::Setup(_) | StoreError::Locked(_))
            }
            Failure::Command(error) => error.is::<Faults>(),
            Failure::Io(_) | Failure::Demo => false,
        };
        if config { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
    }
}

/// Runs the command that this process was called with.
pub async fn run(huge_pages: HugePages) -> ExitCode {
    let told = told(&Arguments::command());
    let parsed = told.and_then(|told| Ok((Arguments::from_arg_matches(&told)?, told)));
    let (arguments, told) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // Nothing is left to be told when standard error is gone.
            let _ = error.print();
            return ExitCode::from(parse_code(error.kind()));
        }
    };
    match execute(arguments.command, &told, huge_pages).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.to_string().lines() {
                // As above.
                let _ = writeln!(std::io::stderr(), "hookward: {line}");
            }
            failure.exit_code()
        }
    }
}

async fn execute(
    command: Command,
    told: &ArgMatches,
    huge_pages: HugePages,
) -> Result<(), Failure> {
    match command {
        Command::ApiKey(arguments) => api_key::run(arguments).await,
        Command::Audit(arguments) => audit::run(arguments).await,
        Command::Backup(arguments) => backup::run(&arguments).await,
        Command::Config(arguments) => config::run(&arguments, told),
        Command::Demo(arguments) => {
            if demo::demo(arguments).await? {
                Ok(())
            } else {
                Err(Failure::Demo)
            }
        }
        Command::Health(arguments) => Ok(Box::pin(health::run(arguments)).await?),
        Command::Keys(arguments) => keys::run(arguments).await,
        Command::Listen(arguments) => Ok(listen::listen(arguments).await?),
        Command::Migrate(arguments) => serve::migrate(&arguments).await,
        Command::Organization(arguments) => organization::run(arguments).await,
        Command::Retention(arguments) => retention::run(arguments).await,
        Command::Serve(arguments) => {
            // First of all, so that SIGHUP ends nothing.
            let signals = serve::Signals::new()?;
            let marks = Marks::of(last(told));
            let settings = Settings::read(&arguments)?;
            let source = Source::new(Arguments::command());
            Box::pin(serve::serve(settings, (source, marks), signals, huge_pages)).await
        }
    }
}

/// A wrong value is a wrong setting, for it may come from the environment; anything else
/// that cannot be read is a wrong command line.
fn parse_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        ErrorKind::ValueValidation | ErrorKind::InvalidUtf8 => EXIT_CONFIG,
        // Also a flag without its value, which clap calls an invalid value.
        _ => EXIT_USAGE,
    }
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
