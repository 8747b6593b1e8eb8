//! The endpoints of the Service by which pods reach the API: the addresses of all servers of the cluster.
//!
//! Servers that share a store each keep a key there that ends soon if it is not renewed, as upstream's do; the endpoints are the
//! addresses of those keys. A server that is alone in its store is the only endpoint.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kminik_meta::StatusError;
use kminik_store::{Op, Range, Txn};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::ensure;
use crate::Server;
use crate::error::from_store;
use crate::http::service::LocalService;
use crate::storage::key;

/// Under it stands a key for each server. Outside of what is served: it is no object.
const LEASES: &str = "/masterleases/";
/// How long a server counts without a sign of it.
const TTL: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(10);
/// Times that the endpoints are written again because servers came or went meanwhile.
const ATTEMPTS: usize = 5;
/// How long a server that stops may take to say so.
const WITHDRAW: Duration = Duration::from_secs(2);

/// Makes this server one of the endpoints.
///
/// # Errors
/// When the store fails or an object is refused.
pub(super) async fn publish(client: &LocalService, server: &Server) -> Result<(), StatusError> {
    let config = server.config();
    if !server.registry().store().is_shared() {
        return write(client, &[config.advertise_address].into(), config.advertise_port).await;
    }
    let value = Bytes::from(config.advertise_port.to_string());
    put(server, Op::Put { key: own_key(server), value, ttl: Some(TTL) }).await?;
    reconcile(client, server).await
}

/// Renews the sign of this server, and takes away the endpoints of those that give none, until cancelled.
pub(super) async fn keep(client: LocalService, server: Arc<Server>, stop: CancellationToken) {
    if !server.registry().store().is_shared() {
        return;
    }
    while stop.run_until_cancelled(tokio::time::sleep(RENEW)).await.is_some() {
        if server.health().is_shutting_down() {
            return;
        }
        if let Err(error) = publish(&client, &server).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the API's endpoints cannot be kept");
        }
    }
}

/// Takes this server, which stops, from the endpoints. The last one stays: there is nobody whom it could mislead.
pub(crate) async fn withdraw(server: &Arc<Server>) {
    if !server.registry().store().is_shared() {
        return;
    }
    let client = LocalService::new(server.clone(), super::user());
    let leave = async {
        put(server, Op::Delete { key: own_key(server) }).await?;
        reconcile(&client, server).await
    };
    match tokio::time::timeout(WITHDRAW, leave).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the API's endpoint cannot be taken back");
        }
        Err(_) => tracing::warn!("the API's endpoint is not taken back in time"),
    }
}

fn own_key(server: &Server) -> Bytes {
    Bytes::from(format!("{LEASES}{}", server.config().advertise_address))
}

async fn put(server: &Server, op: Op) -> Result<(), StatusError> {
    server.registry().store().txn(Txn { compare: Vec::new(), ops: vec![op] }).await.map(drop).map_err(from_store)
}

/// Writes the addresses of all servers. Two servers may write at once: whoever wrote looks again, so the last one is right.
async fn reconcile(client: &LocalService, server: &Server) -> Result<(), StatusError> {
    let mut known = alive(server).await?;
    for _ in 0..ATTEMPTS {
        if known.is_empty() {
            return Ok(());
        }
        write(client, &known, server.config().advertise_port).await?;
        let now = alive(server).await?;
        if now == known {
            return Ok(());
        }
        known = now;
    }
    Ok(())
}

async fn alive(server: &Server) -> Result<BTreeSet<IpAddr>, StatusError> {
    let range = Range {
        start: Bytes::from_static(LEASES.as_bytes()),
        end: key::end_of(LEASES.as_bytes()),
        limit: 0,
        revision: None,
        count: false,
    };
    let found = server.registry().store().range(range).await.map_err(from_store)?;
    let address = |key: &Bytes| std::str::from_utf8(key).ok()?.strip_prefix(LEASES)?.parse().ok();
    Ok(found.records.iter().filter_map(|record| address(&record.key)).collect())
}

async fn write(client: &LocalService, addresses: &BTreeSet<IpAddr>, port: u16) -> Result<(), StatusError> {
    let port = json!({"name": "https", "port": port, "protocol": "TCP"});
    let subset: Vec<Value> = addresses.iter().map(|address| json!({"ip": address.to_string()})).collect();
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{"addresses": subset, "ports": [port]}],
    });
    let each = |address: &IpAddr| json!({"addresses": [address.to_string()], "conditions": {"ready": true}});
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": if addresses.iter().all(IpAddr::is_ipv4) { "IPv4" } else { "IPv6" },
        "endpoints": addresses.iter().map(each).collect::<Vec<_>>(),
        "ports": [port],
    });
    futures::future::try_join(
        ensure(client, "/api/v1/namespaces/default/endpoints", &endpoints, true),
        ensure(client, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice, true),
    )
    .await
    .map(drop)
}
