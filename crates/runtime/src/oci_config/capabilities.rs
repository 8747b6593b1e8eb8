//! Capabilities: names by number, the default set, additions and drops.

use std::fs;

/// Every capability by its number, as `capability.h` has them.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A bit a capability.
pub(crate) const ALL_CAPABILITIES: u64 = (1 << NAMES.len()) - 1;

/// What a container gets that asks for nothing.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// `CAP_…` names of those that this process may give away.
pub(crate) fn capability_names(set: u64) -> Vec<String> {
    let set = set & bounding();
    NAMES
        .iter()
        .enumerate()
        .filter(|(number, _)| set & (1 << number) != 0)
        .map(|(_, name)| format!("CAP_{name}"))
        .collect()
}

/// Numbers of those that this process may give away.
pub(crate) fn capability_numbers(set: u64) -> Vec<u32> {
    let set = set & bounding();
    (0..64).filter(|number| set & (1 << number) != 0).collect()
}

/// The set of a container. `ALL` in a list is everything; a name that is both added and dropped is added, unless everything is added.
pub(crate) fn container_set(privileged: bool, add: &[String], drop: &[String]) -> u64 {
    if privileged {
        return ALL_CAPABILITIES;
    }
    let default = DEFAULT.iter().filter_map(|name| bit(name)).fold(0, |set, bit| set | bit);
    let all = |list: &[String]| list.iter().any(|name| plain(name) == "ALL");
    let named = |list: &[String]| list.iter().filter_map(|name| bit(&plain(name))).fold(0, |set, bit| set | bit);
    let mut set = if all(add) { ALL_CAPABILITIES } else { default };
    if all(drop) {
        set = 0;
    }
    if all(add) { set & !named(drop) } else { (set & !named(drop)) | named(add) }
}

fn plain(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}

fn bit(name: &str) -> Option<u64> {
    NAMES.iter().position(|known| *known == name).map(|number| 1 << number)
}

/// What this process can give: asking for more fails the container.
fn bounding() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    field.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()).unwrap_or(ALL_CAPABILITIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> u64 {
        let own = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        container_set(false, &own(add), &own(drop))
    }

    #[test]
    fn sets() {
        assert_eq!(set(&[], &[]).count_ones(), 14);
        assert_eq!(set(&["NET_ADMIN"], &["ALL"]), bit("NET_ADMIN").unwrap());
        assert_eq!(set(&["cap_sys_time"], &[]) & bit("SYS_TIME").unwrap(), bit("SYS_TIME").unwrap());
        assert_eq!(set(&["ALL"], &["SYS_ADMIN"]), ALL_CAPABILITIES & !bit("SYS_ADMIN").unwrap());
        assert_eq!(set(&[], &["KILL"]).count_ones(), 13);
        assert_eq!(container_set(true, &[], &[]), ALL_CAPABILITIES);
        assert_eq!(bit("CHECKPOINT_RESTORE"), Some(1 << 40));
    }
}
