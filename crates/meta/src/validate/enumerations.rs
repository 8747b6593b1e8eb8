//! Values of enumerations, which the field table knows for every kind, and where upstream's words for them differ.

use super::node::Node;
use crate::field::{ErrorList, FieldError};
use crate::schema::{Schema, Shape};

/// How upstream tells of a value that is none of an enumeration's.
enum Told {
    /// It lists the values in this order, or only these.
    As(&'static [&'static str]),
    /// In words of the kind's own, which its checks have.
    Elsewhere,
}

const PROTOCOLS: Told = Told::As(&["TCP", "UDP", "SCTP"]);

/// Members (of types, without `io.k8s.api.`) whose values are not told in alphabetical order.
const EXCEPTIONS: &[(&str, &str, Told)] = &[
    ("admissionregistration.v1.MutatingWebhook", "sideEffects", Told::Elsewhere),
    ("admissionregistration.v1.ValidatingWebhook", "sideEffects", Told::Elsewhere),
    ("apps.v1.DaemonSetUpdateStrategy", "type", Told::Elsewhere),
    ("apps.v1.DeploymentStrategy", "type", Told::Elsewhere),
    ("apps.v1.StatefulSetSpec", "podManagementPolicy", Told::Elsewhere),
    ("apps.v1.StatefulSetUpdateStrategy", "type", Told::Elsewhere),
    ("batch.v1.JobSpec", "completionMode", Told::As(&["NonIndexed", "Indexed"])),
    ("batch.v1.JobSpec", "podReplacementPolicy", Told::Elsewhere),
    ("networking.v1.NetworkPolicyPort", "protocol", PROTOCOLS),
    ("networking.v1.NetworkPolicySpec", "policyTypes", Told::As(&["Ingress", "Egress"])),
    ("scheduling.v1.PriorityClass", "preemptionPolicy", Told::As(&["PreemptLowerPriority", "Never"])),
    ("storage.v1.StorageClass", "reclaimPolicy", Told::Elsewhere),
];

/// Values that are none of their enumeration's, status and metadata aside.
pub(super) fn check(node: &Node<'_>, schema: &Schema, errors: &mut ErrorList) {
    visit(node, schema, None, errors);
}

fn visit(node: &Node<'_>, schema: &Schema, told: Option<&Told>, errors: &mut ErrorList) {
    match &schema.shape {
        Shape::Struct { .. } => {
            let Some(map) = node.members() else { return };
            for name in map.keys() {
                if node.is_root() && (name == "status" || name == "metadata") {
                    continue;
                }
                if let Some(field) = schema.field(name) {
                    visit(&node.child(name), field.schema(), exception(schema, name), errors);
                }
            }
        }
        Shape::Map { value, .. } if !matches!(value.get().shape, Shape::Leaf { .. }) => {
            node.entries().for_each(|(_, entry)| visit(&entry, value.get(), told, errors));
        }
        Shape::List { item, .. } if !is_open(item.get()) => {
            node.items().for_each(|entry| visit(&entry, item.get(), told, errors));
        }
        Shape::Leaf { values, .. } if !values.is_empty() => {
            let text = node.text();
            if text.is_empty() || values.split(',').any(|v| v == text) {
                return;
            }
            match told {
                None => {
                    errors.push(FieldError::not_supported(&node.path, text, &values.split(',').collect::<Vec<_>>()));
                }
                Some(Told::As(values)) => errors.push(FieldError::not_supported(&node.path, text, values)),
                Some(Told::Elsewhere) => {}
            }
        }
        _ => {}
    }
}

fn exception(schema: &Schema, member: &str) -> Option<&'static Told> {
    let name = schema.name.strip_prefix("io.k8s.api.")?;
    EXCEPTIONS.iter().find(|(kind, own, _)| *kind == name && *own == member).map(|(.., told)| told)
}

/// A leaf that takes any value.
fn is_open(schema: &Schema) -> bool {
    matches!(&schema.shape, Shape::Leaf { values, .. } if values.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_of_members_with_values() {
        let named = |name: &str| crate::schema::definition(&format!("io.k8s.api.{name}")).unwrap();
        for (kind, member, _) in EXCEPTIONS {
            let field = named(kind).field(member).unwrap_or_else(|| panic!("{kind} {member}"));
            let leaf = match &field.schema().shape {
                Shape::List { item, .. } => item.get(),
                _ => field.schema(),
            };
            assert!(!is_open(leaf), "{kind} {member}");
        }
    }
}
