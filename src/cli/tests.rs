//! Command lines are taken apart as documented.

use clap::CommandFactory;

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
