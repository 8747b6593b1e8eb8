//! API priority and fairness at the HTTP boundary.

use std::sync::Arc;
use std::time::Duration;

use crate::common::webhook::Webhook;
use crate::common::{Answer, Client, TestServer};
use kminik_store::{EmbeddedStore, Options};
use serde_json::{Value, json};

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn start(seats: usize) -> TestServer {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&directory.path().join("store.redb"), Options::default()).unwrap();
    TestServer::start_on(Arc::new(store), directory, |config| config.max_in_flight = seats).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_counted_by_level_and_schema() {
    let server = start(600).await;
    let mut admin = server.client().await;
    assert_eq!(admin.get("/api/v1/namespaces").await.code, 200);
    let as_jane = [("impersonate-user", "jane"), ("impersonate-group", "system:authenticated")];
    assert_eq!(
        admin.send("GET", "/api/v1/namespaces", &as_jane, "").await.code,
        403,
        "its turn comes before its rights"
    );
    let metrics = String::from_utf8(admin.get("/metrics").await.body.to_vec()).unwrap();
    let value = |name: &str, labels: &str| -> f64 {
        let prefix = format!("apiserver_flowcontrol_{name}{{{labels}}} ");
        let line = metrics.lines().find(|line| line.starts_with(&prefix));
        line.unwrap_or_else(|| panic!("{prefix} in {metrics}"))[prefix.len()..].parse().unwrap()
    };
    let exempt = "flow_schema=\"exempt\",priority_level=\"exempt\"";
    assert!(value("dispatched_requests_total", exempt) >= 1.0);
    assert!(value("current_executing_requests", exempt) >= 1.0, "this very request");
    assert!(value("nominal_limit_seats", "priority_level=\"catch-all\"") > 0.0);
    let flows = metrics.lines().filter(|line| line.starts_with("apiserver_flowcontrol_dispatched_requests_total"));
    let others: f64 = flows
        .filter(|line| !line.contains("\"exempt\""))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert!(others >= 1.0, "jane's request is not exempt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dumps_show_levels_queues_and_requests() {
    let server = start(600).await;
    let mut admin = server.client().await;
    let levels = admin.get("/debug/api_priority_and_fairness/dump_priority_levels").await;
    let text = String::from_utf8(levels.body.to_vec()).unwrap();
    assert!(text.starts_with("PriorityLevelName, "), "{text}");
    assert!(text.lines().any(|line| line.starts_with("exempt,")) && text.contains("catch-all,"), "{text}");
    let queues = admin.get("/debug/api_priority_and_fairness/dump_queues").await;
    assert!(String::from_utf8(queues.body.to_vec()).unwrap().contains("NextDispatchR"));
    let path = "/debug/api_priority_and_fairness/dump_requests?includeRequestDetails=1";
    let requests = String::from_utf8(admin.get(path).await.body.to_vec()).unwrap();
    assert!(requests.contains("kubernetes-admin") && requests.contains("dump_requests"), "{requests}");
    assert_eq!(admin.get("/debug/api_priority_and_fairness/dump_nothing").await.code, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_gives_its_seat_back_once_it_has_begun() {
    let server = start(600).await;
    let watches: Vec<_> = (0..3).collect();
    let mut open = Vec::new();
    for _ in watches {
        open.push(crate::common::Events::open(server.client().await, "/api/v1/namespaces?watch=1").await);
    }
    let mut admin = server.client().await;
    for _ in 0..100 {
        let metrics = String::from_utf8(admin.get("/metrics").await.body.to_vec()).unwrap();
        let prefix =
            "apiserver_flowcontrol_current_executing_requests{flow_schema=\"exempt\",priority_level=\"exempt\"} ";
        let line = metrics.lines().find(|line| line.starts_with(prefix)).unwrap();
        if line == format!("{prefix}1") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("watches hold seats");
}

/// Who asks, not as the administrator whose requests never wait.
fn acting(user: &str) -> [(&str, &str); 3] {
    [("impersonate-user", user), ("impersonate-group", "system:authenticated"), ("content-type", "application/json")]
}

/// A schema that sends these users' requests to a level of the same name.
fn schema(name: &str, users: &[&str]) -> Value {
    let subjects: Vec<Value> = users.iter().map(|user| json!({"kind": "User", "user": {"name": user}})).collect();
    json!({"metadata": {"name": name}, "spec": {
        "priorityLevelConfiguration": {"name": name}, "matchingPrecedence": 50, "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": subjects, "resourceRules": [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]}],
    }})
}

/// A server that has one seat for all of jane's and bob's requests, and a webhook that keeps jane's writes for two seconds.
struct OneSeat {
    server: TestServer,
    _webhook: Webhook,
    schema: Value,
}

impl OneSeat {
    async fn start(response: Value) -> Self {
        let server = start(100).await;
        let mut admin = server.client().await;
        let webhook = Webhook::start(|_, _| Value::Null).await;
        let limited = json!({"nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": response});
        let level = json!({"metadata": {"name": "narrow"}, "spec": {"type": "Limited", "limited": limited}});
        let slow = json!({"metadata": {"name": "slow"}, "webhooks": [{
            "name": "slow.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "failurePolicy": "Ignore", "timeoutSeconds": 2,
            "clientConfig": webhook.client_config("/slow"),
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
        }]});
        let rights = json!({
            "metadata": {"name": "jane"}, "subjects": [{"kind": "User", "name": "jane"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        });
        let mut schema_of = Value::Null;
        for (path, object) in [
            ("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations".to_owned(), slow),
            ("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings".to_owned(), rights),
            (format!("{GROUP}/prioritylevelconfigurations"), level),
            (format!("{GROUP}/flowschemas"), schema("narrow", &["jane", "bob"])),
        ] {
            let answer = admin.post(&path, &object).await;
            assert_eq!(answer.code, 201, "{}", answer.json());
            schema_of = answer.json();
        }
        let started = OneSeat { server, _webhook: webhook, schema: schema_of };
        // The rules hold once a request is named by them.
        for _ in 0..500 {
            if started.get("bob").await.headers["x-kubernetes-pf-flowschema-uid"] == started.uid() {
                started.gauge("current_executing_requests", 0).await;
                return started;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the schema is not used");
    }

    fn uid(&self) -> &str {
        self.schema["metadata"]["uid"].as_str().unwrap()
    }

    async fn get(&self, user: &str) -> Answer {
        self.server.client().await.send("GET", &format!("{CONFIG_MAPS}/none"), &acting(user), "").await
    }

    /// Sends a request that waits or holds the seat.
    async fn begin(
        &self,
        user: &'static str,
        method: &'static str,
        path: &'static str,
    ) -> tokio::task::JoinHandle<Answer> {
        let mut client: Client = self.server.client().await;
        let body = if method == "POST" { json!({"metadata": {"name": "x"}}).to_string() } else { String::new() };
        tokio::spawn(async move { client.send(method, path, &acting(user), body).await })
    }

    /// Waits until one of the level's gauges shows this number.
    async fn gauge(&self, name: &str, wanted: usize) {
        let prefix = format!("apiserver_flowcontrol_{name}{{flow_schema=\"narrow\",priority_level=\"narrow\"}} ");
        let mut admin = self.server.client().await;
        for _ in 0..200 {
            let metrics = String::from_utf8(admin.get("/metrics").await.body.to_vec()).unwrap();
            if metrics.lines().any(|line| line == format!("{prefix}{wanted}")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{name} is never {wanted}");
    }
}

fn assert_refused(answer: &Answer, schema_uid: &str) {
    assert_eq!((answer.code, &answer.json()["reason"]), (429, &json!("TooManyRequests")), "{}", answer.json());
    assert_eq!(answer.json()["message"], "Too many requests, please try again later.");
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.headers["x-kubernetes-pf-flowschema-uid"], schema_uid);
    assert!(answer.headers.contains_key("x-kubernetes-pf-prioritylevel-uid"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_that_rejects_refuses_whom_it_has_no_seat_for() {
    let one = OneSeat::start(json!({"type": "Reject"})).await;
    let holder = one.begin("jane", "POST", CONFIG_MAPS).await;
    one.gauge("current_executing_requests", 1).await;
    for user in ["jane", "bob"] {
        assert_refused(&one.get(user).await, one.uid());
    }
    assert_eq!(one.server.client().await.get(&format!("{CONFIG_MAPS}/none")).await.code, 404, "others have seats");
    assert_eq!(holder.await.unwrap().code, 201);
    assert_eq!(one.get("jane").await.code, 404, "there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_that_fills_its_queue_leaves_room_for_others() {
    let queuing = json!({"queues": 64, "handSize": 1, "queueLengthLimit": 1});
    let one = OneSeat::start(json!({"type": "Queue", "queuing": queuing})).await;
    let holder = one.begin("jane", "POST", CONFIG_MAPS).await;
    one.gauge("current_executing_requests", 1).await;
    let janes = one.begin("jane", "GET", "/api/v1/namespaces/default/configmaps/none").await;
    one.gauge("current_inqueue_requests", 1).await;
    assert_refused(&one.get("jane").await, one.uid());
    let bobs = one.begin("bob", "GET", "/api/v1/namespaces/default/configmaps/none").await;
    one.gauge("current_inqueue_requests", 2).await;
    assert!(!janes.is_finished() && !bobs.is_finished(), "both wait for the seat");
    assert_eq!(holder.await.unwrap().code, 201);
    assert_eq!(janes.await.unwrap().code, 404);
    assert_eq!(bobs.await.unwrap().code, 403, "bob's turn comes, though he has no rights");
    one.gauge("current_inqueue_requests", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_says_whether_its_level_is_there() {
    let server = start(600).await;
    let mut admin = server.client().await;
    assert_eq!(admin.post(&format!("{GROUP}/flowschemas"), &schema("lost", &["jane"])).await.code, 201);
    let names = "This FlowSchema references the PriorityLevelConfiguration object named \"lost\"";
    let missing = ("True", "NotFound", format!("{names} but there is no such object"));
    dangling(&mut admin, &missing).await;
    let limited = json!({"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}});
    let level = json!({"metadata": {"name": "lost"}, "spec": {"type": "Limited", "limited": limited}});
    let levels = format!("{GROUP}/prioritylevelconfigurations");
    assert_eq!(admin.post(&levels, &level).await.code, 201);
    dangling(&mut admin, &("False", "Found", format!("{names} and it exists"))).await;
    assert_eq!(admin.delete(&format!("{levels}/lost")).await.code, 200);
    dangling(&mut admin, &missing).await;
}

/// Waits until the schema `lost` has the condition with this status, reason and message.
async fn dangling(admin: &mut Client, (status, reason, message): &(&str, &str, String)) {
    let mut condition = Value::Null;
    for _ in 0..500 {
        let schema = admin.get(&format!("{GROUP}/flowschemas/lost")).await.json();
        condition = schema["status"]["conditions"][0].clone();
        if condition["status"] == *status {
            let found = (&condition["type"], &condition["reason"], &condition["message"]);
            assert_eq!(found, (&json!("Dangling"), &json!(reason), &json!(message)));
            assert!(condition["lastTransitionTime"].is_string());
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not {status}: {condition}");
}
