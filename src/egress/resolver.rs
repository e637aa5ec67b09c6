//! Names to addresses, by DNS alone: no hosts file, no search list, no fallback.
//!
//! Names are asked for fully qualified, so that a cluster's search list can never
//! turn a receiver's name into one of the cluster's own.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::config::NameServerConfig;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::RecordType;
use tokio::time::timeout;

use crate::domain::attempt::Failure;

use super::EgressError;
use super::Trouble;

/// Time for all queries of one name.
pub(super) const BUDGET: Duration = Duration::from_secs(2);
/// Time for one query, so that a lost packet is asked for again within the budget.
const QUERY_TIMEOUT: Duration = Duration::from_millis(900);
/// Answers are kept this long at least, however short their TTL, ...
const TTL_MIN: Duration = Duration::from_secs(1);
/// ... and at most, however long it is.
const TTL_MAX: Duration = Duration::from_mins(1);
/// "No such name" is believed for less: it is often put right in a minute.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(10);
const DNS_PORT: u16 = 53;
const RESOLV_CONF: &str = "/etc/resolv.conf";

pub(super) struct Resolver {
    dns: TokioResolver,
}

impl Resolver {
    /// A resolver that asks `nameservers`, or the system's when there are none.
    pub(super) fn new(nameservers: &[SocketAddr]) -> Result<Resolver, EgressError> {
        let servers = servers(nameservers).iter().map(name_server).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = QUERY_TIMEOUT;
        options.attempts = 1;
        options.use_hosts_file = ResolveHosts::Never;
        options.preserve_intermediates = false;
        options.positive_min_ttl = Some(TTL_MIN);
        options.positive_max_ttl = Some(TTL_MAX);
        options.negative_min_ttl = Some(TTL_MIN);
        options.negative_max_ttl = Some(NEGATIVE_TTL_MAX);
        Ok(Resolver { dns: builder.build().map_err(EgressError::Resolver)? })
    }

    /// Every address of `name`, at least one, IPv4-mapped ones unwrapped.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Trouble> {
        if name == "localhost" {
            // RFC 6761, 6.3: never asked for. One address, so that the demo's
            // receiver needs to listen on one.
            return Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        }
        let name = format!("{name}.");
        let both = join(self.ask(&name, RecordType::A), self.ask(&name, RecordType::AAAA));
        let answers = timeout(BUDGET, both)
            .await
            .map_err(|_elapsed| no_word("The host name could not be resolved in time."))?;
        let known = [&answers.0, &answers.1].map(Result::is_ok);
        let found = [answers.0, answers.1].into_iter().filter_map(Result::ok).flatten();
        let addresses: Vec<IpAddr> = found.collect();
        if !addresses.is_empty() {
            Ok(addresses)
        } else if known == [true; 2] {
            // Only this is the receiver's doing. The name server may be in trouble else.
            Err(no_address("The host name has no address."))
        } else {
            Err(no_word("The host name could not be resolved."))
        }
    }

    /// The addresses of one kind; none, where the name servers say that there is none.
    async fn ask(&self, name: &str, kind: RecordType) -> Result<Vec<IpAddr>, NetError> {
        match self.dns.lookup(name, kind).await {
            Ok(answer) => Ok(answer.answers().iter().filter_map(address).collect()),
            Err(reason) if reason.is_no_records_found() => Ok(Vec::new()),
            Err(reason) => Err(reason),
        }
    }
}

/// Those that are given, or the system's.
pub(super) fn servers(given: &[SocketAddr]) -> Vec<SocketAddr> {
    if given.is_empty() {
        return parse_resolv_conf(&std::fs::read_to_string(RESOLV_CONF).unwrap_or_default());
    }
    given.to_vec()
}

/// IPv4-mapped ones unwrapped. Aliases on the way are none.
fn address(record: &Record) -> Option<IpAddr> {
    record.data.ip_addr().map(|address| address.to_canonical())
}

fn no_address(detail: &'static str) -> Trouble {
    Trouble::new(Failure::Dns, detail)
}

/// Nobody told whether there is one.
fn no_word(detail: &'static str) -> Trouble {
    Trouble::ours(Failure::Dns, detail)
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    udp.port = address.port();
    tcp.port = address.port();
    NameServerConfig::new(address.ip(), true, vec![udp, tcp])
}

/// The `nameserver` lines of resolv.conf(5). Without any, the one on this host,
/// as glibc does it.
fn parse_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next()).flatten()
        })
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, DNS_PORT))
        .collect();
    if servers.is_empty() {
        servers.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DNS_PORT));
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_name_servers_are_taken_from_resolv_conf() {
        let text = "# nameserver 192.0.2.1\nsearch svc.cluster.local\nnameserver 192.0.2.7\n\
                    nameserver\t2001:db8::53 \noptions ndots:5\nnameserver fe80::1%eth0\n";
        let expected: Vec<SocketAddr> =
            ["192.0.2.7:53", "[2001:db8::53]:53"].map(|a| a.parse().expect("an address")).into();
        assert_eq!(parse_resolv_conf(text), expected);
        let local: SocketAddr = "127.0.0.1:53".parse().expect("an address");
        assert_eq!(parse_resolv_conf(""), [local]);
    }
}
