//! Settings are read as documented, and documented as they are read.

use std::fmt::Write;
use std::num::NonZeroU32;

use super::*;
use crate::egress::MixedAnswers;
use crate::telemetry::{Collector, Protocol};

/// Between these lines of the document stands what `table` writes.
const MARKS: [&str; 2] = ["<!-- settings: begin -->\n", "<!-- settings: end -->\n"];

fn command() -> Command {
    ServeArguments::augment_args(Command::new("serve"))
}

fn read(words: &[&str]) -> Result<Settings, Faults> {
    Settings::from_flags(words)
}

fn faults(words: &[&str]) -> Vec<String> {
    read(words).err().expect("it is refused").lines().to_vec()
}

#[test]
fn the_defaults_are_those_documented() {
    let settings = read(&[]).expect("defaults are right");
    assert_eq!(settings.database.target, store::Target::Sqlite("hookward.db".into()));
    assert_eq!(settings.database.connections_max, 16);
    assert_eq!(settings.grpc_listen.to_string(), "127.0.0.1:50051");
    assert_eq!(settings.admin_listen, Some(([127, 0, 0, 1], 8080).into()));
    assert_eq!(settings.role, Role::All);
    assert!(settings.auth.is_open() && settings.tls.is_none());
    assert!(settings.egress.policy.allow.is_empty() && settings.egress.policy.deny.is_empty());
    assert_eq!(settings.egress.mixed_answers, MixedAnswers::Refuse);
    assert!(settings.reflection);
    assert_eq!(settings.payload_bytes_max, crate::domain::event_rules::PAYLOAD_BYTES_DEFAULT);
    assert_eq!((settings.intake.queue_events, settings.intake.queue_bytes), (4096, 67_108_864));
    let rate = |count| NonZeroU32::new(count).map(Rate::per_second);
    assert_eq!((settings.intake.rate, settings.call_rate), (rate(1000), rate(50)));
    assert_eq!((settings.in_flight.replica, settings.in_flight.organization), (512, 128));
    assert_eq!(settings.auto_disable, Some(Rule::default()));
    assert_eq!(settings.canary_interval, None);
    assert_eq!(settings.grace, Duration::from_secs(20));
    assert_eq!(settings.telemetry.collector, None);
}

#[test]
fn every_fault_is_reported_at_once() {
    let faults = faults(&[
        "--config=/nowhere.toml",
        "--database-url=mysql://root:hunter2@db/x",
        "--encryption-keys=old=aHVudGVyMg==",
        "--database-connections=1",
        "--grpc-listen=localhost",
        "--admin-listen=on",
        "--role=both",
        "--auth=badge",
        "--auth-file=/nowhere.toml",
        "--tls-cert=/nowhere.crt",
        "--tls-key=/nowhere.key",
        "--tls-client-ca=/nowhere.pem",
        "--egress-allow=10.0.0.0/33;10.0.0.1/8",
        "--egress-deny=net",
        "--egress-mixed-answers=some",
        "--egress-nat64=64:ff9b::/97",
        "--egress-proxy=http://proxy:3128",
        "--egress-ca=/nowhere.pem",
        "--egress-nameserver=dns",
        "--profiles=/nowhere",
        "--payload-bytes-max=2MiB",
        "--publish-queue-events=0",
        "--publish-queue-bytes=64MB",
        "--max-publish-rate-organization=0",
        "--max-open-deliveries-organization=0",
        "--max-call-rate-organization=none",
        "--max-in-flight-replica=many",
        "--max-in-flight-organization=-1",
        "--auto-disable-after=5",
        "--auto-disable-deliveries=0",
        "--canary-interval=3m",
        "--shutdown-grace=20",
        "--log-format=xml",
        "--log=loud",
        "--otlp-endpoint=https://collector:4317",
        "--otlp-protocol=http/json",
        "--metrics-exporter=console",
        "--metric-export-interval=1m",
        "--traces-sampler=jaeger_remote",
        "--traces-sampler-arg=2",
    ]);
    let flags: Vec<&str> = faults.iter().filter_map(|line| line.split(':').next()).collect();
    let all = command();
    let expected = all.get_arguments().filter_map(|argument| argument.get_long());
    let silent =
        ["database-url-file", "encryption-keys-file", "insecure-no-auth", "no-reflection", "help"];
    for flag in expected.filter(|flag| !silent.contains(flag)) {
        let count = flags.iter().filter(|found| **found == format!("--{flag}")).count();
        assert_eq!(count, if flag == "egress-allow" { 2 } else { 1 }, "{flag}: {faults:#?}");
    }
    assert!(!faults.join("\n").contains("hunter2"), "{faults:#?}");
    assert!(!faults.join("\n").contains("aHVudGVyMg"), "{faults:#?}");
}

#[test]
fn strangers_are_let_in_only_on_demand() {
    for address in ["0.0.0.0:50051", "[::]:50051", "192.0.2.1:1", "[::ffff:192.0.2.1]:1"] {
        let flag = format!("--grpc-listen={address}");
        let refused = faults(&[&flag]);
        assert!(refused[0].contains("--insecure-no-auth"), "{refused:?}");
        assert!(read(&[&flag, "--insecure-no-auth"]).is_ok(), "{address}");
    }
    for address in ["127.1.2.3:1", "[::1]:50051", "[::ffff:127.0.0.1]:1"] {
        assert!(read(&[&format!("--grpc-listen={address}")]).is_ok(), "{address}");
    }
}

#[test]
fn lists_are_repeated_or_separated_and_commas_belong_to_ports() {
    let settings = read(&[
        "--egress-allow=10.0.0.0/8:443,8443 127.0.0.1;[::1]:80",
        "--egress-allow=192.168.0.0/16 10.9.0.0/16:1@clinic-7",
        "--egress-deny=",
        "--egress-nameserver=192.0.2.53; [2001:db8::1]:5353",
    ]);
    let egress = settings.expect("all of it is right").egress;
    let rules = egress.policy.rules(None);
    let opens = |address: &str, port| rules.permits(address.parse().expect("is an address"), port);
    assert_eq!(egress.policy.allow.len(), 5);
    assert!(opens("10.1.1.1", 443) && opens("10.1.1.1", 8443) && !opens("10.1.1.1", 80));
    assert!(opens("127.0.0.1", 9000) && opens("::1", 80) && opens("192.168.1.1", 1));
    assert!(!opens("10.9.1.1", 1), "that one is for one organization only");
    assert!(egress.policy.deny.is_empty());
    let servers: Vec<String> = egress.nameservers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["192.0.2.53:53", "[2001:db8::1]:5353"]);
}

#[test]
fn the_canary_is_off_unless_it_is_told_how_often() {
    let interval = |flags: &[&str]| read(flags).expect("it is right").canary_interval;
    assert_eq!(interval(&[]), None);
    assert_eq!(interval(&["--canary-interval=off"]), None);
    assert_eq!(interval(&["--canary-interval=2m"]), Some(Duration::from_mins(2)));
    for wrong in ["0s", "999ms", "121s", "30"] {
        let refused = faults(&[&format!("--canary-interval={wrong}")]);
        assert!(refused[0].ends_with(", or off"), "{refused:?}");
    }
}

#[test]
fn translators_prefixes_do_not_lie_in_each_other() {
    let settings = read(&["--egress-nat64=64:ff9b::/96 2001:db8:64::/48"]);
    assert_eq!(settings.expect("two prefixes").egress.policy.nat64.len(), 2);
    let refused = faults(&["--egress-nat64=2001:db8:64::/48", "--egress-nat64=2001:db8::/32"]);
    assert_eq!(refused, ["--egress-nat64: one prefix lies in another"]);
}

#[test]
fn a_proxy_is_a_host_and_a_port() {
    let proxy = |text: &str| read(&[&format!("--egress-proxy={text}")]).map(|it| it.egress.proxy);
    let good = [
        ("proxy.example:3128", ("proxy.example", 3128)),
        ("192.0.2.7:80", ("192.0.2.7", 80)),
        ("[2001:db8::1]:3128", ("2001:db8::1", 3128)),
    ];
    for (text, (host, port)) in good {
        assert_eq!(proxy(text), Ok(Some((host.to_owned(), port))), "{text}");
    }
    assert_eq!(proxy(""), Ok(None));
    for bad in ["proxy", "proxy:", ":3128", "proxy:0", "a@proxy:1", "proxy:1/", "2001:db8::1:80"] {
        assert!(proxy(bad).is_err(), "{bad}");
    }
}

#[test]
fn values_carry_their_units() {
    let millis = |text| {
        let read = value::duration(text, Duration::ZERO, Duration::from_mins(10));
        read.ok().map(|duration| duration.as_millis())
    };
    let read = [("500ms", Some(500)), ("20s", Some(20_000)), ("10m", Some(600_000))];
    let refused = ["11m", "20", "s", "-1s", "1.5s", "1h", "18446744073709551615m"];
    for (text, expected) in read.into_iter().chain(refused.map(|text| (text, None))) {
        assert_eq!(millis(text), expected, "{text}");
    }
    let sizes = [("1024", Some(1024)), ("1KiB", Some(1024)), ("2MiB", Some(2_097_152))];
    let refused = ["1023", "5MiB", "1kb", "KiB", "18446744073709551615GiB"];
    for (text, expected) in sizes.into_iter().chain(refused.map(|text| (text, None))) {
        assert_eq!(value::bytes(text, 1024, 4 << 20).ok(), expected, "{text}");
    }
}

#[test]
fn limits_of_organizations_can_be_switched_off() {
    let settings = read(&[]).expect("it is right");
    assert_eq!(settings.intake.open_deliveries, Some(1_000_000));
    let settings = read(&[
        "--max-publish-rate-organization=off",
        "--max-call-rate-organization=off",
        "--max-open-deliveries-organization=off",
    ]);
    let settings = settings.expect("it is right");
    assert_eq!((settings.intake.rate, settings.call_rate), (None, None));
    assert_eq!(settings.intake.open_deliveries, None);
}

#[test]
fn receivers_that_fail_are_switched_off_by_the_operators_rule_or_never() {
    let read = |words: &[&str]| read(words).map(|settings| settings.auto_disable);
    let rule = Rule { after: Duration::from_hours(12), exhausted: 3 };
    let words = ["--auto-disable-after=12h", "--auto-disable-deliveries=3"];
    assert_eq!(read(&words), Ok(Some(rule)));
    assert_eq!(read(&["--auto-disable-after=off"]), Ok(None));
    assert!(read(&["--auto-disable-after=0s"]).is_err());
    assert!(read(&["--auto-disable-after=367d"]).is_err());
}

#[test]
fn a_collector_has_a_plain_url_and_speaks_grpc_unless_told() {
    let collector = |words: &[&str]| read(words).map(|settings| settings.telemetry.collector);
    let endpoint = "http://user:hunter2@collector:4317/otlp".to_owned();
    let flag = format!("--otlp-endpoint={endpoint}");
    let (grpc, http) = (Protocol::Grpc, Protocol::HttpProtobuf);
    for (words, protocol) in [
        (vec![&*flag], grpc),
        (vec![&*flag, "--otlp-protocol="], grpc),
        (vec![&*flag, "--otlp-protocol=http/protobuf"], http),
    ] {
        let endpoint = endpoint.clone();
        let expected = Collector { endpoint, protocol, metrics_interval: None };
        assert_eq!(collector(&words), Ok(Some(expected)), "{words:?}");
    }
    assert_eq!(collector(&["--otlp-protocol=http/protobuf"]), Ok(None));
    assert_eq!(collector(&["--otlp-endpoint="]), Ok(None), "as one that is not set");
    for url in ["collector:4317", "http://", "http://collector:4317/?a=b", "unix:///run/it"] {
        assert!(collector(&[&format!("--otlp-endpoint={url}")]).is_err(), "{url}");
    }
}

#[test]
fn metrics_are_pushed_where_that_is_asked_for() {
    let interval = |words: &[&str]| {
        let words = [&["--otlp-endpoint=http://collector:4317"][..], words].concat();
        let collector = read(&words).map(|settings| settings.telemetry.collector);
        collector.map(|collector| collector.expect("it is named").metrics_interval)
    };
    let minute = Some(Duration::from_mins(1));
    for (words, expected) in [
        (vec!["--metric-export-interval=500"], None),
        (vec!["--metrics-exporter=none"], None),
        (vec!["--metrics-exporter=prometheus"], None),
        (vec!["--metrics-exporter="], None),
        (vec!["--metrics-exporter=otlp"], minute),
        (vec!["--metrics-exporter=prometheus,otlp", "--metric-export-interval="], minute),
        (
            vec!["--metrics-exporter=otlp", "--metric-export-interval=500"],
            Some(Duration::from_millis(500)),
        ),
    ] {
        assert_eq!(interval(&words), Ok(expected), "{words:?}");
    }
    for word in ["console", "otlp;none"] {
        assert!(interval(&[&format!("--metrics-exporter={word}")]).is_err(), "{word}");
    }
    for millis in ["0", "99", "86400001", "1m"] {
        assert!(interval(&[&format!("--metric-export-interval={millis}")]).is_err(), "{millis}");
    }
    let refused = faults(&["--metrics-exporter=otlp"]);
    assert_eq!(refused, ["--metrics-exporter: otlp needs --otlp-endpoint"]);
}

#[test]
fn the_urls_file_wins_and_its_line_end_is_not_part_of_it() {
    let folder = tempfile::tempdir().expect("there is room");
    let file = folder.path().join("url");
    fs::write(&file, "postgres://hookward:hunter2@db/hookward\n").expect("it is ours");
    let flag = format!("--database-url-file={}", file.display());
    let settings = read(&[&flag, "--database-url=sqlite:other.db"]).expect("it is right");
    let expected = "postgres://hookward:hunter2@db/hookward".to_owned();
    assert_eq!(settings.database.target, store::Target::Postgres(expected));
}

#[test]
fn keys_come_from_the_variable_a_file_or_a_folder() {
    let key = |letter: char| letter.to_string().repeat(42) + "8=";
    let primary = |flags: &[&str]| {
        let keyring = read(flags).expect("they are right").database.keyring;
        keyring.primary().map(str::to_owned)
    };
    assert_eq!(primary(&[]), None);
    assert_eq!(primary(&["--encryption-keys="]), None);
    let inline = format!("--encryption-keys=a={};b={};primary=b", key('A'), key('B'));
    assert_eq!(primary(&[&inline]).as_deref(), Some("b"));

    let folder = tempfile::tempdir().expect("there is room");
    let flag = format!("--encryption-keys-file={}", folder.path().display());
    assert!(faults(&[&flag, &inline])[0].contains("holds no key"), "the file wins");
    for (name, text) in [
        ("old", format!("# of last year\na = {}\n", key('A'))),
        ("new", format!("c = {}\nprimary = c", key('C'))),
        (".data", "not one".to_owned()),
    ] {
        fs::write(folder.path().join(name), text).expect("it is ours");
    }
    assert_eq!(primary(&[&flag, &inline]).as_deref(), Some("c"));
    let flag = format!("--encryption-keys-file={}", folder.path().join("old").display());
    assert_eq!(primary(&[&flag]).as_deref(), Some("a"));
    let missing = faults(&["--encryption-keys-file=/nowhere/keys"]);
    assert!(missing[0].contains("/nowhere/keys"), "{missing:?}");
}

#[test]
fn every_file_of_the_profiles_folder_is_judged() {
    let folder = tempfile::tempdir().expect("there is room");
    for name in ["a.toml", "b.toml"] {
        fs::write(folder.path().join(name), "name = 3").expect("it is ours");
    }
    fs::write(folder.path().join("README.md"), "not a profile").expect("it is ours");
    let refused = faults(&[&format!("--profiles={}", folder.path().display())]);
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].contains("a.toml") && refused[1].contains("b.toml"), "{refused:?}");
}

/// A slip in a flag's own definition would show only when somebody starts the server.
#[test]
fn every_setting_has_a_variable_and_says_what_it_is() {
    let command = command();
    command.clone().debug_assert();
    for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
        let variable = argument.get_env().and_then(|name| name.to_str());
        let flag = argument.get_long().expect("settings are flags");
        let name = flag.to_uppercase().replace('-', "_");
        let own = format!("HOOKWARD_{name}");
        // OpenTelemetry's own, which whoever knows them has set already.
        let standard = ["OTEL_", "OTEL_EXPORTER_"].map(|prefix| format!("{prefix}{name}"));
        let theirs = ["otlp-", "traces-", "metric"].iter().any(|start| flag.starts_with(start));
        let standard = theirs && standard.iter().any(|one| variable == Some(one));
        assert!(standard || variable == Some(own.as_str()), "{flag}: {variable:?}");
        assert!(argument.is_hide_env_values_set(), "{flag} shows its value in --help");
    }
}

#[test]
fn the_document_lists_every_setting() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFIGURATION.md");
    let document = fs::read_to_string(&path).expect("the document is there");
    let [begin, end] = MARKS;
    let (before, rest) = document.split_once(begin).expect("it has a begin mark");
    let (documented, after) = rest.split_once(end).expect("it has an end mark");
    let table = table();
    if std::env::var_os("HOOKWARD_WRITE_DOCS").is_some() {
        let written = format!("{before}{begin}{table}{end}{after}");
        fs::write(&path, written).expect("the document can be written");
        return;
    }
    assert_eq!(
        documented, table,
        "docs/CONFIGURATION.md is out of date; write it anew with \
         HOOKWARD_WRITE_DOCS=1 cargo test --lib the_document_lists_every_setting"
    );
}

fn table() -> String {
    let mut table =
        String::from("| Flag and variable | Default | What it is |\n| --- | --- | --- |\n");
    for argument in command().get_arguments().filter(|argument| argument.get_id() != "help") {
        let flag = argument.get_long().expect("settings are flags");
        let takes_value = argument.get_action().takes_values();
        let name = argument.get_value_names().unwrap_or_default().join(" ");
        let value = if takes_value { format!(" {name}") } else { String::new() };
        let variable = argument.get_env().unwrap_or_default().to_string_lossy();
        let default = argument.get_default_values().first().map(|value| value.to_string_lossy());
        let default = default.map_or_else(String::new, |default| format!("`{default}`"));
        let help =
            argument.get_long_help().or(argument.get_help()).expect("settings are described");
        let help = help.to_string().replace("\n\n", "<br>").replace('|', "\\|");
        let flag = format!("{flag}{value}").replace('|', "\\|");
        writeln!(table, "| `--{flag}`<br>`{variable}` | {default} | {help} |").expect("memory");
    }
    table
}
