//! What the routing tables of all replicas are made from.

use sea_orm::{
    ConnectionTrait, DbBackend, FromQueryResult, IdenStatic, Iterable, QueryResult, Value,
};

use super::engine::column;
use super::entity::{ownership, signing_secret, subscription, subscription_tls};
use super::{Store, StoreError, row};
use crate::domain::id::OrganizationId;
use crate::domain::ownership::OwnershipRecord;
use crate::domain::subscription::{SigningSecret, Subscription};

/// A subscription as the routing table needs it.
#[derive(Clone, Debug)]
pub struct Routed {
    /// The subscription.
    pub subscription: Subscription,
    /// Its secrets, oldest first, those that cannot be decrypted included, and perhaps some
    /// that have ended.
    pub secrets: Vec<SigningSecret>,
    /// What is known of its endpoint; `None` when it has not been asked.
    pub ownership: Option<OwnershipRecord>,
    /// It is gone: take it out.
    pub deleted: bool,
}

/// What changed since a version.
#[derive(Clone, Debug)]
pub struct RoutingChanges {
    /// The table that has these changes is at least of this version, and exactly of this
    /// version if it is not new.
    pub version: i64,
    /// In no order that matters.
    pub changed: Vec<Routed>,
}

/// Subscriptions of one page of a table that is read anew.
const PAGE: usize = 2000;

/// What has changed after `$1`. A changed endpoint is one of a subscription that is as it was.
const CHANGED: &str = "
    SELECT key FROM subscription WHERE routing_version > $1
    UNION
    SELECT subscription_key FROM ownership WHERE routing_version > $1";
/// A page of all that a new table needs: `$2` subscriptions after the key `$1`.
const ALL: &str =
    "SELECT key FROM subscription WHERE key > $1 AND NOT deleted ORDER BY key LIMIT $2";
/// Whether a data key was destroyed after `$1`.
const DESTROYS: &str =
    "EXISTS (SELECT 1 FROM data_key WHERE routing_version > $1 AND routing_version <> 0)";

/// The clock, and some subscriptions with everything that belongs to them, in one snapshot
/// and one round trip: a row for each secret of each subscription, and one where there is
/// nothing. Ended secrets sign nothing; an hour is for clocks that differ.
///
const ROUTED: &str = "
    WITH changed AS ({changed})
    SELECT clock.version, {destroys} AS destroys, {columns}
    FROM routing_clock clock
    LEFT JOIN changed ON true
    LEFT JOIN {subscription} s ON s.key = changed.key
    LEFT JOIN {subscription_tls} t ON t.subscription_key = s.key
    LEFT JOIN {ownership} o ON o.subscription_key = s.key
    LEFT JOIN {signing_secret} x ON x.subscription_key = s.key
        AND (x.expire_time = 0 OR x.expire_time > {now} - 3600000000)
    ORDER BY s.key, x.key";

/// [`ROUTED`] for this engine.
fn routed(engine: DbBackend, changed: &str, destroys: &str) -> String {
    let columns = [
        columns::<subscription::Column>("s"),
        columns::<subscription_tls::Column>("t"),
        columns::<ownership::Column>("o"),
        columns::<signing_secret::Column>("x"),
    ];
    let mut sql = ROUTED.replace("{changed}", changed).replace("{destroys}", destroys);
    sql = sql.replace("{columns}", &columns.join(", "));
    for (table, key, found) in [
        ("subscription", "key", "changed.key"),
        ("subscription_tls", "subscription_key", "s.key"),
        ("ownership", "subscription_key", "s.key"),
        ("signing_secret", "subscription_key", "s.key"),
    ] {
        let joined = match engine {
            // OFFSET keeps the planner from pulling it up into a join of its own choice.
            DbBackend::Postgres => {
                format!("LATERAL (SELECT * FROM {table} WHERE {key} = {found} OFFSET 0)")
            }
            _ => table.to_owned(),
        };
        sql = sql.replace(&format!("{{{table}}}"), &joined);
    }
    sql
}

/// `s.key AS s_key, ...`, for all of a table's columns.
fn columns<C: Iterable + IdenStatic>(table: &str) -> String {
    let named = |column: C| {
        let name = column.as_str();
        format!("{table}.{name} AS {table}_{name}")
    };
    C::iter().map(named).collect::<Vec<_>>().join(", ")
}

/// What one statement found.
struct Page {
    version: i64,
    /// Whether a data key was destroyed.
    destroys: bool,
    found: Vec<Found>,
}

/// The rows of one subscription.
struct Found {
    subscription: subscription::Model,
    tls: Option<subscription_tls::Model>,
    ownership: Option<ownership::Model>,
    secrets: Vec<signing_secret::Model>,
}

impl Store {
    /// The version that the last subscription change made. Changes raise it in their
    /// own transaction, one after the other.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn routing_version(&self) -> Result<i64, StoreError> {
        let clock = self.statement("SELECT version FROM routing_clock", vec![]);
        let row = self.read().query_one_raw(clock).await?.ok_or(StoreError::Corrupt("clock"))?;
        column(&row, "version")
    }

    /// The subscriptions that changed after `version`; 0: all of them but deleted ones,
    /// which an empty table need not forget.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn routing_changes(&self, version: i64) -> Result<RoutingChanges, StoreError> {
        if version == 0 {
            return self.whole_routing().await;
        }
        let sql = routed(self.inner.engine, CHANGED, DESTROYS);
        let page = self.routing_page(&sql, vec![version.into()]).await?;
        if page.destroys {
            self.forget_destroyed_keys(version).await?;
        }
        let changed = self.learn_routed(page.found).await?;
        Ok(RoutingChanges { version: page.version, changed })
    }

    /// All of them, in portions. What changes meanwhile may be in those that are read later:
    /// the version is that of the first.
    async fn whole_routing(&self) -> Result<RoutingChanges, StoreError> {
        let sql = routed(self.inner.engine, ALL, "false");
        let (mut version, mut after) = (None, 0);
        let mut changed = Vec::new();
        loop {
            let values = vec![after.into(), i64::try_from(PAGE).unwrap_or(i64::MAX).into()];
            let page = self.routing_page(&sql, values).await?;
            let version = *version.get_or_insert(page.version);
            let count = page.found.len();
            after = page.found.last().map_or(after, |last| last.subscription.key);
            changed.extend(self.learn_routed(page.found).await?);
            if count < PAGE {
                // Events can be sealed before there is a subscription.
                self.forget_destroyed_keys(0).await?;
                return Ok(RoutingChanges { version, changed });
            }
        }
    }

    async fn routing_page(&self, sql: &str, values: Vec<Value>) -> Result<Page, StoreError> {
        let rows = self.read().query_all_raw(self.statement(sql, values)).await?;
        let first = rows.first().ok_or(StoreError::Corrupt("clock"))?;
        Ok(Page {
            version: column(first, "version")?,
            destroys: column(first, "destroys")?,
            found: by_subscription(&rows)?,
        })
    }

    async fn learn_routed(&self, found: Vec<Found>) -> Result<Vec<Routed>, StoreError> {
        self.learn_keys(self.read(), found.iter().flat_map(Found::data_keys)).await?;
        found.into_iter().map(|one| self.routed(one)).collect()
    }

    fn routed(&self, found: Found) -> Result<Routed, StoreError> {
        let vault = &self.inner.vault;
        let organization = OrganizationId::stored(&found.subscription.organization_id);
        let tls = found.tls.map(|tls| row::tls(vault, &organization, tls)).unwrap_or_default();
        let secret = |found| row::secret(vault, &organization, found);
        Ok(Routed {
            deleted: found.subscription.deleted,
            secrets: found.secrets.into_iter().map(secret).collect::<Result<_, _>>()?,
            ownership: found.ownership.map(row::ownership).transpose()?,
            subscription: row::subscription(vault, found.subscription, tls)?,
        })
    }
}

impl Found {
    /// The data keys that something of it is sealed with.
    fn data_keys(&self) -> impl Iterator<Item = i32> {
        let secrets = self.secrets.iter().map(|secret| secret.secret_key_id);
        let tls = self.tls.iter().map(|tls| tls.secret_key_id);
        secrets.chain(tls).chain([self.subscription.headers_key_id])
    }
}

/// The rows of [`ROUTED`], those of one subscription together.
fn by_subscription(rows: &[QueryResult]) -> Result<Vec<Found>, StoreError> {
    let mut all: Vec<Found> = Vec::new();
    for row in rows {
        let Some(key) = column::<Option<i64>>(row, "s_key")? else { continue };
        let secret = Option::<signing_secret::Model>::from_query_result(row, "x_")?;
        match all.last_mut().filter(|last| last.subscription.key == key) {
            Some(last) => last.secrets.extend(secret),
            None => all.push(Found {
                subscription: subscription::Model::from_query_result(row, "s_")?,
                tls: Option::from_query_result(row, "t_")?,
                ownership: Option::from_query_result(row, "o_")?,
                secrets: secret.into_iter().collect(),
            }),
        }
    }
    Ok(all)
}
