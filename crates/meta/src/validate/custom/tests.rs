use serde_json::{Value, json};

use super::*;
use crate::schema::compile;

fn created(schema: &Value, object: Value) -> Vec<String> {
    let mut errors = ErrorList::new();
    check(&compile(schema), &Object::try_from(object).unwrap(), None, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

fn updated(schema: &Value, old: Value, new: Value) -> Vec<String> {
    let mut errors = ErrorList::new();
    let object = |value| Object::try_from(value).unwrap();
    check(&compile(schema), &object(new), Some(&object(old)), &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

fn spec(properties: Value) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}})
}

#[test]
fn values_are_refused_in_upstreams_words() {
    let schema = spec(json!({
        "cron": {"type": "string", "pattern": r"^(\d+|\*)$", "maxLength": 5, "minLength": 2},
        "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "multipleOf": 2},
        "ratio": {"type": "number", "minimum": 0, "exclusiveMinimum": true},
        "mode": {"type": "string", "enum": ["A", "B"]},
        "port": {"x-kubernetes-int-or-string": true},
        "address": {"type": "string", "format": "ipv4"},
        "list": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
        "map": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "integer"}},
        "part": {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}},
    }));
    let one = |value: Value| {
        let errors = created(&schema, json!({"spec": value}));
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors.into_iter().next().unwrap()
    };
    let cases = [
        (json!({"cron": "ab"}), r#"spec.cron: Invalid value: "ab": spec.cron in body should match '^(\d+|\*)$'"#),
        (json!({"cron": "123456"}), "spec.cron: Too long: may not be more than 5 bytes"),
        (json!({"cron": "1"}), r#"spec.cron: Invalid value: "1": spec.cron in body should be at least 2 chars long"#),
        (
            json!({"cron": 1}),
            r#"spec.cron: Invalid value: "integer": spec.cron in body must be of type string: "integer""#,
        ),
        (
            json!({"cron": null}),
            r#"spec.cron: Invalid value: "null": spec.cron in body must be of type string: "null""#,
        ),
        (
            json!({"replicas": 12}),
            "spec.replicas: Invalid value: 12: spec.replicas in body should be less than or equal to 10",
        ),
        (json!({"replicas": 3}), "spec.replicas: Invalid value: 3: spec.replicas in body should be a multiple of 2"),
        (json!({"ratio": 0}), "spec.ratio: Invalid value: 0: spec.ratio in body should be greater than 0"),
        (json!({"mode": "C"}), r#"spec.mode: Unsupported value: "C": supported values: "A", "B""#),
        (
            json!({"port": true}),
            r#"spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean""#,
        ),
        (
            json!({"address": "x"}),
            r#"spec.address: Invalid value: "x": spec.address in body must be of type ipv4: "x""#,
        ),
        (json!({"list": []}), "spec.list: Invalid value: 0: spec.list in body should have at least 1 items"),
        (json!({"list": ["a", "b", "c"]}), "spec.list: Too many: 3: must have at most 2 items"),
        (
            json!({"list": [1]}),
            r#"spec.list[0]: Invalid value: "integer": spec.list[0] in body must be of type string: "integer""#,
        ),
        (json!({"map": {"a": 1, "b": 1}}), "spec.map: Too many: 2: must have at most 1 item"),
        (
            json!({"map": {"a": "x"}}),
            r#"spec.map.a: Invalid value: "string": spec.map.a in body must be of type integer: "string""#,
        ),
        (json!({"part": {}}), "spec.part.a: Required value"),
    ];
    for (value, message) in cases {
        assert_eq!(one(value), message);
    }
    assert!(created(&schema, json!({"spec": {"replicas": 4.0, "ratio": 1, "port": "x", "mode": "A"}})).is_empty());
}

#[test]
fn junctors_count_what_holds() {
    let schema = json!({"type": "object", "properties": {"spec": {
        "type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}, "c": {"type": "integer"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "not": {"required": ["c"]},
        "anyOf": [{"properties": {"a": {"maxLength": 1}}}, {"properties": {"a": {"pattern": "^x"}}}]}}});
    let found = |value: Value| created(&schema, json!({"spec": value}));
    assert!(found(json!({"a": "x"})).is_empty());
    assert_eq!(
        found(json!({})),
        [
            r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found none valid"#,
            "spec.a: Required value"
        ]
    );
    assert_eq!(
        found(json!({"a": "x", "b": "y"})),
        [
            r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#
        ]
    );
    assert_eq!(
        found(json!({"a": "x", "c": 1})),
        [r#"<nil>: Invalid value: "": "spec" must not validate the schema (not)"#]
    );
    assert_eq!(
        found(json!({"a": "yy"}))[0],
        r#"<nil>: Invalid value: "": "spec" must validate at least one schema (anyOf)"#
    );
}

#[test]
fn what_stays_bad_may_stay() {
    let schema = spec(json!({
        "name": {"type": "string", "maxLength": 1},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "string", "maxLength": 1}}}},
        "plain": {"type": "array", "items": {"type": "string", "maxLength": 1}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    }));
    let old =
        json!({"spec": {"name": "long", "list": [{"k": "a", "v": "long"}], "plain": ["long"], "set": ["a", "a"]}});
    let mut new = old.clone();
    new["spec"]["list"] = json!([{"k": "b", "v": "x"}, {"k": "a", "v": "long"}]);
    assert!(updated(&schema, old.clone(), new.clone()).is_empty());
    new["spec"]["name"] = "longer".into();
    new["spec"]["list"][1]["v"] = "longer".into();
    new["spec"]["plain"] = json!(["long", "x"]);
    assert_eq!(
        updated(&schema, old, new),
        [
            "spec.list[1].v: Too long: may not be more than 1 byte",
            "spec.name: Too long: may not be more than 1 byte",
            "spec.plain[0]: Too long: may not be more than 1 byte",
        ]
    );
}

#[test]
fn elements_differ_and_embedded_objects_are_whole() {
    let schema = spec(json!({
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
        "object": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
    }));
    assert_eq!(
        created(
            &schema,
            json!({"spec": {"set": ["a", "b", "a", "a"], "list": [{"k": "x"}, {"k": "x"}],
            "object": {"kind": "A b", "metadata": {"labels": {"-": "x"}}}}})
        ),
        [
            "spec.object.apiVersion: Required value",
            "spec.object.kind: Invalid value: \"A b\": may have mixed case, but should otherwise match: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
            "spec.object.metadata.labels: Invalid value: \"-\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            "spec.list[1]: Duplicate value: {\"k\":\"x\"}",
            "spec.set[2]: Duplicate value: \"a\"",
        ]
    );
}
