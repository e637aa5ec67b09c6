//! The file that tells callers apart: whose certificates and whose tokens are good, and for
//! what. Strict: every unknown key and every value that cannot be is reported.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::credentials::{CertificateName, IssuerSettings, KeySource};
use crate::domain::endpoint_url::{EndpointUrl, Scheme};
use crate::domain::id::OrganizationId;
use crate::domain::jwk::{Algorithm, KeySet};
use crate::domain::jwt::TokenRules;
use crate::domain::principal::{Organizations, Principal};
use crate::domain::scope::{Scope, Scopes};
use crate::egress::Target;

/// What such a file says.
#[derive(Debug, Default)]
pub struct AuthFile {
    /// Callers known by a certificate. Each name is there once.
    pub certificates: Vec<(CertificateName, Principal)>,
    /// Whose tokens are good. Each issuer is there once.
    pub issuers: Vec<IssuerSettings>,
}

/// `[[certificate]]`: a caller that is known by a name in its TLS certificate.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateTable {
    uri: Option<String>,
    dns: Option<String>,
    organizations: OrganizationsValue,
    scopes: Vec<String>,
}

/// `[[issuer]]`: somebody whose tokens are believed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerTable {
    issuer: String,
    audience: String,
    algorithms: Vec<String>,
    jwks: Option<String>,
    jwks_file: Option<PathBuf>,
    jwks_ca: Option<PathBuf>,
    #[serde(default = "organizations_claim")]
    organizations_claim: String,
    #[serde(default = "scopes_claim")]
    scopes_claim: String,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "organizations must be \"*\" or a list of ids")]
enum OrganizationsValue {
    Every(EveryName),
    These(Vec<String>),
}

#[derive(Deserialize)]
enum EveryName {
    #[serde(rename = "*")]
    Every,
}

fn organizations_claim() -> String {
    "organizations".to_owned()
}

fn scopes_claim() -> String {
    "scope".to_owned()
}

impl AuthFile {
    /// Reads the text of a file, and the files that it names.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, each in a sentence.
    pub fn read(text: &str) -> Result<AuthFile, Vec<String>> {
        let tables: toml::Table = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
            let line = before.matches('\n').count() + 1;
            vec![format!("line {line}: {}", error.message())]
        })?;
        let mut wrong = Vec::new();
        let mut file = AuthFile::default();
        for (key, value) in tables {
            match key.as_str() {
                "certificate" => {
                    file.certificates = each("certificate", value, &mut wrong, certificate);
                }
                "issuer" => file.issuers = each("issuer", value, &mut wrong, issuer),
                _ => wrong
                    .push(format!("`{key}` is no key here: there are `certificate` and `issuer`")),
            }
        }
        let names = file.certificates.iter().map(|(name, _)| match name {
            CertificateName::Dns(name) | CertificateName::Uri(name) => name,
        });
        let issuers = file.issuers.iter().map(|issuer| &issuer.rules.issuer);
        wrong.extend(twice(names.chain(issuers)));
        if wrong.is_empty() { Ok(file) } else { Err(wrong) }
    }
}

/// What several entries would say of one caller.
fn twice<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let again = names.filter(|name| !seen.insert(*name));
    again.map(|name| format!("{name} is there twice")).collect()
}

/// The entries of a list of tables, each read by itself, so that one fault hides no other.
fn each<T: DeserializeOwned, V>(
    kind: &str,
    value: toml::Value,
    wrong: &mut Vec<String>,
    read: fn(T, &mut Vec<String>) -> Option<V>,
) -> Vec<V> {
    let toml::Value::Array(entries) = value else {
        wrong.push(format!("`{kind}` is a list of tables: write [[{kind}]]"));
        return Vec::new();
    };
    let mut found = Vec::new();
    for (number, entry) in (1..).zip(entries) {
        let mut faults = Vec::new();
        match entry.try_into::<T>() {
            Ok(table) => found.extend(read(table, &mut faults)),
            Err(error) => faults.push(error.message().to_owned()),
        }
        wrong.extend(faults.into_iter().map(|why| format!("{kind} {number}: {why}")));
    }
    found
}

fn certificate(
    table: CertificateTable,
    wrong: &mut Vec<String>,
) -> Option<(CertificateName, Principal)> {
    let name = match (table.uri, table.dns) {
        (Some(uri), None) if uri.contains("://") => Some(CertificateName::Uri(uri)),
        (Some(_), None) => {
            wrong.push("uri: write a whole one, such as spiffe://clinic.example/scheduler".into());
            None
        }
        (None, Some(dns)) if is_dns_name(&dns) => Some(CertificateName::Dns(dns)),
        (None, Some(_)) => {
            wrong.push("dns: write a whole name in lower case, without *".into());
            None
        }
        (None, None) | (Some(_), Some(_)) => {
            wrong.push("name the caller by uri or by dns, one of them".into());
            None
        }
    };
    let organizations = organizations(table.organizations, wrong);
    let scopes = scopes(&table.scopes, wrong);
    let name = name?;
    let (CertificateName::Dns(shown) | CertificateName::Uri(shown)) = &name;
    let shown = shown.clone();
    Some((name, Principal { name: shown, organizations: organizations?, scopes: scopes? }))
}

fn is_dns_name(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let label = |label: &str| !label.is_empty() && label.bytes().all(letter);
    text.len() <= 253 && text.split('.').all(label)
}

fn organizations(value: OrganizationsValue, wrong: &mut Vec<String>) -> Option<Organizations> {
    let names = match value {
        OrganizationsValue::Every(EveryName::Every) => return Some(Organizations::All),
        OrganizationsValue::These(names) => names,
    };
    match names.iter().map(|name| OrganizationId::parse(name)).collect::<Result<BTreeSet<_>, _>>() {
        Ok(these) if these.is_empty() => wrong.push("organizations: name one at least".into()),
        Ok(these) => return Some(Organizations::Some(these)),
        Err(why) => wrong.push(format!("organizations: {}", why.why)),
    }
    None
}

fn scopes(names: &[String], wrong: &mut Vec<String>) -> Option<Scopes> {
    match names.iter().map(|name| name.parse::<Scope>()).collect::<Result<Scopes, _>>() {
        Ok(_) if names.is_empty() => wrong.push("scopes: name one at least".into()),
        Ok(scopes) => return Some(scopes),
        Err(why) => wrong.push(format!("scopes: {why}")),
    }
    None
}

fn issuer(table: IssuerTable, wrong: &mut Vec<String>) -> Option<IssuerSettings> {
    let texts = [
        ("issuer", &table.issuer),
        ("audience", &table.audience),
        ("organizations_claim", &table.organizations_claim),
        ("scopes_claim", &table.scopes_claim),
    ];
    for (key, _) in texts.into_iter().filter(|(_, text)| text.trim().is_empty()) {
        wrong.push(format!("{key} is empty"));
    }
    let algorithms: Vec<Algorithm> =
        table.algorithms.iter().filter_map(|name| Algorithm::named(name)).collect();
    if algorithms.is_empty() || algorithms.len() < table.algorithms.len() {
        let names = Algorithm::ALL.map(Algorithm::name).join(", ");
        wrong.push(format!("algorithms: some of {names}, one at least"));
    }
    let keys = match (table.jwks, table.jwks_file) {
        (Some(url), None) => url_of_keys(&url, table.jwks_ca, wrong),
        (None, Some(path)) => {
            if table.jwks_ca.is_some() {
                wrong.push("jwks_ca belongs to jwks, not to jwks_file".into());
            }
            file_of_keys(path, wrong)
        }
        (None, None) | (Some(_), Some(_)) => {
            wrong.push("say where the keys are by jwks or by jwks_file, one of them".into());
            None
        }
    };
    let rules = TokenRules {
        issuer: table.issuer,
        audience: table.audience,
        algorithms,
        organizations_claim: table.organizations_claim,
        scopes_claim: table.scopes_claim,
    };
    Some(IssuerSettings { rules, keys: keys? })
}

fn url_of_keys(
    url: &str,
    authorities: Option<PathBuf>,
    wrong: &mut Vec<String>,
) -> Option<KeySource> {
    let url = EndpointUrl::stored(url).map_err(|why| why.why).and_then(|url| match url.scheme() {
        Scheme::Https => Target::new(&url).map_err(|why| why.to_string()),
        Scheme::Http => Err("must be https".to_owned()),
    });
    let target = url.map_err(|why| wrong.push(format!("jwks: {why}"))).ok();
    let authorities = match authorities.map(|path| super::read_authority(&path)) {
        None => None,
        Some(Ok(pem)) => Some(pem),
        Some(Err(why)) => {
            wrong.push(format!("jwks_ca: {why}"));
            return None;
        }
    };
    Some(KeySource::Url { target: Arc::new(target?), authorities })
}

fn file_of_keys(path: PathBuf, wrong: &mut Vec<String>) -> Option<KeySource> {
    let read = fs::read(&path).map_err(|error| format!("cannot read it: {error}"));
    let read = read.and_then(|text| KeySet::parse(&text).map_err(|fault| fault.to_string()));
    match read {
        Ok(_) => Some(KeySource::File(path)),
        Err(why) => {
            wrong.push(format!("jwks_file: {}: {why}", path.display()));
            None
        }
    }
}
