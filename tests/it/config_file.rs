//! Promise: a file says settings; a flag and a variable win over it; what is wrong with it is
//! told, and no value.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What `hookward` prints with these arguments and variables, and its exit code.
fn run(arguments: &[&str], environment: &[(&str, &str)], folder: &Path) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookward"));
    let command = command.args(arguments).env_clear().envs(environment.iter().copied());
    let output = command.current_dir(folder).output().expect("it runs");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code().expect("it ends"), String::from_utf8(printed).expect("text"))
}

#[test]
fn every_setting_is_printed_with_where_it_is_from() {
    let folder = tempfile::tempdir().expect("there is room");
    let text = "log = 'warn'\nrole = 'api'\nshutdown-grace = '5s'\nno-reflection = true\n\
                egress-deny = ['192.0.2.0/24', '198.51.100.0/24']\n\
                database-url = 'postgres://owner:s3cret@db/x'\n\
                encryption-keys = 'one=s3cret'\n";
    fs::write(folder.path().join("own.toml"), text).expect("it is ours");
    let environment = [
        ("HOOKWARD_CONFIG", "own.toml"),
        ("HOOKWARD_ROLE", "dispatch"),
        ("HOOKWARD_NO_REFLECTION", "false"),
    ];
    let arguments = ["config", "print", "--log=debug"];
    let (code, printed) = run(&arguments, &environment, folder.path());
    assert_eq!(code, 0, "{printed}");
    for line in [
        "--config own.toml  # HOOKWARD_CONFIG",
        "--log debug  # command line",
        "--role dispatch  # HOOKWARD_ROLE",
        "# --no-reflection is not set",
        "--shutdown-grace 5s  # own.toml",
        "--egress-deny 192.0.2.0/24;198.51.100.0/24  # own.toml",
        "--database-url postgres://owner@db:5432/x  # own.toml",
        "--encryption-keys (hidden)  # own.toml",
        "--log-format people  # default",
    ] {
        assert!(printed.lines().any(|one| one == line), "{line} in\n{printed}");
    }
    assert!(!printed.contains("s3cret"), "{printed}");
}

#[test]
fn what_is_wrong_with_it_ends_every_command_that_takes_settings() {
    let folder = tempfile::tempdir().expect("there is room");
    let text = "databse-url = 'postgres://owner:s3cret@db/x'\nno-reflection = 's3cret'\n";
    fs::write(folder.path().join("own.toml"), text).expect("it is ours");
    let expected = "hookward: --config: own.toml, line 1: `databse-url` is no setting\n\
                    hookward: --config: own.toml, line 2: `no-reflection` takes true or false\n";
    for command in [
        &["serve"][..],
        &["migrate"],
        &["config", "check"],
        &["health"],
        &["keys", "rotate"],
        &["keys", "shred", "--organization=one"],
        &["api-key", "list"],
        &["audit", "verify"],
        &["retention", "list"],
        &["backup", "--to=copy.db"],
        &["organization", "delete", "one", "--confirm=one"],
    ] {
        let arguments = [command, &["--config=own.toml"]].concat();
        let (code, printed) = run(&arguments, &[], folder.path());
        assert_eq!((code, printed.as_str()), (78, expected), "{command:?}");
    }
    let (code, printed) = run(&["config", "print", "--config=own.toml"], &[], folder.path());
    assert!(code == 78 && printed.ends_with(expected), "{printed}");
}

#[test]
fn one_file_does_for_all_commands() {
    let folder = tempfile::tempdir().expect("there is room");
    let text = "database-url = 'sqlite:own.db'\nrole = 'api'\nlog = 'off'\n";
    fs::write(folder.path().join("own.toml"), text).expect("it is ours");
    let (code, printed) = run(&["migrate", "--config=own.toml"], &[], folder.path());
    assert_eq!(code, 0, "{printed}");
    assert!(folder.path().join("own.db").exists(), "{printed}");
}
