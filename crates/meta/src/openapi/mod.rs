//! OpenAPI documents of the served resources: version 3 a document a group and version, version 2 one for all, the latter also in
//! the protobuf form that kubectl asks for.
//!
//! Everything is derived from rows (a resource, its kind, its verbs) and the field table; custom resources bring their schema.

mod custom;
mod gnostic;
mod paths;
mod schemas;

use serde_json::{Map, Value, json};

use crate::gvk::{GroupVersion, Gvk};
use crate::schema::Ref;

pub use gnostic::encode as encode_v2;

/// Content type of version 2 as protobuf.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// A served resource or subresource.
#[derive(Clone, Copy)]
pub struct Resource<'a> {
    /// Plural name, with the subresource behind a slash: `pods`, `deployments/scale`.
    pub name: &'a str,
    /// Kind that is sent and received; for `scale` it is of another group.
    pub kind: &'a Gvk,
    /// Whether it lives in a namespace.
    pub namespaced: bool,
    /// Verbs: get, list, watch, create, update, patch, delete, deletecollection.
    pub verbs: &'a [&'a str],
    /// Type of the kind, if it is known. One without a name of its own gets its definition's name from the kind.
    pub schema: Option<&'a Ref>,
}

/// The resources of one group and version.
#[derive(Clone)]
pub struct Group<'a> {
    /// Group and version under which they are served.
    pub group_version: GroupVersion,
    /// The rows.
    pub resources: Vec<Resource<'a>>,
}

/// How the two versions of the format differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    V2,
    V3,
}

impl Style {
    fn reference(self, definition: &str) -> Value {
        match self {
            Self::V2 => json!({"$ref": format!("#/definitions/{definition}")}),
            Self::V3 => json!({"$ref": format!("#/components/schemas/{definition}")}),
        }
    }
}

/// The version 3 document of one group and version; `version` is the server's, such as `v1.35.0`.
pub fn v3(group: &Group<'_>, version: &str) -> Value {
    let (paths, schemas) = build(std::slice::from_ref(group), Style::V3);
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"BearerToken": {"type": "apiKey", "in": "header", "name": "authorization",
                "description": "Bearer Token authentication"}},
        },
    })
}

/// The version 2 document of all groups.
pub fn v2(groups: &[Group<'_>], version: &str) -> Value {
    let (paths, definitions) = build(groups, Style::V2);
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "definitions": definitions,
        "security": [{"BearerToken": []}],
        "securityDefinitions": {"BearerToken": {"type": "apiKey", "in": "header", "name": "authorization",
            "description": "Bearer Token authentication"}},
    })
}

fn build(groups: &[Group<'_>], style: Style) -> (Value, Value) {
    let mut schemas = schemas::Schemas::new(style);
    let mut paths = Map::new();
    for group in groups {
        for resource in &group.resources {
            paths::add(&mut paths, &group.group_version, resource, &mut schemas, style);
        }
    }
    (Value::Object(paths), schemas.finish())
}

#[cfg(test)]
mod tests;
