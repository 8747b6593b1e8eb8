//! Checks of what a kubelet says of a pod.

use super::node::Node;
use super::{immutable, mixes_families};
use crate::field::{ErrorList, FieldError, Path};
use crate::names;

/// Conditions whose types need be no qualified names.
const SYSTEM_CONDITIONS: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];

/// Checks a change of the status: new, old.
pub(super) fn pod_status(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    let (now, before, spec) = (new.child("status"), old.child("status"), old.child("spec"));
    // Where upstream's message places them.
    let conditions = now.child("conditions").renamed(&Path::new("metadata").child("conditions"));
    for condition in conditions.items().filter(|condition| !SYSTEM_CONDITIONS.contains(&condition.child("type").text()))
    {
        let kind = condition.child("type").text();
        errors.invalid_each(&condition.path.child("Type"), kind, names::qualified_name(kind));
    }
    let nominated = now.child("nominatedNodeName");
    if !nominated.text().is_empty() && nominated.text() != before.child("nominatedNodeName").text() {
        errors.invalid_each(&nominated.path, nominated.text(), names::dns1123_subdomain(nominated.text()));
    }
    immutable(&now.child("qosClass"), &before.child("qosClass"), errors);
    let policy = spec.child("restartPolicy").text();
    for (list, containers, policy) in [
        ("containerStatuses", "containers", policy),
        ("initContainerStatuses", "initContainers", policy),
        ("ephemeralContainerStatuses", "ephemeralContainers", "Never"),
    ] {
        transitions(&now.child(list), &before.child(list), &spec.child(containers), policy, errors);
    }
    claims(&now.child("resourceClaimStatuses"), &spec.child("resourceClaims"), errors);
    addresses(&now.child("podIPs"), errors);
    host_addresses(&now, errors);
}

/// What has ended for good may not run again. `policy` is the pod's; a container may have its own, and rules beside it.
fn transitions(now: &Node<'_>, before: &Node<'_>, containers: &Node<'_>, policy: &str, errors: &mut ErrorList) {
    if policy == "Always" {
        return;
    }
    for (index, status) in before.items().enumerate() {
        let (ended, name) = (status.at(&["state", "terminated"]), status.child("name").text());
        let container = containers.items().find(|container| container.child("name").text() == name);
        let own = container.as_ref().map_or("", |container| container.child("restartPolicy").text());
        let ruled = container.is_some_and(|container| !container.child("restartPolicyRules").is_empty());
        let failed = ended.child("exitCode").integer().unwrap_or_default() != 0;
        let restarts = match if own.is_empty() { policy } else { own } {
            "Always" => true,
            "OnFailure" => failed,
            _ => false,
        };
        if !ended.is_set() || restarts || ruled {
            continue;
        }
        let runs =
            |other: &Node<'_>| other.child("name").text() == name && !other.at(&["state", "terminated"]).is_set();
        if now.items().any(|other| runs(&other)) {
            let path = now.path.index(index).child("state");
            errors.push(FieldError::forbidden(&path, "may not be transitioned to non-terminated state"));
        }
    }
}

fn claims(statuses: &Node<'_>, claims: &Node<'_>, errors: &mut ErrorList) {
    let mut seen = Vec::new();
    for status in statuses.items() {
        let (name, claim) = (status.child("name"), status.child("resourceClaimName"));
        if !claims.items().any(|claim| claim.child("name").text() == name.text()) {
            let message = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(FieldError::invalid(&name.path, name.text(), message));
        }
        if seen.contains(&name.text()) {
            errors.push(FieldError::duplicate(&name.path, name.text()));
        }
        seen.push(name.text());
        if claim.is_set() {
            errors.invalid_each(&name.path, claim.text(), names::dns1123_subdomain(claim.text()));
        }
    }
}

/// Addresses of a pod or its host: each valid, none twice, at most one of each family.
fn addresses(list: &Node<'_>, errors: &mut ErrorList) {
    let mut seen: Vec<&str> = Vec::new();
    for address in list.items() {
        let text = address.child("ip").text();
        errors.invalid_each(&address.path, text, names::ip_address(text));
        if seen.contains(&text) {
            errors.push(FieldError::duplicate(&address.path, address.value.clone()));
        }
        seen.push(text);
    }
    if seen.len() > 2 || (seen.len() == 2 && !mixes_families(&seen)) {
        let message = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(&list.path, list.value.clone(), message));
    }
}

fn host_addresses(status: &Node<'_>, errors: &mut ErrorList) {
    let list = status.child("hostIPs");
    let first = list.items().next().map(|address| address.child("ip"));
    if let Some(first) = first.filter(|first| first.text() != status.child("hostIP").text()) {
        errors.push(FieldError::invalid(&first.path, first.text(), "must be equal to `hostIP`"));
    }
    addresses(&list, errors);
}
