//! One path for all resources: plain built-in kinds are defined again as custom resources, from the field table, and must give the same
//! answers.

use std::time::Duration;

use crate::common::written::written;
use crate::common::{Answer, Client, TestServer};
use kminik_meta::Gvk;
use kminik_meta::schema::lookup;
use serde_json::{Value, json};

const TWIN: &str = "twin.example.com";

/// A built-in kind with an object of it and a change of that.
struct Kind {
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    object: Value,
    change: Value,
    /// A member of a type that it cannot have.
    wrong: Value,
}

/// Kinds that are plain: nothing of theirs is checked but what the schema says.
fn kinds() -> Vec<Kind> {
    vec![
        Kind {
            group: "",
            plural: "configmaps",
            kind: "ConfigMap",
            object: json!({"data": {"a": "b", "c": "d"}}),
            change: json!({"data": {"a": "x"}}),
            wrong: json!({"unknown": 1}),
        },
        Kind {
            group: "coordination.k8s.io",
            plural: "leases",
            kind: "Lease",
            object: json!({"spec": {"holderIdentity": "me", "leaseDurationSeconds": 5}}),
            change: json!({"spec": {"leaseDurationSeconds": 7}}),
            wrong: json!({"spec": {"holderIdentity": "me", "unknown": 1}}),
        },
        Kind {
            group: "apps",
            plural: "controllerrevisions",
            kind: "ControllerRevision",
            object: json!({"revision": 1, "data": {"any": ["thing", {"x": 1}]}}),
            change: json!({"revision": 2}),
            wrong: json!({"unknown": {"a": 1}}),
        },
    ]
}

fn definition(kind: &Kind) -> Value {
    let schema = written(lookup(&Gvk::new(kind.group, "v1", kind.kind)).unwrap());
    json!({"metadata": {"name": format!("{}.{TWIN}", kind.plural)}, "spec": {
        "group": TWIN, "scope": "Namespaced", "names": {"plural": kind.plural, "kind": kind.kind},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
}

/// What an answer says, with the group's name and what differs from write to write taken out.
fn told(answer: &Answer, group: &str) -> (u16, Value) {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let version = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
    let text = [version.as_str(), "v1"]
        .iter()
        .fold(text, |text, version| text.replace(&format!("\"apiVersion\":\"{version}\""), "\"apiVersion\":\"GV\""));
    let text = match group {
        "" => text,
        group => text.replace(&format!(".{group}"), "").replace(group, ""),
    };
    let mut value = serde_json::from_str(&text).unwrap_or(Value::Null);
    plain(&mut value);
    (answer.code, value)
}

fn plain(value: &mut Value) {
    match value {
        Value::Object(map) => {
            // A custom resource counts its changes, and a core group is not named.
            // That a struct of Go's is there belongs to nobody, for it always is.
            for member in ["uid", "resourceVersion", "creationTimestamp", "generation", "time", "group", "."] {
                map.remove(member);
            }
            map.values_mut().for_each(plain);
        }
        Value::Array(elements) => elements.iter_mut().for_each(plain),
        _ => {}
    }
}

async fn established(client: &mut Client, name: &str) {
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
    for _ in 0..300 {
        let conditions = client.get(&path).await.json()["status"]["conditions"].clone();
        let mut all = conditions.as_array().into_iter().flatten();
        if all.any(|condition| condition["type"] == "Established" && condition["status"] == "True") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} was not established");
}

/// All requests of the life of an object, each with what was answered.
async fn life(client: &mut Client, kind: &Kind, group: &str) -> Vec<(String, (u16, Value))> {
    let (root, version) = if group.is_empty() {
        ("/api/v1".to_owned(), "v1".to_owned())
    } else {
        (format!("/apis/{group}/v1"), format!("{group}/v1"))
    };
    let all = format!("{root}/namespaces/default/{}", kind.plural);
    let one = format!("{all}/twin");
    let mut object = kind.object.clone();
    object["apiVersion"] = version.clone().into();
    object["kind"] = kind.kind.into();
    object["metadata"] = json!({"name": "twin", "labels": {"a": "b"}});
    let mut seen = Vec::new();
    let mut note = |what: &str, answer: Answer| seen.push((what.to_owned(), told(&answer, group)));
    note("dry run", client.post(&format!("{all}?dryRun=All&fieldManager=m"), &object).await);
    note("absent", client.get(&one).await);
    note("create", client.post(&format!("{all}?fieldManager=m"), &object).await);
    note("create again", client.post(&all, &object).await);
    note("get", client.get(&one).await);
    note("list", client.get(&format!("{all}?labelSelector=a%3Db&fieldSelector=metadata.name%3Dtwin")).await);
    note("wrong selector", client.get(&format!("{all}?fieldSelector=spec.x%3Dy")).await);
    let mut wrong = object.clone();
    wrong.as_object_mut().unwrap().extend(kind.wrong.as_object().unwrap().clone());
    wrong["metadata"]["name"] = "wrong".into();
    note("strict", client.post(&format!("{all}?fieldValidation=Strict"), &wrong).await);
    let warned = client.post(&format!("{all}?fieldValidation=Warn&dryRun=All&fieldManager=m"), &wrong).await;
    note("warned", warned);
    let mut badly_named = object.clone();
    badly_named["metadata"]["name"] = "A b".into();
    note("bad name", client.post(&all, &badly_named).await);
    note("merge patch", client.patch(&format!("{one}?fieldManager=n"), "merge", &kind.change).await);
    let json_patch = json!([{"op": "add", "path": "/metadata/annotations", "value": {"x": "y"}}]);
    note("json patch", client.patch(&format!("{one}?fieldManager=n"), "json", &json_patch).await);
    let failing = json!([{"op": "test", "path": "/metadata/name", "value": "other"}]);
    note("failing patch", client.patch(&one, "json", &failing).await);
    let mut present = client.get(&one).await.json();
    present["metadata"]["labels"]["c"] = "d".into();
    note("update", client.put(&format!("{one}?fieldManager=m"), &present).await);
    note("stale update", client.put(&one, &present).await);
    let mut configuration = kind.change.clone();
    configuration["apiVersion"] = version.into();
    configuration["kind"] = kind.kind.into();
    configuration["metadata"] = json!({"name": "twin"});
    let apply = [("content-type", "application/apply-patch+yaml")];
    let text = configuration.to_string();
    note("apply", client.send("PATCH", &format!("{one}?fieldManager=other"), &apply, text.clone()).await);
    note("apply by force", client.send("PATCH", &format!("{one}?fieldManager=other&force=true"), &apply, text).await);
    let partial = [("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")];
    note("metadata", client.send("GET", &one, &partial, "").await);
    note("delete dry run", client.delete(&format!("{one}?dryRun=All")).await);
    note("delete", client.delete(&one).await);
    note("gone", client.get(&one).await);
    note("delete all", client.delete(&all).await);
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn twins_answer_alike() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for kind in kinds() {
        let made = client.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition(&kind)).await;
        assert_eq!(made.code, 201, "{}", String::from_utf8_lossy(&made.body));
        established(&mut client, &format!("{}.{TWIN}", kind.plural)).await;
        let built_in = life(&mut client, &kind, kind.group).await;
        let custom = life(&mut client, &kind, TWIN).await;
        for ((what, own), (_, twin)) in built_in.into_iter().zip(custom) {
            assert_eq!(own, twin, "{} of {}", what, kind.plural);
        }
    }
}
