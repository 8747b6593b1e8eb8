//! Paths: the operations of each resource, as clients look them up by kind and parameter.

use serde_json::{Map, Value, json};

use super::schemas::{Schemas, gvk_extension};
use super::{Resource, Style};
use crate::gvk::{GroupVersion, Gvk};
use crate::patch::PatchType;

/// Query parameters: name, type, description.
type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter = ("pretty", "string", "If 'true', the output is printed for people.");
const DRY_RUN: Parameter = ("dryRun", "string", "When 'All', everything is done but the change is not kept.");
const MANAGER: Parameter = ("fieldManager", "string", "Name under which changed fields are tracked.");
const VALIDATION: Parameter =
    ("fieldValidation", "string", "What to do about unknown and duplicate fields: Ignore, Warn or Strict.");
const FORCE: Parameter = ("force", "boolean", "Whether an apply takes over fields from other managers.");

const WRITE: &[Parameter] = &[PRETTY, DRY_RUN, MANAGER, VALIDATION];
const PATCH: &[Parameter] = &[PRETTY, DRY_RUN, MANAGER, VALIDATION, FORCE];
const READ: &[Parameter] = &[PRETTY];
const LIST: &[Parameter] = &[
    PRETTY,
    ("allowWatchBookmarks", "boolean", "Whether a watch sends bookmarks."),
    ("continue", "string", "Where an earlier list with a limit ended."),
    ("fieldSelector", "string", "Which objects, by their fields."),
    ("labelSelector", "string", "Which objects, by their labels."),
    ("limit", "integer", "Most objects to give at once."),
    ("resourceVersion", "string", "Revision to read at or to watch from."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant."),
    ("sendInitialEvents", "boolean", "Whether a watch begins with the present objects."),
    ("timeoutSeconds", "integer", "Longest time of the call."),
    ("watch", "boolean", "Whether to send changes as they happen."),
];
const DELETE: &[Parameter] = &[
    PRETTY,
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "Time the object has to end."),
    ("orphanDependents", "boolean", "Whether dependents stay; use propagationPolicy."),
    ("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
];

/// What a verb is in HTTP and in operation identifiers.
struct Operation {
    verb: &'static str,
    method: &'static str,
    prefix: &'static str,
    action: &'static str,
    parameters: &'static [Parameter],
    /// Whether it works on the collection.
    collection: bool,
}

const OPERATIONS: &[Operation] = &[
    Operation { verb: "list", method: "get", prefix: "list", action: "list", parameters: LIST, collection: true },
    Operation { verb: "create", method: "post", prefix: "create", action: "post", parameters: WRITE, collection: true },
    Operation {
        verb: "deletecollection",
        method: "delete",
        prefix: "deleteCollection",
        action: "deletecollection",
        parameters: LIST,
        collection: true,
    },
    Operation { verb: "get", method: "get", prefix: "read", action: "get", parameters: READ, collection: false },
    Operation { verb: "update", method: "put", prefix: "replace", action: "put", parameters: WRITE, collection: false },
    Operation {
        verb: "patch",
        method: "patch",
        prefix: "patch",
        action: "patch",
        parameters: PATCH,
        collection: false,
    },
    Operation {
        verb: "delete",
        method: "delete",
        prefix: "delete",
        action: "delete",
        parameters: DELETE,
        collection: false,
    },
];

/// Adds the operations of a resource.
pub(super) fn add(
    paths: &mut Map<String, Value>,
    group_version: &GroupVersion,
    resource: &Resource<'_>,
    schemas: &mut Schemas,
    style: Style,
) {
    let root = if group_version.group.is_empty() {
        format!("/api/{}", group_version.version)
    } else {
        format!("/apis/{group_version}")
    };
    let (plural, subresource) = resource.name.split_once('/').unwrap_or((resource.name, ""));
    let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{root}{scope}/{plural}");
    let item = if subresource.is_empty() {
        format!("{collection}/{{name}}")
    } else {
        format!("{collection}/{{name}}/{subresource}")
    };
    for operation in OPERATIONS.iter().filter(|o| resource.verbs.contains(&o.verb)) {
        // What is created below an object is posted to the object's path.
        let on_collection = operation.collection && subresource.is_empty();
        let path = if on_collection { &collection } else { &item };
        let body = describe(operation, group_version, resource, subresource, schemas, style);
        insert(paths, path, operation.method, body, resource.namespaced, !on_collection, style);
        if operation.verb == "list" && resource.namespaced && subresource.is_empty() {
            let mut everywhere = describe(operation, group_version, resource, subresource, schemas, style);
            let id = format!("list{}{}ForAllNamespaces", title(group_version), resource.kind.kind);
            everywhere["operationId"] = id.into();
            insert(paths, &format!("{root}/{plural}"), "get", everywhere, false, false, style);
        }
    }
}

fn insert(
    paths: &mut Map<String, Value>,
    path: &str,
    method: &str,
    operation: Value,
    namespaced: bool,
    named: bool,
    style: Style,
) {
    let slot = crate::path::object_at(paths, path);
    let mut parameters = Vec::new();
    for (name, wanted) in [("name", named), ("namespace", namespaced)] {
        if wanted {
            let mut parameter = parameter(&(name, "string", "Part of the path."), "path", style);
            parameter["required"] = true.into();
            parameters.push(parameter);
        }
    }
    if !parameters.is_empty() {
        slot.insert("parameters".into(), parameters.into());
    }
    slot.insert(method.to_owned(), operation);
}

fn parameter(row: &Parameter, place: &str, style: Style) -> Value {
    let (name, kind, description) = row;
    let mut out = json!({"name": name, "in": place, "description": description, "uniqueItems": true});
    match style {
        Style::V2 => out["type"] = (*kind).into(),
        Style::V3 => {
            out["schema"] = json!({"type": kind, "uniqueItems": true});
            if let Some(map) = out.as_object_mut() {
                map.remove("uniqueItems");
            }
        }
    }
    out
}

fn describe(
    operation: &Operation,
    group_version: &GroupVersion,
    resource: &Resource<'_>,
    subresource: &str,
    schemas: &mut Schemas,
    style: Style,
) -> Value {
    let kind = &resource.kind.kind;
    let scope = if resource.namespaced { "Namespaced" } else { "" };
    let below: String = subresource.split('/').map(capitalised).collect();
    let title = title(group_version);
    let id = match operation.prefix {
        "deleteCollection" => format!("delete{title}Collection{scope}{kind}"),
        prefix if subresource.is_empty() => format!("{prefix}{title}{scope}{kind}"),
        prefix => format!("{prefix}{title}{scope}{kind}{below}"),
    };
    let meta = |kind: &str| Gvk::new("meta.k8s.io", "v1", kind);
    let response = match operation.verb {
        "list" => schemas.of_list(resource),
        "delete" | "deletecollection" => schemas.of_kind(&meta("Status")),
        _ => schemas.of_resource(resource),
    };
    let body = match operation.verb {
        "create" | "update" => Some(schemas.of_resource(resource)),
        "patch" => Some(schemas.of_patch()),
        "delete" | "deletecollection" => Some(schemas.of_kind(&meta("DeleteOptions"))),
        _ => None,
    };
    let mut parameters: Vec<Value> = operation.parameters.iter().map(|p| parameter(p, "query", style)).collect();
    let mut out = json!({
        "description": format!("{} {}", operation.prefix, resource.name),
        "operationId": id,
        "tags": [tag(group_version)],
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": gvk_extension(resource.kind),
    });
    let media = ["application/json", "application/yaml", crate::protobuf::CONTENT_TYPE];
    let patches = PatchType::ALL.map(PatchType::content_type);
    match style {
        Style::V2 => {
            if let Some(body) = body {
                let required = !operation.verb.starts_with("delete");
                parameters.insert(0, json!({"in": "body", "name": "body", "required": required, "schema": body}));
            }
            out["produces"] = media.to_vec().into();
            out["schemes"] = json!(["https"]);
            out["consumes"] = if operation.verb == "patch" { patches.to_vec().into() } else { json!(["*/*"]) };
            out["responses"] =
                json!({"200": {"description": "OK", "schema": response}, "401": {"description": "Unauthorized"}});
        }
        Style::V3 => {
            let content = |types: &[&str], schema: &Value| -> Map<String, Value> {
                types.iter().map(|t| ((*t).to_owned(), json!({"schema": schema}))).collect()
            };
            if let Some(body) = body {
                let types: &[&str] = if operation.verb == "patch" { &patches } else { &["*/*"] };
                out["requestBody"] = json!({"content": content(types, &body)});
                if !operation.verb.starts_with("delete") {
                    out["requestBody"]["required"] = true.into();
                }
            }
            out["responses"] = json!({
                "200": {"description": "OK", "content": content(&media, &response)},
                "401": {"description": "Unauthorized"},
            });
        }
    }
    out["parameters"] = parameters.into();
    out
}

/// `apps/v1` is `apps_v1`, the core group `core_v1`.
fn tag(group_version: &GroupVersion) -> String {
    format!("{}_{}", short_group(&group_version.group).replace('.', ""), group_version.version)
}

/// `rbac.authorization.k8s.io/v1` is `RbacAuthorizationV1`.
fn title(group_version: &GroupVersion) -> String {
    let group: String = short_group(&group_version.group).split(['.', '-']).map(capitalised).collect();
    format!("{group}{}", capitalised(&group_version.version))
}

fn short_group(group: &str) -> &str {
    if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) }
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
