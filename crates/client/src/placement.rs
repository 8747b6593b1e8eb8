//! Node selectors, taints and tolerations: whether a pod may be on a node. The scheduler and whoever places pods itself
//! must not differ in it.

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};
use kube::ResourceExt;

/// The node has the labels that the pod's `nodeSelector` and required node affinity ask for.
pub fn admits(spec: &PodSpec, node: &Node) -> bool {
    let labels = spec.node_selector.iter().flatten().all(|(name, value)| node.labels().get(name) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    labels && required.is_none_or(|selector| selects(selector, node))
}

/// One of the selector's terms admits the node.
pub fn selects(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_selects(term, node))
}

/// All requirements of the term hold; an empty term admits nothing.
pub fn term_selects(term: &NodeSelectorTerm, node: &Node) -> bool {
    let (labels, name) = (node.labels(), node.metadata.name.as_deref().unwrap_or_default());
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let by_label = |rule: &NodeSelectorRequirement| holds(rule, labels.get(&rule.key).map(String::as_str));
    let by_field = |rule: &NodeSelectorRequirement| rule.key == "metadata.name" && holds(rule, Some(name));
    expressions.iter().all(by_label) && fields.iter().all(by_field)
}

fn holds(rule: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = rule.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|value| values.iter().any(|listed| listed == value));
    let compared = || -> Option<(i64, i64)> { Some((value?.parse().ok()?, values.first()?.parse().ok()?)) };
    match rule.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(|(own, bound)| own > bound),
        "Lt" => compared().is_some_and(|(own, bound)| own < bound),
        _ => false,
    }
}

/// The toleration bears the taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().filter(|effect| !effect.is_empty());
    let key = toleration.key.as_deref().filter(|key| !key.is_empty());
    if effect.is_some_and(|effect| effect != taint.effect) || key.is_some_and(|key| key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref().filter(|operator| !operator.is_empty()).unwrap_or("Equal") {
        "Exists" => true,
        "Equal" => {
            key.is_some()
                && toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        _ => false,
    }
}

/// The first taint with one of `effects` that the pod does not bear.
pub fn untolerated<'a>(spec: &PodSpec, node: &'a Node, effects: &[&str]) -> Option<&'a Taint> {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    taints(node)
        .filter(|taint| effects.contains(&taint.effect.as_str()))
        .find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// The node's taints.
pub fn taints(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(labels: serde_json::Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "a", "labels": labels}})).unwrap()
    }

    #[test]
    fn selectors_compare_labels_and_the_name() {
        let node = node(json!({"zone": "x", "cores": "8"}));
        let term = |expressions: serde_json::Value, fields: serde_json::Value| -> NodeSelectorTerm {
            serde_json::from_value(json!({"matchExpressions": expressions, "matchFields": fields})).unwrap()
        };
        let held = [
            json!({"key": "zone", "operator": "In", "values": ["x", "y"]}),
            json!({"key": "zone", "operator": "NotIn", "values": ["y"]}),
            json!({"key": "absent", "operator": "NotIn", "values": ["y"]}),
            json!({"key": "absent", "operator": "DoesNotExist"}),
            json!({"key": "cores", "operator": "Gt", "values": ["7"]}),
        ];
        for rule in held {
            assert!(term_selects(&term(json!([rule]), json!([])), &node), "{rule}");
        }
        assert!(!term_selects(&term(json!([{"key": "cores", "operator": "Lt", "values": ["8"]}]), json!([])), &node));
        assert!(!term_selects(&term(json!([]), json!([])), &node));
        let by_name = json!([{"key": "metadata.name", "operator": "In", "values": ["a"]}]);
        assert!(term_selects(&term(json!([]), by_name), &node));
    }

    #[test]
    fn tolerations_bear_taints() {
        let taint: Taint = serde_json::from_value(json!({"key": "k", "value": "v", "effect": "NoSchedule"})).unwrap();
        let bears = |value: serde_json::Value| tolerates(&serde_json::from_value(value).unwrap(), &taint);
        assert!(bears(json!({"operator": "Exists"})));
        assert!(bears(json!({"key": "k", "value": "v"})));
        assert!(bears(json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"})));
        assert!(!bears(json!({"key": "k", "value": "w"})));
        assert!(!bears(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"})));
    }
}
