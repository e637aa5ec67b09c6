//! Callers known by their TLS certificate: a name in it, exactly as the operator wrote it.
//!
//! Whether the certificate itself is good, TLS has judged before.

use std::collections::HashMap;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::domain::principal::Principal;

/// How URIs of SPIFFE ids begin.
const SPIFFE: &str = "spiffe://";

/// A subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CertificateName {
    /// A DNS name, in lower case.
    Dns(String),
    /// A URI, such as a SPIFFE id.
    Uri(String),
}

/// Who has which name. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    callers: Arc<HashMap<CertificateName, Arc<Principal>>>,
}

impl Certificates {
    /// These callers. Of two with one name the later one counts.
    #[must_use]
    pub fn new(callers: impl IntoIterator<Item = (CertificateName, Principal)>) -> Self {
        let callers = callers.into_iter().map(|(name, principal)| (name, Arc::new(principal)));
        Certificates { callers: Arc::new(callers.collect()) }
    }

    /// Whether nobody is known by a certificate.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.callers.is_empty()
    }

    /// Who shows this certificate. One that names two callers names none; so does one with
    /// two SPIFFE ids (X509-SVID, section 2).
    #[must_use]
    pub fn caller(&self, certificate: &CertificateDer<'_>) -> Option<Arc<Principal>> {
        let certificate = EndEntityCert::try_from(certificate).ok()?;
        let uris: Vec<&str> = certificate.valid_uri_names().collect();
        if 1 < uris.iter().filter(|uri| uri.starts_with(SPIFFE)).count() {
            return None;
        }
        let dns = certificate.valid_dns_names();
        let dns = dns.map(|name| CertificateName::Dns(name.to_ascii_lowercase()));
        let uris = uris.into_iter().map(|uri| CertificateName::Uri(uri.to_owned()));
        let mut found = dns.chain(uris).filter_map(|name| self.callers.get(&name));
        let first = found.next()?;
        found.all(|other| Arc::ptr_eq(first, other)).then(|| Arc::clone(first))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;
    use crate::domain::principal::Organizations;
    use crate::domain::scope::Scopes;

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let name = |name: &&str| {
            let text = (*name).try_into().expect("ASCII");
            if name.contains("://") { SanType::URI(text) } else { SanType::DnsName(text) }
        };
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(name).collect();
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    fn principal(name: &str) -> Principal {
        Principal {
            name: name.to_owned(),
            organizations: Organizations::All,
            scopes: Scopes::default(),
        }
    }

    #[test]
    fn a_name_is_known_exactly_as_it_is_written() {
        let dns = CertificateName::Dns("a.clinic.example".to_owned());
        let uri = CertificateName::Uri("spiffe://clinic.example/a".to_owned());
        let known = Certificates::new([(dns, principal("dns")), (uri, principal("uri"))]);
        for (names, expected) in [
            (&["a.clinic.example"][..], Some("dns")),
            (&["A.Clinic.Example"], Some("dns")),
            (&["other.example", "a.clinic.example"], Some("dns")),
            (&["spiffe://clinic.example/a"], Some("uri")),
            (&["spiffe://clinic.example/a", "other.example"], Some("uri")),
            (&[], None),
            (&["*.clinic.example"], None),
            (&["b.a.clinic.example"], None),
            (&["clinic.example"], None),
            (&["spiffe://clinic.example/A"], None),
            (&["spiffe://clinic.example/a/"], None),
            (&["spiffe://Clinic.example/a"], None),
            (&["spiffe://clinic.example/a", "spiffe://clinic.example/b"], None),
            (&["spiffe://clinic.example/a", "a.clinic.example"], None),
        ] {
            let found = known.caller(&certificate(names));
            assert_eq!(found.as_ref().map(|found| found.name.as_str()), expected, "{names:?}");
        }
        assert_eq!(known.caller(&CertificateDer::from(&b"none"[..])), None);
    }
}
