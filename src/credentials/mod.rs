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
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

pub use self::certificates::{CertificateName, Certificates};
pub use self::issuers::{IssuerSettings, Issuers, KeySource};

use crate::domain::api_key::{ApiKey, read_token};
use crate::domain::id::{ApiKeyId, IdCodec};
use crate::domain::principal::Principal;
use crate::domain::timestamp::Timestamp;
use crate::metrics::{CredentialSource, Metrics};
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
    keys: ArcSwap<Keys>,
    began: Instant,
    /// When the last look that succeeded began, in milliseconds after `began`.
    looked: AtomicU64,
}

/// All keys, as one reading found them.
#[derive(Debug, Default)]
struct Keys {
    version: i64,
    known: HashMap<ApiKeyId, Known>,
}

/// A key, and who calls with it.
#[derive(Debug)]
struct Known {
    key: ApiKey,
    principal: Arc<Principal>,
    /// When it was first used since that was noted last, in microseconds; 0: not yet.
    used: Arc<AtomicI64>,
}

/// Why nobody is let in. For the log: a caller is not told which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not what a key looks like.
    #[error("it has not the form of an API key")]
    Form,
    /// No key has this id.
    #[error("there is no API key of this id")]
    Unknown,
    /// The id is that of a key, and the secret is not.
    #[error("the secret is not that of the API key")]
    Secret,
    /// It was ended.
    #[error("the API key is revoked")]
    Revoked,
    /// It came to its end.
    #[error("the API key has expired")]
    Expired,
    /// The database was not heard of lately: nobody can tell.
    #[error("the database was not heard of lately")]
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
            keys: ArcSwap::default(),
            began: Instant::now(),
            looked: AtomicU64::new(0),
        };
        let credentials = Credentials { inner: Arc::new(inner) };
        credentials.refresh(true).await?;
        Ok(credentials)
    }

    /// Whether there is no key, so that nobody can call with one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.keys.load().known.is_empty()
    }

    /// Whose `token` it is, at `now` by the database's clock. Waits for nothing.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn caller(&self, token: &str, now: Timestamp) -> Result<Arc<Principal>, Refused> {
        let ids: &IdCodec = self.inner.store.ids();
        let (id, hash) = read_token(token).ok_or(Refused::Form)?;
        let id = ids.parse_api_key(id).ok_or(Refused::Form)?;
        if FRESH <= self.inner.age() {
            return Err(Refused::Stale);
        }
        let keys = self.inner.keys.load();
        let Known { key, principal, used } = keys.known.get(&id).ok_or(Refused::Unknown)?;
        if !bool::from(key.secret_hash.ct_eq(&hash)) {
            return Err(Refused::Secret);
        }
        if key.revoke_time.is_some() {
            return Err(Refused::Revoked);
        }
        if !key.is_live(now) {
            return Err(Refused::Expired);
        }
        // A look first: callers of one key write the same word once a minute only.
        if used.load(Ordering::Relaxed) == 0 {
            used.store(now.0, Ordering::Relaxed);
        }
        Ok(Arc::clone(principal))
    }

    /// Reads the keys if they have changed; `anew`: whatever the version says, since after an
    /// absence the database may be another, that counts from where it stood.
    async fn refresh(&self, anew: bool) -> Result<(), StoreError> {
        let inner = &self.inner;
        let began = inner.began.elapsed();
        let version = inner.store.credentials_version().await?;
        let last = inner.keys.load_full();
        if anew || last.version != version {
            // They may be newer than the version; then they are read once more.
            let keys = inner.store.api_keys().await?;
            inner.keys.store(Arc::new(Keys::new(version, keys, &last)));
        }
        let began = u64::try_from(began.as_millis()).unwrap_or(u64::MAX);
        inner.looked.store(began, Ordering::Release);
        Ok(())
    }

    /// Keeps them up until `stop`. Never fails: while the database is away they go stale.
    pub async fn keep(self, metrics: Metrics, stop: CancellationToken) {
        // Beside each other: writes that are slow must not make the keys stale.
        tokio::join!(self.keep_fresh(&metrics, &stop), self.keep_noting_use(&stop));
    }

    async fn keep_fresh(&self, metrics: &Metrics, stop: &CancellationToken) {
        let mut rhythm = tokio::time::interval(POLL);
        rhythm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = rhythm.tick() => {}
            }
            let refreshed = self.refresh(failing).await;
            if let Err(error) = &refreshed {
                metrics.credential_reload_failed(CredentialSource::ApiKeys);
                if !failing {
                    tracing::warn!(%error, "cannot see changes of credentials");
                }
            }
            failing = refreshed.is_err();
        }
    }

    async fn keep_noting_use(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.note_use().await,
                () = tokio::time::sleep(NOTE_USE) => self.note_use().await,
            }
        }
    }

    async fn note_use(&self) {
        let keys = self.inner.keys.load_full();
        let used = keys.known.iter().map(|(id, one)| (*id, one.used.swap(0, Ordering::Relaxed)));
        let used: Vec<(ApiKeyId, Timestamp)> =
            used.filter(|(_, time)| *time != 0).map(|(id, time)| (id, Timestamp(time))).collect();
        if let Err(error) = self.inner.store.used_api_keys(&used).await {
            tracing::debug!(%error, "the last use of keys is noted later");
            for (id, time) in used {
                if let Some(one) = keys.known.get(&id) {
                    // One that was used again meanwhile keeps the later time.
                    let _later =
                        one.used.compare_exchange(0, time.0, Ordering::Relaxed, Ordering::Relaxed);
                }
            }
        }
    }
}

impl Inner {
    /// How old what is known may be.
    fn age(&self) -> Duration {
        let looked = Duration::from_millis(self.looked.load(Ordering::Acquire));
        self.began.elapsed().saturating_sub(looked)
    }
}

impl Keys {
    fn new(version: i64, keys: Vec<ApiKey>, last: &Keys) -> Keys {
        let known = keys.into_iter().map(|key| {
            let used = last.known.get(&key.id).map(|one| Arc::clone(&one.used));
            let principal = Arc::new(key.principal.clone());
            (key.id, Known { key, principal, used: used.unwrap_or_default() })
        });
        Keys { version, known: known.collect() }
    }
}

#[cfg(test)]
mod tests;
