//! Which tokens a kubelet may ask for: of a pod that is on its node, and for audiences that the pod's volumes ask for. Others need a
//! right of their own.

use kminik_meta::field::quote;
use kminik_meta::{Object, StatusError};
use serde_json::Value;

use super::Attributes;
use crate::auth::{Attributes as AuthAttributes, Authorizer};

/// The verb on a resource of the audience's name, in the account's namespace and with its name.
const VERB: &str = "request-serviceaccounts-token-audience";

/// Looks at a TokenRequest of a node.
///
/// # Errors
/// 404 without the pod, 403 for what is not the node's to ask.
pub(super) async fn check(
    node: &str,
    attributes: &Attributes<'_>,
    request: &Object,
    authorizer: &dyn Authorizer,
) -> Result<(), StatusError> {
    let refused = |why: &str| Err(attributes.forbidden(why));
    let text = |member: &str| request.str(&["spec", "boundObjectRef", member]).unwrap_or_default();
    if (text("apiVersion"), text("kind")) != ("v1", "Pod") || text("name").is_empty() {
        return refused("node requested token not bound to a pod");
    }
    if text("uid").is_empty() {
        return refused("node requested token with a pod binding without a uid");
    }
    let found = attributes.registry.object("", "pods", attributes.namespace, text("name")).await?;
    let pod = found.ok_or_else(|| StatusError::not_found("", "pods", text("name")))?;
    if pod.uid() != text("uid") {
        return refused(&format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text("uid")
        ));
    }
    if pod.str(&["spec", "nodeName"]) != Some(node) {
        return refused("node requested token bound to a pod scheduled on a different node");
    }
    let audience = match request.array(&["spec", "audiences"]) {
        [] => "",
        [audience] => audience.as_str().unwrap_or_default(),
        _ => return refused("node may only request 0 or 1 audiences"),
    };
    match asks(attributes, &pod, audience) {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(why) => return refused(&format!("error validating audience {}: {why}", quote(audience))),
    }
    let question = AuthAttributes {
        user: attributes.user.clone(),
        verb: VERB.into(),
        resource_request: true,
        version: "v1".into(),
        resource: audience.into(),
        namespace: attributes.namespace.into(),
        name: attributes.name.into(),
        ..AuthAttributes::default()
    };
    if authorizer.authorize(&question).await.allowed() {
        return Ok(());
    }
    refused(&format!(
        "audience {} not found in pod spec volume, {} is not authorized to request tokens for this audience",
        quote(audience),
        attributes.user.name
    ))
}

/// Whether a volume of the pod asks for the audience: by itself, or by the driver that serves it. What keeps that from being known is
/// told only if no other volume asks.
fn asks(attributes: &Attributes<'_>, pod: &Object, audience: &str) -> Result<bool, String> {
    let mut unknown = Vec::new();
    for volume in pod.array(&["spec", "volumes"]) {
        let sources = volume.pointer("/projected/sources").and_then(Value::as_array);
        let wanted = |source: &Value| {
            let token = source.get("serviceAccountToken")?;
            Some(token.get("audience").and_then(Value::as_str).unwrap_or_default() == audience)
        };
        if sources.into_iter().flatten().any(|source| wanted(source) == Some(true)) {
            return Ok(true);
        }
        match driver_asks(attributes, pod, volume, audience) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(why) => unknown.push(why),
        }
    }
    match unknown.as_slice() {
        [] => Ok(false),
        [why] => Err(why.clone()),
        all => Err(format!("[{}]", all.join(", "))),
    }
}

/// Whether the driver of the volume, if it has one, asks for tokens for the audience.
fn driver_asks(attributes: &Attributes<'_>, pod: &Object, volume: &Value, audience: &str) -> Result<bool, String> {
    let cached = |group: &str, plural: &str, singular: &str, namespace: &str, name: &str| {
        let kind = if group.is_empty() { singular.to_owned() } else { format!("{singular}.{group}") };
        let object = attributes.registry.cached_object(group, plural, namespace, name);
        object.ok_or_else(|| format!("{kind} {} not found", quote(name)))
    };
    let text = |path: &str| volume.pointer(path).and_then(Value::as_str);
    let claim = match text("/persistentVolumeClaim/claimName") {
        Some(name) => Some(name.to_owned()),
        None if volume.get("ephemeral").is_some() => {
            Some(format!("{}-{}", pod.name(), text("/name").unwrap_or_default()))
        }
        None => None,
    };
    let driver = match claim {
        Some(claim) => {
            let claim = cached("", "persistentvolumeclaims", "persistentvolumeclaim", attributes.namespace, &claim)?;
            let name = claim.str(&["spec", "volumeName"]).unwrap_or_default();
            let volume = cached("", "persistentvolumes", "persistentvolume", "", name)?;
            volume.str(&["spec", "csi", "driver"]).map(str::to_owned)
        }
        None => text("/csi/driver").map(str::to_owned),
    };
    let Some(driver) = driver else { return Ok(false) };
    let driver = cached("storage.k8s.io", "csidrivers", "csidriver", "", &driver)?;
    let requests = driver.array(&["spec", "tokenRequests"]);
    Ok(requests.iter().any(|request| request.get("audience").and_then(Value::as_str).unwrap_or_default() == audience))
}
