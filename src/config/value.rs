//! How values are written: numbers, sizes, times, addresses, lists.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use crate::domain::rate::Rate;

/// Port of the domain name system (RFC 1035, 4.2).
const DNS_PORT: u16 = 53;

/// A whole number in these bounds.
pub(super) fn count(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let number = text.trim().parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("write a whole number from {least} to {most}"))
}

/// From 1 to `most`; `off`: any number.
pub(super) fn count_or_off(text: &str, most: u32) -> Result<Option<u32>, String> {
    if text.trim() == "off" {
        return Ok(None);
    }
    count(text, 1, most).map(Some).map_err(|why| format!("{why}, or off"))
}

/// So many a second; `off`: any number.
pub(super) fn rate(text: &str) -> Result<Option<Rate>, String> {
    let count = count_or_off(text, 1_000_000)?;
    Ok(count.and_then(NonZeroU32::new).map(Rate::per_second))
}

/// A part of something, from 0 to 1; all of it where nothing is said.
pub(super) fn ratio(text: &str) -> Result<f64, &'static str> {
    if text.trim().is_empty() {
        return Ok(1.0);
    }
    let ratio = text.trim().parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or("write a number from 0 to 1, such as 0.01")
}

/// A size: `1024`, `256KiB`, `64MiB` or `1GiB`, in these bounds.
pub(super) fn bytes(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let text = text.trim();
    let units = [("KiB", 1_u64 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let unit = units.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)));
    let (digits, size) = unit.unwrap_or((text, 1));
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(size));
    number.filter(|number| (least..=most).contains(number)).ok_or_else(|| {
        format!("write a number of bytes from {least} to {most}, or one with KiB, MiB or GiB")
    })
}

/// A time with its unit: `500ms`, `20s`, `2m`, `12h` or `90d`, in these bounds.
pub(super) fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let text = text.trim();
    // `ms` comes before `m` and `s`, which it ends with or contains.
    let units = [("ms", 1_u64), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let unit = units.iter().find_map(|(unit, millis)| Some((text.strip_suffix(unit)?, *millis)));
    let millis = unit.and_then(|(digits, unit)| digits.parse::<u64>().ok()?.checked_mul(unit));
    let duration = millis.map(Duration::from_millis);
    duration.filter(|duration| (least..=most).contains(duration)).ok_or_else(|| {
        format!("write a time with its unit, such as 500ms or 20s, from {least:?} to {most:?}")
    })
}

/// Where to listen.
pub(super) fn listen(text: &str) -> Result<SocketAddr, &'static str> {
    text.trim().parse().map_err(|_| "write an IP address and a port, such as 127.0.0.1:50051")
}

/// A name server: an address, with a port if it is not 53.
pub(super) fn nameserver(text: &str) -> Result<SocketAddr, &'static str> {
    let address = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, DNS_PORT));
    address.or_else(|_| text.parse()).map_err(|_| "write an IP address, or one with its port")
}

/// A host, by name or address, and a port.
pub(super) fn host_and_port(text: &str) -> Result<(String, u16), &'static str> {
    let read = || {
        let (host, port) = text.trim().rsplit_once(':')?;
        let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
        let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let named = |host: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            !host.is_empty() && host.bytes().all(plain)
        };
        let host = match inside {
            Some(address) => address.parse::<std::net::Ipv6Addr>().ok()?.to_string(),
            None => Some(host).filter(|host| named(host))?.to_owned(),
        };
        Some((host, port))
    };
    read().ok_or("write a host and a port, such as proxy.example:3128 or [2001:db8::1]:3128")
}

/// The entries of a list: each text holds any number of them, separated by spaces or
/// semicolons. Not by commas, which separate the ports of an address.
pub(super) fn words(texts: &[String]) -> impl Iterator<Item = &str> {
    let words = texts.iter().flat_map(|text| text.split([';', ' ', '\t', '\n', '\r']));
    words.filter(|word| !word.is_empty())
}

/// The paths of a list, separated by semicolons only: paths may hold spaces.
pub(super) fn paths(texts: &[String]) -> impl Iterator<Item = &Path> {
    let parts = texts.iter().flat_map(|text| text.split(';'));
    parts.map(str::trim).filter(|part| !part.is_empty()).map(Path::new)
}
