//! Checks of a pod's surroundings: what it shares with its node, its system parameters, and what its containers may ask of them.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

use super::containers::local_path;
use super::node::Node;
use crate::field::{ErrorList, FieldError};

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
    sysctls(spec, &context.child("sysctls"), errors);
    seccomp(&context.child("seccompProfile"), errors);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.child(list).items() {
            container_context(spec, &container, errors);
        }
    }
    for volume in spec.child("volumes").items() {
        projected_paths(&volume.child("projected"), errors);
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
            errors.push(FieldError::invalid(&name.path, text, "may not be set with 'hostNetwork' enabled"));
        } else if ipc && of_ipc {
            errors.push(FieldError::invalid(&name.path, text, "may not be set with 'hostIPC' enabled"));
        }
    }
}

fn seccomp(profile: &Node<'_>, errors: &mut ErrorList) {
    let path = profile.child("localhostProfile");
    match (profile.child("type").text(), path.is_set()) {
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
    let restarts = container.child("restartPolicy");
    if restarts.is_set() && !POLICIES.contains(&restarts.text()) {
        errors.push(FieldError::not_supported(&restarts.path, restarts.text(), &POLICIES));
    }
    let grace = container.at(&["readinessProbe", "terminationGracePeriodSeconds"]);
    if grace.is_set() {
        let message = "must not be set for readinessProbes";
        errors.push(FieldError::invalid(&grace.path, grace.value.clone(), message));
    }
    for mount in container.child("volumeMounts").items() {
        let propagation = mount.child("mountPropagation");
        if propagation.text() == "Bidirectional" && !context.child("privileged").is_true() {
            let message = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(FieldError::forbidden(&propagation.path, message));
        }
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

fn claims(spec: &Node<'_>, list: &Node<'_>, errors: &mut ErrorList) {
    let pods = spec.child("resourceClaims");
    let known: BTreeSet<&str> = pods.items().map(|claim| claim.child("name").text()).collect();
    for claim in list.items() {
        let name = claim.child("name").text();
        if name.is_empty() {
            errors.push(FieldError::required(&claim.path, ""));
        } else if !known.contains(name) {
            let mut error = FieldError::not_found(&claim.path, name);
            let all: Vec<&str> = known.iter().copied().collect();
            let which = if all.is_empty() { " which is empty".to_owned() } else { format!(": {}", all.join(", ")) };
            error.detail = format!("must be one of the names in pod.spec.resourceClaims{which}");
            errors.push(error);
        }
    }
}

/// Sources of a projected volume put their files in one folder.
fn projected_paths(projected: &Node<'_>, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for source in projected.child("sources").items() {
        for kind in ["secret", "configMap", "downwardAPI"] {
            let part = source.child(kind);
            for item in part.child("items").items() {
                let path = item.child("path").text();
                if !path.is_empty() && !seen.insert(path) {
                    let shown = if kind == "downwardAPI" { path } else { part.child("name").text() };
                    errors.push(FieldError::invalid(&projected.path, shown, "conflicting duplicate paths"));
                }
            }
        }
        let path = source.at(&["serviceAccountToken", "path"]).text();
        if !path.is_empty() && !seen.insert(path) {
            errors.push(FieldError::invalid(&projected.path, path, "conflicting duplicate paths"));
        }
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
                "spec.securityContext.sysctls[4].name: Invalid value: \"net/core.x\": may not be set with 'hostNetwork' enabled".into(),
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
                "spec.containers[0].volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
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
        ];
        for (spec, container, wanted) in cases {
            assert_eq!(refused(spec, container), [wanted]);
        }
    }
}
