use std::net::Ipv4Addr;
use std::path::Path;

use kminik_net::hostnet::{self, HostNetSpec};

use crate::ns::{Ns, connect};

fn spec(dir: &Path, profile: &str, node: &str, third: u8, last: u8) -> HostNetSpec {
    HostNetSpec {
        profile: profile.to_owned(),
        subnet: format!("192.168.{third}.0/24").parse().unwrap(),
        node: node.to_owned(),
        node_address: Ipv4Addr::new(192, 168, third, last),
        host_ports: vec![25000],
        state_dir: dir.join("hostnet"),
    }
}

fn attach(host: &Ns, spec: &HostNetSpec, node: &Ns) -> Result<(), hostnet::HostNetError> {
    let (spec, path) = (spec.clone(), node.path.clone());
    host.block_on(move || async move { hostnet::attach(&spec, &path).await })
}

fn detach(host: &Ns, spec: &HostNetSpec) {
    let spec = spec.clone();
    host.block_on(move || async move { hostnet::detach(&spec).await }).unwrap();
}

/// A host with an outside world behind it; the outside has no route back to node subnets.
fn host_and_outside() -> (Ns, Ns) {
    let (host, outside) = (Ns::new(), Ns::new());
    connect(&host, "wan0", "203.0.113.2/24", &outside, "wan0", "203.0.113.1/24");
    host.sh("ip route add default via 203.0.113.1");
    outside.serve_tcp(80, "outside");
    outside.serve_udp(53, "outside");
    (host, outside)
}

fn state(host: &Ns) -> String {
    host.sh("ip -o link | cut -d: -f2; ip -4 -o addr; ip route; nft list ruleset; cat /proc/sys/net/ipv4/ip_forward")
}

#[test]
fn plan_avoids_the_hosts_routes() {
    let (host, _outside) = host_and_outside();
    host.sh("ip route add 192.168.49.0/24 via 203.0.113.1 && ip route add 192.168.58.7 via 203.0.113.1");
    let plan = |taken: Vec<ipnet::Ipv4Net>| host.block_on(move || async move { hostnet::plan(&taken).await.unwrap() });
    let first = plan(vec![]);
    assert_eq!(first.to_string(), "192.168.67.0/24");
    assert_eq!(plan(vec![first]).to_string(), "192.168.76.0/24");
}

#[test]
fn nodes_reach_outside_and_each_other_and_nothing_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (host, _outside) = host_and_outside();
    host.sh("echo 0 > /proc/sys/net/ipv4/ip_forward");
    let before = state(&host);
    assert!(before.ends_with("0\n"));
    let (one, two, other) = (Ns::new(), Ns::new(), Ns::new());
    let a1 = spec(dir.path(), "alpha", "one", 60, 2);
    let a2 = spec(dir.path(), "alpha", "two", 60, 3);
    let b1 = spec(dir.path(), "a-profile-with-a-long-name", "one", 61, 2);
    for (spec, node) in [(&a1, &one), (&a2, &two), (&b1, &other), (&a1, &one)] {
        attach(&host, spec, node).unwrap();
    }
    two.serve_tcp(8443, "two");
    for node in [&one, &two, &other] {
        assert_eq!(node.ask_tcp("203.0.113.1:80").unwrap(), "outside 203.0.113.2", "translated to the host's address");
        assert_eq!(node.ask_udp("203.0.113.1:53").unwrap(), "outside 203.0.113.2");
    }
    assert_eq!(one.ask_tcp("192.168.60.3:8443").unwrap(), "two 192.168.60.2", "neighbours see each other's address");
    assert_eq!(host.ask_tcp("192.168.60.3:8443").unwrap(), "two 192.168.60.1");

    detach(&host, &b1);
    detach(&host, &b1);
    assert_eq!(host.sh("cat /proc/sys/net/ipv4/ip_forward"), "1\n", "another profile still needs it");
    detach(&host, &a2);
    assert_eq!(one.ask_tcp("203.0.113.1:80").unwrap(), "outside 203.0.113.2");
    detach(&host, &a1);
    detach(&host, &a1);
    assert_eq!(state(&host), before);
    assert!(!dir.path().join("hostnet").exists());
}

#[test]
fn passes_a_host_whose_forward_policy_is_drop() {
    let dir = tempfile::tempdir().unwrap();
    let (host, outside) = host_and_outside();
    // As Docker leaves it, and a firewall of nftables beside it.
    host.sh("iptables -P FORWARD DROP && iptables -N DOCKER-USER && iptables -A FORWARD -j DOCKER-USER");
    host.sh("iptables -A DOCKER-USER -j RETURN && iptables -A FORWARD -i docker0 -j ACCEPT");
    host.sh("iptables -P INPUT DROP && iptables -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT");
    host.sh(
        "nft add table inet mine && nft 'add chain inet mine f { type filter hook forward priority 5; policy drop; }'",
    );
    host.sh("nft 'add chain inet mine i { type filter hook input priority 5; policy drop; }'");
    host.sh("nft add rule inet mine i ct state established accept");
    let (rules, ruleset) = (host.sh("iptables -S"), host.sh("nft -s list ruleset"));
    let (one, two) = (Ns::new(), Ns::new());
    let first = spec(dir.path(), "drop", "one", 62, 2);
    let second = spec(dir.path(), "drop", "two", 62, 3);
    attach(&host, &first, &one).unwrap();
    attach(&host, &second, &two).unwrap();
    two.serve_tcp(80, "two");
    assert_eq!(one.ask_tcp("203.0.113.1:80").unwrap(), "outside 203.0.113.2");
    assert_eq!(one.ask_tcp("192.168.62.3:80").unwrap(), "two 192.168.62.2");
    host.serve_udp(53, "host");
    host.serve_tcp(53, "host");
    host.serve_tcp(25000, "host");
    host.serve_tcp(22, "host");
    assert_eq!(one.ask_udp("192.168.62.1:53").unwrap(), "host 192.168.62.2");
    assert_eq!(one.ask_tcp("192.168.62.1:53").unwrap(), "host 192.168.62.2");
    assert_eq!(one.ask_tcp("192.168.62.1:25000").unwrap(), "host 192.168.62.2");
    assert!(one.ask_tcp("192.168.62.1:22").is_err(), "the policy still holds for what nodes need not");
    let input = host.sh("iptables -S INPUT");
    assert!(input.contains("-A INPUT -i km-drop -p udp -m udp --dport 53"), "{input}");
    assert!(input.contains("-A INPUT -i km-drop -p tcp -m tcp --dport 25000"), "{input}");
    outside.sh("ip route add 192.168.62.0/24 via 203.0.113.2");
    assert!(outside.ask_tcp("192.168.62.3:80").is_err(), "the policy still holds for others");

    let listed = host.sh("iptables -S DOCKER-USER");
    assert!(listed.contains("-A DOCKER-USER -o km-drop") && listed.contains("RELATED,ESTABLISHED"), "{listed}");
    assert!(listed.contains("-A DOCKER-USER -i km-drop") && listed.contains("kminik:drop"), "{listed}");
    assert_eq!(listed.matches("km-drop").count(), 2, "once each, however many nodes: {listed}");

    detach(&host, &first);
    detach(&host, &second);
    assert_eq!(host.sh("iptables -S"), rules);
    assert_eq!(host.sh("nft -s list ruleset"), ruleset);
}

#[test]
fn detach_takes_back_what_was_half_made() {
    let dir = tempfile::tempdir().unwrap();
    let (host, _outside) = host_and_outside();
    host.sh("iptables -P FORWARD DROP");
    let before = state(&host);
    let spec = spec(dir.path(), "half", "one", 63, 2);
    // The namespace is gone before it is connected: everything but the pair has been made by then.
    let missing = spec.clone();
    let outcome = host.block_on(move || async move { hostnet::attach(&missing, Path::new("/proc/self/none")).await });
    assert!(outcome.is_err());
    assert_ne!(state(&host), before);
    detach(&host, &spec);
    assert_eq!(state(&host), before);
    // A profile whose configuration is lost.
    let node = Ns::new();
    attach(&host, &spec, &node).unwrap();
    let dir = spec.state_dir.clone();
    host.block_on(move || async move { hostnet::detach_profile("half", &dir).await }).unwrap();
    assert_eq!(state(&host), before);
    // Without a record too, as after a crash before a reboot of the record's directory.
    let node = Ns::new();
    attach(&host, &spec, &node).unwrap();
    std::fs::remove_file(spec.state_dir.join("half.json")).unwrap();
    detach(&host, &spec);
    assert_eq!(state(&host), before);
}

#[test]
fn a_legacy_firewall_is_refused_with_the_command_that_opens_it() {
    let dir = tempfile::tempdir().unwrap();
    let (host, _outside) = host_and_outside();
    let (output, works) = host.try_sh("iptables-legacy -P FORWARD DROP");
    if !works {
        println!("this kernel has no legacy iptables, nothing to test: {output}");
        return;
    }
    let node = Ns::new();
    let spec = spec(dir.path(), "old", "one", 64, 2);
    let error = attach(&host, &spec, &node).unwrap_err();
    assert_eq!(error.reason(), Some("HOST_FIREWALL"));
    let hostnet::HostNetError::Firewall { command, .. } = error else { panic!("{error}") };
    host.sh(&command);
    attach(&host, &spec, &node).unwrap();
    assert_eq!(node.ask_tcp("203.0.113.1:80").unwrap(), "outside 203.0.113.2");
}
