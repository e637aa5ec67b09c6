//! What is told apart of callers that are not let in, and of what says who is.

/// Why a caller is not let in. It is counted for the operator; the caller is told the same
/// for every cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum AuthenticationRefusal {
    /// It shows neither a header nor a certificate that callers are known by.
    NoCredentials,
    /// Its certificate is of no authority that is trusted, not good any more, or missing: the
    /// TLS handshake fails.
    CertificateUntrusted,
    /// Its certificate is good, and names no caller or several.
    CertificateUnknown,
    /// Its header is not one bearer token of a kind that is taken.
    Header,
    /// Its API key has not the form of one.
    ApiKeyForm,
    /// There is no API key of this id.
    ApiKeyUnknown,
    /// The secret is not that of the API key.
    ApiKeySecret,
    /// The API key was ended.
    ApiKeyRevoked,
    /// The API key came to its end.
    ApiKeyExpired,
    /// The database was not heard of for too long: nobody is known by an API key.
    DatabaseAway,
    /// Its token has not the form of one, or a header that is refused.
    TokenForm,
    /// No such issuer of tokens is believed.
    TokenIssuer,
    /// The issuer publishes no such key.
    TokenKey,
    /// The keys of the issuer could not be read for too long.
    TokenKeysUnknown,
    /// Another has signed its token, or it was changed.
    TokenSignature,
    /// Its token is over.
    TokenExpired,
    /// A claim of its token is missing, wrong, or for somebody else.
    TokenClaims,
}

impl AuthenticationRefusal {
    pub(super) const ALL: [AuthenticationRefusal; 17] = [
        AuthenticationRefusal::NoCredentials,
        AuthenticationRefusal::CertificateUntrusted,
        AuthenticationRefusal::CertificateUnknown,
        AuthenticationRefusal::Header,
        AuthenticationRefusal::ApiKeyForm,
        AuthenticationRefusal::ApiKeyUnknown,
        AuthenticationRefusal::ApiKeySecret,
        AuthenticationRefusal::ApiKeyRevoked,
        AuthenticationRefusal::ApiKeyExpired,
        AuthenticationRefusal::DatabaseAway,
        AuthenticationRefusal::TokenForm,
        AuthenticationRefusal::TokenIssuer,
        AuthenticationRefusal::TokenKey,
        AuthenticationRefusal::TokenKeysUnknown,
        AuthenticationRefusal::TokenSignature,
        AuthenticationRefusal::TokenExpired,
        AuthenticationRefusal::TokenClaims,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            AuthenticationRefusal::NoCredentials => "no_credentials",
            AuthenticationRefusal::CertificateUntrusted => "certificate_untrusted",
            AuthenticationRefusal::CertificateUnknown => "certificate_unknown",
            AuthenticationRefusal::Header => "header",
            AuthenticationRefusal::ApiKeyForm => "api_key_form",
            AuthenticationRefusal::ApiKeyUnknown => "api_key_unknown",
            AuthenticationRefusal::ApiKeySecret => "api_key_secret",
            AuthenticationRefusal::ApiKeyRevoked => "api_key_revoked",
            AuthenticationRefusal::ApiKeyExpired => "api_key_expired",
            AuthenticationRefusal::DatabaseAway => "database_away",
            AuthenticationRefusal::TokenForm => "token_form",
            AuthenticationRefusal::TokenIssuer => "token_issuer",
            AuthenticationRefusal::TokenKey => "token_key",
            AuthenticationRefusal::TokenKeysUnknown => "token_keys_unknown",
            AuthenticationRefusal::TokenSignature => "token_signature",
            AuthenticationRefusal::TokenExpired => "token_expired",
            AuthenticationRefusal::TokenClaims => "token_claims",
        }
    }
}

/// What says who is let in, and is read anew while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum CredentialSource {
    /// The API keys in the database.
    ApiKeys,
    /// The server's certificate and key, and the authorities of clients.
    TlsFiles,
    /// What the issuers of tokens publish.
    TokenKeys,
}

impl CredentialSource {
    pub(super) const ALL: [CredentialSource; 3] =
        [CredentialSource::ApiKeys, CredentialSource::TlsFiles, CredentialSource::TokenKeys];

    pub(super) fn label(self) -> &'static str {
        match self {
            CredentialSource::ApiKeys => "api_keys",
            CredentialSource::TlsFiles => "tls_files",
            CredentialSource::TokenKeys => "token_keys",
        }
    }
}
