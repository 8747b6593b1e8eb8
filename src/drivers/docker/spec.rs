//! The node's container as the engine is asked for it.

use std::collections::HashMap;
use std::net::SocketAddr;

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigCgroupnsModeEnum, Mount,
    MountType, NetworkingConfig, PortBinding, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use rustix::process::{Resource, getrlimit};

use super::network;
use crate::drivers::{Machine, Share};
use crate::exposure::Protocol;
use crate::ops::node_image;

/// Every capability but SYS_RESOURCE, and those that engines of 2022 do not know: what a node asks for where
/// `privileged` is refused.
const CAPABILITIES: &[&str] = &[
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// What the container may use; `None` is all.
pub struct Limits {
    pub memory: Option<i64>,
    pub nano_cpus: Option<i64>,
}

pub fn limits(machine: Machine<'_>) -> Limits {
    Limits {
        memory: machine.memory_bytes().and_then(|bytes| i64::try_from(bytes).ok()),
        nano_cpus: machine.cpus().map(|cpus| i64::from(cpus) * 1_000_000_000),
    }
}

/// Ports of the node → where they are on the engine's machine: the control plane has them all.
fn bindings(machine: Machine<'_>) -> HashMap<String, Vec<PortBinding>> {
    let at = |address: SocketAddr| PortBinding {
        host_ip: Some(address.ip().to_string()),
        host_port: Some(address.port().to_string()),
    };
    if machine.is_worker() {
        return HashMap::new();
    }
    let profile = machine.profile();
    let exposure = &profile.exposure;
    let api = SocketAddr::new(exposure.address(), profile.api_port);
    let mut bindings = HashMap::from([(format!("{}/tcp", profile.networking.api_port), vec![at(api)])]);
    for port in &exposure.ports {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        bindings.entry(format!("{}/{protocol}", port.node)).or_default().push(at(exposure.of(port)));
    }
    bindings
}

/// A directory or file of the engine's machine.
fn bind(share: &Share) -> Mount {
    Mount {
        target: Some(share.target.display().to_string()),
        source: Some(share.source.display().to_string()),
        typ: Some(MountType::BIND),
        read_only: Some(share.read_only),
        ..Default::default()
    }
}

/// What an engine is asked to grant a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    Privileged,
    /// The same, and no more open files and processes than this process may have.
    Limited,
    /// [`CAPABILITIES`], and everything else that privileged would give.
    Listed,
    /// The same, and no more open files and processes than this process may have: of an engine that raises such limits by
    /// itself and may not.
    ListedAndLimited,
}

impl Rights {
    /// What to ask for instead, after an engine could not grant these.
    pub fn instead(self, error: &str) -> Option<Self> {
        match self {
            // runc's words, and crun's.
            Rights::Privileged | Rights::Listed
                if error.contains("setting rlimit") || error.contains("setrlimit `") =>
            {
                Some(Rights::ListedAndLimited)
            }
            Rights::Privileged if error.contains("apply caps") => Some(Rights::Listed),
            Rights::Limited if error.contains("apply caps") => Some(Rights::ListedAndLimited),
            _ => None,
        }
    }
}

/// Whether what this process starts may have more than it has itself.
pub fn may_raise_limits() -> bool {
    let capabilities = rustix::thread::capabilities(None);
    capabilities.is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE))
}

/// This process' hard limits; of processes at most as many as engines leave themselves, which is the kernel's usual number of
/// process identifiers.
fn own_limits() -> Vec<ResourcesUlimits> {
    let limits = [("nofile", Resource::Nofile, u64::MAX), ("nproc", Resource::Nproc, 32_768)];
    let own = limits.into_iter().filter_map(|(name, resource, most)| {
        let most = i64::try_from(getrlimit(resource).maximum.unwrap_or(most).min(most)).ok()?;
        Some(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(most), hard: Some(most) })
    });
    own.collect()
}

pub fn container(
    machine: Machine<'_>,
    image: &str,
    labels: HashMap<String, String>,
    rights: Rights,
) -> ContainerCreateBody {
    let privileged = matches!(rights, Rights::Privileged | Rights::Limited);
    let limited = matches!(rights, Rights::Limited | Rights::ListedAndLimited);
    let profile = machine.profile();
    let network = network::name_of(profile);
    let bindings = bindings(machine);
    let exposed = bindings.keys().cloned().collect();
    let var = Mount {
        target: Some("/var".into()),
        source: Some(super::name_of(machine)),
        typ: Some(MountType::VOLUME),
        ..Default::default()
    };
    let limits = limits(machine);
    let host = HostConfig {
        privileged: Some(privileged),
        cap_add: (!privileged).then(|| CAPABILITIES.iter().map(|&c| c.to_owned()).collect()),
        ulimits: limited.then(own_limits),
        security_opt: Some(["seccomp=unconfined", "apparmor=unconfined", "label=disable"].map(str::to_owned).into()),
        masked_paths: Some(Vec::new()),
        readonly_paths: Some(Vec::new()),
        device_cgroup_rules: (!privileged).then(|| vec!["a *:* rwm".to_owned()]),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        tmpfs: Some(HashMap::from([("/run".into(), String::new()), ("/tmp".into(), String::new())])),
        mounts: Some(std::iter::once(var).chain(profile.mounts.iter().map(bind)).collect()),
        port_bindings: Some(bindings.into_iter().map(|(port, at)| (port, Some(at))).collect()),
        network_mode: Some(network.clone()),
        // An engine's own init as PID 1 would be in ours' place.
        init: Some(false),
        // With the engine, and after a reboot; not what was stopped by 'kminik stop'.
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
            maximum_retry_count: None,
        }),
        memory: limits.memory,
        memory_swap: limits.memory,
        nano_cpus: limits.nano_cpus,
        ..Default::default()
    };
    let endpoint = EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some(machine.address().to_string()),
            ..Default::default()
        }),
        ..Default::default()
    };
    ContainerCreateBody {
        hostname: Some(machine.name().into_owned()),
        image: Some(image.to_owned()),
        entrypoint: Some(vec![node_image::BINARY.to_owned(), "init".to_owned()]),
        cmd: Some(Vec::new()),
        env: Some(
            [vec!["container=docker".to_owned()], crate::env::for_node(&profile.host_loopback(), &profile.networking)]
                .concat(),
        ),
        labels: Some(labels),
        exposed_ports: Some(exposed),
        stop_signal: Some("SIGTERM".into()),
        host_config: Some(host),
        networking_config: Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(network, endpoint)])) }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_cannot_grant_is_not_asked_for_again() {
        let caps = "OCI runtime create failed: unable to apply caps: operation not permitted";
        let limits = "runc create failed: error setting rlimit type 7: operation not permitted";
        assert_eq!(Rights::Privileged.instead(caps), Some(Rights::Listed));
        assert_eq!(Rights::Listed.instead(caps), None);
        assert_eq!(Rights::Privileged.instead(limits), Some(Rights::ListedAndLimited));
        assert_eq!(Rights::Listed.instead(limits), Some(Rights::ListedAndLimited));
        let limits_of_crun = "crun: setrlimit `RLIMIT_NOFILE`: Operation not permitted: OCI permission denied";
        assert_eq!(Rights::Privileged.instead(limits_of_crun), Some(Rights::ListedAndLimited));
        assert_eq!(Rights::ListedAndLimited.instead(limits), None);
        assert_eq!(Rights::Privileged.instead("port is already allocated"), None);
        assert!(own_limits().iter().all(|limit| limit.soft == limit.hard));
    }
}
