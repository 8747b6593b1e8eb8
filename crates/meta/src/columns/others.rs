//! Columns of rbac, networking, coordination, admission, certificates, flow control and API services.

use serde_json::Value;

use super::core::load_balancer;
use super::describe::{NONE, condition, few, join_or, member, or};
use super::{AGE, Column, KindColumns, NAME, number, text, wide};
use crate::{Object, time};

const ROLE_BINDING: &[Column] = &[
    NAME,
    text("Role", "Role that is granted.", |o, _| {
        format!("{}/{}", or(o, &["roleRef", "kind"], ""), or(o, &["roleRef", "name"], "")).into()
    }),
    AGE,
    wide(text("Users", "Users who get it.", |o, _| subjects(o, "User").into())),
    wide(text("Groups", "Groups that get it.", |o, _| subjects(o, "Group").into())),
    wide(text("ServiceAccounts", "Service accounts that get it.", |o, _| subjects(o, "ServiceAccount").into())),
];

/// Kind of the parameters of a policy.
const PARAM_KIND: Column = text("ParamKind", "Kind of its parameters.", |o, _| match o.get(&["spec", "paramKind"]) {
    Some(kind) => format!("{}/{}", member(kind, "apiVersion"), member(kind, "kind")).into(),
    None => "<unset>".into(),
});

/// Bindings of policies of both kinds.
const POLICY_BINDINGS: &[Column] = &[
    NAME,
    text("PolicyName", "Policy that is bound.", |o, _| or(o, &["spec", "policyName"], "").into()),
    text("ParamRef", "Its parameters.", |o, _| match o.get(&["spec", "paramRef"]) {
        Some(reference) if !member(reference, "namespace").is_empty() => {
            format!("{}/{}", member(reference, "namespace"), member(reference, "name")).into()
        }
        Some(reference) if !member(reference, "name").is_empty() => format!("*/{}", member(reference, "name")).into(),
        _ => "<unset>".into(),
    }),
    AGE,
];

const WEBHOOKS: &[Column] =
    &[NAME, number("Webhooks", "Number of webhooks.", |o, _| o.array(&["webhooks"]).len().into()), AGE];

pub(super) const KINDS: &[KindColumns] = &[
    ("rbac.authorization.k8s.io", "RoleBinding", ROLE_BINDING),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", ROLE_BINDING),
    (
        "coordination.k8s.io",
        "Lease",
        &[NAME, text("Holder", "Who holds it.", |o, _| or(o, &["spec", "holderIdentity"], "").into()), AGE],
    ),
    (
        "networking.k8s.io",
        "Ingress",
        &[
            NAME,
            text("Class", "Controller class.", |o, _| {
                let by_annotation = o.annotation("kubernetes.io/ingress.class");
                or(o, &["spec", "ingressClassName"], by_annotation.unwrap_or(NONE)).into()
            }),
            text("Hosts", "Hosts the rules are for.", |o, _| {
                let hosts: Vec<&str> =
                    o.array(&["spec", "rules"]).iter().map(|r| member(r, "host")).filter(|h| !h.is_empty()).collect();
                few(&hosts, "*").into()
            }),
            text("Address", "Addresses of the load balancer.", |o, _| load_balancer(o).join(",").into()),
            text("Ports", "Open ports.", |o, _| {
                if o.array(&["spec", "tls"]).is_empty() { "80" } else { "80, 443" }.into()
            }),
            AGE,
        ],
    ),
    (
        "networking.k8s.io",
        "IngressClass",
        &[
            NAME,
            text("Controller", "Controller that serves it.", |o, _| or(o, &["spec", "controller"], "").into()),
            text("Parameters", "What configures it.", |o, _| {
                let Some(reference) = o.get(&["spec", "parameters"]) else { return NONE.into() };
                let kind = crate::gvk::qualified(member(reference, "kind"), member(reference, "apiGroup"));
                format!("{kind}/{}", member(reference, "name")).into()
            }),
            AGE,
        ],
    ),
    (
        "networking.k8s.io",
        "ServiceCIDR",
        &[
            NAME,
            text("CIDRs", "Ranges of addresses.", |o, _| {
                let ranges: Vec<&str> = o.array(&["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
                ranges.join(",").into()
            }),
            AGE,
        ],
    ),
    (
        "networking.k8s.io",
        "IPAddress",
        &[
            NAME,
            text("ParentRef", "What the address belongs to.", |o, _| {
                let Some(parent) = o.get(&["spec", "parentRef"]) else { return "".into() };
                let parts = ["group", "resource", "namespace", "name"].map(|part| member(parent, part));
                parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/").into()
            }),
            AGE,
        ],
    ),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", WEBHOOKS),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", WEBHOOKS),
    (
        "admissionregistration.k8s.io",
        "MutatingAdmissionPolicy",
        &[
            NAME,
            number("Mutations", "Number of changes.", |o, _| o.array(&["spec", "mutations"]).len().into()),
            PARAM_KIND,
            AGE,
        ],
    ),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding", POLICY_BINDINGS),
    (
        "admissionregistration.k8s.io",
        "ValidatingAdmissionPolicy",
        &[
            NAME,
            number("Validations", "Number of rules.", |o, _| o.array(&["spec", "validations"]).len().into()),
            PARAM_KIND,
            AGE,
        ],
    ),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", POLICY_BINDINGS),
    (
        "certificates.k8s.io",
        "CertificateSigningRequest",
        &[
            NAME,
            AGE,
            text("SignerName", "Who should sign.", |o, _| or(o, &["spec", "signerName"], NONE).into()),
            text("Requestor", "Who asks.", |o, _| or(o, &["spec", "username"], "").into()),
            text("RequestedDuration", "How long it should be valid.", |o, _| {
                let seconds = o.i64(&["spec", "expirationSeconds"]).map(jiff::SignedDuration::from_secs);
                seconds.map_or_else(|| NONE.into(), |s| time::human_duration(s).into())
            }),
            text("Condition", "Where the request stands.", |o, _| request_state(o).into()),
        ],
    ),
    (
        "flowcontrol.apiserver.k8s.io",
        "FlowSchema",
        &[
            NAME,
            text("PriorityLevel", "Level its requests go to.", |o, _| {
                or(o, &["spec", "priorityLevelConfiguration", "name"], "").into()
            }),
            number("MatchingPrecedence", "Lower ones are matched first.", |o, _| {
                o.i64(&["spec", "matchingPrecedence"]).unwrap_or_default().into()
            }),
            text("DistinguisherMethod", "What tells flows apart.", |o, _| {
                or(o, &["spec", "distinguisherMethod", "type"], NONE).into()
            }),
            AGE,
            text("MissingPL", "Whether the level is missing.", |o, _| {
                condition(o, "Dangling").map_or("?", |c| member(c, "status")).into()
            }),
        ],
    ),
    (
        "flowcontrol.apiserver.k8s.io",
        "PriorityLevelConfiguration",
        &[
            NAME,
            text("Type", "Limited or Exempt.", |o, _| or(o, &["spec", "type"], "").into()),
            text("NominalConcurrencyShares", "Share of the server.", |o, _| {
                let level = if or(o, &["spec", "type"], "") == "Exempt" { "exempt" } else { "limited" };
                plain(o.get(&["spec", level, "nominalConcurrencyShares"]))
            }),
            text("Queues", "Number of queues.", |o, _| queuing(o, "queues")),
            text("HandSize", "Queues a flow is dealt.", |o, _| queuing(o, "handSize")),
            text("QueueLengthLimit", "Requests a queue holds.", |o, _| queuing(o, "queueLengthLimit")),
            AGE,
        ],
    ),
    (
        "apiregistration.k8s.io",
        "APIService",
        &[
            NAME,
            text("Service", "Who serves it.", |o, _| match o.get(&["spec", "service"]) {
                Some(service) => format!("{}/{}", member(service, "namespace"), member(service, "name")).into(),
                None => "Local".into(),
            }),
            text("Available", "Whether it can be reached.", |o, _| match condition(o, "Available") {
                Some(c) if member(c, "status") == "True" => "True".into(),
                Some(c) => format!("{} ({})", member(c, "status"), member(c, "reason")).into(),
                None => "Unknown".into(),
            }),
            AGE,
        ],
    ),
];

fn queuing(level: &Object, member: &str) -> Value {
    plain(level.get(&["spec", "limited", "limitResponse", "queuing", member]))
}

fn plain(number: Option<&Value>) -> Value {
    number.map_or_else(|| NONE.into(), |n| n.to_string().into())
}

fn subjects(binding: &Object, kind: &str) -> String {
    let names: Vec<String> = binding
        .array(&["subjects"])
        .iter()
        .filter(|s| member(s, "kind") == kind)
        .map(|s| {
            if kind == "ServiceAccount" {
                format!("{}/{}", member(s, "namespace"), member(s, "name"))
            } else {
                member(s, "name").to_owned()
            }
        })
        .collect();
    join_or(&names, ", ", "")
}

fn request_state(request: &Object) -> String {
    let has = |kind| condition(request, kind).is_some();
    let mut states = Vec::new();
    if has("Denied") {
        states.push("Denied");
    } else if has("Approved") {
        states.push("Approved");
    } else {
        states.push("Pending");
    }
    if has("Failed") {
        states.push("Failed");
    }
    if request.str(&["status", "certificate"]).is_some_and(|c| !c.is_empty()) {
        states.push("Issued");
    }
    states.join(",")
}
