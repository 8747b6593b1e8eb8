//! `/metrics`: the text is what Prometheus' parser takes, all of it is of the table, and what happens is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kminik_apiserver::audit::{AuditConfig, LogOptions, Policy};
use kminik_apiserver::metrics::{self, Descriptor};
use kminik_base::pki::{Subject, Usage};
use kminik_store::{EmbeddedStore, Options};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::webhook::Webhook;
use crate::common::{Client, Events, TestServer};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";
const AUDIT: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n";

type Labels = BTreeMap<String, String>;
/// A metric, labels that its series must have, and by how much they move or how much they are together.
type Wanted<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

/// A series of a histogram: its buckets by their bounds, how many sums it has, and its count.
#[derive(Default)]
struct Distribution {
    buckets: Vec<(f64, f64)>,
    sums: usize,
    count: Option<f64>,
}

/// A family as it is read: its rows by name (with a suffix, of a histogram) and labels.
struct Family {
    help: String,
    kind: String,
    rows: Vec<(String, Labels, f64)>,
}

/// Reads the text form, and nothing that is not quite that.
fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line ends");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let (mut current, mut seen) = (String::new(), BTreeSet::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} "))).expect("a type");
            let family = Family { help: help.to_owned(), kind: kind.to_owned(), rows: Vec::new() };
            assert!(name > current.as_str(), "{name} follows {current}");
            families.insert(name.to_owned(), family);
            current = name.to_owned();
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert!(seen.insert(series.to_owned()), "{series} is there twice");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, self::labels(labels.strip_suffix('}').expect("a closing brace"))),
            None => (series, Labels::new()),
        };
        let suffixes = ["", "_bucket", "_sum", "_count"];
        assert!(suffixes.iter().any(|suffix| name == format!("{current}{suffix}")), "{name} is of {current}");
        let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
        families.get_mut(&current).unwrap().rows.push((name.to_owned(), labels, value));
    }
    families
}

fn labels(mut text: &str) -> Labels {
    let mut labels = Labels::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").expect("a value");
        assert!(name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'), "{name}");
        let mut value = String::new();
        let mut letters = rest.char_indices();
        let end = loop {
            match letters.next().expect("an end") {
                (at, '"') => break at,
                (_, '\\') => value.push(match letters.next().unwrap().1 {
                    'n' => '\n',
                    letter @ ('\\' | '"') => letter,
                    other => panic!("\\{other}"),
                }),
                (_, letter) => value.push(letter),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "{name} is there twice");
        text = &rest[end + 1..];
        text = text.strip_prefix(',').unwrap_or(text);
    }
    labels
}

/// Whether a histogram's buckets add up.
fn check_histogram(name: &str, family: &Family) {
    let mut series: BTreeMap<Labels, Distribution> = BTreeMap::new();
    for (row, labels, value) in &family.rows {
        let mut labels = labels.clone();
        let bound = labels.remove("le");
        let Distribution { buckets, sums, count } = series.entry(labels).or_default();
        match row.strip_prefix(name).unwrap() {
            "_bucket" => buckets.push((bound.expect("a bound").parse().unwrap(), *value)),
            "_sum" => *sums += 1,
            "_count" => *count = Some(*value),
            other => panic!("{name}{other}"),
        }
    }
    for (labels, Distribution { buckets, sums, count }) in series {
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name} {labels:?} {buckets:?}");
        let (last, all) = *buckets.last().unwrap();
        assert_eq!((last, Some(all), sums), (f64::INFINITY, count, 1), "{name} {labels:?}");
    }
}

fn check(families: &BTreeMap<String, Family>, table: &[&Descriptor]) {
    for (name, family) in families {
        let row = table.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{name} is in no table"));
        let mark = row.stability.name().map(|stability| format!("[{stability}] ")).unwrap_or_default();
        assert_eq!((&family.help, family.kind.as_str()), (&format!("{mark}{}", row.help), row.kind), "{name}");
        for (_, labels, _) in &family.rows {
            let found: Vec<&str> = labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
            assert_eq!(found, row.labels, "{name}");
        }
        match row.kind {
            "histogram" => check_histogram(name, family),
            _ => assert!(family.rows.iter().all(|(row, ..)| row == name), "{name}"),
        }
    }
}

async fn scrape(client: &mut Client) -> BTreeMap<String, Family> {
    parse(std::str::from_utf8(&client.get("/metrics").await.body).unwrap())
}

/// The sum of a metric's series that have these labels.
fn sum(families: &BTreeMap<String, Family>, name: &str, wanted: &[(&str, &str)]) -> f64 {
    let family = ["_count", ""].iter().find_map(|suffix| families.get(name.strip_suffix(suffix)?));
    let rows = family.map(|family| family.rows.as_slice()).unwrap_or_default();
    let has = |labels: &Labels| wanted.iter().all(|(label, value)| labels.get(*label).is_some_and(|has| has == value));
    rows.iter().filter(|(row, labels, _)| row == name && has(labels)).map(|(.., value)| value).sum()
}

async fn start() -> TestServer {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&directory.path().join("store.redb"), Options::default()).unwrap();
    let log = LogOptions::new(directory.path().join("audit.log"));
    let audit = AuditConfig { policy: Policy::parse(AUDIT).unwrap(), log };
    TestServer::start_on(Arc::new(store), directory, |config| config.audit = Some(audit)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_is_counted() {
    let server = start().await;
    let mut client = server.client().await;
    // Written once the server has begun, and not by this test.
    let tracking = "/api/v1/namespaces/kube-system/configmaps/kube-apiserver-legacy-service-account-token-tracking";
    while client.get(tracking).await.code != 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = scrape(&mut client).await;
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});

    let mut events = Events::open(
        server.client().await,
        &format!("{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"),
    )
    .await;
    assert_eq!(client.post(&format!("{MAPS}?fieldValidation=Strict"), &map("x")).await.code, 201);
    while events.brief().await.1 != "x" {}
    assert_eq!(client.get(MAPS).await.code, 200);
    assert_eq!(client.get(&format!("{MAPS}?labelSelector=a%3D%22")).await.code, 400);
    assert_eq!(client.get("/api/v1/componentstatuses").await.code, 200);
    client
        .send("GET", "/apis", &[("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")], "")
        .await;

    let jane = Usage::Client;
    let jane =
        server.authority.issue(&Subject::new("jane@example.com", None), &jane, Duration::from_secs(3600)).unwrap();
    assert_eq!(server.client_as(Some(&jane)).await.get(MAPS).await.code, 403);
    let bearer = [("authorization", "Bearer nonsense")];
    assert_eq!(server.client_as(None).await.send("GET", MAPS, &bearer, "").await.code, 401);

    let mut stranger = TcpStream::connect(server.address).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    // Whatever is said to it, the connection ends.
    let _ = stranger.read_to_end(&mut Vec::new()).await;

    let webhook = Webhook::start(|_, _| json!({"allowed": false, "status": {"code": 409, "message": "no"}})).await;
    let rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]});
    let hook = |name: &str, path: &str, policy: &str, label: &str| {
        json!({
            "name": format!("{name}.example.com"), "clientConfig": webhook.client_config(path), "rules": [rule],
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": policy, "timeoutSeconds": 5,
            "objectSelector": {"matchLabels": {"ask": label}},
            "matchConditions": [{"name": "c", "expression": "object.metadata.name != 'spared'"}],
        })
    };
    let hooks = [hook("no", "/no", "Fail", "no"), hook("open", "/broken", "Ignore", "open")];
    let configuration = json!({"metadata": {"name": "hooks"}, "webhooks": hooks});
    let answer = client.post(&format!("{ADMISSION}/validatingwebhookconfigurations"), &configuration).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
    let policy = json!({"metadata": {"name": "small"}, "spec": {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "object.metadata.name != 'large'"}],
    }});
    let answer = client.post(&format!("{ADMISSION}/validatingadmissionpolicies"), &policy).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
    let binding = json!({"metadata": {"name": "all"}, "spec": {"policyName": "small", "validationActions": ["Deny"]}});
    let answer = client.post(&format!("{ADMISSION}/validatingadmissionpolicybindings"), &binding).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
    let revision = answer.json()["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    server.api.server().registry().cache().reach(revision).await.unwrap();
    for (name, ask, code) in [("a", "no", 409), ("b", "open", 201), ("spared", "no", 201), ("large", "", 422)] {
        let mut map = map(name);
        map["metadata"]["labels"] = json!({"ask": ask});
        let answer = client.post(MAPS, &map).await;
        assert_eq!(answer.code, code, "{name}: {}", answer.json());
    }

    let after = scrape(&mut client).await;
    check(&after, &metrics::descriptors());
    let maps = [("group", ""), ("resource", "configmaps")];
    let no = [("name", "no.example.com"), ("operation", "CREATE"), ("type", "validating")];
    let moved: [Wanted<'_>; 29] = [
        ("apiserver_request_total", &[("resource", "configmaps"), ("verb", "POST"), ("code", "201")], 3.0),
        ("apiserver_request_sli_duration_seconds_count", &[("resource", "configmaps"), ("verb", "LIST")], 2.0),
        ("apiserver_response_sizes_count", &[("resource", "configmaps"), ("verb", "LIST")], 2.0),
        ("apiserver_request_body_size_bytes_count", &[("resource", "configmaps"), ("verb", "create")], 5.0),
        ("field_validation_request_duration_seconds_count", &[("field_validation", "Strict")], 1.0),
        ("apiserver_requested_deprecated_apis", &[("resource", "componentstatuses")], 1.0),
        ("apiserver_tls_handshake_errors_total", &[], 1.0),
        ("authentication_attempts", &[("result", "error")], 1.0),
        ("authenticated_user_requests", &[("username", "email_id")], 1.0),
        ("authorization_attempts_total", &[("result", "no-opinion")], 1.0),
        ("apiserver_watch_list_duration_seconds_count", &maps, 1.0),
        ("apiserver_watch_cache_events_received_total", &maps, 3.0),
        ("apiserver_watch_cache_events_dispatched_total", &maps, 3.0),
        ("apiserver_cache_list_total", &maps, 1.0),
        ("apiserver_cache_list_returned_objects_total", &maps, 1.0),
        ("etcd_requests_total", &[("operation", "create"), ("resource", "configmaps")], 3.0),
        (
            "apiserver_admission_webhook_rejection_count",
            &[no[0], no[1], no[2], ("error_type", "no_error"), ("rejection_code", "409")],
            1.0,
        ),
        (
            "apiserver_admission_webhook_request_total",
            &[no[0], no[1], no[2], ("rejected", "true"), ("code", "409")],
            1.0,
        ),
        ("apiserver_admission_webhook_admission_duration_seconds_count", &no, 1.0),
        ("apiserver_admission_webhook_fail_open_count", &[("name", "open.example.com"), no[2]], 1.0),
        (
            "apiserver_admission_webhook_request_total",
            &[("name", "open.example.com"), ("rejected", "false"), ("code", "500")],
            1.0,
        ),
        (
            "apiserver_admission_match_condition_exclusions_total",
            &[no[0], no[1], ("kind", "webhook"), ("type", "validate")],
            1.0,
        ),
        (
            "apiserver_admission_controller_admission_duration_seconds_count",
            &[("name", "ValidatingAdmissionWebhook"), ("rejected", "true"), ("type", "validate")],
            1.0,
        ),
        (
            "apiserver_validating_admission_policy_check_total",
            &[
                ("policy", "small"),
                ("policy_binding", "all"),
                ("enforcement_action", "deny"),
                ("error_type", "no_error"),
            ],
            1.0,
        ),
        ("apiserver_validating_admission_policy_check_duration_seconds_count", &[("policy", "small")], 1.0),
        ("aggregator_discovery_aggregation_count_total", &[], 1.0),
        ("apiserver_resource_objects", &maps, 3.0),
        ("apiserver_longrunning_requests", &[("resource", "configmaps"), ("verb", "WATCH")], 1.0),
        ("apiserver_request_total", &[("resource", "configmaps"), ("code", "403")], 0.0),
    ];
    for (name, labels, wanted) in moved {
        let difference = sum(&after, name, labels) - sum(&before, name, labels);
        assert_eq!(difference, wanted, "{name} {labels:?}");
    }
    let at_least: [Wanted<'_>; 9] = [
        ("apiserver_watch_events_total", &maps, 2.0),
        ("apiserver_watch_events_sizes_count", &maps, 2.0),
        ("apiserver_client_certificate_expiration_seconds_count", &[], 5.0),
        ("apiserver_request_filter_duration_seconds_count", &[("filter", "authorization")], 5.0),
        ("apiserver_selfrequest_total", &[], 1.0),
        ("apiserver_audit_event_total", &[], 10.0),
        ("apiserver_audit_level_total", &[("level", "Metadata")], 5.0),
        ("apiserver_resource_size_estimate_bytes", &maps, 100.0),
        ("apiserver_current_inflight_requests", &[("request_kind", "readOnly")], 1.0),
    ];
    for (name, labels, wanted) in at_least {
        assert!(sum(&after, name, labels) >= wanted, "{name} {labels:?} is {}", sum(&after, name, labels));
    }
    assert_eq!(sum(&after, "cardinality_enforcement_unexpected_categorizations_total", &[]), 0.0);
    client.get("/readyz").await;
    let indicators = client.get("/metrics/slis").await.body;
    check(&parse(std::str::from_utf8(&indicators).unwrap()), &metrics::descriptors());
}

#[test]
fn the_table_is_what_the_docs_say() {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/METRICS.md"));
    let text = std::fs::read_to_string(&path).unwrap();
    let table = metrics::descriptors();
    assert!(table.is_sorted_by(|a, b| a.name < b.name), "a name is there once");
    for row in &table {
        assert!(row.labels.is_sorted_by(|a, b| a < b) && row.bounds.is_sorted_by(|a, b| a < b), "{}", row.name);
    }
    let line = |row: &&Descriptor| format!("| `{}` | {} | {} |\n", row.name, row.kind, row.labels.join(", "));
    let rows: String = table.iter().map(line).collect();
    let (head, rest) = text.split_once("| --- | --- | --- |\n").unwrap();
    let (present, tail) = rest.split_once("\n\n").map(|(rows, tail)| (format!("{rows}\n"), tail)).unwrap();
    if std::env::var_os("KMINIK_BLESS").is_some() {
        std::fs::write(&path, format!("{head}| --- | --- | --- |\n{rows}\n{tail}")).unwrap();
        return;
    }
    assert_eq!(present, rows, "KMINIK_BLESS=1 cargo test -p kminik-apiserver the_table_is_what_the_docs_say");
    let (_, unserved) = tail.split_once("## Not served").unwrap();
    for row in &table {
        assert!(!unserved.contains(&format!("`{}`", row.name)), "{} is served", row.name);
    }
}
