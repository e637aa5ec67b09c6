//! What was changed is known by its setting, and the documents say what is taken up.

use std::collections::BTreeSet;

use super::*;
use crate::config::told_by;

fn command() -> Command {
    let command = ServeArguments::augment_args(Command::new("serve").no_binary_name(true));
    command.mut_args(|argument| argument.env(None::<&str>))
}

fn marks(words: &[String]) -> Marks {
    Marks::of(&told_by(&command(), words).expect("it is a command line"))
}

#[test]
fn a_setting_is_another_when_its_value_is_or_what_it_names() {
    let folder = tempfile::tempdir().expect("there is room");
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &str| fs::write(path(name), text).expect("it is ours");
    fs::create_dir(path("profiles")).expect("it is ours");
    let flag = |flag: &str, name: &str| format!("--{flag}={}", path(name).display());
    let words = [
        flag("config", "own.toml"),
        flag("profiles", "profiles"),
        flag("database-url-file", "url"),
        format!("{};{}", flag("egress-ca", "one.pem"), path("other.pem").display()),
    ];
    write("own.toml", "log = 'info'");
    let mut before = marks(&words);
    assert_eq!(marks(&words), before);
    let expect = |before: &mut Marks, expected: &[&str]| {
        let now = marks(&words);
        assert_eq!(now.changed_since(before), expected);
        *before = now;
    };
    write("own.toml", "log = 'warn'");
    expect(&mut before, &["config", "log"]);
    write("own.toml", "log = 'warn' # as it was");
    expect(&mut before, &["config"]);
    write("own.toml", "# role and log are what they are by default\nlog = 'info'\nrole = 'all'");
    expect(&mut before, &["config", "log"]);
    write("profiles/a.toml", "name = 'a'");
    expect(&mut before, &["profiles"]);
    write("profiles/a.toml", "name = 'b'");
    expect(&mut before, &["profiles"]);
    fs::rename(path("profiles/a.toml"), path("profiles/b.toml")).expect("it is there");
    expect(&mut before, &["profiles"]);
    write("url", "sqlite:a.db");
    expect(&mut before, &["database-url-file"]);
    write("other.pem", "-----BEGIN CERTIFICATE-----");
    expect(&mut before, &["egress-ca"]);
    fs::remove_file(path("other.pem")).expect("it is there");
    expect(&mut before, &["egress-ca"]);
}

#[test]
fn what_was_taken_up_is_in_use_and_the_rest_stays_another() {
    let words = |words: &[&str]| -> Vec<String> { words.iter().map(|it| (*it).into()).collect() };
    let mut in_use = marks(&words(&[]));
    let later = marks(&words(&["--log=debug", "--role=api"]));
    in_use.catch_up(&["log".to_owned()], &later);
    assert_eq!(later.changed_since(&in_use), ["role"]);
    assert_eq!(marks(&words(&["--log=debug"])).changed_since(&in_use), [""; 0]);
}

#[test]
fn what_is_taken_up_are_settings_and_the_document_lists_them() {
    let command = command();
    let flags: BTreeSet<&str> = command.get_arguments().filter_map(|it| it.get_long()).collect();
    let taken_up = BTreeSet::from(TAKEN_UP);
    assert!(taken_up.is_subset(&flags) && BTreeSet::from(FILES).is_subset(&flags));
    let document = include_str!("../../../docs/CONFIGURATION.md");
    let chapter = document.split("\n## Change settings while it runs\n").nth(1);
    let chapter = chapter.and_then(|rest| rest.split("\n## ").next()).expect("it is there");
    let rows = chapter.lines().filter(|line| line.starts_with("| `--"));
    let named = rows.filter_map(|row| row.split('|').nth(1)).flat_map(|cell| cell.split('`'));
    let documented: BTreeSet<&str> = named.filter_map(|name| name.strip_prefix("--")).collect();
    assert_eq!(documented, taken_up);
}
