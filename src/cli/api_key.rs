//! `hookward api-key`: who may call. It works on the database, so that whoever can reach
//! that can let the first caller in.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use clap::{Args, Subcommand};

use crate::config::{self, DatabaseArguments, read_database};
use crate::domain::api_key::{ApiKey, ApiKeySecret};
use crate::domain::audit::NewAuditEntry;
use crate::domain::id::{ApiKeyId, OrganizationId};
use crate::domain::principal::Organizations;
use crate::domain::scope::{Scope, Scopes};
use crate::domain::time_format::TimeFormat;
use crate::domain::timestamp::Timestamp;
use crate::store::{NewApiKey, Store, StoreError};

use super::Failure;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum Arguments {
    /// Make a key, and show it: this once
    Create(Create),
    /// Show which keys there are
    List(DatabaseArguments),
    /// End a key: within five seconds no replica takes it
    Revoke(Revoke),
}

/// A key to be made.
#[derive(Args, Debug)]
pub struct Create {
    #[command(flatten)]
    database: DatabaseArguments,
    /// What it is for, so that people know it again
    #[arg(long, value_name = "TEXT")]
    label: String,
    /// Organization whose data it opens. Repeatable
    #[arg(long, value_name = "ID", required_unless_present = "every_organization")]
    organization: Vec<String>,
    /// Opens the data of every organization, also of those to come
    #[arg(long, conflicts_with = "organization")]
    every_organization: bool,
    /// What it may do, such as events:publish. Repeatable
    #[arg(long, value_name = "SCOPE", required = true)]
    scope: Vec<String>,
    /// How long it is good for, such as 90d; for ever unless given
    #[arg(long, value_name = "TIME")]
    expires_in: Option<String>,
}

/// A key to be ended.
#[derive(Args, Debug)]
pub struct Revoke {
    #[command(flatten)]
    database: DatabaseArguments,
    /// Its id, as create and list show it
    #[arg(value_name = "ID")]
    id: String,
}

/// Does it.
///
/// # Errors
///
/// When the database cannot be used, or there is no such key.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments {
        Arguments::Create(create) => self::create(create).await,
        Arguments::List(database) => list(&database).await,
        Arguments::Revoke(revoke) => self::revoke(revoke).await,
    }
}

async fn create(create: Create) -> Result<(), Failure> {
    let secret = ApiKeySecret::generate();
    let new = read(&create, &secret)?;
    let store = Store::visit(&read_database(&create.database)?).await?;
    let id = store.ids().api_key(new.id);
    let token = secret.token(&id);
    let entry = entry(&new, id);
    let made = store.create_api_key(new, &entry).await;
    store.close().await;
    made?;
    Ok(super::say(&token)?)
}

/// The key is what it is about, and whose data it opens.
fn entry(new: &NewApiKey, id: String) -> NewAuditEntry {
    let mut entry = super::audit::entry("api-key create");
    entry.object_ids.push(id);
    match &new.organizations {
        Organizations::All => entry.object_ids.push("*".to_owned()),
        Organizations::Some(these) => {
            entry.object_ids.extend(these.iter().map(|one| one.as_str().to_owned()));
        }
    }
    let fields = ["label", "organizations", "scopes", "expire_time"];
    entry.changed_fields = fields.map(str::to_owned).into();
    entry
}

fn read(create: &Create, secret: &ApiKeySecret) -> anyhow::Result<NewApiKey> {
    let organizations = create.organization.iter().map(|text| OrganizationId::parse(text));
    let organizations = match organizations.collect::<Result<BTreeSet<_>, _>>() {
        Ok(_) if create.every_organization => Organizations::All,
        Ok(these) => Organizations::Some(these),
        Err(why) => bail!("--organization: {why}"),
    };
    let scopes = create.scope.iter().map(|text| text.parse::<Scope>());
    let scopes = match scopes.collect::<Result<Scopes, _>>() {
        Ok(scopes) => scopes,
        Err(why) => bail!("--scope: {why}"),
    };
    // Lists are read by line and by column.
    let label = &create.label;
    if !(1..=100).contains(&label.chars().count()) || label.contains(char::is_control) {
        bail!("--label: 1 to 100 characters, none of them a tab or a new line");
    }
    let life = create.expires_in.as_deref().map(config::life).transpose();
    let life: Option<Duration> = match life {
        Ok(life) => life,
        Err(why) => bail!("--expires-in: {why}"),
    };
    let mut id = [0; 8];
    getrandom::fill(&mut id).map_err(|_| anyhow::anyhow!("no random numbers"))?;
    Ok(NewApiKey {
        id: ApiKeyId(i64::from_le_bytes(id)),
        label: label.clone(),
        organizations,
        scopes,
        secret_hash: secret.hash(),
        life,
    })
}

async fn list(database: &DatabaseArguments) -> Result<(), Failure> {
    let store = Store::visit(&read_database(database)?).await?;
    let keys = store.api_keys().await;
    store.close().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp::MIN.plus(now);
    for key in keys? {
        super::say(&line(&key, now))?;
    }
    Ok(())
}

/// Id, state, scopes, organizations, times, label: separated by tabs.
fn line(key: &ApiKey, now: Timestamp) -> String {
    let state = match key.revoke_time {
        Some(_) => "revoked",
        None if key.is_live(now) => "live",
        None => "expired",
    };
    let time = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), written);
    let organizations = match &key.principal.organizations {
        Organizations::All => "*".to_owned(),
        Organizations::Some(these) => {
            these.iter().map(OrganizationId::as_str).collect::<Vec<_>>().join(" ")
        }
    };
    let columns = [
        key.principal.name.clone(),
        state.to_owned(),
        key.principal.scopes.to_string(),
        organizations,
        time(Some(key.create_time)),
        time(key.expire_time),
        time(key.last_use_time),
        key.label.clone(),
    ];
    columns.join("\t")
}

/// RFC 3339, UTC.
pub(super) fn written(time: Timestamp) -> String {
    let mut json = Vec::new();
    TimeFormat::Rfc3339MillisZ.write(time, &mut json);
    String::from_utf8_lossy(&json).trim_matches('"').to_owned()
}

async fn revoke(revoke: Revoke) -> Result<(), Failure> {
    let store = Store::visit(&read_database(&revoke.database)?).await?;
    let revoked = match store.ids().parse_api_key(&revoke.id) {
        Some(id) => {
            let mut entry = super::audit::entry("api-key revoke");
            entry.object_ids.push(revoke.id.clone());
            entry.changed_fields.push("revoke_time".to_owned());
            store.revoke_api_key(id, &entry).await
        }
        None => Err(StoreError::NotFound),
    };
    store.close().await;
    match revoked {
        Err(StoreError::NotFound) => {
            Err(anyhow::anyhow!("there is no key of this id that is not revoked").into())
        }
        revoked => Ok(revoked?),
    }
}
