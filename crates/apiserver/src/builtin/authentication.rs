//! The group authentication.k8s.io: questions about identities.

use std::sync::Arc;

use crate::auth::reviews::{SelfReview, TokenReview};
use crate::registry::def::ResourceDef;

const GROUP: &str = "authentication.k8s.io";

pub(super) fn rows() -> Vec<ResourceDef> {
    vec![
        ResourceDef::answering(GROUP, "v1", "selfsubjectreviews", "SelfSubjectReview", Arc::new(SelfReview)),
        ResourceDef::answering(GROUP, "v1", "tokenreviews", "TokenReview", Arc::new(TokenReview)),
    ]
}
