#!/bin/sh
# One walk through what people do with kubectl, in a namespace and on a node of this kubectl's own.
#
#   walk.sh KUBECTL      with KUBECONFIG set; needs the image busybox:latest in the cluster
#
# Ends with 0 and one line if everything answered as it should; else says which command did not, and what it said.
set -eu

KUBECTL=$1
# 1.20 prints the client alone as GitVersion:"v1.20.2"; later ones as YAML's gitVersion: v1.32.4-dispatcher.
MINOR=$("$KUBECTL" version --client -o yaml | sed -n 's/.*gitVersion: "\{0,1\}v1\.\([0-9]*\).*/\1/p' | head -n 1)
NS=walk-$MINOR-$$
NODE=spare-$MINOR-$$
TMP=$(mktemp -d)
OUT=$TMP/said

cleanup() {
    "$KUBECTL" delete namespace "$NS" --wait=false --ignore-not-found >/dev/null 2>&1 || true
    "$KUBECTL" delete node "$NODE" --ignore-not-found >/dev/null 2>&1 || true
    "$KUBECTL" delete csr "$NS" "$NS-denied" --ignore-not-found >/dev/null 2>&1 || true
    rm -rf "$TMP"
}
trap cleanup EXIT

since() { [ "$MINOR" -ge "$1" ]; }

k() { "$KUBECTL" --namespace "$NS" "$@"; }

told() {
    echo "kubectl 1.$MINOR $1" >&2
    cat "$OUT" >&2
    exit 1
}

# says WORDS ARGUMENTS...: kubectl succeeds, and what it says has these words
says() {
    words=$1
    shift
    k "$@" >"$OUT" 2>&1 </dev/null || told "$*: failed"
    grep -qF -- "$words" "$OUT" || told "$*: no \`$words\` in:"
}

# is TEXT ARGUMENTS...: kubectl's stdout is this, no more and no less
is() {
    text=$1
    shift
    k "$@" >"$OUT" 2>"$OUT.err" </dev/null || { cat "$OUT.err" >>"$OUT"; told "$*: failed"; }
    [ "$(cat "$OUT")" = "$text" ] || told "$*: not \`$text\` but:"
}

# fed WORDS ARGUMENTS...: as says, with this function's stdin
fed() {
    words=$1
    shift
    k "$@" >"$OUT" 2>&1 || told "$*: failed"
    grep -qF -- "$words" "$OUT" || told "$*: no \`$words\` in:"
}

# fails CODE WORDS ARGUMENTS...: kubectl ends with this code and these words
fails() {
    code=$1 words=$2 got=0
    shift 2
    k "$@" >"$OUT" 2>&1 </dev/null || got=$?
    [ "$got" -eq "$code" ] || told "$*: code $got instead of $code:"
    grep -qF -- "$words" "$OUT" || told "$*: no \`$words\` in:"
}

deployment() { # IMAGE-TAG-OR-COMMAND-WORD REPLICAS
    cat <<END
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {tier: front}}
spec:
  replicas: $2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: main, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [sleep, '$1']}
END
}

# --- what the server says of itself
says "Server Version" version
says "is running at" cluster-info
is ok get --raw /readyz
says "apps/v1" api-versions
says "certificates.k8s.io/v1" api-versions
says "horizontalpodautoscalers" api-resources --api-group=autoscaling
says "persistentvolumes" api-resources --namespaced=false --verbs=list,watch -o name
says "deployments.apps" api-resources --namespaced=true -o name
says "Pod" explain pod
says "restartPolicy" explain pod.spec
says "maxUnavailable" explain deployment.spec.strategy.rollingUpdate --recursive
fails 1 'field "nothing" does not exist' explain pod.spec.nothing

# --- create
says "created" create namespace "$NS"
fails 1 "AlreadyExists" create namespace "$NS"
says "configmap/settings created" create configmap settings --from-literal=colour=red --from-literal=size=1
says "secret/login created" create secret generic login --from-literal=password=hush
says "serviceaccount/robot created" create serviceaccount robot
says "role.rbac.authorization.k8s.io/reader created" create role reader --verb=get,list --resource=pods,configmaps
says "rolebinding.rbac.authorization.k8s.io/reads created" create rolebinding reads --role=reader --serviceaccount="$NS:robot"
says "resourcequota/limit created" create quota limit --hard=count/secrets=20
says "service/plain created" create service clusterip plain --tcp=80:8080
says "ingress.networking.k8s.io/front created" create ingress front --rule=web.test/=plain:80
says "created (server dry run)" create configmap never --from-literal=a=b --dry-run=server
fails 1 "NotFound" get configmap never
says "created (dry run)" create deployment never --image=busybox --dry-run=client
if since 21; then
    says "poddisruptionbudget.policy/budget created" create poddisruptionbudget budget --selector=app=none --min-available=1
    says "cronjob.batch/nightly created" create cronjob nightly --image=busybox:latest --schedule='0 3 * * *' -- true
else
    # that old, it knows only the beta of these, which went with 1.25
    fails 1 "no matches for kind" create poddisruptionbudget budget --selector=app=none --min-available=1
fi

# --- apply, client-side and server-side; diff
deployment 3600 1 >"$TMP/web.yaml"
says "deployment.apps/web created" apply -f "$TMP/web.yaml"
says "deployment.apps/web unchanged" apply -f "$TMP/web.yaml"
is "" diff -f "$TMP/web.yaml"
deployment 3601 2 >"$TMP/web2.yaml"
fails 1 "+  replicas: 2" diff -f "$TMP/web2.yaml"
says "successfully rolled out" rollout status deployment/web --timeout=60s
says "deployment.apps/web configured" apply -f "$TMP/web2.yaml"
says "successfully rolled out" rollout status deployment/web --timeout=60s
printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shared}\ndata: {mine: "1"}\n' >"$TMP/cm.yaml"
says "configmap/shared serverside-applied" apply --server-side --field-manager=walk -f "$TMP/cm.yaml"
sed 's/"1"/"2"/' "$TMP/cm.yaml" >"$TMP/cm2.yaml"
fails 1 '.data.mine' apply --server-side --field-manager=rival -f "$TMP/cm2.yaml"
says "configmap/shared serverside-applied" apply --server-side --force-conflicts --field-manager=rival -f "$TMP/cm2.yaml"
is 2 get configmap shared -o 'jsonpath={.data.mine}'
sed 's/"1"/"3"/' "$TMP/cm.yaml" >"$TMP/cm3.yaml"
fails 1 '+  mine: "3"' diff --server-side --force-conflicts --field-manager=rival -f "$TMP/cm3.yaml"
mkdir "$TMP/set"
for name in one two; do
    printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, labels: {set: all}}\n' "$name" >"$TMP/set/$name.yaml"
done
if since 25; then
    says "configmap/two created" apply -f "$TMP/set" --prune -l set=all
    rm "$TMP/set/two.yaml"
    says "configmap/two pruned" apply -f "$TMP/set" --prune -l set=all
else
    # its list of kinds to prune has betas that are gone
    fails 1 "no matches for kind" apply -f "$TMP/set" --prune -l set=all
fi

# --- get in its forms, describe
says "READY" get deployment web
says "CONTAINERS" get deployment web -o wide
is "deployment.apps/web" get deployment web -o name
is "web" get deployments -o 'jsonpath={.items[*].metadata.name}'
is "web 2" get deployment web -o 'go-template={{.metadata.name}} {{.spec.replicas}}'
is "NAME   WANTED
web    2" get deployments -o custom-columns=NAME:.metadata.name,WANTED:.spec.replicas
says '"kind": "List"' get deployment,configmap -o json
says "kind: Deployment" get deployment web -o yaml
says "app=web" get pods --show-labels
says "TIER" get deployments -L tier
is "pod" get pods -l app=web --field-selector=status.phase=Running -o 'jsonpath={range .items[0:1]}pod{end}'
says "red" get configmap settings -o yaml
says "$NS" get deployments --all-namespaces
says "web" get deployments --chunk-size=1 --sort-by=.metadata.name
fails 1 "NotFound" get pod nobody
is "" get pod nobody --ignore-not-found
fails 1 "the server doesn't have a resource type" get nonsense
says "StrategyType:" describe deployment web
says "ScalingReplicaSet" describe deployment web
says "Scheduled" describe pods -l app=web
says "ClusterIP" describe service plain
says "web.test" describe ingress front
says "password:  4 bytes" describe secret login
says "count/secrets" describe quota limit
says "Allocated resources" describe nodes

# --- change
cat >"$TMP/editor" <<'END'
#!/bin/sh
sed -i 's/colour: red/colour: blue/' "$1"
END
chmod +x "$TMP/editor"
export KUBE_EDITOR="$TMP/editor"
says "configmap/settings edited" edit configmap settings
is blue get configmap settings -o 'jsonpath={.data.colour}'
says "Edit cancelled" edit configmap settings
says "patched" patch deployment web -p '{"spec":{"template":{"spec":{"containers":[{"name":"main","env":[{"name":"A","value":"1"}]}]}}}}'
is "main 1" get deployment web -o 'jsonpath={.spec.template.spec.containers[*].name} {.spec.template.spec.containers[0].env[0].value}'
says "patched" patch configmap settings --type=merge -p '{"data":{"size":null,"shape":"round"}}'
is '{"colour":"blue","shape":"round"}' get configmap settings -o 'jsonpath={.data}'
says "patched" patch configmap settings --type=json -p '[{"op":"test","path":"/data/shape","value":"round"},{"op":"remove","path":"/data/shape"}]'
fails 1 "" patch configmap settings --type=json -p '[{"op":"remove","path":"/data/shape"}]'
says "(no change)" patch configmap settings --type=merge -p '{"data":{"colour":"blue"}}'
says "labeled" label configmap settings kind=paint
fails 1 "already has a value" label configmap settings kind=other
says "label" label configmap settings kind-
says "annotate" annotate configmap settings note="two words"
is "two words" get configmap settings -o 'jsonpath={.metadata.annotations.note}'
says "scaled" scale deployment/web --replicas=1
fails 1 "xpected replicas to be 5" scale deployment/web --current-replicas=5 --replicas=1
says "env updated" set env deployment/web B=2
says "resource requirements updated" set resources deployment/web --requests=cpu=10m
says "serviceaccount updated" set serviceaccount deployment/web robot
says "successfully rolled out" rollout status deployment/web --timeout=60s
says "image updated" set image deployment/web main=busybox:none
is "busybox:none" get deployment web -o 'jsonpath={.spec.template.spec.containers[0].image}'
fails 1 "timed out" rollout status deployment/web --timeout=1s
says "REVISION" rollout history deployment/web
says "busybox:none" rollout history deployment/web --revision="$("$KUBECTL" -n "$NS" get deployment web -o 'jsonpath={.metadata.annotations.deployment\.kubernetes\.io/revision}')"
says "rolled back" rollout undo deployment/web
is "busybox:latest" get deployment web -o 'jsonpath={.spec.template.spec.containers[0].image}'
says "successfully rolled out" rollout status deployment/web --timeout=60s
says "paused" rollout pause deployment/web
says "resumed" rollout resume deployment/web
says "restarted" rollout restart deployment/web
says "successfully rolled out" rollout status deployment/web --timeout=60s
says "condition met" wait --for=condition=Available deployment/web --timeout=30s
fails 1 "timed out waiting for the condition" wait --for=condition=Nonsense deployment/web --timeout=1s
! since 23 || says "condition met" wait --for='jsonpath={.status.readyReplicas}=1' deployment/web --timeout=30s
says "autoscaled" autoscale deployment web --min=1 --max=2
says "exposed" expose deployment web --port=80
k get configmap settings -o yaml | sed 's/blue/green/' >"$TMP/settings.yaml"
says "configmap/settings replaced" replace -f "$TMP/settings.yaml"
fails 1 "Conflict" replace -f "$TMP/settings.yaml"
says "replaced" replace --force -f "$TMP/cm.yaml"
if since 24; then
    says "replicas: 1" get deployment web --subresource=scale -o yaml
    says "patched" patch deployment web --subresource=scale --type=merge -p '{"spec":{"replicas":1}}'
fi

# --- pods
says "pod/box created" run box --image=busybox:latest --image-pull-policy=IfNotPresent --restart=Never --command -- sh -c 'echo ready; sleep 3600'
says "condition met" wait --for=condition=Ready pod/box --timeout=60s
is ready logs box
is out exec box -- echo out
fails 3 "" exec box -- sh -c 'exit 3'
echo copied >"$TMP/file"
is "" cp "$TMP/file" "$NS/box:/tmp/file"
is copied exec box -- cat /tmp/file
echo through | fed through exec -i box -- cat
is "deployment out" exec deployment/web -- echo deployment out

# --- who may
says yes auth can-i create deployments
fails 1 no auth can-i delete pods --as="system:serviceaccount:$NS:robot"
says yes auth can-i get pods --as="system:serviceaccount:$NS:robot"
says "pods" auth can-i --list --as="system:serviceaccount:$NS:robot"
fails 1 "Forbidden" get secrets --as="system:serviceaccount:$NS:robot"
if since 24; then
    k create token robot --duration=10m --audience=https://kubernetes.default.svc >"$TMP/token" 2>"$OUT" || told "create token: failed"
    says '"alg":"' get --raw /openid/v1/jwks
    [ "$(tr -cd . <"$TMP/token" | wc -c)" -eq 2 ] || told "create token: not three parts"
fi
! since 28 || says "system:serviceaccount:$NS:robot" auth whoami --as="system:serviceaccount:$NS:robot"
says "created" create clusterrole "$NS" --verb=get --resource=nodes --dry-run=server
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$TMP/key" -subj "/CN=$NS/O=walkers" -out "$TMP/request" 2>/dev/null
for name in "$NS" "$NS-denied"; do
    fed "created" create -f - <<END
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: $name}
spec:
  signerName: kubernetes.io/kube-apiserver-client
  usages: [client auth]
  request: $(base64 -w 0 <"$TMP/request")
END
done
says "approved" certificate approve "$NS"
says "denied" certificate deny "$NS-denied"
says "Approved" get csr "$NS"
says "Denied" get csr "$NS-denied"
tries=0
until [ -n "$(k get csr "$NS" -o 'jsonpath={.status.certificate}')" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 50 ] || told "get csr: approved and not signed"
    sleep 0.1
done
k get csr "$NS" -o 'jsonpath={.status.certificate}' | base64 -d >"$TMP/cert"
cluster() { k config view --raw --flatten --minify -o "jsonpath={.clusters[0].cluster.$1}"; }
cluster certificate-authority-data | base64 -d >"$TMP/ca"
fails 1 "User \"$NS\" cannot list" get pods --kubeconfig=/dev/null --server="$(cluster server)" \
    --certificate-authority="$TMP/ca" --client-certificate="$TMP/cert" --client-key="$TMP/key"

# --- nodes: one that no kubelet stands behind, with a pod that ends at once
fed "created" create -f - <<END
{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "$NODE"}}
END
fed "created" create -f - <<END
apiVersion: v1
kind: Pod
metadata: {name: guest}
spec:
  nodeName: $NODE
  terminationGracePeriodSeconds: 0
  tolerations: [{operator: Exists}]
  containers: [{name: main, image: 'busybox:latest'}]
END
says "cordoned" cordon "$NODE"
says "SchedulingDisabled" get node "$NODE"
says "uncordoned" uncordon "$NODE"
says "tainted" taint node "$NODE" walk=yes:NoSchedule
says "untainted" taint node "$NODE" walk-
fails 1 "use --force to override" drain "$NODE" --timeout=20s
says "evict" drain "$NODE" --force --ignore-daemonsets --timeout=20s
fails 1 "NotFound" get pod guest
is true get node "$NODE" -o 'jsonpath={.spec.unschedulable}'
says "deleted" delete node "$NODE"

# --- events, figures
says "Created" get events --field-selector=involvedObject.name=box
! since 26 || says "Started" events --for=pod/box
fails 1 "Metrics API not available" top node
fails 1 "Metrics API not available" top pod

# --- watch
"$KUBECTL" -n "$NS" get configmap settings --watch -o name >"$TMP/watched" 2>&1 &
watcher=$!
until [ -s "$TMP/watched" ]; do sleep 0.05; done
says "annotate" annotate configmap settings seen=yes
tries=0
until [ "$(wc -l <"$TMP/watched")" -ge 2 ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 50 ] || { cp "$TMP/watched" "$OUT"; told "get --watch: did not see the change"; }
    sleep 0.1
done
kill "$watcher"
wait "$watcher" 2>/dev/null || true

# --- delete
says "deleted" delete configmap settings
fails 1 "NotFound" delete configmap settings
is "" delete configmap settings --ignore-not-found
says 'pod "box" ' delete pod box --grace-period=0 --force
says "deleted" delete -f "$TMP/web.yaml" --cascade=foreground
is "" get replicasets -o name
says "deleted" delete secret,service --all
says "deleted" delete namespace "$NS"
fails 1 "NotFound" get namespace "$NS"
echo "kubectl 1.$MINOR: all as it should be"
