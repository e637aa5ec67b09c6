//! `hookward backup`: a copy of a SQLite file, beside the server that uses it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::{DatabaseArguments, read_database};
use crate::store::{Store, Target};

use super::Failure;

/// What to copy, and where to.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// File to write, which is not there yet; only its owner may read it. `-`: to stdout, with as
    /// much room needed beside the original meanwhile
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
    if let Target::Sqlite(original) = &settings.target
        && arguments.to == Path::new("-")
    {
        // Whoever reads it has all of it or an error, and the folder can be written.
        let beside = original.with_extension(format!("copy-{:08x}", fastrand::u32(..)));
        Store::back_up(&settings.target, &beside).await?;
        return Ok(pour(&beside)?);
    }
    Store::back_up(&settings.target, &arguments.to).await?;
    super::say(&format!("everything that was committed is in {}", arguments.to.display()))?;
    Ok(())
}

/// Writes a file to stdout, and leaves nothing of it, however that ends.
fn pour(path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    fs::remove_file(path)?;
    let mut out = io::stdout().lock();
    io::copy(&mut file, &mut out)?;
    out.flush()
}
