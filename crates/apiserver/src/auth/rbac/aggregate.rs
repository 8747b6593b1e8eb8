//! Aggregated cluster roles: their rules are those of all cluster roles that their selectors match.

use std::sync::Arc;

use kminik_meta::{LabelSelector, Object, StatusError};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{CLUSTER_ROLES, GROUP, Rule};
use crate::Server;
use crate::registry::Change;
use crate::storage::follow::follow;

/// Keeps the aggregated roles as they should be until cancelled.
pub(super) async fn keep(server: Arc<Server>, stop: CancellationToken) {
    let changes = server.registry().cache().resource(CLUSTER_ROLES).subscribe();
    follow("aggregated cluster roles", changes, stop, || pass(&server)).await;
}

/// Writes the rules of every aggregated role that are not as they should be.
pub(super) async fn pass(server: &Server) -> Result<(), StatusError> {
    let registry = server.registry();
    let row = registry.row(GROUP, "clusterroles")?;
    let snapshot = registry.cache().fresh(CLUSTER_ROLES).await?;
    let roles: Vec<Arc<Object>> = snapshot.entries.values().filter_map(|entry| entry.object().ok()).collect();
    for role in &roles {
        let Some(wanted) = aggregated(role, &roles) else { continue };
        if Rule::of_role(role) == wanted {
            continue;
        }
        let rules: Value = wanted.iter().map(Rule::to_value).collect();
        let change = |role: &Object| {
            let mut role = role.clone();
            role.set(&["rules"], rules.clone());
            Ok(Change::Put(role))
        };
        match registry.modify(&row, "", role.name(), change).await {
            // Deleted meanwhile: there is nothing left to aggregate.
            Err(error) if error.code() == 404 => {}
            written => drop(written?),
        }
    }
    Ok(())
}

/// The rules that the role should have, in order of the roles' names; `None` if it is not aggregated.
fn aggregated(role: &Object, roles: &[Arc<Object>]) -> Option<Vec<Rule>> {
    let selectors: Vec<LabelSelector> = role
        .get(&["aggregationRule", "clusterRoleSelectors"])?
        .as_array()?
        .iter()
        .filter_map(|selector| LabelSelector::from_value(Some(selector)).ok())
        .collect();
    let mut rules = Vec::new();
    for source in roles {
        let matches = selectors.iter().any(|selector| selector.matches(source));
        if !matches || source.name() == role.name() {
            continue;
        }
        for rule in Rule::of_role(source) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selected_rules_are_united() {
        let rule = |resource: &str| json!({"verbs": ["get"], "apiGroups": [""], "resources": [resource]});
        let role = |name: &str, to: &str, resources: &[&str]| {
            let rules: Vec<Value> = resources.iter().map(|resource| rule(resource)).collect();
            let object = json!({"metadata": {"name": name, "labels": {"to": to}}, "rules": rules});
            Arc::new(Object::try_from(object).unwrap())
        };
        let sum = json!({
            "metadata": {"name": "sum", "labels": {"to": "x"}},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "x"}}, {"matchLabels": {"to": "y"}}]},
            "rules": [rule("stale")],
        });
        let sum = Arc::new(Object::try_from(sum).unwrap());
        let roles =
            [role("a", "x", &["pods"]), role("b", "y", &["pods", "nodes"]), role("c", "z", &["secrets"]), sum.clone()];
        let rules = aggregated(&sum, &roles).unwrap();
        let resources: Vec<_> = rules.iter().flat_map(|rule| rule.resources.clone()).collect();
        assert_eq!(resources, ["pods", "nodes"]);
        assert_eq!(aggregated(&roles[0], &roles), None);
    }
}
