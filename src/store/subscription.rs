//! Subscriptions: every change in one transaction that first raises the routing
//! clock.
//!
//! The clock's row lock puts the changes of all replicas into one order, so that
//! each version names one state of all subscriptions; commits compare it
//! (`store/commit.rs`). The version of a subscription's last change is its etag.

use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel,
    PaginatorTrait, QueryFilter, QueryOrder, QuerySelect,
};

use super::engine::column;
use super::entity::subscription;
use super::link::Transaction;
use super::operational_event::Notice;
use super::request_log::{Answer, RequestRecord};
use super::{Store, StoreError, row};
use crate::domain::audit::{Chain, NewAuditEntry};
use crate::domain::failure_streak::{DisableReason, Judgement, Rule};
use crate::domain::id::{AccountId, OrganizationId, SecretKey, SubscriptionKey};
use crate::domain::operational_event::{Audience, OperationalEvent};
use crate::domain::subscription::{
    SigningSecret, Subscription, SubscriptionSpec, SubscriptionState,
};
use crate::domain::timestamp::Timestamp;

/// Most subscriptions of one organization.
pub const SUBSCRIPTIONS_MAX: u64 = 1000;

/// A subscription to be, every rule already checked.
#[derive(Clone)]
pub struct NewSubscription {
    /// Made by the caller.
    pub key: SubscriptionKey,
    /// Whose.
    pub organization: OrganizationId,
    /// What its owner decided.
    pub spec: SubscriptionSpec,
    /// How it begins.
    pub state: SubscriptionState,
    /// Its first secret, if it has one.
    pub secret: Option<(SecretKey, String)>,
}

/// What a creation made.
#[derive(Clone, Debug)]
pub struct Created {
    /// As stored.
    pub subscription: Subscription,
    /// Its first secret.
    pub secret: Option<SigningSecret>,
}

/// Which subscriptions; each part that is set must hold.
#[derive(Clone, Debug, Default)]
pub struct SubscriptionFilter {
    /// In one of these states; empty: in any.
    pub states: Vec<SubscriptionState>,
    /// Bound to this account.
    pub account: Option<AccountId>,
    /// Of this wire profile.
    pub profile: Option<String>,
}

/// What to do with a subscription after a look at it.
#[derive(Debug)]
pub enum Change {
    /// Leave it: no new version.
    Keep,
    /// Leave it, and have its endpoint asked anew: no new version either.
    Ask,
    /// Store this state of it. Key, organization, account and times are not taken
    /// from here.
    Write(Box<Subscription>),
    /// The same, and have its endpoint asked anew.
    WriteAndAsk(Box<Subscription>),
}

/// What the server switches a subscription off for.
#[derive(Clone, Copy, Debug)]
pub enum DisableCause {
    /// Its receiver answered 410 Gone.
    Gone,
    /// Its receiver kept failing beyond this rule; looked at again in the transaction.
    Failing(Rule),
}

/// What became of a subscription.
enum Changed {
    Kept(Subscription),
    Written(Subscription),
}

/// Why a subscription was not changed.
#[derive(Debug)]
pub enum ChangeError<E> {
    /// The store could not, or the etag is stale.
    Store(StoreError),
    /// The caller decided against it.
    Refused(E),
}

impl<E> From<StoreError> for ChangeError<E> {
    fn from(error: StoreError) -> Self {
        ChangeError::Store(error)
    }
}

/// Locks the clock's row until the transaction ends.
const RAISE: &str =
    "UPDATE routing_clock SET version = version + 1 RETURNING version, {now} AS now";

/// One tick of the routing clock.
#[derive(Clone, Copy)]
pub(super) struct Tick {
    pub(super) version: i64,
    pub(super) now: Timestamp,
}

impl Store {
    /// Creates a subscription. `respond` encodes the answer without the secret. What it
    /// makes has left `entry`, as with every other change.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooMany`] at 1,000 subscriptions of the organization,
    /// [`StoreError::RequestIdReused`].
    pub async fn create_subscription(
        &self,
        new: NewSubscription,
        request: Option<RequestRecord>,
        entry: &NewAuditEntry,
        respond: impl Fn(&Created) -> Vec<u8>,
    ) -> Result<Answer<Created>, StoreError> {
        let organization = new.organization.clone();
        let made = self.try_create(new, request.as_ref(), entry, respond).await;
        self.or_twin(&organization, request.as_ref(), made).await
    }

    async fn try_create(
        &self,
        new: NewSubscription,
        request: Option<&RequestRecord>,
        entry: &NewAuditEntry,
        respond: impl Fn(&Created) -> Vec<u8>,
    ) -> Result<Answer<Created>, StoreError> {
        let organization = new.organization.clone();
        let transaction = self.begin_for(&organization).await?;
        let tick = self.raise(&transaction).await?;
        if let Some(before) = self.answered(&transaction, &organization, request).await? {
            return Ok(before);
        }
        let held = of(&organization).count(&transaction).await?;
        if SUBSCRIPTIONS_MAX <= held {
            return Err(StoreError::TooMany);
        }
        let created = self.insert(&transaction, new, tick).await?;
        let response = respond(&created);
        let secret = created.secret.as_ref();
        self.remember(&transaction, &organization, request, response, secret).await?;
        self.audit(&transaction, entry).await?;
        transaction.commit().await?;
        Ok(Answer::Now(created))
    }

    /// Inserts a subscription, with its certificates and its first secret.
    pub(super) async fn insert(
        &self,
        transaction: &Transaction,
        new: NewSubscription,
        tick: Tick,
    ) -> Result<Created, StoreError> {
        let subscription = Subscription {
            key: new.key,
            organization: new.organization,
            spec: new.spec,
            state: new.state,
            state_reason: String::new(),
            version: tick.version,
            create_time: tick.now,
            update_time: tick.now,
            headers_lost: false,
        };
        let organization = &subscription.organization;
        let sealing = self.sealing_key_within(transaction, organization).await?;
        let sealing = sealing.as_ref();
        let model = row::subscription_model(&subscription, sealing).into_active_model();
        subscription::Entity::insert(model).exec_without_returning(transaction).await?;
        let place = (organization, subscription.key);
        self.add_tls(transaction, place, &subscription.spec.tls, sealing).await?;
        let secret = match new.secret {
            Some(secret) => {
                Some(self.add_secret(transaction, place, secret, tick.now, sealing).await?)
            }
            None => None,
        };
        Ok(Created { subscription, secret })
    }

    /// One subscription.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`].
    pub async fn subscription(
        &self,
        organization: &OrganizationId,
        key: SubscriptionKey,
    ) -> Result<Subscription, StoreError> {
        self.live(&self.reading(organization).await?, organization, key).await
    }

    /// Subscriptions, newest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn subscriptions(
        &self,
        organization: &OrganizationId,
        filter: &SubscriptionFilter,
        before: Option<SubscriptionKey>,
        limit: usize,
    ) -> Result<Vec<Subscription>, StoreError> {
        let mut select = of(organization);
        if let Some(before) = before {
            select = select.filter(subscription::Column::Key.lt(before.0));
        }
        if !filter.states.is_empty() {
            let states = filter.states.iter().map(|state| *state as i16);
            select = select.filter(subscription::Column::State.is_in(states));
        }
        if let Some(account) = &filter.account {
            select = select.filter(subscription::Column::AccountId.eq(account.as_str()));
        }
        if let Some(profile) = &filter.profile {
            select = select.filter(subscription::Column::Profile.eq(profile.as_str()));
        }
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        let select = select.order_by_desc(subscription::Column::Key).limit(limit);
        let reading = self.reading(organization).await?;
        let found = select.all(&reading).await?;
        self.whole(&reading, found).await
    }

    /// The one way to change a subscription: loads it, lets `change` decide, and
    /// writes it with a new routing version. A change to inactive or disabled
    /// leaves the due rows to the janitor. Headers that cannot be decrypted stay as they
    /// are stored, unless the change brings others.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError::Stale`] when `etag` is set and is not
    /// the subscription's, and what `change` refuses with.
    pub async fn change_subscription<E>(
        &self,
        organization: &OrganizationId,
        key: SubscriptionKey,
        etag: Option<i64>,
        entry: &NewAuditEntry,
        change: impl FnOnce(Subscription) -> Result<Change, E>,
    ) -> Result<Subscription, ChangeError<E>> {
        match self.try_change(organization, key, etag, entry, change).await? {
            Changed::Kept(kept) => {
                self.audit_alone(&entry.without_change()).await?;
                Ok(kept)
            }
            Changed::Written(changed) => Ok(changed),
        }
    }

    /// What is kept leaves no entry.
    async fn try_change<E>(
        &self,
        organization: &OrganizationId,
        key: SubscriptionKey,
        etag: Option<i64>,
        entry: &NewAuditEntry,
        change: impl FnOnce(Subscription) -> Result<Change, E>,
    ) -> Result<Changed, ChangeError<E>> {
        let transaction = self.begin_for(organization).await?;
        let tick = self.raise(&transaction).await?;
        let current = self.live(&transaction, organization, key).await?;
        check_etag(&current, etag)?;
        let change = change(current.clone()).map_err(ChangeError::Refused)?;
        let asks = matches!(change, Change::Ask | Change::WriteAndAsk(_));
        if asks {
            self.ask_anew(&transaction, current.key, tick).await?;
        }
        let mut entry = entry.clone();
        let changed = match change {
            Change::Keep => return Ok(Changed::Kept(current)),
            Change::Ask => {
                entry.changed_fields.clear();
                current
            }
            Change::Write(changed) | Change::WriteAndAsk(changed) => {
                self.write_change(&transaction, current, *changed, tick).await?
            }
        };
        if asks {
            entry.changed_fields.push("ownership".to_owned());
        }
        self.audit(&transaction, &entry).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        Ok(Changed::Written(changed))
    }

    /// Switches a subscription off by the server's own decision, and tells the
    /// `audience`. `false`: one that takes no events already is left as it is, and so is
    /// one that was changed after `version` or has had a success meanwhile: the cause may
    /// be no more.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] when it is deleted.
    pub async fn disable(
        &self,
        organization: &OrganizationId,
        key: SubscriptionKey,
        version: i64,
        cause: DisableCause,
        audience: Option<&Audience>,
    ) -> Result<bool, StoreError> {
        let transaction = self.begin().await?;
        let tick = self.raise(&transaction).await?;
        let current = self.live(&transaction, organization, key).await?;
        if !current.state.takes_events() || current.version != version {
            return Ok(false);
        }
        let streak = self.lock_streak(&transaction, key).await?;
        let streak = streak.filter(|failing| failing.version == version);
        let reason = match (cause, streak) {
            (DisableCause::Gone, _) => DisableReason::Gone,
            (DisableCause::Failing(rule), Some(failing))
                if rule.judge(&failing.streak) == Judgement::Disable =>
            {
                DisableReason::Failing(failing.streak)
            }
            (DisableCause::Failing(_), Some(_) | None) => return Ok(false),
        };
        self.end_streaks(&transaction, &[key]).await?;
        let state = SubscriptionState::Disabled;
        let disabled = Subscription { state, state_reason: reason.to_string(), ..current.clone() };
        self.write_change(&transaction, current, disabled, tick).await?;
        if let Some(audience) = audience {
            let event = OperationalEvent::disabled(&self.ids().subscription(key), &reason);
            self.tell(&transaction, &[Notice::new(organization, audience, event)]).await?;
        }
        let entry = NewAuditEntry {
            object_ids: vec![self.ids().subscription(key)],
            changed_fields: vec!["state".to_owned(), "state_reason".to_owned()],
            ..NewAuditEntry::of_service(Chain::Organization(organization.clone()), "disable")
        };
        self.audit(&transaction, &entry).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Writes what a subscription is to be; what nobody may change stays as it is.
    pub(super) async fn write_change(
        &self,
        transaction: &Transaction,
        current: Subscription,
        changed: Subscription,
        tick: Tick,
    ) -> Result<Subscription, StoreError> {
        let mut changed = changed;
        changed.key = current.key;
        changed.organization = current.organization;
        changed.spec.account = current.spec.account;
        changed.version = tick.version;
        changed.create_time = current.create_time;
        changed.update_time = tick.now;
        changed.headers_lost = current.headers_lost && changed.spec.headers.is_empty();
        let recertified = changed.spec.tls != current.spec.tls;
        let sealing = if changed.spec.headers.is_empty() && !recertified {
            None
        } else {
            self.sealing_key_within(transaction, &changed.organization).await?
        };
        let model = row::subscription_model(&changed, sealing.as_ref());
        let mut model = model.into_active_model().reset_all();
        if changed.headers_lost {
            model.headers = ActiveValue::NotSet;
            model.headers_key_id = ActiveValue::NotSet;
            model.headers_version = ActiveValue::NotSet;
        }
        let update = subscription::Entity::update(model);
        update.exec_without_returning(transaction).await?;
        if recertified {
            let place = (&changed.organization, changed.key);
            self.change_tls(transaction, place, &changed.spec.tls, sealing.as_ref()).await?;
        }
        Ok(changed)
    }

    /// Deletes a subscription, and what it was trusted with: secrets, certificates, headers,
    /// attributes, and the URL. Its deliveries stay readable; the janitor cancels the open
    /// ones.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError::Stale`].
    pub async fn delete_subscription(
        &self,
        organization: &OrganizationId,
        key: SubscriptionKey,
        etag: Option<i64>,
        entry: &NewAuditEntry,
    ) -> Result<(), StoreError> {
        let transaction = self.begin_for(organization).await?;
        let tick = self.raise(&transaction).await?;
        let current = self.live(&transaction, organization, key).await?;
        check_etag(&current, etag)?;
        for table in ["subscription_tls", "signing_secret", "ownership"] {
            self.delete_of(&transaction, table, key).await?;
        }
        let sql = "UPDATE subscription SET deleted = $1, routing_version = $2, update_time = $3,
                       url = '', headers = '', headers_key_id = 0, headers_version = 0,
                       attributes = '', payload_mode = 1, masked_pointers = ''
                   WHERE key = $4";
        let values = vec![true.into(), tick.version.into(), tick.now.0.into(), key.0.into()];
        transaction.execute_raw(self.statement(sql, values)).await?;
        self.audit(&transaction, entry).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Deletes what a table has of a subscription.
    pub(super) async fn delete_of(
        &self,
        transaction: &Transaction,
        table: &'static str,
        key: SubscriptionKey,
    ) -> Result<(), StoreError> {
        let sql = format!("DELETE FROM {table} WHERE subscription_key = $1");
        transaction.execute_raw(self.statement(&sql, vec![key.0.into()])).await?;
        Ok(())
    }

    /// Raises the routing clock; no other subscription changes until the
    /// transaction ends.
    pub(super) async fn raise(&self, transaction: &Transaction) -> Result<Tick, StoreError> {
        let row = transaction.query_one_raw(self.statement(RAISE, vec![])).await?;
        let row = row.ok_or(StoreError::Corrupt("clock"))?;
        Ok(Tick { version: column(&row, "version")?, now: Timestamp(column(&row, "now")?) })
    }

    /// The subscription, unless it is deleted or another organization's.
    pub(super) async fn live(
        &self,
        connection: &impl ConnectionTrait,
        organization: &OrganizationId,
        key: SubscriptionKey,
    ) -> Result<Subscription, StoreError> {
        let select = of(organization).filter(subscription::Column::Key.eq(key.0));
        let found = select.one(connection).await?.ok_or(StoreError::NotFound)?;
        self.whole(connection, vec![found]).await?.pop().ok_or(StoreError::NotFound)
    }
}

fn of(organization: &OrganizationId) -> sea_orm::Select<subscription::Entity> {
    subscription::Entity::find()
        .filter(subscription::Column::OrganizationId.eq(organization.as_str()))
        .filter(subscription::Column::Deleted.eq(false))
}

fn check_etag(current: &Subscription, etag: Option<i64>) -> Result<(), StoreError> {
    match etag {
        Some(etag) if etag != current.version => Err(StoreError::Stale),
        Some(_) | None => Ok(()),
    }
}
