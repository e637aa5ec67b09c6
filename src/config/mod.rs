//! Settings: from flags, the environment and a file to typed values, checked all at once.
//!
//! `arguments` says which settings there are; here each is read and checked, and every
//! fault is reported, not only the first. `docs/CONFIGURATION.md` holds the same table as
//! `--help`; a test compares them.

mod arguments;
mod auth;
mod auth_file;
mod exports;
mod file;
mod source;
#[cfg(test)]
mod tests;
mod value;
mod way_out;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches};

pub use self::arguments::{
    AdminArguments, DatabaseArguments, EncryptionArguments, FileArguments, LogArguments,
    ServeArguments,
};
pub use self::auth::Auth;
pub use self::auth_file::AuthFile;
pub use self::file::{ConfigFile, last, told, told_by};
pub use self::source::{Marks, Reading, Source, TAKEN_UP};

use crate::domain::event_rules::PAYLOAD_BYTES_CEILING;
use crate::domain::failure_streak::Rule;
use crate::domain::profile::Profiles;
use crate::domain::rate::Rate;
use crate::egress;
use crate::grpc;
use crate::intake;
use crate::keyring::Keyring;
use crate::permits::InFlightLimits;
use crate::store;
use crate::telemetry;

const ADMIN_LISTEN: &str = "admin-listen";
/// Connections that `migrate` needs.
const MIGRATE_CONNECTIONS: u32 = 2;
/// Port of Kubernetes' API unless the environment says otherwise.
const KUBERNETES_PORT: u16 = 443;
/// The most that can be waited for in bytes; the queue counts them in 32 bits.
const QUEUE_BYTES_MAX: u64 = 4_000_000_000;
/// The most deliveries that an organization's limit can let it have open.
const OPEN_DELIVERIES_MAX: u32 = 1_000_000_000;
/// How often the canary may be asked to probe: an alert waits for a few minutes without a success.
const CANARY_INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(2);
/// Longest that a receiver may fail before it is switched off, where it is.
const AUTO_DISABLE_MAX: Duration = Duration::from_hours(24 * 366);

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Both.
    All,
    /// Answers calls; sends nothing.
    Api,
    /// Sends; answers no calls.
    Dispatch,
}

/// Everything that `serve` is told. Not to be printed: the database's URL may hold a
/// password.
pub struct Settings {
    /// Which database, and how many connections to it.
    pub database: store::Settings,
    /// Where gRPC is served. Loopback, unless the operator insists.
    pub grpc_listen: SocketAddr,
    /// Where the admin port is, if anywhere.
    pub admin_listen: Option<SocketAddr>,
    /// What this process does.
    pub role: Role,
    /// What callers may show to be let in.
    pub auth: Auth,
    /// How their connections are encrypted, if they are.
    pub tls: Option<grpc::Tls>,
    /// How receivers are reached.
    pub egress: egress::Settings,
    /// Host and port of the API of the cluster that this runs in.
    pub kubernetes_api: Option<(String, u16)>,
    /// The built-in wire profiles and the operator's.
    pub profiles: Arc<Profiles>,
    /// Whether the server describes itself to gRPC clients.
    pub reflection: bool,
    /// Largest payload of an event, in bytes.
    pub payload_bytes_max: usize,
    /// How much may be published, and wait to be committed.
    pub intake: intake::Settings,
    /// Calls for one organization but those that publish; `None`: as many as there are.
    pub call_rate: Option<Rate>,
    /// How many requests may be under way.
    pub in_flight: InFlightLimits,
    /// When a receiver that keeps failing is switched off; `None`: never.
    pub auto_disable: Option<Rule>,
    /// Time from one probe of the canary to the next; `None`: there is none.
    pub canary_interval: Option<Duration>,
    /// Longest that requests under way may hold up the end.
    pub grace: Duration,
    /// What is logged and exported.
    pub telemetry: telemetry::Settings,
}

/// Everything that is wrong with the settings, a line each. Values are left out: one may
/// be a password.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Faults(Vec<String>);

impl Faults {
    /// One line for each fault.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.0
    }

    /// The value, or a note of what is wrong with `flag`.
    fn note<T, E: fmt::Display>(&mut self, flag: &str, read: Result<T, E>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(why) => {
                self.0.push(format!("--{flag}: {why}"));
                None
            }
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.join("\n"))
    }
}

impl Settings {
    /// What `hookward serve` with these flags would be told where the environment says
    /// nothing; for whoever runs the service inside another program.
    ///
    /// # Errors
    ///
    /// Everything that is wrong.
    pub fn from_flags<T: Into<OsString> + Clone>(
        flags: impl IntoIterator<Item = T>,
    ) -> Result<Settings, Faults> {
        let command = ServeArguments::augment_args(Command::new("serve").no_binary_name(true));
        let command = command.mut_args(|argument| argument.env(None::<&str>));
        let arguments = file::told_by(&command, flags)
            .and_then(|matches| ServeArguments::from_arg_matches(&matches))
            .map_err(|error| Faults(vec![error.to_string()]))?;
        Settings::read(&arguments)
    }

    /// Reads and checks what `serve` was told, and the files that it names.
    ///
    /// # Errors
    ///
    /// Everything that is wrong.
    pub fn read(arguments: &ServeArguments) -> Result<Settings, Faults> {
        let faults = &mut faults_of_file(&arguments.database.file);
        let connections = value::count(&arguments.database_connections, 2, 1000);
        let connections = faults.note("database-connections", connections);
        let target = read_target(&arguments.database, faults);
        let keyring = read_keyring(&arguments.encryption, faults);
        let door = auth::read(arguments, faults);
        let admin_listen = faults.note(ADMIN_LISTEN, admin_listen(&arguments.admin));
        let role = faults.note("role", role(&arguments.role));
        let egress = way_out::read(arguments, faults);
        let profiles = read_profiles(arguments.profiles.as_deref(), faults);
        let payload =
            value::bytes(&arguments.payload_bytes_max, 1024, PAYLOAD_BYTES_CEILING as u64);
        let payload_bytes_max = faults.note("payload-bytes-max", payload);
        let intake = read_intake(arguments, faults);
        let call_rate = value::rate(&arguments.max_call_rate_organization);
        let call_rate = faults.note("max-call-rate-organization", call_rate);
        let in_flight = read_in_flight(arguments, faults);
        let auto_disable = read_auto_disable(arguments, faults);
        let canary = canary_interval(&arguments.canary_interval);
        let canary_interval = faults.note("canary-interval", canary);
        let (shortest, longest) = (Duration::ZERO, Duration::from_mins(10));
        let grace = value::duration(&arguments.shutdown_grace, shortest, longest);
        let grace = faults.note("shutdown-grace", grace);
        let telemetry = exports::read(&arguments.log, faults);
        let database = || {
            let (target, connections_max) = (target?, connections?);
            Some(store::Settings { target, connections_max, keyring: keyring? })
        };
        let settings = || {
            let door = door?;
            Some(Settings {
                database: database()?,
                grpc_listen: door.grpc_listen,
                admin_listen: admin_listen?,
                role: role?,
                auth: door.auth,
                tls: door.tls,
                egress: egress?,
                kubernetes_api: None,
                profiles: profiles?,
                reflection: !arguments.no_reflection,
                payload_bytes_max: usize::try_from(payload_bytes_max?).ok()?,
                intake: intake?,
                call_rate: call_rate?,
                in_flight: in_flight?,
                auto_disable,
                canary_interval: canary_interval?,
                grace: grace?,
                telemetry: telemetry?,
            })
        };
        settings().filter(|_| faults.0.is_empty()).ok_or_else(|| std::mem::take(faults))
    }
}

/// Where `health` finds the process; `None`: nowhere.
///
/// # Errors
///
/// What is wrong with it.
pub fn read_admin_listen(
    file: &FileArguments,
    arguments: &AdminArguments,
) -> Result<Option<SocketAddr>, Faults> {
    let mut faults = faults_of_file(file);
    let listen = faults.note(ADMIN_LISTEN, admin_listen(arguments));
    listen.filter(|_| faults.0.is_empty()).ok_or(faults)
}

/// What is wrong with the file of settings, if there is one, so that the rest can join it.
fn faults_of_file(arguments: &FileArguments) -> Faults {
    arguments.config.as_ref().map(|file| file.faults().clone()).unwrap_or_default()
}

fn admin_listen(arguments: &AdminArguments) -> Result<Option<SocketAddr>, &'static str> {
    match arguments.admin_listen.as_str() {
        "off" => Ok(None),
        text => value::listen(text).map(Some),
    }
}

/// Which database `migrate` was told.
///
/// # Errors
///
/// What is wrong with it.
pub fn read_database(arguments: &DatabaseArguments) -> Result<store::Settings, Faults> {
    let mut faults = faults_of_file(&arguments.file);
    let (connections_max, keyring) = (MIGRATE_CONNECTIONS, Keyring::default());
    let target = read_target(arguments, &mut faults).filter(|_| faults.0.is_empty());
    target.map(|target| store::Settings { target, connections_max, keyring }).ok_or(faults)
}

/// The same, with the keys that `keys` was told.
///
/// # Errors
///
/// What is wrong with any of it.
pub fn read_database_and_keys(
    database: &DatabaseArguments,
    encryption: &EncryptionArguments,
) -> Result<store::Settings, Faults> {
    let mut faults = faults_of_file(&database.file);
    let target = read_target(database, &mut faults);
    let keyring = read_keyring(encryption, &mut faults);
    let settings = || {
        let (target, keyring) = (target?, keyring?);
        Some(store::Settings { target, connections_max: MIGRATE_CONNECTIONS, keyring })
    };
    settings().filter(|_| faults.0.is_empty()).ok_or(faults)
}

/// How long something is good for, such as `90d`: a second to ten years.
///
/// # Errors
///
/// What is wrong with it.
pub fn life(text: &str) -> Result<Duration, String> {
    value::duration(text, Duration::from_secs(1), Duration::from_hours(24 * 3653))
}

/// A time in these bounds, as a command is told it.
///
/// # Errors
///
/// What is wrong with it.
pub fn span(text: &str, bounds: &RangeInclusive<Duration>) -> Result<Duration, String> {
    value::duration(text, *bounds.start(), *bounds.end())
}

/// What Kubernetes tells every container of its API's place.
#[must_use]
pub fn kubernetes_api() -> Option<(String, u16)> {
    let told = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let port = told("KUBERNETES_SERVICE_PORT").and_then(|port| port.parse().ok());
    Some((told("KUBERNETES_SERVICE_HOST")?, port.unwrap_or(KUBERNETES_PORT)))
}

fn read_target(arguments: &DatabaseArguments, faults: &mut Faults) -> Option<store::Target> {
    let Some(path) = &arguments.database_url_file else {
        return faults.note("database-url", store::Target::parse(&arguments.database_url));
    };
    let text = faults.note("database-url-file", read_text(path))?;
    faults.note("database-url-file", store::Target::parse(text.trim()))
}

fn read_keyring(arguments: &EncryptionArguments, faults: &mut Faults) -> Option<Keyring> {
    let Some(path) = &arguments.encryption_keys_file else {
        let text = arguments.encryption_keys.as_deref().unwrap_or_default();
        return faults.note("encryption-keys", Keyring::parse(text));
    };
    let text = faults.note("encryption-keys-file", read_keys(path))?;
    let keyring = Keyring::parse(&text).and_then(|keyring| {
        if keyring.primary().is_some() {
            return Ok(keyring);
        }
        // Whoever names a file means to encrypt.
        Err(format!("{} holds no key", path.display()))
    });
    faults.note("encryption-keys-file", keyring)
}

/// The lines of a file, or of every file in a folder. Kubernetes keeps links of its own in
/// a mounted folder, whose names begin with two full stops.
fn read_keys(path: &Path) -> Result<String, String> {
    if !path.is_dir() {
        return read_text(path);
    }
    let unreadable = |error| format!("cannot read {}: {error}", path.display());
    let mut text = String::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            text.push_str(&read_text(&entry.path())?);
            text.push('\n');
        }
    }
    Ok(text)
}

fn read_profiles(folder: Option<&Path>, faults: &mut Faults) -> Option<Arc<Profiles>> {
    let Some(folder) = folder else { return Some(Arc::new(Profiles::built_in())) };
    let entries = faults.note("profiles", read_folder(folder))?;
    let mut right = true;
    for entry in &entries {
        let alone = Profiles::with_folder(vec![entry.clone()]);
        right &= faults.note("profiles", alone).is_some();
    }
    if !right {
        return None;
    }
    faults.note("profiles", Profiles::with_folder(entries)).map(Arc::new)
}

/// The `.toml` files of a folder, by name. Others are no profiles: Kubernetes keeps links
/// of its own in a mounted folder.
fn read_folder(folder: &Path) -> Result<Vec<(String, String)>, String> {
    let unreadable = |error| format!("cannot read {}: {error}", folder.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            entries.push((name, read_text(&path)?));
        }
    }
    entries.sort();
    Ok(entries)
}

fn read_authority(path: &Path) -> Result<Vec<u8>, String> {
    let text = read_text(path)?;
    if text.contains("-----BEGIN CERTIFICATE-----") {
        Ok(text.into_bytes())
    } else {
        Err(format!("{} holds no certificate in PEM", path.display()))
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn read_intake(arguments: &ServeArguments, faults: &mut Faults) -> Option<intake::Settings> {
    let events = value::count(&arguments.publish_queue_events, 1, 1_000_000);
    let events = faults.note("publish-queue-events", events);
    let bytes = value::bytes(&arguments.publish_queue_bytes, 1024 * 1024, QUEUE_BYTES_MAX);
    let bytes = faults.note("publish-queue-bytes", bytes);
    let rate = value::rate(&arguments.max_publish_rate_organization);
    let rate = faults.note("max-publish-rate-organization", rate);
    let open =
        value::count_or_off(&arguments.max_open_deliveries_organization, OPEN_DELIVERIES_MAX);
    let open = faults.note("max-open-deliveries-organization", open);
    let queue_bytes = u32::try_from(bytes?).ok()?;
    Some(intake::Settings {
        queue_events: events?,
        queue_bytes,
        rate: rate?,
        open_deliveries: open?,
    })
}

fn read_in_flight(arguments: &ServeArguments, faults: &mut Faults) -> Option<InFlightLimits> {
    let mut limit = |flag, text: &str| {
        let count = faults.note(flag, value::count(text, 1, 65_536));
        count.and_then(|count| usize::try_from(count).ok())
    };
    let replica = limit("max-in-flight-replica", &arguments.max_in_flight_replica);
    let organization = limit("max-in-flight-organization", &arguments.max_in_flight_organization);
    Some(InFlightLimits { organization: organization?, replica: replica? })
}

/// `None`: never.
fn read_auto_disable(arguments: &ServeArguments, faults: &mut Faults) -> Option<Rule> {
    let after = match arguments.auto_disable_after.as_str() {
        "off" => None,
        text => {
            let after = value::duration(text, Duration::from_secs(1), AUTO_DISABLE_MAX);
            faults.note("auto-disable-after", after)
        }
    };
    let exhausted = value::count(&arguments.auto_disable_deliveries, 1, 1_000_000);
    let exhausted = faults.note("auto-disable-deliveries", exhausted);
    Some(Rule { after: after?, exhausted: exhausted? })
}

/// `None`: never.
fn canary_interval(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    let interval = value::duration(text, *CANARY_INTERVAL.start(), *CANARY_INTERVAL.end());
    interval.map(Some).map_err(|why| format!("{why}, or off"))
}

fn role(text: &str) -> Result<Role, &'static str> {
    match text {
        "all" => Ok(Role::All),
        "api" => Ok(Role::Api),
        "dispatch" => Ok(Role::Dispatch),
        _ => Err("write all, api or dispatch"),
    }
}
