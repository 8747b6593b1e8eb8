use kminik_meta::field::Path;
use serde_json::{Value as Json, json};

use crate::rules::{Rules, lint};

fn found(schema: &Json, new: &Json, old: Option<&Json>) -> Vec<String> {
    Rules::compile(schema)
        .validate(new.as_object().unwrap(), old.and_then(Json::as_object), &Path::root())
        .errors
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// A schema whose `spec` has these properties and rules.
fn spec(properties: Json, rules: Json) -> Json {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties, "x-kubernetes-validations": rules}}})
}

#[test]
fn rules_that_do_not_hold_are_errors() {
    let schema = spec(
        json!({"min": {"type": "integer"}, "max": {"type": "integer"}, "names": {"type": "array", "maxItems": 3, "items": {
            "type": "string", "maxLength": 5, "x-kubernetes-validations": [{"rule": "self != 'bad'"}]}}}),
        json!([
            {"rule": "self.min <= self.max", "message": "min must not exceed max", "fieldPath": ".min", "reason": "FieldValueForbidden"},
            {"rule": "self.max < 10", "messageExpression": "'max is ' + string(self.max)"},
            {"rule": "self.max != 20"}
        ]),
    );
    let check = |spec: Json| found(&schema, &json!({ "spec": spec }), None);
    assert_eq!(check(json!({"min": 1, "max": 2, "names": ["a"]})), Vec::<String>::new());
    assert_eq!(check(json!({"min": 3, "max": 2})), ["spec.min: Forbidden: min must not exceed max"]);
    assert_eq!(check(json!({"min": 1, "max": 12})), ["spec: Invalid value: max is 12"]);
    assert_eq!(
        check(json!({"min": 1, "max": 20})),
        ["spec: Invalid value: max is 20", "spec: Invalid value: failed rule: self.max != 20"]
    );
    assert_eq!(
        check(json!({"min": 1, "max": 2, "names": ["a", "bad"]})),
        ["spec.names[1]: Invalid value: \"bad\": failed rule: self != 'bad'"]
    );
    assert_eq!(
        check(json!({"min": 1}))[0],
        "spec: Invalid value: \"object\": no such key: max evaluating rule: min must not exceed max"
    );
}

#[test]
fn rules_of_transitions_need_what_was() {
    let schema = spec(
        json!({"fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]},
            "once": {"type": "string", "x-kubernetes-validations": [{"rule": "!oldSelf.hasValue() || oldSelf.value() == self", "optionalOldSelf": true}]},
            "rows": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
                "type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
                "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "may not shrink"}]}}}),
        json!([]),
    );
    let old = json!({"spec": {"fixed": "a", "rows": [{"k": "x", "v": 2}, {"k": "y", "v": 5}]}});
    let check = |spec: Json, old: Option<&Json>| found(&schema, &json!({ "spec": spec }), old);
    assert!(check(json!({"fixed": "b", "once": "o"}), None).is_empty());
    assert_eq!(check(json!({"fixed": "b"}), Some(&old)), ["spec.fixed: Invalid value: \"b\": is immutable"]);
    assert_eq!(
        check(json!({"fixed": "a", "rows": [{"k": "y", "v": 5}, {"k": "x", "v": 1}, {"k": "z", "v": 0}]}), Some(&old)),
        ["spec.rows[1]: Invalid value: may not shrink"]
    );
}

#[test]
fn what_an_update_leaves_alone_only_warns() {
    let schema = spec(
        json!({"a": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 5"}]}, "b": {"type": "integer"}}),
        json!([]),
    );
    let (old, new) = (json!({"spec": {"a": 1, "b": 1}}), json!({"spec": {"a": 1, "b": 2}}));
    let outcome = Rules::compile(&schema).validate(new.as_object().unwrap(), old.as_object(), &Path::root());
    assert!(outcome.errors.is_empty());
    assert_eq!(outcome.warnings, ["spec.a: Invalid value: 1: failed rule: self > 5"]);
}

#[test]
fn resources_have_their_names() {
    let schema = json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.metadata.name.startsWith('a') && self.kind == 'K'"}]});
    assert!(found(&schema, &json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "ab"}}), None).is_empty());
    assert_eq!(found(&schema, &json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "b"}}), None).len(), 1);
}

fn linted(schema: &Json) -> Vec<String> {
    let lint = lint(schema, &Path::new("s"), true);
    lint.schema.iter().chain(&lint.expressions).map(ToString::to_string).collect()
}

#[test]
fn definitions_are_told_what_is_wrong() {
    let rule = |rule: Json| {
        linted(&spec(
            json!({"x": {"type": "string", "maxLength": 9}, "l": {"type": "array", "items": {"type": "string"}}}),
            json!([rule]),
        ))
    };
    let at = |part: &str, what: &str| format!("s.properties[spec].x-kubernetes-validations[0].{part}: {what}");
    for (given, expected) in [
        (json!({"rule": " "}), at("rule", "Required value: rule is not specified")),
        (
            json!({"rule": "true", "message": " "}),
            at("message", "Invalid value: \" \": must be non-empty if specified"),
        ),
        (json!({"rule": "true\n"}), String::new()),
        (
            json!({"rule": "true &&\ntrue"}),
            at("message", "Required value: message must be specified if rule contains line breaks"),
        ),
        (
            json!({"rule": "true", "fieldPath": ".nope"}),
            at("fieldPath", "Invalid value: \".nope\": must be a valid path"),
        ),
        (
            json!({"rule": "true", "reason": "Nope"}),
            at(
                "reason",
                "Unsupported value: \"Nope\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
            ),
        ),
        (
            json!({"rule": "true", "optionalOldSelf": true}),
            at("optionalOldSelf", "Invalid value: true: may not be set if oldSelf is not used in rule"),
        ),
        (
            json!({"rule": "self.l.all(x, self.l.all(y, x == y))", "message": "m"}),
            at(
                "rule",
                "Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)",
            ),
        ),
    ] {
        let errors = rule(given.clone());
        assert_eq!(errors.first().cloned().unwrap_or_default(), expected, "{given}");
    }
    let errors = rule(json!({"rule": "self.nope"}));
    assert!(
        errors[0].ends_with(": compilation failed: ERROR: <input>:1:5: undefined field 'nope'\n | self.nope\n | ....^"),
        "{errors:?}"
    );
    assert!(rule(json!({"rule": "self.x"}))[0].ends_with("cel expression must evaluate to a bool"));
    assert!(
        rule(json!({"rule": "true", "messageExpression": "1"}))[0]
            .ends_with("messageExpression must evaluate to a string")
    );
}

#[test]
fn old_values_are_not_known_inside_of_lists() {
    let schema = spec(
        json!({"l": {"type": "array", "maxItems": 2, "items": {"type": "string", "maxLength": 2, "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}),
        json!([]),
    );
    assert_eq!(
        linted(&schema),
        [
            "s.properties[spec].properties[l].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[spec].properties[l]"
        ]
    );
}
