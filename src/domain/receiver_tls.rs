//! TLS towards one receiver: the certificate that its subscription shows, and the
//! authorities that may vouch for the receiver.
//!
//! Promises: what is stored is the DER of certificates and of one private key, written
//! anew as PEM, and nothing else that stood in the texts; a certificate and its key belong
//! together; a key appears in no error, and in `Debug` as `***`.

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::pem::SectionKind;
use sha2::Digest as _;
use sha2::Sha256;

use super::headers::HIDDEN;
use super::invalid::InvalidField;

/// Longest text of each field, in bytes: routing keeps them in memory.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Most certificates of a chain, and most authorities.
const CERTIFICATES_MAX: usize = 8;

const CERTIFICATE: &str = "tls.client_certificate";
const PRIVATE_KEY: &str = "tls.client_private_key";
const AUTHORITIES: &str = "tls.certificate_authorities";

/// What a subscription says of TLS; every rule already checked. The default: nothing, so
/// that no certificate is shown and the deployment's authorities are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceiverTls {
    /// Shown to a receiver that asks for one.
    pub client: Option<ClientCertificate>,
    /// PEM of the only authorities that are trusted. Empty: those of the deployment.
    pub authorities: String,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM, the certificate itself first, then those that lead to its authority.
    pub chain: String,
    /// Its private key.
    pub key: PrivateKey,
}

/// A private key in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Option<String>);

impl PrivateKey {
    /// One that was stored.
    #[must_use]
    pub fn stored(pem: String) -> PrivateKey {
        PrivateKey(Some(pem))
    }

    /// One that is stored and cannot be read here. Nothing is sent without it.
    #[must_use]
    pub fn unreadable() -> PrivateKey {
        PrivateKey(None)
    }

    /// Its text, unless it cannot be read.
    #[must_use]
    pub fn pem(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(HIDDEN)
    }
}

/// The same as its owner sent it. An empty text is one that was left out.
#[derive(Clone, Debug, Default)]
pub struct TlsInput {
    /// PEM of the client's certificates.
    pub client_certificate: String,
    /// PEM of its key, or `***` for the stored one.
    pub client_private_key: SentKey,
    /// PEM of the authorities.
    pub certificate_authorities: String,
}

/// A key as it was sent. `Debug` does not print it.
#[derive(Clone, Default)]
pub struct SentKey(pub String);

impl std::fmt::Debug for SentKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(HIDDEN)
    }
}

/// What a handshake needs.
#[derive(Clone, Debug)]
pub struct TlsParts {
    /// Shown to a receiver that asks for a certificate.
    pub client: Option<Arc<CertifiedKey>>,
    /// The only authorities, at least one. `None`: those of the deployment.
    pub authorities: Option<Arc<RootCertStore>>,
    /// Tells two of these apart.
    pub fingerprint: [u8; 32],
}

impl ReceiverTls {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.client.is_none() && self.authorities.is_empty()
    }

    /// The same as it is sent back in an update that changes nothing.
    #[must_use]
    pub fn to_input(&self) -> TlsInput {
        let (certificate, key) = match &self.client {
            Some(client) => (client.chain.clone(), HIDDEN.to_owned()),
            None => <_>::default(),
        };
        TlsInput {
            client_certificate: certificate,
            client_private_key: SentKey(key),
            certificate_authorities: self.authorities.clone(),
        }
    }

    /// Reads the texts.
    ///
    /// # Errors
    ///
    /// For `tls.client_certificate`, `tls.client_private_key` or
    /// `tls.certificate_authorities`, with reason `TLS_CERTIFICATE`, `TLS_PRIVATE_KEY` or
    /// `TLS_AUTHORITIES`; also when the stored key cannot be read.
    pub fn parts(&self) -> Result<TlsParts, InvalidField> {
        let client = match &self.client {
            None => None,
            Some(client) => {
                let chain = certificates(CERTIFICATE, "TLS_CERTIFICATE", &client.chain)?;
                let unreadable = || bad_key("the stored key cannot be read: send it again");
                let key = private_key(client.key.pem().ok_or_else(unreadable)?)?;
                Some(Arc::new(certified(chain, key)?))
            }
        };
        let authorities = match self.authorities.as_str() {
            "" => None,
            text => Some(Arc::new(roots(text)?)),
        };
        Ok(TlsParts { client, authorities, fingerprint: self.fingerprint() })
    }

    fn fingerprint(&self) -> [u8; 32] {
        let client = self.client.as_ref();
        let chain = client.map_or("", |client| client.chain.as_str());
        let key = client.and_then(|client| client.key.pem()).unwrap_or_default();
        let mut hash = Sha256::new();
        for text in [chain, key, &self.authorities] {
            hash.update(text.len().to_be_bytes());
            hash.update(text);
        }
        hash.finalize().into()
    }
}

impl TlsInput {
    /// Checks what was sent. `stored` is what the subscription has now.
    ///
    /// # Errors
    ///
    /// As [`ReceiverTls::parts`].
    pub fn check(&self, stored: &ReceiverTls) -> Result<ReceiverTls, InvalidField> {
        let tls = ReceiverTls {
            client: self.client(stored.client.as_ref())?,
            authorities: match self.certificate_authorities.as_str() {
                "" => String::new(),
                text => to_pem(&certificates(AUTHORITIES, "TLS_AUTHORITIES", text)?),
            },
        };
        // What has not changed is not looked at again: a key that cannot be read here stays.
        if &tls != stored {
            tls.parts()?;
        }
        Ok(tls)
    }

    fn client(
        &self,
        stored: Option<&ClientCertificate>,
    ) -> Result<Option<ClientCertificate>, InvalidField> {
        let sent = self.client_private_key.0.as_str();
        match (self.client_certificate.as_str(), sent) {
            ("", "") => return Ok(None),
            ("", _) => return Err(bad_certificate("a private key comes with its certificate")),
            (_, "") => return Err(bad_key("a certificate comes with its private key")),
            (_, _) => {}
        }
        let chain = certificates(CERTIFICATE, "TLS_CERTIFICATE", &self.client_certificate)?;
        let key = if sent == HIDDEN {
            let none = || bad_key("*** keeps a stored key, and none is stored");
            stored.ok_or_else(none)?.key.clone()
        } else {
            let (label, der) = match private_key(sent)? {
                PrivateKeyDer::Pkcs1(key) => ("RSA PRIVATE KEY", key.secret_pkcs1_der().to_vec()),
                PrivateKeyDer::Sec1(key) => ("EC PRIVATE KEY", key.secret_sec1_der().to_vec()),
                PrivateKeyDer::Pkcs8(key) => ("PRIVATE KEY", key.secret_pkcs8_der().to_vec()),
                _ => return Err(unusable_key()),
            };
            PrivateKey(Some(section(label, &der)))
        };
        Ok(Some(ClientCertificate { chain: to_pem(&chain), key }))
    }
}

fn bad_certificate(why: &str) -> InvalidField {
    InvalidField::new(CERTIFICATE, "TLS_CERTIFICATE", why)
}

fn bad_key(why: &str) -> InvalidField {
    InvalidField::new(PRIVATE_KEY, "TLS_PRIVATE_KEY", why)
}

fn unusable_key() -> InvalidField {
    bad_key("one unencrypted key in PEM: RSA of 2048 bits or more, ECDSA P-256 or P-384, Ed25519")
}

/// The certificates of a text that holds nothing else.
fn certificates(
    field: &str,
    reason: &'static str,
    text: &str,
) -> Result<Vec<CertificateDer<'static>>, InvalidField> {
    let invalid = |why| InvalidField::new(field, reason, why);
    if TEXT_BYTES_MAX < text.len() {
        return Err(invalid("at most 16 KiB"));
    }
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        let Ok((SectionKind::Certificate, der)) = section else {
            return Err(invalid("certificates in PEM and nothing else"));
        };
        let der = CertificateDer::from(der);
        if ParsedCertificate::try_from(&der).is_err() {
            return Err(invalid("certificates in PEM that can be read: X.509, version 3"));
        }
        found.push(der);
    }
    if !(1..=CERTIFICATES_MAX).contains(&found.len()) {
        return Err(invalid("1 to 8 certificates in PEM"));
    }
    Ok(found)
}

fn private_key(text: &str) -> Result<PrivateKeyDer<'static>, InvalidField> {
    if TEXT_BYTES_MAX < text.len() {
        return Err(bad_key("at most 16 KiB"));
    }
    let mut keys = PrivateKeyDer::pem_slice_iter(text.as_bytes());
    match (keys.next(), keys.next()) {
        (Some(Ok(key)), None) => Ok(key),
        (_, _) => Err(unusable_key()),
    }
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, InvalidField> {
    let provider = ring::default_provider();
    let key = provider.key_provider.load_private_key(key).map_err(|_| unusable_key())?;
    let certified = CertifiedKey::new(chain, key);
    let mismatch = |_| bad_key("the key does not belong to the first certificate");
    certified.keys_match().map_err(mismatch)?;
    Ok(certified)
}

fn roots(text: &str) -> Result<RootCertStore, InvalidField> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(AUTHORITIES, "TLS_AUTHORITIES", text)? {
        let unusable = |_| {
            let why = "certificates of authorities";
            InvalidField::new(AUTHORITIES, "TLS_AUTHORITIES", why)
        };
        roots.add(authority).map_err(unusable)?;
    }
    Ok(roots)
}

fn to_pem(certificates: &[CertificateDer<'_>]) -> String {
    certificates.iter().map(|one| section("CERTIFICATE", one)).collect()
}

/// One section of PEM (RFC 7468).
fn section(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    writeln!(pem, "-----END {label}-----").expect("memory");
    pem
}

#[cfg(test)]
mod tests;
