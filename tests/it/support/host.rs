//! A host of the test's own: network and mounts that nobody else uses, so that all of it can be compared.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

use super::run::{Output, command, eventually, run};

/// Namespaces that live as long as this.
pub struct Host {
    holder: Child,
}

impl Host {
    /// A host with loopback, an uplink to a network of documentation, and a server `outside` on port 80 of its other end.
    pub fn new() -> Self {
        let holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation=private", "sleep", "3600"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("util-linux is installed");
        let host = Self { holder };
        let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
        eventually("the namespaces", || {
            let theirs = std::fs::read_link(format!("/proc/{}/ns/mnt", host.holder.id())).ok()?;
            (theirs != own && host.sh("true").code == 0).then_some(())
        });
        // A mount on /run/kminik itself would go when a cluster of the machine's own takes that directory away.
        host.sh("mount -t tmpfs tmpfs /run && ip link set lo up").ok();
        // What other tests have mounted just now is not this host's, and would go when they end.
        host.sh("awk '$5 ~ \"^/(tmp|var/lib/docker)/\" {print $5}' /proc/self/mountinfo | sort -r | xargs -r -n 1 umount -l").ok();
        host
    }

    /// A command that runs on this host.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--mount", "--", program]).args(arguments);
        command
    }

    #[track_caller]
    pub fn sh(&self, script: &str) -> Output {
        run(&mut self.command("sh", &["-c", script]), None)
    }

    /// A namespace behind the uplink, at 203.0.113.1, with a server that says `outside`.
    pub fn with_outside(&self) -> Host {
        let outside = Host::new();
        self.sh(&format!(
            "ip link add wan0 type veth peer name wan0 netns {} && ip addr add 203.0.113.2/24 dev wan0 && \
             ip link set wan0 up && ip route add default via 203.0.113.1",
            outside.holder.id()
        ))
        .ok();
        outside.sh("ip addr add 203.0.113.1/24 dev wan0 && ip link set wan0 up").ok();
        outside
            .sh("mkdir -p /tmp/www && mount -t tmpfs tmpfs /tmp/www && echo outside > /tmp/www/index.html && \
                 busybox httpd -p 203.0.113.1:80 -h /tmp/www")
            .ok();
        outside
    }

    /// All that a cluster could leave here: links, addresses, routes, rules, mounts, sysctls, records.
    pub fn state(&self) -> BTreeSet<String> {
        let script = "ip -o link | cut -d: -f2; ip -o addr | awk '{print $2, $3, $4}'; ip route; ip rule; nft -s list ruleset; \
             iptables-legacy-save 2>/dev/null | grep -v '^#'; awk '{print $5, $9}' /proc/self/mountinfo; \
             sysctl -a 2>/dev/null | grep -E 'net.ipv4.(ip_forward|conf.*(forwarding|rp_filter|route_localnet))|bridge-nf'; \
             find /run/kminik -mindepth 1 2>/dev/null || true";
        self.sh(script).ok().lines().map(str::to_owned).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let inside = format!("/proc/{}/ns/net", self.holder.id());
        if let Ok(network) = std::fs::read_link(&inside) {
            // What was started on this host ends with it.
            for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
                let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
                if std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|theirs| theirs == network) {
                    run(&mut command("kill", &["-9", &pid.to_string()]), None);
                }
            }
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
