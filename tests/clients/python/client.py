"""Python's kubernetes client against a cluster, by the kubeconfig of KUBECONFIG; needs the image busybox:latest in it.

Each function below is one of the client's idioms, with what must hold. Ends with 0 if all does; else with the traceback.
"""

import base64
import json
import os
import queue
import tempfile
import threading
import time
import uuid

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.stream import portforward, stream
from kubernetes.stream.ws_client import ERROR_CHANNEL

NS = f"python-{os.getpid()}"


def refused(code, reason, call, *arguments, **options):
    """The Status of a call that must fail so."""
    try:
        given = call(*arguments, **options)
    except ApiException as error:
        body = json.loads(error.body)
        assert (error.status, body["reason"], body["kind"]) == (code, reason, "Status"), error
        return body
    raise AssertionError(f"not refused: {given}")


def eventually(what, ask):
    """The first answer of `ask` that is true, for at most half a minute."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"waited half a minute for {what}")


def settings(name, data=None, **metadata):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, **metadata), data=data)


def pod(name, script, **spec):
    container = client.V1Container(
        name="main", image="busybox:latest", image_pull_policy="IfNotPresent", command=["sh", "-c", script]
    )
    return client.V1Pod(
        metadata=client.V1ObjectMeta(name=name, labels={"app": name}),
        spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=0, **spec),
    )


def sending(api, content_type):
    """A client whose bodies are of this type: how a typed call chooses the kind of its patch."""
    return client.ApiClient(api.configuration, "Content-Type", content_type)


def running(core, name):
    def ready():
        conditions = core.read_namespaced_pod(name, NS).status.conditions or []
        return any(c.type == "Ready" and c.status == "True" for c in conditions)

    eventually(f"{name} to be ready", ready)


def server_itself(api):
    version = client.VersionApi(api).get_code()
    assert (version.major, version.minor) == ("1", "35"), version
    groups = {g.name for g in client.ApisApi(api).get_api_versions().groups}
    assert {"apps", "batch", "rbac.authorization.k8s.io"} <= groups, groups
    core = client.CoreV1Api(api)
    assert "pods/exec" in {r.name for r in core.get_api_resources().resources}
    node = core.list_node().items[0]
    assert node.status.node_info.kubelet_version.startswith("v1.35"), node.status.node_info


def typed(api):
    core = client.CoreV1Api(api)
    made = core.create_namespaced_config_map(NS, settings("typed", {"a": "1"}))
    assert made.metadata.uid and made.metadata.resource_version
    made.data["b"] = "2"
    replaced = core.replace_namespaced_config_map("typed", NS, made)
    assert replaced.data == {"a": "1", "b": "2"}
    body = refused(409, "Conflict", core.replace_namespaced_config_map, "typed", NS, made)
    assert body["details"] == {"name": "typed", "kind": "configmaps"}, body
    body = refused(409, "AlreadyExists", core.create_namespaced_config_map, NS, settings("typed"))
    assert body["message"] == 'configmaps "typed" already exists', body
    body = refused(404, "NotFound", core.read_namespaced_config_map, "none", NS)
    assert body["details"] == {"name": "none", "kind": "configmaps"}, body
    body = refused(422, "Invalid", core.create_namespaced_config_map, NS, settings("Not_A_Name"))
    assert body["details"]["causes"][0]["field"] == "metadata.name", body
    dry = core.create_namespaced_config_map(NS, settings("dry"), dry_run="All")
    assert dry.metadata.uid
    refused(404, "NotFound", core.read_namespaced_config_map, "dry", NS)
    strict = {"metadata": {"name": "strict"}, "colour": "red"}
    body = refused(400, "BadRequest", core.create_namespaced_config_map, NS, strict, field_validation="Strict")
    assert 'unknown field "colour"' in body["message"], body
    data, status, headers = core.read_namespaced_config_map_with_http_info("typed", NS)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    pending = core.list_namespaced_config_map(NS, async_req=True)
    assert "typed" in {i.metadata.name for i in pending.get().items}
    secret = client.V1Secret(metadata=client.V1ObjectMeta(name="login"), string_data={"password": "hush"})
    assert base64.b64decode(core.create_namespaced_secret(NS, secret).data["password"]) == b"hush"


def pages(api):
    core = client.CoreV1Api(api)
    for i in range(7):
        core.create_namespaced_config_map(NS, settings(f"page-{i}", labels={"of": "pages"}))
    names, token, versions, rounds = [], None, set(), 0
    while True:
        page = core.list_namespaced_config_map(NS, label_selector="of=pages", limit=3, _continue=token)
        names += [i.metadata.name for i in page.items]
        versions.add(page.metadata.resource_version)
        if rounds == 0:
            assert page.metadata.remaining_item_count is None, "unknown with a selector"
            core.create_namespaced_config_map(NS, settings("page-9", labels={"of": "pages"}))
        token, rounds = page.metadata._continue, rounds + 1
        if not token:
            break
    assert names == [f"page-{i}" for i in range(7)], names
    assert len(versions) == 1 and rounds == 3, (versions, rounds)
    refused(400, "BadRequest", core.list_namespaced_config_map, NS, limit=3, _continue="nonsense")
    deleted = core.delete_collection_namespaced_config_map(NS, label_selector="of=pages")
    assert deleted.status == "Success" or deleted.kind, deleted
    assert not core.list_namespaced_config_map(NS, label_selector="of=pages").items


def patches(api):
    core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
    core.create_namespaced_config_map(NS, settings("patched", {"a": "1", "b": "2"}))
    # A list is a JSON patch to this client, an object a strategic merge.
    steps = [{"op": "test", "path": "/data/a", "value": "1"}, {"op": "replace", "path": "/data/a", "value": "3"}]
    assert core.patch_namespaced_config_map("patched", NS, steps).data == {"a": "3", "b": "2"}
    refused(422, "Invalid", core.patch_namespaced_config_map, "patched", NS, steps)
    merged = core.patch_namespaced_config_map("patched", NS, {"data": {"b": None, "c": "4"}})
    assert merged.data == {"a": "3", "c": "4"}, merged.data
    merge = sending(api, "application/merge-patch+json")
    merged = client.CoreV1Api(merge).patch_namespaced_config_map("patched", NS, {"data": {"c": None}})
    assert merged.data == {"a": "3"}, merged.data

    template = {
        "metadata": {"labels": {"app": "patched"}},
        "spec": {"containers": [{"name": "one", "image": "a"}, {"name": "two", "image": "b"}]},
    }
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": "patched"}}, "template": template}
    apps.create_namespaced_deployment(NS, {"metadata": {"name": "patched"}, "spec": spec})
    change = {"spec": {"template": {"spec": {"containers": [{"name": "two", "image": "c"}]}}}}
    images = lambda d: [(c.name, c.image) for c in d.spec.template.spec.containers]
    strategic = apps.patch_namespaced_deployment("patched", NS, change)
    assert images(strategic) == [("one", "a"), ("two", "c")], images(strategic)
    merged = client.AppsV1Api(merge).patch_namespaced_deployment("patched", NS, change)
    assert images(merged) == [("two", "c")], images(merged)
    scaled = apps.patch_namespaced_deployment_scale("patched", NS, {"spec": {"replicas": 1}})
    assert scaled.spec.replicas == 1 and scaled.status.selector == "app=patched", scaled


def server_side_apply(api):
    core = client.CoreV1Api(sending(api, "application/apply-patch+yaml"))
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": "1", "b": "1"}}
    apply = lambda body, manager, **options: core.patch_namespaced_config_map(
        "applied", NS, body, field_manager=manager, **options
    )
    made = apply(body, "one")
    assert [(m.manager, m.operation) for m in made.metadata.managed_fields] == [("one", "Apply")]
    theirs = dict(body, data={"a": "2"})
    status = refused(409, "Conflict", apply, theirs, "two")
    assert status["message"] == 'Apply failed with 1 conflict: conflict with "one": .data.a', status
    assert status["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.a"}
    ], status
    assert apply(theirs, "two", force=True).data == {"a": "2", "b": "1"}
    # What its last owner leaves out goes.
    assert apply(dict(body, data={}), "one").data == {"a": "2"}
    refused(422, "Invalid", core.patch_namespaced_config_map, "applied", NS, body)


def watching(api):
    core = client.CoreV1Api(api)
    core.create_namespaced_config_map(NS, settings("seen-0", labels={"of": "watch"}))
    listed = core.list_namespaced_config_map(NS, label_selector="of=watch")
    first = listed.items[0]
    core.create_namespaced_config_map(NS, settings("seen-1", labels={"of": "watch"}))
    core.patch_namespaced_config_map("seen-1", NS, {"data": {"a": "1"}})
    core.patch_namespaced_config_map("seen-0", NS, {"metadata": {"labels": {"of": None}}})
    core.delete_namespaced_config_map("seen-1", NS)
    events, watcher = [], watch.Watch()
    for event in watcher.stream(core.list_namespaced_config_map, NS, label_selector="of=watch",
                                resource_version=listed.metadata.resource_version, timeout_seconds=30):
        events.append((event["type"], event["object"].metadata.name))
        assert int(event["object"].metadata.resource_version) > int(first.metadata.resource_version)
        if len(events) == 4:
            watcher.stop()
    assert events == [("ADDED", "seen-1"), ("MODIFIED", "seen-1"), ("DELETED", "seen-0"), ("DELETED", "seen-1")], events
    # It ends by itself at the time that was asked for.
    begun = time.monotonic()
    assert not list(watch.Watch().stream(core.list_namespaced_config_map, NS, label_selector="of=none", timeout_seconds=1))
    assert 0.9 < time.monotonic() - begun < 10


def pods(api):
    core = client.CoreV1Api(api)
    core.create_namespaced_pod(NS, pod("box", "echo begun; exec httpd -f -p 8080 -h /etc"))
    talk = "for i in 1 2 3; do echo line $i; sleep 0.3; done"
    core.create_namespaced_pod(NS, pod("talk", talk, restart_policy="Never"))
    running(core, "box")
    execute = core.connect_get_namespaced_pod_exec
    told = stream(execute, "box", NS, command=["sh", "-c", "echo out; echo err >&2"], stdout=True, stderr=True,
                  stdin=False, tty=False)
    assert sorted(told.split()) == ["err", "out"], told
    session = stream(execute, "box", NS, command=["sh", "-c", "read word; echo got $word; echo bad >&2; exit 3"],
                     stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False)
    session.write_stdin("this\n")
    session.run_forever(timeout=20)
    assert session.read_stdout() == "got this\n"
    assert session.read_stderr() == "bad\n"
    assert session.returncode == 3, session.read_channel(ERROR_CHANNEL)
    try:
        stream(execute, "box", NS, container="none", command=["true"], stdout=True)
        raise AssertionError("no such container, and it ran")
    except ApiException as error:
        assert "400" in str(error) and "container none is not valid for pod box" in str(error), error

    assert core.read_namespaced_pod_log("box", NS) == "begun\n"
    lines = list(watch.Watch().stream(core.read_namespaced_pod_log, "talk", NS))
    assert lines == ["line 1", "line 2", "line 3"], lines
    assert core.read_namespaced_pod_log("talk", NS, tail_lines=1) == "line 3\n"
    followed = core.read_namespaced_pod_log("talk", NS, follow=True, timestamps=True, _preload_content=False)
    stamped = [line.decode().split(" ", 1) for line in followed.data.splitlines()]
    assert [words for _, words in stamped] == lines and stamped[0][0].endswith("Z"), stamped

    forward = portforward(core.connect_get_namespaced_pod_portforward, "box", NS, ports="8080")
    connection = forward.socket(8080)
    connection.setblocking(True)
    connection.settimeout(20)
    connection.sendall(b"GET /passwd HTTP/1.0\r\n\r\n")
    answer = b""
    while part := connection.recv(4096):
        answer += part
    assert b"200 OK" in answer and b"root:x:0:0" in answer, answer
    assert forward.error(8080) is None, forward.error(8080)
    shut = portforward(core.connect_get_namespaced_pod_portforward, "box", NS, ports="8081")
    connection = shut.socket(8081)
    connection.settimeout(20)
    try:
        connection.sendall(b"x")
        assert connection.recv(1) == b""
    except (ConnectionError, BrokenPipeError):
        pass
    eventually("word of the closed port", lambda: shut.error(8081))
    assert "8081" in shut.error(8081), shut.error(8081)
    proxied = core.connect_get_namespaced_pod_proxy_with_path("box:8080", NS, "passwd")
    assert "root:x:0:0" in proxied, proxied


def deleting(api):
    apps, core, batch = client.AppsV1Api(api), client.CoreV1Api(api), client.BatchV1Api(api)
    template = {"metadata": {"labels": {"app": "gone"}}, "spec": pod("", "sleep 3600").spec}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "gone"}}, "template": template}
    sets = lambda name: [s for s in apps.list_namespaced_replica_set(NS).items
                         if s.metadata.labels.get("app") == "gone"]
    def make():
        apps.create_namespaced_deployment(NS, {"metadata": {"name": "gone"}, "spec": spec})
        return eventually("its replica set", lambda: sets("gone"))[0]
    def gone():
        return not [d for d in apps.list_namespaced_deployment(NS).items if d.metadata.name == "gone"]

    make()
    apps.delete_namespaced_deployment("gone", NS, propagation_policy="Orphan")
    eventually("the deployment to go", gone)
    left = sets("gone")[0]
    assert not left.metadata.owner_references, left.metadata
    apps.delete_namespaced_replica_set(left.metadata.name, NS, body=client.V1DeleteOptions(propagation_policy="Background"))
    eventually("the replica set to go", lambda: not sets("gone"))
    make()
    answer = apps.delete_namespaced_deployment("gone", NS, propagation_policy="Foreground")
    assert answer.status is not None
    eventually("the deployment to go", gone)
    assert not sets("gone"), "foreground: what it owns goes first"
    core.create_namespaced_config_map(NS, settings("guarded"))
    guard = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=str(uuid.uuid4())))
    refused(409, "Conflict", core.delete_namespaced_config_map, "guarded", NS, body=guard)
    # What no controller has looked at has a status all the same.
    job = {"template": {"spec": pod("", "exit 0", restart_policy="Never").spec}, "suspend": True}
    made = batch.create_namespaced_job(NS, {"metadata": {"name": "once"}, "spec": job})
    assert made.status is not None and not made.status.succeeded, made
    batch.delete_namespaced_job("once", NS, propagation_policy="Background")


CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %(plural)s.python.test}
spec:
  group: python.test
  scope: Namespaced
  names: {plural: %(plural)s, singular: %(plural)s-one, kind: %(kind)s, listKind: %(kind)sList}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, minimum: 1}, colour: {type: string, default: red}}}
          status: {type: object, properties: {done: {type: boolean}}}
"""


def custom_objects(api):
    plural, kind = f"things{os.getpid()}", f"Thing{os.getpid()}"
    extensions = client.ApiextensionsV1Api(api)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(CRD % {"plural": plural, "kind": kind})
        file.flush()
        utils.create_from_yaml(api, file.name)
    name = f"{plural}.python.test"
    try:
        def established():
            conditions = extensions.read_custom_resource_definition(name).status.conditions or []
            return any(c.type == "Established" and c.status == "True" for c in conditions)

        eventually("the kind to be served", established)
        custom = client.CustomObjectsApi(api)
        where = ("python.test", "v1", NS, plural)
        thing = {"apiVersion": "python.test/v1", "kind": kind, "metadata": {"name": "a"}, "spec": {"size": 1}}
        made = custom.create_namespaced_custom_object(*where, thing)
        assert made["spec"] == {"size": 1, "colour": "red"}, made
        patched = custom.patch_namespaced_custom_object(*where, "a", {"spec": {"size": 2}})
        assert patched["spec"]["size"] == 2 and patched["metadata"]["generation"] == 2, patched
        status = custom.patch_namespaced_custom_object_status(*where, "a", {"status": {"done": True}, "spec": {"size": 9}})
        assert (status["status"], status["spec"]["size"]) == ({"done": True}, 2), status
        bad = dict(thing, metadata={"name": "b"}, spec={"size": 0})
        body = refused(422, "Invalid", custom.create_namespaced_custom_object, *where, bad)
        assert body["details"]["causes"][0]["field"] == "spec.size", body
        assert [i["metadata"]["name"] for i in custom.list_namespaced_custom_object(*where)["items"]] == ["a"]
        for event in watch.Watch().stream(custom.list_namespaced_custom_object, *where, timeout_seconds=5):
            assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "a"), event
            break

        # The dynamic client learns it all from discovery.
        things = dynamic.DynamicClient(api).resources.get(api_version="python.test/v1", kind=kind)
        assert things.get(name="a", namespace=NS).spec.colour == "red"
        things.server_side_apply({"apiVersion": "python.test/v1", "kind": kind, "metadata": {"name": "c"},
                                  "spec": {"size": 3}}, name="c", namespace=NS, field_manager="dynamic")
        assert things.status.get(name="a", namespace=NS).status.done is True
        things.delete(name="c", namespace=NS)
        assert custom.delete_namespaced_custom_object(*where, "a")["status"] == "Success"
    finally:
        extensions.delete_custom_resource_definition(name)


def dynamically(api):
    resources = dynamic.DynamicClient(api).resources
    maps = resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dynamic", "labels": {"of": "dynamic"}}}
    made = maps.create(body=body, namespace=NS)
    for event in maps.watch(namespace=NS, label_selector="of=dynamic", timeout=10):
        assert (event["type"], event["object"].metadata.name) == ("ADDED", "dynamic")
        break
    changed = maps.patch(body={"metadata": {"name": "dynamic"}, "data": {"a": "1"}}, namespace=NS,
                         content_type="application/merge-patch+json")
    assert changed.data.a == "1" and changed.metadata.uid == made.metadata.uid
    try:
        maps.get(name="none", namespace=NS)
        raise AssertionError("there is none")
    except dynamic.exceptions.NotFoundError as error:
        assert json.loads(error.body)["details"]["name"] == "none"
    maps.delete(name="dynamic", namespace=NS)
    assert resources.get(api_version="apps/v1", kind="Deployment").namespaced


MANIFEST = """
apiVersion: v1
kind: Service
metadata: {name: from-yaml}
spec: {selector: {app: none}, ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: from-yaml}
spec: {defaultBackend: {service: {name: from-yaml, port: {number: 80}}}}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: from-yaml}}
"""


def from_yaml(api):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(MANIFEST)
        file.flush()
        utils.create_from_yaml(api, file.name, namespace=NS)
        service = client.CoreV1Api(api).read_namespaced_service("from-yaml", NS)
        assert service.spec.cluster_ip.startswith("10."), service.spec
        client.NetworkingV1Api(api).read_namespaced_ingress("from-yaml", NS)
        client.CoreV1Api(api).read_namespaced_service_account("from-yaml", NS)
        try:
            utils.create_from_yaml(api, file.name, namespace=NS)
            raise AssertionError("created twice")
        except utils.FailToCreateError as error:
            assert {e.status for e in error.api_exceptions} == {409}, error


def token_of_an_account(api):
    """A token of a service account, what it may not do, and what a review says of it."""
    core = client.CoreV1Api(api)
    core.create_namespaced_service_account(NS, {"metadata": {"name": "robot"}})
    asked = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=600))
    token = core.create_namespaced_service_account_token("robot", NS, asked).status.token
    theirs = client.Configuration()
    theirs.host, theirs.ssl_ca_cert = api.configuration.host, api.configuration.ssl_ca_cert
    theirs.api_key = {"authorization": f"Bearer {token}"}
    body = refused(403, "Forbidden", client.CoreV1Api(client.ApiClient(theirs)).list_namespaced_secret, NS)
    user = f"system:serviceaccount:{NS}:robot"
    assert body["message"].startswith(f'secrets is forbidden: User "{user}" cannot list resource "secrets"'), body
    theirs.api_key = {"authorization": "Bearer nonsense"}
    refused(401, "Unauthorized", client.CoreV1Api(client.ApiClient(theirs)).list_namespaced_secret, NS)
    review = client.V1TokenReview(spec=client.V1TokenReviewSpec(token=token))
    assert client.AuthenticationV1Api(api).create_token_review(review).status.user.username == user


def leading(api):
    """Two candidates, one lock: one leads until it stops, then the other."""
    led = queue.Queue()
    threads = []
    for name in ("first", "second"):
        lock = ConfigMapLock("lock", NS, name)
        done = lambda name=name: led.put((name, "ended"))

        def lead(name=name):
            led.put((name, "leads"))

        election = leaderelection.LeaderElection(
            electionconfig.Config(lock, lease_duration=4, renew_deadline=3, retry_period=1, onstarted_leading=lead,
                                  onstopped_leading=done)
        )
        thread = threading.Thread(target=election.run, daemon=True)
        thread.start()
        threads.append(thread)
        if name == "first":
            assert led.get(timeout=20) == ("first", "leads")
    try:
        raise AssertionError(f"two leaders: {led.get(timeout=2.5)}")
    except queue.Empty:
        pass
    record = client.CoreV1Api(api).read_namespaced_config_map("lock", NS).metadata.annotations
    assert json.loads(record["control-plane.alpha.kubernetes.io/leader"])["holderIdentity"] == "first", record


def main():
    config.load_kube_config()
    api = client.ApiClient()
    contexts, active = config.list_kube_config_contexts()
    assert active in contexts and active["context"]["cluster"], active
    core = client.CoreV1Api(api)
    core.create_namespace({"metadata": {"name": NS}})
    try:
        accounts = lambda: [a for a in core.list_namespaced_service_account(NS).items if a.metadata.name == "default"]
        eventually("the default account", accounts)
        for idiom in (server_itself, typed, pages, patches, server_side_apply, watching, pods, deleting,
                      custom_objects, dynamically, from_yaml, token_of_an_account, leading):
            begun = time.monotonic()
            idiom(api)
            print(f"{idiom.__name__}: {time.monotonic() - begun:.1f} s", flush=True)
    finally:
        core.delete_namespace(NS, propagation_policy="Background")


if __name__ == "__main__":
    main()
