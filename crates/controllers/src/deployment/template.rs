//! Which set is of which template: equality without the hash label.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::PodTemplateSpec;

/// The label by which sets of one Deployment tell their pods apart.
pub(super) const HASH_LABEL: &str = "pod-template-hash";
/// The template with its hash as a label.
pub(super) fn with_hash(template: &PodTemplateSpec, hash: &str) -> PodTemplateSpec {
    let mut template = template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.into(), hash.to_string());
    template
}

/// The set was made of this template.
pub(super) fn same_template(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let own = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    own.is_some_and(|own| without_hash(own) == without_hash(template))
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let meta = template.metadata.get_or_insert_default();
    if let Some(labels) = &mut meta.labels {
        labels.remove(HASH_LABEL);
    }
    // Absent and empty are the same to the API.
    meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
    meta.annotations = meta.annotations.take().filter(|annotations| !annotations.is_empty());
    meta.creation_timestamp = None;
    template
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_hash_label_is_not_part_of_the_template() {
        let template: PodTemplateSpec =
            serde_json::from_value(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}})).unwrap();
        let set = ReplicaSet {
            spec: Some(k8s_openapi::api::apps::v1::ReplicaSetSpec {
                template: Some(with_hash(&template, "x")),
                ..Default::default()
            }),
            ..ReplicaSet::default()
        };
        assert!(same_template(&set, &template));
        let mut other = template.clone();
        other.metadata.get_or_insert_default().labels.get_or_insert_default().insert("a".into(), "c".into());
        assert!(!same_template(&set, &other));
    }
}
