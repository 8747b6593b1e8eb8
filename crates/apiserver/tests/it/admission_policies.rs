//! ValidatingAdmissionPolicy: expressions refuse, warn, and are checked when they are written.

use std::time::{Duration, Instant};

use crate::common::{Answer, Client, TestServer};
use serde_json::{Value, json};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn policy(name: &str, spec: Value) -> Value {
    let mut policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name}, "spec": {"matchConstraints": {"resourceRules": [
            {"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}}});
    policy["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    policy
}

fn binding(policy: &str, spec: Value) -> Value {
    let mut binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": format!("{policy}-binding")}, "spec": {"policyName": policy, "validationActions": ["Deny"]}});
    binding["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    binding
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// Writes a policy with its binding.
async fn bind(client: &mut Client, name: &str, spec: Value, bound: Value) {
    let answer = client.post(POLICIES, &policy(name, spec)).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
    let answer = client.post(BINDINGS, &binding(name, bound)).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
}

/// Creates until the answer is `code`; what is written holds within a second.
async fn create_until(client: &mut Client, object: &Value, code: u16) -> Answer {
    let begin = Instant::now();
    loop {
        let answer = client.post(&format!("{CONFIG_MAPS}?dryRun=All"), object).await;
        if answer.code == code {
            return answer;
        }
        assert!(begin.elapsed() < Duration::from_secs(1), "{}", answer.json());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn policies_refuse_what_does_not_hold() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let spec = json!({
        "variables": [
            {"name": "mode", "expression": "object.data[?'mode'].orValue('')"},
            {"name": "upper", "expression": "variables.mode.upperAscii()"}
        ],
        "matchConditions": [{"name": "not-exempt", "expression": "!object.metadata.name.startsWith('exempt')"}],
        "validations": [
            {"expression": "variables.upper != 'BAD'", "messageExpression": "'mode may not be ' + variables.mode", "reason": "Forbidden"},
            {"expression": "request.operation == 'CREATE' || object.data == oldObject.data", "message": "data may not change"},
            {"expression": "namespaceObject.metadata.name == 'default' && authorizer.group('').resource('pods').check('get').allowed()"}
        ]
    });
    bind(&mut client, "modes", spec, json!({})).await;
    let answer = create_until(&mut client, &config_map("a", json!({"mode": "bad"})), 403).await.json();
    assert_eq!(answer["reason"], "Forbidden");
    assert_eq!(
        answer["message"],
        "configmaps \"a\" is forbidden: ValidatingAdmissionPolicy 'modes' with binding 'modes-binding' denied request: mode may not be bad"
    );
    for object in [config_map("exempt-1", json!({"mode": "bad"})), config_map("good", json!({"mode": "good"}))] {
        assert_eq!(client.post(CONFIG_MAPS, &object).await.code, 201);
    }
    let answer = client.put(&format!("{CONFIG_MAPS}/good"), &config_map("good", json!({"mode": "new"}))).await;
    assert_eq!((answer.code, answer.json()["reason"].clone()), (422, json!("Invalid")));
    assert!(answer.json()["message"].as_str().unwrap().ends_with("denied request: data may not change"));
}

#[tokio::test]
async fn bindings_choose_parameters_and_actions() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "no-params", "expression": "object.metadata.name != 'limits'"}],
        "validations": [{"expression": "size(object.data) <= int(params.data.max)", "messageExpression": "'at most ' + params.data.max"}]});
    let reference = json!({"paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}});
    bind(&mut client, "sized", spec, reference).await;
    let answer = create_until(&mut client, &config_map("a", json!({"x": "1"})), 422).await.json();
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.ends_with(
            "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
        ),
        "{message}"
    );
    // What the parameters are is itself under the policy, so the binding leaves while they are written.
    assert_eq!(client.delete(&format!("{BINDINGS}/sized-binding")).await.code, 200);
    create_until(&mut client, &config_map("a", json!({"x": "1"})), 201).await;
    assert_eq!(client.post(CONFIG_MAPS, &config_map("limits", json!({"max": "1"}))).await.code, 201);
    let warn = json!({"validationActions": ["Warn"], "paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Allow"}});
    assert_eq!(client.post(BINDINGS, &binding("sized", warn)).await.code, 201);
    let begin = Instant::now();
    loop {
        let answer =
            client.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("b", json!({"x": "1", "y": "2"}))).await;
        assert_eq!(answer.code, 201);
        if let Some(warning) = answer.headers.get("warning") {
            let expected = "299 - \"Validation failed for ValidatingAdmissionPolicy 'sized' with binding 'sized-binding': at most 1\"";
            assert_eq!(warning.to_str().unwrap(), expected);
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(1), "no warning");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn failures_follow_the_failure_policy() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let spec =
        |policy: &str| json!({"failurePolicy": policy, "validations": [{"expression": "object.data.missing == 'x'"}]});
    bind(&mut client, "open", spec("Ignore"), json!({})).await;
    bind(&mut client, "shut", spec("Fail"), json!({})).await;
    let answer = create_until(&mut client, &config_map("a", json!({"x": "1"})), 422).await.json();
    assert!(answer["message"].as_str().unwrap().ends_with(
        "'shut' with binding 'shut-binding' denied request: expression 'object.data.missing == 'x'' resulted in error: no such key: missing"
    ));
    assert_eq!(client.delete(&format!("{POLICIES}/shut")).await.code, 200);
    create_until(&mut client, &config_map("a", json!({"x": "1"})), 201).await;
}

#[tokio::test]
async fn expressions_are_checked_when_written() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for (spec, field, message) in [
        (
            json!({"validations": [{"expression": "nope == 1"}]}),
            "spec.validations[0].expression",
            "compilation failed: ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope == 1\n | ^",
        ),
        (
            json!({"validations": [{"expression": "1"}]}),
            "spec.validations[0].expression",
            "must evaluate to bool but got int",
        ),
        (
            json!({"validations": [{"expression": "true"}], "variables": [{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1"}]}),
            "spec.variables[0].expression",
            "undefined field 'b'",
        ),
        (
            json!({"validations": [{"expression": "request.nope == ''"}]}),
            "spec.validations[0].expression",
            "undefined field 'nope'",
        ),
        (
            json!({"validations": [{"expression": "params.x == 1"}]}),
            "spec.validations[0].expression",
            "undeclared reference to 'params'",
        ),
        (
            json!({"validations": [{"expression": "true", "messageExpression": "1"}]}),
            "spec.validations[0].messageExpression",
            "must evaluate to string but got int",
        ),
        (
            json!({"validations": [{"expression": "true"}], "matchConditions": [{"name": "c", "expression": "'"}]}),
            "spec.matchConditions[0].expression",
            "Syntax error: token recognition error at: '''",
        ),
    ] {
        let answer = client.post(POLICIES, &policy("p", spec.clone())).await;
        assert_eq!(answer.code, 422, "{spec}");
        let causes = answer.json()["details"]["causes"].clone();
        assert_eq!(causes[0]["field"], field, "{causes}");
        assert!(causes[0]["message"].as_str().unwrap().contains(message), "{causes}");
    }
}

#[tokio::test]
async fn expressions_are_checked_against_the_kinds_they_are_for() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let rules = |resources: Value| {
        json!({"resourceRules": [
            {"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": resources}]})
    };
    let spec = json!({
        "matchConstraints": rules(json!(["deployments", "daemonsets", "deployments/scale"])),
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "variables": [{"name": "containers", "expression": "object.spec.template.spec.containers"}],
        "validations": [
            {"expression": "variables.containers.all(c, c.image.startsWith(params.data['registry']))"},
            {"expression": "object.kind == 'Deployment' && object.metadata.labels['a'] == 'b'"},
            {"expression": "object.spec.replicas > 1", "messageExpression": "'at least ' + params.date.min"},
        ],
    });
    let path = format!("{POLICIES}/typed");
    assert_eq!(client.post(POLICIES, &policy("typed", spec)).await.code, 201);
    let status = observed(&mut client, &path, 1).await;
    let undefined = |kind: &str, column: usize, field: &str, source: &str| {
        let dots = ".".repeat(column - 1);
        format!("apps/v1, Kind={kind}: ERROR: <input>:1:{column}: undefined field '{field}'\n | {source}\n | {dots}^\n")
    };
    let both = ["DaemonSet", "Deployment"].map(|kind| undefined(kind, 21, "date", "'at least ' + params.date.min"));
    let expected = json!([
        {
            "fieldRef": "spec.validations[2].expression",
            "warning": undefined("DaemonSet", 12, "replicas", "object.spec.replicas > 1"),
        },
        {
            "fieldRef": "spec.validations[2].messageExpression",
            "warning": both.join("\n"),
        },
    ]);
    assert_eq!(status["typeChecking"]["expressionWarnings"], expected, "{status}");

    // Of all kinds none is looked at.
    let anything = json!({"spec": {"matchConstraints": rules(json!(["*"]))}});
    assert_eq!(client.patch(&path, "merge", &anything).await.code, 200);
    let status = observed(&mut client, &path, 2).await;
    assert!(status["typeChecking"]["expressionWarnings"].is_null(), "{status}");
    let owners = client.get(&path).await.json()["metadata"]["managedFields"].clone();
    let owner = owners.as_array().unwrap().iter().find(|owner| owner["subresource"] == "status").unwrap();
    assert_eq!(owner["manager"], "validatingadmissionpolicy-status-controller");
}

/// The policy's status once this generation has been looked at.
async fn observed(client: &mut Client, path: &str, generation: u64) -> Value {
    let begin = Instant::now();
    loop {
        let status = client.get(path).await.json()["status"].clone();
        if status["observedGeneration"] == generation {
            return status;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "not looked at: {status}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
