//! Checks of containers: names, images, ports, environment, probes, resources, mounts.

use std::collections::BTreeSet;

use serde_json::Value;

use super::node::Node;
use super::resources::resources;
use super::{non_negative, required};
use crate::field::{ErrorList, FieldError};
use crate::{IntOrString, names};

/// What a container may refer to and what is taken.
pub(super) struct Surroundings<'a> {
    /// Names of the pod's volumes.
    pub(super) volumes: BTreeSet<&'a str>,
    pub(super) host_network: bool,
    /// Names of containers seen so far.
    pub(super) names: BTreeSet<String>,
    /// Host ports seen so far, as `protocol/ip/port`.
    pub(super) host_ports: BTreeSet<String>,
}

/// Kinds of containers by their rules.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Main,
    Init,
    Ephemeral,
}

pub(super) fn container(node: &Node<'_>, role: Role, around: &mut Surroundings<'_>, errors: &mut ErrorList) {
    let name = node.child("name");
    if required(&name, errors) {
        errors.invalid_each(&name.path, name.text(), names::dns1123_label(name.text()));
        if !around.names.insert(name.text().to_owned()) {
            errors.push(FieldError::duplicate(&name.path, name.text()));
        }
    }
    let image = node.child("image");
    if required(&image, errors) && image.text().trim() != image.text() {
        let message = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(&image.path, image.text(), message));
    }
    let restarts = node.child("restartPolicy").text() == "Always";
    for member in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
        let part = node.child(member);
        if !part.is_set() {
            continue;
        }
        match role {
            Role::Init if !restarts => errors.push(FieldError::forbidden(
                &part.path,
                "may not be set for init containers without restartPolicy=Always",
            )),
            Role::Ephemeral => {
                errors.push(FieldError::forbidden(&part.path, "cannot be set for an Ephemeral Container"));
            }
            _ if member == "lifecycle" => {
                for hook in ["postStart", "preStop"].map(|hook| part.child(hook)).iter().filter(|h| h.is_set()) {
                    handler(hook, &["exec", "httpGet", "tcpSocket", "sleep"], errors);
                }
            }
            _ => probe(&part, member != "readinessProbe", errors),
        }
    }
    if role == Role::Ephemeral {
        ephemeral(node, around, errors);
    }
    ports(&node.child("ports"), around, errors);
    environment(&node.child("env"), errors);
    env_from(&node.child("envFrom"), errors);
    mounts(&node.child("volumeMounts"), around, errors);
    resources(&node.child("resources"), errors);
    security(&node.child("securityContext"), errors);
}

/// What an ephemeral container cannot have, because its pod runs already.
fn ephemeral(node: &Node<'_>, around: &Surroundings<'_>, errors: &mut ErrorList) {
    const MESSAGE: &str = "cannot be set for an Ephemeral Container";
    for member in ["ports", "resources", "resizePolicy"] {
        let part = node.child(member);
        if !part.is_empty() {
            errors.push(FieldError::forbidden(&part.path, MESSAGE));
        }
    }
    for mount in node.child("volumeMounts").items() {
        for member in ["subPath", "subPathExpr"] {
            let part = mount.child(member);
            if !part.is_empty() {
                errors.push(FieldError::forbidden(&part.path, MESSAGE));
            }
        }
    }
    let target = node.child("targetContainerName");
    if !target.is_empty() && !around.names.contains(target.text()) {
        errors.push(FieldError::not_found(&target.path, target.text()));
    }
}

fn ports(list: &Node<'_>, around: &mut Surroundings<'_>, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for port in list.items() {
        let name = port.child("name");
        if !name.text().is_empty() {
            let messages = names::port_name(name.text());
            if messages.is_empty() && !seen.insert(name.text()) {
                errors.push(FieldError::duplicate(&name.path, name.text()));
            }
            errors.invalid_each(&name.path, name.text(), messages);
        }
        let number = port.child("containerPort");
        match number.integer().unwrap_or_default() {
            0 => errors.push(FieldError::required(&number.path, "")),
            value => range(&number, names::port_number(value), errors),
        }
        let host = port.child("hostPort");
        if let Some(value) = host.integer().filter(|v| *v != 0) {
            range(&host, names::port_number(value), errors);
            if around.host_network && number.integer() != Some(value) {
                let message = "must match `hostPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(&number.path, number.value.clone(), message));
            }
            let ip = port.child("hostIP").text();
            let taken =
                format!("{}/{}/{value}", port.child("protocol").text(), if ip.is_empty() { "0.0.0.0" } else { ip });
            if !around.host_ports.insert(taken.clone()) {
                errors.push(FieldError::duplicate(&host.path, taken));
            }
        }
        required(&port.child("protocol"), errors);
    }
}

/// Adds an error a message about a number.
pub(super) fn range(node: &Node<'_>, messages: Vec<String>, errors: &mut ErrorList) {
    errors.extend(messages.into_iter().map(|m| FieldError::invalid(&node.path, node.value.clone(), m)));
}

fn environment(list: &Node<'_>, errors: &mut ErrorList) {
    const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    for variable in list.items() {
        let name = variable.child("name");
        if required(&name, errors) {
            errors.invalid_each(&name.path, name.text(), names::env_var_name(name.text()));
        }
        let from = variable.child("valueFrom");
        if !from.is_set() {
            continue;
        }
        let given: Vec<Node<'_>> = SOURCES.iter().map(|s| from.child(s)).filter(Node::is_set).collect();
        let message = match given.len() {
            0 => Some(
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            ),
            _ if !variable.child("value").is_empty() => Some("may not be specified when `value` is not empty"),
            1 => None,
            _ => Some("may not have more than one field specified at a time"),
        };
        if let Some(message) = message {
            errors.push(FieldError::invalid(&from.path, "", message));
        }
        field_ref(&from.child("fieldRef"), ENV_FIELDS, errors);
        resource_field_ref(&from.child("resourceFieldRef"), errors);
        for source in ["configMapKeyRef", "secretKeyRef"].map(|s| from.child(s)).iter().filter(|s| s.is_set()) {
            required(&source.child("name"), errors);
            let key = source.child("key");
            if required(&key, errors) {
                errors.invalid_each(&key.path, key.text(), names::config_map_key(key.text()));
            }
        }
    }
}

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
pub(super) const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// A reference to a field of the pod itself; labels and annotations may be named one by one.
pub(super) fn field_ref(node: &Node<'_>, fields: &[&str], errors: &mut ErrorList) {
    if !node.is_set() {
        return;
    }
    required(&node.child("apiVersion"), errors);
    let path = node.child("fieldPath");
    if !required(&path, errors) {
        return;
    }
    let subscript = path.text().strip_suffix("']").and_then(|p| p.split_once("['"));
    match subscript {
        Some(("metadata.labels" | "metadata.annotations", key)) => {
            let key_messages = names::qualified_name(&key.to_lowercase());
            errors.invalid_each(&node.path, key, key_messages);
        }
        Some((other, _)) => {
            let message = format!("does not support subscript {other}");
            errors.push(FieldError::invalid(&node.path, path.text(), message));
        }
        None if fields.contains(&path.text()) => {}
        None => errors.push(FieldError::not_supported(&path.path, path.text(), fields)),
    }
}

pub(super) fn resource_field_ref(node: &Node<'_>, errors: &mut ErrorList) {
    const RESOURCES: &[&str] = &[
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    if !node.is_set() {
        return;
    }
    let resource = node.child("resource");
    if !required(&resource, errors) {
        return;
    }
    let name = resource.text();
    let huge = name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-");
    if !RESOURCES.contains(&name) && !huge {
        errors.push(FieldError::not_supported(&resource.path, name, RESOURCES));
    }
}

fn env_from(list: &Node<'_>, errors: &mut ErrorList) {
    for source in list.items() {
        let prefix = source.child("prefix");
        if !prefix.is_empty() {
            errors.invalid_each(&prefix.path, prefix.text(), names::env_var_name(prefix.text()));
        }
        let given: Vec<Node<'_>> =
            ["configMapRef", "secretRef"].map(|s| source.child(s)).into_iter().filter(Node::is_set).collect();
        match given.as_slice() {
            [] => {
                errors.push(FieldError::invalid(&source.path, "", "must specify one of: `configMapRef` or `secretRef`"))
            }
            [one] => {
                required(&one.child("name"), errors);
            }
            _ => {
                let message = "may not have more than one field specified at a time";
                errors.push(FieldError::invalid(&source.path, "", message));
            }
        }
    }
}

fn probe(node: &Node<'_>, only_one_success: bool, errors: &mut ErrorList) {
    handler(node, &["exec", "httpGet", "tcpSocket", "grpc"], errors);
    for member in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        non_negative(&node.child(member), errors);
    }
    let success = node.child("successThreshold");
    if only_one_success && success.integer().is_some_and(|n| n != 1) {
        errors.push(FieldError::invalid(&success.path, success.value.clone(), "must be 1"));
    }
    let grace = node.child("terminationGracePeriodSeconds");
    if grace.integer().is_some_and(|n| n <= 0) {
        errors.push(FieldError::invalid(&grace.path, grace.value.clone(), "must be greater than 0"));
    }
}

fn handler(node: &Node<'_>, kinds: &[&str], errors: &mut ErrorList) {
    let given: Vec<&&str> = kinds.iter().filter(|kind| node.child(kind).is_set()).collect();
    if given.is_empty() {
        errors.push(FieldError::required(&node.path, "must specify a handler type"));
    }
    for extra in given.iter().skip(1) {
        errors.push(FieldError::forbidden(&node.path.child(extra), "may not specify more than 1 handler type"));
    }
    let exec = node.child("exec");
    if exec.is_set() && exec.child("command").is_empty() {
        errors.push(FieldError::required(&exec.path.child("command"), ""));
    }
    let http = node.child("httpGet");
    if http.is_set() {
        required(&http.child("path"), errors);
        for header in http.child("httpHeaders").items() {
            let name = header.child("name");
            errors.invalid_each(&name.path, name.text(), names::http_header_name(name.text()));
        }
    }
    for kind in ["httpGet", "tcpSocket", "grpc"] {
        let part = node.child(kind);
        if part.is_set() {
            port_reference(&part.child("port"), errors);
        }
    }
}

/// A port by number or name.
pub(super) fn port_reference(node: &Node<'_>, errors: &mut ErrorList) {
    let messages = match IntOrString::from_value(node.value) {
        Some(IntOrString::Int(number)) => names::port_number(number.into()),
        Some(IntOrString::String(name)) => names::port_name(&name),
        None => return errors.push(FieldError::required(&node.path, "")),
    };
    range(node, messages, errors);
}

fn mounts(list: &Node<'_>, around: &Surroundings<'_>, errors: &mut ErrorList) {
    let mut paths = BTreeSet::new();
    for mount in list.items() {
        let name = mount.child("name");
        if required(&name, errors) && !around.volumes.contains(name.text()) {
            errors.push(FieldError::not_found(&name.path, name.text()));
        }
        let path = mount.child("mountPath");
        if required(&path, errors) && !paths.insert(path.text()) {
            errors.push(FieldError::invalid(&path.path, path.text(), "must be unique"));
        }
        let (sub, expression) = (mount.child("subPath"), mount.child("subPathExpr"));
        for node in [&sub, &expression] {
            local_path(node, errors);
        }
        if !sub.is_empty() && !expression.is_empty() {
            let message = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(&expression.path, expression.text(), message));
        }
    }
}

/// A path inside a volume: relative and without a way up.
pub(super) fn local_path(node: &Node<'_>, errors: &mut ErrorList) {
    if node.text().starts_with('/') {
        errors.push(FieldError::invalid(&node.path, node.text(), "must be a relative path"));
    }
    no_backsteps(node, errors);
}

pub(super) fn no_backsteps(node: &Node<'_>, errors: &mut ErrorList) {
    if node.text().split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(&node.path, node.text(), "must not contain '..'"));
    }
}

/// Users and groups of a container or pod.
pub(super) fn security(node: &Node<'_>, errors: &mut ErrorList) {
    for member in ["runAsUser", "runAsGroup", "fsGroup"] {
        let id = node.child(member);
        if let Some(number) = id.integer() {
            range(&id, names::in_range(number, 0, i64::from(i32::MAX)), errors);
        }
    }
    for group in node.child("supplementalGroups").items() {
        if let Some(number) = group.integer() {
            range(&group, names::in_range(number, 0, i64::from(i32::MAX)), errors);
        }
    }
    if node.child("privileged").is_true() && node.child("allowPrivilegeEscalation").value == &Value::Bool(false) {
        let message = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(FieldError::invalid(&node.path, node.value.clone(), message));
    }
}
