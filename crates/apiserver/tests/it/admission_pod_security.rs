//! PodSecurity: every check of every level by what a client is told, warnings, templates, and what a namespace's labels
//! do when they change.

use crate::common::{Answer, Client, TestServer};
use serde_json::{Value, json};

const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

/// A level, what is changed of a pod by JSON pointer, and what that violates.
type Case = (&'static str, Vec<(String, Value)>, &'static str);

/// A pod that `restricted` lets in, with some places changed by JSON pointer.
fn pod(name: &str, changes: &[(&str, Value)]) -> Value {
    let mut pod = json!({
        "metadata": {"name": name},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "image": "i", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
            "volumes": [],
        },
    });
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = pod.pointer_mut(parent).unwrap();
        if value.is_null() {
            parent.as_object_mut().unwrap().remove(key);
        } else {
            parent[key] = value.clone();
        }
    }
    pod
}

async fn namespace(client: &mut Client, name: &str, labels: Value) -> String {
    let answer = client.post("/api/v1/namespaces", &json!({"metadata": {"name": name, "labels": labels}})).await;
    assert_eq!(answer.code, 201, "{:?}", answer.json());
    let accounts = format!("/api/v1/namespaces/{name}/serviceaccounts");
    client.post(&accounts, &json!({"metadata": {"name": "default"}})).await;
    format!("/api/v1/namespaces/{name}/pods")
}

fn warnings(answer: &Answer) -> Vec<String> {
    let headers = answer.headers.get_all("warning").iter();
    let texts = headers.map(|value| value.to_str().unwrap().trim_start_matches("299 - ").to_owned());
    texts.map(|text| serde_json::from_str(&text).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_check_says_what_is_wrong() {
    const CONTEXT: &str = "/spec/containers/0/securityContext";
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let baseline = namespace(&mut client, "baseline", json!({ENFORCE: "baseline"})).await;
    let restricted = namespace(&mut client, "restricted", json!({ENFORCE: "restricted"})).await;
    let context = |key: &str| format!("{CONTEXT}/{key}");
    let cases: Vec<Case> = vec![
        (
            "baseline",
            vec![("/spec/hostNetwork".into(), json!(true)), ("/spec/hostPID".into(), json!(true))],
            "host namespaces (hostNetwork=true, hostPID=true)",
        ),
        (
            "baseline",
            vec![(context("privileged"), json!(true)), (context("allowPrivilegeEscalation"), json!(true))],
            "privileged (container \"c\" must not set securityContext.privileged=true)",
        ),
        (
            "baseline",
            vec![(context("capabilities"), json!({"add": ["NET_RAW", "CHOWN", "SYS_ADMIN"]}))],
            "non-default capabilities (container \"c\" must not include \"NET_RAW\", \"SYS_ADMIN\" in \
             securityContext.capabilities.add)",
        ),
        (
            "baseline",
            vec![("/spec/volumes".into(), json!([{"name": "v", "hostPath": {"path": "/"}}]))],
            "hostPath volumes (volume \"v\")",
        ),
        (
            "baseline",
            vec![("/spec/containers/0/ports".into(), json!([{"containerPort": 80, "hostPort": 80}]))],
            "hostPort (container \"c\" uses hostPort 80)",
        ),
        (
            "baseline",
            vec![("/spec/containers/0/livenessProbe".into(), json!({"httpGet": {"port": 1, "host": "8.8.8.8"}}))],
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"8.8.8.8\")",
        ),
        (
            "baseline",
            vec![("/spec/securityContext/seLinuxOptions".into(), json!({"type": "spc_t", "user": "u"}))],
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
        ),
        (
            "baseline",
            vec![("/spec/securityContext/seccompProfile".into(), json!({"type": "Unconfined"}))],
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            "baseline",
            vec![(context("appArmorProfile"), json!({"type": "Unconfined"}))],
            "forbidden AppArmor profile (container \"c\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            "baseline",
            vec![("/spec/securityContext/sysctls".into(), json!([{"name": "kernel.msgmax", "value": "1"}]))],
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            "restricted",
            vec![(context("allowPrivilegeEscalation"), Value::Null)],
            "allowPrivilegeEscalation != false (container \"c\" must set \
             securityContext.allowPrivilegeEscalation=false)",
        ),
        (
            "restricted",
            vec![(context("capabilities"), json!({"add": ["CHOWN"]}))],
            "unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]; \
             container \"c\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        ),
        (
            "restricted",
            vec![("/spec/volumes".into(), json!([{"name": "v", "nfs": {"server": "s", "path": "/"}}]))],
            "restricted volume types (volume \"v\" uses restricted volume type \"nfs\")",
        ),
        (
            "restricted",
            vec![("/spec/securityContext/runAsNonRoot".into(), Value::Null)],
            "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)",
        ),
        (
            "restricted",
            vec![(context("runAsUser"), json!(0))],
            "runAsUser=0 (container \"c\" must not set runAsUser=0)",
        ),
        (
            "restricted",
            vec![("/spec/securityContext/seccompProfile".into(), Value::Null)],
            "seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \
             \"RuntimeDefault\" or \"Localhost\")",
        ),
    ];
    for (level, changes, expected) in cases {
        let path = if level == "baseline" { &baseline } else { &restricted };
        let changes: Vec<(&str, Value)> = changes.iter().map(|(at, value)| (at.as_str(), value.clone())).collect();
        let answer = client.post(path, &pod("p", &changes)).await;
        let expected = format!("pods \"p\" is forbidden: violates PodSecurity \"{level}:latest\": {expected}");
        assert_eq!((answer.code, answer.json()["message"].as_str().unwrap()), (403, expected.as_str()));
    }
    assert_eq!(client.post(&restricted, &pod("p", &[])).await.code, 201);
    // What came later is not asked of those who hold to an older version.
    let old = json!({ENFORCE: "baseline", "pod-security.kubernetes.io/enforce-version": "v1.33"});
    let old = namespace(&mut client, "old", old).await;
    let probe = json!({"httpGet": {"port": 1, "host": "8.8.8.8"}});
    assert_eq!(client.post(&old, &pod("p", &[("/spec/containers/0/livenessProbe", probe)])).await.code, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_are_warned_of_and_stricter_namespaces_look_at_their_pods() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let pods = namespace(&mut client, "n", json!({})).await;
    for name in ["b", "a"] {
        assert_eq!(client.post(&pods, &pod(name, &[("/spec/hostPID", json!(true))])).await.code, 201);
    }
    let level = |level: &str| json!({"metadata": {"labels": {ENFORCE: level}}});
    let answer = client.patch("/api/v1/namespaces/n", "merge", &level("baseline")).await;
    assert_eq!(
        warnings(&answer),
        [
            "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 1 other pod): host namespaces",
        ]
    );
    let answer = client.patch("/api/v1/namespaces/n", "merge", &level("none")).await;
    assert_eq!(
        (answer.code, answer.json()["message"].as_str().unwrap()),
        (
            422,
            "Namespace \"n\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"none\": \
             must be one of privileged, baseline, restricted"
        )
    );
    let template = |pod: Value| {
        let labels = json!({"app": "d"});
        json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod["spec"]}}})
    };
    let deployment = template(pod("d", &[("/spec/hostPID", json!(true))]));
    // The new level counts a moment after it is written.
    for _ in 0..100 {
        let tried = client.post("/apis/apps/v1/namespaces/n/deployments?dryRun=All", &deployment).await;
        if !warnings(&tried).is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let answer = client.post("/apis/apps/v1/namespaces/n/deployments", &deployment).await;
    assert_eq!(answer.code, 201, "{:?}", answer.json());
    assert_eq!(warnings(&answer), ["would violate PodSecurity \"baseline:latest\": host namespaces (hostPID=true)"]);
    // A pod that is there may change its labels, not its images.
    let labelled = json!({"metadata": {"labels": {"x": "y"}}});
    assert_eq!(client.patch(&format!("{pods}/a"), "merge", &labelled).await.code, 200);
    let image = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": "other"}]);
    assert_eq!(client.patch(&format!("{pods}/a"), "json", &image).await.code, 403);
}
