//! What is served is what upstream of the same minor serves by default: each group, version, resource and subresource with
//! its kind, scope, verbs, short names and categories, as our discovery says over HTTPS.

use std::collections::BTreeSet;

use crate::common::{Client, TestServer};
use serde_json::Value;

const UPSTREAM: &str = include_str!("../data/discovery-v1.35.txt");
const ALL: &str = "create,delete,deletecollection,get,list,patch,update,watch";
const READ_AND_WRITE: &str = "get,patch,update";

fn texts(list: &Value) -> String {
    let texts: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    texts.join(",")
}

/// A line as in the list.
fn line(group_version: &str, name: &str, scope: &str, resource: &Value) -> String {
    let verbs = match texts(&resource["verbs"]).as_str() {
        ALL => "*".to_owned(),
        READ_AND_WRITE if name.contains('/') => "rw".to_owned(),
        verbs => verbs.to_owned(),
    };
    let kind = resource["responseKind"]["kind"].as_str().unwrap();
    let mut line = format!("{group_version} {name} {kind} {scope} {verbs}");
    for (word, member) in [("short", "shortNames"), ("categories", "categories")] {
        let list = texts(&resource[member]);
        if !list.is_empty() {
            line.push_str(&format!(" {word}={list}"));
        }
    }
    line
}

async fn served(client: &mut Client, path: &str) -> BTreeSet<String> {
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let answer = client.send("GET", path, &[("accept", accept)], "").await;
    assert_eq!(answer.code, 200, "{path}");
    let mut lines = BTreeSet::new();
    for group in answer.json()["items"].as_array().unwrap() {
        let name = group["metadata"]["name"].as_str().unwrap_or_default();
        for version in group["versions"].as_array().unwrap() {
            let number = version["version"].as_str().unwrap();
            let group_version = if name.is_empty() { number.to_owned() } else { format!("{name}/{number}") };
            for resource in version["resources"].as_array().unwrap() {
                let plural = resource["resource"].as_str().unwrap();
                let scope = if resource["scope"] == "Namespaced" { "N" } else { "C" };
                lines.insert(line(&group_version, plural, scope, resource));
                for sub in resource["subresources"].as_array().into_iter().flatten() {
                    let name = format!("{plural}/{}", sub["subresource"].as_str().unwrap());
                    lines.insert(line(&group_version, &name, scope, sub));
                }
            }
        }
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_upstream_serves_is_served_the_same() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let mut ours = served(&mut client, "/api").await;
    ours.extend(served(&mut client, "/apis").await);
    let theirs: BTreeSet<String> = UPSTREAM.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    let missing: Vec<_> = theirs.difference(&ours).collect();
    let extra: Vec<_> = ours.difference(&theirs).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing: {missing:#?}\nin excess: {extra:#?}");
}
