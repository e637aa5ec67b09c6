//! The published keys of one issuer: read now and then, at once when a token names a key
//! that is not known, and kept for a while when the issuer is away.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::domain::jwk::KeySet;
use crate::domain::principal::{Organizations, Principal};
use crate::domain::timestamp::Timestamp;
use crate::egress::{Egress, Target};
use crate::metrics::{CredentialSource, Metrics};

/// Longest document: [`crate::domain::jwk::KEYS_MAX`] large keys with their certificates.
const DOCUMENT_BYTES_MAX: usize = 512 << 10;
/// Time for getting it.
const FETCH_MAX: Duration = Duration::from_secs(5);
/// Memory for the tokens remembered of one reading, in bytes, and a little more; when it is
/// full all are forgotten, and verified anew. Room for 50,000 tokens of an organization each.
const REMEMBERED_BYTES_MAX: usize = 16 << 20;
/// What remembering takes besides the names in a token.
const REMEMBERED_BYTES: usize = 256;
/// What each of its organizations takes besides its name.
const ORGANIZATION_BYTES: usize = 64;

/// Where the keys are.
#[derive(Debug)]
pub(super) enum Source {
    File(PathBuf),
    Url(Egress, Arc<Target>),
}

/// How often the keys are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rhythm {
    /// Keys are read anew when they are as old.
    pub(super) fresh: Duration,
    /// Shortest time from one reading to the next, whether it succeeded or not.
    pub(super) again: Duration,
    /// Keys that could not be read anew are used for as long.
    pub(super) stale: Duration,
}

impl Rhythm {
    /// Of a file on this machine.
    pub(super) const FILE: Rhythm = Rhythm {
        fresh: Duration::from_secs(5),
        again: Duration::from_secs(5),
        stale: Duration::from_hours(1),
    };
    /// Of a server of somebody else's.
    pub(super) const URL: Rhythm = Rhythm {
        fresh: Duration::from_mins(5),
        again: Duration::from_secs(30),
        stale: Duration::from_hours(1),
    };
}

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct Jwks {
    /// For the log.
    issuer: String,
    source: Source,
    rhythm: Rhythm,
    metrics: Metrics,
    began: Instant,
    current: ArcSwapOption<Keys>,
    /// Held while the source is read, so that all who want newer keys wait for one reading.
    readings: tokio::sync::Mutex<Readings>,
    /// Somebody wants newer keys and does not wait for them.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Readings {
    /// When the last one began.
    last: Option<Instant>,
    /// Whether it failed.
    failed: bool,
}

impl Readings {
    fn is_recent(&self, again: Duration) -> bool {
        self.last.is_some_and(|last| last.elapsed() < again)
    }
}

#[derive(Debug, Default)]
struct Verified {
    /// Whose tokens they are, and until when these are good, by the SHA-256 of each.
    callers: HashMap<[u8; 32], (Arc<Principal>, Timestamp)>,
    /// About as many as `callers` takes.
    bytes: usize,
}

/// The keys of one reading, and the tokens that they have verified: with the keys these
/// are forgotten.
#[derive(Debug)]
pub(super) struct Keys {
    set: KeySet,
    read_at: Instant,
    verified: RwLock<Verified>,
}

impl Keys {
    pub(super) fn set(&self) -> &KeySet {
        &self.set
    }

    /// Whose token has this SHA-256, if it was verified before and is still good.
    pub(super) fn remembered(&self, digest: &[u8; 32], now: Timestamp) -> Option<Arc<Principal>> {
        let verified = self.verified.read().unwrap_or_else(PoisonError::into_inner);
        let (principal, end) = verified.callers.get(digest)?;
        (now < *end).then(|| Arc::clone(principal))
    }

    pub(super) fn remember(&self, digest: [u8; 32], principal: Arc<Principal>, end: Timestamp) {
        let mut verified = self.verified.write().unwrap_or_else(PoisonError::into_inner);
        let bytes = weight(&principal);
        if REMEMBERED_BYTES_MAX < verified.bytes + bytes {
            *verified = Verified::default();
        }
        if verified.callers.insert(digest, (principal, end)).is_none() {
            verified.bytes += bytes;
        }
    }
}

fn weight(principal: &Principal) -> usize {
    let organizations: usize = match &principal.organizations {
        Organizations::All => 0,
        Organizations::Some(these) => {
            these.iter().map(|one| ORGANIZATION_BYTES + one.as_str().len()).sum()
        }
    };
    REMEMBERED_BYTES + principal.name.len() + organizations
}

impl Jwks {
    /// None is known yet.
    pub(super) fn new(issuer: String, source: Source, rhythm: Rhythm, metrics: Metrics) -> Jwks {
        Jwks {
            issuer,
            source,
            rhythm,
            metrics,
            began: Instant::now(),
            current: ArcSwapOption::empty(),
            readings: tokio::sync::Mutex::default(),
            wanted: Notify::new(),
        }
    }

    /// How long ago the keys were read; from the beginning on while they never were.
    pub(super) fn age(&self) -> Duration {
        let read_at = self.current.load().as_ref().map(|keys| keys.read_at);
        read_at.unwrap_or(self.began).elapsed()
    }

    /// The keys as they were last read, unless that is too long ago.
    pub(super) fn current(&self) -> Option<Arc<Keys>> {
        self.current.load_full().filter(|keys| self.may_be_used(keys))
    }

    /// Whose token has this SHA-256, if these keys have verified it before and it is still
    /// good.
    pub(super) fn remembered(&self, digest: &[u8; 32], now: Timestamp) -> Option<Arc<Principal>> {
        match &*self.current.load() {
            Some(keys) if self.may_be_used(keys) => keys.remembered(digest, now),
            Some(_) | None => None,
        }
    }

    fn may_be_used(&self, keys: &Keys) -> bool {
        keys.read_at.elapsed() < self.rhythm.stale
    }

    /// Reads the keys anew, unless that was done a moment ago.
    pub(super) async fn refresh(self: &Arc<Self>) {
        if self.were_just_read() {
            return;
        }
        let keys = Arc::clone(self);
        // In a task of its own: a caller who hangs up must not end the reading that others
        // wait for, nor use up their turn.
        let reading = tokio::spawn(async move { keys.read().await });
        if reading.await.is_err() {
            tracing::error!(issuer = self.issuer, "reading the keys of a token issuer panicked");
        }
    }

    /// The same, by whoever keeps the keys up.
    pub(super) fn want(&self) {
        if !self.were_just_read() {
            self.wanted.notify_one();
        }
    }

    /// So that tokens with made-up keys cost next to nothing.
    fn were_just_read(&self) -> bool {
        let readings = self.readings.try_lock();
        readings.is_ok_and(|readings| readings.is_recent(self.rhythm.again))
    }

    /// Keeps the keys up until `stop`.
    pub(super) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let rest = async {
                self.refresh().await;
                tokio::select! {
                    () = tokio::time::sleep(self.rest()) => {}
                    () = self.wanted.notified() => {}
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = rest => {}
            }
        }
    }

    /// How long the next reading has time.
    fn rest(&self) -> Duration {
        let age = self.current.load().as_ref().map(|keys| keys.read_at.elapsed());
        let left = age.map_or(Duration::ZERO, |age| self.rhythm.fresh.saturating_sub(age));
        left.max(self.rhythm.again)
    }

    async fn read(&self) {
        let mut readings = self.readings.lock().await;
        if readings.is_recent(self.rhythm.again) {
            return;
        }
        let began = Instant::now();
        readings.last = Some(began);
        let (issuer, failed) = (&self.issuer, readings.failed);
        match self.set().await {
            Ok(set) => {
                if set.is_empty() {
                    tracing::warn!(issuer, "a token issuer publishes no usable key");
                } else if failed {
                    tracing::info!(issuer, "the keys of a token issuer are known again");
                }
                let keys = Keys { set, read_at: began, verified: RwLock::default() };
                self.current.store(Some(Arc::new(keys)));
                readings.failed = false;
            }
            Err(error) => {
                self.metrics.credential_reload_failed(CredentialSource::TokenKeys);
                if !failed {
                    tracing::warn!(issuer, error, "cannot read the keys of a token issuer");
                }
                readings.failed = true;
            }
        }
    }

    async fn set(&self) -> Result<KeySet, String> {
        let document = match &self.source {
            Source::File(path) => tokio::fs::read(path).await.map_err(|error| error.to_string())?,
            Source::Url(egress, target) => {
                let fetched = egress.fetch(target, DOCUMENT_BYTES_MAX, FETCH_MAX).await;
                fetched.map_err(|error| error.to_string())?
            }
        };
        KeySet::parse(&document).map_err(|fault| fault.to_string())
    }
}

#[cfg(test)]
mod tests;
