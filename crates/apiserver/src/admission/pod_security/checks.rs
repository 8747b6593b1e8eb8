//! The checks of the pod security standards, one row each, up to those of v1.35.

use std::collections::BTreeSet;

use kminik_meta::Object;
use kminik_meta::pod_annotations::{APP_ARMOR, SECCOMP_CONTAINER, SECCOMP_POD};
use serde_json::Value;

use super::policy::{Level, LevelVersion};

/// The newest version in which a check changed; later ones mean the same.
const NEWEST: u32 = 35;

/// A check that a level makes from a version on.
struct Check {
    level: Level,
    /// First minor version.
    since: u32,
    /// The baseline's check that it makes needless.
    instead_of: Option<&'static str>,
    id: &'static str,
    /// What is wrong with the pod by this minor version.
    run: fn(&Subject<'_>, u32) -> Option<Violation>,
}

const fn baseline(id: &'static str, since: u32, run: fn(&Subject<'_>, u32) -> Option<Violation>) -> Check {
    Check { level: Level::Baseline, since, instead_of: None, id, run }
}

const fn restricted(
    id: &'static str,
    since: u32,
    instead_of: Option<&'static str>,
    run: fn(&Subject<'_>, u32) -> Option<Violation>,
) -> Check {
    Check { level: Level::Restricted, since, instead_of, id, run }
}

/// In the order in which violations are listed: by level, then by name.
static CHECKS: [Check; 19] = [
    baseline("appArmorProfile", 0, app_armor_profile),
    baseline("capabilities_baseline", 0, capabilities_baseline),
    baseline("hostNamespaces", 0, host_namespaces),
    baseline("hostPathVolumes", 0, host_path_volumes),
    baseline("hostPorts", 0, host_ports),
    baseline("hostProbesAndHostLifecycle", 34, host_probes),
    baseline("privileged", 0, privileged),
    baseline("procMount", 0, proc_mount_baseline),
    baseline("seLinuxOptions", 0, se_linux_options),
    baseline("seccompProfile_baseline", 0, seccomp_baseline),
    baseline("sysctls", 0, sysctls),
    baseline("windowsHostProcess", 0, windows_host_process),
    restricted("allowPrivilegeEscalation", 8, None, allow_privilege_escalation),
    restricted("capabilities_restricted", 22, Some("capabilities_baseline"), capabilities_restricted),
    restricted("procMount_restricted", 35, Some("procMount"), proc_mount),
    restricted("restrictedVolumes", 0, Some("hostPathVolumes"), restricted_volumes),
    restricted("runAsNonRoot", 0, None, run_as_non_root),
    restricted("runAsUser", 23, None, run_as_user),
    restricted("seccompProfile_restricted", 19, Some("seccompProfile_baseline"), seccomp_restricted),
];

/// What a check found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// What is forbidden.
    reason: String,
    /// Who does it, and how.
    detail: String,
}

fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some(Violation { reason: reason.to_owned(), detail })
}

/// Everything that is wrong with a pod by a level.
pub(super) fn violations(policy: LevelVersion, subject: &Subject<'_>) -> Vec<Violation> {
    let minor = policy.version.map_or(NEWEST, |minor| minor.min(NEWEST));
    let made = |check: &&Check| check.level <= policy.level && minor >= check.since;
    let replaced: Vec<&str> = CHECKS.iter().filter(made).filter_map(|check| check.instead_of).collect();
    let checks = CHECKS.iter().filter(made).filter(|check| !replaced.contains(&check.id));
    if policy.is_privileged() { Vec::new() } else { checks.filter_map(|check| (check.run)(subject, minor)).collect() }
}

/// The violations with their details: `host namespaces (hostPID=true), privileged (container "c" must …)`.
pub(super) fn details(violations: &[Violation]) -> String {
    let one = |v: &Violation| {
        if v.detail.is_empty() { v.reason.clone() } else { format!("{} ({})", v.reason, v.detail) }
    };
    violations.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The violations without their details.
pub(super) fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|violation| violation.reason.as_str()).collect::<Vec<_>>().join(", ")
}

/// A pod, or the template of one.
pub(super) struct Subject<'a> {
    metadata: Option<&'a Value>,
    spec: &'a Value,
}

impl<'a> Subject<'a> {
    pub(super) fn of_pod(pod: &'a Object) -> Option<Self> {
        Some(Subject { metadata: pod.get(&["metadata"]), spec: pod.get(&["spec"])? })
    }

    pub(super) fn of_template(template: &'a Value) -> Option<Self> {
        Some(Subject { metadata: template.get("metadata"), spec: template.get("spec")? })
    }

    fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |list| items(spec.get(list)))
    }

    fn annotations(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let annotations = self.metadata.and_then(|metadata| metadata.get("annotations")).and_then(Value::as_object);
        annotations.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }

    /// A member of the pod's security context.
    fn context(&self, key: &str) -> Option<&'a Value> {
        self.spec.get("securityContext")?.get(key)
    }

    fn is_windows(&self) -> bool {
        self.spec.pointer("/os/name").and_then(Value::as_str) == Some("windows")
    }

    /// Whether the pod has users of its own, so that its root is nobody outside.
    fn has_own_users(&self) -> bool {
        self.spec.get("hostUsers") == Some(&Value::Bool(false))
    }

    /// Names of the containers of which `bad` holds.
    fn containers_that(&self, bad: impl Fn(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| bad(container)).map(name).collect()
    }
}

fn items(list: Option<&Value>) -> std::slice::Iter<'_, Value> {
    list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default().iter()
}

fn name(value: &Value) -> &str {
    value.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// A member of a container's security context.
fn context<'a>(container: &'a Value, key: &str) -> Option<&'a Value> {
    container.get("securityContext")?.get(key)
}

fn text(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}

fn plural<'a>(one: &'a str, several: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { several }
}

fn quoted<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("\"{}\"", name.as_ref())).collect();
    names.join(", ")
}

/// `container "a"`, `containers "a", "b"`.
fn named(containers: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", containers.len()), quoted(containers))
}

/// `pod and containers "a", "b"`: those of whom something is wrong; `None` if it is nobody.
fn setters(pod: bool, containers: &[&str]) -> Option<String> {
    match (pod, containers) {
        (false, []) => None,
        (true, []) => Some("pod".to_owned()),
        (false, containers) => Some(named(containers)),
        (true, containers) => Some(format!("pod and {}", named(containers))),
    }
}

fn app_armor_profile(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    let mut values = BTreeSet::new();
    let mut bad = |profile: Option<&Value>| {
        let Some(profile) = profile else { return false };
        let kind = text(profile.get("type"));
        let bad = !matches!(kind, "RuntimeDefault" | "Localhost");
        if bad {
            values.insert(kind.to_owned());
        }
        bad
    };
    let of_pod = bad(pod.context("appArmorProfile"));
    let mut containers = Vec::new();
    for container in pod.containers() {
        if bad(context(container, "appArmorProfile")) {
            containers.push(name(container));
        }
    }
    let mut who: Vec<String> = setters(of_pod, &containers).into_iter().collect();
    let forbidden = |value: &str| !value.is_empty() && value != "runtime/default" && !value.starts_with("localhost/");
    let mut annotations: Vec<String> = pod
        .annotations()
        .filter(|(key, value)| key.starts_with(APP_ARMOR) && forbidden(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotations.sort();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).to_owned());
    }
    if who.is_empty() {
        return None;
    }
    let values: Vec<String> = values.into_iter().chain(annotations).collect();
    violation(
        plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len()),
        format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(values)),
    )
}

fn capabilities_baseline(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    const ALLOWED: [&str; 13] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    let (containers, added) = adding(pod, &ALLOWED);
    if containers.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not include {} in securityContext.capabilities.add", named(&containers), quoted(added));
    violation("non-default capabilities", detail)
}

/// The containers that add other capabilities than those allowed, and which.
fn adding<'a>(pod: &Subject<'a>, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<&'a str>) {
    let (mut containers, mut added) = (Vec::new(), BTreeSet::new());
    for container in pod.containers() {
        let capabilities = context(container, "capabilities").and_then(|capabilities| capabilities.get("add"));
        let bad: Vec<&str> = items(capabilities).filter_map(Value::as_str).filter(|c| !allowed.contains(c)).collect();
        if !bad.is_empty() {
            containers.push(name(container));
            added.extend(bad);
        }
    }
    (containers, added)
}

fn capabilities_restricted(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    if minor >= 25 && pod.is_windows() {
        return None;
    }
    let keeps = |container: &Value| {
        let drop = context(container, "capabilities").and_then(|capabilities| capabilities.get("drop"));
        !items(drop).any(|capability| capability == "ALL")
    };
    let keeping = pod.containers_that(keeps);
    let (containers, added) = adding(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeping)));
    }
    if !containers.is_empty() {
        let (who, what) = (named(&containers), quoted(added));
        details.push(format!("{who} must not include {what} in securityContext.capabilities.add"));
    }
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

fn host_namespaces(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter();
    let shared: Vec<String> =
        shared.filter(|key| pod.spec.get(key) == Some(&Value::Bool(true))).map(|key| format!("{key}=true")).collect();
    if shared.is_empty() { None } else { violation("host namespaces", shared.join(", ")) }
}

fn host_path_volumes(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    let volumes = items(pod.spec.get("volumes")).filter(|volume| volume.get("hostPath").is_some());
    let volumes: Vec<&str> = volumes.map(name).collect();
    if volumes.is_empty() {
        return None;
    }
    violation("hostPath volumes", format!("{} {}", plural("volume", "volumes", volumes.len()), quoted(volumes)))
}

fn host_ports(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    let (mut containers, mut ports) = (Vec::new(), BTreeSet::new());
    for container in pod.containers() {
        let numbers = items(container.get("ports")).filter_map(|port| port.get("hostPort")?.as_u64());
        let numbers: Vec<String> = numbers.filter(|number| *number != 0).map(|number| number.to_string()).collect();
        if !numbers.is_empty() {
            containers.push(name(container));
            ports.extend(numbers);
        }
    }
    if containers.is_empty() {
        return None;
    }
    let (count, ports_count) = (containers.len(), ports.len());
    let ports: Vec<String> = ports.into_iter().collect();
    violation(
        "hostPort",
        format!(
            "{} {} {} {}",
            named(&containers),
            plural("uses", "use", count),
            plural("hostPort", "hostPorts", ports_count),
            ports.join(", ")
        ),
    )
}

fn host_probes(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    const HANDLERS: [&str; 5] =
        ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];
    let (mut containers, mut hosts) = (BTreeSet::new(), BTreeSet::new());
    for container in pod.containers() {
        for handler in HANDLERS.iter().filter_map(|handler| container.pointer(handler)) {
            for host in ["/httpGet/host", "/tcpSocket/host"].map(|path| text(handler.pointer(path))) {
                if !host.is_empty() {
                    containers.insert(name(container));
                    hosts.insert(host);
                }
            }
        }
    }
    if containers.is_empty() {
        return None;
    }
    let containers: Vec<&str> = containers.into_iter().collect();
    violation(
        "probe or lifecycle host",
        format!(
            "{} {} {} {}",
            named(&containers),
            plural("uses", "use", containers.len()),
            plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
            quoted(hosts)
        ),
    )
}

fn privileged(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    let bad = pod.containers_that(|container| context(container, "privileged") == Some(&Value::Bool(true)));
    if bad.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", named(&bad)))
}

fn proc_mount_baseline(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    if minor >= 35 && pod.has_own_users() { None } else { proc_mount(pod, minor) }
}

fn proc_mount(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    let mount = |container| context(container, "procMount").and_then(Value::as_str).filter(|mount| *mount != "Default");
    let bad = pod.containers_that(|container| mount(container).is_some());
    if bad.is_empty() {
        return None;
    }
    let mounts: BTreeSet<&str> = pod.containers().filter_map(mount).collect();
    violation("procMount", format!("{} must not set securityContext.procMount to {}", named(&bad), quoted(mounts)))
}

fn se_linux_options(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    const TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
    let allowed = if minor >= 31 { &TYPES[..] } else { &TYPES[..4] };
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut bad = |options: Option<&Value>| {
        let Some(options) = options else { return false };
        let member = |key: &str| text(options.get(key)).to_owned();
        let (kind, sets_user, sets_role) = (member("type"), !member("user").is_empty(), !member("role").is_empty());
        let bad_type = !allowed.contains(&kind.as_str());
        if bad_type {
            types.insert(kind);
        }
        user |= sets_user;
        role |= sets_role;
        bad_type || sets_user || sets_role
    };
    let of_pod = bad(pod.context("seLinuxOptions"));
    let mut containers = Vec::new();
    for container in pod.containers() {
        if bad(context(container, "seLinuxOptions")) {
            containers.push(name(container));
        }
    }
    let who = setters(of_pod, &containers)?;
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", types.len()), quoted(types)));
    }
    if user {
        what.push("user may not be set".to_owned());
    }
    if role {
        what.push("role may not be set".to_owned());
    }
    violation("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; ")))
}

fn is_seccomp(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}

/// Those who set another seccomp profile than is allowed.
fn seccomp_profiles(pod: &Subject<'_>) -> Option<Violation> {
    let mut values = BTreeSet::new();
    let mut bad = |profile: Option<&Value>| {
        let kind = profile.map(|profile| text(profile.get("type")).to_owned()).filter(|kind| !is_seccomp(kind));
        let is_bad = kind.is_some();
        values.extend(kind);
        is_bad
    };
    let of_pod = bad(pod.context("seccompProfile"));
    let mut containers = Vec::new();
    for container in pod.containers() {
        if bad(context(container, "seccompProfile")) {
            containers.push(name(container));
        }
    }
    let who = setters(of_pod, &containers)?;
    let values = quoted(values);
    violation("seccompProfile", format!("{who} must not set securityContext.seccompProfile.type to {values}"))
}

fn seccomp_baseline(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    if minor >= 19 {
        return seccomp_profiles(pod);
    }
    let allowed =
        |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let containers: Vec<&str> = pod.containers().map(name).collect();
    let applies = |key: &str| {
        key == SECCOMP_POD || key.strip_prefix(SECCOMP_CONTAINER).is_some_and(|name| containers.contains(&name))
    };
    let forbidden: BTreeSet<String> = pod
        .annotations()
        .filter(|(key, value)| applies(key) && !allowed(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let noun = plural("annotation", "annotations", forbidden.len());
    let forbidden: Vec<String> = forbidden.into_iter().collect();
    violation("seccompProfile", format!("forbidden {noun} {}", forbidden.join(", ")))
}

fn seccomp_restricted(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    if minor >= 25 && pod.is_windows() {
        return None;
    }
    if let Some(explicit) = seccomp_profiles(pod) {
        return Some(explicit);
    }
    if pod.context("seccompProfile").is_some() {
        return None;
    }
    let silent = pod.containers_that(|container| context(container, "seccompProfile").is_none());
    if silent.is_empty() {
        return None;
    }
    violation(
        "seccompProfile",
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            named(&silent)
        ),
    )
}

fn sysctls(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    /// Safe sysctls with the version that took each up.
    const SAFE: [(&str, u32); 12] = [
        ("kernel.shm_rmid_forced", 0),
        ("net.ipv4.ip_local_port_range", 0),
        ("net.ipv4.tcp_syncookies", 0),
        ("net.ipv4.ping_group_range", 0),
        ("net.ipv4.ip_unprivileged_port_start", 0),
        ("net.ipv4.ip_local_reserved_ports", 27),
        ("net.ipv4.tcp_keepalive_time", 29),
        ("net.ipv4.tcp_fin_timeout", 29),
        ("net.ipv4.tcp_keepalive_intvl", 29),
        ("net.ipv4.tcp_keepalive_probes", 29),
        ("net.ipv4.tcp_rmem", 32),
        ("net.ipv4.tcp_wmem", 32),
    ];
    let safe = |sysctl: &&str| SAFE.iter().any(|(name, since)| name == sysctl && minor >= *since);
    let forbidden: Vec<&str> = items(pod.context("sysctls")).map(name).filter(|sysctl| !safe(sysctl)).collect();
    if forbidden.is_empty() { None } else { violation("forbidden sysctls", forbidden.join(", ")) }
}

fn windows_host_process(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    let bad =
        |options: Option<&Value>| options.and_then(|options| options.get("hostProcess")) == Some(&Value::Bool(true));
    let containers = pod.containers_that(|container| bad(context(container, "windowsOptions")));
    let who = setters(bad(pod.context("windowsOptions")), &containers)?;
    violation("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}

fn allow_privilege_escalation(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    if minor >= 25 && pod.is_windows() {
        return None;
    }
    let bad =
        pod.containers_that(|container| context(container, "allowPrivilegeEscalation") != Some(&Value::Bool(false)));
    if bad.is_empty() {
        return None;
    }
    violation(
        "allowPrivilegeEscalation != false",
        format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&bad)),
    )
}

fn restricted_volumes(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    const ALLOWED: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let (mut volumes, mut types) = (Vec::new(), BTreeSet::new());
    for volume in items(pod.spec.get("volumes")) {
        let mut sources = volume.as_object().into_iter().flat_map(|volume| volume.keys()).filter(|key| *key != "name");
        if sources.clone().any(|source| ALLOWED.contains(&source.as_str())) {
            continue;
        }
        volumes.push(name(volume));
        types.insert(sources.next().map_or("unknown", String::as_str));
    }
    if volumes.is_empty() {
        return None;
    }
    let count = volumes.len();
    violation(
        "restricted volume types",
        format!(
            "{} {} {} {} {}",
            plural("volume", "volumes", count),
            quoted(volumes),
            plural("uses", "use", count),
            plural("restricted volume type", "restricted volume types", types.len()),
            quoted(types)
        ),
    )
}

fn run_as_non_root(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    if minor >= 35 && pod.has_own_users() {
        return None;
    }
    let of_pod = pod.context("runAsNonRoot").and_then(Value::as_bool);
    let of = |container| context(container, "runAsNonRoot").and_then(Value::as_bool);
    let explicit = pod.containers_that(|container| of(container) == Some(false));
    if let Some(who) = setters(of_pod == Some(false), &explicit) {
        return violation(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = pod.containers_that(|container| of(container).is_none());
    if of_pod == Some(true) || silent.is_empty() {
        return None;
    }
    violation(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", named(&silent)))
}

fn run_as_user(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    if minor >= 35 && pod.has_own_users() {
        return None;
    }
    let root = |user: Option<&Value>| user.and_then(Value::as_i64) == Some(0);
    let containers = pod.containers_that(|container| root(context(container, "runAsUser")));
    let who = setters(root(pod.context("runAsUser")), &containers)?;
    violation("runAsUser=0", format!("{who} must not set runAsUser=0"))
}
