//! What is served, told from the table of rows: the old documents a group, and the aggregated ones.

use http::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, VARY};
use http::{Response, StatusCode};
use kminik_meta::StatusError;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use super::accept;
use super::body::ResponseBody;
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
    headers: &HeaderMap,
) -> Result<Response<ResponseBody>, StatusError> {
    let table = server.registry().table();
    match parts {
        ["api"] => match aggregated_version(headers) {
            Some(version) => Ok(aggregated(&table, version, true, headers)),
            None => Ok(respond::json(StatusCode::OK, &core_versions(server, &table))),
        },
        ["apis"] => match aggregated_version(headers) {
            Some(version) => Ok(aggregated(&table, version, false, headers)),
            None => {
                let groups: Vec<Value> = table
                    .groups()
                    .iter()
                    .filter(|(group, _)| !group.is_empty())
                    .map(|(g, v)| group_document(g, v))
                    .collect();
                Ok(respond::json(
                    StatusCode::OK,
                    &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}),
                ))
            }
        },
        ["apis", group] => {
            let (name, versions) = table
                .groups()
                .iter()
                .find(|(name, versions)| name == group && !versions.is_empty() && !name.is_empty())
                .ok_or_else(StatusError::resource_not_found)?;
            let mut document = group_document(name, versions);
            document["kind"] = "APIGroup".into();
            document["apiVersion"] = "v1".into();
            Ok(respond::json(StatusCode::OK, &document))
        }
        ["api", version] => resources(&table, "", version),
        ["apis", group, version] if !group.is_empty() => resources(&table, group, version),
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

fn resources(table: &ResourceTable, group: &str, version: &str) -> Result<Response<ResponseBody>, StatusError> {
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
    let document = json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": api_version(group, version), "resources": list,
    });
    Ok(respond::json(StatusCode::OK, &document))
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
    let Storage::Stored { api_version, kind, .. } = &row.storage else { return String::new() };
    let digest = Sha512::digest(format!("{}/{}/{kind}", row.group, api_version));
    base64::prelude::BASE64_STANDARD.encode(digest.get(..8).unwrap_or_default())
}

/// `v2` or `v2beta1` if the client wants the aggregated form before the old one.
fn aggregated_version(headers: &HeaderMap) -> Option<&'static str> {
    for clause in accept::clauses(headers) {
        if !clause.covers(accept::JSON) {
            continue;
        }
        let wanted =
            clause.param("g") == Some("apidiscovery.k8s.io") && clause.param("as") == Some("APIGroupDiscoveryList");
        match clause.param("v") {
            Some("v2") if wanted => return Some("v2"),
            Some("v2beta1") if wanted => return Some("v2beta1"),
            _ if clause.param("as").is_none() => return None,
            _ => {}
        }
    }
    None
}

fn aggregated(table: &ResourceTable, version: &'static str, core: bool, headers: &HeaderMap) -> Response<ResponseBody> {
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
    let document = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items,
    });
    let text = document.to_string();
    let etag = format!("\"{}\"", hex::encode_upper(Sha512::digest(text.as_bytes())));
    let matches = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).is_some_and(|sent| sent == etag);
    let mut response = if matches {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        respond::bytes(StatusCode::OK, accept::JSON, text.into())
    };
    let media_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let own = response.headers_mut();
    for (name, value) in [(CONTENT_TYPE, media_type.as_str()), (ETAG, etag.as_str()), (VARY, "Accept")] {
        if let Ok(value) = HeaderValue::from_str(value) {
            own.insert(name, value);
        }
    }
    response
}

fn aggregated_group_version(served: &GroupVersion) -> Value {
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
