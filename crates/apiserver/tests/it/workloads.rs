//! Jobs, cron jobs, autoscalers, disruption budgets, quotas and replication controllers, where they differ from all other kinds.

use crate::common::{Answer, Client, TestServer};
use serde_json::{Value, json};

const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const CRON_JOBS: &str = "/apis/batch/v1/namespaces/default/cronjobs";
const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

fn template() -> Value {
    json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}})
}

fn job(spec: Value) -> Value {
    let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": spec});
    job["spec"]["template"] = template();
    job
}

fn message(answer: &Answer) -> String {
    answer.json()["message"].as_str().unwrap_or_default().to_owned()
}

async fn refused(client: &mut Client, path: &str, change: Value, why: &str) {
    let answer = client.patch(path, "merge", &change).await;
    assert_eq!(answer.code, 422, "{change}: {:?}", answer.json());
    assert!(message(&answer).contains(why), "{change}: {}", message(&answer));
}

#[tokio::test]
async fn a_job_selects_its_own_pods() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let made = client.post(JOBS, &job(json!({}))).await.json();
    let uid = made["metadata"]["uid"].as_str().unwrap();
    assert_eq!(made["spec"]["selector"]["matchLabels"], json!({"batch.kubernetes.io/controller-uid": uid}));
    let expected = json!({"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": "j",
        "controller-uid": uid, "job-name": "j"});
    assert_eq!(made["spec"]["template"]["metadata"]["labels"], expected);
    assert_eq!((&made["metadata"]["generation"], &made["spec"]["suspend"]), (&json!(1), &json!(false)));

    let mut foreign = job(json!({}));
    foreign["metadata"]["name"] = json!("k");
    foreign["spec"]["template"]["metadata"] = json!({"labels": {"job-name": "other"}});
    let answer = client.post(JOBS, &foreign).await;
    let why = "spec.template.metadata.labels[job-name]: Invalid value: ";
    assert!(answer.code == 422 && message(&answer).contains(why), "{}", message(&answer));
    foreign["spec"]["manualSelector"] = json!(true);
    foreign["spec"]["selector"] = json!({"matchLabels": {"job-name": "other"}});
    assert_eq!(client.post(JOBS, &foreign).await.code, 201);

    let deleted = client.delete(&format!("{JOBS}/j")).await;
    assert_eq!(deleted.json()["metadata"]["finalizers"], json!(["orphan"]), "its pods are left alone by default");
    let warning = deleted.headers["warning"].to_str().unwrap();
    assert!(warning.contains("child pods are preserved by default when jobs are deleted"), "{warning}");
    let deleted = client.delete(&format!("{JOBS}/k?propagationPolicy=Background")).await;
    assert_eq!((deleted.json()["status"].as_str(), deleted.headers.get("warning")), (Some("Success"), None));
}

#[tokio::test]
async fn what_of_a_job_may_change() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let one = format!("{JOBS}/j");
    client.post(JOBS, &job(json!({"suspend": true, "completions": 3}))).await;
    let spec = |spec: Value| json!({ "spec": spec });
    let node = |name: &str| json!({"template": {"spec": {"nodeSelector": {"zone": name}}}});
    assert_eq!(client.patch(&one, "merge", &spec(node("a"))).await.code, 200, "a job that waits may be moved");
    refused(
        &mut client,
        &one,
        spec(json!({"completions": 4})),
        "spec.completions: Invalid value: 4: field is immutable",
    )
    .await;
    refused(&mut client, &one, spec(json!({"template": {"spec": {"priority": 1}}})), "spec.template: Invalid value")
        .await;
    let changed = client.patch(&one, "merge", &spec(json!({"suspend": false, "parallelism": 2}))).await;
    assert_eq!((changed.code, &changed.json()["metadata"]["generation"]), (200, &json!(3)));
    refused(&mut client, &one, spec(node("b")), "spec.template: Invalid value").await;

    let mut indexed = job(json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2}));
    indexed["metadata"]["name"] = json!("i");
    client.post(JOBS, &indexed).await;
    let one = format!("{JOBS}/i");
    let why = "spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism";
    refused(&mut client, &one, spec(json!({"completions": 3})), why).await;
    let grown = client.patch(&one, "merge", &spec(json!({"completions": 3, "parallelism": 3}))).await;
    assert_eq!(grown.code, 200, "{:?}", grown.json());
}

#[tokio::test]
async fn the_status_of_a_job_keeps_its_promises() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.post(JOBS, &job(json!({}))).await;
    let one = format!("{JOBS}/j/status");
    let condition = |kind: &str| json!({"type": kind, "status": "True"});
    let done = |conditions: Value| {
        json!({"status": {"conditions": conditions, "succeeded": 1, "startTime": "2026-01-02T03:04:05Z",
            "completionTime": "2026-01-02T03:04:06Z"}})
    };
    let why = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
    refused(&mut client, &one, done(json!([condition("Complete")])), why).await;
    let why = "status.completionTime: Invalid value: \"2026-01-02T03:04:06Z\": cannot set completionTime when there is no Complete=True condition";
    refused(&mut client, &one, done(json!([])), why).await;
    let good = done(json!([condition("SuccessCriteriaMet"), condition("Complete")]));
    let answer = client.patch(&one, "merge", &good).await;
    assert_eq!(answer.code, 200, "{:?}", answer.json());
    let why = "cannot disable the terminal Complete=True condition";
    refused(&mut client, &one, json!({"status": {"conditions": [condition("SuccessCriteriaMet")]}}), why).await;
    refused(&mut client, &one, json!({"status": {"succeeded": 0}}), "cannot decrease the succeeded counter").await;
    let successful = client.get(&format!("{JOBS}?fieldSelector=status.successful%3D1")).await.json();
    assert_eq!(successful["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn cron_jobs_keep_time() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let cron = |name: &str, spec: Value| {
        let mut cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name}, "spec": spec});
        cron["spec"]["jobTemplate"] = json!({"spec": {"template": template()}});
        cron
    };
    let long = "x".repeat(53);
    for (name, spec, why) in [
        ("c", json!({}), "spec.schedule: Required value"),
        ("c", json!({"schedule": "61 * * * *"}), "end of range (61) above maximum (59): 61"),
        (
            "c",
            json!({"schedule": "* * * * *", "timeZone": "Mars/Base"}),
            "spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base",
        ),
        (
            "c",
            json!({"schedule": "TZ=UTC * * * * *"}),
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        ),
        (
            long.as_str(),
            json!({"schedule": "* * * * *"}),
            "metadata.name: Invalid value: \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\": must be no more than 52 characters",
        ),
    ] {
        let answer = client.post(CRON_JOBS, &cron(name, spec)).await;
        assert!(answer.code == 422 && message(&answer).contains(why), "{}", message(&answer));
    }
    let dotted = client.post(CRON_JOBS, &cron("a.b", json!({"schedule": "@daily"}))).await;
    assert_eq!(dotted.code, 201, "{:?}", dotted.json());
    let warning = dotted.headers["warning"].to_str().unwrap();
    assert!(warning.contains("metadata.name: this is used in Pod names and hostnames"), "{warning}");
}

#[tokio::test]
async fn an_autoscaler_in_both_versions() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let path = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
    let reference = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let first = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"scaleTargetRef": reference, "maxReplicas": 3}});
    let made = client.post(&path("v1"), &first).await;
    assert_eq!(made.code, 201, "{:?}", made.json());
    assert_eq!(made.json()["spec"]["targetCPUUtilizationPercentage"], 80, "the default");
    let one = format!("{}/h", path("v2"));
    let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
    let mut second = client.get(&one).await.json();
    assert_eq!((&second["apiVersion"], &second["spec"]["minReplicas"]), (&json!("autoscaling/v2"), &json!(1)));
    second["spec"]["metrics"].as_array_mut().unwrap().insert(0, memory);
    let second = client.put(&one, &second).await;
    assert_eq!(second.code, 200, "{:?}", second.json());
    let one_of_first = format!("{}/h", path("v1"));
    let first = client.get(&one_of_first).await.json();
    let annotation = first["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"].as_str().unwrap();
    let expected = json!([{"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}}]);
    assert_eq!(serde_json::from_str::<Value>(annotation).unwrap(), expected);
    let changed = client.patch(&one_of_first, "merge", &json!({"spec": {"maxReplicas": 4}})).await;
    assert_eq!((changed.code, &changed.json()["spec"]["targetCPUUtilizationPercentage"]), (200, &json!(80)));
    let after = client.get(&one).await.json();
    assert_eq!(
        (&after["spec"]["metrics"], &after["spec"]["maxReplicas"]),
        (&second.json()["spec"]["metrics"], &json!(4))
    );
    assert_eq!(after["metadata"].get("annotations"), None);
    let why = "spec.maxReplicas: Invalid value: 0: must be greater than 0";
    refused(&mut client, &one_of_first, json!({"spec": {"maxReplicas": 0}}), why).await;
    let groups = client.get("/apis").await.json();
    let group = groups["groups"].as_array().unwrap().iter().find(|group| group["name"] == "autoscaling").unwrap();
    assert_eq!(group["preferredVersion"]["version"], "v2");
}

/// A running pod with this label, whose condition Ready is as given.
async fn running(client: &mut Client, name: &str, ready: bool) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "serviceAccountName": "default", "containers": [{"name": "c", "image": "i"}]}});
    let made = client.post(PODS, &pod).await;
    assert_eq!(made.code, 201, "{:?}", made.json());
    let ready = if ready { "True" } else { "False" };
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    assert_eq!(client.patch(&format!("{PODS}/{name}/status"), "merge", &status).await.code, 200);
}

async fn evict(client: &mut Client, name: &str) -> Answer {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    client.post(&format!("{PODS}/{name}/eviction"), &eviction).await
}

#[tokio::test]
async fn evictions_wait_for_the_budget() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    client.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    for name in ["a", "b", "d"] {
        running(&mut client, name, true).await;
    }
    running(&mut client, "c", false).await;
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "p"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    let made = client.post(BUDGETS, &budget).await.json();
    assert_eq!(made["metadata"]["generation"], 1);

    let early = evict(&mut client, "a").await;
    assert_eq!((early.code, early.headers["retry-after"].to_str().unwrap()), (429, "10"));
    let why = "The disruption budget p is still being processed by the server.";
    assert_eq!(early.json()["details"]["causes"][0], json!({"reason": "DisruptionBudget", "message": why}));

    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 3,
        "desiredHealthy": 2, "expectedPods": 4}});
    assert_eq!(client.patch(&format!("{BUDGETS}/p/status"), "merge", &status).await.code, 200);
    let dry = client
        .post(
            &format!("{PODS}/a/eviction?dryRun=All"),
            &json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}}),
        )
        .await;
    assert_eq!(dry.code, 201, "{:?}", dry.json());
    assert_eq!(evict(&mut client, "a").await.code, 201);
    let evicted = client.get(&format!("{PODS}/a")).await.json();
    assert!(evicted["metadata"]["deletionTimestamp"].is_string());
    let conditions = evicted["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|c| c["type"] == "DisruptionTarget" && c["reason"] == "EvictionByEvictionAPI"));
    let charged = client.get(&format!("{BUDGETS}/p")).await.json();
    assert_eq!(charged["status"]["disruptionsAllowed"], 0);
    assert!(charged["status"]["disruptedPods"]["a"].is_string(), "{charged}");

    let second = evict(&mut client, "b").await;
    assert_eq!((second.code, second.json()["reason"].as_str()), (429, Some("TooManyRequests")));
    assert_eq!(message(&second), "Cannot evict pod as it would violate the pod's disruption budget.");
    let why = "The disruption budget p needs 2 healthy pods and has 3 currently";
    assert_eq!(second.json()["details"]["causes"][0]["message"], why);
    assert_eq!(evict(&mut client, "c").await.code, 201, "one that is not ready, while enough are healthy");
    assert_eq!(evict(&mut client, "a").await.code, 201, "one that goes already");
    // What kubectl sends that knows no other.
    for (version, code) in [("policy/v1beta1", 201), ("policy/v1alpha1", 400), ("apps/v1", 400)] {
        let eviction = json!({"apiVersion": version, "kind": "Eviction", "metadata": {"name": "a"}});
        assert_eq!(client.post(&format!("{PODS}/a/eviction"), &eviction).await.code, code, "{version}");
    }

    let mut other = budget.clone();
    other["metadata"]["name"] = json!("q");
    client.post(BUDGETS, &other).await;
    let both = evict(&mut client, "d").await;
    assert!(both.code == 500 && message(&both).contains("more than one PodDisruptionBudget"), "{}", message(&both));
}

#[tokio::test]
async fn the_rest_of_the_core_group() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let controllers = "/api/v1/namespaces/default/replicationcontrollers";
    let controller = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "r"},
        "spec": {"template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let made = client.post(controllers, &controller).await.json();
    assert_eq!((&made["spec"]["selector"], &made["spec"]["replicas"]), (&json!({"app": "web"}), &json!(1)));
    assert_eq!(made["metadata"]["labels"], json!({"app": "web"}));
    let scaled = client.patch(&format!("{controllers}/r/scale"), "merge", &json!({"spec": {"replicas": 4}})).await;
    assert_eq!((scaled.code, &scaled.json()["status"]["selector"]), (200, &json!("app=web")));
    let read = client.get(&format!("{controllers}/r")).await.json();
    assert_eq!((&read["spec"]["replicas"], &read["metadata"]["generation"]), (&json!(4), &json!(2)));
    let why = "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas";
    refused(&mut client, &format!("{controllers}/r/status"), json!({"status": {"readyReplicas": 2}}), why).await;

    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let quota = |hard: Value, scopes: Value| json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard, "scopes": scopes}});
    for (hard, scopes, why) in [
        (
            json!({"gold": "1"}),
            json!([]),
            "spec.hard[gold]: Invalid value: \"gold\": must be a standard resource for quota",
        ),
        (json!({"pods": "1500m"}), json!([]), "spec.hard[pods]: Invalid value: \"1500m\": must be an integer"),
        (json!({"secrets": "1"}), json!(["BestEffort"]), "unsupported scope applied to resource"),
        (json!({}), json!(["BestEffort", "NotBestEffort"]), "conflicting scopes"),
    ] {
        let answer = client.post(quotas, &quota(hard, scopes)).await;
        assert!(answer.code == 422 && message(&answer).contains(why), "{}", message(&answer));
    }
    assert_eq!(client.post(quotas, &quota(json!({"pods": "1"}), json!(["BestEffort"]))).await.code, 201);
    let why = "spec.scopes: Invalid value: [\"Terminating\"]: field is immutable";
    refused(&mut client, &format!("{quotas}/q"), json!({"spec": {"scopes": ["Terminating"]}}), why).await;
    let status = json!({"status": {"hard": {"pods": "1"}, "used": {"pods": "0"}}});
    let answer = client.patch(&format!("{quotas}/q/status"), "merge", &status).await;
    assert_eq!((answer.code, &answer.json()["status"]), (200, &status["status"]));

    let statuses = client.get("/api/v1/componentstatuses").await;
    let healthy = json!([{"type": "Healthy", "status": "True", "message": "ok"}]);
    assert_eq!(statuses.json()["items"][0]["metadata"]["name"], "etcd-0");
    assert_eq!(statuses.json()["items"][0]["conditions"], healthy);
    assert_eq!(statuses.headers["warning"], "299 - \"v1 ComponentStatus is deprecated in v1.19+\"");
    assert_eq!(client.get("/api/v1/componentstatuses/etcd-0").await.json()["conditions"], healthy);
    assert_eq!(client.get("/api/v1/componentstatuses/none").await.code, 404);
    assert_eq!(client.post("/api/v1/componentstatuses", &json!({})).await.code, 405);
}

#[tokio::test]
async fn events_of_the_new_group_are_strict() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = |more: Value| {
        let mut event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
            "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}, "eventTime": "2026-01-02T03:04:05.000006Z",
            "reportingController": "x.io/y", "reportingInstance": "i", "action": "A", "reason": "R", "type": "Normal"});
        for (member, value) in more.as_object().unwrap() {
            event[member] = value.clone();
        }
        event
    };
    for (more, why) in [
        (json!({"eventTime": null}), "eventTime: Required value"),
        (json!({"action": ""}), "action: Required value"),
        (json!({"deprecatedCount": 2}), "count: Invalid value: \"\": needs to be unset"),
        (
            json!({"series": {"count": 1, "lastObservedTime": "2026-01-02T03:04:05.000006Z"}}),
            "series.count: Invalid value: \"\": should be at least 2",
        ),
        (json!({"type": "Odd"}), "type: Invalid value: \"\": has invalid value: Odd"),
        (json!({"note": "x".repeat(1025)}), "can have at most 1024 characters"),
        (json!({"regarding": {"kind": "Pod", "namespace": "other"}}), "does not match event.namespace"),
    ] {
        let answer = client.post(path, &event(more)).await;
        assert!(answer.code == 422 && message(&answer).contains(why), "{why}: {}", message(&answer));
    }
    let made = client.post(path, &event(json!({}))).await;
    assert_eq!(made.code, 201, "{:?}", made.json());
    assert_eq!(made.json()["eventTime"], "2026-01-02T03:04:05.000006Z");
    let one = format!("{path}/e");
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-02T03:04:06.000007Z"}});
    assert_eq!(client.patch(&one, "merge", &series).await.code, 200);
    refused(&mut client, &one, json!({"reason": "Other"}), "reason: Invalid value: \"Other\": field is immutable")
        .await;
}

#[tokio::test]
async fn an_eviction_keeps_to_its_options_and_the_budgets_policy() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    client.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    running(&mut client, "a", true).await;
    running(&mut client, "b", false).await;
    let budget = |policy: &str| {
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "p"}, "spec": {
            "minAvailable": 2, "unhealthyPodEvictionPolicy": policy, "selector": {"matchLabels": {"app": "web"}}}})
    };
    client.post(BUDGETS, &budget("IfHealthyBudget")).await;
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1,
        "desiredHealthy": 2, "expectedPods": 2}});
    assert_eq!(client.patch(&format!("{BUDGETS}/p/status"), "merge", &status).await.code, 200);
    let refused = evict(&mut client, "b").await;
    assert_eq!(refused.code, 429, "too few are healthy for one that is not to go");
    assert!(!refused.headers.contains_key("retry-after"), "nobody knows when there will be more");
    let always = json!({"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}});
    assert_eq!(client.patch(&format!("{BUDGETS}/p"), "merge", &always).await.code, 200);

    let with = |options: Value| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "b"}, "deleteOptions": options});
    let path = format!("{PODS}/b/eviction");
    let other = client.post(&path, &with(json!({"preconditions": {"uid": "another"}}))).await;
    assert_eq!((other.code, other.json()["reason"].as_str()), (409, Some("Conflict")), "{}", other.json());
    let dry = client.post(&path, &with(json!({"dryRun": ["All"]}))).await;
    assert_eq!(dry.code, 201, "{}", dry.json());
    let left = client.get(&format!("{PODS}/b")).await.json();
    assert!(
        left["metadata"]["deletionTimestamp"].is_null() && !left["status"].to_string().contains("DisruptionTarget")
    );
    let own = json!({"preconditions": {"uid": left["metadata"]["uid"]}, "gracePeriodSeconds": 0});
    assert_eq!(client.post(&path, &with(own)).await.code, 201);
    assert_eq!(client.get(&format!("{PODS}/b")).await.code, 404);
    let charged = client.get(&format!("{BUDGETS}/p")).await.json();
    assert!(charged["status"]["disruptedPods"].is_null(), "one that is not healthy takes nothing from the budget");
}

#[tokio::test]
async fn what_counts_as_a_change() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let labels = json!({"a": "b"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"selector": {"matchLabels": labels}, "template": template});
    let made = |kind: &str| json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "x"}, "spec": spec});
    let group = "/apis/apps/v1/namespaces/default";

    client.post(&format!("{group}/deployments"), &made("Deployment")).await;
    let path = format!("{group}/deployments/x");
    let mut generation = async |path: &str, change: Value| {
        let answer = client.patch(path, "merge", &change).await;
        assert_eq!(answer.code, 200, "{change}: {:?}", answer.json());
        answer.json()["metadata"].clone()
    };
    let annotate = json!({"metadata": {"annotations": {"note": "1"}}});
    let label = json!({"metadata": {"labels": {"l": "1"}}});
    assert_eq!(generation(&path, label.clone()).await["generation"], 1);
    assert_eq!(generation(&path, annotate.clone()).await["generation"], 2, "replica sets get their annotations");
    assert_eq!(generation(&path, annotate.clone()).await["generation"], 2);
    let status = json!({"metadata": {"annotations": {"note": "2"}}});
    assert_eq!(generation(&format!("{path}/status"), status).await["generation"], 2);

    let key = "deprecated.daemonset.template.generation";
    let mut client = server.client().await;
    let set = client.post(&format!("{group}/daemonsets"), &made("DaemonSet")).await.json();
    assert_eq!(set["metadata"]["annotations"], json!({key: "1"}));
    let mut changed = async |path: &str, change: Value| {
        let set = client.patch(path, "merge", &change).await.json();
        (set["metadata"]["generation"].clone(), set["metadata"]["annotations"][key].clone())
    };
    let path = format!("{group}/daemonsets/x");
    assert_eq!(changed(&path, json!({"spec": {"minReadySeconds": 1}})).await, (json!(2), json!("1")));
    let image = json!({"spec": {"template": {"metadata": {"annotations": {"n": "1"}}}}});
    assert_eq!(changed(&path, image).await, (json!(3), json!("2")));
    let cleared = json!({"metadata": {"annotations": {key: null}}});
    assert_eq!(changed(&path, cleared.clone()).await, (json!(3), json!("2")));
    assert_eq!(changed(&format!("{path}/status"), cleared).await, (json!(3), json!("2")));

    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "x"},
        "addressType": "IPv4", "endpoints": []});
    let mut client = server.client().await;
    assert_eq!(client.post(slices, &slice).await.json()["metadata"]["generation"], 1);
    let path = format!("{slices}/x");
    assert_eq!(client.patch(&path, "merge", &annotate).await.json()["metadata"]["generation"], 1);
    assert_eq!(client.patch(&path, "merge", &label).await.json()["metadata"]["generation"], 2);
}
