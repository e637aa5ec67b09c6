//! Certificates of callers: whatever names one has, it is the caller's that the operator
//! wrote down for exactly one of them; and no bytes that pass for a certificate make anybody
//! of nobody, or a panic.
//!
//! An input is texts, separated by `%%`: a day, as `YYYY-MM-DD`; names, one a line, each a URI
//! or a DNS name; changes to the certificate that has both, three bytes each: where, in two,
//! and what it is replaced by; and a certificate of the fuzzer's own.
#![no_main]

use std::sync::LazyLock;

use hookward::credentials::{CertificateName, Certificates};
use hookward::domain::principal::{Organizations, Principal};
use hookward::domain::scope::Scopes;
use hookward::domain::x509;
use hookward_fuzz::split;
use libfuzzer_sys::fuzz_target;
use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};
use rustls_pki_types::CertificateDer;

/// Who is known, each by one name.
const KNOWN: [&str; 4] = [
    "spiffe://clinic.example/reader",
    "https://clinic.example/reader",
    "reader.clinic.example",
    "writer.clinic.example",
];
/// Names of one certificate; more are left out.
const NAMES_MAX: usize = 16;
const CHANGES_MAX: usize = 64;

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().expect("a key"));
static CERTIFICATES: LazyLock<Certificates> = LazyLock::new(|| {
    Certificates::new(KNOWN.map(|name| {
        let text = name.to_owned();
        let key =
            if is_uri(name) { CertificateName::Uri(text) } else { CertificateName::Dns(text) };
        let (organizations, scopes) = (Organizations::All, Scopes::all());
        (key, Principal { name: name.to_owned(), organizations, scopes })
    }))
});

fuzz_target!(|input: &[u8]| {
    let mut parts = split(input, b"%%").into_iter();
    let mut next = || parts.next().unwrap_or_default();
    let [day, names, changes, own] = [next(), next(), next(), next()];
    let names: Vec<&str> = names
        .split(|byte| *byte == b'\n')
        .filter_map(|name| std::str::from_utf8(name).ok())
        // The names of a certificate are ASCII.
        .filter(|name| name.is_ascii())
        .take(NAMES_MAX)
        .collect();
    let (year, month, day) = date(day);
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.iter().map(|name| alternative(name)).collect();
    params.not_after = date_time_ymd(year, month, day);
    let end_secs = params.not_after.unix_timestamp();
    let certificate = params.self_signed(&*KEY).expect("it is one").der().clone();

    assert_eq!(caller(&certificate).as_deref(), expected(&names), "{names:?}");
    let end = x509::not_after(&certificate).expect("it has an end");
    assert_eq!(end.0, end_secs * 1_000_000, "{year}-{month}-{day}");

    let mut changed = certificate.to_vec();
    for change in changes.chunks_exact(3).take(CHANGES_MAX) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % changed.len();
        changed[at] = change[2];
    }
    for bytes in [changed, own.to_vec()] {
        let _ = x509::not_after(&bytes);
        if let Some(name) = caller(&CertificateDer::from(bytes.clone())) {
            let text = name.as_bytes();
            let is_there = bytes.windows(text.len()).any(|part| part.eq_ignore_ascii_case(text));
            assert!(is_there, "{name} is nowhere in it");
        }
    }
});

/// The name of who is known by it.
fn caller(certificate: &CertificateDer<'_>) -> Option<String> {
    CERTIFICATES.caller(certificate).map(|principal| principal.name.clone())
}

/// The same, by the documentation.
fn expected(names: &[&str]) -> Option<&'static str> {
    if 1 < names.iter().filter(|name| name.starts_with("spiffe://")).count() {
        return None;
    }
    let same = |known: &str, name: &str| {
        known == name || (!is_uri(name) && known.eq_ignore_ascii_case(name))
    };
    let mut found = KNOWN.into_iter().filter(|known| names.iter().any(|name| same(known, name)));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

fn is_uri(name: &str) -> bool {
    name.contains("://")
}

fn alternative(name: &str) -> SanType {
    let text = name.try_into().expect("it is ASCII");
    if is_uri(name) { SanType::URI(text) } else { SanType::DnsName(text) }
}

/// The day, or one near it that there is. Before 1950 and after 9999 no certificate ends.
fn date(text: &[u8]) -> (i32, u8, u8) {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let mut numbers = text.split('-').map(|part| part.parse::<u16>().unwrap_or_default());
    let mut next = |first: u16, last: u16| numbers.next().unwrap_or_default().clamp(first, last);
    let (year, month, day) = (next(1950, 9999), next(1, 12), next(1, 28));
    (year.into(), month.to_le_bytes()[0], day.to_le_bytes()[0])
}
