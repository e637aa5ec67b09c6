//! What a process is told, as often as it asks: its command line and environment stay, while
//! the files that they name may change.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use sha2::{Digest, Sha256};

use super::file::{CONFIG, ConfigFile, last, told};
use super::{Faults, ServeArguments, Settings};

/// Settings that are taken up while the service runs. The others count at the next start.
pub const TAKEN_UP: [&str; 19] = [
    CONFIG,
    "encryption-keys",
    "encryption-keys-file",
    "egress-allow",
    "egress-deny",
    "egress-mixed-answers",
    "egress-nat64",
    "egress-proxy",
    "egress-ca",
    "egress-nameserver",
    "profiles",
    "max-publish-rate-organization",
    "max-call-rate-organization",
    "max-in-flight-replica",
    "max-in-flight-organization",
    "auto-disable-after",
    "auto-disable-deliveries",
    "shutdown-grace",
    "log",
];
/// Those that name files or folders, what is in which belongs to the setting. Those of
/// `--tls-cert` and its like are looked at elsewhere.
const FILES: [&str; 5] =
    ["database-url-file", "encryption-keys-file", "auth-file", "egress-ca", "profiles"];

/// Where `hookward serve` is told its settings.
pub struct Source {
    /// With all commands, since the command line is read with it.
    command: Command,
}

/// The settings at one time.
pub struct Reading {
    /// Tells them from those of another time.
    pub marks: Marks,
    /// The settings, or everything that is wrong with them.
    pub settings: Result<Settings, Faults>,
}

/// One mark for each setting, which is another when its value is, or what is in the files that
/// it names. `Debug` prints none.
#[derive(Clone, PartialEq, Eq)]
pub struct Marks(BTreeMap<String, [u8; 32]>);

impl Source {
    /// The command line of this process, which is one for `command`.
    #[must_use]
    pub fn new(command: Command) -> Source {
        Source { command }
    }

    /// Reads it anew; `None`: it is as it was when these marks were made. It blocks on files.
    #[must_use]
    pub fn read(&self, known: Option<&Marks>) -> Option<Reading> {
        // It was read before, and the file cannot change that: a value that does not fit is
        // not put into it.
        let told = told(&self.command).ok()?;
        let told = last(&told);
        // First: what changes between the two looks is seen by the next one.
        let marks = Marks::of(told);
        if known == Some(&marks) {
            return None;
        }
        let arguments = ServeArguments::from_arg_matches(told).ok()?;
        Some(Reading { marks, settings: Settings::read(&arguments) })
    }
}

impl Marks {
    /// Of what `hookward serve` was told by these words.
    #[must_use]
    pub fn of(told: &ArgMatches) -> Marks {
        let command = ServeArguments::augment_args(Command::new("serve"));
        let flags = command.get_arguments().filter_map(|argument| {
            let flag = argument.get_long()?;
            let values = told.get_raw(argument.get_id().as_str()).into_iter().flatten();
            let mut mark = Sha256::new();
            for value in values {
                let value = value.as_encoded_bytes();
                mark.update(value.len().to_le_bytes());
                mark.update(value);
                if FILES.contains(&flag) {
                    // Of a setting that lists several they are separated by semicolons.
                    for path in String::from_utf8_lossy(value).split(';') {
                        mark.update(digest(Path::new(path.trim())));
                    }
                }
            }
            if flag == CONFIG
                && let Some(file) = ConfigFile::named(told)
            {
                mark.update(file.digest());
            }
            Some((flag.to_owned(), mark.finalize().into()))
        });
        Marks(flags.collect())
    }

    /// The settings that are others than they were in `before`.
    #[must_use]
    pub fn changed_since(&self, before: &Marks) -> Vec<String> {
        let changed = self.0.iter().filter(|(flag, mark)| before.0.get(*flag) != Some(mark));
        changed.map(|(flag, _)| flag.clone()).collect()
    }

    /// Has the marks of these settings as they are in `later`.
    pub fn catch_up(&mut self, flags: &[String], later: &Marks) {
        for flag in flags {
            if let Some(mark) = later.0.get(flag) {
                self.0.insert(flag.clone(), *mark);
            }
        }
    }
}

impl fmt::Debug for Marks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Marks").finish_non_exhaustive()
    }
}

/// Tells one content of a file, or of the files in a folder, from another. Whatever else is at
/// the path, such as a pipe, can be read once only: that is left to who needs it.
fn digest(path: &Path) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut paths = vec![path.to_owned()];
    if path.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        paths = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        paths.sort();
    }
    for path in paths.iter().filter(|path| path.is_file()) {
        digest.update(path.as_os_str().as_encoded_bytes());
        match fs::read(path) {
            Ok(bytes) => digest.update(Sha256::digest(bytes)),
            Err(error) => digest.update(error.kind().to_string()),
        }
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests;
