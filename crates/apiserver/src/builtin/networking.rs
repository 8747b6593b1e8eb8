//! The networking.k8s.io group.

use crate::registry::def::ResourceDef;
use crate::strategies::networking::{Ingresses, NetworkPolicies};

const GROUP: &str = "networking.k8s.io";

pub(super) fn rows() -> Vec<ResourceDef> {
    let row = |plural, kind| ResourceDef::new(GROUP, "v1", plural, kind);
    vec![
        row("ingressclasses", "IngressClass").cluster().policy(|policy| policy.generation = true),
        row("ingresses", "Ingress")
            .short(&["ing"])
            .strategy(Ingresses)
            .with_status()
            .policy(|policy| policy.generation = true),
        row("ipaddresses", "IPAddress").cluster().short(&["ip"]).policy(|policy| policy.create_on_update = true),
        row("networkpolicies", "NetworkPolicy")
            .short(&["netpol"])
            .strategy(NetworkPolicies)
            .policy(|policy| policy.generation = true),
        row("servicecidrs", "ServiceCIDR").cluster().with_status(),
    ]
}
