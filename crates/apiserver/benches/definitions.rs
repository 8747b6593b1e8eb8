//! What custom resource definitions cost: memory, time to a served resource, time of a write, with many large definitions in the table.
//!
//! `cargo bench -p kminik-apiserver --bench definitions [-- DEFINITIONS [KILOBYTES]]`, 100 of 100 KiB where none are given

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for people")]

#[path = "../tests/it/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::{Client, TestServer};
use serde_json::{Map, Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A schema of about this many bytes in the shape that controller-gen writes.
fn schema(bytes: usize) -> Value {
    let part = || {
        let mut members = Map::new();
        for index in 0..20 {
            members.insert(
                format!("field{index}"),
                json!({"type": "string", "maxLength": 253, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
                    "description": "A field with a description of the usual length, which says what the field is for and when to set it."}),
            );
        }
        json!({"type": "object", "properties": members})
    };
    let size = part().to_string().len();
    let parts: Map<String, Value> = (0..bytes.div_ceil(size)).map(|index| (format!("part{index}"), part())).collect();
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": parts}}})
}

fn resident_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()).and_then(|text| text.parse().ok()).unwrap_or_default()
}

async fn established(client: &mut Client, name: &str) {
    loop {
        let found = client.get(&format!("{DEFINITIONS}/{name}")).await.json();
        let mut all = found["status"]["conditions"].as_array().into_iter().flatten();
        if all.any(|condition| condition["type"] == "Established" && condition["status"] == "True") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse::<usize>().ok());
    let (count, kilobytes) = (arguments.next().unwrap_or(100), arguments.next().unwrap_or(100));
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let (before, started) = (resident_kilobytes(), Instant::now());
    for index in 0..count {
        let (plural, kind) = (format!("kinds{index}"), format!("Kind{index}"));
        let name = format!("{plural}.group{}.example.com", index % 10);
        let group = format!("group{}.example.com", index % 10);
        let definition = json!({"metadata": {"name": name}, "spec": {"group": group, "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind}, "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema(kilobytes << 10)}}]}});
        assert_eq!(client.post(DEFINITIONS, &definition).await.code, 201);
        established(&mut client, &name).await;
    }
    println!("{count} definitions of {kilobytes} KiB: {:?} each to be served", started.elapsed() / count as u32);
    let memory = resident_kilobytes().saturating_sub(before);
    println!("memory: {memory} KiB more, {} KiB each", memory / count.max(1) as u64);
    let swaps = Instant::now();
    for _ in 0..100 {
        server.api.server().registry().recompose().unwrap();
    }
    println!("a table swap: {:?}", swaps.elapsed() / 100);
    for round in ["first", "second"] {
        let create = Instant::now();
        let object = json!({"metadata": {"generateName": "x-"}, "spec": {"part0": {"field0": "a"}}});
        let path = "/apis/group0.example.com/v1/namespaces/default/kinds0";
        assert_eq!(client.post(path, &object).await.code, 201);
        println!("the {round} create: {:?}", create.elapsed());
    }
}
