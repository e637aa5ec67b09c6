//! What a person does on a command line, and what they get to read.
//!
//! Exit codes are those of BSD's `sysexits.h` where it has one: 64 for a wrong command
//! line, 78 for wrong settings. `docs/CONFIGURATION.md` lists them all.

pub mod demo;
pub mod listen;
pub mod receiver;
pub mod terminal;
pub mod verifier;

mod migrate;
mod serve;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::config::{DatabaseArguments, ServeArguments};
use crate::store::StoreError;
use crate::telemetry;

/// A wrong command line (`EX_USAGE`).
const USAGE: u8 = 64;
/// A wrong setting, or something that only the operator can mend (`EX_CONFIG`).
const CONFIGURATION: u8 = 78;
/// Anything else.
const FAILURE: u8 = 1;

/// Durable, signed webhook delivery
#[derive(Debug, Parser)]
#[command(name = "hookward", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Serve(Box<ServeArguments>),
    /// Bring the database to this version; PostgreSQL needs it before the first start and
    /// before each new version
    Migrate(DatabaseArguments),
    /// Show in a few seconds what Hookward does, on this machine alone
    Demo(demo::Arguments),
    /// Receive webhooks and show them
    Listen(listen::Arguments),
}

/// Why a command failed: what to say, and the exit code.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(code: u8, message: impl fmt::Display) -> Self {
        Failure { code, message: message.to_string() }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::new(FAILURE, format!("{error:#}"))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let code = if matches!(error, StoreError::Setup(_)) { CONFIGURATION } else { FAILURE };
        Failure::new(code, error)
    }
}

/// Does what `words` say, the program's name first. Everything that `main` does.
pub fn run<T: Into<OsString> + Clone>(words: impl IntoIterator<Item = T>) -> ExitCode {
    let line = match CommandLine::try_parse_from(words) {
        Ok(line) => line,
        Err(error) => {
            // A closed terminal is no reason to fail differently.
            let _ = error.print();
            return ExitCode::from(parse_code(error.kind()));
        }
    };
    telemetry::hide_panic_messages();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(execute(line.command)),
        Err(error) => Err(Failure::new(FAILURE, format!("no threads: {error}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.message.lines() {
                eprintln!("hookward: {line}");
            }
            ExitCode::from(failure.code)
        }
    }
}

async fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(arguments) => Box::pin(serve::serve(&arguments)).await,
        Command::Migrate(arguments) => migrate::migrate(&arguments).await,
        Command::Demo(arguments) => match Box::pin(demo::demo(arguments)).await? {
            true => Ok(()),
            false => Err(Failure::new(FAILURE, "the demo did not hold")),
        },
        Command::Listen(arguments) => Ok(listen::listen(arguments).await?),
    }
}

/// A wrong value is a wrong setting: it may come from the environment. Anything else that
/// cannot be read is a wrong command line.
fn parse_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::InvalidUtf8 => {
            CONFIGURATION
        }
        _ => USAGE,
    }
}
