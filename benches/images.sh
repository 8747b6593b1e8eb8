#!/bin/sh
# Images in numbers: benches/images.sh BINARY
# A 10-layer image from one registry, by kminik's resolver, skopeo and docker, with 0, 20 and 200 ms between them; then
# `image load` of an image of which only the top layer has changed; then start and stop of a cluster of the docker driver, to node
# Ready, DNS and storage available. Each three times, in milliseconds.
# Needs root, docker-registry, skopeo, dockerd and python3. Runs in a network namespace of its own. The delay is the kernel's
# (tc netem on lo) where it has that, else that of a relay that holds every byte for half of it on its way there and back.
set -eu
if [ -z "${KMINIK_BENCH_INSIDE:-}" ]; then
    exec unshare --net --mount --propagation=private env KMINIK_BENCH_INSIDE=1 "$0" "$@"
fi
BINARY=$(realpath "$1")
WORK=$(mktemp -d)
RUNS=${RUNS:-3}
LAYERS=10
LAYER_BYTES=$((8 * 1024 * 1024))
REGISTRY=5000 RELAY=5001
export DOCKER_HOST="unix://$WORK/docker.sock" KMINIK_HOME="$WORK/home" KUBECONFIG="$WORK/kubeconfig"
PIDS=

cleanup() {
    "$BINARY" delete --all >/dev/null 2>&1 || true
    # shellcheck disable=SC2086  # a list of words
    [ -z "$PIDS" ] || kill $PIDS 2>/dev/null || true
    wait
    umount -l "$WORK" 2>/dev/null || true
    rm -rf "$WORK"
}
trap cleanup EXIT

ip link set lo up
mkdir -p /run/kminik
mount -t tmpfs tmpfs /run/kminik

now() { date +%s%N; }
since() { echo $((($(now) - $1) / 1000000)); }
# timed NAME COMMAND...: one line, each run's milliseconds; `before` runs before each
timed() {
    name=$1 times=
    shift
    i=0
    while [ "$i" -lt "$RUNS" ]; do
        before
        from=$(now)
        "$@" >"$WORK/log" 2>&1 || { cat "$WORK/log"; exit 1; }
        times="$times $(since "$from")"
        i=$((i + 1))
    done
    echo "  $name:$times"
}
before() { :; }

# layer N: a tar of random bytes, made anew
layer() {
    head -c "$LAYER_BYTES" /dev/urandom >"$WORK/file-$1"
    tar -C "$WORK" -cf "$WORK/$1.tar" "file-$1"
}
# archive FILE: the layers as docker-save writes them
archive() {
    diffs='' paths=''
    for n in $(seq "$LAYERS"); do
        diffs="$diffs,\"sha256:$(sha256sum "$WORK/$n.tar" | cut -d' ' -f1)\""
        paths="$paths,\"$n.tar\""
    done
    architecture=$([ "$(uname -m)" = aarch64 ] && echo arm64 || echo amd64)
    printf '{"os":"linux","architecture":"%s","config":{"Cmd":["/x"]},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
        "$architecture" "${diffs#,}" >"$WORK/config.json"
    printf '[{"Config":"config.json","RepoTags":["bench/ten:1"],"Layers":[%s]}]' "${paths#,}" >"$WORK/manifest.json"
    # shellcheck disable=SC2046  # a list of words
    tar -C "$WORK" -cf "$1" manifest.json config.json $(seq -f %.0f.tar "$LAYERS")
}

for n in $(seq "$LAYERS"); do layer "$n"; done
archive "$WORK/ten.tar"

cat >"$WORK/registry.yml" <<END
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $WORK/registry}}
http: {addr: '127.0.0.1:$REGISTRY'}
END
docker-registry serve "$WORK/registry.yml" >/dev/null 2>&1 &
PIDS="$PIDS $!"
dockerd --data-root "$WORK/docker" --exec-root "$WORK/exec" --pidfile "$WORK/docker.pid" -H "$DOCKER_HOST" \
    --bridge=none --iptables=false --ip6tables=false >"$WORK/dockerd.log" 2>&1 &
PIDS="$PIDS $!"
tries=0
until docker info >/dev/null 2>&1 && skopeo --insecure-policy copy -q --dest-tls-verify=false \
    "docker-archive:$WORK/ten.tar" "docker://127.0.0.1:$REGISTRY/bench/ten:1" 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || { tail "$WORK/dockerd.log"; exit 1; }
    sleep 0.5
done

cat >"$WORK/relay.py" <<'END'
import asyncio, sys
listen, target, delay = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 2000
async def pipe(reader, writer):
    queue, loop = asyncio.Queue(4096), asyncio.get_running_loop()
    async def take():
        while data := await reader.read(65536):
            await queue.put((loop.time() + delay, data))
        await queue.put((loop.time() + delay, b""))
    taking = asyncio.create_task(take())
    try:
        while True:
            when, data = await queue.get()
            await asyncio.sleep(max(0, when - loop.time()))
            if not data:
                break
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        taking.cancel()
        writer.close()
async def serve(reader, writer):
    await asyncio.sleep(delay * 2)  # the handshake
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
    await asyncio.gather(pipe(reader, far_writer), pipe(far_reader, writer), return_exceptions=True)
async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", listen) as server:
        await server.serve_forever()
asyncio.run(main())
END

by_kminik() { "$BINARY" cache add bench/ten:1; }
by_skopeo() { skopeo --insecure-policy copy --src-tls-verify=false "docker://127.0.0.1:$PORT/bench/ten:1" "oci:$WORK/oci:1"; }
by_docker() { docker pull "127.0.0.1:$PORT/bench/ten:1"; }

echo "$LAYERS layers of $((LAYER_BYTES / 1048576)) MiB"
for delay in 0 20 200; do
    PORT=$REGISTRY how=
    if [ "$delay" -gt 0 ]; then
        if tc qdisc replace dev lo root netem delay "$((delay / 2))ms" 2>/dev/null; then
            how=" (netem)"
        else
            how=" (relay)" PORT=$((RELAY + delay))
            python3 "$WORK/relay.py" "$PORT" "$REGISTRY" "$delay" &
            PIDS="$PIDS $!"
            sleep 1
        fi
    fi
    echo "$delay ms$how"
    before() {
        rm -rf "$KMINIK_HOME"
        mkdir -p "$KMINIK_HOME"
        printf '[registry."docker.io"]\nmirrors = ["http://127.0.0.1:%s"]\nupstream = false\n' "$PORT" \
            >"$KMINIK_HOME/mirrors.toml"
    }
    timed "kminik cache add" by_kminik
    before() { rm -rf "$WORK/oci"; }
    timed "skopeo copy to an OCI layout" by_skopeo
    before() { docker images -q | sort -u | xargs -r docker rmi -f >/dev/null 2>&1; }
    timed "docker pull (unpacks too)" by_docker
done
tc qdisc del dev lo root 2>/dev/null || true

rm -rf "$KMINIK_HOME"
"$BINARY" start --driver=native >/dev/null 2>&1
echo "loading an archive of them"
empty_node() { "$BINARY" image rm bench/ten:1 >/dev/null 2>&1 || true; }
change() {
    layer "$LAYERS"
    archive "$WORK/changed.tar"
}
before() { empty_node; }
timed "kminik image load, all layers" "$BINARY" image load "$WORK/ten.tar"
before() { change; }
timed "kminik image load, a changed top layer" "$BINARY" image load "$WORK/changed.tar"
before() { docker images -q | sort -u | xargs -r docker rmi -f >/dev/null 2>&1; }
timed "docker load, all layers" docker load -i "$WORK/changed.tar"
before() { change; }
timed "docker load, a changed top layer" docker load -i "$WORK/changed.tar"

"$BINARY" delete >/dev/null 2>&1
echo "a cluster of the docker driver"
on_docker() { "$BINARY" "$1" -p bench-docker ${2:+"$2"}; }
quietly() { "$@" >/dev/null 2>&1; }
before() {
    quietly on_docker delete
    docker images -q | sort -u | xargs -r docker rmi -f >/dev/null 2>&1
}
timed "kminik start, the engine without the node image" on_docker start --driver=docker
before() { quietly on_docker delete; }
timed "kminik start, a new cluster" on_docker start --driver=docker
before() { quietly on_docker start --driver=docker; }
timed "kminik stop" on_docker stop
before() { quietly on_docker stop; }
timed "kminik start, a stopped cluster" on_docker start --driver=docker
quietly on_docker delete
