//! Who is calling: by an API key, by a token of an issuer that is believed (`issuers`), or
//! by a TLS certificate (`certificates`).
//!
//! API keys are in memory, kept up by a poll, so that one that was revoked opens nothing
//! five seconds later, on any replica: one that has not heard of the database for as long
//! knows nobody by a key.

mod certificates;
mod issuers;
mod jwks;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

pub use self::certificates::{CertificateName, Certificates};
pub use self::issuers::{IssuerSettings, Issuers, KeySource};

use crate::domain::api_key::{ApiKey, read_token};
use crate::domain::id::{ApiKeyId, IdCodec};
use crate::domain::principal::Principal;
use crate::domain::timestamp::Timestamp;
use crate::store::{Store, StoreError};

/// How often the database is asked for changes.
const POLL: Duration = Duration::from_secs(1);
/// What was read longer ago is not believed any more.
const FRESH: Duration = Duration::from_secs(4);
/// How often it is noted which keys were used.
const NOTE_USE: Duration = Duration::from_mins(1);

/// The credentials, and their upkeep. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Credentials {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    keys: RwLock<HashMap<ApiKeyId, Known>>,
    version: AtomicI64,
    /// When the last look that succeeded began.
    looked: Mutex<Instant>,
}

/// A key, and who calls with it.
#[derive(Debug)]
struct Known {
    key: ApiKey,
    principal: Arc<Principal>,
    /// When it was last used, in microseconds; 0: not since it was noted.
    used: AtomicI64,
}

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No such credentials, or they are not good any more. A caller is not told which.
    Unknown,
    /// The database was not heard of lately: nobody can tell.
    Stale,
}

impl Credentials {
    /// Reads every key.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    pub async fn load(store: Store) -> Result<Credentials, StoreError> {
        let inner = Inner {
            store,
            keys: RwLock::default(),
            version: AtomicI64::new(0),
            looked: Mutex::new(Instant::now()),
        };
        let credentials = Credentials { inner: Arc::new(inner) };
        credentials.refresh().await?;
        Ok(credentials)
    }

    /// How many keys there are, revoked ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.keys.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is none, so that nobody can call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whose `token` it is, at `now` by the database's clock.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn caller(&self, token: &str, now: Timestamp) -> Result<Arc<Principal>, Refused> {
        let ids: &IdCodec = self.inner.store.ids();
        let (id, hash) = read_token(token).ok_or(Refused::Unknown)?;
        let id = ids.parse_api_key(id).ok_or(Refused::Unknown)?;
        let looked = *self.inner.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if FRESH <= looked.elapsed() {
            return Err(Refused::Stale);
        }
        let keys = self.inner.keys.read().unwrap_or_else(PoisonError::into_inner);
        let known = keys.get(&id).ok_or(Refused::Unknown)?;
        let same = bool::from(known.key.secret_hash.ct_eq(&hash));
        if !same || !known.key.is_live(now) {
            return Err(Refused::Unknown);
        }
        known.used.store(now.0, Ordering::Relaxed);
        Ok(Arc::clone(&known.principal))
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        let began = Instant::now();
        let inner = &self.inner;
        let version = inner.store.credentials_version().await?;
        if inner.version.load(Ordering::Relaxed) != version {
            let keys = inner.store.api_keys().await?;
            let mut known = inner.keys.write().unwrap_or_else(PoisonError::into_inner);
            *known = keys.into_iter().map(|key| (key.id, Known::new(key))).collect();
            inner.version.store(version, Ordering::Relaxed);
        }
        *inner.looked.lock().unwrap_or_else(PoisonError::into_inner) = began;
        Ok(())
    }

    /// Keeps them up until `stop`. Never fails: while the database is away they go stale.
    pub async fn keep(self, stop: CancellationToken) {
        let mut rhythm = tokio::time::interval(POLL);
        rhythm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut noted = Instant::now();
        let mut failing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = rhythm.tick() => {}
            }
            let refreshed = self.refresh().await;
            if let Err(error) = &refreshed
                && !failing
            {
                tracing::warn!(%error, "cannot see changes of credentials");
            }
            failing = refreshed.is_err();
            if NOTE_USE <= noted.elapsed() && !failing {
                noted = Instant::now();
                self.note_use().await;
            }
        }
    }

    async fn note_use(&self) {
        let used: Vec<(ApiKeyId, Timestamp)> = {
            let keys = self.inner.keys.read().unwrap_or_else(PoisonError::into_inner);
            let used = keys.iter().map(|(id, known)| (*id, known.used.swap(0, Ordering::Relaxed)));
            used.filter(|(_, time)| *time != 0).map(|(id, time)| (id, Timestamp(time))).collect()
        };
        if let Err(error) = self.inner.store.used_api_keys(&used).await {
            tracing::debug!(%error, "the last use of keys is noted later");
        }
    }
}

impl Known {
    fn new(key: ApiKey) -> Known {
        let principal = Arc::new(key.principal.clone());
        Known { key, principal, used: AtomicI64::new(0) }
    }
}
