//! TLS towards receivers: 1.2 or newer, the full chain and the name verified.
//!
//! There is deliberately no way to switch verification off; a deployment with its
//! own certificate authority names it, and so does a subscription.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio_rustls::TlsConnector;

use super::EgressError;
use super::target::OwnTls;

/// Receivers whose TLS sessions are remembered; a resumed handshake costs about a
/// fifth of a full one.
const SESSIONS_MAX: usize = 1024;
/// Sessions that are remembered of a receiver with certificates of its own. They are
/// its own too: one that began under other certificates is never gone on with.
const OWN_SESSIONS_MAX: usize = 8;

/// How handshakes are made.
pub(super) struct Tls {
    usual: ClientConfig,
    connector: TlsConnector,
}

impl Tls {
    /// Trusts the public authorities and those in `ca_files_pem`.
    pub(super) fn new(ca_files_pem: &[Vec<u8>]) -> Result<Tls, EgressError> {
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
        let usual = config(Arc::new(roots)).map_err(EgressError::Tls)?;
        let connector = TlsConnector::from(Arc::new(usual.clone()));
        Ok(Tls { usual, connector })
    }

    /// For a receiver with these certificates, or with none of its own.
    ///
    /// # Errors
    ///
    /// When the TLS library refuses its own settings.
    pub(super) fn connector(&self, own: Option<&OwnTls>) -> Result<TlsConnector, rustls::Error> {
        let Some(own) = own else { return Ok(self.connector.clone()) };
        let usual = self.connector.config();
        if let Some(made) = &*own.made.load()
            && Arc::ptr_eq(&made.usual, usual)
        {
            return Ok(made.connector.clone());
        }
        let mut config = match &own.parts.authorities {
            Some(authorities) => config(Arc::clone(authorities))?,
            None => self.usual.clone(),
        };
        if let Some(client) = &own.parts.client {
            config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(Arc::clone(client)));
        }
        config.resumption = Resumption::in_memory_sessions(OWN_SESSIONS_MAX);
        let connector = TlsConnector::from(Arc::new(config));
        let made = Made { usual: Arc::clone(usual), connector: connector.clone() };
        own.made.store(Some(Arc::new(made)));
        Ok(connector)
    }
}

/// A connector for one receiver, and the usual handshakes that it differs from: with others,
/// such as after a change of the trusted authorities, it is no good any more.
pub(super) struct Made {
    usual: Arc<ClientConfig>,
    connector: TlsConnector,
}

fn config(roots: Arc<RootCertStore>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::receiver_tls::TlsParts;

    #[test]
    fn a_receivers_own_handshakes_follow_the_trusted_authorities() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let ca = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate");
        let (before, after) = (Tls::new(&[ca.pem().into_bytes()]), Tls::new(&[]));
        let (before, after) = (before.expect("is one"), after.expect("needs none"));
        let own = OwnTls::new(TlsParts { client: None, authorities: None, fingerprint: [0; 32] });
        let config = |tls: &Tls| {
            let connector = tls.connector(Some(&own)).expect("can be made");
            Arc::clone(connector.config())
        };
        let trusting = config(&before);
        assert!(Arc::ptr_eq(&trusting, &config(&before)), "sessions are remembered");
        let wary = config(&after);
        assert!(!Arc::ptr_eq(&trusting, &wary), "the authority is not trusted any more");
        assert!(Arc::ptr_eq(&wary, &config(&after)));
    }

    #[test]
    fn a_file_without_a_certificate_is_refused_by_its_number() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let ca = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate");
        assert!(Tls::new(&[ca.pem().into_bytes()]).is_ok());
        let broken = ca.pem().replacen("MII", "M!I", 1).into_bytes();
        for bad in [b"".to_vec(), b"no pem".to_vec(), broken] {
            let refused = Tls::new(&[ca.pem().into_bytes(), bad]).err();
            assert!(matches!(refused, Some(EgressError::CertificateAuthority(1))), "{refused:?}");
        }
    }
}
