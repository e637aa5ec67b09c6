//! Who gets what: every subscription of the database, in memory.
//!
//! The table carries the version of the routing clock that it was read at. A commit
//! names that version, and stores nothing if the clock has moved on; then the table
//! is refreshed and the events are matched again. So matching from memory is as exact
//! as matching in the database.

mod route;
mod table;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

pub use self::route::{Route, Standing};
pub use self::table::Table;

use crate::domain::id::SubscriptionKey;
use crate::domain::operational_event::{Audience, OperationalType};
use crate::domain::profile::Profiles;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

/// How often the clock is looked at.
pub const POLL: Duration = Duration::from_millis(250);
/// A request starts only if the clock was looked at this recently: so none starts
/// later than a second after a pause, a deactivation or a deletion was answered.
pub const FRESH: Duration = Duration::from_millis(750);

/// The table and its upkeep. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Routing {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    profiles: ArcSwap<Profiles>,
    /// Whether routes are to be made anew of what is stored, though it has not changed.
    outdated: AtomicBool,
    metrics: Metrics,
    table: RwLock<Table>,
    /// When the last look at the clock that succeeded began.
    looked: Mutex<Instant>,
    /// One refresh at a time.
    refreshing: tokio::sync::Mutex<()>,
}

impl Routing {
    /// Reads every subscription.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn load(
        store: Store,
        profiles: Arc<Profiles>,
        metrics: Metrics,
    ) -> Result<Routing, StoreError> {
        let inner = Inner {
            store,
            profiles: ArcSwap::new(profiles),
            outdated: AtomicBool::new(false),
            metrics,
            table: RwLock::default(),
            looked: Mutex::new(Instant::now()),
            refreshing: tokio::sync::Mutex::default(),
        };
        let routing = Routing { inner: Arc::new(inner) };
        routing.refresh().await?;
        Ok(routing)
    }

    /// Brings the table up to date with every change that was answered before this
    /// call.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: the table is as it was.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let _one = self.inner.refreshing.lock().await;
        let began = Instant::now();
        let version = self.table().version();
        if self.inner.store.routing_version().await? != version {
            self.read(version).await?;
        }
        if self.inner.outdated.swap(false, Ordering::SeqCst)
            && let Err(error) = self.make_anew().await
        {
            self.inner.outdated.store(true, Ordering::SeqCst);
            return Err(error);
        }
        self.looked(began);
        Ok(())
    }

    /// The wire profiles of this deployment.
    #[must_use]
    pub fn profiles(&self) -> Arc<Profiles> {
        self.inner.profiles.load_full()
    }

    /// Goes on with these profiles. [`Routing::renew`] lets the subscriptions have them.
    pub fn use_profiles(&self, profiles: Arc<Profiles>) {
        self.inner.profiles.store(profiles);
    }

    /// Makes every subscription ready anew: profiles, keys or certificates are others. If the
    /// database is away, that is done when it is back; until then nothing is sent, but for what
    /// is within the time for which the last look counts.
    pub async fn renew(&self) {
        self.inner.outdated.store(true, Ordering::SeqCst);
        if let Err(error) = self.refresh().await {
            tracing::warn!(%error, "subscriptions go by the new settings later");
        }
    }

    /// The same for who has found that the table is too old at this version; it may have
    /// been brought up to date since. One round trip to the database, and no look at the
    /// clock before.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: the table is as it was.
    pub async fn leave(&self, version: i64) -> Result<(), StoreError> {
        let _one = self.inner.refreshing.lock().await;
        let began = Instant::now();
        if self.table().version() == version {
            self.read(version).await?;
            // What is to be made anew is not yet.
            if !self.inner.outdated.load(Ordering::SeqCst) {
                self.looked(began);
            }
        }
        Ok(())
    }

    /// Applies what changed after `version`, which is the table's.
    async fn read(&self, version: i64) -> Result<(), StoreError> {
        let changes = self.inner.store.routing_changes(version).await?;
        let count = changes.changed.len();
        let profiles = self.profiles();
        let routes = changes.changed.into_iter().map(|one| Route::new(one, &profiles)).collect();
        self.apply(changes.version, routes);
        self.inner.metrics.routing_reload(count);
        Ok(())
    }

    /// Makes the routes of the table anew, at its version. What has changed since is left to
    /// the next refresh, which knows it for a change.
    async fn make_anew(&self) -> Result<(), StoreError> {
        let mut stored = self.inner.store.routing_changes(0).await?.changed;
        let profiles = self.profiles();
        let version = {
            let table = self.table();
            stored.retain(|one| {
                let known = table.route(one.subscription.key);
                known.is_some_and(|known| known.subscription.version == one.subscription.version)
            });
            table.version()
        };
        let routes = stored.into_iter().map(|one| Route::new(one, &profiles)).collect();
        self.apply(version, routes);
        Ok(())
    }

    fn apply(&self, version: i64, routes: Vec<Route>) {
        let mut table = self.inner.table.write().unwrap_or_else(PoisonError::into_inner);
        table.apply(version, routes);
        self.inner.metrics.subscriptions(table.len());
        self.inner.metrics.endpoints_unproven(table.unproven().len());
    }

    /// A look at the clock that began then has succeeded.
    fn looked(&self, began: Instant) {
        *self.inner.looked.lock().unwrap_or_else(PoisonError::into_inner) = began;
    }

    /// The table. Keep the guard for a moment only: a refresh waits for it.
    pub fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.inner.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// One subscription; `None` when it is deleted.
    #[must_use]
    pub fn route(&self, key: SubscriptionKey) -> Option<Arc<Route>> {
        self.table().route(key)
    }

    /// For whom an operational event about this subscription is; `None`: nobody asks for
    /// it, as far as the table knows.
    #[must_use]
    pub fn audience(&self, about: SubscriptionKey, kind: OperationalType) -> Option<Audience> {
        let table = self.table();
        let route = table.route(about)?;
        let organization = &route.subscription.organization;
        let account = route.subscription.spec.account.clone();
        let wanted = table.is_wanted(organization, kind.as_str(), account.as_ref());
        wanted.then_some(Audience { account })
    }

    /// Whether the clock was looked at recently enough to start a request.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.inner.looked.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < FRESH
    }

    /// Looks at the clock every [`POLL`] until `stop`. Never fails: while the
    /// database is away the table goes stale ([`Routing::is_fresh`]).
    pub async fn keep(self, stop: CancellationToken) {
        let mut rhythm = tokio::time::interval(POLL);
        rhythm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = rhythm.tick() => {}
            }
            match self.refresh().await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "cannot see subscription changes");
                    }
                    failing = true;
                }
            }
        }
    }
}
