//! Certificates for 127.0.0.1, by authorities of the benchmark's own.

use std::sync::Arc;

use rcgen::BasicConstraints;
use rcgen::Certificate;
use rcgen::CertificateParams;
use rcgen::CertifiedIssuer;
use rcgen::DnType;
use rcgen::IsCa;
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::PrivatePkcs8KeyDer;

/// A certificate, its key, and who vouches for it.
pub(crate) struct Issued {
    pub(crate) certificate: Certificate,
    pub(crate) key: KeyPair,
    /// The authority's certificate.
    pub(crate) authority_pem: String,
}

/// One more, by an authority that issues no other.
pub(crate) fn issue() -> anyhow::Result<Issued> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "Hookward benchmark authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    let certificate = params.signed_by(&key, &authority)?;
    Ok(Issued { certificate, key, authority_pem: authority.pem() })
}

/// How the receiver serves TLS, and the authority's certificate for `--egress-ca`.
pub(crate) fn server() -> anyhow::Result<(Arc<ServerConfig>, String)> {
    let Issued { certificate, key, authority_pem } = issue()?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok((Arc::new(config), authority_pem))
}
