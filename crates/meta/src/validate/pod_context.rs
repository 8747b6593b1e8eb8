//! Checks of a pod's surroundings: what it shares with its node, its system parameters, and what its containers may ask of them.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

use super::containers::local_path;
use super::node::Node;
use crate::field::{ErrorList, FieldError};
use crate::names;

/// Longest name of a system parameter, in bytes.
const SYSCTL_MAX: usize = 253;
const SYSCTL: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
#[allow(clippy::expect_used, reason = "a constant, which a test compiles")]
static SYSCTL_NAME: LazyLock<Regex> = LazyLock::new(|| Regex::new(SYSCTL).expect("a good expression"));

pub(super) fn pod_context(spec: &Node<'_>, errors: &mut ErrorList) {
    let context = spec.child("securityContext");
    if spec.child("hostPID").is_true() && spec.child("shareProcessNamespace").is_true() {
        let message = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(&context.path.child("shareProcessNamespace"), true, message));
    }
    let system = spec.child("os");
    if system.is_set() {
        let name = system.child("name").text();
        if name.is_empty() {
            errors.push(FieldError::required(&system.path.child("name"), "cannot be empty"));
        } else if !["linux", "windows"].contains(&name) {
            errors.push(FieldError::not_supported(&system.path, name, &["linux", "windows"]));
        }
    }
    // MountOption belongs to a feature that is off.
    let changes = context.child("seLinuxChangePolicy");
    if changes.is_set() && changes.text() != "Recursive" {
        errors.push(FieldError::not_supported(&changes.path, changes.text(), &["Recursive"]));
    }
    sysctls(spec, &context.child("sysctls"), errors);
    seccomp(&context.child("seccompProfile"), errors);
    app_armor(&context.child("appArmorProfile"), errors);
    for container in spec.containers() {
        container_context(spec, &container, errors);
    }
}

fn sysctls(spec: &Node<'_>, list: &Node<'_>, errors: &mut ErrorList) {
    let (network, ipc) = (spec.child("hostNetwork").is_true(), spec.child("hostIPC").is_true());
    let mut seen = BTreeSet::new();
    for sysctl in list.items() {
        let (name, text) = (sysctl.child("name"), sysctl.child("name").text());
        if text.is_empty() {
            errors.push(FieldError::required(&name.path, ""));
        } else if text.len() > SYSCTL_MAX || !SYSCTL_NAME.is_match(text) {
            let message = format!("must have at most {SYSCTL_MAX} characters and match regex {SYSCTL}");
            errors.push(FieldError::invalid(&name.path, text, message));
        } else if !seen.insert(text) {
            errors.push(FieldError::duplicate(&name.path, text));
        }
        let dotted = text.replace('/', ".");
        let of_ipc = dotted == "kernel.sem"
            || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| dotted.starts_with(prefix));
        if network && dotted.starts_with("net.") {
            errors.push(FieldError::invalid(&name.path, text, "may not be specified when 'hostNetwork' is true"));
        } else if ipc && of_ipc {
            errors.push(FieldError::invalid(&name.path, text, "may not be specified when 'hostIPC' is true"));
        }
    }
}

fn seccomp(profile: &Node<'_>, errors: &mut ErrorList) {
    let (kind, path) = (profile.child("type"), profile.child("localhostProfile"));
    if profile.is_set() && kind.is_empty() {
        errors.push(FieldError::required(&kind.path, "type is required when seccompProfile is set"));
    }
    match (kind.text(), path.is_set()) {
        ("Localhost", false) => {
            errors.push(FieldError::required(&path.path, "must be set when seccomp type is Localhost"));
        }
        ("Localhost", true) => local_path(&path, errors),
        (_, true) => {
            let message = "can only be set when seccomp type is Localhost";
            errors.push(FieldError::invalid(&path.path, profile.value.clone(), message));
        }
        (_, false) => {}
    }
}

fn container_context(spec: &Node<'_>, container: &Node<'_>, errors: &mut ErrorList) {
    const POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
    let context = container.child("securityContext");
    seccomp(&context.child("seccompProfile"), errors);
    app_armor(&context.child("appArmorProfile"), errors);
    restart_rules(container, errors);
    let restarts = container.child("restartPolicy");
    if restarts.is_set() && !POLICIES.contains(&restarts.text()) {
        errors.push(FieldError::not_supported(&restarts.path, restarts.text(), &POLICIES));
    }
    let grace = container.at(&["readinessProbe", "terminationGracePeriodSeconds"]);
    if grace.is_set() {
        let message = "must not be set for readinessProbes";
        errors.push(FieldError::invalid(&grace.path, grace.value.clone(), message));
    }
    resizes(spec, &container.child("resizePolicy"), errors);
    claims(spec, &container.at(&["resources", "claims"]), errors);
}

fn resizes(spec: &Node<'_>, list: &Node<'_>, errors: &mut ErrorList) {
    const CHOICES: [(&str, [&str; 2]); 2] =
        [("resourceName", ["cpu", "memory"]), ("restartPolicy", ["NotRequired", "RestartContainer"])];
    let mut seen = BTreeSet::new();
    for policy in list.items() {
        let resource = policy.child("resourceName").text();
        if !seen.insert(resource) {
            errors.push(FieldError::duplicate(&policy.path, resource));
        }
        for (member, known) in CHOICES {
            let text = policy.child(member).text();
            if text.is_empty() {
                errors.push(FieldError::required(&list.path, ""));
            } else if !known.contains(&text) {
                errors.push(FieldError::not_supported(&list.path, text, &known));
            }
        }
        let restarts = policy.child("restartPolicy").text();
        if spec.child("restartPolicy").text() == "Never" && restarts != "NotRequired" {
            let message = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(&list.path, restarts, message));
        }
    }
}

/// Claims of the pod, or single requests of them, that a container may use; none twice.
fn claims(spec: &Node<'_>, list: &Node<'_>, errors: &mut ErrorList) {
    let pods = spec.child("resourceClaims");
    let known: BTreeSet<&str> =
        pods.items().map(|claim| claim.child("name").text()).filter(|name| !name.is_empty()).collect();
    let mut seen: BTreeSet<(&str, &str)> = BTreeSet::new();
    for claim in list.items() {
        let (name, request) = (claim.child("name").text(), claim.child("request"));
        if name.is_empty() {
            errors.push(FieldError::required(&claim.path, ""));
            continue;
        }
        if !request.is_empty() {
            errors.invalid_each(&request.path, request.text(), names::dns1123_label(request.text()));
        }
        let of_claim = |what: &str| seen.iter().any(|(known, of)| *known == name && (what.is_empty() || *of == what));
        if of_claim(request.text()) || seen.contains(&(name, "")) {
            let whole = request.is_empty() || seen.contains(&(name, ""));
            let shown = if whole { name.to_owned() } else { format!("{name}/{}", request.text()) };
            errors.push(FieldError::duplicate(&claim.path, shown));
        }
        seen.insert((name, request.text()));
        if !known.contains(name) {
            let mut error = FieldError::not_found(&claim.path, name);
            let all: Vec<&str> = known.iter().copied().collect();
            let which = if all.is_empty() { " which is empty".to_owned() } else { format!(": {}", all.join(", ")) };
            error.detail = format!("must be one of the names in pod.spec.resourceClaims{which}");
            errors.push(error);
        }
    }
}

fn app_armor(profile: &Node<'_>, errors: &mut ErrorList) {
    const LONGEST: usize = 4095;
    const MISSING: &str = "must be set when AppArmor type is Localhost";
    if !profile.is_set() {
        return;
    }
    let (kind, path) = (profile.child("type"), profile.child("localhostProfile"));
    let text = path.text();
    match kind.text() {
        "" => errors.push(FieldError::required(&kind.path, "type is required when appArmorProfile is set")),
        "Localhost" if text != text.trim() => {
            errors.push(FieldError::invalid(&path.path, text, "must not be padded with whitespace"));
        }
        "Localhost" if text.is_empty() => errors.push(FieldError::required(&path.path, MISSING)),
        "Localhost" if text.len() > LONGEST => errors.push(FieldError::too_long(&path.path, LONGEST)),
        "RuntimeDefault" | "Unconfined" if path.is_set() => {
            let message = "can only be set when AppArmor type is Localhost";
            errors.push(FieldError::invalid(&path.path, text, message));
        }
        _ => {}
    }
}

/// When a container is started again by rules of its own.
fn restart_rules(container: &Node<'_>, errors: &mut ErrorList) {
    const MOST: usize = 20;
    const MOST_CODES: usize = 255;
    let (policy, rules) = (container.child("restartPolicy"), container.child("restartPolicyRules"));
    let count = rules.items().count();
    if count > 0 && policy.is_empty() {
        let message = "must specify restartPolicy when restart rules are used";
        errors.push(FieldError::required(&policy.path, message));
    }
    if count > MOST {
        errors.push(FieldError::too_many(&rules.path, count, MOST));
    }
    for rule in rules.items() {
        let (action, codes) = (rule.child("action"), rule.child("exitCodes"));
        // RestartAllContainers belongs to a feature that is off.
        known_or_required(&action, &["Restart"], errors);
        if !codes.is_set() {
            errors.push(FieldError::required(&codes.path, "must be specified"));
            continue;
        }
        let (operator, values) = (codes.child("operator"), codes.child("values"));
        known_or_required(&operator, &["In", "NotIn"], errors);
        let count = values.items().count();
        if count > MOST_CODES {
            errors.push(FieldError::too_many(&values.path, count, MOST_CODES));
        }
    }
}

fn known_or_required(node: &Node<'_>, known: &[&str], errors: &mut ErrorList) {
    if node.is_empty() {
        errors.push(FieldError::required(&node.path, ""));
    } else if !known.contains(&node.text()) {
        errors.push(FieldError::not_supported(&node.path, node.text(), known));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::validate::tests::created;

    fn refused(spec: Value, container: Value) -> Vec<String> {
        let (mut spec, mut first) = (spec, json!({"name": "c", "image": "i"}));
        first.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        spec["containers"] = json!([first]);
        created("", "Pod", json!({"spec": spec}))
    }

    #[test]
    fn system_parameters_have_names_and_namespaces_of_their_own() {
        let list = json!([{"name": "foo-", "value": "b"}, {"name": "kernel.shmmax", "value": "1"},
            {"name": "safe-and-unsafe", "value": "1"}, {"name": "bar..", "value": "4"}, {"name": "net/core.x", "value": "1"},
            {"name": "safe-and-unsafe", "value": "1"}]);
        let errors = refused(json!({"hostNetwork": true, "securityContext": {"sysctls": list}}), json!({}));
        let wrong = |index: usize, name: &str| {
            format!(
                "spec.securityContext.sysctls[{index}].name: Invalid value: \"{name}\": must have at most 253 characters and match regex {}",
                super::SYSCTL
            )
        };
        assert_eq!(
            errors,
            [
                wrong(0, "foo-"),
                wrong(3, "bar.."),
                "spec.securityContext.sysctls[4].name: Invalid value: \"net/core.x\": may not be specified when 'hostNetwork' is true".into(),
                "spec.securityContext.sysctls[5].name: Duplicate value: \"safe-and-unsafe\"".into(),
            ]
        );
    }

    #[test]
    fn what_a_pod_shares_and_asks_for_must_go_together() {
        let none = || json!({});
        let projected = json!({"sources": [{"secret": {"name": "a", "items": [{"key": "k", "path": "x"}]}},
            {"configMap": {"name": "b", "items": [{"key": "k", "path": "x"}]}}]});
        let mount = json!([{"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional"}]);
        let volume = json!([{"name": "v", "emptyDir": {}}]);
        let cases = [
            (
                json!({"hostPID": true, "shareProcessNamespace": true}),
                none(),
                "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
            ),
            (
                json!({"os": {"name": "bsd"}}),
                none(),
                "spec.os: Unsupported value: \"bsd\": supported values: \"linux\", \"windows\"",
            ),
            (
                json!({"securityContext": {"seccompProfile": {"type": "Localhost"}}}),
                none(),
                "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
            ),
            (
                none(),
                json!({"restartPolicy": "Bad"}),
                "spec.containers[0].restartPolicy: Unsupported value: \"Bad\": supported values: \"Always\", \"Never\", \"OnFailure\"",
            ),
            (
                none(),
                json!({"readinessProbe": {"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 2}}),
                "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 2: must not be set for readinessProbes",
            ),
            (
                json!({"volumes": volume}),
                json!({"volumeMounts": mount}),
                "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
            ),
            (
                none(),
                json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "Bad"}]}),
                "spec.containers[0].resizePolicy: Unsupported value: \"Bad\": supported values: \"NotRequired\", \"RestartContainer\"",
            ),
            (
                none(),
                json!({"resources": {"claims": [{"name": "x"}]}}),
                "spec.containers[0].resources.claims[0]: Not found: \"x\": must be one of the names in pod.spec.resourceClaims which is empty",
            ),
            (
                json!({"volumes": [{"name": "p", "projected": projected}]}),
                none(),
                "spec.volumes[0].projected: Invalid value: \"b\": conflicting duplicate paths",
            ),
            (
                json!({"resourceClaims": [{"name": "a", "resourceClaimName": "x"}]}),
                json!({"resources": {"claims": [{"name": "a", "request": "r"}, {"name": "a"}]}}),
                "spec.containers[0].resources.claims[1]: Duplicate value: \"a\"",
            ),
            (
                json!({"resourceClaims": [{"name": "a", "resourceClaimName": "x"}]}),
                json!({"resources": {"claims": [{"name": "a", "request": "r"}, {"name": "a", "request": "r"}]}}),
                "spec.containers[0].resources.claims[1]: Duplicate value: \"a/r\"",
            ),
            (
                json!({"securityContext": {"appArmorProfile": {"type": "Localhost", "localhostProfile": " x"}}}),
                none(),
                "spec.securityContext.appArmorProfile.localhostProfile: Invalid value: \" x\": must not be padded with whitespace",
            ),
            (
                none(),
                json!({"securityContext": {"procMount": "Unmasked"}}),
                "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
            ),
            (
                json!({"hostNetwork": true}),
                json!({"ports": [{"containerPort": 80, "hostPort": 81}]}),
                "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true",
            ),
            (
                none(),
                json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}),
                "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
            ),
            (
                none(),
                json!({"env": [{"name": "E", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}}]}),
                "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
            ),
            (
                none(),
                json!({"env": [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "spec.none"}}}]}),
                "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.none\": error converting fieldPath: field label not supported: spec.none",
            ),
            (
                none(),
                json!({"restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]}),
                "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
            ),
        ];
        for (spec, container, wanted) in cases {
            assert_eq!(refused(spec, container), [wanted]);
        }
    }
}
