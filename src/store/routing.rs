//! What the routing tables of all replicas are made from.

use std::sync::LazyLock;

use sea_orm::{ConnectionTrait, FromQueryResult, IdenStatic, Iterable, QueryResult};

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
    /// Its secrets, oldest first, ended ones and those that cannot be decrypted included.
    pub secrets: Vec<SigningSecret>,
    /// What is known of its endpoint; `None` when it has not been asked.
    pub ownership: Option<OwnershipRecord>,
    /// It is gone: take it out.
    pub deleted: bool,
}

/// What changed since a version.
#[derive(Clone, Debug)]
pub struct RoutingChanges {
    /// The table that has these changes is of this version.
    pub version: i64,
    /// In no order that matters.
    pub changed: Vec<Routed>,
}

/// The clock, and what has changed after `$1` with everything that belongs to it, in one
/// snapshot and one round trip: a row for each secret of each subscription, and one where
/// there is nothing. A table that is read anew, after 0, need not forget deleted ones.
///
/// A changed endpoint is one of a subscription that is as it was.
static CHANGES: LazyLock<String> = LazyLock::new(|| {
    let columns = [
        columns::<subscription::Column>("s"),
        columns::<subscription_tls::Column>("t"),
        columns::<ownership::Column>("o"),
        columns::<signing_secret::Column>("x"),
    ];
    format!(
        "
        WITH changed AS (
            SELECT key FROM subscription WHERE routing_version > $1
            UNION
            SELECT subscription_key FROM ownership WHERE routing_version > $1
        )
        SELECT clock.version,
            EXISTS (
                SELECT 1 FROM data_key WHERE routing_version > $1 AND routing_version <> 0
            ) AS destroys,
            {}
        FROM routing_clock clock
        LEFT JOIN changed ON true
        LEFT JOIN subscription s ON s.key = changed.key AND ($1 <> 0 OR NOT s.deleted)
        LEFT JOIN subscription_tls t ON t.subscription_key = s.key
        LEFT JOIN ownership o ON o.subscription_key = s.key
        LEFT JOIN signing_secret x ON x.subscription_key = s.key
        ORDER BY s.key, x.key",
        columns.join(", ")
    )
});

/// `s.key AS s_key, ...`, for all of a table's columns.
fn columns<C: Iterable + IdenStatic>(table: &str) -> String {
    let named = |column: C| {
        let name = column.as_str();
        format!("{table}.{name} AS {table}_{name}")
    };
    C::iter().map(named).collect::<Vec<_>>().join(", ")
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
        let changes = self.statement(&CHANGES, vec![version.into()]);
        let rows = self.read().query_all_raw(changes).await?;
        let first = rows.first().ok_or(StoreError::Corrupt("clock"))?;
        let now = column(first, "version")?;
        if column(first, "destroys")? {
            self.forget_destroyed_keys(version).await?;
        }
        let found = by_subscription(&rows)?;
        self.learn_keys(self.read(), found.iter().flat_map(Found::data_keys)).await?;
        let routed = found.into_iter().map(|one| self.routed(one)).collect::<Result<_, _>>()?;
        Ok(RoutingChanges { version: now, changed: routed })
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

/// The rows of [`CHANGES`], those of one subscription together.
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
