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

/// Which enumeration is meant.
enum Of {
    /// That of this member of a type, without `io.k8s.api.`.
    Member(&'static str, &'static str),
    /// Every one that the field table has with these values.
    Values(&'static str),
}

use Of::{Member, Values};
use Told::{As, Elsewhere};

/// Where values are not told in alphabetical order, or not all of them belong to features that are on.
const EXCEPTIONS: &[(Of, Told)] = &[
    (Member("admissionregistration.v1.MutatingWebhook", "sideEffects"), Elsewhere),
    (Member("admissionregistration.v1.ValidatingWebhook", "sideEffects"), Elsewhere),
    (Member("apps.v1.DaemonSetUpdateStrategy", "type"), Elsewhere),
    (Member("apps.v1.DeploymentStrategy", "type"), Elsewhere),
    (Member("apps.v1.StatefulSetSpec", "podManagementPolicy"), Elsewhere),
    (Member("apps.v1.StatefulSetUpdateStrategy", "type"), Elsewhere),
    (Member("batch.v1.JobSpec", "completionMode"), As(&["NonIndexed", "Indexed"])),
    (Member("batch.v1.JobSpec", "podReplacementPolicy"), Elsewhere),
    (Member("networking.v1.NetworkPolicyPort", "protocol"), As(&["TCP", "UDP", "SCTP"])),
    (Member("networking.v1.NetworkPolicySpec", "policyTypes"), As(&["Ingress", "Egress"])),
    (Member("storage.v1.StorageClass", "reclaimPolicy"), Elsewhere),
    (Values("Always,Never,OnFailure"), As(&["Always", "OnFailure", "Never"])),
    (
        Values("ClusterFirst,ClusterFirstWithHostNet,Default,None"),
        As(&["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]),
    ),
    (Values("Equal,Exists,Gt,Lt"), As(&["Equal", "Exists"])),
    (Values("FallbackToLogsOnError,File"), As(&["File", "FallbackToLogsOnError"])),
    (Values("Never,PreemptLowerPriority"), As(&["PreemptLowerPriority", "Never"])),
    (Values("NoExecute,NoSchedule,PreferNoSchedule"), As(&["NoSchedule", "PreferNoSchedule", "NoExecute"])),
    (Values(",IPv4,IPv6"), Elsewhere),
    (
        Values(
            "BestEffort,CrossNamespacePodAffinity,NotBestEffort,NotTerminating,PriorityClass,Terminating,VolumeAttributesClass",
        ),
        Elsewhere,
    ),
    (Values("Bidirectional,HostToContainer,None"), Elsewhere),
    (Values("DoesNotExist,Exists,Gt,In,Lt,NotIn"), Elsewhere),
    (Values("DoesNotExist,Exists,In,NotIn"), Elsewhere),
    (Values("ReadOnlyMany,ReadWriteMany,ReadWriteOnce,ReadWriteOncePod"), Elsewhere),
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
            let (text, values) = (node.text(), values.as_ref());
            let known = match told.or_else(|| of_values(values)) {
                None => values.split(',').collect(),
                Some(As(told)) => told.to_vec(),
                Some(Elsewhere) => return,
            };
            if !text.is_empty() && !known.contains(&text) {
                errors.push(FieldError::not_supported(&node.path, text, &known));
            }
        }
        _ => {}
    }
}

fn exception(schema: &Schema, member: &str) -> Option<&'static Told> {
    let name = schema.name.strip_prefix("io.k8s.api.")?;
    let is_it = |of: &Of| matches!(of, Member(kind, own) if *kind == name && *own == member);
    EXCEPTIONS.iter().find(|(of, _)| is_it(of)).map(|(_, told)| told)
}

fn of_values(values: &str) -> Option<&'static Told> {
    EXCEPTIONS.iter().find(|(of, _)| matches!(of, Values(own) if *own == values)).map(|(_, told)| told)
}

/// A leaf that takes any value.
fn is_open(schema: &Schema) -> bool {
    matches!(&schema.shape, Shape::Leaf { values, .. } if values.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every enumeration of the kinds, as the table has it.
    fn all(schema: &Schema, depth: u8, found: &mut std::collections::BTreeSet<String>) {
        match &schema.shape {
            _ if depth == 0 => {}
            Shape::Struct { .. } => schema.fields().iter().for_each(|field| all(field.schema(), depth - 1, found)),
            Shape::Map { value, .. } => all(value.get(), depth - 1, found),
            Shape::List { item, .. } => all(item.get(), depth - 1, found),
            Shape::Leaf { values, .. } => drop(found.insert(values.to_string())),
        }
    }

    #[test]
    fn exceptions_are_of_members_with_values() {
        let mut found = std::collections::BTreeSet::new();
        crate::schema::kinds().for_each(|(_, schema)| all(schema, 16, &mut found));
        for (of, _) in EXCEPTIONS {
            match of {
                Values(values) => assert!(found.contains(*values), "{values}"),
                Member(kind, member) => {
                    let named = crate::schema::definition(&format!("io.k8s.api.{kind}")).unwrap();
                    let field = named.field(member).unwrap_or_else(|| panic!("{kind} {member}"));
                    let leaf = match &field.schema().shape {
                        Shape::List { item, .. } => item.get(),
                        _ => field.schema(),
                    };
                    assert!(!is_open(leaf), "{kind} {member}");
                }
            }
        }
    }
}
