//! Defaults of networking and discovery.

use serde_json::{Map, Value, json};

use super::{Row, Rule, is_empty};

pub(super) const ROWS: &[Row] = &[
    ("networking.v1.NetworkPolicyPort", "protocol", r#""TCP""#),
    ("networking.v1.IngressClassParametersReference", "scope", r#""Cluster""#),
    ("discovery.v1.EndpointPort", "name", r#""""#),
    ("discovery.v1.EndpointPort", "protocol", r#""TCP""#),
];

pub(super) const RULES: &[Rule] = &[("networking.v1.NetworkPolicySpec", policy_types)];

fn policy_types(spec: &mut Map<String, Value>) {
    if is_empty(spec, "policyTypes") {
        let types = if is_empty(spec, "egress") { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
        spec.insert("policyTypes".into(), types);
    }
}
