use super::*;
use crate::schema::lookup;

const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

fn apps() -> (Gvk, Gvk) {
    (Gvk::new("apps", "v1", "Deployment"), Gvk::new("autoscaling", "v1", "Scale"))
}

fn document(style: Style) -> Value {
    let (deployment, scale) = apps();
    let resources = vec![
        Resource { name: "deployments", kind: &deployment, namespaced: true, verbs: ALL, schema: None },
        Resource {
            name: "deployments/scale",
            kind: &scale,
            namespaced: true,
            verbs: &["get", "patch", "update"],
            schema: None,
        },
    ];
    let group = Group { group_version: GroupVersion::new("apps", "v1"), resources };
    match style {
        Style::V3 => v3(&group, "v1.35.0"),
        Style::V2 => v2(&[group], "v1.35.0"),
    }
}

#[test]
fn paths_carry_what_clients_look_up() {
    let doc = document(Style::V3);
    let item = &doc["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    assert_eq!(
        item["patch"]["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    assert!(
        item["patch"]["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p["name"] == "fieldValidation" && p["in"] == "query")
    );
    assert_eq!(item["get"]["operationId"], "readAppsV1NamespacedDeployment");
    assert_eq!(doc["paths"]["/apis/apps/v1/deployments"]["get"]["operationId"], "listAppsV1DeploymentForAllNamespaces");
    let scale = &doc["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"];
    assert_eq!(scale["put"]["x-kubernetes-group-version-kind"]["kind"], "Scale");
    assert_eq!(scale["get"]["operationId"], "readAppsV1NamespacedScaleScale");
}

#[test]
fn definitions_are_closed_and_explained() {
    for (style, pointer, prefix) in
        [(Style::V3, "/components/schemas", "#/components/schemas/"), (Style::V2, "/definitions", "#/definitions/")]
    {
        let doc = document(style);
        let schemas = doc.pointer(pointer).unwrap().as_object().unwrap();
        let mut pending = vec![&doc];
        let mut references = 0;
        while let Some(value) = pending.pop() {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(reference)) = map.get("$ref") {
                        assert!(schemas.contains_key(reference.strip_prefix(prefix).unwrap()), "{reference}");
                        references += 1;
                    }
                    pending.extend(map.values());
                }
                Value::Array(list) => pending.extend(list),
                _ => {}
            }
        }
        assert!(references > 100);
        let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
        assert_eq!(
            deployment["x-kubernetes-group-version-kind"],
            json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
        );
        assert!(deployment["description"].as_str().unwrap().starts_with("Deployment enables"));
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(schemas["io.k8s.api.core.v1.PodSpec"]["required"], json!(["containers"]));
    }
}

#[test]
fn custom_resources_bring_their_schema() {
    let gvk = Gvk::new("stable.example.com", "v1", "CronTab");
    let source = json!({"type": "object", "properties": {"spec": {"type": "object"}}});
    let definition = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": source}}]}});
    let definition = crate::schema::Definition::new(definition.to_string().into(), "v1");
    let schema = Ref::Defined(std::sync::Arc::new(definition));
    let resources =
        vec![Resource { name: "crontabs", kind: &gvk, namespaced: true, verbs: ALL, schema: Some(&schema) }];
    let doc = v3(&Group { group_version: gvk.group_version(), resources }, "v1.35.0");
    let definition = &doc["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(definition["properties"]["spec"], json!({"type": "object"}));
    assert!(definition["properties"]["metadata"]["allOf"][0]["$ref"].is_string());
    // What `kubectl explain` says of the members that every object has, of a custom resource's as of a built-in's.
    let built_in = &document(Style::V3)["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    for properties in [&definition["properties"], &built_in["properties"]] {
        for (member, beginning) in [
            ("apiVersion", "APIVersion defines the versioned schema"),
            ("kind", "Kind is a string value representing"),
            ("metadata", "Standard object's metadata."),
        ] {
            let text = properties[member]["description"].as_str().unwrap_or_default();
            assert!(text.starts_with(beginning), "{member}: {text}");
        }
    }
    assert!(doc["components"]["schemas"]["com.example.stable.v1.CronTabList"].is_object());
}

#[test]
fn the_protobuf_form_holds_the_document() {
    let doc = document(Style::V2);
    let bytes = encode_v2(&doc);
    assert!(bytes.len() > 100_000 && bytes.len() < 2_000_000, "{}", bytes.len());
    let has = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(has("io.k8s.api.apps.v1.Deployment") && has("x-kubernetes-patch-merge-key") && has("fieldValidation"));
}

#[test]
fn every_built_in_kind_has_a_definition() {
    let kinds: Vec<Gvk> = crate::schema::kinds().map(|(gvk, _)| gvk).collect();
    let names: Vec<String> = kinds.iter().map(|k| k.kind.to_lowercase()).collect();
    let resources = kinds.iter().zip(&names).map(|(kind, name)| Resource {
        name,
        kind,
        namespaced: false,
        verbs: &["get"],
        schema: None,
    });
    let doc = v2(&[Group { group_version: GroupVersion::new("", "v1"), resources: resources.collect() }], "v1");
    for gvk in &kinds {
        assert!(doc["definitions"].get(lookup(gvk).unwrap().name.as_ref()).is_some(), "{gvk}");
    }
}
