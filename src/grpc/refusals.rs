//! Calls that are not let in: why, for the operator, and the answer, which is the same for
//! every cause.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::Response;
use tonic::body::Body;

use super::complaint::Complaint;
use super::failures::Failures;
use super::{status, strangers};
use crate::credentials::Refused;
use crate::domain::jwt::TokenFault;
use crate::metrics::{AuthenticationRefusal, Metrics};

/// Why a call is not let in. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// There is no header, nor a certificate by which callers are known.
    #[error("no credentials were shown")]
    NoCredentials,
    /// Its certificate is nobody's.
    #[error("the certificate names no caller, or several")]
    Certificate,
    /// The header cannot be read, or holds something that is not taken here.
    #[error("the authorization header is not one bearer token of a kind that is taken")]
    Header,
    /// Its API key is not good; the key's id, if it has the form of one.
    #[error("{0}")]
    ApiKey(Refused, Option<String>),
    /// Its token is not good.
    #[error(transparent)]
    Token(TokenFault),
}

impl Refusal {
    /// As it is counted.
    fn cause(&self) -> AuthenticationRefusal {
        match self {
            Refusal::NoCredentials => AuthenticationRefusal::NoCredentials,
            Refusal::Certificate => AuthenticationRefusal::CertificateUnknown,
            Refusal::Header => AuthenticationRefusal::Header,
            Refusal::ApiKey(Refused::Form, _) => AuthenticationRefusal::ApiKeyForm,
            Refusal::ApiKey(Refused::Unknown, _) => AuthenticationRefusal::ApiKeyUnknown,
            Refusal::ApiKey(Refused::Secret, _) => AuthenticationRefusal::ApiKeySecret,
            Refusal::ApiKey(Refused::Revoked, _) => AuthenticationRefusal::ApiKeyRevoked,
            Refusal::ApiKey(Refused::Expired, _) => AuthenticationRefusal::ApiKeyExpired,
            Refusal::ApiKey(Refused::Stale, _) => AuthenticationRefusal::DatabaseAway,
            Refusal::Token(
                TokenFault::TooLong
                | TokenFault::Form
                | TokenFault::Parameter
                | TokenFault::Algorithm
                | TokenFault::NoKey,
            ) => AuthenticationRefusal::TokenForm,
            Refusal::Token(TokenFault::Issuer) => AuthenticationRefusal::TokenIssuer,
            Refusal::Token(TokenFault::UnknownKey) => AuthenticationRefusal::TokenKey,
            Refusal::Token(TokenFault::KeysUnknown) => AuthenticationRefusal::TokenKeysUnknown,
            Refusal::Token(TokenFault::Signature) => AuthenticationRefusal::TokenSignature,
            Refusal::Token(TokenFault::Expired) => AuthenticationRefusal::TokenExpired,
            Refusal::Token(
                TokenFault::Audience
                | TokenFault::NotYet
                | TokenFault::TooLongLived
                | TokenFault::Claim(_)
                | TokenFault::Organizations
                | TokenFault::Scopes,
            ) => AuthenticationRefusal::TokenClaims,
        }
    }
}

/// Marks an answer that has no line of its own in the log, nor in the audit log: there may be
/// any number of them, and the log says once a minute that there are some.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unlogged;

/// Counts calls that are not let in, and answers them. Cloning shares the counts.
#[derive(Clone, Debug)]
pub(super) struct Refusals {
    metrics: Metrics,
    failures: Failures,
    /// That callers cannot be known.
    unknowable: Arc<Mutex<Complaint>>,
}

impl Refusals {
    pub(super) fn new(metrics: Metrics) -> Refusals {
        Refusals { metrics, failures: Failures::default(), unknowable: Arc::default() }
    }

    /// The answer to a call from this address.
    pub(super) fn refuse(&self, refusal: &Refusal, from: Option<SocketAddr>) -> Response<Body> {
        if let Refusal::ApiKey(Refused::Stale, _) = refusal {
            // No failure of the caller's.
            return self.unknowable(refusal);
        }
        match self.charge(from) {
            Ok(()) => self.unauthenticated(refusal, from),
            Err(wait) => self.limited(refusal, wait),
        }
    }

    /// The answer while nobody can be known by an API key. Without a line in the log for each:
    /// nobody who calls then has shown anything.
    fn unknowable(&self, refusal: &Refusal) -> Response<Body> {
        self.metrics.authentication_refused(refusal.cause());
        let mut complaint = self.unknowable.lock().unwrap_or_else(PoisonError::into_inner);
        if complaint.is_due(Instant::now()) {
            tracing::warn!("the database is away: nobody is known by an API key");
        }
        let mut answer = status::credentials_unknown().into_http();
        answer.extensions_mut().insert(Unlogged);
        answer
    }

    /// Counts a failure of this address, where it is known.
    ///
    /// # Errors
    ///
    /// When it has too many: how long it should wait.
    pub(super) fn charge(&self, from: Option<SocketAddr>) -> Result<(), Duration> {
        let network = from.map(|from| strangers::network(from.ip()));
        network.map_or(Ok(()), |network| self.failures.count(network))
    }

    /// The answer to a call whose failure is counted.
    pub(super) fn unauthenticated(
        &self,
        refusal: &Refusal,
        from: Option<SocketAddr>,
    ) -> Response<Body> {
        self.metrics.authentication_refused(refusal.cause());
        let key = match refusal {
            Refusal::ApiKey(_, id) => id.as_deref(),
            Refusal::NoCredentials | Refusal::Certificate | Refusal::Header | Refusal::Token(_) => {
                None
            }
        };
        let from = from.map(tracing::field::display);
        tracing::info!(cause = %refusal, key, from, "credentials were refused");
        status::unauthenticated().into_http()
    }

    /// The answer to a call from an address that fails too often.
    pub(super) fn limited(&self, refusal: &Refusal, wait: Duration) -> Response<Body> {
        self.metrics.authentication_refused(refusal.cause());
        self.metrics.authentication_limited();
        let mut answer = status::too_many_failures(wait).into_http();
        answer.extensions_mut().insert(Unlogged);
        answer
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};
    use tonic_types::StatusExt;

    use super::*;

    fn status(answer: &Response<Body>) -> Status {
        Status::from_header_map(answer.headers()).expect("an error")
    }

    #[test]
    fn the_answer_is_the_same_for_every_cause_and_the_count_is_not() {
        let metrics = Metrics::new();
        let refusals = Refusals::new(metrics.clone());
        let causes = [
            (Refusal::NoCredentials, "no_credentials"),
            (Refusal::Certificate, "certificate_unknown"),
            (Refusal::Header, "header"),
            (Refusal::ApiKey(Refused::Form, None), "api_key_form"),
            (Refusal::ApiKey(Refused::Unknown, None), "api_key_unknown"),
            (Refusal::ApiKey(Refused::Secret, Some("whk_1".to_owned())), "api_key_secret"),
            (Refusal::ApiKey(Refused::Revoked, None), "api_key_revoked"),
            (Refusal::ApiKey(Refused::Expired, None), "api_key_expired"),
            (Refusal::Token(TokenFault::Form), "token_form"),
            (Refusal::Token(TokenFault::Issuer), "token_issuer"),
            (Refusal::Token(TokenFault::UnknownKey), "token_key"),
            (Refusal::Token(TokenFault::KeysUnknown), "token_keys_unknown"),
            (Refusal::Token(TokenFault::Signature), "token_signature"),
            (Refusal::Token(TokenFault::Expired), "token_expired"),
            (Refusal::Token(TokenFault::Claim("sub")), "token_claims"),
        ];
        let mut answers = Vec::new();
        for (refusal, label) in causes {
            let status = status(&refusals.refuse(&refusal, None));
            answers.push((status.code(), status.message().to_owned(), status.details().to_vec()));
            let line = format!("hookward_authentication_refusals_total{{cause=\"{label}\"}} 1\n");
            assert!(metrics.render().contains(&line), "{label}");
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!(answers[0].0, Code::Unauthenticated);
    }

    #[test]
    fn whoever_fails_too_often_is_told_when_to_come_back_and_the_log_is_spared() {
        let metrics = Metrics::new();
        let refusals = Refusals::new(metrics.clone());
        let from = Some(SocketAddr::from(([192, 0, 2, 1], 40_000)));
        let first = refusals.refuse(&Refusal::Header, from);
        assert_eq!(status(&first).code(), Code::Unauthenticated);
        assert!(first.extensions().get::<Unlogged>().is_none());
        // More than ten, should a second end meanwhile.
        let mut many = (0..10_000).map(|_| refusals.refuse(&Refusal::Header, from));
        let limited = many.find(|answer| status(answer).code() == Code::ResourceExhausted);
        let limited = limited.expect("ten a second are too few for this");
        assert!(limited.extensions().get::<Unlogged>().is_some());
        let status = status(&limited);
        assert_eq!(status.get_details_error_info().expect("has one").reason, "TOO_MANY_FAILURES");
        let wait = status.get_details_retry_info().expect("a wait").retry_delay;
        assert!(wait.is_some_and(|wait| !wait.is_zero() && wait <= Duration::from_secs(1)));
        let quota = status.get_details_quota_failure().expect("a quota");
        assert_eq!(quota.violations[0].subject, "address");
        let page = metrics.render();
        assert!(page.contains("hookward_authentication_refusals_limited_total 1\n"), "{page}");
    }

    #[test]
    fn whose_credentials_cannot_be_told_has_not_failed() {
        let refusals = Refusals::new(Metrics::new());
        let from = Some(SocketAddr::from(([192, 0, 2, 1], 40_000)));
        for _ in 0..100 {
            let answer = refusals.refuse(&Refusal::ApiKey(Refused::Stale, None), from);
            assert_eq!(status(&answer).code(), Code::Unavailable);
            assert!(answer.extensions().get::<Unlogged>().is_some(), "anybody can call");
        }
        let answer = refusals.refuse(&Refusal::NoCredentials, from);
        assert_eq!(status(&answer).code(), Code::Unauthenticated);
    }
}
