//! Checks of what a pod asks for as a whole: resources, and claims of devices.

use std::collections::BTreeSet;

use serde_json::json;

use super::node::Node;
use super::resources::{overhead, resource_name, resources};
use crate::field::{ErrorList, FieldError};
use crate::pod_resources::{Side, amounts, is_pod_level, of_containers};
use crate::{Object, names};

/// Resources of the whole pod, which its containers share.
pub(super) fn pod_resources(spec: &Node<'_>, errors: &mut ErrorList) {
    overhead(&spec.child("overhead"), spec.path.child("overhead"), errors);
    let whole = spec.child("resources");
    if !whole.is_set() {
        return;
    }
    let claims = whole.child("claims");
    if claims.is_set() {
        errors.push(FieldError::forbidden(&claims.path, "claims cannot be set for Resources at pod-level"));
    }
    resources(&whole, pod_resource_name, errors);
    let mut without = spec.value.clone();
    if let Some(map) = without.as_object_mut() {
        map.remove("resources");
    }
    let Ok(pod) = Object::try_from(json!({"spec": without})) else { return };
    let requests = whole.child("requests");
    let wanted = amounts(Some(requests.value));
    for (name, sum) in of_containers(&pod, Side::Requests) {
        if let Some(own) = wanted.get(&name).filter(|own| sum > **own) {
            let message = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.push(FieldError::invalid(&requests.path.key(&name), own.to_string(), message));
        }
    }
    let limits = amounts(Some(whole.child("limits").value));
    for (index, container) in spec.child("containers").items().enumerate() {
        for (name, own) in amounts(Some(container.at(&["resources", "limits"]).value)) {
            if let Some(limit) = limits.get(&name).filter(|limit| own > **limit) {
                let path = whole.path.child("containers").index(index).key(&name).child("limits");
                let message = format!("must be less than or equal to pod limits of {limit}");
                errors.push(FieldError::invalid(&path, own.to_string(), message));
            }
        }
    }
}

fn pod_resource_name(name: &str, node: &Node<'_>, errors: &mut ErrorList) {
    let mut own = ErrorList::new();
    resource_name(name, node, &mut own);
    if own.is_empty() && !is_pod_level(name) {
        own.push(FieldError::not_supported(&node.path, name, &["cpu", "hugepages-", "memory"]));
    }
    errors.append(own);
}

/// Claims of devices that a pod refers to.
pub(super) fn claims(list: &Node<'_>, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for claim in list.items() {
        let name = claim.child("name");
        if name.is_empty() {
            errors.push(FieldError::required(&name.path, ""));
        } else if !seen.insert(name.text()) {
            errors.push(FieldError::duplicate(&name.path, name.text()));
        } else {
            errors.invalid_each(&name.path, name.text(), names::dns1123_label(name.text()));
        }
        let by = ["resourceClaimName", "resourceClaimTemplateName"].map(|member| claim.child(member));
        let message = match by.iter().filter(|reference| reference.is_set()).count() {
            0 => Some("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"),
            1 => None,
            _ => Some("at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"),
        };
        if let Some(message) = message {
            errors.push(FieldError::invalid(&claim.path, claim.value.clone(), message));
        }
        for reference in by.iter().filter(|reference| reference.is_set()) {
            errors.invalid_each(&reference.path, reference.text(), names::dns1123_subdomain(reference.text()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::validate::tests::created;

    fn refused(spec: Value) -> Vec<String> {
        let limits = json!({"limits": {"memory": "2Gi"}, "requests": {"memory": "2Gi"}});
        let mut all = json!({"containers": [{"name": "c", "image": "i", "resources": limits}]});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        created("", "Pod", json!({"spec": all}))
    }

    #[test]
    fn of_a_whole_pod() {
        assert_eq!(
            refused(json!({"resources": {"limits": {"memory": "2Gi"}, "requests": {"memory": "2Gi"}}})),
            [""; 0]
        );
        for (spec, wanted) in [
            (
                json!({"resources": {"requests": {"memory": "1Gi"}}}),
                vec![
                    "spec.resources.requests[memory]: Invalid value: \"1Gi\": must be greater than or equal to aggregate container requests of 2Gi",
                ],
            ),
            (
                json!({"resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "1"}}}),
                vec![
                    "spec.resources.containers[0][memory].limits: Invalid value: \"2Gi\": must be less than or equal to pod limits of 1Gi",
                ],
            ),
            (
                json!({"overhead": {"none": "1"}}),
                vec![
                    "spec.overhead.limits[none]: Invalid value: \"none\": must be a standard resource type or fully qualified",
                    "spec.overhead.limits[none]: Invalid value: \"none\": must be a standard resource for containers",
                ],
            ),
            (
                json!({"resourceClaims": [{"name": "a", "resourceClaimName": "x"}, {"name": "a", "resourceClaimTemplateName": "y"}]}),
                vec!["spec.resourceClaims[1].name: Duplicate value: \"a\""],
            ),
            (
                json!({"resourceClaims": [{"name": "a"}]}),
                vec![
                    "spec.resourceClaims[0]: Invalid value: {\"name\":\"a\"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
                ],
            ),
        ] {
            assert_eq!(refused(spec.clone()), wanted, "{spec}");
        }
    }
}
