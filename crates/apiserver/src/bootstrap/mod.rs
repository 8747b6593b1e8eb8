//! What every cluster has from the beginning: system namespaces, system priority classes, flow control's objects, the
//! services' addresses, the Service by which pods reach this server, and what joining machines and extension servers must
//! know of it. Written as any client would write it, through the whole chain.

mod dangling;
pub(crate) mod endpoints;
pub(crate) mod flow_control;
mod service_addresses;

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::future::{try_join, try_join_all};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use kminik_meta::StatusError;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::Server;
use crate::auth::{MASTERS, UserInfo, request_header};
use crate::config::{Cidr, Config};
use crate::health::Step;
use crate::http::service::LocalService;

/// By whom the objects are written.
pub(crate) const USER: &str = "system:apiserver";
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
const PRIORITY_CLASSES: [(&str, i64, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];

/// The identity that writes the objects.
pub(crate) fn user() -> UserInfo {
    UserInfo::new(USER, &[MASTERS])
}

/// Writes what is missing, and where the server is reached if that has changed; keeps flow control's objects until
/// cancelled.
///
/// # Errors
/// When an object is refused.
pub(crate) async fn run(server: Arc<Server>, stop: CancellationToken) -> Result<(), StatusError> {
    let client = LocalService::new(server.clone(), user());
    let config = server.config();
    flow_control::run(client.clone(), server.clone(), stop.clone()).await?;
    server.health().reached(Step::TurnsWritten);
    tokio::spawn(dangling::keep(client.clone(), server.clone(), stop.clone()));
    service_addresses::range(&client, config.service_cidr).await?;
    server.health().reached(Step::ServiceRange);
    tokio::spawn(service_addresses::follow(client.clone(), server.clone(), stop.clone()));
    // What does not need one another is written side by side, so that it shares the store's commits: a cluster's start waits.
    let namespaces = NAMESPACES.map(|name| {
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        })
    });
    let classes = PRIORITY_CLASSES.map(|(name, value, description)| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "description": description, "preemptionPolicy": "PreemptLowerPriority",
        })
    });
    try_join(
        try_join_all(namespaces.iter().map(|object| ensure(&client, "/api/v1/namespaces", object, false))),
        try_join_all(
            classes.iter().map(|object| ensure(&client, "/apis/scheduling.k8s.io/v1/priorityclasses", object, false)),
        ),
    )
    .await?;
    for step in [Step::Namespaces, Step::PriorityClasses] {
        server.health().reached(step);
    }
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "type": "ClusterIP", "clusterIP": first_address(config.service_cidr), "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": config.advertise_port}],
        },
    });
    let (info, authentication) = (cluster_info(config), extension_authentication(config));
    let objects = try_join_all([
        ensure(&client, "/api/v1/namespaces/default/services", &service, false),
        ensure(&client, "/api/v1/namespaces/kube-public/configmaps", &info, true),
        ensure(&client, "/api/v1/namespaces/kube-system/configmaps", &authentication, true),
    ]);
    try_join(objects, endpoints::publish(&client, &server)).await?;
    for step in [Step::Service, Step::AuthenticationInfo] {
        server.health().reached(step);
    }
    tokio::spawn(endpoints::keep(client.clone(), server.clone(), stop));
    Ok(())
}

/// What a machine that holds a bootstrap token must know of the cluster: a kubeconfig without a user. A controller signs it
/// with the tokens.
fn cluster_info(config: &Config) -> Value {
    let address = std::net::SocketAddr::new(config.advertise_address, config.advertise_port);
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "preferences": {}, "users": null, "contexts": null, "current-context": "",
        "clusters": [{"name": "", "cluster": {
            "certificate-authority-data": BASE64_STANDARD.encode(&config.client_ca_pem),
            "server": format!("https://{address}"),
        }}],
    });
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": serde_yaml::to_string(&kubeconfig).unwrap_or_default()},
    })
}

/// By what an extension server knows this server, and the users that it names.
fn extension_authentication(config: &Config) -> Value {
    let mut data = json!({ "client-ca-file": config.client_ca_pem });
    if let Some(proxy) = &config.front_proxy {
        let header = |name: &str| json!([canonical(name)]).to_string();
        data["requestheader-client-ca-file"] = proxy.ca_pem.clone().into();
        data["requestheader-allowed-names"] = json!(request_header::ALLOWED_NAMES).to_string().into();
        data["requestheader-username-headers"] = header(request_header::USER_HEADER).into();
        data["requestheader-uid-headers"] = header(request_header::UID_HEADER).into();
        data["requestheader-group-headers"] = header(request_header::GROUP_HEADER).into();
        data["requestheader-extra-headers-prefix"] = header(request_header::EXTRA_PREFIX).into();
    }
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"}, "data": data,
    })
}

/// A header's name as people write it: `X-Remote-User`.
fn canonical(name: &str) -> String {
    let capital = |part: &str| {
        let mut letters = part.chars();
        letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
    };
    name.split('-').map(capital).collect::<Vec<_>>().join("-")
}

/// The first address of the services' network, which is the API's own.
pub(crate) fn first_address(cidr: Cidr) -> String {
    let mask = u32::MAX.checked_shl(32 - u32::from(cidr.prefix.min(32))).unwrap_or_default();
    std::net::Ipv4Addr::from((u32::from(cidr.address) & mask) + 1).to_string()
}

/// Creates an object that is absent; overwrites it if `refresh` and something of it differs.
pub(crate) async fn ensure(
    client: &LocalService,
    collection: &str,
    wanted: &Value,
    refresh: bool,
) -> Result<(), StatusError> {
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
    let path = format!("{collection}/{name}");
    let (code, found) = send(client, Method::GET, &path, None).await?;
    if code == StatusCode::OK {
        if refresh && !contains(&found, wanted) {
            let (code, answer) = send(client, Method::PUT, &path, Some(wanted)).await?;
            return accepted(code, &answer);
        }
        return Ok(());
    }
    let (code, answer) = send(client, Method::POST, collection, Some(wanted)).await?;
    if code.is_success() {
        return Ok(());
    }
    // Another server of this cluster may have been faster, and has the name or what belongs to it.
    let (found, _) = send(client, Method::GET, &path, None).await?;
    if found == StatusCode::OK { Ok(()) } else { accepted(code, &answer) }
}

fn accepted(code: StatusCode, answer: &Value) -> Result<(), StatusError> {
    if code.is_success() {
        return Ok(());
    }
    Err(StatusError::internal(answer["message"].as_str().unwrap_or_default()))
}

/// Whether all that `wanted` says is in `found`.
fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| found.get(key).is_some_and(|found| contains(found, value)))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| contains(found, wanted))
        }
        _ => found == wanted,
    }
}

async fn send(
    client: &LocalService,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<(StatusCode, Value), StatusError> {
    exchange(client, method, path, "application/json", body).await
}

/// Makes the status of an object what `wanted` says of it, on behalf of a field manager. An object that is gone needs none.
pub(crate) async fn apply_status(
    client: &LocalService,
    manager: &str,
    collection: &str,
    wanted: &Value,
) -> Result<(), StatusError> {
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
    let path = format!("{collection}/{name}/status?fieldManager={manager}&force=true");
    let (code, answer) = exchange(client, Method::PATCH, &path, "application/apply-patch+yaml", Some(wanted)).await?;
    if code == StatusCode::NOT_FOUND { Ok(()) } else { accepted(code, &answer) }
}

/// Merges into an object. One that is gone, or another one by now, is left alone.
pub(crate) async fn merge(client: &LocalService, path: &str, patch: &Value) -> Result<(), StatusError> {
    let (code, answer) = exchange(client, Method::PATCH, path, "application/merge-patch+json", Some(patch)).await?;
    match code {
        StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => Ok(()),
        _ => accepted(code, &answer),
    }
}

async fn exchange(
    client: &LocalService,
    method: Method,
    path: &str,
    media_type: &'static str,
    body: Option<&Value>,
) -> Result<(StatusCode, Value), StatusError> {
    let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", media_type)
        .header("user-agent", "kube-apiserver")
        .body(Full::new(body))
        .map_err(StatusError::internal)?;
    let response = match client.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let code = response.status();
    let bytes = response.into_body().collect().await.map_err(StatusError::internal)?.to_bytes();
    Ok((code, serde_json::from_slice(&bytes).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_service_address_is_ours() {
        assert_eq!(first_address(Cidr::default()), "10.96.0.1");
    }

    #[test]
    fn headers_are_written_as_upstream_writes_them() {
        assert_eq!(canonical("x-remote-user"), "X-Remote-User");
        assert_eq!(canonical("x-remote-extra-"), "X-Remote-Extra-");
    }

    #[test]
    fn what_is_wanted_may_be_part_of_what_is_there() {
        let found = json!({"a": [{"b": 1, "c": 2}], "d": 3});
        assert!(contains(&found, &json!({"a": [{"b": 1}]})));
        assert!(!contains(&found, &json!({"a": []})));
        assert!(!contains(&found, &json!({"e": 1})));
    }
}
