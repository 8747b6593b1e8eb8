//! The group authorization.k8s.io: questions about rights.

use std::sync::Arc;

use crate::auth::reviews::{Access, RulesReview};
use crate::registry::def::{ResourceDef, Scope};

const GROUP: &str = "authorization.k8s.io";

pub(super) fn rows() -> Vec<ResourceDef> {
    let review = |plural, kind, access| ResourceDef::answering(GROUP, "v1", plural, kind, Arc::new(access));
    let mut local = review("localsubjectaccessreviews", "LocalSubjectAccessReview", Access::Local);
    local.scope = Scope::Namespaced;
    let rules = Arc::new(RulesReview);
    vec![
        local,
        review("selfsubjectaccessreviews", "SelfSubjectAccessReview", Access::Own),
        ResourceDef::answering(GROUP, "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", rules),
        review("subjectaccessreviews", "SubjectAccessReview", Access::Subject),
    ]
}
