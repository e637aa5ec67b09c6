//! A certificate authority for the receivers of one test process, and the ways in which
//! a receiver's certificate can be wrong.

use std::sync::{Arc, LazyLock};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// What kind of certificate a receiver shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certificate {
    /// Issued by [`AUTHORITY`] for the receiver's address and names.
    Good,
    /// Signed by itself.
    SelfSigned,
    /// Issued by the authority for another name.
    WrongName,
    /// Issued by the authority, and over since 2001.
    Expired,
}

/// Whom the servers under test trust, through `--egress-ca`.
pub(crate) static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Pair {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names to refuse");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Hookward test authority");
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        Authority { issuer }
    }

    /// The authority's certificate, for `--egress-ca`.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for these names, each an address, a DNS name or a URI.
    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_until(names, 2096)
    }

    /// The same, which ends with the first of May of this year.
    pub(crate) fn issue_until(&self, names: &[&str], year: i32) -> Pair {
        let name = |name: &&str| {
            if let Ok(address) = name.parse() {
                return SanType::IpAddress(address);
            }
            let text = (*name).try_into().expect("names are ASCII");
            if name.contains("://") { SanType::URI(text) } else { SanType::DnsName(text) }
        };
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(name).collect();
        params.not_after = date_time_ymd(year, 5, 1);
        let key = KeyPair::generate().expect("a key");
        let issued = params.signed_by(&key, &self.issuer).expect("a certificate");
        let (certificate, certificate_pem) = (issued.der().clone(), issued.pem());
        Pair { certificate, certificate_pem, key_pem: key.serialize_pem() }
    }

    /// How a receiver with a good certificate serves only clients that this authority
    /// knows.
    pub(crate) fn server_asking(&self) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority");
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().expect("it has a root");
        self.serving(Certificate::Good, Some(verifier))
    }

    /// How a receiver with such a certificate serves TLS. Good ones are for
    /// `127.0.0.1`, `127.0.0.2` and every `*.receiver.example`.
    pub(crate) fn server(&self, kind: Certificate) -> Arc<ServerConfig> {
        self.serving(kind, None)
    }

    fn serving(
        &self,
        kind: Certificate,
        clients: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Arc<ServerConfig> {
        let names: &[&str] = match kind {
            Certificate::WrongName => &["somewhere.else.example"],
            Certificate::Good | Certificate::SelfSigned | Certificate::Expired => {
                &["127.0.0.1", "127.0.0.2", "*.receiver.example"]
            }
        };
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("the names are valid");
        if kind == Certificate::Expired {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = match kind {
            Certificate::SelfSigned => params.self_signed(&key),
            Certificate::Good | Certificate::WrongName | Certificate::Expired => {
                params.signed_by(&key, &self.issuer)
            }
        };
        let certificate = certificate.expect("a certificate").der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_client_cert_verifier(clients.unwrap_or_else(WebPkiClientVerifier::no_client_auth))
            .with_single_cert(vec![certificate], key)
            .expect("key and certificate belong together");
        Arc::new(config)
    }
}
