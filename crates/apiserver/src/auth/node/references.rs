//! What a pod refers to in its namespace, and a volume to secrets: pure functions of the objects.

use std::collections::BTreeSet;

use kminik_meta::Object;
use serde_json::Value;

/// Names of the objects that a pod needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References {
    pub secrets: BTreeSet<String>,
    pub config_maps: BTreeSet<String>,
    pub claims: BTreeSet<String>,
    pub resource_claims: BTreeSet<String>,
    /// Empty if the pod names none.
    pub service_account: String,
}

/// Volume sources that name a secret, with the path to its name.
const VOLUME_SECRETS: &[&[&str]] = &[
    &["secret", "secretName"],
    &["csi", "nodePublishSecretRef", "name"],
    &["iscsi", "secretRef", "name"],
    &["rbd", "secretRef", "name"],
    &["cephfs", "secretRef", "name"],
    &["flexVolume", "secretRef", "name"],
    &["scaleIO", "secretRef", "name"],
    &["storageos", "secretRef", "name"],
    &["azureFile", "secretName"],
];

/// Fields of a pod's spec that hold containers.
const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

impl References {
    pub fn of(pod: &Object) -> Self {
        let mut references = References {
            service_account: pod.str(&["spec", "serviceAccountName"]).unwrap_or_default().to_owned(),
            ..References::default()
        };
        for secret in pod.array(&["spec", "imagePullSecrets"]) {
            add(&mut references.secrets, secret, &["name"]);
        }
        for list in CONTAINER_LISTS {
            for container in pod.array(&["spec", list]) {
                for variable in items(container, "env") {
                    add(&mut references.secrets, variable, &["valueFrom", "secretKeyRef", "name"]);
                    add(&mut references.config_maps, variable, &["valueFrom", "configMapKeyRef", "name"]);
                }
                for source in items(container, "envFrom") {
                    add(&mut references.secrets, source, &["secretRef", "name"]);
                    add(&mut references.config_maps, source, &["configMapRef", "name"]);
                }
            }
        }
        for claim in pod.array(&["spec", "resourceClaims"]) {
            add(&mut references.resource_claims, claim, &["resourceClaimName"]);
        }
        // Claims made from a template get their names when they are made.
        for claim in pod.array(&["status", "resourceClaimStatuses"]) {
            add(&mut references.resource_claims, claim, &["resourceClaimName"]);
        }
        add_if(
            &mut references.resource_claims,
            pod.get(&["status", "extendedResourceClaimStatus"]),
            &["resourceClaimName"],
        );
        for volume in pod.array(&["spec", "volumes"]) {
            for path in VOLUME_SECRETS {
                add(&mut references.secrets, volume, path);
            }
            add(&mut references.config_maps, volume, &["configMap", "name"]);
            add(&mut references.claims, volume, &["persistentVolumeClaim", "claimName"]);
            if let (Some(_), Some(name)) = (volume.get("ephemeral"), volume.get("name").and_then(Value::as_str)) {
                references.claims.insert(format!("{}-{name}", pod.name()));
            }
            for source in volume.get("projected").map(|projected| items(projected, "sources")).unwrap_or_default() {
                add(&mut references.secrets, source, &["secret", "name"]);
                add(&mut references.config_maps, source, &["configMap", "name"]);
            }
        }
        references
    }
}

/// Sources of a persistent volume that name a secret, with the path to the reference.
const PERSISTENT_VOLUME_SECRETS: &[&[&str]] = &[
    &["azureFile"],
    &["cephfs", "secretRef"],
    &["cinder", "secretRef"],
    &["flexVolume", "secretRef"],
    &["rbd", "secretRef"],
    &["scaleIO", "secretRef"],
    &["iscsi", "secretRef"],
    &["storageos", "secretRef"],
    &["csi", "controllerPublishSecretRef"],
    &["csi", "nodePublishSecretRef"],
    &["csi", "nodeStageSecretRef"],
    &["csi", "controllerExpandSecretRef"],
    &["csi", "nodeExpandSecretRef"],
];

/// Whether a persistent volume needs the secret; a reference without a namespace means that of the claim.
pub fn volume_needs_secret(volume: &Object, namespace: &str, name: &str) -> bool {
    let claim_namespace = volume.str(&["spec", "claimRef", "namespace"]).unwrap_or_default();
    let Some(spec) = volume.get(&["spec"]) else { return false };
    PERSISTENT_VOLUME_SECRETS.iter().any(|path| {
        let found = path.iter().try_fold(spec, |value, key| value.get(key));
        let text = |keys: [&str; 2]| keys.iter().find_map(|key| found?.get(*key)?.as_str()).unwrap_or_default();
        let own = Some(text(["namespace", "secretNamespace"])).filter(|own| !own.is_empty());
        text(["name", "secretName"]) == name && own.unwrap_or(claim_namespace) == namespace
    })
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn add_if(names: &mut BTreeSet<String>, value: Option<&Value>, path: &[&str]) {
    if let Some(value) = value {
        add(names, value, path);
    }
}

fn add(names: &mut BTreeSet<String>, value: &Value, path: &[&str]) {
    let found = path.iter().try_fold(value, |value, key| value.get(key));
    if let Some(name) = found.and_then(Value::as_str).filter(|name| !name.is_empty()) {
        names.insert(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_of_reference_is_found() {
        let pod = Object::try_from(json!({"metadata": {"name": "p"}, "spec": {
            "serviceAccountName": "sa",
            "imagePullSecrets": [{"name": "pull"}],
            "resourceClaims": [{"name": "a", "resourceClaimName": "r1"}, {"name": "b"}],
            "initContainers": [{"envFrom": [{"configMapRef": {"name": "cm1"}}]}],
            "containers": [{"env": [
                {"valueFrom": {"secretKeyRef": {"name": "s1"}}}, {"valueFrom": {"configMapKeyRef": {"name": "cm2"}}}]}],
            "volumes": [
                {"secret": {"secretName": "s2"}}, {"persistentVolumeClaim": {"claimName": "c1"}},
                {"name": "e", "ephemeral": {}}, {"csi": {"nodePublishSecretRef": {"name": "s3"}}},
                {"projected": {"sources": [{"secret": {"name": "s4"}}, {"configMap": {"name": "cm3"}}]}}]},
            "status": {"resourceClaimStatuses": [{"name": "b", "resourceClaimName": "r2"}]}}));
        let found = References::of(&pod.unwrap());
        let names = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(names(&found.secrets), "pull s1 s2 s3 s4");
        assert_eq!(names(&found.config_maps), "cm1 cm2 cm3");
        assert_eq!(names(&found.claims), "c1 p-e");
        assert_eq!(names(&found.resource_claims), "r1 r2");
        assert_eq!(found.service_account, "sa");
    }

    #[test]
    fn volumes_need_the_secrets_they_name() {
        let volume = Object::try_from(json!({"spec": {"claimRef": {"namespace": "a", "name": "c"},
            "csi": {"nodeStageSecretRef": {"name": "s", "namespace": "b"}}, "azureFile": {"secretName": "z"}}}))
        .unwrap();
        assert!(volume_needs_secret(&volume, "b", "s") && volume_needs_secret(&volume, "a", "z"));
        assert!(!volume_needs_secret(&volume, "a", "s") && !volume_needs_secret(&volume, "b", "z"));
    }
}
