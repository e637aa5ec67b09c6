//! `hookward organization`: deleting all that is known of one but its audit log. It works on
//! the database, beside the servers that use it, and no key of the API opens it.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::{Args, Subcommand};

use crate::config::{DatabaseArguments, read_database};
use crate::domain::id::OrganizationId;
use crate::store::{Deletion, Store, StoreError};

use super::Failure;

/// What to do with an organization.
#[derive(Debug, Subcommand)]
pub enum Arguments {
    /// Delete its subscriptions, secrets, events, deliveries and API keys, for good
    Delete(Delete),
}

/// An organization to be deleted.
#[derive(Args, Debug)]
pub struct Delete {
    #[command(flatten)]
    database: DatabaseArguments,
    /// Its id
    #[arg(value_name = "ID")]
    organization: String,
    /// Its id once more: what is deleted does not come back
    #[arg(long, value_name = "ID")]
    confirm: String,
}

/// Does it.
///
/// # Errors
///
/// When the id is none or is not confirmed, or the database cannot be used. What was deleted
/// by then is deleted: the same command goes on.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments::Delete(delete) = arguments;
    let organization = read(&delete)?;
    let store = Store::visit(&read_database(&delete.database)?).await?;
    let deleted = self::delete(&store, &organization).await;
    store.close().await;
    deleted
}

fn read(delete: &Delete) -> anyhow::Result<OrganizationId> {
    if delete.confirm != delete.organization {
        bail!("--confirm: write the id of the organization once more");
    }
    match OrganizationId::parse(&delete.organization) {
        Ok(organization) => Ok(organization),
        Err(invalid) => bail!("ID: {}", invalid.why),
    }
}

async fn delete(store: &Store, organization: &OrganizationId) -> Result<(), Failure> {
    let mut entry = super::audit::entry("organization delete");
    entry.object_ids.push(organization.as_str().to_owned());
    let fields = ["subscriptions", "signing_secrets", "data_keys"];
    entry.changed_fields = fields.map(str::to_owned).into();
    let deletion = store.begin_deletion(organization, &entry).await?;
    let Deletion { api_keys, subscriptions, quiet_in, .. } = deletion;
    super::say(&format!("ended: {subscriptions} subscriptions, {api_keys} API keys"))?;
    let began = Instant::now();
    let rows = drain(store, organization, &deletion).await?;
    super::say(&format!("deleted: {rows} rows"))?;
    let left = quiet_in.saturating_sub(began.elapsed());
    // Without a server nothing is under way.
    if !left.is_zero() && !store.replicas().await?.is_empty() {
        super::say(&format!("waiting {} s for requests under way", left.as_secs() + 1))?;
        tokio::time::sleep(left).await;
        let rows = drain(store, organization, &deletion).await?;
        super::say(&format!("deleted: {rows} rows"))?;
    }
    store.end_deletion(organization).await?;
    super::say("done: nothing of it is left but its audit log")?;
    Ok(())
}

/// Deletes until nothing is left, resting for as long as it works, and tells how many rows
/// that were.
async fn drain(
    store: &Store,
    organization: &OrganizationId,
    deletion: &Deletion,
) -> Result<u64, StoreError> {
    let mut rows = 0;
    loop {
        let began = Instant::now();
        let portion = store.delete_portion(organization, deletion).await?;
        if portion == 0 {
            return Ok(rows);
        }
        rows += portion;
        tokio::time::sleep(began.elapsed().min(Duration::from_secs(1))).await;
    }
}
