//! The admissionregistration.k8s.io group: webhooks and policies that admission asks.

use crate::registry::def::ResourceDef;
use crate::strategies::expressions::{Policies, Webhooks};

const GROUP: &str = "admissionregistration.k8s.io";

pub(super) fn rows() -> Vec<ResourceDef> {
    let row = |plural, kind| {
        ResourceDef::new(GROUP, "v1", plural, kind).cluster().in_category("api-extensions").policy(|policy| {
            policy.generation = true;
            policy.unconditional_update = false;
        })
    };
    vec![
        row("mutatingwebhookconfigurations", "MutatingWebhookConfiguration").strategy(Webhooks),
        row("validatingadmissionpolicies", "ValidatingAdmissionPolicy").strategy(Policies).with_status(),
        row("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
        row("validatingwebhookconfigurations", "ValidatingWebhookConfiguration").strategy(Webhooks),
    ]
}
