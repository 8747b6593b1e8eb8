//! Checks of where a container has its pod's volumes.

use std::collections::{BTreeMap, BTreeSet};

use super::containers::{local_path, no_backsteps};
use super::node::Node;
use super::required;
use crate::field::{ErrorList, FieldError};

const PROPAGATIONS: [&str; 3] = ["Bidirectional", "HostToContainer", "None"];

/// Whether an element has this member of this value.
fn any(list: &Node<'_>, member: &str, value: &str) -> bool {
    list.items().any(|item| item.child(member).text() == value)
}

/// Volumes with files, at a path of the container.
pub(super) fn mounts(container: &Node<'_>, volumes: &BTreeMap<&str, Node<'_>>, errors: &mut ErrorList) {
    let (list, devices) = (container.child("volumeMounts"), container.child("volumeDevices"));
    let privileged = container.at(&["securityContext", "privileged"]).is_true();
    let mut paths = BTreeSet::new();
    for mount in list.items() {
        let (name, path) = (mount.child("name"), mount.child("mountPath"));
        required(&name, errors);
        if !volumes.contains_key(name.text()) {
            errors.push(FieldError::not_found(&name.path, name.text()));
        }
        required(&path, errors);
        let refusals = [
            (&path, !paths.insert(path.text()), "must be unique"),
            (&name, any(&devices, "name", name.text()), "must not already exist in volumeDevices"),
            (&path, any(&devices, "devicePath", path.text()), "must not already exist as a path in volumeDevices"),
        ];
        for (node, _, message) in refusals.into_iter().filter(|(_, refused, _)| *refused) {
            errors.push(FieldError::invalid(&node.path, node.text(), message));
        }
        // Upstream names the list for these, not the place in it.
        let shown = |member: &str| mount.child(member).renamed(&list.path.child(member));
        let (sub, expression) = (mount.child("subPath"), mount.child("subPathExpr"));
        local_path(&shown("subPath"), errors);
        if !sub.is_empty() && !expression.is_empty() {
            let message = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(&expression.path, expression.text(), message));
        }
        local_path(&shown("subPathExpr"), errors);
        let propagation = shown("mountPropagation");
        if propagation.is_set() && !PROPAGATIONS.contains(&propagation.text()) {
            errors.push(FieldError::not_supported(&propagation.path, propagation.text(), &PROPAGATIONS));
        }
        if propagation.text() == "Bidirectional" && !privileged {
            let message = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(FieldError::forbidden(&propagation.path, message));
        }
        read_only(&mount, &shown("recursiveReadOnly"), errors);
    }
}

/// Whether what is mounted below a mount is read-only too.
fn read_only(mount: &Node<'_>, recursive: &Node<'_>, errors: &mut ErrorList) {
    const KNOWN: [&str; 3] = ["Disabled", "Enabled", "IfPossible"];
    match recursive.text() {
        _ if !recursive.is_set() => return,
        "Disabled" => return,
        "Enabled" | "IfPossible" => {}
        other => return errors.push(FieldError::not_supported(&recursive.path, other, &KNOWN)),
    }
    if !mount.child("readOnly").is_true() {
        errors.push(FieldError::forbidden(&recursive.path, "may only be specified when readOnly is true"));
    }
    if !matches!(mount.child("mountPropagation").text(), "" | "None") {
        let message = "may only be specified when mountPropagation is None or not specified";
        errors.push(FieldError::forbidden(&recursive.path, message));
    }
}

/// Volumes as block devices.
pub(super) fn devices(container: &Node<'_>, volumes: &BTreeMap<&str, Node<'_>>, errors: &mut ErrorList) {
    let mounts = container.child("volumeMounts");
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for device in container.child("volumeDevices").items() {
        let (name, path) = (device.child("name"), device.child("devicePath"));
        required(&name, errors);
        let invalid = |node: &Node<'_>, message: &str| FieldError::invalid(&node.path, node.text(), message);
        if !name.is_empty() && !names.insert(name.text()) {
            errors.push(invalid(&name, "must be unique"));
        }
        match volumes.get(name.text()) {
            None => errors.push(FieldError::not_found(&name.path, name.text())),
            Some(volume) if ["persistentVolumeClaim", "ephemeral"].iter().any(|kind| volume.child(kind).is_set()) => {}
            Some(_) => {
                let message = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(invalid(&name, message));
            }
        }
        required(&path, errors);
        let mut backsteps = ErrorList::new();
        no_backsteps(&path, &mut backsteps);
        if paths.contains(path.text()) {
            errors.push(invalid(&path, "must be unique"));
        }
        if backsteps.is_empty() {
            paths.insert(path.text());
        } else {
            errors.push(invalid(&path, "can not contain backsteps ('..')"));
        }
        if any(&mounts, "name", name.text()) {
            errors.push(invalid(&name, "must not already exist in volumeMounts"));
        }
        if any(&mounts, "mountPath", path.text()) {
            errors.push(invalid(&path, "must not already exist as a path in volumeMounts"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::validate::tests::created;

    fn refused(container: Value) -> Vec<String> {
        let mut all = json!({"name": "c", "image": "i"});
        all.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        let volumes =
            json!([{"name": "dir", "emptyDir": {}}, {"name": "claim", "persistentVolumeClaim": {"claimName": "c"}}]);
        created("", "Pod", json!({"spec": {"containers": [all], "volumes": volumes}}))
    }

    #[test]
    fn places_of_volumes() {
        let device = |name: &str, path: &str| json!({"name": name, "devicePath": path});
        for (container, wanted) in [
            (
                json!({"volumeDevices": [device("claim", "/dev/x")], "volumeMounts": [{"name": "dir", "mountPath": "/d"}]}),
                vec![],
            ),
            (
                json!({"volumeMounts": [{"name": "none", "mountPath": "/d", "subPath": "/x"}]}),
                vec![
                    "spec.containers[0].volumeMounts[0].name: Not found: \"none\"",
                    "spec.containers[0].volumeMounts.subPath: Invalid value: \"/x\": must be a relative path",
                ],
            ),
            (
                json!({"volumeMounts": [{"name": "dir", "mountPath": "/d", "recursiveReadOnly": "Enabled"}]}),
                vec![
                    "spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
                ],
            ),
            (
                json!({"volumeDevices": [device("dir", "/dev/../x")]}),
                vec![
                    "spec.containers[0].volumeDevices[0].name: Invalid value: \"dir\": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                    "spec.containers[0].volumeDevices[0].devicePath: Invalid value: \"/dev/../x\": can not contain backsteps ('..')",
                ],
            ),
            (
                json!({"volumeDevices": [device("claim", "/d")], "volumeMounts": [{"name": "claim", "mountPath": "/e"}]}),
                vec![
                    "spec.containers[0].volumeMounts[0].name: Invalid value: \"claim\": must not already exist in volumeDevices",
                    "spec.containers[0].volumeDevices[0].name: Invalid value: \"claim\": must not already exist in volumeMounts",
                ],
            ),
        ] {
            assert_eq!(refused(container.clone()), wanted, "{container}");
        }
    }
}
