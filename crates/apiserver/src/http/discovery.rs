//! What is served, told from the table of rows: the old documents a group, and the aggregated ones.

use http::header::HeaderMap;
use http::{Response, StatusCode};
use kminik_meta::{Gvk, StatusError, protobuf, schema};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use super::accept;
use super::body::ResponseBody;
use super::info::Query;
use super::respond;
use crate::Server;
use crate::registry::def::{ResourceDef, Storage, Subresource, SubresourceKind, VersionDef, api_version};
use crate::registry::table::{GroupVersion, ResourceTable};

/// Answers a path below `/api` or `/apis` that is no resource.
///
/// # Errors
/// 404 for a group or version that is not served.
pub(crate) fn serve(
    server: &Server,
    parts: &[&str],
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<ResponseBody>, StatusError> {
    let table = server.registry().table();
    let document =
        |value: &Value| respond::document(StatusCode::OK, value, accept::negotiate_document(headers, query)?);
    match parts {
        ["api"] => match aggregated_form(headers) {
            Some(form) => Ok(aggregated(server, &table, form, true, headers)),
            None => document(&core_versions(server, &table)),
        },
        ["apis"] => match aggregated_form(headers) {
            Some(form) => Ok(aggregated(server, &table, form, false, headers)),
            None => {
                let groups: Vec<Value> = table
                    .groups()
                    .iter()
                    .filter(|(group, _)| !group.is_empty())
                    .map(|(g, v)| group_document(g, v))
                    .collect();
                document(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
            }
        },
        ["apis", group] => {
            let (name, versions) = table
                .groups()
                .iter()
                .find(|(name, versions)| name == group && !versions.is_empty() && !name.is_empty())
                .ok_or_else(StatusError::resource_not_found)?;
            let mut of_group = group_document(name, versions);
            of_group["kind"] = "APIGroup".into();
            of_group["apiVersion"] = "v1".into();
            document(&of_group)
        }
        ["api", version] => document(&resources(&table, "", version)?),
        ["apis", group, version] if !group.is_empty() => document(&resources(&table, group, version)?),
        _ => Err(StatusError::resource_not_found()),
    }
}

fn core_versions(server: &Server, table: &ResourceTable) -> Value {
    let versions: Vec<&str> = table
        .groups()
        .iter()
        .filter(|(group, _)| group.is_empty())
        .flat_map(|(_, versions)| versions.iter().map(|served| served.version.as_str()))
        .collect();
    let config = server.config();
    let address = std::net::SocketAddr::new(config.advertise_address, config.advertise_port).to_string();
    json!({
        "kind": "APIVersions", "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

fn group_document(group: &str, versions: &[GroupVersion]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|served| json!({"groupVersion": api_version(group, &served.version), "version": served.version}))
        .collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions.first()})
}

fn resources(table: &ResourceTable, group: &str, version: &str) -> Result<Value, StatusError> {
    let served = table.group_version(group, version).ok_or_else(StatusError::resource_not_found)?;
    let mut list = Vec::new();
    for row in &served.resources {
        let Some(version) = row.version(version) else { continue };
        let mut entry = Map::new();
        entry.insert("name".into(), json!(row.plural));
        entry.insert("singularName".into(), json!(row.singular));
        entry.insert("namespaced".into(), json!(row.namespaced()));
        entry.insert("kind".into(), json!(row.kind));
        entry.insert("verbs".into(), json!(row.verbs.iter().map(|verb| verb.as_str()).collect::<Vec<_>>()));
        if !row.short_names.is_empty() {
            entry.insert("shortNames".into(), json!(row.short_names));
        }
        if !row.categories.is_empty() {
            entry.insert("categories".into(), json!(row.categories));
        }
        if matches!(row.storage, Storage::Stored { .. }) {
            entry.insert("storageVersionHash".into(), json!(storage_hash(row)));
        }
        list.push(Value::Object(entry));
        for sub in &row.subresources {
            let (kind, verbs) = subresource(row, version, sub);
            let mut entry = json!({
                "name": format!("{}/{}", row.plural, sub.name), "singularName": "",
                "namespaced": row.namespaced(), "kind": kind.2, "verbs": verbs,
            });
            if kind.0 != row.group || kind.1 != version.name {
                if !kind.0.is_empty() {
                    entry["group"] = json!(kind.0);
                }
                entry["version"] = json!(kind.1);
            }
            list.push(entry);
        }
    }
    list.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    Ok(json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": api_version(group, version), "resources": list,
    }))
}

pub(super) type Kind = (String, String, String);

/// Group, version, kind and verbs of a subresource.
pub(super) fn subresource(row: &ResourceDef, version: &VersionDef, sub: &Subresource) -> (Kind, Vec<&'static str>) {
    let own = || (row.group.to_string(), version.name.to_string(), row.kind.to_string());
    match &sub.kind {
        SubresourceKind::View(_) => (own(), vec!["get", "patch", "update"]),
        SubresourceKind::Scale(_) => {
            (("autoscaling".into(), "v1".into(), "Scale".into()), vec!["get", "patch", "update"])
        }
        SubresourceKind::Action(action) => {
            let kind = action.kind();
            ((kind.group.into(), kind.version.into(), kind.kind.into()), vec![kind.verb.as_str()])
        }
        SubresourceKind::Connect(connect) => {
            let mut verbs: Vec<&'static str> = connect.methods().iter().map(|(_, verb)| verb.as_str()).collect();
            verbs.sort_unstable();
            verbs.dedup();
            let (group, version, _) = own();
            ((group, version, connect.options_kind().into()), verbs)
        }
    }
}

fn storage_hash(row: &ResourceDef) -> String {
    use base64::Engine as _;
    let Some(api_version) = row.stored_api_version() else { return String::new() };
    let digest = Sha512::digest(format!("{}/{}/{}", row.group, api_version, row.kind));
    base64::prelude::BASE64_STANDARD.encode(digest.get(..8).unwrap_or_default())
}

/// The aggregated form a client can take.
#[derive(Clone, Copy)]
struct AggregatedForm {
    media_type: &'static str,
    version: &'static str,
    protobuf: bool,
}

const AGGREGATED: [AggregatedForm; 4] = [
    AggregatedForm {
        media_type: "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        version: "v2",
        protobuf: false,
    },
    AggregatedForm {
        media_type: "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        version: "v2beta1",
        protobuf: false,
    },
    AggregatedForm {
        media_type: "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        version: "v2",
        protobuf: true,
    },
    AggregatedForm {
        media_type: "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        version: "v2beta1",
        protobuf: true,
    },
];

/// The aggregated form, if the client wants it before the old one.
fn aggregated_form(headers: &HeaderMap) -> Option<AggregatedForm> {
    for clause in accept::clauses(headers) {
        if !clause.covers(accept::JSON) && !clause.covers(accept::PROTOBUF) {
            continue;
        }
        let (kind, version) = (clause.param("as"), clause.param("v"));
        kind?;
        if clause.param("g") != Some("apidiscovery.k8s.io") || kind != Some("APIGroupDiscoveryList") {
            continue;
        }
        let media_type = |form: &&AggregatedForm| {
            clause.covers(if form.protobuf { accept::PROTOBUF } else { accept::JSON }) && version == Some(form.version)
        };
        if let Some(form) = AGGREGATED.iter().find(media_type) {
            return Some(*form);
        }
    }
    None
}

fn aggregated(
    server: &Server,
    table: &ResourceTable,
    form: AggregatedForm,
    core: bool,
    headers: &HeaderMap,
) -> Response<ResponseBody> {
    server.metrics().table.aggregation.discoveries.with([]).inc();
    let items: Vec<Value> = table
        .groups()
        .iter()
        .filter(|(group, versions)| group.is_empty() == core && !versions.is_empty())
        .map(|(group, versions)| {
            let metadata = if group.is_empty() {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": group, "creationTimestamp": null})
            };
            let versions: Vec<Value> = versions.iter().map(aggregated_group_version).collect();
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let api_version = format!("apidiscovery.k8s.io/{}", form.version);
    let document = json!({"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items});
    let text = document.to_string();
    let hash = hex::encode_upper(Sha512::digest(text.as_bytes()));
    // Both versions have the same fields.
    let schema = schema::lookup(&Gvk::new("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList"));
    let body = match schema.filter(|_| form.protobuf) {
        Some(schema) => protobuf::encode(&document, schema).into(),
        None => text.into(),
    };
    respond::tagged(headers, &hash, form.media_type, body)
}

fn aggregated_group_version(served: &GroupVersion) -> Value {
    if let Some(remote) = &served.remote {
        let known = remote.documents.get();
        let freshness = if known.fresh { "Current" } else { "Stale" };
        return json!({"version": served.version, "resources": *known.resources, "freshness": freshness});
    }
    let mut resources = Vec::new();
    for row in &served.resources {
        let Some(version) = row.version(&served.version) else { continue };
        let scope = if row.namespaced() { "Namespaced" } else { "Cluster" };
        let mut entry = json!({
            "resource": row.plural,
            "responseKind": {"group": row.group, "version": version.name, "kind": row.kind},
            "scope": scope,
            "singularResource": row.singular,
            "verbs": row.verbs.iter().map(|verb| verb.as_str()).collect::<Vec<_>>(),
        });
        if !row.short_names.is_empty() {
            entry["shortNames"] = json!(row.short_names);
        }
        if !row.categories.is_empty() {
            entry["categories"] = json!(row.categories);
        }
        let subresources: Vec<Value> = row
            .subresources
            .iter()
            .map(|sub| {
                let ((group, version, kind), verbs) = subresource(row, version, sub);
                json!({
                    "subresource": sub.name,
                    "responseKind": {"group": group, "version": version, "kind": kind},
                    "verbs": verbs,
                })
            })
            .collect();
        if !subresources.is_empty() {
            entry["subresources"] = Value::Array(subresources);
        }
        resources.push(entry);
    }
    json!({"version": served.version, "resources": resources, "freshness": "Current"})
}
