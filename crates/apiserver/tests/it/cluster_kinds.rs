//! What only some kinds that configure the cluster do, over HTTPS: admission, aggregation, flow control, certificates,
//! storage, devices.

use std::time::Duration;

use crate::common::{Answer, TestServer};
use base64::Engine as _;
use serde_json::{Value, json};

const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

fn expect(answer: &Answer, code: u16) -> Value {
    assert_eq!(answer.code, code, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn message(answer: &Answer, code: u16) -> String {
    expect(answer, code)["message"].as_str().unwrap().to_owned()
}

/// What `get` answers once `done` says so; within ten seconds.
async fn until(server: &TestServer, path: &str, done: impl Fn(&Answer) -> bool) -> Answer {
    let mut client = server.client().await;
    for _ in 0..200 {
        let answer = client.get(path).await;
        if done(&answer) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path} does not become what it should");
}

#[tokio::test(flavor = "multi_thread")]
async fn flow_control_has_its_objects_and_keeps_them() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let levels = expect(&client.get(LEVELS).await, 200);
    assert_eq!(levels["items"].as_array().unwrap().len(), 8);
    assert_eq!(expect(&client.get(SCHEMAS).await, 200)["items"].as_array().unwrap().len(), 11);

    let path = format!("{LEVELS}/catch-all");
    let more = json!({"spec": {"limited": {"nominalConcurrencyShares": 6}}});
    let refusal = message(&client.patch(&path, "merge", &more).await, 422);
    assert!(refusal.contains("spec of 'catch-all' must equal the fixed value"), "{refusal}");
    let shares = json!({"spec": {"exempt": {"nominalConcurrencyShares": 10}}});
    expect(&client.patch(&format!("{LEVELS}/exempt"), "merge", &shares).await, 200);

    // A suggested object follows its definition unless it is told not to; it is never gone for long.
    let path = format!("{LEVELS}/workload-low");
    let more = json!({"spec": {"limited": {"nominalConcurrencyShares": 6}}});
    expect(&client.patch(&path, "merge", &more).await, 200);
    let is = |shares: i64| {
        move |answer: &Answer| {
            answer.code == 200 && answer.json()["spec"]["limited"]["nominalConcurrencyShares"] == shares
        }
    };
    until(&server, &path, is(100)).await;
    let own = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}},
        "spec": {"limited": {"nominalConcurrencyShares": 7}}});
    expect(&client.patch(&path, "merge", &own).await, 200);
    expect(&client.delete(&format!("{SCHEMAS}/probes")).await, 200);
    until(&server, &format!("{SCHEMAS}/probes"), |answer| answer.code == 200).await;
    assert!(is(7)(&client.get(&path).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_and_status_doors() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let hooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let hook = json!({"metadata": {"name": "h"}, "webhooks": [{"name": "a.example.com", "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://example.com"}}]});
    assert_eq!(expect(&client.post(hooks, &hook).await, 201)["metadata"]["generation"], 1);
    let path = format!("{hooks}/h");
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(expect(&client.patch(&path, "merge", &label).await, 200)["metadata"]["generation"], 1);
    let none = json!({"webhooks": []});
    assert_eq!(expect(&client.patch(&path, "merge", &none).await, 200)["metadata"]["generation"], 2);
    assert!(message(&client.put(&path, &hook).await, 422).contains("metadata.resourceVersion: Invalid value"));

    let services = "/apis/apiregistration.k8s.io/v1/apiservices";
    let local = json!({"metadata": {"name": "v7.example.com"}, "spec": {"group": "example.com", "version": "v7",
        "groupPriorityMinimum": 1, "versionPriority": 1}});
    let made = expect(&client.post(services, &local).await, 201);
    assert_eq!(made["status"]["conditions"][0]["reason"], "Local");
    let remote = json!({"metadata": {"name": "v8.example.com"}, "spec": {"group": "example.com", "version": "v8",
        "groupPriorityMinimum": 1, "versionPriority": 1, "service": {"name": "s", "namespace": "n"}}});
    let made = expect(&client.post(services, &remote).await, 201);
    assert_eq!((&made["status"]["conditions"], &made["spec"]["service"]["port"]), (&Value::Null, &json!(443)));
    let status = json!({"status": {"conditions": [{"type": "Available", "status": "Perhaps"}]}});
    let refusal = message(&client.patch(&format!("{services}/v8.example.com/status"), "merge", &status).await, 422);
    assert!(refusal.contains("status.conditions[0].status: Unsupported value: \"Perhaps\""), "{refusal}");

    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let class = json!({"metadata": {"name": "c"}, "value": 1});
    assert_eq!(expect(&client.post(classes, &class).await, 201)["metadata"]["generation"], 1);
    let refusal = message(&client.delete(&format!("{classes}/system-node-critical")).await, 403);
    assert!(refusal.ends_with("this is a system priority class and cannot be deleted"), "{refusal}");

    let drivers = "/apis/storage.k8s.io/v1/csidrivers";
    let driver = json!({"metadata": {"name": "d.example.com"}, "spec": {"podInfoOnMount": true}});
    assert_eq!(expect(&client.post(drivers, &driver).await, 201)["metadata"]["generation"], Value::Null);
    let tokens = json!({"spec": {"tokenRequests": [{"audience": "a"}]}});
    let changed = expect(&client.patch(&format!("{drivers}/d.example.com"), "merge", &tokens).await, 200);
    assert_eq!(changed["metadata"]["generation"], 1);
    // Deleted, it is answered with.
    assert_eq!(expect(&client.delete(&format!("{drivers}/d.example.com")).await, 200)["kind"], "CSIDriver");
}

pub fn signing_request(common_name: &str) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    base64::prelude::BASE64_STANDARD.encode(params.serialize_request(&key).unwrap().pem().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signing_request_keeps_what_was_asked_and_what_was_decided() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let mut request = json!({"metadata": {"name": "r"}, "spec": {"request": "bm90aGluZw==", "usages": ["client auth"],
        "signerName": "example.com/signer", "username": "somebody", "groups": ["g"]}});
    let refusal = message(&client.post(REQUESTS, &request).await, 422);
    assert!(refusal.contains("PEM block type must be CERTIFICATE REQUEST"), "{refusal}");
    request["spec"]["request"] = signing_request("me").into();
    let made = expect(&client.post(REQUESTS, &request).await, 201);
    assert_eq!(made["spec"]["username"], "kubernetes-admin");
    assert!(made["spec"]["groups"].to_string().contains("system:masters"));

    let path = format!("{REQUESTS}/r");
    let approved = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r"}]}});
    // Not by the object's own door, and not by the signer's.
    let same = expect(&client.patch(&path, "merge", &approved).await, 200);
    assert_eq!(same["status"]["conditions"], Value::Null);
    let refusal = message(&client.patch(&format!("{path}/status"), "merge", &approved).await, 422);
    assert!(
        refusal.contains("status.conditions: Forbidden: updates may not add a condition of type \"Approved\""),
        "{refusal}"
    );
    let spec = json!({"spec": {"usages": ["server auth"]}});
    assert_eq!(expect(&client.patch(&path, "merge", &spec).await, 200)["spec"]["usages"], json!(["client auth"]));
    let decided = expect(&client.patch(&format!("{path}/approval"), "merge", &approved).await, 200);
    let condition = &decided["status"]["conditions"][0];
    assert!(condition["lastUpdateTime"].is_string() && condition["lastTransitionTime"].is_string(), "{condition}");
    let undecided = json!({"status": {"conditions": []}});
    let refusal = message(&client.patch(&format!("{path}/approval"), "merge", &undecided).await, 422);
    assert!(refusal.contains("updates may not remove a condition of type \"Approved\""), "{refusal}");
    let rubbish = json!({"status": {"certificate": "bm90aGluZw=="}});
    let refusal = message(&client.patch(&format!("{path}/status"), "merge", &rubbish).await, 422);
    assert!(refusal.contains("must contain at least one CERTIFICATE PEM block"), "{refusal}");
    let pem = base64::prelude::BASE64_STANDARD.encode(server.authority.cert_pem());
    let issued = json!({"status": {"certificate": pem}});
    let signed = expect(&client.patch(&format!("{path}/status"), "merge", &issued).await, 200);
    assert_eq!((&signed["status"]["certificate"], &signed["status"]["conditions"][0]), (&json!(pem), condition));
    // A signer may add its own word; what was decided stays as it is.
    let mut mistaken = condition.clone();
    mistaken["reason"] = "other".into();
    let both = json!({"status": {"conditions": [{"type": "Failed", "status": "True"}, mistaken]}});
    let told = expect(&client.patch(&format!("{path}/status"), "merge", &both).await, 200);
    assert_eq!(
        (&told["status"]["conditions"][0]["type"], &told["status"]["conditions"][1]),
        (&json!("Failed"), condition)
    );
    let found =
        expect(&client.get(&format!("{REQUESTS}?fieldSelector=spec.signerName%3Dexample.com/signer")).await, 200);
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_claims_need_a_marked_namespace() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let claims = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [
        {"name": "r", "exactly": {"deviceClassName": "d", "adminAccess": true}}]}}});
    let refusal = message(&client.post(claims, &claim).await, 422);
    assert!(refusal.contains("spec.devices.requests[0].exactly.adminAccess: Forbidden"), "{refusal}");
    let label = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
    let marked = expect(&client.patch("/api/v1/namespaces/default", "merge", &label).await, 200);
    // The label is read from the cache, as upstream reads it.
    let revision = marked["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    server.api.server().registry().cache().reach(revision).await.unwrap();
    let made = expect(&client.post(claims, &claim).await, 201);
    assert_eq!(made["spec"]["devices"]["requests"][0]["exactly"]["count"], 1);
}

const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, address: Option<&str>) -> Value {
    let mut service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    if let Some(address) = address {
        service["spec"]["clusterIP"] = address.into();
    }
    service
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_ips_have_their_objects() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let range = expect(&client.get(&format!("{RANGES}/kubernetes")).await, 200);
    assert_eq!(range["spec"]["cidrs"], json!(["10.96.0.0/12"]));
    assert_eq!(
        (&range["status"]["conditions"][0]["type"], &range["status"]["conditions"][0]["status"]),
        (&json!("Ready"), &json!("True"))
    );
    let own = expect(&client.get(&format!("{ADDRESSES}/10.96.0.1")).await, 200);
    assert_eq!(own["spec"]["parentRef"], json!({"resource": "services", "namespace": "default", "name": "kubernetes"}));

    // Made with the service, at the same revision, and gone with it.
    let made = expect(&client.post(SERVICES, &service("s", None)).await, 201);
    let path = format!("{ADDRESSES}/{}", made["spec"]["clusterIP"].as_str().unwrap());
    let address = expect(&client.get(&path).await, 200);
    assert_eq!(address["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    assert_eq!(address["metadata"]["labels"]["ipaddress.kubernetes.io/managed-by"], "ipallocator.k8s.io");
    expect(&client.delete(&format!("{SERVICES}/s")).await, 200);
    expect(&client.get(&path).await, 404);
    let dry = format!("{SERVICES}?dryRun=All");
    let dry = expect(&client.post(&dry, &service("d", Some("10.96.9.9"))).await, 201);
    assert_eq!(dry["spec"]["clusterIP"], "10.96.9.9");
    expect(&client.get(&format!("{ADDRESSES}/10.96.9.9")).await, 404);

    // Whoever has an address has it.
    let parent = json!({"metadata": {"name": "10.96.7.7"}, "spec": {"parentRef": {"group": "example.com", "resource": "r", "name": "n"}}});
    expect(&client.post(ADDRESSES, &parent).await, 201);
    let wanted = service("t", Some("10.96.7.7"));
    until_taken(&mut client, &wanted).await;

    // A range counts when it is ready.
    let more = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.200.0.0/24"]}});
    expect(&client.post(RANGES, &more).await, 201);
    let wanted = service("u", Some("10.200.0.5"));
    let refusal = message(&client.post(SERVICES, &wanted).await, 422);
    assert!(refusal.contains("is not in the valid range"), "{refusal}");
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "",
        "message": "", "lastTransitionTime": "2024-01-01T00:00:00Z"}]}});
    expect(&client.patch(&format!("{RANGES}/more/status"), "merge", &ready).await, 200);
    for _ in 0..100 {
        if client.post(SERVICES, &wanted).await.code == 201 {
            expect(&client.get(&format!("{ADDRESSES}/10.200.0.5")).await, 200);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no service gets an address of the new range");
}

/// The cache may be a moment behind; what is refused once stays refused.
async fn until_taken(client: &mut crate::common::Client, wanted: &Value) {
    for _ in 0..100 {
        let answer = client.post(SERVICES, wanted).await;
        if answer.code == 422 {
            assert!(message(&answer, 422).contains("provided IP is already allocated"));
            return;
        }
        assert_eq!(answer.code, 409, "{}", String::from_utf8_lossy(&answer.body));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the address is given away");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_in_use_comes_back() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let path = format!("{ADDRESSES}/10.96.0.1");
    until(&server, &path, |answer| answer.code == 200).await;
    expect(&client.delete(&path).await, 200);
    until(&server, &path, |answer| answer.code == 200).await;
}

/// A user of the test's with one cluster role, of these rules.
async fn user(server: &TestServer, name: &str, rules: Value) -> crate::common::Client {
    let mut admin = server.client().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": name}, "rules": rules});
    expect(&admin.post(&format!("{rbac}/clusterroles"), &role).await, 201);
    let binding = json!({"metadata": {"name": name}, "roleRef": {"kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "User", "name": name}]});
    expect(&admin.post(&format!("{rbac}/clusterrolebindings"), &binding).await, 201);
    let day = Duration::from_secs(86_400);
    let subject = kminik_base::pki::Subject::new(name, None);
    let identity = server.authority.issue(&subject, &kminik_base::pki::Usage::Client, day).unwrap();
    let mut client = server.client_as(Some(&identity)).await;
    let question = json!({"spec": {"resourceAttributes": {
        "verb": "create", "group": "certificates.k8s.io", "resource": "certificatesigningrequests"}}});
    for _ in 0..100 {
        let answer = client.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &question).await;
        if expect(&answer, 201)["status"]["allowed"] == true {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{name} gets no rights");
}

#[tokio::test(flavor = "multi_thread")]
async fn signers_are_for_those_who_have_the_right() {
    let server = TestServer::start().await;
    let mut admin = server.client().await;
    let group = "certificates.k8s.io";
    let doors = json!({"verbs": ["create", "patch"], "apiGroups": [group], "resources": ["certificatesigningrequests",
        "certificatesigningrequests/approval", "certificatesigningrequests/status"]});
    let right = |verb: &str, name: &str| json!({"verbs": [verb], "apiGroups": [group], "resources": ["signers"], "resourceNames": [name]});
    let mut nobody = user(&server, "nobody", json!([doors])).await;
    let mut approver = user(&server, "approver", json!([doors, right("approve", "example.com/*")])).await;
    let mut signer = user(&server, "signer", json!([doors, right("sign", "example.com/signer")])).await;
    let request = json!({"metadata": {"name": "r"}, "spec": {"request": signing_request("me"),
        "usages": ["client auth"], "signerName": "example.com/signer"}});
    expect(&nobody.post(REQUESTS, &request).await, 201);

    let approved = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r"}]}});
    let approval = format!("{REQUESTS}/r/approval");
    for client in [&mut nobody, &mut signer] {
        let answer = client.patch(&approval, "merge", &approved).await;
        let refusal = message(&answer, 403);
        assert!(
            refusal.contains("user not permitted to approve requests with signerName \"example.com/signer\""),
            "{refusal}"
        );
    }
    expect(&approver.patch(&approval, "merge", &approved).await, 200);
    let pem = base64::prelude::BASE64_STANDARD.encode(server.authority.cert_pem());
    let issued = json!({"status": {"certificate": pem}});
    let status = format!("{REQUESTS}/r/status");
    for client in [&mut nobody, &mut approver] {
        let refusal = message(&client.patch(&status, "merge", &issued).await, 403);
        assert!(refusal.contains("user not permitted to sign requests"), "{refusal}");
    }
    expect(&signer.patch(&status, "merge", &issued).await, 200);

    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
    let masters = base64::prelude::BASE64_STANDARD.encode(params.serialize_request(&key).unwrap().pem().unwrap());
    let request = json!({"metadata": {"name": "m"}, "spec": {"request": masters, "usages": ["client auth"],
        "signerName": "kubernetes.io/kube-apiserver-client"}});
    let refusal = message(&admin.post(REQUESTS, &request).await, 403);
    assert!(refusal.contains("with system:masters group is not allowed"), "{refusal}");
}
