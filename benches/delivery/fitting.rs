//! What a service under measurement is fitted with; all of it is made anew for each.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::anyhow;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::certificate;

/// What is switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fitting {
    /// Nothing, as unless it is asked for.
    Off,
    /// Callers show an API key, over TLS.
    Callers,
    /// What is stored is encrypted.
    Storage,
    /// Both.
    Secured,
    /// One of a hundred traces goes to the collector at this address.
    Traces(SocketAddr),
}

/// How the load generator calls a service that asks who is calling.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    /// File of the authority that vouches for the service's certificate, in PEM.
    pub(crate) authority: String,
    /// What it shows.
    pub(crate) api_key: String,
}

/// File of the authority, in the service's folder like the others.
pub(crate) const AUTHORITY: &str = "service-authority.pem";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const KEYRING: &str = "keys";

impl Fitting {
    /// As in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Fitting::Off => "plain",
            Fitting::Callers => "API keys and TLS",
            Fitting::Storage => "encrypted",
            Fitting::Secured => "API keys, TLS, encrypted",
            Fitting::Traces(_) => "1 % of traces, metrics read",
        }
    }

    /// Whether callers must show who they are.
    pub(crate) fn asks_callers(self) -> bool {
        match self {
            Fitting::Callers | Fitting::Secured => true,
            Fitting::Off | Fitting::Storage | Fitting::Traces(_) => false,
        }
    }

    /// Whether what is stored is encrypted.
    pub(crate) fn encrypts(self) -> bool {
        match self {
            Fitting::Storage | Fitting::Secured => true,
            Fitting::Off | Fitting::Callers | Fitting::Traces(_) => false,
        }
    }

    /// What `hookward serve` is told, with the service's folder as working directory.
    pub(crate) fn flags(self) -> Vec<&'static str> {
        let mut flags = Vec::new();
        if self.asks_callers() {
            flags.extend(["--auth", "api-key", "--tls-cert", CERTIFICATE, "--tls-key", KEY]);
        }
        if self.encrypts() {
            flags.extend(["--encryption-keys-file", KEYRING]);
        }
        flags
    }

    /// What stands in its environment.
    pub(crate) fn environment(self) -> Vec<(&'static str, String)> {
        let Fitting::Traces(collector) = self else { return Vec::new() };
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}")),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned()),
            ("OTEL_TRACES_SAMPLER_ARG", "0.01".to_owned()),
        ]
    }

    /// Makes the certificate, the keys and their files in the service's folder.
    pub(crate) fn equip(self, folder: &Path) -> anyhow::Result<()> {
        if self.asks_callers() {
            let issued = certificate::issue()?;
            fs::write(folder.join(CERTIFICATE), issued.certificate.pem())?;
            fs::write(folder.join(KEY), issued.key.serialize_pem())?;
            fs::write(folder.join(AUTHORITY), issued.authority_pem)?;
        }
        if self.encrypts() {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(|_| anyhow!("no random numbers"))?;
            fs::write(folder.join(KEYRING), format!("benchmark = {}\n", STANDARD.encode(key)))?;
        }
        Ok(())
    }
}
