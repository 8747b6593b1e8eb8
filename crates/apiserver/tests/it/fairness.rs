//! API priority and fairness at the HTTP boundary.

use std::sync::Arc;
use std::time::Duration;

use crate::common::TestServer;
use kminik_store::{EmbeddedStore, Options};

async fn start(seats: usize) -> TestServer {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&directory.path().join("store.redb"), Options::default()).unwrap();
    TestServer::start_on(Arc::new(store), directory, |config| config.max_in_flight = seats).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_counted_by_level_and_schema() {
    let server = start(600).await;
    let mut admin = server.client().await;
    assert_eq!(admin.get("/api/v1/namespaces").await.code, 200);
    let as_jane = [("impersonate-user", "jane"), ("impersonate-group", "system:authenticated")];
    assert_eq!(
        admin.send("GET", "/api/v1/namespaces", &as_jane, "").await.code,
        403,
        "its turn comes before its rights"
    );
    let metrics = String::from_utf8(admin.get("/metrics").await.body.to_vec()).unwrap();
    let value = |name: &str, labels: &str| -> f64 {
        let prefix = format!("apiserver_flowcontrol_{name}{{{labels}}} ");
        let line = metrics.lines().find(|line| line.starts_with(&prefix));
        line.unwrap_or_else(|| panic!("{prefix} in {metrics}"))[prefix.len()..].parse().unwrap()
    };
    let exempt = "flow_schema=\"exempt\",priority_level=\"exempt\"";
    assert!(value("dispatched_requests_total", exempt) >= 1.0);
    assert!(value("current_executing_requests", exempt) >= 1.0, "this very request");
    assert!(value("nominal_limit_seats", "priority_level=\"catch-all\"") > 0.0);
    let flows = metrics.lines().filter(|line| line.starts_with("apiserver_flowcontrol_dispatched_requests_total"));
    let others: f64 = flows
        .filter(|line| !line.contains("\"exempt\""))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert!(others >= 1.0, "jane's request is not exempt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dumps_show_levels_queues_and_requests() {
    let server = start(600).await;
    let mut admin = server.client().await;
    let levels = admin.get("/debug/api_priority_and_fairness/dump_priority_levels").await;
    let text = String::from_utf8(levels.body.to_vec()).unwrap();
    assert!(text.starts_with("PriorityLevelName, "), "{text}");
    assert!(text.lines().any(|line| line.starts_with("exempt,")) && text.contains("catch-all,"), "{text}");
    let queues = admin.get("/debug/api_priority_and_fairness/dump_queues").await;
    assert!(String::from_utf8(queues.body.to_vec()).unwrap().contains("NextDispatchR"));
    let path = "/debug/api_priority_and_fairness/dump_requests?includeRequestDetails=1";
    let requests = String::from_utf8(admin.get(path).await.body.to_vec()).unwrap();
    assert!(requests.contains("kubernetes-admin") && requests.contains("dump_requests"), "{requests}");
    assert_eq!(admin.get("/debug/api_priority_and_fairness/dump_nothing").await.code, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_gives_its_seat_back_once_it_has_begun() {
    let server = start(600).await;
    let watches: Vec<_> = (0..3).collect();
    let mut open = Vec::new();
    for _ in watches {
        open.push(crate::common::Events::open(server.client().await, "/api/v1/namespaces?watch=1").await);
    }
    let mut admin = server.client().await;
    for _ in 0..100 {
        let metrics = String::from_utf8(admin.get("/metrics").await.body.to_vec()).unwrap();
        let prefix =
            "apiserver_flowcontrol_current_executing_requests{flow_schema=\"exempt\",priority_level=\"exempt\"} ";
        let line = metrics.lines().find(|line| line.starts_with(prefix)).unwrap();
        if line == format!("{prefix}1") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("watches hold seats");
}
