//! OpenAPI v2 and v3 of what is served, made from the table when first asked for and kept as bytes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue};
use kminik_meta::openapi::{self, Group, Resource};
use kminik_meta::schema::Ref;
use kminik_meta::{Gvk, StatusError};
use parking_lot::Mutex;
use serde_json::{Map, json};
use sha2::{Digest, Sha512};

use super::accept::{self, JSON};
use super::body::ResponseBody;
use super::info::Query;
use super::{discovery, respond};
use crate::Server;
use crate::aggregation::merge;
use crate::registry::def::{SubresourceKind, api_version};
use crate::registry::table::{GroupVersion, ResourceTable};
use crate::version::GIT_VERSION;

/// What version 2 as protobuf is answered as: the type that is asked for has an `@`, which clients cannot parse.
const V2_PROTOBUF_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Keys of the version 2 documents.
const V2: &str = "v2";
const V2_AS_PROTOBUF: &str = "v2 protobuf";

/// A document and its hash.
type Document = (Bytes, String);

/// The documents, made on demand, each with the hash of the rows that it was made from: a change of the table makes only those
/// again whose rows changed.
#[derive(Default)]
pub(crate) struct Documents {
    made: Mutex<HashMap<String, (String, Document)>>,
}

impl Documents {
    /// The document of that key; `make` runs if the rows' hash changed or nobody asked yet.
    fn get(
        &self,
        key: &str,
        rows: &str,
        make: impl FnOnce() -> Result<Vec<u8>, StatusError>,
    ) -> Result<Document, StatusError> {
        let known = |made: &HashMap<String, (String, Document)>| {
            made.get(key).filter(|(hash, _)| hash == rows).map(|(_, document)| document.clone())
        };
        if let Some(document) = known(&self.made.lock()) {
            return Ok(document);
        }
        let bytes = Bytes::from(make()?);
        let document = (bytes.clone(), hex::encode_upper(Sha512::digest(&bytes)));
        self.made.lock().insert(key.to_owned(), (rows.to_owned(), document.clone()));
        Ok(document)
    }

    /// Forgets the documents of versions that are no longer served.
    pub(crate) fn retain(&self, table: &ResourceTable) {
        let served = table.groups().iter().flat_map(|(_, versions)| versions).map(path_of);
        let served: HashSet<String> = served.chain([V2.to_owned(), V2_AS_PROTOBUF.to_owned()]).collect();
        self.made.lock().retain(|key, _| served.contains(key));
    }
}

/// Answers a path below `/openapi`.
///
/// # Errors
/// 404 for a group and version that is not served, 406 for an encoding that is not made.
pub(crate) fn serve(
    server: &Server,
    parts: &[&str],
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<ResponseBody>, StatusError> {
    let table = server.registry().table();
    match parts {
        ["openapi", "v2"] => version_2(server, &table, headers),
        ["openapi", "v3"] => {
            let index = json!({"paths": index(&table)}).to_string();
            let hash = hex::encode_upper(Sha512::digest(index.as_bytes()));
            Ok(respond::tagged(headers, &hash, JSON, index.into()))
        }
        ["openapi", "v3", "api", version] => version_3(server, &table, "", version, query, headers),
        ["openapi", "v3", "apis", group, version] => version_3(server, &table, group, version, query, headers),
        _ => Err(StatusError::resource_not_found()),
    }
}

fn index(table: &ResourceTable) -> Map<String, serde_json::Value> {
    let served = table.groups().iter().flat_map(|(_, versions)| versions);
    served
        .filter_map(|served| {
            let path = path_of(served);
            let hash = match &served.remote {
                None => hash_of(served),
                Some(remote) => Some(remote.documents.get().openapi_v3.clone()).filter(|hash| !hash.is_empty())?,
            };
            let url = format!("/openapi/v3/{path}?hash={hash}");
            Some((path, json!({"serverRelativeURL": url})))
        })
        .collect()
}

fn path_of(served: &GroupVersion) -> String {
    let root = if served.group.is_empty() { "api" } else { "apis" };
    format!("{root}/{}", api_version(&served.group, &served.version))
}

/// Changes whenever what the document is made of changes; the document itself need not be made for it.
fn hash_of(served: &GroupVersion) -> String {
    let mut digest = Sha512::new();
    digest.update(GIT_VERSION);
    if let Some(remote) = &served.remote {
        digest.update(&remote.name);
        digest.update(remote.documents.get().openapi_v2.as_ref().map(|(hash, _)| hash.as_str()).unwrap_or_default());
    }
    for row in &served.resources {
        digest.update(format!("\n{} {} {} {:?} {:?}", row.plural, row.kind, row.edition, row.scope, row.verbs));
        for sub in &row.subresources {
            digest.update(format!("\n/{}", sub.name));
        }
    }
    hex::encode_upper(digest.finalize())
}

fn version_3(
    server: &Server,
    table: &Arc<ResourceTable>,
    group: &str,
    version: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<ResponseBody>, StatusError> {
    let served = table.group_version(group, version).ok_or_else(StatusError::resource_not_found)?;
    let clauses = accept::clauses(headers);
    if !clauses.is_empty() && !clauses.iter().any(|clause| clause.covers(JSON)) {
        return Err(StatusError::not_acceptable(&[JSON]));
    }
    let hash = hash_of(served);
    let (bytes, _) = server.openapi().get(&path_of(served), &hash, || {
        let names = Names::of(served);
        serde_json::to_vec(&openapi::v3(&names.group(), GIT_VERSION)).map_err(StatusError::internal)
    })?;
    let mut response = respond::tagged(headers, &hash, JSON, bytes);
    // A URL with the right hash never changes its meaning.
    if query.get("hash") == Some(&hash) {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    Ok(response)
}

fn version_2(
    server: &Server,
    table: &Arc<ResourceTable>,
    headers: &HeaderMap,
) -> Result<Response<ResponseBody>, StatusError> {
    let clauses = accept::clauses(headers);
    let covered = |media_type: &str| clauses.iter().position(|clause| clause.covers(media_type));
    let protobuf = match (covered(openapi::V2_PROTOBUF), covered(JSON)) {
        (Some(protobuf), Some(json)) => protobuf < json,
        (Some(_), None) => true,
        (None, Some(_)) => false,
        (None, None) if clauses.is_empty() => false,
        (None, None) => return Err(StatusError::not_acceptable(&[JSON, openapi::V2_PROTOBUF])),
    };
    let (key, media_type) = if protobuf { (V2_AS_PROTOBUF, V2_PROTOBUF_ANSWER) } else { (V2, JSON) };
    let rows: Vec<String> = table.groups().iter().flat_map(|(_, versions)| versions).map(hash_of).collect();
    let (bytes, hash) = server.openapi().get(key, &rows.concat(), || {
        let own = table.groups().iter().flat_map(|(_, versions)| versions).filter(|served| served.remote.is_none());
        let names: Vec<Names<'_>> = own.map(Names::of).collect();
        let groups: Vec<Group<'_>> = names.iter().map(Names::group).collect();
        let mut document = openapi::v2(&groups, GIT_VERSION);
        for remote in table.remotes() {
            if let Some((_, other)) = &remote.documents.get().openapi_v2 {
                let prefix = format!("/apis/{}/{}", remote.group, remote.version);
                merge::openapi_v2(&mut document, other, &prefix);
            }
        }
        if protobuf {
            Ok(openapi::encode_v2(&document))
        } else {
            serde_json::to_vec(&document).map_err(StatusError::internal)
        }
    })?;
    Ok(respond::tagged(headers, &hash, media_type, bytes))
}

/// The rows of a group's version with the names that the documents are made of.
struct Names<'a> {
    served: &'a GroupVersion,
    rows: Vec<Named<'a>>,
}

struct Named<'a> {
    path: String,
    kind: Gvk,
    schema: Option<&'a Ref>,
    namespaced: bool,
    verbs: Vec<&'static str>,
}

impl<'a> Names<'a> {
    fn of(served: &'a GroupVersion) -> Self {
        let mut rows = Vec::new();
        for row in &served.resources {
            let Some(version) = row.version(&served.version) else { continue };
            rows.push(Named {
                path: row.plural.to_string(),
                kind: row.gvk(version),
                schema: Some(&version.schema),
                namespaced: row.namespaced(),
                verbs: row.verbs.iter().map(|verb| verb.as_str()).collect(),
            });
            let described = row.subresources.iter().filter(|sub| !matches!(sub.kind, SubresourceKind::Connect(_)));
            for sub in described {
                let ((group, name, kind), verbs) = discovery::subresource(row, version, sub);
                let views = matches!(sub.kind, SubresourceKind::View(_));
                rows.push(Named {
                    path: format!("{}/{}", row.plural, sub.name),
                    kind: Gvk::new(group, name, kind),
                    schema: views.then_some(&version.schema),
                    namespaced: row.namespaced(),
                    verbs,
                });
            }
        }
        Names { served, rows }
    }

    fn group(&self) -> Group<'_> {
        Group {
            group_version: kminik_meta::GroupVersion::new(&self.served.group, &self.served.version),
            resources: self
                .rows
                .iter()
                .map(|row| Resource {
                    name: &row.path,
                    kind: &row.kind,
                    namespaced: row.namespaced,
                    verbs: &row.verbs,
                    schema: row.schema,
                })
                .collect(),
        }
    }
}
