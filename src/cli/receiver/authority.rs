//! A certificate for one receiver, from an authority that exists only to issue it.
//!
//! The authority's key is dropped as soon as it has signed: whoever trusts the
//! authority trusts this receiver and nothing else.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertifiedIssuer;
use rcgen::DnType;
use rcgen::IsCa;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::PrivatePkcs8KeyDer;

/// What serves TLS for `localhost`, both loopback addresses and `address`; and the
/// authority's certificate in PEM.
pub(super) fn certify(address: IpAddr) -> anyhow::Result<(Arc<ServerConfig>, String)> {
    let authority = authority().context("cannot make a certificate authority")?;
    let mut names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    if !address.is_unspecified() && !names.contains(&address.to_string()) {
        names.push(address.to_string());
    }
    let mut params = CertificateParams::new(names).context("the receiver has no valid name")?;
    params.distinguished_name.push(DnType::CommonName, "Hookward receiver");
    let key = KeyPair::generate().context("cannot make a key")?;
    let certificate = params.signed_by(&key, &authority).context("cannot issue a certificate")?;

    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key)
        })
        .context("cannot set TLS up")?;
    Ok((Arc::new(config), authority.pem()))
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, "Hookward receiver's authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}
