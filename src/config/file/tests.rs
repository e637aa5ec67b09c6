//! A file says settings as flags do, and loses to them.

use std::fs;

use super::*;
use crate::config::{Role, Settings};
use crate::store::Target;

/// What `hookward serve` is told by this file and these flags.
fn read(text: &str, flags: &[&str]) -> Result<Settings, Faults> {
    let folder = tempfile::tempdir().expect("there is room");
    let file = folder.path().join("hookward.toml");
    fs::write(&file, text).expect("it is ours");
    let config = format!("--config={}", file.display());
    Settings::from_flags(flags.iter().copied().chain([config.as_str()]))
}

/// What is wrong with this file, without its name.
fn faults(text: &str, flags: &[&str]) -> Vec<String> {
    let faults = read(text, flags).err().expect("it is refused");
    let tail = |line: &String| match line.split_once("hookward.toml, ") {
        Some((_, tail)) => tail.to_owned(),
        None => line.clone(),
    };
    faults.lines().iter().map(tail).collect()
}

#[test]
fn every_kind_of_setting_is_said_as_its_flag_would_be() {
    let text = "
        role = 'api'
        no-reflection = true
        egress-allow = ['10.1.0.0/16:443,8443', '127.0.0.1']
        database-connections = 0x10
        payload-bytes-max = 65536
        publish-queue-bytes = '2MiB'
        max-publish-rate-organization = 'off'
        traces-sampler-arg = 1
    ";
    let settings = read(text, &[]).expect("it is right");
    assert_eq!((settings.role, settings.reflection), (Role::Api, false));
    assert_eq!(settings.egress.policy.allow.len(), 2);
    assert_eq!((settings.database.connections_max, settings.payload_bytes_max), (16, 65_536));
    assert_eq!((settings.intake.queue_bytes, settings.intake.rate), (2 << 20, None));
    // What it does not say has its default.
    assert_eq!(settings.intake.queue_events, 4096);
    assert!(read("no-reflection = false", &[]).expect("it is right").reflection);
    assert!(read("egress-allow = []", &[]).expect("it is right").egress.policy.allow.is_empty());
}

#[test]
fn a_flag_wins_over_the_file() {
    let text = "role = 'api'\negress-deny = ['192.0.2.0/24', '198.51.100.0/24']";
    let settings = read(text, &["--role=dispatch", "--egress-deny=203.0.113.0/24"]);
    let settings = settings.expect("it is right");
    assert_eq!((settings.role, settings.egress.policy.deny.len()), (Role::Dispatch, 1));
}

#[test]
fn a_flag_wins_as_well_where_the_file_says_the_same_in_another_way() {
    let text = "database-url-file = '/nowhere/url'\nencryption-keys-file = '/nowhere/keys'";
    let told = ["--database-url=sqlite:other.db", "--encryption-keys="];
    let settings = read(text, &told).expect("nobody asks for the files");
    assert_eq!(settings.database.target, Target::Sqlite("other.db".into()));
    assert_eq!(faults(text, &[]).len(), 2);
}

#[test]
fn all_that_is_wrong_is_told_with_its_key_and_line_and_without_its_value() {
    let text = "
        egress-alow = ['s3cret']
        database-url = 5432
        no-reflection = 's3cret'
        egress-deny = 's3cret'
        egress-nat64 = [64, 's3cret']
        database-connections = true
        max-in-flight-replica = 99999999999999999999999999999999999999999
        traces-sampler-arg = ['s3cret']
        profiles = ''
        config = 's3cret.toml'
        [log]
        filter = 's3cret'
    ";
    let told = faults(text, &["--role=both", "--grpc-listen=nowhere"]);
    let expected = [
        "line 2: `egress-alow` is no setting",
        "line 3: `database-url` takes a string",
        "line 4: `no-reflection` takes true or false",
        "line 5: `egress-deny` takes a list of strings",
        "line 6: `egress-nat64` takes a list of strings",
        "line 7: `database-connections` takes a whole number or a string",
        "line 8: `max-in-flight-replica` takes a smaller number",
        "line 9: `traces-sampler-arg` takes a number",
        "line 10: `profiles` takes a path; leave it out for none",
        "line 11: `config` is not said here, but by a flag or a variable",
        "line 12: `log` takes a string",
    ];
    assert_eq!(told[..expected.len()], expected, "{told:#?}");
    let rest: Vec<&str> = told[expected.len()..].iter().map(|line| &line[..6]).collect();
    assert_eq!(rest, ["--grpc", "--role"], "{told:#?}");
    assert!(!told.concat().contains("s3cret"), "{told:#?}");
}

#[test]
fn a_value_that_the_setting_refuses_is_told_as_one_of_a_flag() {
    let told = faults("role = 'both'\ntraces-sampler-arg = 2.5", &[]);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].starts_with("--role: ") && told[1].starts_with("--traces-sampler-arg: "));
}

#[test]
fn a_file_that_cannot_be_read_is_told_without_its_text() {
    for (text, line) in [
        ("log = 'info'\ndatabase-url = postgres://owner:s3cret@db/x", 2),
        ("database-url = \"postgres://owner:s3cret@db/x", 1),
        ("log = 'info'\n\nlog = 's3cret'", 3),
        ("s3cret", 1),
    ] {
        let told = faults(text, &["--role=both"]);
        assert!(told[0].starts_with(&format!("line {line}: ")), "{text}: {told:#?}");
        assert!(told.iter().any(|line| line.starts_with("--role: ")), "{told:#?}");
        assert!(!told.concat().contains("s3cret"), "{told:#?}");
    }
    let missing = Settings::from_flags(["--config=/nowhere.toml"]).err().expect("it is missing");
    assert!(missing.lines()[0].starts_with("--config: cannot read /nowhere.toml"), "{missing}");
}

#[test]
fn the_documented_file_is_right() {
    let text = include_str!("../../../docs/hookward.toml");
    let folder = tempfile::tempdir().expect("there is room");
    let place = folder.path().display().to_string();
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    for name in ["tls", "profiles"] {
        fs::create_dir(folder.path().join(name)).expect("it is ours");
    }
    for (name, text) in [
        ("database-url", "postgres://hookward@db.example/hookward"),
        ("encryption-keys", "2026-11 = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="),
        ("receivers-ca.pem", &certificate),
        ("tls/tls.crt", &certificate),
        ("tls/tls.key", &key.serialize_pem()),
    ] {
        fs::write(folder.path().join(name), text).expect("it is ours");
    }
    let settings = read(&text.replace("/etc/hookward", &place), &[]).expect("it is right");
    assert_eq!(settings.database.keyring.primary(), Some("2026-11"));
    assert!(!settings.reflection && settings.auth.api_keys);
    assert_eq!(settings.egress.policy.allow.len(), 2);
    assert_eq!(settings.in_flight.replica, 1024);
    assert_eq!(settings.telemetry.filter, "info");
}
