//! What of the canary is stored: its subscription, how long its events are kept, and how one
//! of them is taken back.

use sea_orm::ConnectionTrait;

use super::subscription::NewSubscription;
use super::{Store, StoreError};
use crate::domain::audit::{Chain, NewAuditEntry};
use crate::domain::canary;
use crate::domain::subscription::{Subscription, SubscriptionState};

impl Store {
    /// Sees to it that the canary's subscription is there, and as [`canary::spec`] says.
    /// `secret` signs where there is none yet. Replicas that do so at once wait for each
    /// other at the routing clock, and make one. Not for callers: bound to nobody.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: asking again is safe.
    pub async fn keep_canary(&self, secret: String) -> Result<(), StoreError> {
        let organization = canary::organization();
        let transaction = self.begin().await?;
        // Nobody is held up for what is as it should be, such as a secret that another replica
        // has made, or that no key here opens.
        if self.canary(&transaction).await?.is_some_and(|there| is_right(&there)) {
            return Ok(());
        }
        let kept = i64::try_from(canary::KEPT.as_secs()).unwrap_or(i64::MAX);
        // What the events carry goes with all the rest. Before the clock is raised, which
        // holds up others: a purge may hold this up for a moment.
        self.write_retention(&transaction, Some(&organization), [None, Some(kept)]).await?;
        let tick = self.raise(&transaction).await?;
        let (spec, state) = (canary::spec(), SubscriptionState::Active);
        let changed_fields = match self.canary(&transaction).await? {
            // Another replica was faster.
            Some(there) if is_right(&there) => return Ok(()),
            Some(there) => {
                let state_reason = String::new();
                let wanted = Subscription { spec, state, state_reason, ..there.clone() };
                self.write_change(&transaction, there, wanted, tick).await?;
                vec!["canary".to_owned()]
            }
            None => {
                let (key, secret) = (canary::SUBSCRIPTION, Some((canary::SECRET, secret)));
                let new = NewSubscription { key, organization, spec, state, secret };
                self.insert(&transaction, new, tick).await?;
                vec!["canary".to_owned(), "signing_secret".to_owned()]
            }
        };
        let entry = NewAuditEntry {
            object_ids: vec![self.ids().subscription(canary::SUBSCRIPTION)],
            changed_fields,
            ..NewAuditEntry::of_service(Chain::Deployment, "keep_canary")
        };
        self.audit(&transaction, &entry).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn canary(
        &self,
        connection: &impl ConnectionTrait,
    ) -> Result<Option<Subscription>, StoreError> {
        match self.live(connection, &canary::organization(), canary::SUBSCRIPTION).await {
            Ok(there) => Ok(Some(there)),
            Err(StoreError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes a probe back: nothing more is sent of it. One that is not there is no error, and
    /// one that has ended stays so.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: asking again is safe.
    pub async fn take_probe_back(&self, probe: &str) -> Result<(), StoreError> {
        let organization = canary::organization();
        let key = match self.event_key_of(&organization, probe).await {
            Err(StoreError::NotFound) => return Ok(()),
            found => found?,
        };
        let transaction = self.begin_for(&organization).await?;
        self.purge_now(&transaction, &organization, &[key]).await?;
        transaction.commit().await?;
        Ok(())
    }
}

fn is_right(there: &Subscription) -> bool {
    there.spec == canary::spec() && there.state == SubscriptionState::Active
}
