//! JSON Web Tokens (RFC 7519, signed by RFC 7515): who a token says is calling, once all of
//! it is right.
//!
//! Nothing that a token says about its own verification is believed (RFC 8725): which
//! algorithms may be is the operator's to say, and the key is one that the issuer publishes.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::id::OrganizationId;
use super::jwk::{Algorithm, KeySet, VerifyingKey};
use super::principal::{Organizations, Principal};
use super::scope::Scope;
use super::timestamp::Timestamp;

/// Longest token.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Longest life of a token: it cannot be revoked.
pub const LIFE_MAX: Duration = Duration::from_hours(24);
/// How far an issuer's clock may be off.
pub const SKEW: Duration = Duration::from_mins(1);
/// Longest name of a subject: as long as identity providers are allowed to make it.
const SUBJECT_BYTES_MAX: usize = 255;
/// Organizations of one token.
const ORGANIZATIONS_MAX: usize = 1000;
/// Parameters by which a token would choose its own key, or ask for more than is known here.
const REFUSED_PARAMETERS: [&str; 5] = ["jku", "jwk", "x5u", "x5c", "crit"];

/// What tokens of one issuer must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRules {
    /// What `iss` is, exactly.
    pub issuer: String,
    /// What `aud` is or holds.
    pub audience: String,
    /// How it may be signed; at least one.
    pub algorithms: Vec<Algorithm>,
    /// The claim that names organizations: one as a text, or a list of them.
    pub organizations_claim: String,
    /// The claim that names scopes: separated by spaces, or a list of them.
    pub scopes_claim: String,
}

/// What is wrong with a token. For the log: a caller is not told which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Longer than [`TOKEN_BYTES_MAX`].
    #[error("the token is too long")]
    TooLong,
    /// Not three parts of base64url, the first two of them JSON objects.
    #[error("the token has not the form of one")]
    Form,
    /// A parameter by which it would choose its own key, or an extension.
    #[error("the token's header has a parameter that is refused")]
    Parameter,
    /// An algorithm that its issuer does not sign with.
    #[error("the token is signed by an algorithm that is not allowed")]
    Algorithm,
    /// Its header names no key.
    #[error("the token names no key")]
    NoKey,
    /// No issuer of this name is known.
    #[error("the token's issuer is not known")]
    Issuer,
    /// The keys of its issuer could not be had for too long.
    #[error("the keys of the token's issuer are not known")]
    KeysUnknown,
    /// The issuer has no such key, so far as is known.
    #[error("the token's issuer has no such key")]
    UnknownKey,
    /// Another has signed it, or it was changed.
    #[error("the token's signature is wrong")]
    Signature,
    /// It is for somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// It is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYet,
    /// It is good for more than [`LIFE_MAX`].
    #[error("the token lives too long")]
    TooLongLived,
    /// A claim is missing, or of another type than it must be.
    #[error("the token's claim {0} is missing or not as it must be")]
    Claim(&'static str),
    /// The same of the claim that names organizations.
    #[error("the token's organizations are missing or not as they must be")]
    Organizations,
    /// The same of the claim that names scopes.
    #[error("the token's scopes are missing or not as they must be")]
    Scopes,
}

/// A token as it came: nothing of it is verified.
#[derive(Debug)]
pub struct Token<'a> {
    algorithm: Option<Algorithm>,
    kid: String,
    claims: Map<String, Value>,
    signed: &'a str,
    signature: Vec<u8>,
}

/// A caller, and until when the token is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Who is calling.
    pub principal: Principal,
    /// From then on the token is refused.
    pub end: Timestamp,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    ///
    /// What is wrong with its form or its header.
    pub fn read(text: &'a str) -> Result<Token<'a>, TokenFault> {
        if TOKEN_BYTES_MAX < text.len() {
            return Err(TokenFault::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenFault::Form)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenFault::Form)?;
        let (header, claims) = (object(header)?, object(claims)?);
        if REFUSED_PARAMETERS.iter().any(|name| header.contains_key(*name)) {
            return Err(TokenFault::Parameter);
        }
        let algorithm = text_of(&header, "alg").ok_or(TokenFault::Algorithm)?;
        let kid = text_of(&header, "kid").ok_or(TokenFault::NoKey)?;
        Ok(Token {
            algorithm: Algorithm::named(algorithm),
            kid: kid.to_owned(),
            claims,
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenFault::Form)?,
        })
    }

    /// Who it says has made it.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        text_of(&self.claims, "iss")
    }

    /// The key that it says has signed it.
    ///
    /// # Errors
    ///
    /// [`TokenFault::Algorithm`]; [`TokenFault::UnknownKey`]: newer keys may have it.
    pub fn key<'k>(
        &self,
        rules: &TokenRules,
        keys: &'k KeySet,
    ) -> Result<&'k VerifyingKey, TokenFault> {
        let allowed = self.algorithm.filter(|algorithm| rules.algorithms.contains(algorithm));
        let algorithm = allowed.ok_or(TokenFault::Algorithm)?;
        keys.get(&self.kid, algorithm).ok_or(TokenFault::UnknownKey)
    }

    /// Who calls with it, given a key that [`Token::key`] found.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn verify(
        &self,
        rules: &TokenRules,
        key: &VerifyingKey,
        now: Timestamp,
    ) -> Result<Verified, TokenFault> {
        if !key.verifies(self.signed.as_bytes(), &self.signature) {
            return Err(TokenFault::Signature);
        }
        if self.issuer() != Some(rules.issuer.as_str()) {
            return Err(TokenFault::Issuer);
        }
        let audience = self.claims.get("aud").and_then(texts).ok_or(TokenFault::Claim("aud"))?;
        if !audience.contains(&rules.audience.as_str()) {
            return Err(TokenFault::Audience);
        }
        let end = self.end(now)?;
        let subject = text_of(&self.claims, "sub")
            .filter(|subject| subject.len() <= SUBJECT_BYTES_MAX)
            // It stands in the audit log and in events.
            .filter(|subject| !subject.contains(char::is_control))
            .ok_or(TokenFault::Claim("sub"))?;
        let principal = Principal {
            name: format!("{} {subject}", rules.issuer),
            organizations: self.organizations(rules)?,
            scopes: self.scopes(rules)?.into_iter().collect(),
        };
        Ok(Verified { principal, end })
    }

    /// When it ends, if now is its time and its life is not too long.
    fn end(&self, now: Timestamp) -> Result<Timestamp, TokenFault> {
        let now = now.since(Timestamp::MIN);
        let end = self.time("exp")?.ok_or(TokenFault::Claim("exp"))?;
        let begin = self.time("iat")?;
        if end.saturating_add(SKEW) <= now {
            return Err(TokenFault::Expired);
        }
        if [begin, self.time("nbf")?].into_iter().flatten().any(|time| now + SKEW < time) {
            return Err(TokenFault::NotYet);
        }
        let life = begin.map(|begin| end.saturating_sub(begin));
        if now + LIFE_MAX + SKEW < end || life.is_some_and(|life| LIFE_MAX < life) {
            return Err(TokenFault::TooLongLived);
        }
        Ok(Timestamp::MIN.plus(end + SKEW))
    }

    /// Seconds since 1970, perhaps with a fraction; `None` when the claim is not there.
    fn time(&self, claim: &'static str) -> Result<Option<Duration>, TokenFault> {
        let Some(value) = self.claims.get(claim) else { return Ok(None) };
        let seconds = value.as_f64().ok_or(TokenFault::Claim(claim))?;
        let time = Duration::try_from_secs_f64(seconds);
        time.map(Some).map_err(|_| TokenFault::Claim(claim))
    }

    fn organizations(&self, rules: &TokenRules) -> Result<Organizations, TokenFault> {
        let names = self.claims.get(&rules.organizations_claim).and_then(texts);
        let names = names.ok_or(TokenFault::Organizations)?;
        if !(1..=ORGANIZATIONS_MAX).contains(&names.len()) {
            return Err(TokenFault::Organizations);
        }
        let these: Result<BTreeSet<_>, _> = names.into_iter().map(OrganizationId::parse).collect();
        these.map(Organizations::Some).map_err(|_| TokenFault::Organizations)
    }

    /// Those that are ours; a token may have others, for others.
    fn scopes(&self, rules: &TokenRules) -> Result<Vec<Scope>, TokenFault> {
        let names = self.claims.get(&rules.scopes_claim).and_then(texts);
        let names = names.ok_or(TokenFault::Scopes)?;
        let words = names.iter().flat_map(|name| name.split(' '));
        Ok(words.filter_map(|word| word.parse().ok()).collect())
    }
}

fn object(part: &str) -> Result<Map<String, Value>, TokenFault> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenFault::Form)?;
    serde_json::from_slice(&json).map_err(|_| TokenFault::Form)
}

/// A text that is not empty.
fn text_of<'m>(object: &'m Map<String, Value>, name: &str) -> Option<&'m str> {
    object.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// One text, or a list of nothing but texts.
fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(one) => Some(vec![one]),
        Value::Array(many) => many.iter().map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests;
