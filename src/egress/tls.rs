//! TLS towards receivers: 1.2 or newer, the full chain and the name verified.
//!
//! There is deliberately no way to switch verification off; a deployment with its
//! own certificate authority names it.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio_rustls::TlsConnector;

use super::EgressError;

/// Receivers whose TLS sessions are remembered; a resumed handshake costs about a
/// fifth of a full one.
const SESSIONS_MAX: usize = 1024;

/// A connector that trusts the public authorities and those in `ca_files_pem`.
pub(super) fn connector(ca_files_pem: &[Vec<u8>]) -> Result<TlsConnector, EgressError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for (number, pem) in ca_files_pem.iter().enumerate() {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            certificate
                .ok()
                .and_then(|certificate| roots.add(certificate).ok())
                .ok_or(EgressError::CertificateAuthority(number))?;
        }
        if roots.len() == before {
            return Err(EgressError::CertificateAuthority(number));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(EgressError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused_by_its_number() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let ca = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate");
        assert!(connector(&[ca.pem().into_bytes()]).is_ok());
        let broken = ca.pem().replacen("MII", "M!I", 1).into_bytes();
        for bad in [b"".to_vec(), b"no pem".to_vec(), broken] {
            let refused = connector(&[ca.pem().into_bytes(), bad]).err();
            assert!(matches!(refused, Some(EgressError::CertificateAuthority(1))), "{refused:?}");
        }
    }
}
