//! Command lines are taken apart as documented.

use super::*;

fn code(words: &[&str]) -> u8 {
    let words = ["hookward"].iter().chain(words);
    Arguments::try_parse_from(words).map_or_else(|error| parse_code(error.kind()), |_| 0)
}

#[test]
fn a_wrong_command_line_is_told_from_a_wrong_setting() {
    for words in [&["serve"][..], &["migrate"], &["demo"], &["listen"], &["--help"], &["--version"]]
    {
        assert_eq!(code(words), 0, "{words:?}");
    }
    for words in
        [&[][..], &["run"], &["serve", "--port=1"], &["serve", "--role"], &["migrate", "x"]]
    {
        assert_eq!(code(words), EXIT_USAGE, "{words:?}");
    }
    assert_eq!(code(&["listen", "--listen=nowhere"]), EXIT_CONFIG);
}

#[test]
fn the_command_line_is_well_defined() {
    Arguments::command().debug_assert();
}

#[test]
fn only_what_the_operator_must_mend_is_a_configuration_fault() {
    let code = |failure: Failure| format!("{:?}", failure.exit_code());
    let setup = Failure::from(StoreError::Setup("why".to_owned()));
    assert_eq!(code(setup), format!("{:?}", ExitCode::from(78)));
    let away = Failure::from(StoreError::Unavailable("why".to_owned()));
    assert_eq!(code(away), format!("{:?}", ExitCode::FAILURE));
}

#[test]
fn settings_are_printed_with_their_origin_and_without_secrets() {
    let words = [
        "hookward",
        "config",
        "print",
        "--database-url=postgres://owner:s3cret@db.example:5433/hookward?sslmode=require&password=s3cret",
        "--encryption-keys=one=s3cret",
        "--otlp-endpoint=http://user:s3cret@collector:4317",
        "--egress-allow=10.0.0.0/8",
        "--egress-allow=192.168.0.0/16",
        "--egress-proxy=http://user:s3cret@proxy:3128",
        "--no-reflection",
    ];
    let command = Arguments::command().mut_subcommand("config", |config| {
        // What the environment of the tests says is nobody's.
        config.mut_subcommand("print", |print| print.mut_args(|one| one.env(None::<&str>)))
    });
    let told = command.try_get_matches_from(words).expect("is a command line");
    let print = told.subcommand_matches("config").and_then(|it| it.subcommand_matches("print"));
    let lines = config::lines(print.expect("is what was said"));
    for line in [
        "--database-url postgres://owner@db.example:5433/hookward  # command line",
        "--encryption-keys (hidden)  # command line",
        "--otlp-endpoint http://collector:4317  # command line",
        "--egress-allow 10.0.0.0/8;192.168.0.0/16  # command line",
        "--egress-proxy (hidden)  # command line",
        "--no-reflection  # command line",
        "# --insecure-no-auth is not set",
        "# --auth-file is not set",
        "--shutdown-grace 20s  # default",
    ] {
        assert!(lines.iter().any(|one| one == line), "{line} in {lines:#?}");
    }
    assert!(!lines.join("").contains("s3cret"), "{lines:#?}");

    for (url, shown) in [
        ("postgres://owner:s3/cret@db.example/hookward", "(hidden)"),
        ("postgres://owner:s3cret@db.example:port/hookward", "(hidden)"),
    ] {
        let target = crate::store::Target::parse(url);
        let said = target.map_or_else(|_| "(hidden)".to_owned(), |url| url.without_secrets());
        assert!(said.contains(shown) && !said.contains("cret"), "{said}");
    }
}
