//! Two API servers on one etcd: nothing is given twice, nobody reads old, both tell the same story.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::common::{Client, Events, TestServer};
use crate::etcd::Etcd;
use kminik_apiserver::Cidr;
use serde_json::{Value, json};

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";

/// A server with so few addresses and ports that two servers would soon choose the same.
async fn server(etcd: &Etcd) -> TestServer {
    let directory = tempfile::tempdir().unwrap();
    TestServer::start_on(Arc::new(etcd.store()), directory, |config| {
        config.service_cidr = Cidr { address: [10, 96, 0, 0].into(), prefix: 26 };
        config.node_ports = (30000, 30049);
    })
    .await
}

async fn pair(etcd: &Etcd) -> Arc<[TestServer; 2]> {
    // At the same time: both write what every cluster has.
    let (a, b) = tokio::join!(server(etcd), server(etcd));
    Arc::new([a, b])
}

fn configmap(name: &str, data: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": data}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_and_ports_are_given_once() {
    let etcd = Etcd::start();
    let servers = pair(&etcd).await;
    let creators: Vec<_> = (0..8)
        .map(|creator| {
            let servers = servers.clone();
            tokio::spawn(async move {
                let mut client = servers[creator % 2].client().await;
                let mut given = Vec::new();
                for n in 0..5 {
                    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s{creator}-{n}")},
                        "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
                    let answer = client.post(SERVICES, &service).await;
                    assert_eq!(answer.code, 201, "{}", answer.json());
                    let spec = &answer.json()["spec"];
                    given.push((spec["clusterIP"].to_string(), spec["ports"][0]["nodePort"].as_u64().unwrap()));
                }
                given
            })
        })
        .collect();
    let mut given = Vec::new();
    for creator in creators {
        given.extend(creator.await.unwrap());
    }
    assert_eq!(given.len(), 40);
    assert_eq!(given.iter().map(|(address, _)| address).collect::<BTreeSet<_>>().len(), 40);
    assert_eq!(given.iter().map(|(_, port)| port).collect::<BTreeSet<_>>().len(), 40);

    // What one has chosen the other refuses, by name; what one gives back the other may give.
    let (mut a, mut b) = (servers[0].client().await, servers[1].client().await);
    let chosen = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "chosen"},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": given[0].1}]}});
    let refused = b.post(SERVICES, &chosen).await;
    assert_eq!(refused.code, 422, "{}", refused.json());
    assert!(refused.json()["message"].as_str().unwrap().contains("provided port is already allocated"));
    assert_eq!(a.delete(&format!("{SERVICES}/s0-0")).await.code, 200);
    let mut moved = b.get(&format!("{SERVICES}/s1-0")).await.json();
    moved["spec"]["ports"][0]["nodePort"] = given[0].1.into();
    let mut answer = b.put(&format!("{SERVICES}/s1-0"), &moved).await;
    for _ in 0..50 {
        if answer.code == 200 {
            break;
        }
        // The other server frees it when it has heard of the deletion.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        answer = b.put(&format!("{SERVICES}/s1-0"), &moved).await;
    }
    assert_eq!(answer.code, 200, "{}", answer.json());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_written_to_one_reads_it_from_the_other() {
    let etcd = Etcd::start();
    let servers = pair(&etcd).await;
    let (mut a, mut b) = (servers[0].client().await, servers[1].client().await);
    for n in 0..50 {
        let (writer, reader) = if n % 2 == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
        let name = format!("c{n}");
        assert_eq!(writer.post(CONFIGMAPS, &configmap(&name, "1")).await.code, 201);
        assert_eq!(reader.get(&format!("{CONFIGMAPS}/{name}")).await.code, 200);
        let list = reader.get(CONFIGMAPS).await.json();
        let names: Vec<&str> =
            list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
        assert!(names.contains(&name.as_str()), "a list shows what was written before it");
    }
    // Also when it is not one of ours that raised the revision.
    let other = etcd.store();
    use kminik_store::{Op, Store, Txn};
    let put = Op::Put { key: "/elsewhere".into(), value: "1".into(), ttl: None };
    other.txn(Txn { compare: Vec::new(), ops: vec![put] }).await.unwrap();
    let started = std::time::Instant::now();
    assert_eq!(a.get(CONFIGMAPS).await.code, 200);
    assert!(started.elapsed() < std::time::Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_update_is_lost_and_both_tell_the_same_story() {
    let etcd = Etcd::start();
    let servers = pair(&etcd).await;
    let mut client = servers[0].client().await;
    let created = client.post(CONFIGMAPS, &configmap("counter", "0")).await.json();
    let from = created["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let path = format!("{CONFIGMAPS}?watch=1&fieldSelector=metadata.name=counter&resourceVersion={from}");
    let mut stories = Vec::new();
    for server in servers.iter() {
        stories.push(Events::open(server.client().await, &path).await);
    }
    const WRITERS: usize = 6;
    const STEPS: usize = 15;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let servers = servers.clone();
            tokio::spawn(async move {
                let mut client = servers[writer % 2].client().await;
                let path = format!("{CONFIGMAPS}/counter");
                for _ in 0..STEPS {
                    loop {
                        let mut object = client.get(&path).await.json();
                        let n: u64 = object["data"]["n"].as_str().unwrap().parse().unwrap();
                        object["data"]["n"] = (n + 1).to_string().into();
                        let answer = client.put(&path, &object).await;
                        if answer.code == 200 {
                            break;
                        }
                        assert_eq!(answer.code, 409, "{}", answer.json());
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let total = WRITERS * STEPS;
    let mut told: Vec<Vec<(String, String)>> = Vec::new();
    for story in &mut stories {
        let mut events = Vec::new();
        while events.len() < total {
            let event = story.next().await.expect("the watch goes on");
            let object = &event["object"];
            events.push((object["metadata"]["resourceVersion"].to_string(), object["data"]["n"].to_string()));
        }
        told.push(events);
    }
    assert_eq!(told[0], told[1]);
    let counts: Vec<String> = (1..=total).map(|n| format!("\"{n}\"")).collect();
    assert_eq!(told[0].iter().map(|(_, n)| n.clone()).collect::<Vec<_>>(), counts);
}

/// The addresses of the Service `kubernetes`, by both kinds of endpoints, once these are so many.
async fn endpoints(client: &mut Client, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    for _ in 0..500 {
        let old = client.get("/api/v1/namespaces/default/endpoints/kubernetes").await.json();
        let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
        let slice = client.get(path).await.json();
        let each = slice["endpoints"].as_array().unwrap().iter();
        found = each.map(|endpoint| endpoint["addresses"][0].as_str().unwrap().to_owned()).collect();
        let addresses = old["subsets"][0]["addresses"].as_array().unwrap().iter();
        let same = addresses.map(|address| address["ip"].as_str().unwrap()).eq(found.iter());
        if found.len() == count && same {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("not {count} endpoints: {found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_server_is_an_endpoint_until_it_stops() {
    let etcd = Etcd::start();
    let start = async |last: u8| {
        TestServer::start_on(Arc::new(etcd.store()), tempfile::tempdir().unwrap(), |config| {
            config.advertise_address = std::net::Ipv4Addr::new(192, 0, 2, last).into();
        })
        .await
    };
    let (a, b) = tokio::join!(start(1), start(2));
    let mut client = b.client().await;
    assert_eq!(endpoints(&mut client, 2).await, ["192.0.2.1", "192.0.2.2"]);
    a.stop().await.unwrap();
    assert_eq!(endpoints(&mut client, 1).await, ["192.0.2.2"]);
    let c = start(3).await;
    assert_eq!(endpoints(&mut c.client().await, 2).await, ["192.0.2.2", "192.0.2.3"]);
}
