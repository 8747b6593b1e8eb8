//! The audit log at the HTTP boundary: which events, with what in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::common::TestServer;
use crate::common::webhook::Webhook;
use kminik_apiserver::audit::{AuditConfig, LogOptions, Policy};
use kminik_apiserver::auth::service_account::{BoundObject, NewToken};
use kminik_store::{EmbeddedStore, Options};
use serde_json::{Value, json};

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitManagedFields: true
rules:
- {level: None, users: ["system:apiserver"]}
- {level: None, nonResourceURLs: ["/readyz*"]}
- {level: RequestResponse, namespaces: ["full"], resources: [{group: "", resources: ["configmaps"]}], omitStages: [RequestReceived]}
- {level: Request, namespaces: ["half"], omitStages: [RequestReceived]}
- {level: RequestResponse, namespaces: ["decided"], omitStages: [RequestReceived]}
- {level: Metadata, namespaces: ["half-decided"], omitStages: [RequestReceived]}
- {level: Metadata, resources: [{group: "", resources: ["secrets", "pods"]}]}
- {level: Metadata, nonResourceURLs: ["/version"]}
"#;

async fn start() -> (TestServer, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&directory.path().join("store.redb"), Options::default()).unwrap();
    let path = directory.path().join("audit.log");
    let log = LogOptions::new(path.clone());
    let server = TestServer::start_on(Arc::new(store), directory, |config| {
        config.audit = Some(AuditConfig { policy: Policy::parse(POLICY).unwrap(), log });
    })
    .await;
    (server, path)
}

fn events(path: &Path, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).filter(|event| wanted(event)).collect()
}

/// Waits until the log has so many events of this kind: the last one of a request is written when its answer has gone.
async fn eventually(path: &Path, count: usize, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    for _ in 0..200 {
        let found = events(path, &wanted);
        if found.len() >= count {
            assert_eq!(found.len(), count, "{found:?}");
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not {count} events: {:?}", events(path, |_| true));
}

fn configmap(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
}

async fn namespaces(server: &TestServer) {
    let mut client = server.client().await;
    for name in ["full", "half"] {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        assert_eq!(client.post("/api/v1/namespaces", &namespace).await.code, 201);
    }
}

#[tokio::test]
async fn each_level_has_what_upstream_writes() {
    let (server, log) = start().await;
    namespaces(&server).await;
    let mut client = server.client().await;
    let headers = [
        ("content-type", "application/json"),
        ("user-agent", "t/1"),
        ("audit-id", "mine"),
        ("x-forwarded-for", "1.2.3.4"),
    ];
    let path = "/api/v1/namespaces/full/configmaps";
    let answer = client.send("POST", &format!("{path}?dryRun="), &headers, configmap("x").to_string()).await;
    assert_eq!((answer.code, answer.headers["audit-id"].to_str().unwrap()), (201, "mine"));
    let [event] = &eventually(&log, 1, |event| event["auditID"] == "mine").await[..] else { panic!("one stage") };
    let stamps = ["requestReceivedTimestamp", "stageTimestamp"];
    for stamp in stamps {
        let text = event[stamp].as_str().unwrap();
        assert_eq!((text.len(), text.ends_with('Z')), ("2026-01-01T00:00:00.000000Z".len(), true), "{text}");
    }
    let mut rest = event.clone();
    let response = rest["responseObject"].take();
    for stamp in stamps {
        rest.as_object_mut().unwrap().remove(stamp);
    }
    assert_eq!(response["metadata"]["name"], "x");
    assert!(response["metadata"]["uid"].is_string() && response["metadata"]["managedFields"].is_null());
    let expected = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": "mine",
        "stage": "ResponseComplete", "requestURI": format!("{path}?dryRun="), "verb": "create",
        "user": {"username": "kubernetes-admin", "groups": ["system:masters", "system:authenticated"]},
        "sourceIPs": ["1.2.3.4", "127.0.0.1"], "userAgent": "t/1",
        "objectRef": {"resource": "configmaps", "namespace": "full", "name": "x", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 201},
        "requestObject": {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x"}, "data": {"a": "b"}},
        "responseObject": null,
        "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""},
    });
    let mut user = rest["user"].clone();
    user.as_object_mut().unwrap().retain(|key, _| matches!(key.as_str(), "username" | "groups"));
    rest["user"] = user;
    assert_eq!(rest, expected);

    let path = "/api/v1/namespaces/half/configmaps";
    client.post(path, &configmap("y")).await;
    client.patch(&format!("{path}/y"), "merge", &json!({"data": {"c": "d"}})).await;
    let half = eventually(&log, 2, |event| event["level"] == "Request").await;
    assert_eq!(half[0]["requestObject"]["data"], json!({"a": "b"}));
    assert_eq!((&half[1]["verb"], &half[1]["requestObject"]), (&json!("patch"), &json!({"data": {"c": "d"}})));
    assert!(half.iter().all(|event| event.get("responseObject").is_none()));

    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"p": "hidden"}});
    client.post("/api/v1/namespaces/default/secrets", &secret).await;
    let metadata =
        eventually(&log, 2, |event| event["objectRef"]["resource"] == "secrets" && event["verb"] == "create").await;
    assert_eq!((&metadata[0]["stage"], &metadata[1]["stage"]), (&json!("RequestReceived"), &json!("ResponseComplete")));
    assert!(metadata[0].get("responseStatus").is_none() && metadata[0].get("annotations").is_none());
    assert_eq!(metadata[1]["objectRef"]["name"], "s", "the name that the URL does not have");
    assert!(!std::fs::read_to_string(&log).unwrap().contains("hidden"));
    client.get("/readyz").await;
    client.get("/version").await;
    let version = eventually(&log, 2, |event| event["requestURI"] == "/version").await;
    assert!(version[1].get("objectRef").is_none());
    assert_eq!(events(&log, |event| event["requestURI"] == "/readyz").len(), 0);
}

#[tokio::test]
async fn refusals_watches_and_impersonation_are_written_down() {
    let (server, log) = start().await;
    let mut client = server.client().await;
    let pods = "/api/v1/namespaces/default/pods";
    let headers = [("impersonate-user", "jane"), ("impersonate-group", "dev")];
    assert_eq!(client.send("GET", &format!("{pods}/p"), &headers, "").await.code, 403);
    let refused = &eventually(&log, 2, |event| event["objectRef"]["name"] == "p").await[1];
    assert_eq!(refused["user"]["username"], "kubernetes-admin");
    assert_eq!(refused["impersonatedUser"]["username"], "jane");
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    let status = &refused["responseStatus"];
    assert_eq!(
        (&status["code"], &status["reason"], &status["status"]),
        (&json!(403), &json!("Forbidden"), &json!("Failure"))
    );
    assert!(status["message"].as_str().unwrap().contains("User \"jane\" cannot get resource \"pods\""));

    let missing = client.get(&format!("{pods}/absent")).await;
    assert_eq!(missing.code, 404);
    let event = &eventually(&log, 2, |event| event["objectRef"]["name"] == "absent").await[1];
    assert_eq!(event["responseStatus"]["reason"], "NotFound");

    let mut nobody = server.client_as(None).await;
    assert_eq!(nobody.get("/api/v1/secrets").await.code, 401);
    let event =
        &eventually(&log, 2, |event| event["responseStatus"]["code"] == 401 || event["user"] == json!({})).await[1];
    assert_eq!(event["responseStatus"]["code"], 401);

    let watcher = server.client().await;
    let watch = crate::common::Events::open(watcher, &format!("{pods}?watch=1")).await;
    let stages = |events: Vec<Value>| -> Vec<String> {
        events.iter().map(|event| event["stage"].as_str().unwrap().to_owned()).collect()
    };
    let begun = eventually(&log, 2, |event| event["verb"] == "watch").await;
    assert_eq!(stages(begun), ["RequestReceived", "ResponseStarted"]);
    drop(watch);
    server.close().await;
}

#[tokio::test]
async fn a_watch_ends_in_the_log_when_it_ends() {
    let (server, log) = start().await;
    let mut client = server.client().await;
    client.get("/api/v1/namespaces/default/pods?watch=1&timeoutSeconds=1").await;
    let events = eventually(&log, 3, |event| event["verb"] == "watch").await;
    assert_eq!(events[2]["stage"], "ResponseComplete");
    assert_eq!(events[2]["responseStatus"]["code"], 200);
    assert!(events[2]["stageTimestamp"].as_str() > events[1]["stageTimestamp"].as_str());
}

/// The annotations of the one event of a request, but for those about authorisation.
async fn annotations(log: &Path, id: &str) -> Value {
    let mut annotations = eventually(log, 1, |event| event["auditID"] == id).await[0]["annotations"].take();
    annotations.as_object_mut().unwrap().retain(|key, _| !key.starts_with("authorization.k8s.io/"));
    annotations
}

#[tokio::test]
async fn pod_security_says_what_it_holds_pods_to() {
    let (server, log) = start().await;
    let mut client = server.client().await;
    let labels =
        json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/audit": "restricted"});
    let namespace = json!({"metadata": {"name": "decided", "labels": labels}});
    assert_eq!(client.post("/api/v1/namespaces", &namespace).await.code, 201);
    client.post("/api/v1/namespaces/decided/serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    let mut send = async |id: &str, spec: Value| {
        let pod = json!({"metadata": {"name": "p"}, "spec": spec});
        let headers = [("content-type", "application/json"), ("audit-id", id)];
        client.send("POST", "/api/v1/namespaces/decided/pods?dryRun=All", &headers, pod.to_string()).await.code
    };
    let container = json!([{"name": "c", "image": "i"}]);
    assert_eq!(send("violates-audit", json!({"containers": container})).await, 201);
    let found = annotations(&log, "violates-audit").await;
    assert_eq!(found["pod-security.kubernetes.io/enforce-policy"], "baseline:latest");
    let violations = found["pod-security.kubernetes.io/audit-violations"].as_str().unwrap();
    assert!(
        violations.starts_with("would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation"),
        "{violations}"
    );
    assert_eq!(send("violates-both", json!({"containers": container, "hostPID": true})).await, 403);
    let found = annotations(&log, "violates-both").await;
    assert_eq!(found["pod-security.kubernetes.io/enforce-policy"], "baseline:latest");
    assert!(found["pod-security.kubernetes.io/audit-violations"].as_str().unwrap().contains("host namespaces"));
}

#[tokio::test]
async fn policies_say_what_they_found() {
    let (server, log) = start().await;
    let mut client = server.client().await;
    let namespace = json!({"metadata": {"name": "decided"}});
    assert_eq!(client.post("/api/v1/namespaces", &namespace).await.code, 201);
    let group = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [
            {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]},
        "validations": [{"expression": "true"}, {"expression": "object.metadata.name == 'x'", "message": "not x"}],
        "auditAnnotations": [
            {"key": "name", "valueExpression": "' ' + object.metadata.name + ' '"},
            {"key": "none", "valueExpression": "null"},
        ],
    }});
    assert_eq!(client.post(&format!("{group}/validatingadmissionpolicies"), &policy).await.code, 201);
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Audit"]}});
    let answer = client.post(&format!("{group}/validatingadmissionpolicybindings"), &binding).await;
    let revision: u64 = answer.json()["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    server.api.server().registry().cache().reach(revision).await.unwrap();
    let headers = [("content-type", "application/json"), ("audit-id", "judged")];
    let path = "/api/v1/namespaces/decided/configmaps";
    assert_eq!(client.send("POST", path, &headers, configmap("y").to_string()).await.code, 201);
    let mut found = annotations(&log, "judged").await;
    let key = "validation.policy.admission.k8s.io/validation_failure";
    let failure: Value = serde_json::from_str(found[key].take().as_str().unwrap()).unwrap();
    let expected = json!([{"message": "not x", "policy": "p", "binding": "b", "expressionIndex": 1, "validationActions": ["Audit"]}]);
    assert_eq!(failure, expected);
    assert_eq!(found, json!({key: null, "p/name": "y"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_say_what_they_did() {
    let (server, log) = start().await;
    let mut client = server.client().await;
    for name in ["decided", "half-decided"] {
        assert_eq!(client.post("/api/v1/namespaces", &json!({"metadata": {"name": name}})).await.code, 201);
    }
    let hooks = Webhook::start(|path, _| {
        let mut response = json!({"allowed": true, "auditAnnotations": {"seen": "yes", "no key": ""}});
        if path == "/mutate" {
            let operations = json!([{"op": "add", "path": "/data/added", "value": "1"}]).to_string();
            response["patchType"] = "JSONPatch".into();
            response["patch"] = BASE64_STANDARD.encode(operations).into();
        }
        response
    })
    .await;
    let webhook = |name: &str, path: &str| {
        json!({
            "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore",
            "clientConfig": hooks.client_config(path),
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
        })
    };
    for (kind, webhooks) in [
        ("mutating", [webhook("broken.m.io", "/broken"), webhook("changes.m.io", "/mutate")]),
        ("validating", [webhook("allows.v.io", "/allow"), webhook("broken.v.io", "/broken")]),
    ] {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations");
        let answer = client.post(&path, &json!({"metadata": {"name": "c"}, "webhooks": webhooks})).await;
        assert_eq!(answer.code, 201, "{:?}", answer.json());
        let revision: u64 = answer.json()["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        server.api.server().registry().cache().reach(revision).await.unwrap();
    }
    for namespace in ["decided", "half-decided"] {
        let headers = [("content-type", "application/json"), ("audit-id", namespace)];
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        assert_eq!(client.send("POST", &path, &headers, configmap("x").to_string()).await.code, 201);
        let found = annotations(&log, namespace).await;
        let mut expected = json!({
            "failed-open.mutation.webhook.admission.k8s.io/round_0_index_0": "broken.m.io",
            "mutation.webhook.admission.k8s.io/round_0_index_0":
                r#"{"configuration":"c","webhook":"broken.m.io","mutated":false}"#,
            "mutation.webhook.admission.k8s.io/round_0_index_1":
                r#"{"configuration":"c","webhook":"changes.m.io","mutated":true}"#,
            "changes.m.io/seen": "yes",
            "allows.v.io/seen": "yes",
            "failed-open.validating.webhook.admission.k8s.io/round_0_index_1": "broken.v.io",
        });
        // What was changed is part of the body, which only the first namespace's requests have written down.
        if namespace == "decided" {
            expected["patch.webhook.admission.k8s.io/round_0_index_1"] =
                r#"{"configuration":"c","webhook":"changes.m.io","patch":[{"op":"add","path":"/data/added","value":"1"}],"patchType":"JSONPatch"}"#.into();
        }
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn a_token_that_should_have_been_replaced_is_noted() {
    let (server, log) = start().await;
    let mut client = server.client().await;
    let account = json!({"metadata": {"name": "old"}});
    let made = client.post("/api/v1/namespaces/default/serviceaccounts", &account).await.json();
    let (now, auth) = (jiff::Timestamp::now(), server.api.server().auth());
    let uid = made["metadata"]["uid"].as_str().unwrap().to_owned();
    let issue = |warn_after: i64| {
        let account = BoundObject { name: "old".into(), uid: uid.clone() };
        let new = NewToken {
            namespace: "default",
            account,
            bound: Vec::new(),
            audiences: &auth.tokens.audiences(),
            now: now - jiff::SignedDuration::from_secs(60),
            expires: now + jiff::SignedDuration::from_secs(3600),
            warn_after: Some(now + jiff::SignedDuration::from_secs(warn_after)),
        };
        format!("Bearer {}", auth.tokens.issue(&new).unwrap())
    };
    let mut anonymous = server.client_as(None).await;
    for (id, warn_after) in [("stale", -30), ("fresh", 30)] {
        let token = issue(warn_after);
        anonymous
            .send("GET", "/api/v1/namespaces/half-decided/pods", &[("authorization", &token), ("audit-id", id)], "")
            .await;
    }
    let stale = annotations(&log, "stale").await;
    let note = stale["authentication.k8s.io/stale-token"].as_str().unwrap();
    assert!(
        note.starts_with("subject: system:serviceaccount:default:old, seconds after warning threshold: 3"),
        "{note}"
    );
    assert_eq!(annotations(&log, "fresh").await, json!({}));
}

#[tokio::test]
async fn tokens_of_secrets_are_tracked() {
    let (server, log) = start().await;
    let mut client = server.client().await;
    let (accounts, secrets) = ("/api/v1/namespaces/default/serviceaccounts", "/api/v1/namespaces/default/secrets");
    client.post(accounts, &json!({"metadata": {"name": "robot"}})).await;
    let secret = json!({"metadata": {"name": "s", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token"});
    let made = client.post(secrets, &secret).await;
    assert_eq!(made.code, 201, "{:?}", made.body);
    let bound = json!({"kind": "Secret", "apiVersion": "v1", "name": "s", "uid": made.json()["metadata"]["uid"]});
    let request = json!({"spec": {"boundObjectRef": bound}});
    let token = client.post(&format!("{accounts}/robot/token"), &request).await.json()["status"]["token"].clone();
    let bearer = format!("Bearer {}", token.as_str().unwrap());
    let path = format!("{secrets}/s");
    let mut robot = server.client_as(None).await;
    let mut ask = async |id: &str| {
        let headers = [("authorization", bearer.as_str()), ("audit-id", id)];
        robot.send("GET", "/api/v1/namespaces/half-decided/pods", &headers, "").await
    };
    // Bound to the secret, and not the one that it holds.
    assert_eq!(ask("bound").await.code, 403);
    assert_eq!(annotations(&log, "bound").await, json!({}));
    let held = BASE64_STANDARD.encode(token.as_str().unwrap());
    client.patch(&path, "merge", &json!({"data": {"token": held}})).await;
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    assert_eq!(ask("manual").await.code, 403);
    assert_eq!(annotations(&log, "manual").await, json!({"authentication.k8s.io/legacy-token-manual-secret": "s"}));
    let mut used = Value::Null;
    for _ in 0..200 {
        used = client.get(&path).await.json()["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].clone();
        if used.is_string() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let used: jiff::civil::Date = used.as_str().expect("a label").parse().unwrap();
    assert!(used >= today, "{used}");

    client.patch(&format!("{accounts}/robot"), "merge", &json!({"secrets": [{"name": "s"}]})).await;
    let warned = ask("generated").await;
    let warning = warned.headers["warning"].to_str().unwrap();
    assert!(warning.starts_with("299 - \"Use tokens from the TokenRequest API"), "{warning}");
    assert_eq!(
        annotations(&log, "generated").await,
        json!({"authentication.k8s.io/legacy-token-autogenerated-secret": "s"})
    );
    let invalid = json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2024-01-01"}}});
    client.patch(&path, "merge", &invalid).await;
    assert_eq!(ask("invalid").await.code, 401);
    assert_eq!(
        annotations(&log, "invalid").await,
        json!({"authentication.k8s.io/legacy-token-invalidated": "s/default"})
    );
    let tracking = client
        .get("/api/v1/namespaces/kube-system/configmaps/kube-apiserver-legacy-service-account-token-tracking")
        .await;
    assert!(tracking.json()["data"]["since"].as_str().unwrap().parse::<jiff::civil::Date>().is_ok());
}
