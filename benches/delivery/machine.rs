//! What the figures were measured on.

use std::fs;

use time::OffsetDateTime;

/// One line: date, versions, processor, kernel.
pub(crate) fn describe(postgres: Option<&str>) -> String {
    let date = OffsetDateTime::now_utc().date();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let cpu = line_of("/proc/cpuinfo", "model name");
    let memory = line_of("/proc/meminfo", "MemTotal");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let system = line_of("/etc/os-release", "PRETTY_NAME");
    format!(
        "{date}, hookward {}, {cores} cores of {cpu}, {memory} memory, Linux {}, {}, \
         PostgreSQL {}, libsqlite3-sys {}",
        env!("CARGO_PKG_VERSION"),
        kernel.trim(),
        system.trim_matches('"'),
        postgres.unwrap_or("not measured"),
        sqlite_crate(),
    )
}

/// What stands after `name` and `:` or `=`.
fn line_of(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or("unknown").trim_start_matches([' ', '\t', ':', '=']).trim().to_owned()
}

/// The bundled SQLite comes with this crate.
fn sqlite_crate() -> &'static str {
    let lock = include_str!("../../Cargo.lock");
    let entry = lock.split_once("name = \"libsqlite3-sys\"\nversion = \"");
    entry.and_then(|(_, rest)| rest.split('"').next()).unwrap_or("unknown")
}
