use serde_json::json;

use super::*;
use crate::gvk::Gvk;
use crate::schema::lookup;

fn object(value: Value) -> Object {
    Object::try_from(value).unwrap()
}

fn deployment(spec: Value) -> Object {
    object(
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"app": "d"}}, "spec": spec}),
    )
}

fn write(manager: &str) -> Write<'_> {
    Write {
        schema: lookup(&Gvk::new("apps", "v1", "Deployment")).unwrap(),
        manager,
        api_version: "apps/v1",
        subresource: "",
        resets: Resets::Fields(&[&["status"]]),
        convert: None,
        now: "2024-01-01T00:00:00Z".parse().unwrap(),
    }
}

fn empty() -> Object {
    object(json!({"apiVersion": "apps/v1", "kind": "Deployment"}))
}

fn pod(containers: Value) -> Value {
    json!({"template": {"spec": {"containers": containers}}})
}

fn fields(object: &Object, manager: &str) -> Value {
    let entries = object.array(&["metadata", "managedFields"]);
    entries.iter().find(|e| e["manager"] == manager).map(|e| e["fieldsV1"].clone()).unwrap_or_default()
}

#[test]
fn applying_owns_what_is_named() {
    let config = deployment(pod(json!([{"name": "a", "image": "1", "ports": [{"containerPort": 80}]}])));
    let live = apply(&empty(), &config, false, write("me")).unwrap();
    assert_eq!(
        fields(&live, "me"),
        json!({"f:metadata": {"f:labels": {"f:app": {}}}, "f:spec": {"f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {}, "f:ports": {
                "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}})
    );
    let entry = &live.array(&["metadata", "managedFields"])[0];
    assert_eq!((&entry["operation"], &entry["time"]), (&json!("Apply"), &json!("2024-01-01T00:00:00Z")));
    // Applying the same again changes nothing, not even the time.
    let later = Write { now: "2025-01-01T00:00:00Z".parse().unwrap(), ..write("me") };
    assert_eq!(apply(&live, &config, false, later).unwrap(), live);
}

#[test]
fn what_is_no_longer_applied_goes_unless_someone_owns_it() {
    let both = deployment(pod(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}])));
    let live = apply(&empty(), &both, false, write("me")).unwrap();
    let mut changed = live.clone();
    changed.set(&["spec", "replicas"], 3);
    update(Some(&live), &mut changed, write("scaler")).unwrap();
    assert_eq!(fields(&changed, "scaler"), json!({"f:spec": {"f:replicas": {}}}));
    let one = object(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": pod(json!([{"name": "b", "image": "2"}]))}));
    let result = apply(&changed, &one, false, write("me")).unwrap();
    assert_eq!(
        result.get(&["spec"]),
        Some(&json!({"replicas": 3, "template": {"spec": {"containers": [{"name": "b", "image": "2"}]}}}))
    );
    assert_eq!(result.labels().len(), 0);
    // Shared fields stay while one of their owners applies them.
    let live = apply(&empty(), &both, false, write("me")).unwrap();
    let shared = apply(&live, &both, false, write("you")).unwrap();
    let result = apply(&shared, &one, false, write("me")).unwrap();
    assert_eq!(result.array(&["spec", "template", "spec", "containers"]).len(), 2);
}

#[test]
fn conflicts_are_named_and_can_be_forced() {
    let mut live = deployment(json!({"replicas": 1}));
    live.set_meta("uid", "u");
    let created = {
        let mut new = live.clone();
        update(None, &mut new, write("kubectl-create")).unwrap();
        new
    };
    let config = deployment(json!({"replicas": 2}));
    let error = apply(&created, &config, false, write("me")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-create\" using apps/v1: .spec.replicas"
    );
    let status = error.status().to_value();
    assert_eq!(
        status["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"kubectl-create\" using apps/v1",
            "field": ".spec.replicas"}])
    );
    assert_eq!(status["code"], 409);
    let forced = apply(&created, &config, true, write("me")).unwrap();
    assert_eq!(forced.i64(&["spec", "replicas"]), Some(2));
    assert_eq!(fields(&forced, "kubectl-create"), json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}}}));
    let two = apply(&forced, &deployment(json!({"replicas": 3, "paused": true})), false, write("you")).unwrap_err();
    assert_eq!(two.to_string(), "Apply failed with 1 conflict: conflict with \"me\": .spec.replicas");
    let mut changed = forced.clone();
    changed.set(&["spec", "paused"], true);
    changed.set(&["spec", "minReadySeconds"], 5);
    update(Some(&forced), &mut changed, write("ed")).unwrap();
    let many =
        apply(&changed, &deployment(json!({"minReadySeconds": 6, "paused": false})), false, write("you")).unwrap_err();
    assert_eq!(
        many.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"ed\" using apps/v1:\n- .spec.minReadySeconds\n- .spec.paused"
    );
}

#[test]
fn plain_writes_are_tracked() {
    let mut created = deployment(json!({"replicas": 1}));
    update(None, &mut created, write("a")).unwrap();
    assert_eq!(
        fields(&created, "a"),
        json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:replicas": {}}})
    );
    // No change, no new entry.
    let mut same = created.clone();
    update(Some(&created), &mut same, write("b")).unwrap();
    assert_eq!(same, created);
    // A client that strips managed fields loses nothing; one that empties them resets them.
    let mut stripped = created.clone();
    stripped.remove(&["metadata", "managedFields"]);
    update(Some(&created), &mut stripped, write("b")).unwrap();
    assert_eq!(stripped, created);
    let mut reset = created.clone();
    reset.set(&["metadata", "managedFields"], json!([{}]));
    update(Some(&created), &mut reset, write("b")).unwrap();
    assert!(reset.array(&["metadata", "managedFields"]).is_empty());
    // The status belongs to those who write through its own door.
    let mut status = created.clone();
    status.set(&["status", "replicas"], 1);
    let door = Write { subresource: "status", resets: Resets::Fields(&[&["spec"]]), ..write("controller") };
    update(Some(&created), &mut status, door).unwrap();
    let entry = &status.array(&["metadata", "managedFields"])[1];
    assert_eq!(
        (&entry["subresource"], &entry["fieldsV1"]),
        (&json!("status"), &json!({"f:status": {".": {}, "f:replicas": {}}}))
    );
}

#[test]
fn old_writers_are_merged() {
    let mut live = deployment(json!({}));
    update(None, &mut live, write("creator")).unwrap();
    let names: Vec<String> = (0..15).map(|i| format!("writer-{i:02}")).collect();
    for (i, name) in names.iter().enumerate() {
        let mut next = live.clone();
        next.set_annotation(name, "x");
        let now = Timestamp::from_second(1_800_000_000 + i as i64).unwrap();
        update(Some(&live), &mut next, Write { now, ..write(name) }).unwrap();
        live = next;
    }
    let entries = live.array(&["metadata", "managedFields"]);
    assert_eq!(entries.len(), 10);
    assert!(entries.iter().any(|e| e["manager"] == "ancient-changes"));
    assert!(entries.iter().any(|e| e["manager"] == "writer-14"));
}

#[test]
fn kubectl_takes_over_from_client_side_apply() {
    let config = |replicas: i64| deployment(json!({"replicas": replicas}));
    let mut live = config(1);
    live.set_annotation(LAST_APPLIED, &Value::from(config(1)).to_string());
    update(None, &mut live, write("kubectl-client-side-apply")).unwrap();
    assert!(matches!(apply(&live, &config(2), false, write("other")), Err(ApplyError::Conflicts(_))));
    let result = apply(&live, &config(2), false, write("kubectl")).unwrap();
    assert_eq!(result.i64(&["spec", "replicas"]), Some(2));
    assert!(result.annotation(LAST_APPLIED).unwrap().contains("\"replicas\":2"));
    // What someone changed since is not kubectl's.
    let mut scaled = live.clone();
    scaled.set(&["spec", "replicas"], 5);
    update(Some(&live), &mut scaled, write("scaler")).unwrap();
    let error = apply(&scaled, &config(2), false, write("kubectl")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"scaler\" using apps/v1: .spec.replicas"
    );
}

#[test]
fn a_write_that_changes_only_times_changes_nothing() {
    let schema = write("me").schema;
    let config = deployment(pod(json!([{"name": "a", "resources": {"limits": {"memory": "1024Mi"}}}])));
    let store = |mut object: Object| {
        crate::decode::conform(&mut object, schema, crate::decode::FieldValidation::Strict).unwrap();
        crate::defaults::apply(&mut object, schema);
        object
    };
    let live = store(apply(&empty(), &config, false, write("me")).unwrap());
    let later = Write { now: "2025-01-01T00:00:00Z".parse().unwrap(), ..write("me") };
    // Another way of writing an amount is no change.
    assert_eq!(apply(&live, &config, false, later).unwrap(), live);
    let mut again = live.clone();
    again.pointer_mut("/metadata/managedFields/0").unwrap()["time"] = json!("2025-01-01T00:00:00Z");
    restore_times(&live, &mut again);
    assert_eq!(again, live);
    again.set(&["spec", "replicas"], 7);
    let changed = again.clone();
    restore_times(&live, &mut again);
    assert_eq!(again, changed);
}

#[test]
fn lists_keep_their_order() {
    let config = |names: &[&str]| deployment(pod(names.iter().map(|n| json!({"name": n})).collect()));
    let live = apply(&empty(), &config(&["a", "b", "c"]), false, write("me")).unwrap();
    let mut more = live.clone();
    let list = more.pointer_mut("/spec/template/spec/containers").unwrap().as_array_mut().unwrap();
    list.insert(1, json!({"name": "x"}));
    update(Some(&live), &mut more, write("other")).unwrap();
    let result = apply(&more, &config(&["c", "a", "d"]), false, write("me")).unwrap();
    let containers = result.array(&["spec", "template", "spec", "containers"]);
    let names: Vec<&str> = containers.iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(names, ["x", "c", "a", "d"]);
}

#[test]
fn misfits_are_refused() {
    let bad = |config: Object| apply(&empty(), &config, false, write("me")).unwrap_err();
    let told = |spec: Value| bad(deployment(spec)).status();
    let who = "failed to create typed patch object (/d; apps/v1, Kind=Deployment): ";
    for (spec, faults) in [
        (json!({"foo": 1}), ".spec.foo: field not declared in schema"),
        (
            pod(json!([{"image": "x"}])),
            ".spec.template.spec.containers: element 0: associative list with keys has an element that omits all key fields \
             [\"name\"] (and doesn't have default values for any key fields)",
        ),
        (
            pod(json!([{"name": "a", "env": [{"name": "e", "value": 587}, {"name": "e"}]}])),
            "errors:\n  .spec.template.spec.containers[name=\"a\"].env[name=\"e\"].value: expected string, got \
             &value.valueUnstructured{Value:587}\n  .spec.template.spec.containers[name=\"a\"].env: duplicate entries for key \
             [name=\"e\"]",
        ),
        (json!({"replicas": "dos"}), ".spec.replicas: expected numeric (int or float), got string"),
        (json!({"paused": "yes"}), ".spec.paused: expected boolean, got &{yes}"),
        (json!({"template": [{"a": 1}]}), ".spec.template: expected map, got &{[map[a:1]]}"),
        (pod(json!({"a": [true]})), ".spec.template.spec.containers: expected list, got &{map[a:[true]]}"),
    ] {
        let status = told(spec);
        assert_eq!((status.code(), &status.to_value()["message"]), (500, &json!(format!("{who}{faults}"))));
    }
    let mut managed = deployment(json!({}));
    managed.set(&["metadata", "managedFields"], json!([]));
    assert_eq!(bad(managed), ApplyError::ManagedFields);
    assert!(matches!(bad(object(json!({"apiVersion": "apps/v2"}))), ApplyError::Version { .. }));
    let twice = deployment(pod(json!([{"name": "a"}, {"name": "a"}])));
    let live = apply(&empty(), &deployment(pod(json!([{"name": "b"}]))), false, write("me")).unwrap();
    assert!(matches!(apply(&live, &twice, false, write("me")), Err(ApplyError::Untyped { .. })));
}

#[test]
fn doors_may_be_closed_but_for_a_few_fields() {
    let all = FieldSet::decode(&json!({
        "f:metadata": {"f:labels": {"f:a": {}}},
        "f:spec": {"f:replicas": {}, "f:containers": {
            "k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:resources": {".": {}, "f:limits": {"f:cpu": {}}}},
            "k:{\"name\":\"d\"}": {".": {}, "f:image": {}}}},
    }));
    let open = Resets::AllBut(&[&["spec", "containers", "*", "resources"], &["status"]]);
    let kept = json!({"f:spec": {"f:containers": {
        "k:{\"name\":\"c\"}": {".": {}, "f:resources": {".": {}, "f:limits": {"f:cpu": {}}}},
        "k:{\"name\":\"d\"}": {}}}});
    assert_eq!(open.rest(&all).encode(), kept);
    assert_eq!(Resets::AllBut(&[&[]]).rest(&all), all);
    assert!(Resets::AllBut(&[]).rest(&all).is_empty());
    let closed = Resets::Fields(&[&["metadata"], &["spec", "containers"]]);
    assert_eq!(closed.rest(&all).encode(), json!({"f:spec": {"f:replicas": {}}}));
}
