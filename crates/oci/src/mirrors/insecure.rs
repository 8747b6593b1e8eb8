//! Which hosts may be reached without verified TLS.

use std::net::IpAddr;

use url::{Host, Url};

/// Hosts and address ranges; loopback is always among them.
#[derive(Clone, Debug, Default)]
pub struct Insecure {
    /// `host` (any port) or `host:port`.
    hosts: Vec<String>,
    ranges: Vec<(IpAddr, u8)>,
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is neither a host nor an address range")]
pub struct InsecureError(pub String);

impl Insecure {
    /// Each entry is `host`, `host:port` or a CIDR. A scheme before a host is ignored.
    pub fn parse(entries: &[String]) -> Result<Insecure, InsecureError> {
        let mut insecure = Insecure::default();
        for entry in entries {
            let bad = || InsecureError(entry.clone());
            let text = entry.trim().trim_start_matches("http://").trim_start_matches("https://").trim_end_matches('/');
            if let Some((address, length)) = text.split_once('/') {
                let address: IpAddr = address.parse().map_err(|_| bad())?;
                let length: u8 = length.parse().map_err(|_| bad())?;
                if length > if address.is_ipv4() { 32 } else { 128 } {
                    return Err(bad());
                }
                insecure.ranges.push((address, length));
            } else if Url::parse(&format!("https://{text}")).is_ok_and(|url| url.host().is_some()) {
                insecure.hosts.push(text.to_ascii_lowercase());
            } else {
                return Err(bad());
            }
        }
        Ok(insecure)
    }

    /// Ports of the hosts that are loopback.
    pub(super) fn loopback_ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.hosts.iter().filter_map(|host| super::loopback_port(&Url::parse(&format!("https://{host}")).ok()?))
    }

    pub(super) fn has_ranges(&self) -> bool {
        !self.ranges.is_empty()
    }

    /// Whether a range holds it.
    pub(super) fn contains_address(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|(network, length)| within(address, *network, *length))
    }

    /// Of ranges only hosts that are written as addresses are known here.
    pub(super) fn contains(&self, base: &Url) -> bool {
        let Some(host) = base.host() else { return false };
        let name = host.to_string();
        let with_port = format!("{name}:{}", base.port_or_known_default().unwrap_or(443));
        if self.hosts.iter().any(|known| *known == name || *known == with_port) {
            return true;
        }
        let address = match host {
            Host::Domain(name) => return name == "localhost",
            Host::Ipv4(address) => IpAddr::V4(address),
            Host::Ipv6(address) => IpAddr::V6(address),
        };
        address.is_loopback() || self.contains_address(address)
    }
}

fn within(address: IpAddr, network: IpAddr, length: u8) -> bool {
    let (address, network, bits) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => (u128::from(a.to_bits()), u128::from(n.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(n)) => (a.to_bits(), n.to_bits(), 128),
        _ => return false,
    };
    // A shift by all bits leaves nothing to compare.
    let shift = bits - u32::from(length);
    address.checked_shr(shift).unwrap_or(0) == network.checked_shr(shift).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_ports_and_ranges() {
        let entries = ["reg.lan", "http://other.lan:5000/", "10.0.0.0/8", "fd00::/8", "0.0.0.0/32"].map(str::to_owned);
        let insecure = Insecure::parse(&entries).unwrap();
        let contains = |url: &str| insecure.contains(&Url::parse(url).unwrap());
        for yes in [
            "https://reg.lan",
            "https://reg.lan:8443",
            "https://other.lan:5000",
            "https://10.9.9.9",
            "https://[fd01::1]",
            "https://127.0.0.5:99",
            "https://localhost",
        ] {
            assert!(contains(yes), "{yes}");
        }
        for no in ["https://other.lan", "https://11.0.0.1", "https://[fe80::1]", "https://xreg.lan"] {
            assert!(!contains(no), "{no}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["10.0.0.0/33", "x/8", "", "a b"] {
            assert!(Insecure::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
