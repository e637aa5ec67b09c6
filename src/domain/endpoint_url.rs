//! The receiver's URL: checked before a parser can mend it, then canonical.
//!
//! Promises: the host that is judged here is the host that is resolved, sent as SNI
//! and as `Host`; parsing a canonical form gives the same canonical form. No network
//! is used: what a name resolves to is judged when a connection is made.

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use idna::uts46::AsciiDenyList;
use idna::uts46::DnsLength;
use idna::uts46::Hyphens;
use idna::uts46::Uts46;

use super::address::AddressRules;
use super::invalid::InvalidField;

/// Longest URL, in bytes, as given and in canonical form.
pub const URL_BYTES_MAX: usize = 2048;

/// How the receiver is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP over TLS.
    Https,
    /// Plain HTTP: only to addresses that the operator opened.
    Http,
}

impl Scheme {
    /// As in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Https => "https",
            Scheme::Http => "http",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Scheme::Https => 443,
            Scheme::Http => 80,
        }
    }
}

/// Where the receiver is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name: lower case, A-labels, no trailing dot.
    Name(String),
    /// An address, as written in the URL: an IPv4-mapped one is still IPv6.
    Ip(IpAddr),
}

/// A receiver's URL that keeps every rule. `Debug` shows no path: it may hold a secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EndpointUrl {
    canonical: String,
    scheme: Scheme,
    host: Host,
    port: u16,
    /// Where host and path begin in `canonical`.
    authority_at: usize,
    path_at: usize,
}

impl EndpointUrl {
    /// Reads what a subscription's owner wrote.
    ///
    /// # Errors
    ///
    /// For field `url`, with reason `URL_SCHEME`, `URL_SYNTAX`, `URL_USERINFO`,
    /// `URL_HOST`, `URL_PORT` or `URL_BLOCKED_ADDRESS`.
    pub fn parse(text: &str, rules: AddressRules<'_>) -> Result<EndpointUrl, InvalidField> {
        let url = EndpointUrl::stored(text)?;
        url.keeps(rules)?;
        Ok(url)
    }

    /// Reads one that was accepted before: the syntax again, but not the policy,
    /// which judges each connection anyway.
    ///
    /// # Errors
    ///
    /// As [`EndpointUrl::parse`], for a text that was never accepted.
    pub fn stored(text: &str) -> Result<EndpointUrl, InvalidField> {
        check_characters(text)?;
        let (scheme, rest) = split_scheme(text)?;
        let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(path_at);
        check_path(path)?;
        if authority.contains('@') {
            return Err(invalid("URL_USERINFO", "no user name or password before the host"));
        }
        let (host, port) = split_port(authority)?;
        let host = parse_host(host)?;
        let port = port.unwrap_or(scheme.default_port());
        canonical(scheme, host, port, path)
    }

    /// The canonical form: lower-case scheme and host, A-labels, no default port.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.canonical
    }

    /// How the receiver is spoken to.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Where the receiver is.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, written or implied.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What goes into the request line; begins with `/`.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        &self.canonical[self.path_at..]
    }

    /// The value of the `Host` header: the port only when it is not the scheme's.
    #[must_use]
    pub fn host_header(&self) -> &str {
        &self.canonical[self.authority_at..self.path_at]
    }

    /// The rules that depend on the deployment.
    fn keeps(&self, rules: AddressRules<'_>) -> Result<(), InvalidField> {
        let opened = match &self.host {
            Host::Ip(address) => rules.permits_http(*address, self.port),
            // People type http://localhost:9000 where they mean their own machine.
            Host::Name(name) => {
                name == "localhost" && rules.permits_http(Ipv4Addr::LOCALHOST.into(), self.port)
            }
        };
        if opened {
            return Ok(());
        }
        if self.scheme == Scheme::Http {
            return Err(invalid(
                "URL_SCHEME",
                "https, except to addresses that the operator opened",
            ));
        }
        let blocked = || invalid("URL_BLOCKED_ADDRESS", "this host may not be called");
        let port_allowed = match &self.host {
            Host::Ip(address) if rules.refuses(*address, self.port) => return Err(blocked()),
            Host::Ip(address) => rules.permits(*address, self.port),
            Host::Name(name) if is_forbidden(name) => return Err(blocked()),
            Host::Name(_) => rules.permits_port(self.port),
        };
        if port_allowed { Ok(()) } else { Err(invalid("URL_PORT", "this port may not be called")) }
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EndpointUrl({}…)", &self.canonical[..self.path_at])
    }
}

fn invalid(reason: &'static str, why: &str) -> InvalidField {
    InvalidField::new("url", reason, why)
}

fn syntax(why: &str) -> InvalidField {
    invalid("URL_SYNTAX", why)
}

fn bad_host() -> InvalidField {
    invalid("URL_HOST", "a host name of valid labels, a dotted IPv4 or a bracketed IPv6 address")
}

/// The WHATWG parser removes tabs and newlines and reads `\` as `/`, so that
/// `https://exa\nmple.com` would be another host than the one in the text.
fn check_characters(text: &str) -> Result<(), InvalidField> {
    if !(1..=URL_BYTES_MAX).contains(&text.len()) {
        return Err(syntax("1 to 2048 bytes"));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err(syntax("no spaces, control characters or backslashes"));
    }
    if text.contains('#') {
        return Err(syntax("no fragment"));
    }
    Ok(())
}

fn split_scheme(text: &str) -> Result<(Scheme, &str), InvalidField> {
    let not_absolute = || syntax("must begin with https://");
    let (scheme, rest) = text.split_once(':').ok_or_else(not_absolute)?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        "" => return Err(not_absolute()),
        other if other.contains(['/', '?']) => return Err(not_absolute()),
        _ => return Err(invalid("URL_SCHEME", "must be https")),
    };
    Ok((scheme, rest.strip_prefix("//").ok_or_else(not_absolute)?))
}

fn check_path(path: &str) -> Result<(), InvalidField> {
    if !path.is_ascii() {
        return Err(syntax("percent-encode what is not ASCII in path and query"));
    }
    let lower = path.to_ascii_lowercase();
    if ["%00", "%0a", "%0d"].iter().any(|escape| lower.contains(escape)) {
        return Err(syntax("no encoded line ends or NUL"));
    }
    Ok(())
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), InvalidField> {
    let (host, port) = if authority.starts_with('[') {
        let end = authority.find(']').ok_or_else(bad_host)? + 1;
        let (host, rest) = authority.split_at(end);
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(bad_host()),
        }
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let Some(digits) = port else { return Ok((host, None)) };
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    match digits.parse() {
        Ok(port) if plain => Ok((host, Some(port))),
        Ok(_) | Err(_) => Err(invalid("URL_PORT", "a number from 1 to 65535")),
    }
}

fn parse_host(text: &str) -> Result<Host, InvalidField> {
    if text.contains('%') {
        return Err(bad_host());
    }
    if let Some(inside) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        let address: Ipv6Addr = inside.parse().map_err(|_| bad_host())?;
        return Ok(Host::Ip(address.into()));
    }
    // Names in use such as "tag---service.a.run.app" have hyphens in third and
    // fourth place; UTS 46 forbids that, with reason only beyond ASCII.
    let hyphens = if text.is_ascii() { Hyphens::CheckFirstLast } else { Hyphens::Check };
    let name = Uts46::new()
        .to_ascii(text.as_bytes(), AsciiDenyList::STD3, hyphens, DnsLength::VerifyAllowRootDot)
        .map_err(|_| bad_host())?;
    let name = name.strip_suffix('.').unwrap_or(&name);
    let last = name.rsplit('.').next().unwrap_or_default();
    // The parser would read these as IPv4: "2130706433", "0x7f.1", "127.1".
    let numeric = |label: &str| label.bytes().all(|b| b.is_ascii_digit()) || is_hexadecimal(label);
    if numeric(last) {
        let address: Ipv4Addr = name.parse().map_err(|_| bad_host())?;
        return if text == address.to_string() {
            Ok(Host::Ip(address.into()))
        } else {
            Err(bad_host())
        };
    }
    Ok(Host::Name(name.to_owned()))
}

fn is_hexadecimal(label: &str) -> bool {
    label.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Puts the parts together by the parser, and refuses what it or the HTTP library
/// sees otherwise than we do.
fn canonical(
    scheme: Scheme,
    host: Host,
    port: u16,
    path: &str,
) -> Result<EndpointUrl, InvalidField> {
    let host_text = match &host {
        Host::Name(name) => name.clone(),
        Host::Ip(IpAddr::V4(address)) => address.to_string(),
        Host::Ip(IpAddr::V6(address)) => format!("[{address}]"),
    };
    let disagree = || syntax("not a URL that every parser reads alike");
    let text = format!("{}://{host_text}:{port}{path}", scheme.as_str());
    let parsed = url::Url::parse(&text).map_err(|_| disagree())?;
    let same_host = match (&host, parsed.host()) {
        (Host::Name(ours), Some(url::Host::Domain(theirs))) => ours == theirs,
        (Host::Ip(IpAddr::V4(ours)), Some(url::Host::Ipv4(theirs))) => *ours == theirs,
        (Host::Ip(IpAddr::V6(ours)), Some(url::Host::Ipv6(theirs))) => *ours == theirs,
        (Host::Name(_) | Host::Ip(_), _) => false,
    };
    let canonical = String::from(parsed);
    let authority_at = scheme.as_str().len() + "://".len();
    let path_at = authority_at + canonical[authority_at..].find('/').ok_or_else(disagree)?;
    let sent: http::Uri = canonical.parse().map_err(|_| disagree())?;
    let agreed = same_host
        && sent.authority().is_some_and(|theirs| *theirs == canonical[authority_at..path_at])
        && sent.path_and_query().is_some_and(|theirs| *theirs == canonical[path_at..])
        && sent.port_u16().unwrap_or(scheme.default_port()) == port
        && canonical.len() <= URL_BYTES_MAX;
    if !agreed {
        return Err(disagree());
    }
    Ok(EndpointUrl { canonical, scheme, host, port, authority_at, path_at })
}

/// Names that mean this machine, this network, this cluster, the metadata of a cloud, or
/// nothing.
fn is_forbidden(name: &str) -> bool {
    const SUFFIXES: [&str; 9] = [
        ".localhost",
        ".localdomain",
        ".local",
        ".internal",
        ".intranet",
        ".home.arpa",
        ".svc",
        ".cluster.local",
        // Of nobody (RFC 6761, section 6.4), but for the one of the canary.
        ".invalid",
    ];
    // Those of clouds that have no forbidden suffix: Google, Tencent, Equinix.
    const NAMES: [&str; 5] = [
        "home.arpa",
        "metadata.goog",
        "metadata.tencentyun.com",
        "metadata.packet.net",
        "metadata.platformequinix.com",
    ];
    !name.contains('.')
        || NAMES.contains(&name)
        || name.contains(".svc.")
        || SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

#[cfg(test)]
mod tests;
