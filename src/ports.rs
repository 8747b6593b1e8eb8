//! Ports of this machine that a cluster keeps for its life: none that the kernel gives to outgoing connections, for one of those
//! could have it while the cluster is stopped.

use std::ops::RangeInclusive;

/// Which of this machine's ports are outgoing connections'.
const CLIENTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Where to look first: below what agents have on gateways, and Services on nodes.
pub const USUAL: RangeInclusive<u16> = 20_000..=24_998;
/// Where else: no program of the system's below, no node port within.
const OTHERS: [RangeInclusive<u16>; 2] = [10_000..=29_999, 32_768..=65_535];
/// How many are tried.
const ATTEMPTS: usize = 64;

/// Ports to try, in an order of chance; at last 0, which is any.
pub fn lasting() -> impl Iterator<Item = u16> {
    shuffled(candidates(&std::fs::read_to_string(CLIENTS).unwrap_or_default())).chain([0])
}

/// Ports of another machine to try: what it gives to outgoing connections is not known here.
pub fn usual() -> impl Iterator<Item = u16> {
    shuffled(USUAL.collect())
}

fn shuffled(ports: Vec<u16>) -> impl Iterator<Item = u16> {
    let mut seed = uuid::Uuid::new_v4().as_u128() as usize;
    (0..ATTEMPTS.min(ports.len())).map(move |_| {
        // Neighbours are often taken together.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ports[(seed >> 33) % ports.len()]
    })
}

/// By the kernel's line `FIRST LAST`; those of [`USUAL`] alone if there are any.
fn candidates(clients: &str) -> Vec<u16> {
    let mut bounds = clients.split_whitespace().filter_map(|bound| bound.parse::<u16>().ok());
    let clients = bounds.next().zip(bounds.next());
    let lasts = |port: &u16| clients.is_none_or(|(first, last)| !(first..=last).contains(port));
    let usual: Vec<u16> = USUAL.filter(lasts).collect();
    if usual.is_empty() { OTHERS.into_iter().flatten().filter(lasts).collect() } else { usual }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_an_outgoing_connections() {
        let all = |clients: &str| {
            let ports = candidates(clients);
            (ports.first().copied(), ports.last().copied())
        };
        assert_eq!(all("32768\t60999\n"), (Some(20_000), Some(24_998)));
        assert_eq!(all("1024 22000"), (Some(22_001), Some(24_998)));
        assert_eq!(all("15000 61000"), (Some(10_000), Some(65_535)));
        assert!(candidates("15000 61000").iter().all(|port| !(15_000..=61_000).contains(port)));
        assert_eq!(all("1024 65535"), (None, None));
        assert_eq!(all(""), (Some(20_000), Some(24_998)), "where the kernel does not say");
    }

    #[test]
    fn any_is_the_last_resort() {
        let ports: Vec<u16> = lasting().collect();
        assert_eq!(ports.last(), Some(&0));
        assert!(ports.len() <= ATTEMPTS + 1);
    }
}
