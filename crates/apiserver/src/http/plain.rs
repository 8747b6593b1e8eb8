//! Paths that are no resources: health, version, metrics, discovery, OpenAPI.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use kminik_meta::StatusError;
use serde_json::json;

use super::body::ResponseBody;
use super::info::{Query, RequestInfo};
use super::{compress, discovery, openapi, respond};
use crate::Server;
use crate::auth::issuer;
use crate::error::from_store;

/// Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers a path that is no resource.
pub(crate) async fn serve(
    server: &Arc<Server>,
    info: &RequestInfo,
    request: &Parts,
) -> Result<Response<ResponseBody>, StatusError> {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(StatusError::method_not_allowed());
    }
    let parts: Vec<&str> = info.path.split('/').filter(|part| !part.is_empty()).collect();
    if request.method == Method::HEAD && get_only(server, &parts) {
        return Err(StatusError::method_not_allowed());
    }
    match parts.as_slice() {
        [] => Ok(respond::json(StatusCode::OK, &json!({"paths": paths(server)}))),
        ["version"] => Ok(respond::json(StatusCode::OK, &crate::version::document())),
        ["healthz" | "livez" | "readyz", ..] => {
            let query = Query::parse(request.uri.query().unwrap_or_default());
            Ok(server.health().answer(&parts, &query, server.registry().store().as_ref()).await)
        }
        ["metrics"] => Ok(respond::bytes(StatusCode::OK, METRICS, server.metrics().exposition(server).into())),
        ["metrics", "slis"] => Ok(respond::bytes(StatusCode::OK, METRICS, server.metrics().indicators().into())),
        [".well-known", "openid-configuration"] => {
            let (address, port) = (server.config().advertise_address, server.config().advertise_port);
            let address = std::net::SocketAddr::new(address, port);
            let document = issuer::openid_configuration(server.auth(), &format!("https://{address}"));
            Ok(published(respond::json(StatusCode::OK, &document)))
        }
        ["openid", "v1", "jwks"] => {
            let keys = issuer::jwks(server.auth()).to_string();
            Ok(published(respond::bytes(StatusCode::OK, issuer::KEYS_MEDIA_TYPE, keys.into())))
        }
        ["debug", "api_priority_and_fairness", name] => {
            let query = Query::parse(request.uri.query().unwrap_or_default());
            let details = query.get("includeRequestDetails").is_some();
            let table = server.flow().dump(name, details).ok_or_else(StatusError::resource_not_found)?;
            Ok(respond::text(StatusCode::OK, table))
        }
        // kminik's own: everything there is, secrets included, for those who may read every path.
        ["kminik", "snapshot"] => {
            let export = server.registry().store().export().await.map_err(from_store)?;
            let body = ResponseBody::stream(futures::stream::iter(export.map(Ok)));
            Ok(respond::with_body(StatusCode::OK, "application/octet-stream", body))
        }
        ["openapi", ..] => {
            let query = Query::parse(request.uri.query().unwrap_or_default());
            let (server, parts) = (server.clone(), info.path.clone());
            let headers = request.headers.clone();
            // A document takes long to make the first time.
            let made = tokio::task::spawn_blocking(move || {
                let parts: Vec<&str> = parts.split('/').filter(|part| !part.is_empty()).collect();
                openapi::serve(&server, &parts, &query, &headers)
            });
            let response = made.await.map_err(StatusError::internal)??;
            Ok(compress::gzip(&request.headers, response))
        }
        ["api" | "apis", ..] => {
            let query = Query::parse(request.uri.query().unwrap_or_default());
            discovery::serve(server, &parts, &query, &request.headers)
        }
        _ => Err(StatusError::resource_not_found()),
    }
}

/// Whether a path is one of those that upstream routes by method as it does resources; the others take HEAD, too.
fn get_only(server: &Server, parts: &[&str]) -> bool {
    match parts {
        ["version"] | ["api"] | ["api", "v1"] | [".well-known", "openid-configuration"] | ["openid", "v1", "jwks"] => {
            true
        }
        ["apis", group, version] => server
            .registry()
            .table()
            .rows()
            .iter()
            .any(|row| row.group == *group && row.version(version).is_some_and(|version| version.schema.is_named())),
        _ => false,
    }
}

/// Others may keep the issuer's documents for an hour.
fn published(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

fn paths(server: &Server) -> Vec<String> {
    let mut paths: Vec<String> = [
        issuer::CONFIGURATION_PATH,
        "/api",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/metrics/slis",
        "/openapi/v2",
        "/openapi/v3",
        issuer::KEYS_PATH,
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    for (group, versions) in server.registry().table().groups() {
        let base = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
        paths.push(base.clone());
        paths.extend(versions.iter().map(|served| format!("{base}/{}", served.version)));
    }
    paths.sort();
    paths.dedup();
    paths
}
