//! Who may call: what callers show, how their connections are encrypted, and where the
//! server may listen without either.

use std::fs;
use std::net::SocketAddr;

use super::auth_file::AuthFile;
use super::{Faults, ServeArguments, read_text, value};
use crate::credentials::{Certificates, IssuerSettings};
use crate::grpc::{Clients, Tls, TlsFiles};

/// What callers may show to be let in. Nothing of it: everybody is.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    /// Whether API keys are good.
    pub api_keys: bool,
    /// TLS certificates that are, by their names.
    pub certificates: Certificates,
    /// Whose tokens are.
    pub issuers: Vec<IssuerSettings>,
}

impl Auth {
    /// Whether nobody is asked for anything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.api_keys && self.certificates.is_empty() && self.issuers.is_empty()
    }
}

/// Kinds of credentials, as `--auth` lists them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kinds {
    api_key: bool,
    certificate: bool,
    jwt: bool,
}

impl Kinds {
    fn parse(text: &str) -> Result<Kinds, &'static str> {
        let mut kinds = Kinds::default();
        if text.trim() == "none" {
            return Ok(kinds);
        }
        for word in text.split(',') {
            match word.trim() {
                "api-key" => kinds.api_key = true,
                "certificate" => kinds.certificate = true,
                "jwt" => kinds.jwt = true,
                _ => {
                    return Err("write none, or some of api-key, certificate and jwt, \
                                separated by commas");
                }
            }
        }
        Ok(kinds)
    }
}

/// What callers show, over what, and where.
pub(super) struct Door {
    pub(super) auth: Auth,
    /// Also `None` where it has a fault.
    pub(super) tls: Option<Tls>,
    pub(super) grpc_listen: SocketAddr,
}

/// All that concerns who may call.
pub(super) fn read(arguments: &ServeArguments, faults: &mut Faults) -> Option<Door> {
    let kinds = faults.note("auth", Kinds::parse(&arguments.auth));
    let auth = read_auth(arguments, kinds, faults);
    let tls = read_tls(arguments, kinds, faults);
    let grpc_listen = read_listen(arguments, kinds, faults);
    Some(Door { auth: auth?, tls, grpc_listen: grpc_listen? })
}

fn read_auth(
    arguments: &ServeArguments,
    kinds: Option<Kinds>,
    faults: &mut Faults,
) -> Option<Auth> {
    let file = match &arguments.auth_file {
        None => AuthFile::default(),
        Some(path) => {
            let text = faults.note("auth-file", read_text(path))?;
            match AuthFile::read(&text) {
                Ok(file) => file,
                Err(wrong) => {
                    for why in wrong {
                        let path = path.display();
                        faults.note::<(), _>("auth-file", Err(format!("{path}: {why}")));
                    }
                    return None;
                }
            }
        }
    };
    let kinds = kinds?;
    for (kind, asked, told) in [
        ("certificate", kinds.certificate, !file.certificates.is_empty()),
        ("jwt", kinds.jwt, !file.issuers.is_empty()),
    ] {
        let table = if kind == "jwt" { "[[issuer]]" } else { "[[certificate]]" };
        if asked && !told {
            let why = format!("{kind} needs a file of --auth-file with one {table} at least");
            faults.note::<(), _>("auth", Err(why));
        } else if told && !asked {
            let why = format!("{table} counts only with {kind} among the kinds of --auth");
            faults.note::<(), _>("auth-file", Err(why));
        }
    }
    Some(Auth {
        api_keys: kinds.api_key,
        certificates: Certificates::new(file.certificates),
        issuers: file.issuers,
    })
}

/// `None` for no TLS, and for a fault.
fn read_tls(arguments: &ServeArguments, kinds: Option<Kinds>, faults: &mut Faults) -> Option<Tls> {
    let authorities = arguments.tls_client_ca.as_deref();
    let kinds = kinds.unwrap_or_default();
    if kinds.certificate && authorities.is_none() {
        let why = "certificate needs --tls-client-ca: whose certificates are good";
        faults.note::<(), _>("auth", Err(why));
    }
    let (certificate, key) = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) if authorities.is_none() => return None,
        (None, None) => {
            let why = "needs --tls-cert and --tls-key beside it";
            return faults.note("tls-client-ca", Err(why));
        }
        (Some(_), None) => return faults.note("tls-cert", Err("needs --tls-key beside it")),
        (None, Some(_)) => return faults.note("tls-key", Err("needs --tls-cert beside it")),
    };
    let mut readable = true;
    let named = [("tls-cert", Some(certificate.as_path())), ("tls-key", Some(key.as_path()))];
    for (flag, path) in named.into_iter().chain([("tls-client-ca", authorities)]) {
        if let Some(path) = path {
            let unreadable = |error| format!("cannot read {}: {error}", path.display());
            readable &= faults.note(flag, fs::read(path).map_err(unreadable)).is_some();
        }
    }
    if !readable {
        return None;
    }
    // Whoever may show something else instead need not show a certificate as well.
    let optional = kinds.certificate && (kinds.api_key || kinds.jwt);
    let clients = match authorities {
        None => Clients::Anonymous,
        Some(path) if optional => Clients::MayShow(path.to_owned()),
        Some(path) => Clients::MustShow(path.to_owned()),
    };
    let files = TlsFiles { certificate: certificate.clone(), key: key.clone(), clients };
    faults.note("tls-cert", Tls::load(files))
}

fn read_listen(
    arguments: &ServeArguments,
    kinds: Option<Kinds>,
    faults: &mut Faults,
) -> Option<SocketAddr> {
    let address = faults.note("grpc-listen", value::listen(&arguments.grpc_listen))?;
    let open = kinds == Some(Kinds::default());
    if !open && kinds.is_some() && arguments.insecure_no_auth {
        let why = "not together with --auth: credentials are asked for or they are not";
        return faults.note("insecure-no-auth", Err(why));
    }
    if open && !arguments.insecure_no_auth && !address.ip().to_canonical().is_loopback() {
        let why = "without credentials the server listens on loopback only, because whoever \
                   reaches it may do everything: use --auth; --insecure-no-auth lifts this \
                   where something else keeps strangers away";
        return faults.note("grpc-listen", Err(why));
    }
    Some(address)
}

#[cfg(test)]
mod tests;
