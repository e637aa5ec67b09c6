//! Callers known by a token: which issuers are believed, and what they have said of whom.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::jwks::{Jwks, Rhythm, Source};
use crate::domain::address::{AddressPolicy, EgressAllow};
use crate::domain::jwt::{Token, TokenFault, TokenRules};
use crate::domain::principal::Principal;
use crate::domain::timestamp::Timestamp;
use crate::egress::{self, Egress, EgressError, Target};
use crate::metrics::Metrics;

/// Every address: the operator's own network is where issuers live.
const EVERYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];
/// How often the age of the keys is noted.
const NOTE_AGE: Duration = Duration::from_secs(1);

/// Somebody whose tokens are believed.
#[derive(Clone, Debug)]
pub struct IssuerSettings {
    /// What its tokens must be like.
    pub rules: TokenRules,
    /// Where its keys are.
    pub keys: KeySource,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// In a file, which may be replaced.
    File(PathBuf),
    /// Behind a URL.
    Url {
        /// Where.
        target: Arc<Target>,
        /// PEM text of authorities that are trusted besides the public ones.
        authorities: Option<Vec<u8>>,
    },
}

/// The issuers whose tokens are believed. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Issuers {
    issuers: Arc<[Issuer]>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Issuer {
    rules: TokenRules,
    keys: Arc<Jwks>,
}

impl Issuers {
    /// These issuers, of whom no key is known yet.
    ///
    /// # Errors
    ///
    /// When the authorities of one cannot be used.
    pub fn new(
        settings: Vec<IssuerSettings>,
        nameservers: &[SocketAddr],
        metrics: &Metrics,
    ) -> Result<Issuers, EgressError> {
        let issuer = |settings: IssuerSettings| {
            let (source, rhythm) = match settings.keys {
                KeySource::File(path) => (Source::File(path), Rhythm::FILE),
                KeySource::Url { target, authorities } => {
                    (Source::Url(egress(nameservers, authorities)?, target), Rhythm::URL)
                }
            };
            let name = settings.rules.issuer.clone();
            let keys = Jwks::new(name, source, rhythm, metrics.clone());
            Ok(Issuer { rules: settings.rules, keys: Arc::new(keys) })
        };
        let issuers = settings.into_iter().map(issuer).collect::<Result<Vec<_>, EgressError>>()?;
        Ok(Issuers { issuers: issuers.into(), metrics: metrics.clone() })
    }

    /// Whether nobody is believed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.issuers.is_empty()
    }

    /// Who calls with this token, at `now` by the database's clock.
    ///
    /// # Errors
    ///
    /// What is wrong with it. After [`TokenFault::UnknownKey`], ask
    /// [`Issuers::caller_by_newest_keys`].
    pub fn caller(&self, token: &str, now: Timestamp) -> Result<Arc<Principal>, TokenFault> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut issuers = self.issuers.iter();
        let remembered = issuers.find_map(|one| one.keys.remembered(&digest, now));
        if let Some(principal) = remembered {
            return Ok(principal);
        }
        let token = Token::read(token)?;
        let Issuer { rules, keys } = self.issuer(&token)?;
        // Whether nothing is known, or too little, newer keys may help.
        let keys = keys.current().ok_or(TokenFault::UnknownKey)?;
        let verified = token.verify(rules, token.key(rules, keys.set())?, now)?;
        let principal = Arc::new(verified.principal);
        keys.remember(digest, Arc::clone(&principal), verified.end);
        Ok(principal)
    }

    /// The same, once the token's issuer has been asked for its keys; it is asked twice a
    /// minute at most, whoever wants to know.
    ///
    /// # Errors
    ///
    /// What is wrong with the token.
    pub async fn caller_by_newest_keys(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<Arc<Principal>, TokenFault> {
        let keys = &self.issuer(&Token::read(token)?)?.keys;
        keys.refresh().await;
        if keys.current().is_none() {
            return Err(TokenFault::KeysUnknown);
        }
        self.caller(token, now)
    }

    /// Has the keys of the token's issuer read anew soon, unless that was done a moment ago.
    pub fn want_newest_keys(&self, token: &str) {
        if let Ok(issuer) = Token::read(token).and_then(|token| self.issuer(&token)) {
            issuer.keys.want();
        }
    }

    /// Keeps the keys up until `stop`.
    pub async fn keep(self, stop: CancellationToken) {
        let keep = self.issuers.iter().map(|issuer| Arc::clone(&issuer.keys).keep(stop.clone()));
        tokio::select! {
            _ = futures_util::future::join_all(keep) => {}
            () = self.note_age() => {}
        }
    }

    /// Of the issuer whose keys were not read for longest: an issuer's name is no label.
    async fn note_age(&self) {
        loop {
            let ages = self.issuers.iter().map(|issuer| issuer.keys.age());
            self.metrics.token_keys_oldest_age(ages.max().unwrap_or_default());
            tokio::time::sleep(NOTE_AGE).await;
        }
    }

    /// Who says to have made it.
    fn issuer(&self, token: &Token<'_>) -> Result<&Issuer, TokenFault> {
        let name = token.issuer().ok_or(TokenFault::Issuer)?;
        let mut issuers = self.issuers.iter();
        issuers.find(|issuer| issuer.rules.issuer == name).ok_or(TokenFault::Issuer)
    }
}

/// A way out of its own: whoever chooses an issuer's URL is the operator, and an authority
/// that vouches for receivers should not vouch for whoever says who is calling.
fn egress(nameservers: &[SocketAddr], authorities: Option<Vec<u8>>) -> Result<Egress, EgressError> {
    let everywhere = EVERYWHERE.map(str::parse::<EgressAllow>);
    let allow = everywhere.into_iter().map(|entry| entry.expect("it is a network")).collect();
    let mut settings = egress::Settings::new(AddressPolicy { allow, ..AddressPolicy::default() });
    settings.nameservers = nameservers.to_vec();
    settings.ca_files_pem.extend(authorities);
    Egress::new(settings)
}
