//! Addresses of a loopback that is not this process' own: the user's `http://127.0.0.1:5000` as a node has to ask for it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// Where ports of the user's loopback are served for others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLoopback {
    pub address: Ipv4Addr,
    /// Port of loopback → port of `address`.
    pub ports: BTreeMap<u16, u16>,
}

impl HostLoopback {
    /// Moves an address of loopback to where it is served; leaves all others, and ports that are not served, alone.
    pub fn translate(&self, url: &mut Url) {
        let Some(port) = loopback_port(url).and_then(|port| self.ports.get(&port)) else { return };
        // Neither fails for a URL that has a host.
        let _ = url.set_ip_host(self.address.into());
        let _ = url.set_port(Some(*port));
    }
}

/// The port of a URL whose host is loopback.
pub fn loopback_port(url: &Url) -> Option<u16> {
    let is_loopback = match url.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    if is_loopback { url.port_or_known_default() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_served_ports_of_loopback_move() {
        let host = HostLoopback { address: Ipv4Addr::new(192, 168, 49, 1), ports: [(5000, 25000), (80, 25001)].into() };
        for (given, wanted) in [
            ("http://127.0.0.1:5000/x", "http://192.168.49.1:25000/x"),
            ("http://me:pw@localhost:5000/", "http://me:pw@192.168.49.1:25000/"),
            ("https://[::1]:5000/", "https://192.168.49.1:25000/"),
            ("http://localhost/", "http://192.168.49.1:25001/"),
            ("http://127.0.0.1:5001/", "http://127.0.0.1:5001/"),
            ("http://10.0.0.1:5000/", "http://10.0.0.1:5000/"),
        ] {
            let mut url = Url::parse(given).unwrap();
            host.translate(&mut url);
            assert_eq!(url.as_str(), wanted);
        }
    }
}
