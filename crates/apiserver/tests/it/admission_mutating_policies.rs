//! MutatingAdmissionPolicy: expressions change what is written, and are checked when they are written.

use std::time::Duration;

use crate::common::{Answer, Client, TestServer};
use serde_json::{Value, json};

const GROUP: &str = "/apis/admissionregistration.k8s.io";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct Fixture {
    server: TestServer,
    client: Client,
}

fn expect(answer: &Answer, code: u16) -> Value {
    assert_eq!(answer.code, code, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn json_patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

fn policy(name: &str, mutations: Value, spec: Value) -> Value {
    let mut policy = json!({"metadata": {"name": name}, "spec": {"reinvocationPolicy": "Never", "mutations": mutations,
        "matchConstraints": {"resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["configmaps"]}]}}});
    policy["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    policy
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

impl Fixture {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = TestServer::start_with(directory, |config| config.mutating_policies = true).await;
        let client = server.client().await;
        Fixture { server, client }
    }

    /// Writes an object and waits until it holds.
    async fn write(&mut self, path: &str, object: &Value) -> Value {
        let written = expect(&self.client.post(path, object).await, 201);
        let revision = written["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        self.server.api.server().registry().cache().reach(revision).await.unwrap();
        written
    }

    /// Writes a policy with its binding.
    async fn bind(&mut self, name: &str, mutations: Value, spec: Value, bound: Value) -> Value {
        let written =
            self.write(&format!("{GROUP}/v1beta1/mutatingadmissionpolicies"), &policy(name, mutations, spec)).await;
        let mut binding = json!({"metadata": {"name": format!("{name}-binding")}, "spec": {"policyName": name}});
        binding["spec"].as_object_mut().unwrap().extend(bound.as_object().unwrap().clone());
        self.write(&format!("{GROUP}/v1beta1/mutatingadmissionpolicybindings"), &binding).await;
        written
    }

    async fn create(&mut self, object: &Value) -> Answer {
        self.client.post(CONFIG_MAPS, object).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_served_only_when_they_are_asked_for() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    expect(&client.get(&format!("{GROUP}/v1beta1/mutatingadmissionpolicies")).await, 404);
    assert_eq!(expect(&client.get(GROUP).await, 200)["versions"].as_array().unwrap().len(), 1);
    let mut fixture = Fixture::start().await;
    let written = fixture.bind("p", json!([apply("Object{}")]), json!({}), json!({})).await;
    assert_eq!((&written["spec"]["failurePolicy"], &written["metadata"]["generation"]), (&json!("Fail"), &json!(1)));
    assert_eq!(written["spec"]["matchConstraints"]["matchPolicy"], "Equivalent");
    assert_eq!(written["spec"]["matchConstraints"]["resourceRules"][0]["scope"], "*");
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let path = format!("{GROUP}/v1beta1/mutatingadmissionpolicies");
    let table = expect(&fixture.client.send("GET", &path, &table, "").await, 200);
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..3], [json!("p"), json!(1), json!("<unset>")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_forms_change_objects_with_variables_conditions_and_parameters() {
    let mut fixture = Fixture::start().await;
    fixture.write(CONFIG_MAPS, &config_map("settings", json!({"team": "blue"}))).await;
    let mutations = json!([
        apply("Object{metadata: Object.metadata{labels: {'team': params.data.team, 'size': string(variables.size)}}}"),
        json_patch(
            "[JSONPatch{op: 'test', path: '/metadata/labels/team', value: 'blue'},
              JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/team'), value: object.metadata.labels.team}]"
        ),
        // A test that does not hold changes nothing.
        json_patch("[JSONPatch{op: 'test', path: '/metadata/name', value: 'x'}, JSONPatch{op: 'remove', path: '/data'}]"),
    ]);
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "variables": [{"name": "size", "expression": "size(object.data)"}],
        "matchConditions": [{"name": "not-exempt", "expression": "!object.metadata.name.startsWith('exempt')"}],
    });
    let reference =
        json!({"paramRef": {"name": "settings", "namespace": "default", "parameterNotFoundAction": "Deny"}});
    fixture.bind("labels", mutations, spec, reference).await;
    let made = expect(&fixture.create(&config_map("a", json!({"x": "1", "y": "2"}))).await, 201);
    let labels = json!({"team": "blue", "size": "2", "example.com/team": "blue"});
    assert_eq!((&made["metadata"]["labels"], &made["data"]), (&labels, &json!({"x": "1", "y": "2"})));
    // What a policy sets is not its request's to own.
    let owned = made["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(owned.len(), 1, "{owned:?}");
    let exempt = expect(&fixture.create(&config_map("exempt-1", json!({}))).await, 201);
    assert!(exempt["metadata"].get("labels").is_none());
    expect(&fixture.client.delete(&format!("{CONFIG_MAPS}/settings")).await, 200);
    for _ in 0..100 {
        let answer = fixture.create(&config_map("b", json!({}))).await;
        // Until the deletion is seen, the policy fails at what this map lacks.
        if answer.json()["message"].as_str().is_some_and(|message| message.contains("no params found")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refusal = expect(&fixture.create(&config_map("b", json!({}))).await, 403);
    let why = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert_eq!(refusal["message"], format!("policy 'labels' with binding 'labels-binding' denied request: {why}"));
    assert_eq!(refusal["reason"], "Forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_refuses_unless_it_is_to_be_ignored() {
    let mut fixture = Fixture::start().await;
    let failing = json!([
        apply("Object{metadata: Object.metadata{labels: {'a': object.data.absent}}}"),
        apply("Object{metadata: Object.metadata{labels: {'b': '1'}}}"),
    ]);
    fixture.bind("lenient", failing, json!({"failurePolicy": "Ignore"}), json!({})).await;
    let made = expect(&fixture.create(&config_map("a", json!({}))).await, 201);
    assert_eq!(made["metadata"]["labels"], json!({"b": "1"}), "the other mutation is made");
    for (name, mutation, why) in [
        ("key", apply("Object{metadata: Object.metadata{labels: {'a': object.data.absent}}}"), "no such key: absent"),
        (
            "atomic",
            apply(
                "Object{metadata: Object.metadata{ownerReferences: [Object.metadata.ownerReferences{uid: 'u'}], unknown: 1}}",
            ),
            "error applying patch: ",
        ),
        ("path", json_patch("[JSONPatch{op: 'remove', path: '/nothing/here'}]"), "JSONPath: "),
    ] {
        fixture.bind(name, json!([mutation]), json!({}), json!({})).await;
        let refusal = expect(&fixture.create(&config_map("b", json!({"x": "1"}))).await, 403);
        let message = refusal["message"].as_str().unwrap();
        let begin = format!("policy '{name}' with binding '{name}-binding' denied request: ");
        assert!(message.starts_with(&begin) && message.contains(why), "{message}");
        assert_eq!(refusal["reason"], "Invalid");
        let path = format!("{GROUP}/v1beta1/mutatingadmissionpolicybindings/{name}-binding");
        expect(&fixture.client.delete(&path).await, 200);
        for _ in 0..100 {
            if fixture.client.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("b", json!({}))).await.code == 201
            {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_sees_later_changes_if_it_wants_to() {
    let mut fixture = Fixture::start().await;
    let early = || {
        json!([json_patch(
            "has(object.data) && 'late' in object.data ? [JSONPatch{op: 'add', path: '/metadata/labels', value: {'seen': 'late'}}] : []"
        )])
    };
    fixture.bind("a-once", early(), json!({}), json!({})).await;
    fixture.bind("z-late", json!([apply("Object{data: {'late': 'yes'}}")]), json!({}), json!({})).await;
    let made = expect(&fixture.create(&config_map("a", json!({}))).await, 201);
    assert_eq!((&made["data"], made["metadata"].get("labels")), (&json!({"late": "yes"}), None));
    fixture.bind("b-again", early(), json!({"reinvocationPolicy": "IfNeeded"}), json!({})).await;
    let made = expect(&fixture.create(&config_map("b", json!({}))).await, 201);
    assert_eq!(made["metadata"]["labels"], json!({"seen": "late"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_pods_merge_and_get_their_defaults() {
    let mut fixture = Fixture::start().await;
    let rules = json!({"matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
        "resources": ["pods"]}]}});
    let sidecar = "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'sidecar', image: 'proxy'}]}}";
    fixture.bind("sidecar", json!([apply(sidecar)]), rules, json!({})).await;
    fixture.write("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = expect(&fixture.client.post("/api/v1/namespaces/default/pods", &pod).await, 201);
    let containers = made["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 2);
    let added = containers.iter().find(|container| container["name"] == "sidecar").unwrap();
    assert_eq!((&added["image"], &added["terminationMessagePolicy"]), (&json!("proxy"), &json!("File")));
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_checked_when_they_are_written() {
    let mut fixture = Fixture::start().await;
    let path = format!("{GROUP}/v1beta1/mutatingadmissionpolicies");
    let deleting = json!({"matchConstraints": {"resourceRules": [{"operations": ["DELETE"], "apiGroups": [""],
        "apiVersions": ["v1"], "resources": ["configmaps"]}]}});
    for (mutations, spec, why) in [
        (json!([]), json!({}), "spec.mutations: Required value: mutations must contain at least one item"),
        (
            json!([apply("Object{}")]),
            json!({"reinvocationPolicy": "Always"}),
            "spec.reinvocationPolicy: Unsupported value: \"Always\"",
        ),
        (
            json!([apply("Object{}")]),
            deleting,
            "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\"",
        ),
        (
            json!([{"patchType": "JSONPatch"}]),
            json!({}),
            "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
        ),
        (json!([{"patchType": "Merge"}]), json!({}), "spec.mutations[0].patchType: Unsupported value: \"Merge\""),
        (
            json!([apply("'text'")]),
            json!({}),
            "spec.mutations[0].applyConfiguration.expression: Invalid value: \"'text'\": must evaluate to Object but got string",
        ),
        (json!([json_patch("[1]")]), json!({}), "must evaluate to list(JSONPatch) but got list(int)"),
        (
            json!([json_patch("[JSONPatch{op: 1}]")]),
            json!({}),
            "expected type of field 'op' is 'string' but provided type is 'int'",
        ),
        (
            json!([apply("Object{}")]),
            json!({"matchConditions": [{"name": "c", "expression": "Object{} == object"}]}),
            "spec.matchConditions[0].expression: Invalid value",
        ),
    ] {
        let refusal = expect(&fixture.client.post(&path, &policy("p", mutations, spec)).await, 422);
        let message = refusal["message"].as_str().unwrap();
        assert!(message.contains(why), "{why}\n{message}");
    }
}
