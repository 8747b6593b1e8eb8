//! Columns of the core group's other kinds, and of events and endpoint slices.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::describe::{NONE, UNSET, condition, few, join_or, labels, member, or, time_at};
use super::{AGE, Column, KindColumns, NAME, number, text, wide};
use crate::{Object, time};

pub(super) const KINDS: &[KindColumns] = &[
    (
        "",
        "Service",
        &[
            NAME,
            text("Type", "How the service is reached.", |o, _| or(o, &["spec", "type"], "ClusterIP").into()),
            text("Cluster-IP", "Address inside the cluster.", |o, _| {
                let first = o.array(&["spec", "clusterIPs"]).first().and_then(Value::as_str);
                first.unwrap_or_else(|| or(o, &["spec", "clusterIP"], NONE)).into()
            }),
            text("External-IP", "Addresses outside the cluster.", |o, _| external_ip(o).into()),
            text("Port(s)", "Ports, with those on the nodes.", |o, _| service_ports(o).into()),
            AGE,
            wide(text("Selector", "Which pods serve it.", |o, _| labels(o.get(&["spec", "selector"])).into())),
        ],
    ),
    (
        "",
        "Endpoints",
        &[NAME, text("Endpoints", "Addresses and ports.", |o, _| few(&endpoint_addresses(o), NONE).into()), AGE],
    ),
    (
        "discovery.k8s.io",
        "EndpointSlice",
        &[
            NAME,
            text("AddressType", "Kind of address.", |o, _| or(o, &["addressType"], "").into()),
            text("Ports", "Port numbers.", |o, _| {
                let ports: Vec<String> = o
                    .array(&["ports"])
                    .iter()
                    .map(|p| p.get("port").map_or_else(|| "*".to_owned(), ToString::to_string))
                    .collect();
                few(&ports, UNSET).into()
            }),
            text("Endpoints", "Addresses.", |o, _| {
                let all = o.array(&["endpoints"]).iter().filter_map(|e| e.get("addresses")?.as_array()).flatten();
                let addresses: Vec<&str> = all.filter_map(Value::as_str).collect();
                few(&addresses, UNSET).into()
            }),
            AGE,
        ],
    ),
    (
        "",
        "Node",
        &[
            NAME,
            text("Status", "Whether the node is ready, and whether it takes pods.", |o, _| node_status(o).into()),
            text("Roles", "What the node is for.", |o, _| node_roles(o).into()),
            AGE,
            text("Version", "Version of its kubelet.", |o, _| {
                or(o, &["status", "nodeInfo", "kubeletVersion"], "").into()
            }),
            wide(text("Internal-IP", "Address inside the cluster.", |o, _| address(o, "InternalIP").into())),
            wide(text("External-IP", "Address outside the cluster.", |o, _| address(o, "ExternalIP").into())),
            wide(text("OS-Image", "Operating system.", |o, _| node_info(o, "osImage"))),
            wide(text("Kernel-Version", "Version of the kernel.", |o, _| node_info(o, "kernelVersion"))),
            wide(text("Container-Runtime", "Container runtime and its version.", |o, _| {
                node_info(o, "containerRuntimeVersion")
            })),
        ],
    ),
    (
        "",
        "Namespace",
        &[NAME, text("Status", "Phase of the namespace.", |o, _| or(o, &["status", "phase"], "").into()), AGE],
    ),
    (
        "",
        "ConfigMap",
        &[NAME, number("Data", "Number of keys.", |o, _| (size(o, "data") + size(o, "binaryData")).into()), AGE],
    ),
    (
        "",
        "Secret",
        &[
            NAME,
            text("Type", "What the secret is for.", |o, _| or(o, &["type"], "").into()),
            number("Data", "Number of keys.", |o, _| size(o, "data").into()),
            AGE,
        ],
    ),
    (
        "",
        "ServiceAccount",
        &[NAME, number("Secrets", "Number of secrets.", |o, _| o.array(&["secrets"]).len().into()), AGE],
    ),
    (
        "",
        "ResourceQuota",
        &[
            NAME,
            text("Request", "Used and allowed requests.", |o, _| quota(o, false).into()),
            text("Limit", "Used and allowed limits.", |o, _| quota(o, true).into()),
            AGE,
        ],
    ),
    (
        "",
        "ComponentStatus",
        &[
            NAME,
            text("Status", "Whether the component does its job.", |o, _| match healthy(o) {
                Some("True") => "Healthy".into(),
                Some(_) => "Unhealthy".into(),
                None => "Unknown".into(),
            }),
            text("Message", "What it says.", |o, _| health(o).map_or("", |c| member(c, "message")).into()),
            text("Error", "Why it could not be asked.", |o, _| health(o).map_or("", |c| member(c, "error")).into()),
        ],
    ),
    ("", "Event", EVENT),
    ("events.k8s.io", "Event", EVENT),
];

const EVENT: &[Column] = &[
    text("Last Seen", "Time since the event last happened.", |o, now| last_seen(o, now).into()),
    text("Type", "Normal or Warning.", |o, _| or(o, &["type"], "").into()),
    text("Reason", "Why it happened, in one word.", |o, _| or(o, &["reason"], "").into()),
    text("Object", "What the event is about.", |o, _| {
        let about = about(o);
        format!("{}/{}", member(about, "kind").to_lowercase(), member(about, "name")).into()
    }),
    wide(text("Subobject", "Which part of it.", |o, _| member(about(o), "fieldPath").into())),
    wide(text("Source", "Who reported it.", |o, _| source(o).into())),
    text("Message", "What happened.", |o, _| or(o, &["message"], or(o, &["note"], "")).trim().into()),
    wide(text("First Seen", "Time since the event first happened.", |o, now| {
        let first = time_at(o, &["firstTimestamp"]).or(time_at(o, &["deprecatedFirstTimestamp"]));
        time::age(first.or_else(|| time_at(o, &["eventTime"])), now).into()
    })),
    wide(number("Count", "How often it happened.", |o, _| {
        let series = o.i64(&["series", "count"]);
        let count = series.or(o.i64(&["count"])).or(o.i64(&["deprecatedCount"])).filter(|c| *c > 0);
        count.unwrap_or(1).into()
    })),
    wide(NAME),
];

fn health(component: &Object) -> Option<&Value> {
    component.array(&["conditions"]).iter().find(|condition| member(condition, "type") == "Healthy")
}

fn healthy(component: &Object) -> Option<&str> {
    health(component).map(|condition| member(condition, "status"))
}

fn about(event: &Object) -> &Value {
    const NOTHING: &Value = &Value::Null;
    event.get(&["involvedObject"]).or_else(|| event.get(&["regarding"])).unwrap_or(NOTHING)
}

fn last_seen(event: &Object, now: Timestamp) -> String {
    let last = time_at(event, &["series", "lastObservedTime"])
        .or_else(|| time_at(event, &["lastTimestamp"]))
        .or_else(|| time_at(event, &["deprecatedLastTimestamp"]))
        .or_else(|| time_at(event, &["eventTime"]));
    time::age(last, now)
}

fn source(event: &Object) -> String {
    let from = |member: &str| {
        let old = or(event, &["source", member], "");
        if old.is_empty() { or(event, &["deprecatedSource", member], "") } else { old }
    };
    let (component, host) = (from("component"), from("host"));
    let instance = or(event, &["reportingComponent"], or(event, &["reportingController"], ""));
    let parts =
        if component.is_empty() { [instance, or(event, &["reportingInstance"], "")] } else { [component, host] };
    parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(", ")
}

fn size(object: &Object, member: &str) -> usize {
    object.get(&[member]).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

/// Addresses of a load balancer's status: hosts before numbers where both are given.
pub(super) fn load_balancer(object: &Object) -> Vec<&str> {
    let entries = object.array(&["status", "loadBalancer", "ingress"]).iter();
    let unique: BTreeSet<&str> = entries
        .map(|e| if member(e, "ip").is_empty() { member(e, "hostname") } else { member(e, "ip") })
        .filter(|a| !a.is_empty())
        .collect();
    unique.into_iter().collect()
}

fn external_ip(service: &Object) -> String {
    let own: Vec<&str> = service.array(&["spec", "externalIPs"]).iter().filter_map(Value::as_str).collect();
    match or(service, &["spec", "type"], "ClusterIP") {
        "ClusterIP" | "NodePort" => join_or(&own, ",", NONE),
        "LoadBalancer" => {
            let mut all = load_balancer(service);
            all.extend(own);
            join_or(&all, ",", "<pending>")
        }
        "ExternalName" => or(service, &["spec", "externalName"], "").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn service_ports(service: &Object) -> String {
    let texts: Vec<String> = service
        .array(&["spec", "ports"])
        .iter()
        .map(|port| {
            let number = |name: &str| port.get(name).and_then(Value::as_i64).unwrap_or_default();
            match (number("port"), number("nodePort"), member(port, "protocol")) {
                (own, 0, protocol) => format!("{own}/{protocol}"),
                (own, node, protocol) => format!("{own}:{node}/{protocol}"),
            }
        })
        .collect();
    join_or(&texts, ",", NONE)
}

fn endpoint_addresses(endpoints: &Object) -> Vec<String> {
    let mut out = Vec::new();
    for subset in endpoints.array(&["subsets"]) {
        let list = |name: &str| subset.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for port in list("ports") {
            let number = port.get("port").and_then(Value::as_i64).unwrap_or_default();
            for address in list("addresses") {
                let ip = member(address, "ip");
                out.push(if ip.contains(':') { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") });
            }
        }
        if list("ports").is_empty() {
            out.extend(list("addresses").iter().map(|a| member(a, "ip").to_owned()));
        }
    }
    out
}

fn node_status(node: &Object) -> String {
    let ready = match condition(node, "Ready").map(|c| member(c, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let closed = node.bool(&["spec", "unschedulable"]).unwrap_or_default();
    if closed { format!("{ready},SchedulingDisabled") } else { ready.to_owned() }
}

fn node_roles(node: &Object) -> String {
    let roles: BTreeSet<&str> = node
        .labels()
        .into_iter()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role),
            _ if key == "kubernetes.io/role" && !value.is_empty() => Some(value),
            _ => None,
        })
        .collect();
    join_or(&roles.into_iter().collect::<Vec<_>>(), ",", NONE)
}

fn address<'a>(node: &'a Object, kind: &str) -> &'a str {
    let mut addresses = node.array(&["status", "addresses"]).iter();
    addresses.find(|a| member(a, "type") == kind).map_or(NONE, |a| member(a, "address"))
}

fn node_info(node: &Object, member: &str) -> Value {
    or(node, &["status", "nodeInfo", member], "<unknown>").into()
}

fn quota(quota: &Object, limits: bool) -> String {
    let hard = quota.get(&["status", "hard"]).and_then(Value::as_object);
    let texts: Vec<String> = hard
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("limits.") == limits)
        .map(|(name, hard)| {
            let used = or(quota, &["status", "used", name], "0");
            format!("{name}: {used}/{}", hard.as_str().unwrap_or_default())
        })
        .collect();
    texts.join(", ")
}
