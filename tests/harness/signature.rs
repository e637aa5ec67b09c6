//! Signatures checked by code that is not ours: OpenSSL's command for the platforms'
//! HMACs, the reference library for Standard Webhooks.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use standardwebhooks::Webhook;

use super::wire::Received;

/// HMAC-SHA256 of `message` by OpenSSL.
pub(crate) fn hmac(secret: &str, message: &[u8]) -> Vec<u8> {
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", secret, "-binary"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    openssl.stdin.take().expect("it is piped").write_all(message).expect("openssl reads");
    let output = openssl.wait_with_output().expect("openssl ends");
    assert!(output.status.success() && output.stdout.len() == 32, "openssl gave a digest");
    output.stdout
}

/// `sha256=` and 64 lower-case hexadecimal digits.
pub(crate) fn sha256_hex(secret: &str, message: &[u8]) -> String {
    format!("sha256={}", hex(&hmac(secret, message)))
}

/// Two lower-case digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        write!(digits, "{byte:02x}").expect("a String takes everything");
        digits
    })
}

/// `sha256=` and 44 characters of padded standard base64.
pub(crate) fn sha256_base64(secret: &str, message: &[u8]) -> String {
    format!("sha256={}", STANDARD.encode(hmac(secret, message)))
}

/// Whether the reference library of Standard Webhooks accepts the request.
pub(crate) fn standard_accepts(secret: &str, request: &Received) -> bool {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.insert(name, HeaderValue::from_str(value).expect("a value"));
    }
    let webhook = Webhook::new(secret).expect("the library reads the secret");
    webhook.verify(&request.body, &headers).is_ok()
}
