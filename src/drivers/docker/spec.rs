//! The node's container as the engine is asked for it.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigCgroupnsModeEnum, Mount,
    MountType, NetworkingConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};

use crate::ops::node_image;
use crate::profile::Profile;

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

/// Privileged, or with [`CAPABILITIES`] and everything else that privileged would give.
pub fn container(
    profile: &Profile,
    image: &str,
    name: &str,
    labels: HashMap<String, String>,
    privileged: bool,
) -> ContainerCreateBody {
    let api = format!("{}/tcp", 8443);
    let bindings = HashMap::from([(
        api.clone(),
        Some(vec![PortBinding {
            host_ip: Some(profile.api_host.clone()),
            host_port: Some(profile.api_port.to_string()),
        }]),
    )]);
    let var = Mount {
        target: Some("/var".into()),
        source: Some(name.to_owned()),
        typ: Some(MountType::VOLUME),
        ..Default::default()
    };
    let memory = i64::try_from(profile.memory_mib << 20).ok().filter(|bytes| *bytes > 0);
    let host = HostConfig {
        privileged: Some(privileged),
        cap_add: (!privileged).then(|| CAPABILITIES.iter().map(|&c| c.to_owned()).collect()),
        security_opt: Some(["seccomp=unconfined", "apparmor=unconfined", "label=disable"].map(str::to_owned).into()),
        masked_paths: Some(Vec::new()),
        readonly_paths: Some(Vec::new()),
        device_cgroup_rules: (!privileged).then(|| vec!["a *:* rwm".to_owned()]),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        tmpfs: Some(HashMap::from([("/run".into(), String::new()), ("/tmp".into(), String::new())])),
        mounts: Some(vec![var]),
        port_bindings: Some(bindings),
        network_mode: Some(name.to_owned()),
        // An engine's own init as PID 1 would be in ours' place.
        init: Some(false),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        memory,
        memory_swap: memory,
        nano_cpus: (profile.cpus > 0).then(|| i64::from(profile.cpus) * 1_000_000_000),
        ..Default::default()
    };
    let endpoint = EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some(profile.node_address.to_string()),
            ..Default::default()
        }),
        ..Default::default()
    };
    ContainerCreateBody {
        hostname: Some(profile.name.clone()),
        image: Some(image.to_owned()),
        entrypoint: Some(vec![node_image::BINARY.to_owned(), "init".to_owned()]),
        cmd: Some(Vec::new()),
        env: Some([vec!["container=docker".to_owned()], crate::env::for_node(&profile.host_loopback())].concat()),
        labels: Some(labels),
        exposed_ports: Some(vec![api]),
        stop_signal: Some("SIGTERM".into()),
        host_config: Some(host),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(name.to_owned(), endpoint)])),
        }),
        ..Default::default()
    }
}
