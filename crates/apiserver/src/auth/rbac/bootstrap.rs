//! Makes the bootstrap roles and bindings exist, and mends those that may be mended.
//!
//! An object gets back the rules, subjects, labels and annotations it lacks; what was added to it stays. One annotated
//! `rbac.authorization.kubernetes.io/autoupdate: "false"` is left alone.

use std::sync::Arc;

use jiff::Timestamp;
use kminik_meta::{Object, StatusError};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::roles::{BINDINGS, CLUSTER_BINDINGS, CLUSTER_ROLES, CONTROLLER_ROLES, ROLES, SubjectRow};
use super::rows::{RoleRow, RuleRow};
use super::{GROUP, Rule, aggregate, uncovered};
use crate::Server;
use crate::registry::Change;

const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const CONTROLLER_PREFIX: &str = "system:controller:";

/// Writes what is missing, aggregates once, and leaves a task behind that keeps aggregating until cancelled.
///
/// # Errors
/// When the store fails.
pub async fn bootstrap(server: Arc<Server>, stop: CancellationToken) -> Result<(), StatusError> {
    for (plural, object) in objects() {
        ensure(&server, plural, object).await?;
    }
    aggregate::pass(&server).await?;
    tokio::spawn(aggregate::keep(server, stop));
    Ok(())
}

async fn ensure(server: &Server, plural: &str, wanted: Object) -> Result<(), StatusError> {
    let registry = server.registry();
    let row = registry.row(GROUP, plural)?;
    if registry.get(&row, wanted.namespace(), wanted.name()).await?.is_none() {
        let mut object = wanted.clone();
        let metadata = object.metadata_mut();
        metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
        metadata.insert("creationTimestamp".into(), kminik_meta::time::format(Timestamp::now()).into());
        match registry.insert(&row, &object).await {
            // Another server of this cluster was faster; its object is looked at below.
            Err(error) if error.code() == 409 => {}
            inserted => return inserted.map(drop),
        }
    }
    let mended = registry.modify(&row, wanted.namespace(), wanted.name(), |object| {
        let mut object = object.clone();
        let mendable = object.annotation(AUTO_UPDATE) != Some("false");
        Ok(if mendable && mend(&mut object, &wanted) { Change::Put(object) } else { Change::Keep })
    });
    mended.await.map(drop)
}

/// Adds the rules, subjects, labels and annotations that are missing; tells whether some were. A binding of another role
/// is not the bootstrap binding any more: it gets that role and those subjects only.
fn mend(object: &mut Object, wanted: &Object) -> bool {
    let mut changed = false;
    for (key, value) in wanted.labels() {
        if !object.labels().contains_key(key) {
            object.set_label(key, value);
            changed = true;
        }
    }
    if object.annotation(AUTO_UPDATE).is_none() {
        object.set_annotation(AUTO_UPDATE, "true");
        changed = true;
    }
    if object.get(&["roleRef"]) != wanted.get(&["roleRef"]) {
        object.set(&["roleRef"], wanted.get(&["roleRef"]).cloned().unwrap_or_default());
        object.remove(&["subjects"]);
        changed = true;
    }
    if wanted.get(&["aggregationRule"]).is_none() {
        let mut rules = Rule::of_role(object);
        let missing = uncovered(&rules, &Rule::of_role(wanted));
        if !missing.is_empty() {
            rules.extend(missing);
            object.set(&["rules"], rules.iter().map(Rule::to_value).collect::<Value>());
            changed = true;
        }
    } else if object.get(&["aggregationRule"]) != wanted.get(&["aggregationRule"]) {
        object.set(&["aggregationRule"], wanted.get(&["aggregationRule"]).cloned().unwrap_or_default());
        changed = true;
    }
    let mut subjects = object.array(&["subjects"]).to_vec();
    let missing: Vec<Value> =
        wanted.array(&["subjects"]).iter().filter(|subject| !subjects.contains(subject)).cloned().collect();
    if !missing.is_empty() {
        subjects.extend(missing);
        object.set(&["subjects"], subjects);
        changed = true;
    }
    changed
}

/// All bootstrap objects, roles before bindings, each with the plural of its kind.
fn objects() -> Vec<(&'static str, Object)> {
    let mut objects = Vec::new();
    for row in CLUSTER_ROLES {
        objects.push(("clusterroles", role_object("ClusterRole", "", row.name, row, RuleRow::rule)));
    }
    for row in CONTROLLER_ROLES {
        objects.push((
            "clusterroles",
            role_object("ClusterRole", "", &controller_role(row), row, RuleRow::controller_rule),
        ));
    }
    for (namespace, row) in ROLES {
        objects.push(("roles", role_object("Role", namespace, row.name, row, RuleRow::rule)));
    }
    for (name, role, subjects) in CLUSTER_BINDINGS {
        objects.push(("clusterrolebindings", binding_object("", name, "ClusterRole", role, subjects)));
    }
    for row in CONTROLLER_ROLES {
        let role = controller_role(row);
        let subject = [SubjectRow::ServiceAccount(row.name)];
        objects.push(("clusterrolebindings", binding_object("", &role, "ClusterRole", &role, &subject)));
    }
    for (namespace, name, role, subjects) in BINDINGS {
        objects.push(("rolebindings", binding_object(namespace, name, "Role", role, subjects)));
    }
    objects
}

fn controller_role(row: &RoleRow) -> String {
    format!("{CONTROLLER_PREFIX}{}", row.name)
}

fn role_object(kind: &str, namespace: &str, name: &str, row: &RoleRow, rule: fn(&RuleRow) -> Rule) -> Object {
    let mut object = skeleton(kind, namespace, name);
    if let Some(to) = row.aggregated_to {
        object.set_label(&aggregation_label(to), "true");
    }
    if let Some(what) = row.aggregates {
        let selector = json!([{ "matchLabels": { aggregation_label(what): "true" } }]);
        object.set(&["aggregationRule", "clusterRoleSelectors"], selector);
    }
    let rules: Value = row.rules.iter().map(rule).map(|rule| rule.to_value()).collect();
    object.set(&["rules"], rules);
    object
}

fn aggregation_label(to: &str) -> String {
    format!("{GROUP}/aggregate-to-{to}")
}

fn binding_object(namespace: &str, name: &str, role_kind: &str, role: &str, subjects: &[SubjectRow]) -> Object {
    let kind = if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
    let mut object = skeleton(kind, namespace, name);
    object.set(&["roleRef"], json!({ "apiGroup": GROUP, "kind": role_kind, "name": role }));
    let subjects: Vec<Value> = subjects
        .iter()
        .map(|subject| match subject {
            SubjectRow::Group(name) => json!({ "apiGroup": GROUP, "kind": "Group", "name": name }),
            SubjectRow::User(name) => json!({ "apiGroup": GROUP, "kind": "User", "name": name }),
            SubjectRow::ServiceAccount(name) => {
                json!({ "kind": "ServiceAccount", "name": name, "namespace": "kube-system" })
            }
        })
        .collect();
    if !subjects.is_empty() {
        object.set(&["subjects"], subjects);
    }
    object
}

fn skeleton(kind: &str, namespace: &str, name: &str) -> Object {
    let mut object = Object::new(&kminik_meta::Gvk::new(GROUP, "v1", kind));
    object.set_name(name);
    object.set_namespace(namespace);
    object.set_label("kubernetes.io/bootstrapping", "rbac-defaults");
    object.set_annotation(AUTO_UPDATE, "true");
    object
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_table_is_consistent() {
        let objects = objects();
        let mut names = HashSet::new();
        for (plural, object) in &objects {
            assert!(names.insert((*plural, object.namespace(), object.name())), "{} stands twice", object.name());
            for rule in Rule::of_role(object) {
                assert!(!rule.verbs.is_empty(), "{}: a rule without verbs", object.name());
                let about_resources = !rule.api_groups.is_empty() && !rule.resources.is_empty();
                assert!(about_resources == rule.non_resource_urls.is_empty(), "{}: {rule:?}", object.name());
            }
            if let Some(role) = super::super::role_of(object) {
                let plural = if role.namespace.is_some() { "roles" } else { "clusterroles" };
                let namespace = role.namespace.as_deref().unwrap_or_default();
                assert!(names.contains(&(plural, namespace, role.name.as_str())), "{} binds nothing", object.name());
            }
        }
    }

    #[test]
    fn mending_adds_and_never_takes() {
        let wanted = objects().into_iter().map(|(_, object)| object).find(|object| object.name() == "system:kube-dns");
        let wanted = wanted.unwrap();
        let mut object = wanted.clone();
        assert!(!mend(&mut object, &wanted));
        let own = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        object.set(&["rules"], json!([own]));
        assert!(mend(&mut object, &wanted));
        assert_eq!(object.array(&["rules"])[0], own);
        assert!(uncovered(&Rule::of_role(&object), &Rule::of_role(&wanted)).is_empty());
    }
}
