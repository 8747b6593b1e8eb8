//! The ServiceCIDR of the range that the server is started with, and IPAddresses that agree with the services.
//!
//! Both are written together, so they differ only where somebody deletes or makes an IPAddress by hand, or where an older
//! version made the services. What a service has is then made; what no service has goes after a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use kminik_meta::{Object, StatusError, time};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{accepted, ensure, send};
use crate::Server;
use crate::config::Cidr;
use crate::health::Step;
use crate::http::service::LocalService;
use crate::storage::cache::Cache;
use crate::strategies::services::addresses;

const COLLECTION: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const SERVICES: &str = "core/services";
/// An IPAddress may be so old before it is missed by its service.
const ORPHAN_AGE: Duration = Duration::from_secs(60);
/// Changes that come together are looked at together.
const SETTLE: Duration = Duration::from_secs(3);

/// Makes the default ServiceCIDR, ready.
///
/// # Errors
/// When it is refused.
pub(super) async fn range(client: &LocalService, cidr: Cidr) -> Result<(), StatusError> {
    let name = addresses::DEFAULT_RANGE;
    let network = kminik_meta::names::network(cidr.address.into(), cidr.prefix);
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": { "name": name },
        "spec": { "cidrs": [format!("{network}/{}", cidr.prefix)] },
    });
    ensure(client, RANGES, &object, false).await?;
    let path = format!("{RANGES}/{name}/status");
    let (_, mut found) = send(client, Method::GET, &path, None).await?;
    let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
    if conditions.iter().any(|condition| condition["type"] == "Ready") {
        return Ok(());
    }
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": time::now(),
    });
    found["status"]["conditions"] = json!([ready]);
    let (code, answer) = send(client, Method::PUT, &path, Some(&found)).await?;
    if code == StatusCode::CONFLICT { Ok(()) } else { accepted(code, &answer) }
}

/// Makes IPAddresses agree with services until cancelled.
pub(super) async fn follow(client: LocalService, server: Arc<Server>, stop: CancellationToken) {
    let cache = server.registry().cache().clone();
    server.health().reached(Step::ServiceAddresses);
    drop(server);
    let (services, known) = (cache.resource(SERVICES), cache.resource(addresses::ADDRESSES));
    let (mut services, mut known) = (services.subscribe(), known.subscribe());
    services.mark_changed();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = services.changed() => if changed.is_err() { return },
            changed = known.changed() => if changed.is_err() { return },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SETTLE) => {}
        }
        services.mark_unchanged();
        known.mark_unchanged();
        match pass(&client, &cache).await {
            Ok(Pass::Whole) => {}
            // Those that are too young are looked at again.
            Ok(Pass::Young) => {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(ORPHAN_AGE) => services.mark_changed(),
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "IP addresses cannot be mended");
                services.mark_changed();
            }
        }
    }
}

/// How a look at everything ended.
enum Pass {
    Whole,
    /// An IPAddress without a service is too young to go.
    Young,
}

async fn pass(client: &LocalService, cache: &Cache) -> Result<Pass, StatusError> {
    // One revision: a service and its addresses are written together.
    let (services, known) = (cache.fresh(SERVICES).await?, cache.snapshot(addresses::ADDRESSES));
    let services: Vec<Arc<Object>> = services.entries.values().filter_map(|entry| entry.object().ok()).collect();
    let mut wanted: HashMap<String, Object> = HashMap::new();
    for service in &services {
        for address in addresses::of_service(service) {
            wanted.insert(address.to_string(), addresses::object(address, service));
        }
    }
    let mut ended = Pass::Whole;
    for object in known.entries.values().filter_map(|entry| entry.object().ok()) {
        if wanted.remove(object.name()).is_some() || !addresses::is_managed(&object) {
            continue;
        }
        let age = object.creation_timestamp().map(|made| Timestamp::now().duration_since(made).unsigned_abs());
        if age.is_some_and(|age| age < ORPHAN_AGE) {
            ended = Pass::Young;
            continue;
        }
        let path = format!("{COLLECTION}/{}", object.name());
        let options = json!({ "preconditions": { "uid": object.uid() } });
        let (code, answer) = send(client, Method::DELETE, &path, Some(&options)).await?;
        if !matches!(code, StatusCode::NOT_FOUND | StatusCode::CONFLICT) {
            accepted(code, &answer)?;
        }
    }
    for object in wanted.values() {
        let (code, answer) = send(client, Method::POST, COLLECTION, Some(&object.to_value())).await?;
        // Made in between, with its service.
        if code != StatusCode::CONFLICT {
            accepted(code, &answer)?;
        }
    }
    Ok(ended)
}
