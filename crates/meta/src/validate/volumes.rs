//! Checks of a pod's volumes, and of the files that sources put into them.

use std::collections::{BTreeMap, BTreeSet};

use super::containers::{FILE_FIELDS, field_ref, file_path, range, resource_field_ref};
use super::node::Node;
use super::volume_sources::{Holder, source};
use super::{label_selector, labels, meta, required};
use crate::field::{ErrorList, FieldError};
use crate::names;

/// Checks all volumes; gives those that nothing is wrong with, by name. `pod` is the pod's name where there is one.
pub(super) fn volumes<'a>(
    list: &Node<'a>,
    pod: Option<&str>,
    holder: Holder,
    errors: &mut ErrorList,
) -> BTreeMap<&'a str, Node<'a>> {
    let mut known = BTreeMap::new();
    let claim_of = |volume: &str| pod.map(|pod| format!("{pod}-{volume}"));
    let mine: BTreeSet<String> = list
        .items()
        .filter(|volume| volume.child("ephemeral").is_set())
        .filter_map(|volume| claim_of(volume.child("name").text()))
        .collect();
    for volume in list.items() {
        let mut own = ErrorList::new();
        let name = volume.child("name");
        source(&volume, holder, &mut own);
        named(&volume, claim_of(name.text()).as_deref(), &mut own);
        if required(&name, &mut own) {
            own.invalid_each(&name.path, name.text(), names::dns1123_label(name.text()));
        }
        if known.contains_key(name.text()) {
            own.push(FieldError::duplicate(&name.path, name.text()));
        }
        if own.is_empty() {
            known.insert(name.text(), volume.clone());
        }
        errors.append(own);
        let claim = volume.at(&["persistentVolumeClaim", "claimName"]);
        if mine.contains(claim.text()) {
            let message = "must not reference a PVC that gets created for an ephemeral volume";
            errors.push(FieldError::invalid(&claim.path, claim.text(), message));
        }
    }
    known
}

pub(super) const LONG_TARGET: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

/// Whether the initiator of an iSCSI volume would have a longer name than one can have.
pub(super) fn target_is_long(name: &str, iscsi: &Node<'_>) -> bool {
    const LONGEST: usize = 64;
    let target = name.len() + 1 + iscsi.child("targetPortal").text().len();
    iscsi.child("initiatorName").is_set() && target > LONGEST
}

/// What a volume's name must fit besides.
fn named(volume: &Node<'_>, claim: Option<&str>, errors: &mut ErrorList) {
    let name = volume.child("name");
    if target_is_long(name.text(), &volume.child("iscsi")) {
        errors.push(FieldError::invalid(&name.path, name.text(), LONG_TARGET));
    }
    if let Some(claim) = claim.filter(|_| volume.child("ephemeral").is_set() && !name.is_empty()) {
        let messages = names::dns1123_subdomain(claim).into_iter();
        let messages = messages.map(|message| format!("PVC name {claim:?}: {message}")).collect();
        errors.invalid_each(&name.path, name.text(), messages);
    }
}

/// The template of the claim that is made for a pod.
pub(super) fn claim_template(template: &Node<'_>, errors: &mut ErrorList) {
    let metadata = template.child("metadata");
    meta::annotations(&metadata.child("annotations"), errors);
    labels(&metadata.child("labels"), errors);
    for (member, value) in metadata.value.as_object().into_iter().flatten() {
        if !matches!(member.as_str(), "annotations" | "labels") && !value.is_null() {
            errors.push(FieldError::forbidden(&metadata.path.child(member), "cannot be set"));
        }
    }
    super::storage::claim_spec(&template.child("spec"), errors);
}

/// Files of a Secret or ConfigMap.
pub(super) fn files(source: &Node<'_>, errors: &mut ErrorList) {
    mode(&source.child("defaultMode"), errors);
    items(&source.child("items"), errors);
}

/// Files that tell of the pod itself; `place` is where errors of a whole file are shown.
pub(super) fn downward(source: &Node<'_>, place: &Node<'_>, errors: &mut ErrorList) {
    mode(&source.child("defaultMode"), errors);
    for item in source.child("items").items() {
        // Upstream names no place in the list.
        let at = |member: &str| item.child(member).renamed(&place.path.child(member));
        let path = at("path");
        required(&path, errors);
        file_path(&path, errors);
        let (field, resource) = (at("fieldRef"), at("resourceFieldRef"));
        match (field.is_set(), resource.is_set()) {
            (true, true) => {
                field_ref(&field, FILE_FIELDS, errors);
                let message = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(&place.path, "resource", message));
            }
            (true, false) => field_ref(&field, FILE_FIELDS, errors),
            (false, true) => resource_field_ref(&resource, true, errors),
            (false, false) => {
                let message = "one of fieldRef and resourceFieldRef is required";
                errors.push(FieldError::required(&place.path, message));
            }
        }
        mode(&at("mode"), errors);
    }
}

/// Sources that put their files into one folder.
pub(super) fn projected(volume: &Node<'_>, errors: &mut ErrorList) {
    const KINDS: [&str; 6] =
        ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
    mode(&volume.child("defaultMode"), errors);
    let mut seen = BTreeSet::new();
    let mut taken = |path: &str, shown: &str, errors: &mut ErrorList| {
        if !path.is_empty() && !seen.insert(path.to_owned()) {
            errors.push(FieldError::invalid(&volume.path, shown, "conflicting duplicate paths"));
        }
    };
    for part in volume.child("sources").items() {
        let given = KINDS.iter().filter(|kind| part.child(kind).is_set()).count();
        for kind in ["secret", "configMap"].map(|kind| part.child(kind)).iter().filter(|kind| kind.is_set()) {
            let name = kind.child("name");
            required(&name, errors);
            for item in kind.child("items").items() {
                file(&item, errors);
                taken(item.child("path").text(), name.text(), errors);
            }
        }
        let own = part.child("downwardAPI");
        downward(&own, &own, errors);
        for item in own.child("items").items() {
            let path = item.child("path").text();
            taken(path, path, errors);
        }
        let token = part.child("serviceAccountToken");
        if token.is_set() {
            service_account_token(&token, volume, errors);
            let path = token.child("path").text();
            taken(path, path, errors);
        }
        let bundle = part.child("clusterTrustBundle");
        if bundle.is_set() {
            trust_bundle(&bundle.renamed(&part.path.child("clusterTrustBundlePEM")), errors);
            let path = part.at(&["clusterTrustBundle", "path"]).text();
            taken(path, path, errors);
        }
        if given > 1 {
            errors.push(FieldError::forbidden(&part.path, "may not specify more than 1 volume type"));
        }
    }
}

fn service_account_token(token: &Node<'_>, volume: &Node<'_>, errors: &mut ErrorList) {
    const SHORTEST: i64 = 600;
    const LONGEST: i64 = 1 << 32;
    let seconds = token.child("expirationSeconds");
    let message = match seconds.integer() {
        Some(..SHORTEST) => Some("may not specify a duration less than 10 minutes"),
        Some(asked) if asked > LONGEST => Some("may not specify a duration larger than 2^32 seconds"),
        _ => None,
    };
    if let Some(message) = message {
        errors.push(FieldError::invalid(&seconds.path, seconds.value.clone(), message));
    }
    // Upstream names the volume, not the source.
    let path = token.child("path").renamed(&volume.path.child("path"));
    required(&path, errors);
    file_path(&path, errors);
}

fn trust_bundle(bundle: &Node<'_>, errors: &mut ErrorList) {
    let (name, signer, selector) = (bundle.child("name"), bundle.child("signerName"), bundle.child("labelSelector"));
    match (name.is_set(), signer.is_set()) {
        (true, true) => {
            let message = "only one of name and signerName may be used";
            errors.push(FieldError::invalid(&bundle.path, bundle.value.clone(), message));
        }
        (true, false) => {
            if name.is_empty() {
                errors.push(FieldError::required(&name.path, "must be a valid object name"));
            }
            if selector.is_set() {
                let message = "labelSelector must be unset if name is specified";
                errors.push(FieldError::invalid(&selector.path, selector.value.clone(), message));
            }
        }
        (false, true) => {
            if signer.is_empty() {
                errors.push(FieldError::required(&signer.path, "must be a valid signer name"));
            }
            label_selector(&selector, errors);
        }
        (false, false) => {
            errors.push(FieldError::required(&bundle.path, "either name or signerName must be specified"));
        }
    }
    let path = bundle.child("path");
    required(&path, errors);
    file_path(&path, errors);
}

fn items(list: &Node<'_>, errors: &mut ErrorList) {
    list.items().for_each(|item| file(&item, errors));
}

/// A key and the file it becomes.
fn file(item: &Node<'_>, errors: &mut ErrorList) {
    required(&item.child("key"), errors);
    let path = item.child("path");
    required(&path, errors);
    file_path(&path, errors);
    mode(&item.child("mode"), errors);
}

fn mode(node: &Node<'_>, errors: &mut ErrorList) {
    if node.integer().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        range(node, vec!["must be a number between 0 and 0777 (octal), both inclusive".to_owned()], errors);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::validate::tests::created;

    fn refused(volumes: Value) -> Vec<String> {
        let spec = json!({"containers": [{"name": "c", "image": "i"}], "volumes": volumes, "serviceAccountName": "s"});
        created("", "Pod", json!({"metadata": {"name": "p"}, "spec": spec}))
    }

    #[test]
    fn projected_sources() {
        let volume = |source: Value| json!([{"name": "v", "projected": {"sources": [source]}}]);
        for (source, wanted) in [
            (
                json!({"serviceAccountToken": {"path": "/t", "expirationSeconds": 1}}),
                vec![
                    "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
                    "spec.volumes[0].projected.path: Invalid value: \"/t\": must be a relative path",
                ],
            ),
            (
                json!({"clusterTrustBundle": {"path": "..x"}}),
                vec![
                    "spec.volumes[0].projected.sources[0].clusterTrustBundlePEM: Required value: either name or signerName must be specified",
                    "spec.volumes[0].projected.sources[0].clusterTrustBundlePEM.path: Invalid value: \"..x\": must not start with '..'",
                ],
            ),
            (
                json!({"downwardAPI": {"items": [{"path": "a"}]}}),
                vec![
                    "spec.volumes[0].projected.sources[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
                ],
            ),
            (
                json!({"secret": {"name": "s"}, "configMap": {"name": "m"}}),
                vec!["spec.volumes[0].projected.sources[0]: Forbidden: may not specify more than 1 volume type"],
            ),
        ] {
            assert_eq!(refused(volume(source.clone())), wanted, "{source}");
        }
        let twice = json!({"clusterTrustBundle": {"name": "b", "path": "same"}});
        assert_eq!(
            refused(json!([{"name": "v", "projected": {"sources": [twice, twice]}}])),
            ["spec.volumes[0].projected: Invalid value: \"same\": conflicting duplicate paths"]
        );
    }

    #[test]
    fn claims_of_ephemeral_volumes() {
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        let own = |name: &str| json!({"name": name, "ephemeral": {"volumeClaimTemplate": {"spec": spec}}});
        assert_eq!(refused(json!([own("v")])), Vec::<String>::new());
        assert_eq!(
            refused(json!([own("v"), {"name": "w", "persistentVolumeClaim": {"claimName": "p-v"}}])),
            [
                "spec.volumes[1].persistentVolumeClaim.claimName: Invalid value: \"p-v\": must not reference a PVC that gets created for an ephemeral volume"
            ]
        );
        let mut named = own("v");
        named["ephemeral"]["volumeClaimTemplate"]["metadata"] = json!({"name": "x", "labels": {"a": "b"}});
        assert_eq!(
            refused(json!([named])),
            ["spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set"]
        );
    }
}
