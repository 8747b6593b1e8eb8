//! The flow schemas and priority levels that every cluster has, as upstream's API server defines them.
//!
//! Mandatory ones always are as defined here. Suggested ones are restored when they are deleted, and follow these
//! definitions while they are annotated `apf.kubernetes.io/autoupdate-spec: "true"`, or not annotated and never changed.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use http::{Method, StatusCode};
use kminik_meta::StatusError;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{accepted, send};
use crate::Server;
use crate::http::service::LocalService;

/// Name of the schema and of the level of requests that never wait.
pub(crate) const EXEMPT: &str = "exempt";
const CATCH_ALL: &str = "catch-all";
pub(super) const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
pub(super) const SCHEMAS_PLURAL: &str = "flowschemas";
pub(super) const LEVELS_PLURAL: &str = "prioritylevelconfigurations";
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
/// Pause before a failed pass is tried again.
const RETRY: Duration = Duration::from_secs(1);

struct Level {
    name: &'static str,
    /// Shares of the server, and how much of them may be lent, in percent.
    shares: (i64, i64),
    /// Queues and hand size; `None` refuses at once.
    queuing: Option<(i64, i64)>,
}

const LEVELS: [Level; 8] = [
    Level { name: EXEMPT, shares: (0, 0), queuing: None },
    Level { name: CATCH_ALL, shares: (5, 0), queuing: None },
    Level { name: "system", shares: (30, 33), queuing: Some((64, 6)) },
    Level { name: "node-high", shares: (40, 25), queuing: Some((64, 6)) },
    Level { name: "leader-election", shares: (10, 0), queuing: Some((16, 4)) },
    Level { name: "workload-high", shares: (40, 50), queuing: Some((128, 6)) },
    Level { name: "workload-low", shares: (100, 90), queuing: Some((128, 6)) },
    Level { name: "global-default", shares: (20, 50), queuing: Some((128, 6)) },
];
const QUEUE_LENGTH: i64 = 50;

#[derive(Clone, Copy)]
enum Subject {
    Group(&'static str),
    User(&'static str),
    /// All service accounts of kube-system.
    SystemAccounts,
}

use Subject::{Group, SystemAccounts, User};

/// Verbs, groups, resources (words separated by blanks), and whether objects without a namespace count.
type ResourceRule = (&'static str, &'static str, &'static str, bool);

struct Schema {
    name: &'static str,
    level: &'static str,
    precedence: i64,
    distinguisher: Option<&'static str>,
    subjects: &'static [Subject],
    resources: &'static [ResourceRule],
    /// Verbs and paths.
    urls: Option<(&'static str, &'static str)>,
}

const EVERYONE: &[Subject] = &[Group("system:unauthenticated"), Group("system:authenticated")];
const EVERYTHING: &[ResourceRule] = &[("*", "*", "*", true)];
const ALL_URLS: Option<(&str, &str)> = Some(("*", "*"));
const BY_USER: Option<&str> = Some("ByUser");
const BY_NAMESPACE: Option<&str> = Some("ByNamespace");

/// A schema for all that its subjects ask.
const fn all(
    name: &'static str,
    level: &'static str,
    precedence: i64,
    distinguisher: Option<&'static str>,
    subjects: &'static [Subject],
) -> Schema {
    Schema { name, level, precedence, distinguisher, subjects, resources: EVERYTHING, urls: ALL_URLS }
}

const SCHEMAS: [Schema; 11] = [
    all(EXEMPT, EXEMPT, 1, None, &[Group("system:masters")]),
    Schema {
        name: "probes",
        level: EXEMPT,
        precedence: 2,
        distinguisher: None,
        subjects: EVERYONE,
        resources: &[],
        urls: Some(("get", "/healthz /readyz /livez")),
    },
    Schema {
        name: "system-leader-election",
        level: "leader-election",
        precedence: 100,
        distinguisher: BY_USER,
        subjects: &[User("system:kube-controller-manager"), User("system:kube-scheduler"), SystemAccounts],
        resources: &[("get create update", "coordination.k8s.io", "leases", false)],
        urls: None,
    },
    Schema {
        name: "system-node-high",
        level: "node-high",
        precedence: 400,
        distinguisher: BY_USER,
        subjects: &[Group("system:nodes")],
        resources: &[("*", "core", "nodes nodes/status", true), ("*", "coordination.k8s.io", "leases", false)],
        urls: None,
    },
    all("system-nodes", "system", 500, BY_USER, &[Group("system:nodes")]),
    all("kube-controller-manager", "workload-high", 800, BY_NAMESPACE, &[User("system:kube-controller-manager")]),
    all("kube-scheduler", "workload-high", 800, BY_NAMESPACE, &[User("system:kube-scheduler")]),
    all("kube-system-service-accounts", "workload-high", 900, BY_NAMESPACE, &[SystemAccounts]),
    all("service-accounts", "workload-low", 9000, BY_USER, &[Group("system:serviceaccounts")]),
    all("global-default", "global-default", 9900, BY_USER, EVERYONE),
    all(CATCH_ALL, CATCH_ALL, 10_000, BY_USER, EVERYONE),
];

/// The specification that a mandatory object has; `None` for all other names.
pub(crate) fn mandatory_spec(plural: &str, name: &str) -> Option<Value> {
    if !is_mandatory(name) {
        return None;
    }
    match plural {
        SCHEMAS_PLURAL => SCHEMAS.iter().find(|schema| schema.name == name).map(schema_spec),
        _ => LEVELS.iter().find(|level| level.name == name).map(level_spec),
    }
}

fn is_mandatory(name: &str) -> bool {
    matches!(name, EXEMPT | CATCH_ALL)
}

fn level_spec(level: &Level) -> Value {
    let (shares, lendable) = level.shares;
    let mut spec = json!({ "nominalConcurrencyShares": shares, "lendablePercent": lendable });
    if level.name == EXEMPT {
        return json!({ "type": "Exempt", "exempt": spec });
    }
    spec["limitResponse"] = match level.queuing {
        None => json!({ "type": "Reject" }),
        Some((queues, hand)) => {
            let queuing = json!({ "queues": queues, "handSize": hand, "queueLengthLimit": QUEUE_LENGTH });
            json!({ "type": "Queue", "queuing": queuing })
        }
    };
    json!({ "type": "Limited", "limited": spec })
}

fn schema_spec(schema: &Schema) -> Value {
    let subjects: Vec<Value> = schema.subjects.iter().map(|subject| subject_value(*subject)).collect();
    let mut rules = json!({ "subjects": subjects });
    if !schema.resources.is_empty() {
        rules["resourceRules"] = schema.resources.iter().map(resource_rule).collect();
    }
    if let Some((verbs, urls)) = schema.urls {
        rules["nonResourceRules"] = json!([{ "verbs": words(verbs), "nonResourceURLs": words(urls) }]);
    }
    let mut spec = json!({
        "priorityLevelConfiguration": { "name": schema.level },
        "matchingPrecedence": schema.precedence,
        "rules": [rules],
    });
    if let Some(method) = schema.distinguisher {
        spec["distinguisherMethod"] = json!({ "type": method });
    }
    spec
}

fn subject_value(subject: Subject) -> Value {
    match subject {
        Group(name) => json!({ "kind": "Group", "group": { "name": name } }),
        User(name) => json!({ "kind": "User", "user": { "name": name } }),
        SystemAccounts => {
            json!({ "kind": "ServiceAccount", "serviceAccount": { "namespace": "kube-system", "name": "*" } })
        }
    }
}

fn resource_rule((verbs, groups, resources, cluster): &ResourceRule) -> Value {
    let groups: Vec<&str> = words(groups).into_iter().map(|group| if group == "core" { "" } else { group }).collect();
    let mut rule =
        json!({ "verbs": words(verbs), "apiGroups": groups, "resources": words(resources), "namespaces": ["*"] });
    if *cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

fn words(text: &'static str) -> Vec<&'static str> {
    text.split_whitespace().collect()
}

/// Makes all of them exist, and leaves a task behind that restores them until cancelled.
///
/// # Errors
/// When an object is refused.
pub(super) async fn run(client: LocalService, server: Arc<Server>, stop: CancellationToken) -> Result<(), StatusError> {
    pass(&client).await?;
    tokio::spawn(follow(client, server, stop));
    Ok(())
}

async fn follow(client: LocalService, server: Arc<Server>, stop: CancellationToken) {
    let subscribe = |plural: &str| {
        server.registry().cache().resource(&format!("flowcontrol.apiserver.k8s.io/{plural}")).subscribe()
    };
    let (mut levels, mut schemas) = (subscribe(LEVELS_PLURAL), subscribe(SCHEMAS_PLURAL));
    drop(server);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = levels.changed() => if changed.is_err() { return },
            changed = schemas.changed() => if changed.is_err() { return },
        }
        while let Err(error) = pass(&client).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "flow control's objects cannot be restored");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }
}

async fn pass(client: &LocalService) -> Result<(), StatusError> {
    let levels = LEVELS.iter().map(|level| maintain(client, LEVELS_PLURAL, level.name, level_spec(level)));
    try_join_all(levels).await?;
    let schemas = SCHEMAS.iter().map(|schema| maintain(client, SCHEMAS_PLURAL, schema.name, schema_spec(schema)));
    try_join_all(schemas).await.map(drop)
}

async fn maintain(client: &LocalService, plural: &str, name: &str, spec: Value) -> Result<(), StatusError> {
    let collection = format!("/apis/{API_VERSION}/{plural}");
    let path = format!("{collection}/{name}");
    let (code, mut found) = send(client, Method::GET, &path, None).await?;
    if code != StatusCode::OK {
        let kind = if plural == LEVELS_PLURAL { "PriorityLevelConfiguration" } else { "FlowSchema" };
        let object = json!({
            "apiVersion": API_VERSION, "kind": kind, "spec": spec,
            "metadata": { "name": name, "annotations": { AUTO_UPDATE: "true" } },
        });
        let (code, answer) = send(client, Method::POST, &collection, Some(&object)).await?;
        return if code == StatusCode::CONFLICT { Ok(()) } else { accepted(code, &answer) };
    }
    let annotation = found["metadata"]["annotations"][AUTO_UPDATE].as_str();
    let follows = match annotation {
        _ if is_mandatory(name) => true,
        None => found["metadata"]["generation"] == 1,
        Some(value) => value == "true",
    };
    let wanted_annotation = if follows { "true" } else { "false" };
    // The exempt level's shares are the administrator's.
    let stands = found["spec"] == spec || (plural == LEVELS_PLURAL && name == EXEMPT);
    if annotation == Some(wanted_annotation) && (!follows || stands) {
        return Ok(());
    }
    if follows && !stands {
        found["spec"] = spec;
    }
    found["metadata"]["annotations"][AUTO_UPDATE] = wanted_annotation.into();
    let (code, answer) = send(client, Method::PUT, &path, Some(&found)).await?;
    // Somebody else changed it, of which the next pass hears.
    if code == StatusCode::CONFLICT { Ok(()) } else { accepted(code, &answer) }
}

#[cfg(test)]
mod tests {
    use kminik_meta::{Gvk, Object, decode, defaults, schema, validate};

    use super::*;

    #[test]
    fn the_objects_are_valid_and_in_normal_form() {
        let levels = LEVELS.iter().map(|level| ("PriorityLevelConfiguration", level.name, level_spec(level)));
        let schemas = SCHEMAS.iter().map(|schema| ("FlowSchema", schema.name, schema_spec(schema)));
        for (kind, name, spec) in levels.chain(schemas) {
            let gvk = Gvk::new("flowcontrol.apiserver.k8s.io", "v1", kind);
            let mut object = Object::new(&gvk);
            object.set_name(name);
            object.set(&["spec"], spec.clone());
            let schema = schema::lookup(&gvk).unwrap();
            decode::conform(&mut object, schema, decode::FieldValidation::Strict).unwrap();
            defaults::apply(&mut object, schema);
            assert_eq!(object.get(&["spec"]), Some(&spec), "{name}");
            let errors = validate::create(&gvk, schema, &object);
            assert!(errors.is_empty(), "{errors:?}");
        }
        for schema in &SCHEMAS {
            assert!(LEVELS.iter().any(|level| level.name == schema.level), "{}", schema.name);
        }
    }
}
