use serde_json::{Value, json};

use super::*;

fn definition(schema: Value) -> Value {
    json!({"metadata": {"name": "crontabs.stable.example.com"}, "spec": {
        "group": "stable.example.com", "scope": "Namespaced", "conversion": {"strategy": "None"},
        "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
    }, "status": {"storedVersions": ["v1"]}})
}

fn found(value: &Value, old: Option<&Value>) -> Vec<String> {
    let object = |value: &Value| Object::try_from(value.clone()).unwrap();
    let mut errors = ErrorList::new();
    check(&object(value), old.map(object).as_ref(), &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

fn of_schema(schema: Value) -> Vec<String> {
    found(&definition(schema), None)
}

#[test]
fn a_good_definition_has_no_errors() {
    let schema = json!({"type": "object", "properties": {
        "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 10}}},
        "spec": {"type": "object", "required": ["a"], "properties": {
            "a": {"type": "string", "default": "x", "enum": ["x", "y"]},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}}}},
            "oneOf": [{"required": ["a"]}, {"properties": {"port": {"minimum": 1}}}]}}});
    assert_eq!(of_schema(schema), Vec::<String>::new());
}

#[test]
fn names_versions_and_scope_are_checked() {
    let mut value = definition(json!({"type": "object"}));
    value["metadata"]["name"] = "x".into();
    value["spec"]["group"] = "example".into();
    value["spec"]["scope"] = "Any".into();
    value["spec"]["names"]["kind"] = "Cron Tab".into();
    value["spec"]["names"]["shortNames"] = json!(["CT"]);
    value["spec"]["versions"][0]["storage"] = false.into();
    value["spec"]["preserveUnknownFields"] = true.into();
    let errors = found(&value, None).join("\n");
    for part in [
        "metadata.name: Invalid value: \"x\": must be spec.names.plural+\".\"+spec.group",
        "spec.group: Invalid value: \"example\": should be a domain with at least one dot",
        "spec.scope: Unsupported value: \"Any\": supported values: \"Cluster\", \"Namespaced\"",
        "spec.names.kind: Invalid value: \"Cron Tab\": may have mixed case, but should otherwise match: a DNS-1035 label",
        "spec.names.shortNames[0]: Invalid value: \"CT\": a DNS-1035 label",
        "must have exactly one version marked as storage version",
        "spec.preserveUnknownFields: Invalid value: true: cannot set to true",
    ] {
        assert!(errors.contains(part), "{part}\n{errors}");
    }
}

#[test]
fn schemas_must_be_structural() {
    let root = "spec.validation.openAPIV3Schema";
    let field = |value: Value| of_schema(json!({"type": "object", "properties": {"a": value}}));
    assert_eq!(
        field(json!({})),
        [format!("{root}.properties[a].type: Required value: must not be empty for specified object fields")]
    );
    assert_eq!(
        field(json!({"type": "text"})),
        [format!(
            "{root}.properties[a].type: Unsupported value: \"text\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\""
        )]
    );
    assert_eq!(
        field(json!({"type": "array"})),
        [format!("{root}.properties[a].items: Required value: must be specified")]
    );
    assert_eq!(
        of_schema(json!({"type": "object", "anyOf": [{"type": "object"}], "not": {"properties": {"b": {}}}})),
        [
            format!("{root}.anyOf[0].type: Forbidden: must be empty to be structural"),
            format!("{root}.properties[b]: Required value: because it is defined in {root}.not.properties[b]"),
        ]
    );
    assert_eq!(field(json!({"type": "string", "pattern": "("})).len(), 1);
    assert_eq!(
        of_schema(
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}})
        ),
        [format!(
            "{root}.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
        )]
    );
    assert_eq!(
        field(json!({"type": "string", "uniqueItems": true, "x-kubernetes-preserve-unknown-fields": false}))[0],
        format!(
            "{root}.properties[a].x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined"
        )
    );
    assert!(
        of_schema(json!({"type": "array", "items": {"type": "string"}}))
            .contains(&format!("{root}.type: Invalid value: \"array\": must be object at the root"))
    );
}

#[test]
fn lists_say_how_their_elements_differ() {
    let root = "spec.validation.openAPIV3Schema.properties[a]";
    let list = |kind: &str, keys: Value, items: Value| {
        of_schema(json!({"type": "object", "properties": {"a": {"type": "array", "items": items,
            "x-kubernetes-list-type": kind, "x-kubernetes-list-map-keys": keys}}}))
    };
    let item = json!({"type": "object", "properties": {"k": {"type": "string"}}});
    assert_eq!(
        list("map", json!(["k"]), item.clone()),
        [format!(
            "{root}.items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
        )]
    );
    assert_eq!(
        list("map", json!(["z"]), item.clone()),
        [format!(
            "{root}.x-kubernetes-list-map-keys: Invalid value: [\"z\"]: entries must all be names of item properties"
        )]
    );
    assert_eq!(
        list("map", json!([]), item.clone()),
        [format!(
            "{root}.x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"
        )]
    );
    assert_eq!(
        list("set", json!([]), item),
        [format!(
            "{root}.items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set"
        )]
    );
}

#[test]
fn defaults_fit_their_schema() {
    let root = "spec.validation.openAPIV3Schema";
    let node = json!({"type": "object", "default": {"b": 1, "c": 2}, "properties": {"b": {"type": "string"}}});
    assert_eq!(
        of_schema(json!({"type": "object", "properties": {"a": node}})),
        [
            format!("{root}.properties[a].default: Invalid value: {{\"b\":1,\"c\":2}}: must not have unknown fields"),
            format!(
                "{root}.properties[a].default.b: Invalid value: \"integer\": b in body must be of type string: \"integer\""
            ),
        ]
    );
    assert_eq!(
        of_schema(json!({"type": "object", "properties": {"kind": {"type": "string", "default": "x"}}})),
        [format!("{root}.properties[kind].default: Forbidden: must not be set in top-level kind")]
    );
}

#[test]
fn the_parts_of_versions_are_checked() {
    let mut value = definition(json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "a": {"type": "string"}, "o": {"type": "object"}}}}}));
    let version = &mut value["spec"]["versions"][0];
    version["subresources"] = json!({"scale": {"specReplicasPath": "spec.a", "statusReplicasPath": ".spec.a"}});
    version["additionalPrinterColumns"] = json!([{"name": "A", "type": "text", "jsonPath": "a"}]);
    version["selectableFields"] =
        json!([{"jsonPath": ".spec.a"}, {"jsonPath": ".spec.a"}, {"jsonPath": ".spec.o"}, {"jsonPath": ".spec.x"}]);
    version["deprecationWarning"] = "x".into();
    assert_eq!(
        found(&value, None),
        [
            "spec.versions[0].deprecationWarning: Invalid value: \"x\": can only be set for deprecated versions",
            "spec.subresources.scale.specReplicasPath: Invalid value: \"spec.a\": must be a simple json path starting with .",
            "spec.subresources.scale.statusReplicasPath: Invalid value: \".spec.a\": should be a json path under .status",
            "spec.additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of boolean,date,integer,number,string",
            "spec.additionalPrinterColumns[0].JSONPath: Invalid value: \"a\": must be a simple json path starting with .",
            "spec.selectableFields[1].jsonPath: Duplicate value: \".spec.a\"",
            "spec.selectableFields[2].jsonPath: Invalid value: \".spec.o\": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            "spec.selectableFields[3].jsonPath: Invalid value: \".spec.x\": is an invalid path: does not refer to a valid field",
        ]
    );
}

#[test]
fn conversion_by_webhook_says_how_to_reach_it() {
    let mut value = definition(json!({"type": "object"}));
    value["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v9"],
        "clientConfig": {"url": "http://a/?b"}}});
    assert_eq!(
        found(&value, None),
        [
            "spec.conversion.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            "spec.conversion.webhookClientConfig.url: Invalid value: \"b\": query parameters are not permitted in the URL",
            "spec.conversion.conversionReviewVersions: Invalid value: [\"v9\"]: must include at least one of v1, v1beta1",
        ]
    );
    value["spec"]["conversion"] = json!({"strategy": "Webhook"});
    assert_eq!(
        found(&value, None)[0],
        "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook"
    );
}

#[test]
fn what_was_bad_may_stay_and_what_is_stored_must() {
    let bad =
        definition(json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "set",
        "items": {"type": "object"}}}}));
    assert_eq!(found(&bad, None).len(), 1);
    assert_eq!(found(&bad, Some(&bad)), Vec::<String>::new());
    let good = definition(json!({"type": "object"}));
    let mut renamed = good.clone();
    renamed["spec"]["versions"][0]["name"] = "v2".into();
    let errors = found(&renamed, Some(&good));
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors[1].starts_with(
            "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously"
        )
    );
    let mut established = good.clone();
    established["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let mut moved = good.clone();
    moved["spec"]["scope"] = "Cluster".into();
    assert_eq!(found(&moved, Some(&good)), Vec::<String>::new());
    assert_eq!(found(&moved, Some(&established)), ["spec.scope: Invalid value: \"Cluster\": field is immutable"]);
}

#[test]
fn protected_groups_need_an_approval() {
    let mut value = definition(json!({"type": "object"}));
    value["metadata"]["name"] = "crontabs.x.k8s.io".into();
    value["spec"]["group"] = "x.k8s.io".into();
    assert!(
        found(&value, None)[0]
            .starts_with("metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups")
    );
    for (text, reason) in [
        ("https://github.com/x", "ApprovedAnnotation"),
        ("unapproved, experimental", "UnapprovedAnnotation"),
        ("no", "InvalidAnnotation"),
    ] {
        value["metadata"]["annotations"] = json!({APPROVED: text});
        let object = Object::try_from(value.clone()).unwrap();
        assert_eq!(approval(&object).unwrap().reason, reason);
        assert_eq!(found(&value, None).len(), usize::from(reason == "InvalidAnnotation"));
    }
}

#[test]
fn columns_have_known_formats_and_versions_alone_their_own_words() {
    let mut value = definition(json!({"type": "object"}));
    value["spec"]["versions"][0]["additionalPrinterColumns"] =
        json!([{"name": "c", "type": "string", "format": "url", "jsonPath": ".a"}]);
    assert_eq!(
        found(&value, None),
        [
            "spec.additionalPrinterColumns[0].format: Invalid value: \"url\": must be one of byte,date,date-time,double,float,int32,int64,password"
        ]
    );
    let mut value = definition(json!({"type": "object"}));
    let mut other = value["spec"]["versions"][0].clone();
    other["name"] = "v2".into();
    other["storage"] = false.into();
    other["selectableFields"] = json!([{"jsonPath": ".a"}]);
    other.as_object_mut().unwrap().remove("schema");
    value["spec"]["versions"].as_array_mut().unwrap().push(other);
    let wanted = "spec.versions[1].selectableFields: Invalid value: \"\": may only be set when `version.schema.openAPIV3Schema` is not included";
    let errors = found(&value, None);
    assert!(errors.iter().any(|error| error == wanted), "{errors:#?}");
}

#[test]
fn schemas_are_walked_as_upstream_does() {
    let wrong = json!({"type": "string", "uniqueItems": true});
    let schema = json!({"type": "object", "properties": {"l": {"type": "array", "items": wrong.clone(),
        "anyOf": [{"uniqueItems": true}], "oneOf": [{"uniqueItems": true}], "not": {"uniqueItems": true}}}});
    let at = "spec.validation.openAPIV3Schema.properties[l].";
    let why = "Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
    let wanted = ["not", "oneOf[0]", "anyOf[0]", "items"].map(|place| format!("{at}{place}.uniqueItems: {why}"));
    assert_eq!(of_schema(schema), wanted);
}
