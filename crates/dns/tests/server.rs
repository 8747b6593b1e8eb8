//! The server over real sockets, with an upstream of the test's own on a loopback address.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kminik_dns::{DnsServer, Forwarder, ForwarderConfig, Zone};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::{CancellationToken, DropGuard};

fn zone() -> Arc<Zone> {
    let service = |name: &str, spec: serde_json::Value| -> Service {
        serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})).unwrap()
    };
    let many: Vec<_> = (1..=100).map(|last| json!({"addresses": [format!("10.244.0.{last}")]})).collect();
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": "many", "labels": {"kubernetes.io/service-name": "many"}},
        "addressType": "IPv4", "ports": [], "endpoints": many,
    }))
    .unwrap();
    let services = [
        service("web", json!({"clusterIP": "10.96.0.9", "ports": []})),
        service("many", json!({"clusterIP": "None", "ports": []})),
        service("out", json!({"type": "ExternalName", "externalName": "example.org"})),
    ];
    let domain = Name::from_ascii("cluster.local.").unwrap();
    let namespaces: [&Namespace; 0] = [];
    Arc::new(Zone::new(domain, &services.iter().collect::<Vec<_>>(), &[&slice], &namespaces))
}

/// Port 53 of a loopback address of its own: answers every A question with 192.0.2.1, `big.*` with a truncated answer over UDP.
async fn upstream(asked: Arc<AtomicUsize>) -> Ipv4Addr {
    let (udp, tcp, address) = loop {
        let [.., a, b, c] = rand::random::<u32>().to_be_bytes();
        let address = Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254));
        let udp = UdpSocket::bind((address, 53)).await;
        if let (Ok(udp), Ok(tcp)) = (udp, TcpListener::bind((address, 53)).await) {
            break (udp, tcp, address);
        }
    };
    let answer = move |request: &[u8], datagram: bool| {
        asked.fetch_add(1, Ordering::SeqCst);
        let request = Message::from_vec(request).unwrap();
        let name = request.queries[0].name.clone();
        let mut response = Message::response(request.metadata.id, OpCode::Query);
        response.add_query(request.queries[0].clone());
        if datagram && name.to_ascii().starts_with("big") {
            response.metadata.truncation = true;
        } else if name.to_ascii().starts_with("gone") {
            response.metadata.response_code = ResponseCode::NXDomain;
        } else {
            response.add_answer(Record::from_rdata(name, 60, RData::A(A(Ipv4Addr::new(192, 0, 2, 1)))));
        }
        response.to_vec().unwrap()
    };
    let answer_tcp = answer.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = udp.recv_from(&mut buffer).await {
            udp.send_to(&answer(&buffer[..length], true), client).await.unwrap();
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let length = stream.read_u16().await.unwrap();
            let mut request = vec![0; usize::from(length)];
            stream.read_exact(&mut request).await.unwrap();
            let response = answer_tcp(&request, false);
            stream.write_u16(u16::try_from(response.len()).unwrap()).await.unwrap();
            stream.write_all(&response).await.unwrap();
        }
    });
    address
}

async fn start(resolv_conf: &Path, loopback: bool) -> (SocketAddr, Arc<DnsServer>, DropGuard) {
    let forwarder = Forwarder::new(ForwarderConfig { resolv_conf: resolv_conf.to_owned(), loopback });
    let server = Arc::new(DnsServer::new(forwarder));
    server.set_zone(zone());
    let (udp, tcp) = DnsServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = udp.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(server.clone().serve(udp, tcp, stop.clone()));
    (address, server, stop.drop_guard())
}

fn question(name: &str, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

async fn over_udp(server: SocketAddr, request: &[u8]) -> (Message, usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(request, server).await.unwrap();
    let mut buffer = [0; 8192];
    let received = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await;
    let length = received.unwrap().unwrap();
    (Message::from_vec(&buffer[..length]).unwrap(), length)
}

async fn ask(server: SocketAddr, name: &str) -> Message {
    over_udp(server, &question(name, None)).await.0
}

async fn over_tcp(stream: &mut TcpStream, name: &str) -> Message {
    let request = question(name, None);
    stream.write_u16(u16::try_from(request.len()).unwrap()).await.unwrap();
    stream.write_all(&request).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

#[tokio::test]
async fn answers_of_its_own_are_cut_to_what_the_client_takes() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _, _stop) = start(&dir.path().join("none"), true).await;
    let web = ask(server, "web.ns.svc.cluster.local.").await;
    assert!(web.metadata.authoritative && web.metadata.recursion_available && web.answers.len() == 1);

    let many = "many.ns.svc.cluster.local.";
    let (cut, length) = over_udp(server, &question(many, None)).await;
    assert!(cut.metadata.truncation && length <= 512);
    let (cut, length) = over_udp(server, &question(many, Some(1232))).await;
    assert!(cut.metadata.truncation && length <= 1232 && cut.edns.is_some());
    let (whole, length) = over_udp(server, &question(many, Some(65_000))).await;
    assert!(!whole.metadata.truncation && whole.answers.len() == 100 && length <= 4096, "{length}");
    let mut stream = TcpStream::connect(server).await.unwrap();
    assert_eq!(over_tcp(&mut stream, many).await.answers.len(), 100);
    assert_eq!(over_tcp(&mut stream, "web.ns.svc.cluster.local.").await.answers.len(), 1, "the connection is kept");
}

#[tokio::test]
async fn forwards_with_a_cache_and_follows_external_names() {
    let dir = tempfile::tempdir().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let upstream = upstream(asked.clone()).await;
    let resolv = dir.path().join("resolv.conf");
    // The first one answers nothing at all.
    std::fs::write(&resolv, format!("nameserver 127.255.255.254\nnameserver {upstream}\n")).unwrap();
    let (server, _, _stop) = start(&resolv, true).await;
    for _ in 0..3 {
        let answer = ask(server, "example.net.").await;
        assert_eq!(answer.answers.len(), 1);
        assert!(!answer.metadata.authoritative);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "asked once, remembered after");
    let followed = ask(server, "out.ns.svc.cluster.local.").await;
    let kinds: Vec<RecordType> = followed.answers.iter().map(Record::record_type).collect();
    assert_eq!(kinds, [RecordType::CNAME, RecordType::A]);
    assert_eq!(ask(server, "big.example.net.").await.answers.len(), 1, "over tcp when it does not fit");
    assert_eq!(ask(server, "gone.example.net.").await.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn no_resolver_no_loop_no_nonsense() {
    let dir = tempfile::tempdir().unwrap();
    let resolv = dir.path().join("resolv.conf");
    std::fs::write(&resolv, "nameserver 127.0.0.53\nnameserver 127.0.0.11\n").unwrap();
    let (server, _, _stop) = start(&resolv, false).await;
    assert_eq!(ask(server, "example.net.").await.metadata.response_code, ResponseCode::ServFail);
    let (malformed, _) = over_udp(server, &[7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 99]).await;
    assert_eq!((malformed.metadata.id, malformed.metadata.response_code), (0x0709, ResponseCode::FormErr));
}

#[tokio::test]
async fn a_loop_is_found_and_ended() {
    let dir = tempfile::tempdir().unwrap();
    let resolv = dir.path().join("resolv.conf");
    let [.., a, b] = rand::random::<u32>().to_be_bytes();
    let own = Ipv4Addr::new(127, 77, a, b.clamp(1, 254));
    std::fs::write(&resolv, format!("nameserver {own}\n")).unwrap();
    let server =
        Arc::new(DnsServer::new(Forwarder::new(ForwarderConfig { resolv_conf: resolv.clone(), loopback: true })));
    let (udp, tcp) = DnsServer::bind((own, 53).into()).await.unwrap();
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(server.clone().serve(udp, tcp, stop));
    server.forwarder().probe_for_loop().await;
    let started = std::time::Instant::now();
    assert_eq!(ask((own, 53).into(), "example.net.").await.metadata.response_code, ResponseCode::ServFail);
    assert!(started.elapsed() < Duration::from_secs(1), "not by a time-out");
}
