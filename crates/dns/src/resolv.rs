//! The `nameserver` lines of a resolver configuration.

use std::net::{IpAddr, SocketAddr};

/// The servers in the order of the file, at most three as the system's resolver takes them. Scoped IPv6 addresses are left out.
pub fn nameservers(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().map(str::trim_start).filter(|line| !line.starts_with(['#', ';']));
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then_some(())?;
            words.next()?.parse::<IpAddr>().ok()
        })
        .take(3)
        .map(|address| SocketAddr::new(address, 53))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_resolvers_read() {
        let text = "# generated\nsearch lan\n nameserver 10.0.0.1 # first\nnameserver\nnameserver fe80::1%eth0\n\
                    nameserver 2001:db8::1\noptions edns0\n;nameserver 9.9.9.9\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n";
        let found: Vec<String> = nameservers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1:53", "[2001:db8::1]:53", "8.8.8.8:53"]);
    }
}
