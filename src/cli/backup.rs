//! `hookward backup`: a copy of a SQLite file, beside the server that uses it.

use std::path::PathBuf;

use clap::Args;

use crate::config::{DatabaseArguments, read_database};
use crate::store::Store;

use super::Failure;

/// What to copy, and where to.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// File to write, which is not there yet; only its owner may read it
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// Copies it.
///
/// # Errors
///
/// When there is no such database, or the file cannot be written.
pub async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let settings = read_database(&arguments.database)?;
    Store::back_up(&settings.target, &arguments.to).await?;
    super::say(&format!("everything that was committed is in {}", arguments.to.display()))?;
    Ok(())
}
