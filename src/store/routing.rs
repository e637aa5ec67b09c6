//! What the routing tables of all replicas are made from.

use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait,
};

use super::engine::column;
use super::entity::{ownership, signing_secret, subscription};
use super::{Store, StoreError, row};
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
    /// The table that has these changes is at least of this version, and exactly of
    /// this version if the clock still shows it.
    pub version: i64,
    /// In no order that matters; may hold changes later than `version`.
    pub changed: Vec<Routed>,
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
    /// The clock is read before the rows: a change between the two is in the rows,
    /// and the table says that it is older than it is. Such a table is brought up to
    /// date before anything is committed with it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn routing_changes(&self, version: i64) -> Result<RoutingChanges, StoreError> {
        let now = self.routing_version().await?;
        self.forget_destroyed_keys(version).await?;
        let mut wanted =
            subscription::Entity::find().filter(subscription::Column::RoutingVersion.gt(version));
        if version == 0 {
            wanted = wanted.filter(subscription::Column::Deleted.eq(false));
        }
        let mut rows = wanted.all(self.read()).await?;
        if version != 0 {
            rows.extend(self.asked_since(version).await?);
        }
        let mut changed = Vec::with_capacity(rows.len());
        for chunk in rows.chunks(500) {
            let subscriptions = self.whole(self.read(), chunk.to_vec()).await?;
            let keys = || chunk.iter().map(|row| row.key);
            let mut ownership = self.ownership_of(keys().collect()).await?;
            let mut secrets = signing_secret::Entity::find()
                .filter(signing_secret::Column::SubscriptionKey.is_in(keys()))
                .order_by_asc(signing_secret::Column::Key)
                .all(self.read())
                .await?;
            let keys = secrets.iter().map(|secret| secret.secret_key_id);
            self.learn_keys(self.read(), keys).await?;
            let vault = &self.inner.vault;
            for (found, subscription) in chunk.iter().zip(subscriptions) {
                let own = secrets.extract_if(.., |secret| secret.subscription_key == found.key);
                let secret = |found| row::secret(vault, &subscription.organization, found);
                let secrets = own.map(secret).collect::<Result<_, _>>()?;
                let ownership = ownership.remove(&found.key);
                let deleted = found.deleted;
                changed.push(Routed { subscription, secrets, ownership, deleted });
            }
        }
        Ok(RoutingChanges { version: now, changed })
    }

    /// The subscriptions that have not changed after `version`, but what is known of their
    /// endpoints has. One that changes between the two queries is found by the next look:
    /// its version is later than that of the clock, which was read before.
    async fn asked_since(&self, version: i64) -> Result<Vec<subscription::Model>, StoreError> {
        let asked = ownership::Entity::find()
            .select_only()
            .column(ownership::Column::SubscriptionKey)
            .filter(ownership::Column::RoutingVersion.gt(version));
        let select = subscription::Entity::find()
            .filter(subscription::Column::RoutingVersion.lte(version))
            .filter(subscription::Column::Key.in_subquery(asked.into_query()));
        Ok(select.all(self.read()).await?)
    }
}
