//! Checks of a pod's volumes.

use std::collections::BTreeSet;

use super::containers::{FILE_FIELDS, field_ref, local_path, no_backsteps, range, resource_field_ref};
use super::node::Node;
use super::required;
use super::resources::amount_of;
use crate::field::{ErrorList, FieldError};
use crate::names;

/// Checks all volumes; gives their names.
pub(super) fn volumes<'a>(list: &Node<'a>, errors: &mut ErrorList) -> BTreeSet<&'a str> {
    let mut known = BTreeSet::new();
    for volume in list.items() {
        let name = volume.child("name");
        if required(&name, errors) {
            errors.invalid_each(&name.path, name.text(), names::dns1123_label(name.text()));
            if !known.insert(name.text()) {
                errors.push(FieldError::duplicate(&name.path, name.text()));
            }
        }
        source(&volume, errors);
    }
    known
}

fn source(volume: &Node<'_>, errors: &mut ErrorList) {
    let members = volume.value.as_object().into_iter().flatten().map(|(member, _)| member);
    let mut sources = members.filter(|member| *member != "name");
    if sources.next().is_none() {
        errors.push(FieldError::required(&volume.path, "must specify a volume type"));
    }
    for extra in sources {
        errors.push(FieldError::forbidden(&volume.path.child(extra), "may not specify more than 1 volume type"));
    }
    let set = |member: &str| Some(volume.child(member)).filter(Node::is_set);
    if let Some(directory) = set("emptyDir") {
        amount_of(&directory.child("sizeLimit"), errors);
    }
    if let Some(host) = set("hostPath") {
        let path = host.child("path");
        if required(&path, errors) {
            no_backsteps(&path, errors);
        }
    }
    for (member, name) in [("secret", "secretName"), ("configMap", "name")] {
        if let Some(files) = set(member) {
            required(&files.child(name), errors);
            modes(&files, errors);
            items(&files.child("items"), errors);
        }
    }
    if let Some(claim) = set("persistentVolumeClaim") {
        required(&claim.child("claimName"), errors);
    }
    if let Some(nfs) = set("nfs") {
        required(&nfs.child("server"), errors);
        let path = nfs.child("path");
        if required(&path, errors) && !path.text().starts_with('/') {
            errors.push(FieldError::invalid(&path.path, path.text(), "must be an absolute path"));
        }
    }
    if let Some(csi) = set("csi") {
        required(&csi.child("driver"), errors);
    }
    if let Some(files) = set("downwardAPI") {
        modes(&files, errors);
        downward(&files.child("items"), errors);
    }
    if let Some(projected) = set("projected") {
        modes(&projected, errors);
        for part in projected.child("sources").items() {
            projection(&part, errors);
        }
    }
    if let Some(ephemeral) = set("ephemeral") {
        let template = ephemeral.child("volumeClaimTemplate");
        if template.is_set() {
            super::storage::claim_spec(&template.child("spec"), errors);
        } else {
            errors.push(FieldError::required(&template.path, ""));
        }
    }
}

fn projection(part: &Node<'_>, errors: &mut ErrorList) {
    const KINDS: [&str; 6] =
        ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
    let given: Vec<&&str> = KINDS.iter().filter(|kind| part.child(kind).is_set()).collect();
    for extra in given.iter().skip(1) {
        let message = "may not specify more than 1 volume type per source";
        errors.push(FieldError::forbidden(&part.path.child(extra), message));
    }
    for kind in ["secret", "configMap"].map(|kind| part.child(kind)).iter().filter(|k| k.is_set()) {
        required(&kind.child("name"), errors);
        items(&kind.child("items"), errors);
    }
    downward(&part.at(&["downwardAPI", "items"]), errors);
    let token = part.child("serviceAccountToken");
    if token.is_set() {
        let seconds = token.child("expirationSeconds");
        if seconds.integer().is_some_and(|s| s < 600) {
            let message = "may not specify a duration less than 10 minutes";
            errors.push(FieldError::invalid(&seconds.path, seconds.value.clone(), message));
        }
        required(&token.child("path"), errors);
    }
}

fn items(list: &Node<'_>, errors: &mut ErrorList) {
    for item in list.items() {
        required(&item.child("key"), errors);
        let path = item.child("path");
        if required(&path, errors) {
            local_path(&path, errors);
        }
        mode(&item.child("mode"), errors);
    }
}

fn downward(list: &Node<'_>, errors: &mut ErrorList) {
    for item in list.items() {
        let path = item.child("path");
        if required(&path, errors) {
            local_path(&path, errors);
        }
        let (field, resource) = (item.child("fieldRef"), item.child("resourceFieldRef"));
        match (field.is_set(), resource.is_set()) {
            (false, false) => {
                let message = "one of fieldRef and resourceFieldRef is required";
                errors.push(FieldError::required(&field.path, message));
            }
            (true, true) => {
                let message = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(&list.path, "resource", message));
            }
            _ => {}
        }
        field_ref(&field, FILE_FIELDS, errors);
        resource_field_ref(&resource, errors);
        mode(&item.child("mode"), errors);
    }
}

fn modes(files: &Node<'_>, errors: &mut ErrorList) {
    mode(&files.child("defaultMode"), errors);
}

fn mode(node: &Node<'_>, errors: &mut ErrorList) {
    if node.integer().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        range(node, vec!["must be a number between 0 and 0777 (octal), both inclusive".to_owned()], errors);
    }
}
