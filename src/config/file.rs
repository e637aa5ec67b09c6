//! A file of settings, for whoever would rather not say them all as flags or variables.
//!
//! Its keys are the names of the flags. A command line is read twice: once to find the file,
//! and once more with what the file says in the place of the defaults. So a flag and a
//! variable win over it, and the same checks are made of it as of them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command};
use sha2::{Digest, Sha256};
use toml::de::{DeTable, DeValue};

use super::{Faults, ServeArguments, read_text};

/// The flag that names the file.
pub(super) const CONFIG: &str = "config";
/// Two ways to say one thing. Who says it one way by a flag or a variable has said it, also
/// where the file says it the other way.
const SAME: [[&str; 2]; 2] =
    [["database-url", "database-url-file"], ["encryption-keys", "encryption-keys-file"]];

/// What a file of settings says. `Debug` prints its path only: a value may be a password.
#[derive(Clone)]
pub struct ConfigFile {
    path: PathBuf,
    /// Values as a flag would have them, by the name of the flag.
    values: BTreeMap<String, String>,
    faults: Faults,
    /// Tells one text from another.
    digest: [u8; 32],
}

/// What may stand behind a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Switch,
    List,
    Number,
    Ratio,
    Path,
    Text,
}

/// What this process was told by its command line, its environment and the file that these
/// name.
///
/// # Errors
///
/// When the command line is wrong. What is wrong with the file, [`ConfigFile::faults`] tells.
pub fn told(command: &Command) -> Result<ArgMatches, clap::Error> {
    told_by(command, std::env::args_os())
}

/// The same, by these words.
///
/// # Errors
///
/// As [`told`].
pub fn told_by<T: Into<OsString> + Clone>(
    command: &Command,
    words: impl IntoIterator<Item = T>,
) -> Result<ArgMatches, clap::Error> {
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    let told = command.clone().try_get_matches_from(&words)?;
    match ConfigFile::named(last(&told)) {
        None => Ok(told),
        Some(file) => completed(command.clone(), &told, file).try_get_matches_from(&words),
    }
}

/// What was said to the innermost command.
#[must_use]
pub fn last(told: &ArgMatches) -> &ArgMatches {
    told.subcommand().map_or(told, |(_, told)| last(told))
}

/// The command with what the file says as defaults, but for what was said otherwise.
fn completed(command: Command, told: &ArgMatches, file: &ConfigFile) -> Command {
    if let Some((name, told)) = told.subcommand() {
        return command.mut_subcommand(name, |command| completed(command, told, file));
    }
    let is_said = |argument: &&Arg| {
        let source = told.value_source(argument.get_id().as_str());
        matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
    let said = command.get_arguments().filter(is_said).filter_map(Arg::get_long);
    let said: Vec<String> = said.map(str::to_owned).collect();
    let mut file = file.clone();
    for ways in SAME {
        if ways.iter().any(|way| said.iter().any(|flag| flag == way)) {
            file.values.retain(|flag, _| !ways.contains(&flag.as_str()));
        }
    }
    command.mut_args(|argument| {
        let Some(flag) = argument.get_long() else { return argument };
        if flag == CONFIG {
            // As it was read the first time: meanwhile it may be another.
            let file = file.clone();
            return argument.value_parser(PathBufValueParser::new().map(move |_| file.clone()));
        }
        match file.values.get(flag).cloned() {
            Some(value) => argument.default_value(value),
            None => argument,
        }
    })
}

impl ConfigFile {
    /// The file that these words name; `None`: none, or the command takes no settings.
    #[must_use]
    pub fn named(told: &ArgMatches) -> Option<&ConfigFile> {
        told.try_get_one(CONFIG).ok().flatten()
    }

    /// Reads it. What is wrong is kept for when everything that is wrong is told.
    pub(super) fn read(path: PathBuf) -> ConfigFile {
        let (values, digest) = (BTreeMap::new(), [0; 32]);
        let mut file = ConfigFile { path, values, faults: Faults::default(), digest };
        match read_text(&file.path) {
            Ok(text) => {
                file.digest = Sha256::digest(&text).into();
                file.take(&text);
            }
            Err(why) => {
                file.faults.note::<(), _>(CONFIG, Err(why));
            }
        }
        file
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Whether it says this setting, and is the one to say it unless a flag or a variable
    /// does.
    #[must_use]
    pub fn says(&self, flag: &str) -> bool {
        self.values.contains_key(flag)
    }

    /// Tells one text of it from another.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    fn take(&mut self, text: &str) {
        let table = match DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let start = error.span().map_or(0, |span| span.start);
                // Not the error as it would show itself: that is with the line.
                self.wrong(line(text, start), error.message());
                return;
            }
        };
        let command = ServeArguments::augment_args(Command::new("serve"));
        let kinds = command.get_arguments().filter_map(|it| Some((it.get_long()?, Kind::of(it))));
        let kinds: BTreeMap<&str, Kind> = kinds.collect();
        let mut wrong = Vec::new();
        for (key, value) in table {
            let (line, key) = (line(text, key.span().start), key.into_inner());
            let read = match kinds.get(&*key) {
                _ if key == CONFIG => Err("is not said here, but by a flag or a variable"),
                None => Err("is no setting"),
                Some(kind) => kind.read(value.get_ref()),
            };
            match read {
                Ok(value) => {
                    self.values.insert(key.into_owned(), value);
                }
                Err(why) => wrong.push((line, format!("`{key}` {why}"))),
            }
        }
        wrong.sort();
        for (line, why) in wrong {
            self.wrong(line, &why);
        }
    }

    fn wrong(&mut self, line: usize, why: &str) {
        let why = format!("{}, line {line}: {why}", self.path.display());
        self.faults.note::<(), _>(CONFIG, Err(why));
    }
}

impl fmt::Debug for ConfigFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ConfigFile").field(&self.path).finish()
    }
}

impl Kind {
    fn of(argument: &Arg) -> Kind {
        match argument.get_action() {
            action if !action.takes_values() => return Kind::Switch,
            ArgAction::Append => return Kind::List,
            _ => {}
        }
        let names = argument.get_value_names().unwrap_or_default();
        match names.first().map(clap::builder::Str::as_str) {
            Some("COUNT" | "COUNT|off" | "BYTES") => Kind::Number,
            Some("RATIO") => Kind::Ratio,
            Some("FILE" | "FOLDER" | "PATH") => Kind::Path,
            _ => Kind::Text,
        }
    }

    /// The value as a flag would have it; else what is wanted, without what was found.
    fn read(self, value: &DeValue<'_>) -> Result<String, &'static str> {
        match (self, value) {
            (Kind::Switch, DeValue::Boolean(on)) => Ok(on.to_string()),
            (Kind::Switch, _) => Err("takes true or false"),
            (Kind::List, DeValue::Array(entries)) => {
                let entries = entries.iter().map(|entry| entry.get_ref().as_str());
                let entries = entries.collect::<Option<Vec<&str>>>();
                // Semicolons separate the entries of every list.
                entries.map(|entries| entries.join(";")).ok_or("takes a list of strings")
            }
            (Kind::List, _) => Err("takes a list of strings"),
            (Kind::Number | Kind::Ratio, DeValue::Integer(number)) => {
                let number = i128::from_str_radix(number.as_str(), number.radix());
                number.map(|number| number.to_string()).map_err(|_| "takes a smaller number")
            }
            (Kind::Ratio, DeValue::Float(number)) => Ok(number.as_str().to_owned()),
            (Kind::Path, DeValue::String(path)) if path.is_empty() => {
                Err("takes a path; leave it out for none")
            }
            (_, DeValue::String(text)) => Ok(text.to_string()),
            (Kind::Number, _) => Err("takes a whole number or a string"),
            (Kind::Ratio, _) => Err("takes a number"),
            (Kind::Path | Kind::Text, _) => Err("takes a string"),
        }
    }
}

/// On which line, counted from 1, the character at `place` is.
fn line(text: &str, place: usize) -> usize {
    text.as_bytes().iter().take(place).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests;
