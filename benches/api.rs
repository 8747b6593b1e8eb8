//! Load on the API server of any cluster: `cargo bench --bench api`, with KUBECONFIG naming it.
//!
//! Prints creates a second with 16 in flight, the time of a list of all objects, and how long a change takes to reach 100
//! and 1 000 watchers. Everything is made in a namespace of its own, which is deleted at the end. Bounded in objects and time.
//!
//! The client is the usual one, which makes and reads typed objects; what it takes of the processor itself is printed beside, and
//! what a client gets that only sends and receives bytes.

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
    let outcome = measure(&client, &maps).await;
    namespaces.delete(&name, &DeleteParams::default()).await?;
    for line in outcome? {
        println!("{line}");
    }
    Ok(())
}

async fn measure(client: &Client, maps: &Api<ConfigMap>) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    let typed = maps.clone();
    let created = rate(move |i| {
        let maps = typed.clone();
        async move {
            maps.create(&PostParams::default(), &map("m", i)?).await?;
            Ok(())
        }
    });
    lines.push(format!("creates: {}", created.await?));

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

    let (client, url) = (client.clone(), maps.resource_url().to_owned());
    let created = rate(move |i| {
        let (client, url) = (client.clone(), url.clone());
        async move {
            let request = http::Request::post(url).header("content-type", "application/json");
            client.request_text(request.body(serde_json::to_vec(&map("b", i)?)?)?).await?;
            Ok(())
        }
    });
    lines.push(format!("creates by a client that reads nothing: {}", created.await?));

    for watchers in [100, 1000] {
        lines.push(fan_out(maps, watchers).await?);
    }
    Ok(lines)
}

/// Runs so many creates, so many at a time; says how fast they were and what the client took.
async fn rate<F, Made>(create: F) -> Result<String, Error>
where
    F: Fn(usize) -> Made + Clone + Send + 'static,
    Made: Future<Output = Result<(), Error>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let (started, before) = (Instant::now(), processor_time());
    let workers = (0..IN_FLIGHT).map(|_| {
        let (create, next) = (create.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= OBJECTS {
                    return Ok::<_, Error>(());
                }
                create(i).await?;
            }
        })
    });
    for worker in futures::future::join_all(workers).await {
        worker??;
    }
    let took = started.elapsed();
    let client = (processor_time() - before).as_micros() / OBJECTS as u128;
    let rate = OBJECTS as f64 / took.as_secs_f64();
    Ok(format!("{rate:.0} a second, {IN_FLIGHT} in flight; of a core {client} µs each were the client's"))
}

/// How long this process' threads have run; those that have ended do not count.
fn processor_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let ran = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(ran.sum())
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

fn map(prefix: &str, i: usize) -> Result<ConfigMap, serde_json::Error> {
    serde_json::from_value(
        json!({ "metadata": { "name": format!("{prefix}-{i}") }, "data": { "value": "x".repeat(VALUE_BYTES) } }),
    )
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
