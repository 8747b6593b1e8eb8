//! Nobody gives away rights that they do not have: checked on every write of a role or binding.

use std::sync::Arc;

use async_trait::async_trait;
use kminik_meta::{Object, StatusError};

use super::{GROUP, Rbac, RoleKey, Rule, role_of, uncovered};
use crate::admission::{Admission, Attributes, Operation};
use crate::auth::{Attributes as AuthAttributes, Authorizer};

/// Refuses roles and bindings with more rights than their writer has, unless the verbs `escalate` or `bind` allow it.
pub struct EscalationCheck {
    pub rbac: Arc<Rbac>,
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Admission for EscalationCheck {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn may_mutate(&self) -> bool {
        false
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.row.group == GROUP
            && attributes.subresource.is_empty()
            && matches!(attributes.operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), StatusError> {
        let Some(object) = object else { return Ok(()) };
        // What the garbage collector changes gives nobody a right.
        if attributes.old.is_some_and(|old| only_ownership_differs(old, object)) {
            return Ok(());
        }
        if let Some(role) = role_of(object) {
            return self.check_binding(attributes, object, &role).await;
        }
        let rules = Rule::of_role(object);
        let aggregates =
            [Some(object), attributes.old].into_iter().flatten().any(|role| role.get(&["aggregationRule"]).is_some());
        if self.may(attributes, "escalate", &attributes.row.plural, attributes.namespace, object.name()).await {
            return Ok(());
        }
        if aggregates {
            let all = [
                Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
                Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
            ];
            self.check_rules(
                attributes,
                object,
                &all,
                "must have cluster-admin privileges to use the aggregationRule",
            )?;
        }
        self.check_rules(attributes, object, &rules, "")
    }
}

impl EscalationCheck {
    async fn check_binding(
        &self,
        attributes: &Attributes<'_>,
        binding: &Object,
        role: &RoleKey,
    ) -> Result<(), StatusError> {
        let plural = if role.namespace.is_some() { "roles" } else { "clusterroles" };
        if self.may(attributes, "bind", plural, attributes.namespace, &role.name).await {
            return Ok(());
        }
        let rules = self.rbac.rules_of(role).ok_or_else(|| StatusError::not_found(GROUP, plural, &role.name))?;
        self.check_rules(attributes, binding, &rules, "")
    }

    async fn may(&self, attributes: &Attributes<'_>, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let request = AuthAttributes {
            user: attributes.user.clone(),
            verb: verb.to_owned(),
            resource_request: true,
            group: GROUP.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..AuthAttributes::default()
        };
        self.authorizer.authorize(&request).await.allowed()
    }

    fn check_rules(
        &self,
        attributes: &Attributes<'_>,
        object: &Object,
        rules: &[Rule],
        why: &str,
    ) -> Result<(), StatusError> {
        let owned = self.rbac.rules_for(attributes.user, attributes.namespace);
        let missing = uncovered(&owned, rules);
        if missing.is_empty() {
            return Ok(());
        }
        let row = attributes.row;
        if !why.is_empty() {
            return Err(StatusError::forbidden(&row.group, &row.plural, object.name(), why));
        }
        let groups: Vec<String> = attributes.user.groups.iter().map(|group| format!("{group:?}")).collect();
        let missing: Vec<String> = missing.iter().map(Rule::describe).collect();
        let why = format!(
            "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            attributes.user.name,
            groups.join(" "),
            missing.join("\n")
        );
        Err(StatusError::forbidden(&row.group, &row.plural, object.name(), why))
    }
}

/// Whether finalizers, owners and bookkeeping are all that differs.
fn only_ownership_differs(old: &Object, new: &Object) -> bool {
    let bare = |object: &Object| {
        let mut bare = object.clone();
        for field in ["finalizers", "ownerReferences", "managedFields", "resourceVersion"] {
            bare.metadata_mut().remove(field);
        }
        bare
    };
    bare(old) == bare(new)
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}
