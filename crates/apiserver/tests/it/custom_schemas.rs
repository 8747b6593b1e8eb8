//! What schemas of custom resources can say, one member of the table each: what is kept of an object, and what is refused.

use serde_json::{Value, json};

use crate::common::{Answer, Client, TestServer};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const THINGS: &str = "/apis/example.com/v1/things";

fn expect(answer: &Answer, code: u16) -> Value {
    assert_eq!(answer.code, code, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn definition(spec: &Value) -> Value {
    json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
        "names": {"plural": "things", "kind": "Thing"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]}})
}

async fn define(client: &mut Client, properties: &Value) {
    let spec = json!({"type": "object", "properties": properties});
    expect(&client.post(DEFINITIONS, &definition(&spec)).await, 201);
    for _ in 0..400 {
        if client.get(THINGS).await.code == 200 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("never served");
}

/// A member's schema, what is sent in its place, and what becomes of it: what is kept (null where it goes), or a refusal.
type Case = (&'static str, Value, Vec<(Value, Result<Value, &'static str>)>);

fn cases() -> Vec<Case> {
    let kept = |value: Value| (value.clone(), Ok(value));
    vec![
        (
            "nullable",
            json!({"type": "string", "nullable": true, "default": "d"}),
            vec![kept(Value::Null), kept(json!("x"))],
        ),
        ("defaulted", json!({"type": "string", "default": "d"}), vec![(Value::Null, Ok(json!("d")))]),
        (
            "text",
            json!({"type": "string"}),
            vec![
                (Value::Null, Ok(Value::Null)),
                (json!(1), Err("spec.text in body must be of type string: \"integer\"")),
            ],
        ),
        (
            "port",
            json!({"x-kubernetes-int-or-string": true}),
            vec![kept(json!(80)), kept(json!("http")), (json!(true), Err("spec.port: Invalid value: \"boolean\""))],
        ),
        (
            "quantity",
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": "^[0-9]+m?$"}),
            vec![kept(json!("100m")), kept(json!(1)), (json!("x"), Err("spec.quantity in body should match"))],
        ),
        (
            "open",
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"known": {"type": "object"}}}),
            vec![(json!({"any": {"thing": 1}, "known": {"lost": 1}}), Ok(json!({"any": {"thing": 1}, "known": {}})))],
        ),
        (
            "shut",
            json!({"type": "object", "properties": {"a": {"type": "integer"}}}),
            vec![(json!({"a": 1, "b": 2}), Ok(json!({"a": 1})))],
        ),
        (
            "embedded",
            json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
            vec![
                (
                    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "colour": "red"}, "spec": {"x": 1}}),
                    Ok(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"x": 1}})),
                ),
                (json!({"kind": "Pod"}), Err("spec.embedded.apiVersion: Required value")),
                (json!({"apiVersion": "v1"}), Err("spec.embedded.kind: Required value")),
                (
                    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a/b"}}),
                    Err("spec.embedded.metadata.name: Invalid value: \"a/b\": may not contain '/'"),
                ),
            ],
        ),
        (
            "when",
            json!({"type": "string", "format": "date-time"}),
            vec![kept(json!("2024-01-01T00:00:00Z")), (json!("today"), Err("must be of type date-time"))],
        ),
        (
            "address",
            json!({"type": "string", "format": "ipv4"}),
            vec![kept(json!("10.0.0.1")), (json!("::1"), Err("must be of type ipv4"))],
        ),
        (
            "bytes",
            json!({"type": "string", "format": "byte"}),
            vec![kept(json!("YQ==")), (json!("?"), Err("must be of type byte"))],
        ),
        ("strange", json!({"type": "string", "format": "nobody-knows"}), vec![kept(json!("anything"))]),
        (
            "small",
            json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 9, "multipleOf": 3}),
            vec![
                kept(json!(6)),
                (json!(0), Err("spec.small in body should be greater than or equal to 1")),
                (json!(12), Err("spec.small in body should be less than or equal to 9")),
                (json!(4), Err("spec.small in body should be a multiple of 3")),
                (json!(1.5), Err("spec.small in body must be of type integer")),
            ],
        ),
        (
            "short",
            json!({"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^[a-z]*$"}),
            vec![
                kept(json!("ab")),
                (json!("a"), Err("spec.short in body should be at least 2 chars long")),
                (json!("abcd"), Err("may not be more than 3 bytes")),
                (json!("AB"), Err("spec.short in body should match '^[a-z]*$'")),
            ],
        ),
        (
            "one",
            json!({"type": "string", "enum": ["a", "b"]}),
            vec![
                kept(json!("b")),
                (json!("c"), Err("spec.one: Unsupported value: \"c\": supported values: \"a\", \"b\"")),
            ],
        ),
        (
            "map",
            json!({"type": "object", "maxProperties": 2, "additionalProperties": {"type": "integer"}}),
            vec![
                kept(json!({"a": 1, "b": 2})),
                (json!({"a": "1"}), Err("spec.map.a: Invalid value: \"string\"")),
                (json!({"a": 1, "b": 2, "c": 3}), Err("spec.map: Too many: 3: must have at most 2 items")),
            ],
        ),
        (
            "set",
            json!({"type": "array", "x-kubernetes-list-type": "set", "maxItems": 3, "minItems": 1, "items": {"type": "string"}}),
            vec![
                kept(json!(["a", "b"])),
                (json!(["a", "a"]), Err("spec.set[1]: Duplicate value: \"a\"")),
                (json!(["a", "b", "c", "d"]), Err("spec.set: Too many: 4: must have at most 3 items")),
                (json!([]), Err("spec.set in body should have at least 1 items")),
            ],
        ),
        (
            "keyed",
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "n": {"type": "integer", "default": 7}}}}),
            vec![
                (
                    json!([{"name": "a"}, {"name": "b", "n": 1}]),
                    Ok(json!([{"name": "a", "n": 7}, {"name": "b", "n": 1}])),
                ),
                (json!([{"name": "a"}, {"name": "a"}]), Err("spec.keyed[1]: Duplicate value: {\"name\":\"a\"}")),
                (json!([{"n": 1}]), Err("spec.keyed[0].name: Required value")),
            ],
        ),
        (
            "either",
            json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            vec![
                kept(json!({"a": "x"})),
                (json!({"a": "x", "b": "y"}), Err("must validate one and only one schema (oneOf)")),
                (json!({}), Err("must validate one and only one schema (oneOf)")),
            ],
        ),
        (
            "ruled",
            json!({"type": "object", "properties": {"low": {"type": "integer"}, "high": {"type": "integer"}},
                "x-kubernetes-validations": [{"rule": "self.low <= self.high", "messageExpression": "'low is ' + string(self.low)", "reason": "FieldValueForbidden", "fieldPath": ".low"}]}),
            vec![
                kept(json!({"low": 1, "high": 2})),
                (json!({"low": 3, "high": 2}), Err("spec.ruled.low: Forbidden: low is 3")),
            ],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_of_a_schema_counts() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let cases = cases();
    let properties: serde_json::Map<String, Value> =
        cases.iter().map(|(member, schema, _)| ((*member).to_owned(), schema.clone())).collect();
    define(&mut client, &properties.into()).await;
    let mut failures = Vec::new();
    for (member, _, values) in &cases {
        for (sent, wanted) in values {
            let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {(*member): sent}});
            let answer = client.post(&format!("{THINGS}?dryRun=All"), &thing).await;
            let found = answer.json();
            let right = match wanted {
                Ok(kept) => answer.code == 201 && found["spec"].get(*member).unwrap_or(&Value::Null) == kept,
                Err(refusal) => answer.code == 422 && found["message"].as_str().unwrap().contains(refusal),
            };
            if !right {
                failures.push(format!(
                    "{member} {sent}: {} {}, not {wanted:?}",
                    answer.code,
                    found.get("message").unwrap_or(&found["spec"])
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_cannot_be_are_refused() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let text = || json!({"type": "string"});
    let list = |items: Value| json!({"type": "array", "items": items});
    let cubed = "self.all(a, self.all(b, self.all(c, a == b || b == c)))";
    let mut failures = Vec::new();
    for (member, schema, refusal) in [
        (
            "untyped",
            json!({"properties": {"a": text()}}),
            "spec.validation.openAPIV3Schema.properties[spec].properties[untyped].type: Required value: must not be empty for specified object fields",
        ),
        (
            "dear",
            {
                let mut all = list(text());
                all["x-kubernetes-validations"] = json!([{"rule": cubed}]);
                all
            },
            "estimated rule cost exceeds budget by factor of",
        ),
        (
            "nonsense",
            json!({"type": "string", "x-kubernetes-validations": [{"rule": "self ++ 1"}]}),
            "compilation failed",
        ),
        (
            "mistyped",
            json!({"type": "string", "x-kubernetes-validations": [{"rule": "self > 1"}]}),
            "found no matching overload",
        ),
        (
            "unkeyed",
            {
                let mut map = list(json!({"type": "object", "properties": {"a": text()}}));
                map["x-kubernetes-list-type"] = "map".into();
                map
            },
            "x-kubernetes-list-map-keys",
        ),
        ("wrong", json!({"type": "integer", "default": "x"}), "default: Invalid value"),
        (
            "lost",
            json!({"type": "object", "properties": {"a": text()}, "default": {"b": "c"}}),
            "must not have unknown fields",
        ),
        (
            "both",
            json!({"type": "object", "properties": {"a": text()}, "additionalProperties": text()}),
            "Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            "unique",
            {
                let mut all = list(text());
                all["uniqueItems"] = true.into();
                all
            },
            "uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ),
        (
            "nested",
            json!({"type": "object", "properties": {"metadata": {"type": "object"}}, "x-kubernetes-embedded-resource": true, "oneOf": [{"properties": {"b": text()}}]}),
            "must be empty to be structural",
        ),
    ] {
        let spec = json!({"type": "object", "properties": {member: schema}});
        let answer = client.post(&format!("{DEFINITIONS}?dryRun=All"), &definition(&spec)).await;
        let found = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        if answer.code != 422 || !found.contains(refusal) {
            failures.push(format!("{member}: {} {found}", answer.code));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
