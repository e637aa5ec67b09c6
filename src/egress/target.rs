//! Where requests of one subscription go, prepared once so that no URL is parsed
//! per request.

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use http::Uri;
use rustls_pki_types::ServerName;

use super::tls::Made;
use crate::domain::canary;
use crate::domain::endpoint_url::EndpointUrl;
use crate::domain::endpoint_url::Host;
use crate::domain::endpoint_url::Scheme;
use crate::domain::id::OrganizationId;
use crate::domain::receiver_tls::ReceiverTls;
use crate::domain::receiver_tls::TlsParts;

/// An endpoint, ready to be called.
pub struct Target {
    pub(super) scheme: Scheme,
    pub(super) host: Host,
    pub(super) port: u16,
    /// What the certificate must name.
    pub(super) server_name: ServerName<'static>,
    pub(super) host_header: HeaderValue,
    /// Origin form: path and query.
    pub(super) path: Uri,
    /// Whose receiver it is; `None`: nobody's in particular.
    pub(super) organization: Option<OrganizationId>,
    /// `None`: the deployment's usual.
    pub(super) tls: Option<OwnTls>,
}

/// How handshakes with this receiver differ from the usual ones.
pub(super) struct OwnTls {
    pub(super) parts: TlsParts,
    /// Made at the first handshake.
    pub(super) made: ArcSwapOption<Made>,
}

impl OwnTls {
    pub(super) fn new(parts: TlsParts) -> OwnTls {
        OwnTls { parts, made: ArcSwapOption::empty() }
    }
}

/// The URL keeps every rule and still makes no HTTP request, or the certificates make no
/// handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no request can be made with this URL and these certificates")]
pub struct InvalidTarget;

impl std::fmt::Debug for Target {
    /// Without the path, which may hold a token.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.host_header.to_str().unwrap_or_default();
        write!(formatter, "Target({}://{host})", self.scheme.as_str())
    }
}

impl Target {
    /// The target that a URL names.
    ///
    /// # Errors
    ///
    /// When it cannot stand in a request. The rules of [`EndpointUrl`] leave no such
    /// URL that we know of.
    pub fn new(url: &EndpointUrl) -> Result<Target, InvalidTarget> {
        let server_name = match url.host() {
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| InvalidTarget)?,
            Host::Ip(address) => ServerName::IpAddress((*address).into()),
        };
        Ok(Target {
            scheme: url.scheme(),
            host: url.host().clone(),
            port: url.port(),
            server_name,
            host_header: url.host_header().parse().map_err(|_| InvalidTarget)?,
            path: url.path_and_query().parse().map_err(|_| InvalidTarget)?,
            organization: None,
            tls: None,
        })
    }

    /// The same as a receiver of this organization, which may be allowed more than others.
    #[must_use]
    pub fn of(self, organization: OrganizationId) -> Target {
        Target { organization: Some(organization), ..self }
    }

    /// The same, with these certificates.
    ///
    /// # Errors
    ///
    /// When they cannot be used: better no request than one without them.
    pub fn with_tls(self, tls: &ReceiverTls) -> Result<Target, InvalidTarget> {
        if tls.is_default() {
            return Ok(Target { tls: None, ..self });
        }
        let parts = tls.parts().map_err(|_| InvalidTarget)?;
        Ok(Target { tls: Some(OwnTls::new(parts)), ..self })
    }

    /// Whether it is the canary's receiver, which each process has for itself. Nobody else
    /// is of that organization, whatever host he names.
    pub(super) fn is_canary(&self) -> bool {
        let of_canary = self.organization.as_ref().is_some_and(canary::owns);
        of_canary && self.host == Host::Name(canary::HOST.to_owned())
    }

    /// Whether a connection to `other` reaches the same receiver, under the same
    /// certificates.
    pub(super) fn same_origin(&self, other: &Target) -> bool {
        let fingerprint = |target: &Target| target.tls.as_ref().map(|tls| tls.parts.fingerprint);
        self.port == other.port
            && self.scheme == other.scheme
            && self.host == other.host
            && fingerprint(self) == fingerprint(other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_url_within_the_rules_makes_a_target(
            host in "[a-z0-9]([a-z0-9-]{0,9}[a-z0-9])?\\.example|192\\.0\\.2\\.7|\\[2001:db8::7\\]",
            port in "(:[1-9][0-9]{1,3})?",
            path in "([/?][!-~]{0,20})?",
        ) {
            if let Ok(url) = EndpointUrl::stored(&format!("https://{host}{port}{path}")) {
                let target = Target::new(&url);
                prop_assert!(target.is_ok(), "{}", url.as_str());
                let sent = target.expect("just seen").path.to_string();
                prop_assert_eq!(sent, url.path_and_query());
            }
        }
    }
}
