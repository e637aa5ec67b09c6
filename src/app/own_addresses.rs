//! What of this deployment must not be called through its own subscriptions: this
//! machine, the database, the name servers, the proxy, the cluster's API, and the ports
//! that are listened on here. Found at start, and when the rules of egress change.

use std::io;
use std::net::SocketAddr;

use crate::egress;

/// Closes them all. `servers` are given by host and port.
///
/// # Errors
///
/// When an address is not found: what is not known cannot be kept from being called.
pub(super) async fn close(
    settings: &mut egress::Settings,
    listeners: impl IntoIterator<Item = SocketAddr>,
    servers: impl IntoIterator<Item = (String, u16)>,
) -> io::Result<()> {
    let mut services = egress::nameservers(settings);
    services.extend(listeners);
    for (host, port) in servers.into_iter().chain(settings.proxy.clone()) {
        services.extend(tokio::net::lookup_host((host.as_str(), port)).await?);
    }
    let canonical = |one: &SocketAddr| SocketAddr::new(one.ip().to_canonical(), one.port());
    settings.policy.own = egress::interface_addresses()?;
    settings.policy.services = services.iter().map(canonical).collect();
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::domain::address::AddressPolicy;

    use super::*;

    #[tokio::test]
    async fn every_part_of_the_deployment_is_closed_whatever_is_allowed() {
        let allow = vec!["0.0.0.0/0".parse().expect("entry"), "::/0".parse().expect("entry")];
        let policy = AddressPolicy { allow, ..AddressPolicy::default() };
        let mut settings = egress::Settings::new(policy);
        settings.nameservers.push("192.0.2.53:53".parse().expect("an address"));
        let listeners = ["[::ffff:127.0.0.1]:50051", "0.0.0.0:8080"];
        let listeners = listeners.map(|one| one.parse::<SocketAddr>().expect("an address"));
        let servers = [("192.0.2.5".to_owned(), 5432), ("2001:db8::1".to_owned(), 6443)];

        close(&mut settings, listeners, servers).await.expect("all are addresses");

        let permits = |text: &str| {
            let address: SocketAddr = text.parse().expect("an address");
            settings.policy.rules(None).permits(address.ip(), address.port())
        };
        for closed in [
            "192.0.2.53:53",
            "192.0.2.5:5432",
            "[::ffff:192.0.2.5]:5432",
            "[2001:db8::1]:6443",
            "127.0.0.1:50051",
            "127.9.9.9:50051",
            "[::1]:50051",
            "0.0.0.0:50051",
            "127.0.0.1:8080",
            "[::]:8080",
        ] {
            assert!(!permits(closed), "{closed}");
        }
        for open in ["192.0.2.53:443", "192.0.2.5:443", "127.0.0.1:443", "192.0.2.7:5432"] {
            assert!(permits(open), "{open}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_found_is_a_fault() {
        let mut settings = egress::Settings::new(AddressPolicy::default());
        // Longer than a name may be: nobody is asked.
        let servers = [("a".repeat(300), 5432)];
        assert!(close(&mut settings, [], servers).await.is_err());
    }
}
