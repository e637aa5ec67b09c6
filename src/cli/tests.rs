//! Command lines are taken apart as documented.

use clap::CommandFactory;

use super::*;

fn code(words: &[&str]) -> u8 {
    let words = ["hookward"].iter().chain(words);
    CommandLine::try_parse_from(words).map_or_else(|error| parse_code(error.kind()), |_| 0)
}

#[test]
fn a_wrong_command_line_is_told_from_a_wrong_setting() {
    for words in [&["serve"][..], &["migrate"], &["demo"], &["listen"], &["--help"], &["--version"]] {
        assert_eq!(code(words), 0, "{words:?}");
    }
    for words in [&[][..], &["run"], &["serve", "--port=1"], &["serve", "--role"], &["migrate", "x"]] {
        assert_eq!(code(words), USAGE, "{words:?}");
    }
    assert_eq!(code(&["listen", "--listen=nowhere"]), CONFIGURATION);
}

#[test]
fn the_command_line_is_well_defined() {
    CommandLine::command().debug_assert();
}

#[test]
fn only_what_the_operator_must_mend_is_a_configuration_fault() {
    assert_eq!(Failure::from(StoreError::Setup("why".to_owned())).code, CONFIGURATION);
    assert_eq!(Failure::from(StoreError::Unavailable("why".to_owned())).code, FAILURE);
}
