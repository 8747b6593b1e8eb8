use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kminik_client::Leadership;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_and_another_follows_when_it_ends() {
    let cluster = Cluster::start(&[]).await;
    let leading = Arc::new(Mutex::new(Vec::new()));
    let start = |identity: &'static str| {
        let (client, leading, stop) = (cluster.client.clone(), leading.clone(), CancellationToken::new());
        let token = stop.clone();
        let task = tokio::spawn(async move {
            let mut leadership = Leadership::new("kube-system", "test", identity);
            leadership.duration = Duration::from_secs(3);
            let work = |lost: CancellationToken| {
                let leading = leading.clone();
                async move {
                    leading.lock().push(identity);
                    lost.cancelled().await;
                }
            };
            leadership.run(&client, &token, work).await;
        });
        (stop, task)
    };
    let (stop_first, first) = start("first");
    eventually("the first leads", || async { (*leading.lock() == ["first"]).then_some(()) }).await;
    let (stop_second, second) = start("second");
    // Longer than the lease: renewals keep it.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(*leading.lock(), ["first"]);
    stop_first.cancel();
    first.await.unwrap();
    eventually("the second leads", || async { (*leading.lock() == ["first", "second"]).then_some(()) }).await;
    let lease = cluster.api::<Lease>("kube-system").get("test").await.unwrap();
    assert_eq!(lease.spec.unwrap().holder_identity.as_deref(), Some("second"));
    stop_second.cancel();
    second.await.unwrap();
}
