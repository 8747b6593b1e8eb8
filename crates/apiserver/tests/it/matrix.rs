//! Every resource that is stored, through every verb: what holds for one holds for all. The objects are in `fixtures/`, a file a
//! group; a resource without one fails the test.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::common::{Client, Events, TestServer};
use serde::Deserialize;
use serde_json::{Value, json};

/// One object of each (apiVersion, kind).
fn fixtures() -> BTreeMap<(String, String), Value> {
    let mut found = BTreeMap::new();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for file in std::fs::read_dir(directory).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for document in serde_yaml::Deserializer::from_str(&text) {
            let object = Value::deserialize(document).unwrap();
            let text = |member: &str| object[member].as_str().unwrap().to_owned();
            let key = (text("apiVersion"), text("kind"));
            assert!(found.insert(key.clone(), object).is_none(), "{key:?} has two fixtures");
        }
    }
    found
}

/// A resource as discovery tells of it.
struct Resource {
    group_version: String,
    kind: String,
    plural: String,
    verbs: Vec<String>,
    namespaced: bool,
}

impl Resource {
    fn path(&self) -> String {
        let root = if self.group_version.contains('/') { "apis" } else { "api" };
        let namespace = if self.namespaced { "namespaces/default/" } else { "" };
        format!("/{root}/{}/{namespace}{}", self.group_version, self.plural)
    }

    fn has(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

/// All resources that can be created and listed.
async fn resources(client: &mut Client) -> Vec<Resource> {
    let mut documents = vec!["/api/v1".to_owned()];
    for group in client.get("/apis").await.json()["groups"].as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            documents.push(format!("/apis/{}", version["groupVersion"].as_str().unwrap()));
        }
    }
    let mut found = Vec::new();
    for document in documents {
        let list = client.get(&document).await.json();
        for resource in list["resources"].as_array().unwrap() {
            let text = |member: &str| resource[member].as_str().unwrap().to_owned();
            let resource = Resource {
                group_version: list["groupVersion"].as_str().unwrap().to_owned(),
                kind: text("kind"),
                plural: text("name"),
                verbs: serde_json::from_value(resource["verbs"].clone()).unwrap(),
                namespaced: resource["namespaced"].as_bool().unwrap(),
            };
            if !resource.plural.contains('/') && resource.has("create") && resource.has("list") {
                found.push(resource);
            }
        }
    }
    found
}

#[tokio::test]
async fn every_verb_of_every_resource() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    client.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let mut fixtures = fixtures();
    let mut missing = Vec::new();
    for resource in resources(&mut client).await {
        match fixtures.remove(&(resource.group_version.clone(), resource.kind.clone())) {
            Some(fixture) => Trial { server: &server, client: &mut client, resource, fixture }.run().await,
            None => missing.push(format!("{} {}", resource.group_version, resource.kind)),
        }
    }
    assert_eq!(missing, Vec::<String>::new(), "resources without a fixture");
    assert_eq!(fixtures.keys().collect::<Vec<_>>(), Vec::<&(String, String)>::new(), "fixtures without a resource");
}

struct Trial<'a> {
    server: &'a TestServer,
    client: &'a mut Client,
    resource: Resource,
    fixture: Value,
}

impl Trial<'_> {
    async fn run(&mut self) {
        let (list, name) = (self.resource.path(), self.fixture["metadata"]["name"].as_str().unwrap().to_owned());
        let one = format!("{list}/{name}");
        self.create(&list, &one).await;
        let revision = self.client.get(&list).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let query = format!("watch=true&resourceVersion={revision}&fieldSelector=metadata.name%3D{name}");
        let mut events = Events::open(self.server.client().await, &format!("{list}?{query}")).await;
        self.read(&list, &one, &name).await;
        self.change(&one).await;
        self.delete(&one).await;
        self.delete_collection(&list, &one).await;
        let mut kinds = Vec::new();
        while kinds.last().is_none_or(|kind| kind != "DELETED") {
            let (kind, of, _) = events.brief().await;
            assert_eq!(of, name, "{one}");
            kinds.push(kind);
        }
        assert!(kinds.iter().filter(|kind| *kind == "MODIFIED").count() >= 5, "{one}: {kinds:?}");
    }

    async fn create(&mut self, list: &str, one: &str) {
        let dry = self.client.post(&format!("{list}?dryRun=All"), &self.fixture).await;
        assert_eq!(dry.code, 201, "dry run of {one}: {:?}", dry.json());
        assert_eq!(self.client.get(one).await.code, 404, "{one} after a dry run");
        let mut odd = self.fixture.clone();
        odd["surplus"] = json!(1);
        let strict = self.client.post(&format!("{list}?fieldValidation=Strict"), &odd).await;
        assert_eq!(strict.code, 400, "{one} with an unknown field: {:?}", strict.json());
        let created = self.client.post(&format!("{list}?fieldValidation=Strict"), &self.fixture).await;
        assert_eq!(created.code, 201, "{one}: {:?}", created.json());
        assert_eq!(self.client.post(list, &self.fixture).await.code, 409, "{one} again");
        let (created, dry) = (created.json(), dry.json());
        for member in ["apiVersion", "kind"] {
            assert_eq!((&created[member], &dry[member]), (&self.fixture[member], &self.fixture[member]), "{one}");
        }
        match self.resource.kind.as_str() {
            "CustomResourceDefinition" => self.settled(one, is_established).await,
            "FlowSchema" => self.settled(one, |status| has_condition(status, "Dangling")).await,
            "ValidatingAdmissionPolicy" => self.settled(one, |status| status["observedGeneration"] == 1).await,
            _ => assert_eq!(created, self.client.get(one).await.json(), "{one}: what was answered is what is read"),
        }
        assert_kept(&self.fixture, &created, one);
    }

    /// Waits until the server has said what it thinks of an object; until then it writes to it by itself.
    async fn settled(&mut self, one: &str, said: fn(&Value) -> bool) {
        for _ in 0..500 {
            if said(&self.client.get(one).await.json()["status"]) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing is said of {one}");
    }

    async fn read(&mut self, list: &str, one: &str, name: &str) {
        let selected = self.client.get(&format!("{list}?fieldSelector=metadata.name%3D{name}")).await.json();
        assert_eq!(selected["items"].as_array().map(Vec::len), Some(1), "{list}: {selected}");
        assert_eq!(selected["kind"], json!(format!("{}List", self.resource.kind)));
        let as_type = |form: &str, version: &str| format!("application/json;as={form};g=meta.k8s.io;v={version}");
        let table = self.client.send("GET", one, &[("accept", &as_type("Table", "v1"))], "").await.json();
        let cells = table["rows"][0]["cells"].as_array().unwrap_or_else(|| panic!("{one}: {table}"));
        assert_eq!(Some(cells.len()), table["columnDefinitions"].as_array().map(Vec::len), "{one}: {table}");
        assert!(cells.contains(&json!(name)), "{one}: {cells:?}");
        let partial = as_type("PartialObjectMetadata", "v1");
        let partial = self.client.send("GET", one, &[("accept", &partial)], "").await.json();
        assert_eq!((&partial["kind"], &partial["metadata"]["name"]), (&json!("PartialObjectMetadata"), &json!(name)));
        let binary = self.client.send("GET", one, &[("accept", "application/vnd.kubernetes.protobuf")], "").await;
        assert!(binary.code == 406 || binary.body.starts_with(b"k8s\0"), "{one} as protobuf: {}", binary.code);
    }

    async fn change(&mut self, one: &str) {
        let mut wanted = self.client.get(one).await.json();
        wanted["metadata"]["annotations"]["put"] = json!("1");
        let put = self.client.put(one, &wanted).await;
        assert_eq!(put.code, 200, "PUT {one}: {:?}", put.json());
        let same = self.client.put(one, &put.json()).await.json();
        assert_eq!(same, put.json(), "{one}: a write of nothing");
        assert_eq!(self.client.put(one, &wanted).await.code, 409, "{one}: an old revision");
        let label = |value: &str| json!({"metadata": {"labels": {"patched": value}}});
        let add = json!([{"op": "add", "path": "/metadata/labels/patched", "value": "json"}]);
        for (kind, body) in [("merge", label("merge")), ("json", add), ("strategic-merge", label("strategic-merge"))] {
            let dry = self.client.patch(&format!("{one}?dryRun=All"), kind, &body).await;
            assert_eq!((dry.code, &dry.json()["metadata"]["labels"]["patched"]), (200, &json!(kind)), "{one}");
            let read = self.client.get(one).await.json();
            assert_ne!(read["metadata"]["labels"]["patched"], json!(kind), "{one} after a dry run");
            let patched = self.client.patch(one, kind, &body).await;
            assert_eq!((patched.code, &patched.json()["metadata"]["labels"]["patched"]), (200, &json!(kind)), "{one}");
        }
        let mut applied = self.fixture.clone();
        applied["metadata"]["labels"]["patched"] = json!("apply");
        let apply = [("content-type", "application/apply-patch+yaml")];
        let path = format!("{one}?fieldManager=matrix");
        let conflict = self.client.send("PATCH", &path, &apply, applied.to_string()).await;
        assert_eq!(conflict.code, 409, "{one}: another manager's label: {:?}", conflict.json());
        let forced = self.client.send("PATCH", &format!("{path}&force=true"), &apply, applied.to_string()).await;
        assert_eq!(forced.code, 200, "{one}: {:?}", forced.json());
        assert_eq!(forced.json()["metadata"]["labels"]["patched"], "apply", "{one}");
        let again = self.client.send("PATCH", &path, &apply, applied.to_string()).await;
        assert_eq!((again.code, again.json()), (200, forced.json()), "{one}: applied again");
        assert_kept(&self.fixture, &again.json(), one);
    }

    async fn delete(&mut self, one: &str) {
        let dry = self.client.delete(&format!("{one}?dryRun=All")).await;
        assert_eq!(dry.code, 200, "{one}: {:?}", dry.json());
        assert_eq!(self.client.get(one).await.code, 200, "{one} after a dry run");
        // Some leave their dependents to themselves by default, by a finalizer that a controller takes back.
        let deleted = self.client.delete(&format!("{one}?propagationPolicy=Background")).await;
        assert_eq!(deleted.code, 200, "{one}: {:?}", deleted.json());
        self.let_go(one).await;
        assert_eq!(self.client.get(one).await.code, 404, "{one}");
        assert_eq!(self.client.delete(one).await.code, 404, "{one}");
    }

    async fn delete_collection(&mut self, list: &str, one: &str) {
        if !self.resource.has("deletecollection") {
            return;
        }
        let mut labelled = self.fixture.clone();
        labelled["metadata"]["labels"]["collection"] = json!("matrix");
        let created = self.client.post(list, &labelled).await;
        assert_eq!(created.code, 201, "{one}: {:?}", created.json());
        let query = "labelSelector=collection%3Dmatrix&propagationPolicy=Background";
        let deleted = self.client.delete(&format!("{list}?{query}")).await;
        assert_eq!(deleted.code, 200, "{list}: {:?}", deleted.json());
        assert_eq!(deleted.json()["items"].as_array().map(Vec::len), Some(1), "{list}: {:?}", deleted.json());
        self.let_go(one).await;
        assert_eq!(self.client.get(one).await.code, 404, "{one}");
    }

    /// Does what a controller does with an object that ends.
    async fn let_go(&mut self, one: &str) {
        let found = self.client.get(one).await;
        if found.code == 404 {
            return;
        }
        let mut ending = found.json();
        assert!(ending["metadata"]["deletionTimestamp"].is_string(), "{ending}");
        if self.resource.kind == "Namespace" {
            ending["spec"] = json!({});
            assert_eq!(self.client.put(&format!("{one}/finalize"), &ending).await.code, 200);
        } else {
            let freed = json!({"metadata": {"finalizers": null}});
            let code = self.client.patch(one, "merge", &freed).await.code;
            assert!(code == 200 || code == 404, "{one}: {code}");
        }
    }
}

fn is_established(status: &Value) -> bool {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

fn has_condition(status: &Value, kind: &str) -> bool {
    status["conditions"].as_array().into_iter().flatten().any(|condition| condition["type"] == kind)
}

/// Whether everything that was sent is still there; only defaults may have come along.
fn assert_kept(sent: &Value, found: &Value, at: &str) {
    match (sent, found) {
        (Value::Object(sent), Value::Object(found)) => {
            for (member, value) in sent {
                let found = found.get(member).unwrap_or_else(|| panic!("{at}.{member} is gone"));
                assert_kept(value, found, &format!("{at}.{member}"));
            }
        }
        (Value::Array(sent), Value::Array(found)) => {
            assert!(found.len() >= sent.len(), "{at}: {found:?}");
            sent.iter().zip(found).for_each(|(sent, found)| assert_kept(sent, found, at));
        }
        _ => assert_eq!(sent, found, "{at}"),
    }
}
