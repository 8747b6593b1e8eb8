#!/bin/sh
# A cluster's life in numbers: benches/cluster.sh BINARY
# start to node Ready and DNS answering, one pod to Ready, 1 to 20 pods, resident memory, idle CPU over 60 s.
# Needs root, kubectl and python3; uses the native driver and the image kminik.local/node, which every cluster has.
set -eu
BINARY=$1
HOME_DIR=$(mktemp -d)
export KMINIK_HOME="$HOME_DIR/home" KUBECONFIG="$HOME_DIR/kubeconfig"
PROFILE=bench-$$
trap '"$BINARY" delete -p "$PROFILE" >/dev/null 2>&1; rm -rf "$HOME_DIR"' EXIT

now() { date +%s%N; }
since() { echo $((($(now) - $1) / 1000000)); }

for i in 1 2 3; do
    from=$(now)
    "$BINARY" start --driver=native -p "$PROFILE" >/dev/null 2>&1
    echo "start to node Ready, DNS and storage available, run $i: $(since "$from") ms"
    [ "$i" -eq 3 ] || "$BINARY" delete -p "$PROFILE" >/dev/null 2>&1
done

IMAGE=$(kubectl get pods -n kube-system -o jsonpath='{.items[0].spec.containers[0].image}')
"$(dirname "$0")/pod.py" "$IMAGE" /bin/kminik shell --builtin sleep 3600
kubectl delete pods --all --grace-period=0 --force >/dev/null 2>&1

kubectl create deployment many --image="$IMAGE" -- /bin/kminik shell --builtin sleep 3600 >/dev/null
kubectl rollout status deployment/many --timeout=60s >/dev/null
from=$(now)
kubectl scale deployment/many --replicas=20 >/dev/null
kubectl rollout status deployment/many --timeout=60s >/dev/null
echo "1 to 20 pods, to Available: $(since "$from") ms"
kubectl delete deployment many >/dev/null
kubectl wait --for=delete pod -l app=many --timeout=60s >/dev/null 2>&1 || true

sleep 5
pids=$(for f in /proc/[0-9]*; do
    grep -qs "/kminik/$PROFILE" "$f/cgroup" && echo "${f#/proc/}"
    tr '\0' ' ' <"$f/cmdline" 2>/dev/null | grep -q "agent -p $PROFILE" && echo "${f#/proc/}"
done | sort -u)
# Rss counts a page of the binary once for each process that maps it, Pss divides it among them: their sum is what is in memory.
field() { awk -v name="$2:" '$1 == name {print $2}' "/proc/$1/smaps_rollup" 2>/dev/null || echo 0; }
total=0 shared=0
for pid in $pids; do
    rss=$(field "$pid" Rss) pss=$(field "$pid" Pss)
    total=$((total + ${rss:-0})) shared=$((shared + ${pss:-0}))
    printf '  Rss %6s kB  Pss %6s kB  %s\n' "${rss:-0}" "${pss:-0}" \
        "$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | cut -c1-60)"
done
echo "resident, all processes: $((shared / 1024)) MB (Pss); $((total / 1024)) MB with shared pages counted in each (Rss)"

ticks() { for pid in $pids; do awk '{print $14 + $15}' "/proc/$pid/stat" 2>/dev/null; done | awk '{s += $1} END {print s}'; }
before=$(ticks)
sleep 60
after=$(ticks)
echo "idle CPU over 60 s: $(awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" 'BEGIN {printf "%.2f", t / hz / 60 * 100}') % of a core"
