//! Load on the API server of any cluster: `cargo bench --bench api`, with KUBECONFIG naming it.
//!
//! Prints creates a second with 16 in flight, the time of a list of all objects, and how long a change takes to reach 100
//! and 1 000 watchers. Everything is made in a namespace of its own, which is deleted at the end. Bounded in objects and time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use serde_json::json;

type Error = Box<dyn std::error::Error + Send + Sync>;

const IN_FLIGHT: usize = 16;
const OBJECTS: usize = 8000;
/// With 1.4 kB a ConfigMap the list of all is 11 MB.
const VALUE_BYTES: usize = 1100;

#[allow(clippy::print_stdout)]
#[tokio::main]
async fn main() -> Result<(), Error> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await?;
    let name = format!("bench-{}", std::process::id());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .create(&PostParams::default(), &serde_json::from_value(json!({ "metadata": { "name": name } }))?)
        .await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &name);
    let outcome = measure(&maps).await;
    namespaces.delete(&name, &DeleteParams::default()).await?;
    for line in outcome? {
        println!("{line}");
    }
    Ok(())
}

async fn measure(maps: &Api<ConfigMap>) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let workers = (0..IN_FLIGHT).map(|_| {
        let (maps, next) = (maps.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= OBJECTS {
                    return Ok::<_, Error>(());
                }
                maps.create(&PostParams::default(), &map(i)?).await?;
            }
        })
    });
    for worker in futures::future::join_all(workers).await {
        worker??;
    }
    lines.push(format!(
        "creates: {:.0} a second, {IN_FLIGHT} in flight",
        OBJECTS as f64 / started.elapsed().as_secs_f64()
    ));

    let mut times = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        let count = maps.list_metadata(&ListParams::default()).await?.items.len();
        let metadata = started.elapsed();
        let started = Instant::now();
        let all = maps.list(&ListParams::default()).await?;
        times.push((started.elapsed(), metadata));
        assert!(all.items.len() >= OBJECTS && count >= OBJECTS);
    }
    times.sort();
    lines.push(format!(
        "list of {OBJECTS}: {:.0} ms, their metadata {:.0} ms (median of 5, decoded)",
        ms(times[2].0),
        ms(times[2].1)
    ));

    for watchers in [100, 1000] {
        lines.push(fan_out(maps, watchers).await?);
    }
    Ok(lines)
}

/// Opens watches, makes one change, waits until all have seen it.
async fn fan_out(maps: &Api<ConfigMap>, watchers: usize) -> Result<String, Error> {
    let from = maps.list_metadata(&ListParams::default().limit(1)).await?.metadata.resource_version.unwrap_or_default();
    let mut watches = Vec::new();
    for _ in 0..watchers {
        watches.push(maps.watch(&WatchParams::default().timeout(60), &from).await?.boxed());
    }
    let mark = format!("mark-{watchers}");
    let started = Instant::now();
    maps.create(&PostParams::default(), &serde_json::from_value(json!({ "metadata": { "name": mark } }))?).await?;
    let seen = watches.into_iter().map(|mut watch| {
        let mark = mark.clone();
        tokio::spawn(async move {
            while let Some(event) = watch.try_next().await? {
                if matches!(&event, WatchEvent::Added(o) if o.metadata.name.as_deref() == Some(&mark)) {
                    return Ok(());
                }
            }
            Err(Error::from("a watch ended early"))
        })
    });
    let all = tokio::time::timeout(Duration::from_secs(30), futures::future::try_join_all(seen)).await??;
    for one in all {
        one?;
    }
    Ok(format!("a change reached {watchers} watchers in {:.0} ms", ms(started.elapsed())))
}

fn map(i: usize) -> Result<ConfigMap, serde_json::Error> {
    serde_json::from_value(
        json!({ "metadata": { "name": format!("m-{i}") }, "data": { "value": "x".repeat(VALUE_BYTES) } }),
    )
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
