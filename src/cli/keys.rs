//! `hookward keys`: what stored values are encrypted under. It works on the database, beside
//! the servers that use it.

use anyhow::bail;
use clap::{Args, Subcommand};

use crate::config::{
    DatabaseArguments, EncryptionArguments, read_database, read_database_and_keys,
};
use crate::domain::id::OrganizationId;
use crate::store::Store;

use super::Failure;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum Arguments {
    /// Bring everything stored under the primary key: also what is plaintext so far
    Rotate(Rotate),
    /// Make what an organization has stored unreadable for good
    Shred(Shred),
}

/// Which database, and the keys before and after.
#[derive(Args, Debug)]
pub struct Rotate {
    #[command(flatten)]
    database: DatabaseArguments,
    #[command(flatten)]
    encryption: EncryptionArguments,
}

/// Whose data.
#[derive(Args, Debug)]
pub struct Shred {
    #[command(flatten)]
    database: DatabaseArguments,
    /// Organization whose payloads, secrets and headers nobody is to read again
    #[arg(long, value_name = "ID")]
    organization: String,
}

/// Does it.
///
/// # Errors
///
/// When the database cannot be used, or a key is missing.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments {
        Arguments::Rotate(rotate) => self::rotate(&rotate).await,
        Arguments::Shred(shred) => self::shred(&shred).await,
    }
}

async fn rotate(rotate: &Rotate) -> Result<(), Failure> {
    let settings = read_database_and_keys(&rotate.database, &rotate.encryption)?;
    let Some(primary) = settings.keyring.primary().map(str::to_owned) else {
        return Err(anyhow::anyhow!("no keys: say --encryption-keys-file, or its variable").into());
    };
    let store = Store::visit(&settings).await?;
    let mut entry = super::audit::entry("keys rotate");
    entry.changed_fields.push("data_keys".to_owned());
    let rekeyed = store.rekey(&entry).await;
    store.close().await;
    let rekeyed = rekeyed?;
    super::say(&format!(
        "everything is under {primary}: {} data keys wrapped anew, {} plaintext values encrypted",
        rekeyed.data_keys, rekeyed.sealed
    ))?;
    Ok(())
}

async fn shred(shred: &Shred) -> Result<(), Failure> {
    let settings = read_database(&shred.database)?;
    let organization = organization(&shred.organization)?;
    let store = Store::visit(&settings).await?;
    let mut entry = super::audit::entry("keys shred");
    entry.object_ids.push(organization.as_str().to_owned());
    entry.changed_fields.push("data_keys".to_owned());
    let destroyed = store.shred(&organization, &entry).await;
    store.close().await;
    let destroyed = destroyed?;
    super::say(&format!("{destroyed} data keys of {} destroyed", organization.as_str()))?;
    Ok(())
}

fn organization(text: &str) -> anyhow::Result<OrganizationId> {
    match OrganizationId::parse(text) {
        Ok(organization) => Ok(organization),
        Err(why) => bail!("--organization: {why}"),
    }
}
