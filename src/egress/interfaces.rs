//! The addresses of this machine.

use std::io;
use std::net::IpAddr;

use nix::ifaddrs::InterfaceAddress;
use nix::ifaddrs::getifaddrs;

/// The addresses of this machine's network interfaces, as they are now.
///
/// # Errors
///
/// When the system does not tell.
pub fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    let address = |interface: InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|one| IpAddr::V4(one.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|one| IpAddr::V6(one.ip())))
    };
    Ok(getifaddrs()?.filter_map(address).map(|address| address.to_canonical()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_among_them() {
        let addresses = interface_addresses().expect("the system tells");
        assert!(addresses.contains(&IpAddr::from([127, 0, 0, 1])), "{addresses:?}");
    }
}
