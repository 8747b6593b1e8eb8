//! The admissionregistration.k8s.io group: webhooks and policies that admission asks.

use crate::registry::def::{Policy, ResourceDef};
use crate::strategies::expressions::{MutatingPolicies, Policies, Webhooks};

const GROUP: &str = "admissionregistration.k8s.io";

pub(super) fn rows(mutating_policies: bool) -> Vec<ResourceDef> {
    let in_version = |version, plural, kind| {
        ResourceDef::new(GROUP, version, plural, kind).cluster().in_category("api-extensions").policy(|policy| {
            policy.generation = true;
            policy.unconditional_update = false;
            policy.resets = Policy::STATUS_ALONE;
        })
    };
    let row = |plural, kind| in_version("v1", plural, kind);
    let mut rows = vec![
        row("mutatingwebhookconfigurations", "MutatingWebhookConfiguration").strategy(Webhooks),
        row("validatingadmissionpolicies", "ValidatingAdmissionPolicy").strategy(Policies).with_status(),
        row("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
        row("validatingwebhookconfigurations", "ValidatingWebhookConfiguration").strategy(Webhooks),
    ];
    if mutating_policies {
        let beta = |plural, kind| in_version("v1beta1", plural, kind);
        rows.push(beta("mutatingadmissionpolicies", "MutatingAdmissionPolicy").strategy(MutatingPolicies));
        rows.push(beta("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding"));
    }
    rows
}
