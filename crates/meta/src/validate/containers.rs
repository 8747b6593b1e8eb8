//! Checks of containers: names, images, ports, environment, probes, resources, mounts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::mounts::{devices, mounts};
use super::node::Node;
use super::resources::{container_resource_name, resources};
use super::volume_sources::Holder;
use super::{non_negative, required};
use crate::field::{ErrorList, FieldError};
use crate::{IntOrString, names};

/// What a container may refer to and what is taken.
pub(super) struct Surroundings<'a> {
    /// The pod's volumes by name.
    pub(super) volumes: BTreeMap<&'a str, Node<'a>>,
    pub(super) holder: Holder,
    pub(super) host_network: bool,
    /// Whether the pod's users are those of its node.
    pub(super) host_users: bool,
    /// Seconds the pod has to end.
    pub(super) grace: Option<i64>,
    /// Names of containers that are there from the start.
    pub(super) lasting: BTreeSet<&'a str>,
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
    // Of templates, some have blanks that somebody replaces.
    if required(&image, errors) && around.holder == Holder::Pod && image.text().trim() != image.text() {
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
                    handler(hook, &["exec", "httpGet", "tcpSocket", "sleep"], around.grace, errors);
                }
            }
            _ => probe(&part, member != "readinessProbe", errors),
        }
    }
    if role == Role::Ephemeral {
        ephemeral(node, around, errors);
    }
    ports(&node.child("ports"), role, around, errors);
    environment(&node.child("env"), errors);
    env_from(&node.child("envFrom"), errors);
    mounts(node, &around.volumes, errors);
    devices(node, &around.volumes, errors);
    resources(&node.child("resources"), container_resource_name, errors);
    let context = node.child("securityContext");
    security(&context, errors);
    if around.host_users && context.child("procMount").text() == "Unmasked" {
        let message = "`hostUsers` must be false to use `Unmasked`";
        errors.push(FieldError::invalid(&context.path.child("procMount"), "Unmasked", message));
    }
}

/// What an ephemeral container cannot have, because its pod runs already.
fn ephemeral(node: &Node<'_>, around: &Surroundings<'_>, errors: &mut ErrorList) {
    const MESSAGE: &str = "cannot be set for an Ephemeral Container";
    for member in ["ports", "resources", "resizePolicy", "restartPolicy", "restartPolicyRules"] {
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
    if !target.is_empty() && !around.lasting.contains(target.text()) {
        errors.push(FieldError::not_found(&target.path, target.text()));
    }
}

fn ports(list: &Node<'_>, role: Role, around: &mut Surroundings<'_>, errors: &mut ErrorList) {
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
        let value = host.integer().unwrap_or_default();
        let misses = value != number.integer().unwrap_or_default() && (around.holder == Holder::Pod || value != 0);
        if around.host_network && role == Role::Main && misses {
            let message = "must match `containerPort` when `hostNetwork` is true";
            errors.push(FieldError::invalid(&host.path, value, message));
        }
        if value != 0 {
            range(&host, names::port_number(value), errors);
            let taken = format!("{}/{}/{value}", port.child("protocol").text(), port.child("hostIP").text());
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
        resource_field_ref(&from.child("resourceFieldRef"), false, errors);
        let file = from.child("fileKeyRef");
        if file.is_set() {
            for member in ["key", "volumeName", "path"] {
                required(&file.child(member), errors);
            }
            file_path(&file.child("path"), errors);
        }
        for source in ["configMapKeyRef", "secretKeyRef"].map(|s| from.child(s)).iter().filter(|s| s.is_set()) {
            let name = source.child("name");
            errors.invalid_each(&name.path, name.text(), names::dns1123_subdomain(name.text()));
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

/// All fields that a pod can be told of itself, here or there.
const POD_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"];

/// A reference to a field of the pod itself; labels and annotations may be named one by one.
pub(super) fn field_ref(node: &Node<'_>, fields: &[&str], errors: &mut ErrorList) {
    if !node.is_set() {
        return;
    }
    let (version, path) = (node.child("apiVersion"), node.child("fieldPath"));
    if !required(&version, errors) || !required(&path, errors) {
        return;
    }
    let text = path.text();
    let subscript = text.strip_suffix("']").and_then(|start| start.split_once("['"));
    let why = match subscript {
        _ if version.text() != "v1" => format!("unsupported pod version: {}", version.text()),
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            return errors.invalid_each(&node.path, &key, names::qualified_name(&key));
        }
        Some(("metadata.labels", key)) => return errors.invalid_each(&node.path, key, names::qualified_name(key)),
        Some(_) => format!("field label does not support subscript: {text}"),
        None if fields.contains(&text) => return,
        None if [POD_FIELDS, ENV_FIELDS].iter().any(|known| known.contains(&text)) => {
            return errors.push(FieldError::not_supported(&path.path, text, fields));
        }
        None => format!("field label not supported: {text}"),
    };
    errors.push(FieldError::invalid(&path.path, text, format!("error converting fieldPath: {why}")));
}

/// A reference to what a container may use; a file's names the container.
pub(super) fn resource_field_ref(node: &Node<'_>, of_file: bool, errors: &mut ErrorList) {
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
    let (container, resource) = (node.child("containerName"), node.child("resource"));
    let name = resource.text();
    let huge = name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-");
    let named = (!of_file || required(&container, errors)) && required(&resource, errors);
    if named && !RESOURCES.contains(&name) && !huge {
        errors.push(FieldError::not_supported(&resource.path, name, RESOURCES));
    }
    divisor(&node.child("divisor"), name, errors);
}

/// What a resource's amount is divided by: units only.
fn divisor(node: &Node<'_>, resource: &str, errors: &mut ErrorList) {
    const BYTES: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let Some(amount) = node.quantity() else { return };
    let known: (&[&str], &str) = match resource.split_once('.').map_or("", |(_, kind)| kind) {
        "cpu" => (&["1m", "1"], "cpu resource"),
        "memory" => (&BYTES, "memory resource"),
        "ephemeral-storage" => (&BYTES, "local ephemeral storage resource"),
        kind if kind.starts_with("hugepages-") => (&BYTES, "hugepages resource"),
        _ => return,
    };
    let (units, what) = known;
    if !amount.is_zero() && !units.contains(&amount.to_string().as_str()) {
        let all = if units.len() == 2 { "1m and 1".to_owned() } else { units.join(", ") };
        let message = format!("only divisor's values {all} are supported with the {what}");
        errors.push(FieldError::invalid(&node.path, resource, message));
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
        // Upstream names the list, not the place in it.
        let refuse = |message: &str| FieldError::invalid(&list.path, "", message);
        for name in given.iter().map(|source| source.child("name")) {
            if required(&name, errors) {
                let stem = name.text().strip_suffix('-').unwrap_or(name.text());
                errors.invalid_each(&name.path, name.text(), names::dns1123_subdomain(stem));
            }
        }
        match given.len() {
            0 => errors.push(refuse("must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => errors.push(refuse("may not have more than one field specified at a time")),
        }
    }
}

fn probe(node: &Node<'_>, only_one_success: bool, errors: &mut ErrorList) {
    handler(node, &["exec", "httpGet", "tcpSocket", "grpc"], None, errors);
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

/// What is done to a container; of several ways the first counts. `grace` is how long a pause may be, in seconds.
fn handler(node: &Node<'_>, kinds: &[&str], grace: Option<i64>, errors: &mut ErrorList) {
    let mut given = kinds.iter().map(|kind| (*kind, node.child(kind))).filter(|(_, action)| action.is_set());
    let Some((kind, action)) = given.next() else {
        errors.push(FieldError::required(&node.path, "must specify a handler type"));
        return;
    };
    match kind {
        "exec" if action.child("command").is_empty() => {
            errors.push(FieldError::required(&action.path.child("command"), ""));
        }
        "sleep" => {
            let seconds = action.child("seconds").integer().unwrap_or_default();
            if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&seconds)) {
                let message = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                errors.push(FieldError::invalid(&action.path, seconds, message));
            }
        }
        "exec" => {}
        _ => port_reference(&action.child("port"), errors),
    }
    if kind == "httpGet" {
        required(&action.child("path"), errors);
        let headers = action.child("httpHeaders");
        for name in headers.items().map(|header| header.child("name")) {
            errors.invalid_each(&headers.path, name.text(), names::http_header_name(name.text()));
        }
    }
    for (_, extra) in given {
        errors.push(FieldError::forbidden(&extra.path, "may not specify more than 1 handler type"));
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

/// The path of a file in a volume: as [`local_path`], and none of the names that kubelets keep for themselves.
pub(super) fn file_path(node: &Node<'_>, errors: &mut ErrorList) {
    local_path(node, errors);
    if node.text().starts_with("..") && !node.text().starts_with("../") && node.text() != ".." {
        errors.push(FieldError::invalid(&node.path, node.text(), "must not start with '..'"));
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
    if node.child("allowPrivilegeEscalation").value == &Value::Bool(false) {
        let adds = node.at(&["capabilities", "add"]).items().any(|name| name.text() == "CAP_SYS_ADMIN");
        let against =
            [(node.child("privileged").is_true(), "`privileged` to true"), (adds, "`capabilities.Add` CAP_SYS_ADMIN")];
        for (_, what) in against.iter().filter(|(set, _)| *set) {
            let message = format!("cannot set `allowPrivilegeEscalation` to false and {what}");
            errors.push(FieldError::invalid(&node.path, node.value.clone(), message));
        }
    }
}
