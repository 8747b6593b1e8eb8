#!/usr/bin/env python3
"""One pod of a cached image, create to Ready, as a client that holds its connections sees it: benches/pod.py IMAGE COMMAND...

Reads the current context of kubectl's configuration; needs only Python's standard library and kubectl. Works on any Kubernetes.
Prints the milliseconds from the request to the watch event in which the pod is Ready, over 20 pods, one after the other.
"""

import base64
import http.client
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse

PODS = 20
PATH = "/api/v1/namespaces/default/pods"


def connections():
    view = ["kubectl", "config", "view", "--raw", "--flatten", "--minify", "-o", "json"]
    config = json.loads(subprocess.run(view, check=True, capture_output=True).stdout)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    with tempfile.TemporaryDirectory() as directory:
        files = []
        for key in ("client-certificate-data", "client-key-data"):
            files.append(os.path.join(directory, key))
            with open(os.open(files[-1], os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(base64.b64decode(user[key]))
        context.load_cert_chain(*files)
    server = urllib.parse.urlparse(cluster["server"])
    return [http.client.HTTPSConnection(server.hostname, server.port, context=context, timeout=60) for _ in range(2)]


def is_ready(pod):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))


def main():
    image, command = sys.argv[1], sys.argv[2:]
    watch, calls = connections()
    watch.request("GET", f"{PATH}?watch=1")
    events = watch.getresponse()
    times = []
    for i in range(PODS):
        name = f"one-{os.getpid()}-{i}"
        container = {"name": "c", "image": image, "imagePullPolicy": "IfNotPresent", "command": command}
        pod = {"metadata": {"name": name}, "spec": {"containers": [container]}}
        started = time.monotonic()
        calls.request("POST", PATH, json.dumps(pod), {"Content-Type": "application/json"})
        answer = calls.getresponse()
        body = answer.read()
        if answer.status != 201:
            sys.exit(body.decode())
        while True:
            seen = json.loads(events.readline())["object"]
            if seen["metadata"]["name"] == name and is_ready(seen):
                break
        times.append((time.monotonic() - started) * 1000)
        calls.request("DELETE", f"{PATH}/{name}?gracePeriodSeconds=0")
        calls.getresponse().read()
        # Its end is not part of the next one's beginning.
        time.sleep(0.3)
    times.sort()
    print(f"one pod, create to Ready: median {times[PODS // 2]:.0f} ms of {PODS}, {times[0]:.0f} to {times[-1]:.0f}")


main()
