//! The host's own checks: a table of them, each a function of what was read of the machine.

use std::path::Path;

use rustix::fs::{Access, access};

use super::{Finding, Verdict};
use crate::drivers::{free_space, total_space};
use crate::home::Home;
use crate::kubeconfig;
use crate::ops::units;
use crate::reason::{
    HOST_FIREWALL, HOST_HOME_PERMISSION, HOST_KERNEL_FEATURE, IF_SUBNET, RSRC_INOTIFY, RSRC_INSUFFICIENT_STORAGE,
    RSRC_INSUFFICIENT_SYS_MEMORY,
};

/// What checks look at.
struct Facts<'a> {
    home: &'a Home,
    /// A subnet that is free for nodes, or why there is none.
    subnet: Result<String, String>,
    /// A file of this machine, if it can be read.
    read: &'a dyn Fn(&str) -> Option<String>,
}

type Check = fn(&Facts<'_>) -> Verdict;

/// Name → how it is.
const CHECKS: &[(&str, Check)] = &[
    ("home", home),
    ("disk", disk),
    ("kubeconfig", config),
    ("memory", memory),
    ("cgroups", cgroups),
    ("kernel", kernel),
    ("inotify", inotify),
    ("network", network),
    ("firewall", firewall),
];

/// Below these a start is refused, or pods are likely to feel it.
const LEAST_FREE_BYTES: u64 = 1 << 30;
const FEW_FREE_PERCENT: u64 = 10;
const LEAST_MEMORY_MIB: u64 = 1024;
/// What many pods of one user share.
const INSTANCES: u64 = 512;
const WATCHES: u64 = 65_536;

pub(super) async fn examine(home: &Home) -> Vec<Finding> {
    let subnet = match kminik_net::hostnet::plan(&[]).await {
        Ok(subnet) => Ok(subnet.to_string()),
        Err(error) => Err(kminik_base::component::chain(&error)),
    };
    let read = |path: &str| std::fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let facts = Facts { home, subnet, read: &read };
    CHECKS.iter().map(|&(name, check)| Finding { name, verdict: check(&facts) }).collect()
}

fn home(facts: &Facts<'_>) -> Verdict {
    let root = facts.home.root();
    let existing = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match access(existing, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Verdict::Good(root.display().to_string()),
        Err(_) => Verdict::failed(&HOST_HOME_PERMISSION, format!("{} cannot be written to", existing.display()), ""),
    }
}

fn disk(facts: &Facts<'_>) -> Verdict {
    let root = facts.home.root();
    let existing = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let (Some(free), Some(total)) = (free_space(existing), total_space(existing)) else {
        return Verdict::Good("unknown".to_owned());
    };
    let free_mib = free >> 20;
    if free < LEAST_FREE_BYTES {
        let why = format!("the disk of {} has {free_mib} MiB free", root.display());
        return Verdict::failed(&RSRC_INSUFFICIENT_STORAGE, why, "");
    }
    if free / (total / 100).max(1) < FEW_FREE_PERCENT {
        let why = format!("the disk of {} has {free_mib} MiB free, less than a tenth of it", root.display());
        return Verdict::warning(&RSRC_INSUFFICIENT_STORAGE, why, RSRC_INSUFFICIENT_STORAGE.advice);
    }
    Verdict::Good(format!("{} GiB free", free >> 30))
}

fn config(facts: &Facts<'_>) -> Verdict {
    let path = kubeconfig::path(facts.home);
    match kubeconfig::check(&path) {
        Ok(()) => Verdict::Good(path.display().to_string()),
        Err(failure) => {
            let advice = failure.advice().to_owned();
            Verdict::failed(failure.reason, failure.message, advice)
        }
    }
}

fn memory(_: &Facts<'_>) -> Verdict {
    match units::total_memory_mib() {
        0 => Verdict::Good("unknown".to_owned()),
        total if total < LEAST_MEMORY_MIB => Verdict::warning(
            &RSRC_INSUFFICIENT_SYS_MEMORY,
            format!("this machine has {total} MiB of memory: few pods will fit"),
            "",
        ),
        total => Verdict::Good(format!("{total} MiB")),
    }
}

/// What limits of pods need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

fn cgroups(facts: &Facts<'_>) -> Verdict {
    let (version, there): (u8, Vec<String>) = match (facts.read)("/sys/fs/cgroup/cgroup.controllers") {
        Some(text) => (2, text.split_whitespace().map(str::to_owned).collect()),
        None => {
            let text = (facts.read)("/proc/cgroups").unwrap_or_default();
            let enabled = text.lines().filter(|line| line.ends_with("\t1"));
            (1, enabled.filter_map(|line| line.split('\t').next()).map(str::to_owned).collect())
        }
    };
    let missing: Vec<&str> =
        CONTROLLERS.into_iter().filter(|wanted| !there.iter().any(|have| have == wanted)).collect();
    if missing.is_empty() {
        return Verdict::Good(format!("version {version}"));
    }
    Verdict::failed(
        &HOST_KERNEL_FEATURE,
        format!("cgroups (version {version}) lack {}", missing.join(", ")),
        "Enable them: on the kernel's command line (cgroup_enable=memory), or for a user's own engine by Delegate=yes of user@.service.",
    )
}

/// A function of the kernel that others may use, the module it is in, and what it is for.
const KERNEL: &[(&str, &str, &str)] = &[
    ("nft_do_chain", "nf_tables", "services (CONFIG_NF_TABLES)"),
    ("nf_nat_setup_info", "nf_nat", "addresses of services (CONFIG_NF_NAT)"),
    ("nf_conntrack_in", "nf_conntrack", "connections of services (CONFIG_NF_CONNTRACK)"),
    ("br_dev_queue_push_xmit", "bridge", "the network of pods (CONFIG_BRIDGE)"),
];

fn kernel(facts: &Facts<'_>) -> Verdict {
    let release = (facts.read)("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let filesystems = (facts.read)("/proc/filesystems").unwrap_or_default();
    let modules = (facts.read)(&format!("/lib/modules/{release}/modules.dep")).unwrap_or_default();
    let symbols = (facts.read)("/proc/kallsyms").unwrap_or_default();
    let has_module = |name: &str| modules.contains(&format!("/{name}.ko"));
    let mut missing: Vec<&str> = Vec::new();
    let has_overlay = filesystems.lines().any(|line| line.split_whitespace().last() == Some("overlay"));
    if !has_overlay && !has_module("overlay") {
        missing.push("overlayfs (CONFIG_OVERLAY_FS)");
    }
    // A kernel that does not tell its functions may have them.
    if !symbols.is_empty() {
        let has_symbol = |name: &str| symbols.lines().any(|line| line.split_whitespace().nth(2) == Some(name));
        let lacking = KERNEL.iter().filter(|(symbol, module, _)| !has_symbol(symbol) && !has_module(module));
        missing.extend(lacking.map(|(_, _, what)| *what));
    }
    if missing.is_empty() {
        return Verdict::Good(format!("Linux {release}"));
    }
    Verdict::failed(
        &HOST_KERNEL_FEATURE,
        format!("this kernel ({release}) lacks {}", missing.join(", ")),
        "Load the modules, or use another kernel.",
    )
}

fn inotify(facts: &Facts<'_>) -> Verdict {
    let limit = |name: &str| {
        let text = (facts.read)(&format!("/proc/sys/fs/inotify/{name}"));
        text.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(u64::MAX)
    };
    let (instances, watches) = (limit("max_user_instances"), limit("max_user_watches"));
    if instances >= INSTANCES && watches >= WATCHES {
        return Verdict::Good(format!("{instances} instances, {watches} watches"));
    }
    Verdict::warning(
        &RSRC_INOTIFY,
        format!(
            "pods share {instances} instances and {watches} watches of inotify: with many of them \"too many open files\" is seen"
        ),
        RSRC_INOTIFY.advice,
    )
}

fn network(facts: &Facts<'_>) -> Verdict {
    match &facts.subnet {
        Ok(subnet) => Verdict::Good(format!("{subnet} is free for nodes")),
        Err(why) => Verdict::failed(&IF_SUBNET, why.clone(), ""),
    }
}

fn firewall(facts: &Facts<'_>) -> Verdict {
    let configuration = (facts.read)("/etc/firewalld/firewalld.conf").unwrap_or_default();
    let by_iptables = configuration.lines().any(|line| line.trim() == "FirewallBackend=iptables");
    if (facts.read)("/run/firewalld.pid").is_none() || by_iptables {
        return Verdict::Good("nothing known to be in the way".to_owned());
    }
    Verdict::warning(
        &HOST_FIREWALL,
        "firewalld with its nftables backend may drop what goes to and from nodes",
        "If pods cannot reach the network: set FirewallBackend=iptables in /etc/firewalld/firewalld.conf, or put the bridge into the zone trusted.",
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// How a check finds a machine with these files.
    fn verdict(check: Check, files: &[(&str, &str)]) -> Verdict {
        let files: BTreeMap<&str, &str> = files.iter().copied().collect();
        let read = |path: &str| files.get(path).map(|text| (*text).to_owned());
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        check(&Facts { home: &home, subnet: Ok("192.168.49.0/24".to_owned()), read: &read })
    }

    #[test]
    fn every_check_has_a_name_of_its_own() {
        let mut names: Vec<&str> = CHECKS.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CHECKS.len());
    }

    #[test]
    fn cgroups_of_both_versions() {
        let v1 = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t3\t1\t1\nmemory\t4\t1\t1\npids\t5\t1\t1\n";
        assert!(matches!(verdict(cgroups, &[("/proc/cgroups", v1)]), Verdict::Good(about) if about == "version 1"));
        let off = v1.replace("memory\t4\t1\t1", "memory\t4\t1\t0");
        let told = verdict(cgroups, &[("/proc/cgroups", &off)]);
        assert!(told.word() == "failed" && told.problem().unwrap().why.contains("lack memory"), "{told:?}");
        let v2 = |controllers| verdict(cgroups, &[("/sys/fs/cgroup/cgroup.controllers", controllers)]);
        assert_eq!(v2("cpuset cpu io memory pids\n").word(), "ok");
        assert!(v2("memory pids").problem().unwrap().why.contains("lack cpu"));
    }

    #[test]
    fn features_that_are_built_in_loaded_or_can_be_loaded() {
        let symbols =
            "0 T nft_do_chain\n0 T nf_nat_setup_info\n0 T nf_conntrack_in\n0 T br_dev_queue_push_xmit\t[bridge]\n";
        let base = [("/proc/sys/kernel/osrelease", "6.1\n"), ("/proc/filesystems", "nodev\toverlay\n")];
        let with = |more: &[(&'static str, &'static str)]| verdict(kernel, &[&base[..], more].concat());
        assert_eq!(with(&[("/proc/kallsyms", symbols)]).word(), "ok");
        assert_eq!(with(&[]).word(), "ok", "nothing is told");
        let told =
            with(&[("/proc/kallsyms", "0 T nf_nat_setup_info\n0 T nf_conntrack_in\n0 T br_dev_queue_push_xmit")]);
        assert!(told.problem().unwrap().why.contains("CONFIG_NF_TABLES"), "{told:?}");
        let dep = "kernel/net/netfilter/nf_tables.ko.xz:\nkernel/a/nf_nat.ko:\nkernel/a/nf_conntrack.ko:\nkernel/b/bridge.ko:\n";
        assert_eq!(with(&[("/proc/kallsyms", "0 T x"), ("/lib/modules/6.1/modules.dep", dep)]).word(), "ok");
        assert_eq!(verdict(kernel, &base[..1]).word(), "failed", "no overlayfs");
    }

    #[test]
    fn limits_and_firewalls() {
        let limits = |instances, watches| {
            let files = [
                ("/proc/sys/fs/inotify/max_user_instances", instances),
                ("/proc/sys/fs/inotify/max_user_watches", watches),
            ];
            verdict(inotify, &files).word()
        };
        assert_eq!(
            (limits("512\n", "524288\n"), limits("128\n", "524288\n"), limits("512\n", "8192\n")),
            ("ok", "warning", "warning")
        );
        let running = ("/run/firewalld.pid", "1");
        assert_eq!(verdict(firewall, &[]).word(), "ok");
        assert_eq!(verdict(firewall, &[running]).word(), "warning");
        let backend = ("/etc/firewalld/firewalld.conf", "# x\nFirewallBackend=iptables\n");
        assert_eq!(verdict(firewall, &[running, backend]).word(), "ok");
        assert_eq!(verdict(home, &[]).word(), "ok");
    }
}
