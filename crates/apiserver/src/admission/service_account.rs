//! ServiceAccount: every pod has an account that exists, its token where programs look for it, and its pull secrets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kminik_meta::pod_annotations::MIRROR;
use kminik_meta::{Object, StatusError};
use serde_json::{Value, json};

use super::{Admission, Attributes, Operation};
use crate::auth::node::references::References;

const DEFAULT_ACCOUNT: &str = "default";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const ROOT_CA: &str = "kube-root-ca.crt";
/// One hour and a bit, which tells such tokens from others.
const TOKEN_SECONDS: i64 = 60 * 60 + 7;
/// A new namespace gets its default account from a controller; a pod waits this long for it.
const ACCOUNT_TIMEOUT: Duration = Duration::from_secs(1);

/// On accounts whose pods may only have the secrets that the account lists. Deprecated, and still acted on.
const ENFORCE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";
/// Containers as refusals call them, and where they are in a pod.
const CONTAINERS: [(&str, &str); 2] = [("init container", "initContainers"), ("container", "containers")];
const DEBUG_CONTAINERS: (&str, &str) = ("ephemeral container", "ephemeralContainers");

pub(super) struct ServiceAccount;

#[async_trait]
impl Admission for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is(Operation::Create, "", "pods") || is_debugging(attributes)
    }

    async fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Object) -> Result<(), StatusError> {
        if is_debugging(attributes) {
            return Ok(());
        }
        if pod.annotation(MIRROR).is_some() {
            let references = References::of(pod);
            if !references.service_account.is_empty() {
                return Err(attributes.forbidden("a mirror pod may not reference service accounts"));
            }
            return match references.secrets.is_empty() {
                true => Ok(()),
                false => Err(attributes.forbidden("a mirror pod may not reference secrets")),
            };
        }
        if pod.str(&["spec", "serviceAccountName"]).unwrap_or_default().is_empty() {
            pod.set(&["spec", "serviceAccountName"], DEFAULT_ACCOUNT);
        }
        let name = pod.str(&["spec", "serviceAccountName"]).unwrap_or_default().to_owned();
        let account = account(attributes, &name).await?.ok_or_else(|| {
            let namespace = attributes.namespace;
            attributes.forbidden(format!(
                "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
            ))
        })?;
        check_secrets(&account, pod).map_err(|why| attributes.forbidden(why))?;
        let own = pod.bool(&["spec", "automountServiceAccountToken"]);
        if own.or_else(|| account.bool(&["automountServiceAccountToken"])).unwrap_or(true) {
            mount_token(pod);
        }
        let secrets = account.array(&["imagePullSecrets"]);
        if pod.array(&["spec", "imagePullSecrets"]).is_empty() && !secrets.is_empty() {
            pod.set(&["spec", "imagePullSecrets"], secrets.to_vec());
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>, pod: Option<&Object>) -> Result<(), StatusError> {
        let Some(pod) = pod.filter(|pod| is_debugging(attributes) && pod.annotation(MIRROR).is_none()) else {
            return Ok(());
        };
        let name = pod.str(&["spec", "serviceAccountName"]).unwrap_or_default();
        match account(attributes, name).await? {
            Some(account) if enforces(&account) => {
                let (kind, list) = DEBUG_CONTAINERS;
                check_containers(&account, pod, kind, list).map_err(|why| attributes.forbidden(why))
            }
            _ => Ok(()),
        }
    }
}

/// Whether containers are put into a pod that runs.
fn is_debugging(attributes: &Attributes<'_>) -> bool {
    attributes.operation == Operation::Update
        && attributes.subresource == "ephemeralcontainers"
        && attributes.row.group.is_empty()
        && attributes.row.plural == "pods"
}

/// Whether pods of the account may only have the secrets that it lists.
fn enforces(account: &Object) -> bool {
    matches!(account.annotation(ENFORCE_SECRETS), Some("1" | "t" | "T" | "TRUE" | "true" | "True"))
}

/// The names that a list of references of the account has.
fn listed<'a>(account: &'a Object, list: &str) -> BTreeSet<&'a str> {
    account.array(&[list]).iter().filter_map(|reference| reference.get("name")?.as_str()).collect()
}

/// Refuses secrets that the account does not list, if it says so.
fn check_secrets(account: &Object, pod: &Object) -> Result<(), String> {
    if !enforces(account) {
        return Ok(());
    }
    let (own, name) = (listed(account, "secrets"), account.name());
    for volume in pod.array(&["spec", "volumes"]) {
        if let Some(secret) = volume["secret"]["secretName"].as_str().filter(|secret| !own.contains(secret)) {
            return Err(format!(
                "volume with secret.secretName=\"{secret}\" is not allowed because service account {name} does not reference that secret"
            ));
        }
    }
    for (kind, list) in CONTAINERS {
        check_containers(account, pod, kind, list)?;
    }
    let own = listed(account, "imagePullSecrets");
    for (index, reference) in pod.array(&["spec", "imagePullSecrets"]).iter().enumerate() {
        if let Some(secret) = reference["name"].as_str().filter(|secret| !own.contains(secret)) {
            return Err(format!(
                "imagePullSecrets[{index}].name=\"{secret}\" is not allowed because service account {name} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

fn check_containers(account: &Object, pod: &Object, kind: &str, list: &str) -> Result<(), String> {
    let own = listed(account, "secrets");
    let refusal = |container: &Value, how: String, secret: &str| {
        format!(
            "{kind} {} with {how} referencing secret.secretName=\"{secret}\" is not allowed because service account {} does not reference that secret",
            container["name"].as_str().unwrap_or_default(),
            account.name()
        )
    };
    let foreign = |secret: &Value| secret.as_str().filter(|secret| !own.contains(secret)).map(str::to_owned);
    for container in pod.array(&["spec", list]) {
        let items = |key: &str| container.get(key).and_then(Value::as_array).into_iter().flatten();
        for variable in items("env") {
            if let Some(secret) = foreign(&variable["valueFrom"]["secretKeyRef"]["name"]) {
                let how = format!("envVar {}", variable["name"].as_str().unwrap_or_default());
                return Err(refusal(container, how, &secret));
            }
        }
        for source in items("envFrom") {
            if let Some(secret) = foreign(&source["secretRef"]["name"]) {
                return Err(refusal(container, "envFrom".to_owned(), &secret));
            }
        }
    }
    Ok(())
}

/// The account, waited for if it is the default one of a namespace that is just being set up.
async fn account(attributes: &Attributes<'_>, name: &str) -> Result<Option<Arc<Object>>, StatusError> {
    let registry = attributes.registry;
    let cached = || registry.cached_object("", "serviceaccounts", attributes.namespace, name);
    if let Some(account) = cached() {
        return Ok(Some(account));
    }
    let mut changes = registry.cache().resource("core/serviceaccounts").subscribe();
    if let Some(account) = registry.object("", "serviceaccounts", attributes.namespace, name).await? {
        return Ok(Some(account));
    }
    if name != DEFAULT_ACCOUNT {
        return Ok(None);
    }
    let appears = async {
        loop {
            if let Some(account) = cached() {
                return Some(account);
            }
            if changes.changed().await.is_err() {
                return None;
            }
        }
    };
    Ok(tokio::time::timeout(ACCOUNT_TIMEOUT, appears).await.unwrap_or_default())
}

/// Adds the token volume, and mounts it in every container that has nothing at its place.
fn mount_token(pod: &mut Object) {
    let present = pod.array(&["spec", "volumes"]).iter().filter_map(|volume| volume.get("name")?.as_str());
    let present = present.into_iter().find(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned);
    let is_new = present.is_none();
    let name = present.unwrap_or_else(|| crate::verbs::write::generate_name(VOLUME_PREFIX));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in pod.get_mut(&["spec", list]).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                continue;
            }
            mounts.push(json!({ "name": name, "readOnly": true, "mountPath": MOUNT_PATH }));
            mounted = true;
        }
    }
    if !mounted || !is_new {
        return;
    }
    let mut volumes = pod.array(&["spec", "volumes"]).to_vec();
    volumes.push(json!({ "name": name, "projected": { "defaultMode": 0o644, "sources": [
        { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
        { "configMap": { "name": ROOT_CA, "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
        { "downwardAPI": { "items": [
            { "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } },
        ] } },
    ] } }));
    pod.set(&["spec", "volumes"], volumes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_mounted_where_nothing_is() {
        let own = json!({"name": "mine", "mountPath": MOUNT_PATH});
        let mut pod = Object::try_from(json!({"spec": {
            "initContainers": [{"name": "i"}], "containers": [{"name": "a", "volumeMounts": [own]}, {"name": "b"}]}}))
        .unwrap();
        mount_token(&mut pod);
        let volumes = pod.array(&["spec", "volumes"]);
        assert_eq!(volumes.len(), 1);
        let name = volumes[0]["name"].as_str().unwrap();
        assert!(name.starts_with(VOLUME_PREFIX) && name.len() == VOLUME_PREFIX.len() + 5, "{name}");
        let mount = |pointer: &str| pod.pointer(pointer).unwrap()["name"].as_str().unwrap();
        assert_eq!(mount("/spec/containers/0/volumeMounts/0"), "mine");
        assert_eq!(mount("/spec/containers/1/volumeMounts/0"), name);
        assert_eq!(mount("/spec/initContainers/0/volumeMounts/0"), name);
        let again = pod.clone();
        mount_token(&mut pod);
        assert_eq!(pod, again);
    }
}
