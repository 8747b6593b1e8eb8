//! Manifests as objects: parsed, put in order, their images replaced.

use kminik_oci::{Digest, ImageName};
use kube::core::DynamicObject;
use serde::Deserialize;
use serde_json::Value;

/// Why a text is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("it is no YAML")]
    Yaml(#[source] serde_yaml::Error),
    #[error("a document of it is no object of Kubernetes")]
    NoObject(#[source] serde_json::Error),
    #[error("a document of it has no {0}")]
    Incomplete(&'static str),
}

/// What has to be there before what: by kind; what is not named is in the middle, in the order of the manifests.
const ORDER: &[(&str, i8)] = &[
    ("Namespace", -3),
    ("CustomResourceDefinition", -2),
    ("PriorityClass", -1),
    ("ServiceAccount", -1),
    ("APIService", 1),
    // Once they are there, their servers are asked about everything.
    ("MutatingWebhookConfiguration", 2),
    ("ValidatingWebhookConfiguration", 2),
    ("ValidatingAdmissionPolicy", 2),
    ("ValidatingAdmissionPolicyBinding", 2),
];

/// Adds the objects of YAML documents (or JSON) to `all`; lists are taken apart.
pub(super) fn parse(text: &str, all: &mut Vec<DynamicObject>) -> Result<(), ManifestError> {
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document).map_err(ManifestError::Yaml)?;
        add(value, all)?;
    }
    Ok(())
}

fn add(mut value: Value, all: &mut Vec<DynamicObject>) -> Result<(), ManifestError> {
    if value.is_null() {
        return Ok(());
    }
    let is_list = value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    if is_list && let Some(Value::Array(items)) = value.get_mut("items").map(Value::take) {
        return items.into_iter().try_for_each(|item| add(item, all));
    }
    let object: DynamicObject = serde_json::from_value(value).map_err(ManifestError::NoObject)?;
    let types = object.types.as_ref().ok_or(ManifestError::Incomplete("apiVersion or kind"))?;
    if types.api_version.is_empty() || types.kind.is_empty() {
        return Err(ManifestError::Incomplete("apiVersion or kind"));
    }
    if object.metadata.name.as_deref().is_none_or(str::is_empty) {
        return Err(ManifestError::Incomplete("name"));
    }
    all.push(object);
    Ok(())
}

/// The kind, empty if it has none.
pub(super) fn kind(object: &DynamicObject) -> &str {
    object.types.as_ref().map_or("", |types| types.kind.as_str())
}

/// Puts first what others need.
pub(super) fn order(all: &mut [DynamicObject]) {
    all.sort_by_key(|object| ORDER.iter().find(|(known, _)| *known == kind(object)).map_or(0, |(_, rank)| *rank));
}

/// Of the whole, the same for the same objects.
pub fn digest(all: &[DynamicObject]) -> Digest {
    Digest::of(&serde_json::to_vec(all).unwrap_or_default())
}

/// Namespace and name of the objects of this kind among them.
pub fn of_kind<'a>(all: &'a [DynamicObject], wanted: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    all.iter().filter(move |object| kind(object) == wanted).filter_map(|object| {
        Some((object.metadata.namespace.as_deref().unwrap_or("default"), object.metadata.name.as_deref()?))
    })
}

/// Replaces references wherever they are a whole text, or what follows the `=` of an argument.
pub(super) fn replace(value: &mut Value, replaced: &[(String, String)]) {
    match value {
        Value::String(text) => {
            for (old, new) in replaced {
                if text == old {
                    text.clone_from(new);
                    return;
                }
                if let Some(start) = text.strip_suffix(old.as_str()).filter(|start| start.ends_with('=')) {
                    *text = format!("{start}{new}");
                    return;
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, replaced)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, replaced)),
        _ => {}
    }
}

/// The reference, from another registry; what is no reference stays.
pub(super) fn with_registry(reference: &str, registry: &str) -> String {
    let Ok(name) = reference.parse::<ImageName>() else { return reference.to_owned() };
    let whole = name.to_string();
    let rest = whole.strip_prefix(name.registry()).unwrap_or(&whole);
    format!("{}{rest}", registry.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_taken_apart_and_what_others_need_comes_first() {
        let mut all = Vec::new();
        let text = "---\n# nothing\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: a}}\n\
                    ---\n{apiVersion: v1, kind: Namespace, metadata: {name: n}}\n---\n\
                    {apiVersion: admissionregistration.k8s.io/v1, kind: MutatingWebhookConfiguration, metadata: {name: w}}\n---\n\
                    {apiVersion: v1, kind: Service, metadata: {name: s}}\n";
        parse(text, &mut all).unwrap();
        order(&mut all);
        let kinds: Vec<&str> = all.iter().map(kind).collect();
        assert_eq!(kinds, ["Namespace", "Secret", "Service", "MutatingWebhookConfiguration"]);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bad in ["just text", "{kind: Secret}", "{apiVersion: v1, kind: Secret, metadata: {}}", "a: [", "[1]"] {
            assert!(parse(bad, &mut Vec::new()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_registry_replaces_the_one_that_is_written() {
        assert_eq!(with_registry("nginx:1", "r.example"), "r.example/library/nginx:1");
        assert_eq!(with_registry("ghcr.io/a/b:2", "r.example:5000/"), "r.example:5000/a/b:2");
        assert_eq!(with_registry("Not One", "r.example"), "Not One");
    }
}
