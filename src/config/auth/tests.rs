//! Who may call is read as it is written, and every fault of it is told at once.

use std::path::Path;

use crate::config::Settings;
use crate::credentials::KeySource;
use crate::domain::jwk::Algorithm;

fn faults(words: &[String]) -> Vec<String> {
    Settings::from_flags(words).err().expect("it is refused").lines().to_vec()
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

/// A certificate and its key, in a folder.
fn pair(folder: &Path) -> [String; 2] {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let (certificate_path, key_path) = (folder.join("tls.crt"), folder.join("tls.key"));
    std::fs::write(&certificate_path, certificate.pem()).expect("it is ours");
    std::fs::write(&key_path, key.serialize_pem()).expect("it is ours");
    [flag("tls-cert", &certificate_path), flag("tls-key", &key_path)]
}

#[test]
fn kinds_of_credentials_are_listed() {
    let read = |text: &str| Settings::from_flags([format!("--auth={text}")]);
    for (text, open) in [("none", true), ("api-key", false), (" api-key , api-key", false)] {
        assert_eq!(read(text).expect("it is right").auth.is_open(), open, "{text}");
    }
    for wrong in ["", "api_key", "none,api-key", "api-key,"] {
        let refused = read(wrong).err().expect("it is wrong");
        assert!(refused.lines()[0].starts_with("--auth: write none"), "{refused:?}");
    }
    for (kinds, told) in [("certificate", 2), ("jwt", 1), ("api-key,certificate,jwt", 3)] {
        let refused = faults(&[format!("--auth={kinds}")]);
        assert_eq!(refused.len(), told, "{refused:#?}");
    }
}

#[test]
fn credentials_open_other_addresses_and_exclude_their_opposite() {
    let listen = "--grpc-listen=0.0.0.0:50051".to_owned();
    let auth = "--auth=api-key".to_owned();
    assert!(Settings::from_flags([&auth, &listen]).is_ok());
    let refused = faults(&[auth, listen, "--insecure-no-auth".to_owned()]);
    assert_eq!(refused.len(), 1);
    assert!(refused[0].starts_with("--insecure-no-auth: not together"), "{refused:?}");
}

#[test]
fn half_a_pair_is_refused() {
    let folder = tempfile::tempdir().expect("there is room");
    let [certificate, key] = pair(folder.path());
    let settings = Settings::from_flags([&certificate, &key]).expect("it is a pair");
    assert!(settings.tls.is_some());
    assert!(faults(std::slice::from_ref(&certificate))[0].starts_with("--tls-cert: needs"));
    assert!(faults(std::slice::from_ref(&key))[0].starts_with("--tls-key: needs"));
    let authorities = flag("tls-client-ca", &folder.path().join("tls.crt"));
    assert!(faults(std::slice::from_ref(&authorities))[0].starts_with("--tls-client-ca: needs"));
    assert!(Settings::from_flags([&certificate, &key, &authorities]).is_ok());

    let other = tempfile::tempdir().expect("there is room");
    let [other, _] = pair(other.path());
    let refused = faults(&[other, key]);
    assert!(refused[0].starts_with("--tls-cert: the key is not that"), "{refused:?}");
}

#[test]
fn the_file_tells_callers_apart() {
    let folder = tempfile::tempdir().expect("there is room");
    let [certificate, key] = pair(folder.path());
    let authorities = flag("tls-client-ca", &folder.path().join("tls.crt"));
    let path = folder.path().join("auth.toml");
    let keys = folder.path().join("keys.json");
    std::fs::write(&keys, r#"{"keys":[]}"#).expect("it is ours");
    let text = format!(
        r#"
        [[certificate]]
        uri = "spiffe://clinic.example/scheduler"
        organizations = ["clinic-7"]
        scopes = ["events:publish"]

        [[certificate]]
        dns = "billing.clinic.example"
        organizations = "*"
        scopes = ["events:read", "payloads:read"]

        [[issuer]]
        issuer = "https://login.example"
        audience = "hookward"
        algorithms = ["ES256", "EdDSA"]
        jwks = "https://login.example/keys"

        [[issuer]]
        issuer = "https://other.example"
        audience = "hookward"
        algorithms = ["RS256"]
        jwks_file = "{}"
        organizations_claim = "tenant"
        scopes_claim = "scp"
        "#,
        keys.display()
    );
    std::fs::write(&path, text).expect("it is ours");
    let file = flag("auth-file", &path);
    let auth = "--auth=certificate,jwt".to_owned();
    let words = [&auth, &file, &certificate, &key, &authorities];
    let auth = Settings::from_flags(words).expect("it is right").auth;
    assert!(!auth.is_open() && !auth.certificates.is_empty());
    let [first, second] = auth.issuers.as_slice() else { panic!("{:?}", auth.issuers) };
    assert_eq!(first.rules.algorithms, [Algorithm::Es256, Algorithm::EdDsa]);
    assert_eq!(first.rules.organizations_claim, "organizations");
    assert_eq!(first.rules.scopes_claim, "scope");
    assert!(matches!(first.keys, KeySource::Url { .. }), "{first:?}");
    assert_eq!(second.rules.organizations_claim, "tenant");
    assert!(matches!(&second.keys, KeySource::File(path) if *path == keys), "{second:?}");

    // What would be ignored is a mistake.
    let refused = faults(std::slice::from_ref(&file));
    assert_eq!(refused.len(), 2, "{refused:#?}");
    assert!(refused.iter().all(|line| line.starts_with("--auth-file: ")), "{refused:#?}");
}

/// What is wrong with a file of this text.
fn refused(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("auth.toml");
    std::fs::write(&path, text).expect("it is ours");
    let lines = faults(&["--auth=api-key".to_owned(), flag("auth-file", &path)]);
    let before = format!("--auth-file: {}: ", path.display());
    let told = lines.iter().map(|line| line.strip_prefix(&before).expect("its place"));
    told.map(str::to_owned).collect()
}

#[test]
fn a_file_that_is_none_and_entries_that_are_there_twice_are_refused() {
    assert!(refused("a = ").concat().starts_with("line 1: "));
    let told = refused("certificate = 3");
    assert_eq!(told, ["`certificate` is a list of tables: write [[certificate]]"]);
    assert!(refused("[jwt]")[0].starts_with("`jwt` is no key here"));
    let one = "[[certificate]]\ndns = \"a.example\"\norganizations = \"*\"\nscopes = [\"admin\"]\n";
    assert_eq!(refused(&one.repeat(2)), ["a.example is there twice"]);
}

#[test]
fn every_fault_of_the_file_is_told_with_its_place() {
    let told = refused(
        r#"
        [[certificate]]
        uri = "scheduler"
        organizations = []
        scopes = ["events:publish", "all"]

        [[certificate]]
        dns = "*.clinic.example"
        organizations = "clinic-7"
        scopes = ["events:publish"]

        [[certificate]]
        uri = "spiffe://clinic.example/a"
        dns = "clinic.example"
        organizations = ["clinic 7"]
        scopes = []

        [[certificate]]
        uri = "spiffe://clinic.example/b"
        role = "admin"
        organizations = "*"
        scopes = ["admin"]

        [[issuer]]
        issuer = ""
        audience = " "
        algorithms = ["HS256"]
        jwks = "http://login.example/keys"
        jwks_ca = "/nowhere.pem"

        [[issuer]]
        issuer = "https://login.example"
        audience = "hookward"
        algorithms = []
        jwks_file = "/nowhere.json"
        "#,
    );
    let expected = [
        "certificate 1: uri: ",
        "certificate 1: organizations: name one",
        "certificate 1: scopes: one of",
        "certificate 2: organizations must be",
        "certificate 3: name the caller by uri or by dns",
        "certificate 3: organizations: ",
        "certificate 3: scopes: name one",
        "certificate 4: unknown field `role`",
        "issuer 1: issuer is empty",
        "issuer 1: audience is empty",
        "issuer 1: algorithms: some of ES256",
        "issuer 1: jwks: must be https",
        "issuer 1: jwks_ca: cannot read",
        "issuer 2: algorithms: some of",
        "issuer 2: jwks_file: /nowhere.json: cannot read",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told} instead of {expected}");
    }
}
