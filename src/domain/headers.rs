//! Custom request headers: which a subscription may set, and which are shown to nobody.
//!
//! Promise: what [`check_headers`] accepts is written to the wire as it stands, once
//! each, and replaces no header that the service or HTTP itself sets.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::invalid::InvalidField;

/// Stands for a stored value that is not shown, in answers and in updates.
pub const HIDDEN: &str = "***";

const HEADERS_MAX: usize = 20;
const NAME_BYTES_MAX: usize = 64;
const VALUE_BYTES_MAX: usize = 1024;
/// With the four bytes that HTTP/1.1 puts around each.
const TOTAL_BYTES_MAX: usize = 8 * 1024;

const RESERVED: [&str; 23] = [
    "accept-encoding",
    "baggage",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "metadata",
    "metadata-flavor",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-real-ip",
];

/// Among them what opens metadata services to a forged request.
const RESERVED_PREFIXES: [&str; 11] = [
    ":",
    "proxy-",
    "svix-",
    "webhook-",
    "x-amz-",
    "x-aws-ec2-",
    "x-azure-",
    "x-forwarded-",
    "x-goog-",
    "x-hub-signature",
    "x-ms-",
];

/// Parts of names whose values are taken for credentials.
const CREDENTIAL_PARTS: [&str; 13] = [
    "auth",
    "bearer",
    "credential",
    "jwt",
    "key",
    "passphrase",
    "passwd",
    "password",
    "pwd",
    "secret",
    "session",
    "signature",
    "token",
];

/// Checks a subscription's headers against the rules and the names that this
/// deployment's profiles sign with. `Content-Type` may be there if it says what the
/// profile says.
///
/// # Errors
///
/// For `headers` or `headers["Name"]`, with reason `HEADERS_TOO_MANY`,
/// `HEADERS_TOO_LARGE`, `HEADER_NAME`, `HEADER_RESERVED` or `HEADER_VALUE`.
pub fn check_headers(
    headers: &BTreeMap<String, String>,
    signature_headers: &[&str],
    content_type: &str,
) -> Result<(), InvalidField> {
    if HEADERS_MAX < headers.len() {
        return Err(InvalidField::new("headers", "HEADERS_TOO_MANY", "at most 20 headers"));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let mut seen = BTreeSet::new();
    for (name, value) in headers {
        check_name(name)?;
        let lower = name.to_ascii_lowercase();
        let same_type = lower == "content-type" && value.eq_ignore_ascii_case(content_type);
        let signs = signature_headers.iter().any(|reserved| reserved.eq_ignore_ascii_case(name));
        if signs || (is_reserved(&lower) && !same_type) {
            let why = "set by the service or by HTTP itself; choose another name";
            return Err(InvalidField::new(of(name), "HEADER_RESERVED", why));
        }
        if !seen.insert(lower) {
            let why = "the same name twice: names are compared without case";
            return Err(InvalidField::new(of(name), "HEADER_NAME", why));
        }
        check_value(name, value)?;
    }
    if TOTAL_BYTES_MAX < bytes {
        return Err(InvalidField::new("headers", "HEADERS_TOO_LARGE", "at most 8 KiB in all"));
    }
    Ok(())
}

/// Whether a header of this name is taken to hold a credential: its value is never
/// given back. Errs on the side of hiding.
#[must_use]
pub fn is_credential(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    CREDENTIAL_PARTS.iter().any(|part| lower.contains(part))
}

/// The headers as they are shown: credentials as [`HIDDEN`].
#[must_use]
pub fn hidden(headers: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let shown = |(name, value): (&String, &String)| {
        let value = if is_credential(name) { HIDDEN } else { value.as_str() };
        (name.clone(), value.to_owned())
    };
    headers.iter().map(shown).collect()
}

/// The headers an update means: a value of [`HIDDEN`] keeps the stored one, found by
/// name without case.
///
/// # Errors
///
/// `HEADER_VALUE` for `headers["Name"]` when nothing is stored under that name.
pub fn merge_hidden(
    mut new: BTreeMap<String, String>,
    old: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, InvalidField> {
    for (name, value) in &mut new {
        if value != HIDDEN {
            continue;
        }
        check_name(name)?;
        let stored = old.iter().find(|(stored, _)| stored.eq_ignore_ascii_case(name));
        let Some((_, stored)) = stored else {
            let why = "*** keeps a stored value, and none is stored under this name";
            return Err(InvalidField::new(of(name), "HEADER_VALUE", why));
        };
        value.clone_from(stored);
    }
    Ok(new)
}

/// Only for names that passed [`check_name`]: others could be anything.
fn of(name: &str) -> String {
    format!("headers[\"{name}\"]")
}

/// A token of RFC 9110, 5.6.2.
fn check_name(name: &str) -> Result<(), InvalidField> {
    if name.starts_with(':') {
        let why = "names beginning with ':' belong to HTTP/2";
        return Err(InvalidField::new("headers", "HEADER_RESERVED", why));
    }
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(token) {
        return Ok(());
    }
    let why = "a header name is 1 to 64 letters, digits or !#$%&'*+-.^_`|~";
    Err(InvalidField::new("headers", "HEADER_NAME", why))
}

fn is_reserved(lower: &str) -> bool {
    RESERVED.contains(&lower) || RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix))
}

fn check_value(name: &str, value: &str) -> Result<(), InvalidField> {
    let fits = (1..=VALUE_BYTES_MAX).contains(&value.len())
        && value.bytes().all(|b| (0x20..=0x7e).contains(&b))
        && value.trim_ascii() == value
        && value != HIDDEN;
    if fits {
        return Ok(());
    }
    let why = "1 to 1024 printable ASCII characters, no space at either end, not ***";
    Err(InvalidField::new(of(name), "HEADER_VALUE", why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&str, &str)]) -> BTreeMap<String, String> {
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn check(headers: &[(&str, &str)]) -> Result<(), (String, &'static str)> {
        check_headers(&map(headers), &["X-Signature"], "application/json")
            .map_err(|invalid| (invalid.field, invalid.reason))
    }

    #[test]
    fn ordinary_and_credential_headers_are_accepted() {
        let headers = [
            ("Authorization", "Bearer abc"),
            ("X-Api-Key", "k"),
            ("organization_code", "a b"),
            ("X-Msg", "x"),
            ("content-type", "Application/JSON"),
        ];
        assert_eq!(check(&headers), Ok(()));
        assert_eq!(check(&[("X", &"v".repeat(1024))]), Ok(()));
    }

    #[test]
    fn names_of_http_and_of_the_service_are_reserved_in_any_case() {
        let names = [
            "Host",
            "HOST",
            "Content-Length",
            "Content-Encoding",
            "Transfer-Encoding",
            "TE",
            "Trailer",
            "Connection",
            "Keep-Alive",
            "Proxy-Authorization",
            "Upgrade",
            "Expect",
            "Accept-Encoding",
            "User-Agent",
            "Date",
            "Cookie",
            "Via",
            "Forwarded",
            "X-Forwarded-For",
            "X-Real-IP",
            "Webhook-Id",
            "Svix-Id",
            "X-Hub-Signature-256",
            "x-signature",
            "Traceparent",
            "Tracestate",
            "Baggage",
            "Metadata",
            "Metadata-Flavor",
            "X-aws-ec2-metadata-token",
            "X-Amz-Date",
            "X-Goog-Api-Key",
            "X-Azure-Ref",
            "X-MS-Id",
        ];
        for name in names {
            let field = format!("headers[\"{name}\"]");
            assert_eq!(check(&[(name, "v")]), Err((field, "HEADER_RESERVED")), "{name}");
        }
        assert_eq!(check(&[(":path", "/")]), Err(("headers".to_owned(), "HEADER_RESERVED")));
        assert!(check(&[("Content-Type", "text/plain")]).is_err());
    }

    #[test]
    fn bad_names_and_values_are_refused_without_repeating_them() {
        for name in ["", "a b", "a:b", "é", "a\r\nb", &"n".repeat(65)] {
            assert_eq!(check(&[(name, "v")]), Err(("headers".to_owned(), "HEADER_NAME")), "{name}");
        }
        for value in ["", " v", "v ", "a\tb", "a\r\nX: y", "é", "\0", "***", &"v".repeat(1025)] {
            let expected = Err(("headers[\"X\"]".to_owned(), "HEADER_VALUE"));
            assert_eq!(check(&[("X", value)]), expected, "{value:?}");
        }
        assert_eq!(check(&[("A", "1"), ("a", "2")]).expect_err("twice").1, "HEADER_NAME");
    }

    #[test]
    fn number_and_size_are_limited() {
        let many = |n: usize, value: &str| -> BTreeMap<String, String> {
            (0..n).map(|i| (format!("x{i:02}"), value.to_owned())).collect()
        };
        let reason = |headers| check_headers(&headers, &[], "").map_err(|invalid| invalid.reason);
        assert_eq!(reason(many(20, "v")), Ok(()));
        assert_eq!(reason(many(21, "v")), Err("HEADERS_TOO_MANY"));
        // 8 headers of 3 + 1017 + 4 bytes are 8192 bytes.
        assert_eq!(reason(many(8, &"v".repeat(1017))), Ok(()));
        assert_eq!(reason(many(8, &"v".repeat(1018))), Err("HEADERS_TOO_LARGE"));
    }

    #[test]
    fn credentials_are_hidden_and_come_back_unchanged() {
        let stored = map(&[("Api-Key", "k"), ("Authorization", "Bearer t"), ("X-Tenant", "7")]);
        let shown = hidden(&stored);
        assert_eq!(shown, map(&[("Api-Key", "***"), ("Authorization", "***"), ("X-Tenant", "7")]));
        assert_eq!(merge_hidden(shown, &stored), Ok(stored.clone()));
        let update = map(&[("AUTHORIZATION", "***"), ("Api-Key", "new")]);
        let merged = map(&[("AUTHORIZATION", "Bearer t"), ("Api-Key", "new")]);
        assert_eq!(merge_hidden(update, &stored), Ok(merged));
        let refused = merge_hidden(map(&[("X-Token", "***")]), &stored).expect_err("not stored");
        assert_eq!(
            (refused.field.as_str(), refused.reason),
            ("headers[\"X-Token\"]", "HEADER_VALUE")
        );
    }

    #[test]
    fn names_tell_credentials() {
        for name in [
            "Authorization",
            "X-Api-Key",
            "apiKey",
            "Secret-Key",
            "X-Auth",
            "PASSWORD",
            "X-Session",
            "JWT",
        ] {
            assert!(is_credential(name), "{name}");
        }
        for name in ["X-Tenant", "organization_code", "Accept"] {
            assert!(!is_credential(name), "{name}");
        }
    }
}
