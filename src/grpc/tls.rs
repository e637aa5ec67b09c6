//! TLS on the gRPC port: 1.2 or newer, HTTP/2 only, and certificates that are replaced
//! while it serves.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::domain::timestamp::Timestamp;
use crate::domain::x509;
use crate::metrics::{CredentialSource, Metrics};

/// The only protocol that is spoken (RFC 9113, 3.2).
pub(super) const HTTP2: &[u8] = b"h2";
/// How often the files are looked at. Their content decides: Kubernetes swaps links, whose
/// targets' times tell nothing.
const LOOK: Duration = Duration::from_secs(5);

/// Where certificates and keys are, all in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate and those between it and a root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who is asked for a certificate.
    pub clients: Clients,
}

/// What clients show of themselves in the handshake. One that shows a certificate that is
/// not good gets no connection either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Nothing.
    Anonymous,
    /// A certificate of these authorities, or none.
    MayShow(PathBuf),
    /// A certificate of these authorities.
    MustShow(PathBuf),
}

impl Clients {
    fn authorities(&self) -> Option<&Path> {
        match self {
            Clients::Anonymous => None,
            Clients::MayShow(path) | Clients::MustShow(path) => Some(path),
        }
    }
}

/// Why certificates cannot be used. Holds nothing of a key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {1}", path = .0.display())]
    Unreadable(PathBuf, io::Error),
    /// No certificate in PEM, or something else where one should be.
    #[error("{} holds no certificate in PEM, or a broken one", .0.display())]
    Certificate(PathBuf),
    /// No private key in PEM.
    #[error("{} holds no private key in PEM", .0.display())]
    Key(PathBuf),
    /// Half of one pair and half of another.
    #[error("the key is not that of the certificate")]
    Mismatch,
    /// The TLS library refuses something else.
    #[error("{0}")]
    Refused(#[from] rustls::Error),
    /// The client authorities cannot be used.
    #[error("{0}")]
    Authorities(#[from] VerifierBuilderError),
}

/// TLS, as the files last said. Cloning shares it.
#[derive(Clone)]
pub struct Tls {
    files: Arc<TlsFiles>,
    current: Arc<ArcSwap<ServerConfig>>,
    /// Of what it was made at first.
    digest: [u8; 32],
    /// When the certificate of that ends.
    expiry: Option<Timestamp>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub fn load(files: TlsFiles) -> Result<Tls, TlsError> {
        let texts = Texts::read(&files)?;
        let config = config(&files, &texts)?;
        let current = Arc::new(ArcSwap::from_pointee(config));
        let (digest, expiry) = (texts.digest(), texts.expiry());
        Ok(Tls { files: Arc::new(files), current, digest, expiry })
    }

    /// What serves the next handshake.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Looks at the files until `stop`. Connections keep what they began with; what cannot
    /// be used changes nothing, and is counted for as long as it stays there.
    pub async fn keep(self, metrics: Metrics, stop: CancellationToken) {
        let mut rhythm = tokio::time::interval(LOOK);
        rhythm.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut judged, mut usable, mut unreadable) = (self.digest, true, false);
        metrics.tls_certificate_expiry(self.expiry);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = rhythm.tick() => {}
            }
            let files = Arc::clone(&self.files);
            let read = tokio::task::spawn_blocking(move || Texts::read(&files)).await;
            let texts = match read {
                Ok(Ok(texts)) => texts,
                Ok(Err(error)) => {
                    metrics.credential_reload_failed(CredentialSource::TlsFiles);
                    if !unreadable {
                        tracing::warn!(%error, "cannot look at the TLS certificate; it stays");
                    }
                    unreadable = true;
                    continue;
                }
                // The runtime is ending, and so is this.
                Err(_cancelled) => continue,
            };
            unreadable = false;
            let digest = texts.digest();
            if digest != judged {
                judged = digest;
                usable = self.replace(&texts, &metrics);
            }
            if !usable {
                metrics.credential_reload_failed(CredentialSource::TlsFiles);
            }
        }
    }

    /// Serves what the files hold now; `false` when that cannot be.
    fn replace(&self, texts: &Texts, metrics: &Metrics) -> bool {
        match config(&self.files, texts) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                metrics.tls_certificate_expiry(texts.expiry());
                tracing::info!("the TLS certificate was replaced");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the new TLS certificate cannot be used; the old one stays");
                false
            }
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Tls").field(&self.files).finish()
    }
}

/// What the files hold.
struct Texts {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<Vec<u8>>,
}

impl Texts {
    fn read(files: &TlsFiles) -> Result<Texts, TlsError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|error| TlsError::Unreadable(path.to_owned(), error))
        };
        Ok(Texts {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            authorities: files.clients.authorities().map(read).transpose()?,
        })
    }

    /// Tells one content from another, so that no key need be kept for that.
    fn digest(&self) -> [u8; 32] {
        let parts = [&self.certificate, &self.key].into_iter().chain(&self.authorities);
        let digests: Vec<u8> = parts.flat_map(Sha256::digest).collect();
        Sha256::digest(digests).into()
    }

    /// When the server's own certificate ends, which is the first.
    fn expiry(&self) -> Option<Timestamp> {
        let own = CertificateDer::from_pem_slice(&self.certificate).ok()?;
        x509::not_after(&own)
    }
}

fn config(files: &TlsFiles, texts: &Texts) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = match (files.clients.authorities(), &texts.authorities) {
        (Some(path), Some(pem)) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path, pem)? {
                let added = roots.add(authority);
                added.map_err(|_| TlsError::Certificate(path.to_owned()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            let verifier = match files.clients {
                Clients::MayShow(_) => verifier.allow_unauthenticated(),
                Clients::Anonymous | Clients::MustShow(_) => verifier,
            };
            builder.with_client_cert_verifier(verifier.build()?)
        }
        (None | Some(_), _) => builder.with_no_client_auth(),
    };
    let chain = certificates(&files.certificate, &texts.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&texts.key);
    let key = key.map_err(|_| TlsError::Key(files.key.clone()))?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch,
        error => TlsError::Refused(error),
    })?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    if files.clients != Clients::Anonymous {
        // A resumed session would bring a certificate back without looking at it again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

/// One certificate at least.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| TlsError::Certificate(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// A certificate and its key, in PEM.
    fn pair() -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    }

    #[test]
    fn what_is_no_pair_is_refused_with_what_is_wrong() {
        let folder = tempfile::tempdir().expect("there is room");
        let path = |name: &str| folder.path().join(name);
        let ((certificate, key), (other, _)) = (pair(), pair());
        for (name, text) in [
            ("certificate", certificate.as_str()),
            ("key", &key),
            ("other", &other),
            ("broken", &certificate.replacen("MII", "M!I", 1)),
            ("empty", ""),
        ] {
            fs::write(path(name), text).expect("it is ours");
        }
        let load = |certificate: &str, key: &str, clients: Clients| {
            let (certificate, key) = (path(certificate), path(key));
            let loaded = Tls::load(TlsFiles { certificate, key, clients });
            loaded.err().map(|error| error.to_string()).unwrap_or_default()
        };
        let anonymous = || Clients::Anonymous;
        assert_eq!(load("certificate", "key", anonymous()), "");
        assert_eq!(load("certificate", "key", Clients::MustShow(path("other"))), "");
        let refused = load("other", "key", anonymous());
        assert_eq!(refused, "the key is not that of the certificate");
        for wrong in ["broken", "empty", "key"] {
            let expected = format!("{} holds no certificate", path(wrong).display());
            let refused = load(wrong, "key", anonymous());
            assert!(refused.starts_with(&expected), "{refused}");
            let refused = load("certificate", "key", Clients::MayShow(path(wrong)));
            assert!(refused.starts_with(&expected), "{refused}");
        }
        for wrong in ["empty", "certificate"] {
            let refused = load("certificate", wrong, anonymous());
            assert!(refused.contains("holds no private key"), "{refused}");
        }
        assert!(load("nowhere", "key", anonymous()).starts_with("cannot read "));
    }
}
