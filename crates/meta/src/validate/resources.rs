//! Checks of amounts of resources and of the names of resources, of containers and of quotas and limits.

use serde_json::Value;

use super::node::Node;
use crate::field::{ErrorList, FieldError, Path};
use crate::{Quantity, names};

/// Objects that quotas count; only whole numbers of them make sense.
const COUNTED: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
const COMPUTED: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

fn huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether a name without a domain is one that quotas know.
pub(super) fn is_quota(name: &str) -> bool {
    COUNTED.contains(&name) || COMPUTED.contains(&name) || huge(name) || name.starts_with("requests.hugepages-")
}

fn is_standard(name: &str) -> bool {
    name == "storage" || is_quota(name)
}

fn is_of_containers(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || huge(name)
}

/// Whether more of a resource may be limited than is requested.
pub(super) fn may_overcommit(name: &str) -> bool {
    (!name.contains('/') || name.contains("kubernetes.io/")) && !huge(name)
}

/// A resource of anything: standard, or with a domain.
pub(super) fn resource_name(name: &str, node: &Node<'_>, errors: &mut ErrorList) {
    let messages = names::qualified_name(name);
    if !messages.is_empty() {
        errors.invalid_each(&node.path, name, messages);
    } else if !name.contains('/') && !is_standard(name) {
        errors.push(FieldError::invalid(&node.path, name, "must be a standard resource type or fully qualified"));
    }
}

/// A resource of a container.
pub(super) fn container_resource_name(name: &str, node: &Node<'_>, errors: &mut ErrorList) {
    resource_name(name, node, errors);
    if !name.contains('/') {
        if !is_of_containers(name) {
            errors.push(FieldError::invalid(&node.path, name, "must be a standard resource for containers"));
        }
    } else if !name.contains("kubernetes.io/") && !is_extended(name) {
        errors.push(FieldError::invalid(&node.path, name, "doesn't follow extended resource name standard"));
    }
}

/// A resource of somebody's domain, which can also be counted as `requests.…`.
fn is_extended(name: &str) -> bool {
    !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// A resource that a quota limits, and how much of it.
pub(super) fn quota(name: &str, node: &Node<'_>, errors: &mut ErrorList) {
    resource_name(name, node, errors);
    if !name.contains('/') && !is_quota(name) {
        errors.push(FieldError::invalid(&node.path, name, "must be a standard resource for quota"));
    }
    resource_amount(name, node, errors);
}

/// An amount that may not be negative, and must be whole where only whole ones exist.
pub(super) fn resource_amount(name: &str, node: &Node<'_>, errors: &mut ErrorList) {
    amount_of(node, errors);
    let extended = name.contains('/') && !name.contains("kubernetes.io/") && is_extended(name);
    if (COUNTED.contains(&name) || extended)
        && let Some(quantity) = node.quantity()
        && quantity.milli_value() % 1000 != 0
    {
        errors.push(FieldError::invalid(&node.path, quantity.to_string(), "must be an integer"));
    }
}

/// An amount that may not be negative.
pub(super) fn amount_of(node: &Node<'_>, errors: &mut ErrorList) {
    if let Some(quantity) = node.quantity()
        && quantity.sign() < 0
    {
        errors.push(FieldError::invalid(
            &node.path,
            Value::from(quantity.to_string()),
            "must be greater than or equal to 0",
        ));
    }
}

/// Resources with their amounts.
fn amounts(list: &Node<'_>, named: NameOf, errors: &mut ErrorList) {
    for (name, amount) in list.entries() {
        named(name, &amount, errors);
        resource_amount(name, &amount, errors);
        // A size that cannot be read is for the node to refuse.
        let page = name.strip_prefix("hugepages-").and_then(|size| size.parse::<Quantity>().ok());
        if let (Some(page), Some(asked)) = (page, amount.quantity())
            && (page.value() <= 0 || asked.value() % page.value() != 0)
        {
            let message = format!("{asked} is not positive integer multiple of {name}");
            errors.push(FieldError::invalid(&amount.path, asked.to_string(), message));
        }
    }
}

/// Checks the name of a resource; the node is its amount.
pub(super) type NameOf = fn(&str, &Node<'_>, &mut ErrorList);

/// What a container, or a pod as a whole, requests and is limited to.
pub(super) fn resources(node: &Node<'_>, named: NameOf, errors: &mut ErrorList) {
    let (limits, requests) = (node.child("limits"), node.child("requests"));
    amounts(&limits, named, errors);
    amounts(&requests, named, errors);
    for (name, amount) in requests.entries() {
        let limit = limits.child(name);
        match (Quantity::from_value(amount.value), Quantity::from_value(limit.value)) {
            (Some(Ok(request)), Some(Ok(limit))) => {
                let message = match may_overcommit(name) {
                    false if request != limit => format!("must be equal to {name} limit of {limit}"),
                    true if request > limit => format!("must be less than or equal to {name} limit of {limit}"),
                    _ => continue,
                };
                errors.push(FieldError::invalid(&requests.path, request.to_string(), message));
            }
            (Some(_), None) if !may_overcommit(name) => {
                errors.push(FieldError::required(&limits.path, "Limit must be set for non overcommitable resources"));
            }
            _ => {}
        }
    }
    let has =
        |what: fn(&str) -> bool| [&limits, &requests].iter().any(|list| list.entries().any(|(name, _)| what(name)));
    if has(huge) && !has(|name| matches!(name, "cpu" | "memory")) {
        errors.push(FieldError::forbidden(&node.path, "HugePages require cpu or memory"));
    }
}

/// What a runtime takes besides: checked as the limits of a container are.
pub(super) fn overhead(amounts: &Node<'_>, path: Path, errors: &mut ErrorList) {
    let value = serde_json::json!({"limits": amounts.value});
    resources(&Node::new(&value, path), container_resource_name, errors);
}
