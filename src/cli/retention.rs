//! `hookward retention`: how long data is kept. It is in the database, so that it is one
//! answer for all replicas, and changes without a restart.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};

use crate::config::{self, DatabaseArguments, read_database};
use crate::domain::audit::NewAuditEntry;
use crate::domain::canary;
use crate::domain::id::OrganizationId;
use crate::domain::retention::{Kept, METADATA_BOUNDS, PAYLOAD_BOUNDS, Retention};
use crate::store::Store;

use super::Failure;

/// What to do with the times.
#[derive(Debug, Subcommand)]
pub enum Arguments {
    /// Show how long everybody's data is kept
    List(DatabaseArguments),
    /// Keep data for another time; it counts within a minute
    Set(Set),
    /// Keep an organization's data as everybody's again
    Clear(Clear),
}

/// A time to be set.
#[derive(Args, Debug)]
pub struct Set {
    #[command(flatten)]
    database: DatabaseArguments,
    /// Whose data; everybody's unless given
    #[arg(long, value_name = "ID")]
    organization: Option<String>,
    /// How long payloads and receivers' answers are kept after an event's last delivery has
    /// ended, from 1h to 31d
    #[arg(long, value_name = "TIME", required_unless_present = "metadata")]
    payload: Option<String>,
    /// How long everything else is kept, from 1d to 3653d
    #[arg(long, value_name = "TIME")]
    metadata: Option<String>,
}

/// A time to be taken back.
#[derive(Args, Debug)]
pub struct Clear {
    #[command(flatten)]
    database: DatabaseArguments,
    /// Whose data
    #[arg(long, value_name = "ID")]
    organization: String,
}

/// Does it.
///
/// # Errors
///
/// When a time or a name is none, or the database cannot be used.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments {
        Arguments::List(database) => list(&database).await,
        Arguments::Set(set) => self::set(&set).await,
        Arguments::Clear(clear) => self::clear(&clear).await,
    }
}

async fn list(database: &DatabaseArguments) -> Result<(), Failure> {
    let store = Store::visit(&read_database(database)?).await?;
    let settings = store.retention_settings().await;
    store.close().await;
    for line in lines(&settings?) {
        super::say(&line)?;
    }
    Ok(())
}

async fn set(set: &Set) -> Result<(), Failure> {
    let organization = set.organization.as_deref().map(organization).transpose()?;
    let kept = read(set)?;
    let store = Store::visit(&read_database(&set.database)?).await?;
    let mut entry = entry("retention set", organization.as_ref());
    let times = [("payload", kept.payload), ("metadata", kept.metadata)];
    let set = times.iter().filter(|(_, time)| time.is_some());
    entry.changed_fields = set.map(|(name, _)| (*name).to_owned()).collect();
    let done = store.set_retention(organization.as_ref(), kept, &entry).await;
    store.close().await;
    Ok(done?)
}

async fn clear(clear: &Clear) -> Result<(), Failure> {
    let organization = organization(&clear.organization)?;
    let store = Store::visit(&read_database(&clear.database)?).await?;
    let mut entry = entry("retention clear", Some(&organization));
    entry.changed_fields = ["payload", "metadata"].map(str::to_owned).into();
    let done = store.clear_retention(&organization, &entry).await;
    store.close().await;
    Ok(done?)
}

/// About an organization, or everybody.
fn entry(command: &str, organization: Option<&OrganizationId>) -> NewAuditEntry {
    let mut entry = super::audit::entry(command);
    entry.object_ids.push(organization.map_or("*", OrganizationId::as_str).to_owned());
    entry
}

fn organization(name: &str) -> anyhow::Result<OrganizationId> {
    match OrganizationId::parse(name) {
        Ok(organization) => Ok(organization),
        Err(invalid) => bail!("--organization: {}", invalid.why),
    }
}

fn read(set: &Set) -> anyhow::Result<Kept> {
    let time = |flag, text: Option<&str>, bounds: RangeInclusive<Duration>| {
        let read = text.map(|text| config::span(text, &bounds)).transpose();
        read.map_err(|why| anyhow::anyhow!("--{flag}: {why}"))
    };
    Ok(Kept {
        payload: time("payload", set.payload.as_deref(), PAYLOAD_BOUNDS)?,
        metadata: time("metadata", set.metadata.as_deref(), METADATA_BOUNDS)?,
    })
}

/// Organization, payload, metadata: separated by tabs. `*` is everybody; a hyphen means the
/// same as there. The canary is nobody's.
fn lines(settings: &Retention) -> Vec<String> {
    let own = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), written);
    let everybody = format!("*\t{}\t{}", written(settings.payload), written(settings.metadata));
    let is_shown =
        |(name, kept): &(&OrganizationId, &Kept)| **kept != Kept::default() && !canary::owns(name);
    let rows = settings.own.iter().filter(is_shown);
    let rows =
        rows.map(|(name, kept)| format!("{name}\t{}\t{}", own(kept.payload), own(kept.metadata)));
    [everybody].into_iter().chain(rows).collect()
}

/// The largest unit that tells it without a fraction.
fn written(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "d"), (3600, "h"), (60, "m")];
    let fits = units.into_iter().find(|(unit, _)| seconds != 0 && seconds.is_multiple_of(*unit));
    let (unit, name) = fits.unwrap_or((1, "s"));
    format!("{}{name}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn each_organization_with_times_of_its_own_has_a_line() {
        let day = Duration::from_hours(24);
        let kept = Kept { payload: Some(Duration::from_hours(36)), metadata: None };
        let own = [("clinic", kept), ("once", Kept::default()), (canary::ORGANIZATION, kept)];
        let own = own.map(|(name, kept)| (OrganizationId::stored(name), kept));
        let settings = Retention { payload: 7 * day, metadata: 90 * day, own: BTreeMap::from(own) };
        assert_eq!(lines(&settings), ["*\t7d\t90d", "clinic\t36h\t-"]);
        assert_eq!(written(Duration::from_secs(90)), "90s");
    }
}
