//! `hookward config`: what `hookward serve` would be told by these flags, this environment and
//! this file.

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, Subcommand};

use crate::config::{ConfigFile, ServeArguments, Settings, last};
use crate::store::Target;

use super::Failure;

/// Stands for what nobody is shown.
const HIDDEN: &str = "(hidden)";

/// What to do with settings: flags as of `hookward serve`.
#[derive(Debug, Subcommand)]
pub enum Arguments {
    /// Check the settings, and the files that they name, and report every fault
    Check(Box<ServeArguments>),
    /// Print each setting with where it is from, and no secret
    Print(Box<ServeArguments>),
}

/// Does it. `told` is the command line that `arguments` are from.
///
/// # Errors
///
/// When settings are wrong and are to be checked, or what the file says cannot be told.
pub fn run(arguments: &Arguments, told: &ArgMatches) -> Result<(), Failure> {
    match arguments {
        Arguments::Check(arguments) => {
            Settings::read(arguments)?;
            super::say("the settings are right; hookward serve would go on to the database")?;
        }
        Arguments::Print(_) => {
            let told = last(told);
            for line in lines(told) {
                super::say(&line)?;
            }
            if let Some(file) = ConfigFile::named(told)
                && !file.faults().lines().is_empty()
            {
                return Err(file.faults().clone().into());
            }
        }
    }
    Ok(())
}

/// A line for each setting: the flag that says it, and where it was said.
pub(super) fn lines(told: &ArgMatches) -> Vec<String> {
    let command = ServeArguments::augment_args(Command::new("serve"));
    let settings = command.get_arguments().filter(|argument| argument.get_long().is_some());
    settings.filter_map(|setting| line(setting, told)).collect()
}

fn line(setting: &Arg, told: &ArgMatches) -> Option<String> {
    let (id, flag) = (setting.get_id().as_str(), setting.get_long()?);
    let values = told.get_raw(id).into_iter().flatten();
    let values: Vec<String> = values
        .map(|value| shown(id, &value.to_string_lossy()))
        .filter(|it| !it.is_empty())
        .collect();
    let is_switch = !setting.get_action().takes_values();
    if values.is_empty() || (is_switch && values == ["false"]) {
        return Some(format!("# --{flag} is not set"));
    }
    let from = match told.value_source(id) {
        Some(ValueSource::CommandLine) => "command line".to_owned(),
        Some(ValueSource::EnvVariable) => {
            setting.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        }
        _ => match ConfigFile::named(told).filter(|file| file.says(flag)) {
            Some(file) => file.path().display().to_string(),
            None => "default".to_owned(),
        },
    };
    let words =
        if is_switch { format!("--{flag}") } else { format!("--{flag} {}", values.join(";")) };
    Some(format!("{words}  # {from}"))
}

/// What may hold a secret is put together anew from the parts that cannot, or hidden.
fn shown(id: &str, value: &str) -> String {
    match id {
        _ if value.is_empty() => String::new(),
        "encryption_keys" => HIDDEN.to_owned(),
        "database_url" => {
            Target::parse(value).map_or_else(|_| HIDDEN.to_owned(), |url| url.without_secrets())
        }
        "otlp_endpoint" => origin(value).unwrap_or_else(|| HIDDEN.to_owned()),
        "egress_proxy" if value.contains(['@', '/']) => HIDDEN.to_owned(),
        _ => value.to_owned(),
    }
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> Option<String> {
    let url = url.parse::<http::Uri>().ok()?;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}://{}{port}", url.scheme_str()?, url.host()?))
}
