// @kubernetes/client-node against a cluster, by the kubeconfig of KUBECONFIG; needs the image busybox:latest in it.
//
//   node client.mjs PATH-OF-THE-PACKAGE'S-ENTRY
//
// Each function below is one of the client's idioms, with what must hold. Ends with 0 if all does; else with the stack.

import assert from 'node:assert/strict';
import { PassThrough, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';

const k8s = await import(pathToFileURL(process.argv[2]));
const namespace = `node-${process.pid}`;
const config = new k8s.KubeConfig();
config.loadFromFile(process.env.KUBECONFIG);
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);

/// The Status of a call that must be refused so.
async function refused(code, reason, call) {
    const error = await call.then((given) => assert.fail(`not refused: ${JSON.stringify(given)}`), (error) => error);
    assert.ok(error instanceof k8s.ApiException, error);
    const body = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
    assert.deepEqual([error.code, body.kind, body.reason, body.code], [code, 'Status', reason, code], error);
    assert.match(error.headers['content-type'], /^application\/json/);
    return body;
}

/// The first answer of `ask` that is true, for at most half a minute.
async function eventually(what, ask) {
    for (const end = Date.now() + 30_000; Date.now() < end; await sleep(100)) {
        const answer = await ask();
        if (answer) return answer;
    }
    assert.fail(`waited half a minute for ${what}`);
}

/// A stream that keeps what is written, and its text.
function sink() {
    const parts = [];
    const stream = new Writable({ write: (chunk, _, done) => (parts.push(chunk), done()) });
    return { stream, text: () => Buffer.concat(parts).toString() };
}

const settings = (name, data, labels) => ({ metadata: { name, labels }, data });
const sent = (contentType) => k8s.setHeaderOptions('Content-Type', contentType);

function pod(name, script) {
    const container = { name: 'main', image: 'busybox:latest', imagePullPolicy: 'IfNotPresent', command: ['sh', '-c', script] };
    const spec = { containers: [container], terminationGracePeriodSeconds: 0, restartPolicy: 'Never' };
    return { metadata: { name, labels: { app: name } }, spec };
}

async function typed() {
    const { gitVersion, minor } = await config.makeApiClient(k8s.VersionApi).getCode();
    assert.ok(minor === '35' && gitVersion.startsWith('v1.35'), gitVersion);
    const made = await core.createNamespacedConfigMap({ namespace, body: settings('typed', { a: '1' }) });
    assert.ok(made.metadata.creationTimestamp instanceof Date && made.metadata.uid);
    const read = await core.readNamespacedConfigMap({ name: 'typed', namespace });
    assert.deepEqual(read, made);
    const body = { ...read, data: { a: '2' } };
    const replaced = await core.replaceNamespacedConfigMap({ name: 'typed', namespace, body });
    assert.equal(replaced.data.a, '2');
    const conflict = await refused(409, 'Conflict', core.replaceNamespacedConfigMap({ name: 'typed', namespace, body }));
    assert.deepEqual(conflict.details, { name: 'typed', kind: 'configmaps' });
    const absent = await refused(404, 'NotFound', core.readNamespacedConfigMap({ name: 'none', namespace }));
    assert.equal(absent.message, 'configmaps "none" not found');
    const invalid = await refused(422, 'Invalid', core.createNamespacedConfigMap({ namespace, body: settings('Not_A_Name') }));
    assert.equal(invalid.details.causes[0].field, 'metadata.name');
    await refused(409, 'AlreadyExists', core.createNamespacedConfigMap({ namespace, body: settings('typed') }));
    const dry = await core.createNamespacedConfigMap({ namespace, body: settings('dry'), dryRun: 'All' });
    assert.ok(dry.metadata.uid);
    await refused(404, 'NotFound', core.readNamespacedConfigMap({ name: 'dry', namespace }));
}

async function pages() {
    const labels = { of: 'pages' };
    for (let i = 0; i < 5; i++) await core.createNamespacedConfigMap({ namespace, body: settings(`page-${i}`, {}, labels) });
    const names = [];
    let _continue;
    do {
        const page = await core.listNamespacedConfigMap({ namespace, labelSelector: 'of=pages', limit: 2, _continue });
        names.push(...page.items.map((item) => item.metadata.name));
        _continue = page.metadata._continue;
    } while (_continue);
    assert.deepEqual(names, [0, 1, 2, 3, 4].map((i) => `page-${i}`));
    await refused(400, 'BadRequest', core.listNamespacedConfigMap({ namespace, limit: 2, _continue: 'nonsense' }));
}

async function patches() {
    const name = 'patched';
    await core.createNamespacedConfigMap({ namespace, body: settings(name, { a: '1', b: '2' }) });
    const patch = (body, strategy, more) => core.patchNamespacedConfigMap({ name, namespace, body, ...more }, sent(strategy));
    const steps = [{ op: 'test', path: '/data/a', value: '1' }, { op: 'replace', path: '/data/a', value: '3' }];
    assert.deepEqual((await patch(steps, k8s.PatchStrategy.JsonPatch)).data, { a: '3', b: '2' });
    await refused(422, 'Invalid', patch(steps, k8s.PatchStrategy.JsonPatch));
    assert.deepEqual((await patch({ data: { b: null } }, k8s.PatchStrategy.MergePatch)).data, { a: '3' });

    const template = {
        metadata: { labels: { app: name } },
        spec: { containers: [{ name: 'one', image: 'a' }, { name: 'two', image: 'b' }] },
    };
    const spec = { replicas: 0, selector: { matchLabels: { app: name } }, template };
    const made = await apps.createNamespacedDeployment({ namespace, body: { metadata: { name }, spec } });
    assert.ok(made.status, 'one that no controller has looked at has a status all the same');
    const change = { spec: { template: { spec: { containers: [{ name: 'two', image: 'c' }] } } } };
    const strategic = await apps.patchNamespacedDeployment({ name, namespace, body: change }, sent(k8s.PatchStrategy.StrategicMergePatch));
    assert.deepEqual(strategic.spec.template.spec.containers.map((c) => c.image), ['a', 'c']);

    const applied = (data) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'applied', namespace }, data });
    const apply = (data, fieldManager, force) =>
        core.patchNamespacedConfigMap({ name: 'applied', namespace, body: applied(data), fieldManager, force }, sent(k8s.PatchStrategy.ServerSideApply));
    await apply({ a: '1' }, 'one');
    const conflict = await refused(409, 'Conflict', apply({ a: '2' }, 'two'));
    assert.deepEqual(conflict.details.causes, [{ reason: 'FieldManagerConflict', message: 'conflict with "one"', field: '.data.a' }]);
    assert.equal((await apply({ a: '2' }, 'two', true)).data.a, '2');

    // By kind, whatever it is: the path comes from discovery.
    const objects = k8s.KubernetesObjectApi.makeApiClient(config);
    assert.equal((await objects.read(applied())).data.a, '2');
    const dynamic = await objects.patch(applied({ b: '1' }), undefined, undefined, 'three', false, k8s.PatchStrategy.ServerSideApply);
    assert.deepEqual(dynamic.data, { a: '2', b: '1' });
    await objects.delete(applied());
}

async function watching() {
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    await core.createNamespacedConfigMap({ namespace, body: settings('seen', {}, { of: 'watch' }) });
    const { metadata } = await core.listNamespacedConfigMap({ namespace, labelSelector: 'of=watch' });
    const watcher = new k8s.Watch(config);
    const events = [];
    const ended = new Promise((resolve, reject) => {
        const query = { labelSelector: 'of=watch', resourceVersion: metadata.resourceVersion, timeoutSeconds: 20 };
        const seen = (type, object) => {
            events.push([type, object.metadata.name, object.data?.a]);
            if (type === 'DELETED') resolve(request.then((controller) => controller.abort()));
        };
        const request = watcher.watch(path, query, seen, (error) => error && error.name !== 'AbortError' && reject(error));
    });
    await core.patchNamespacedConfigMap({ name: 'seen', namespace, body: { data: { a: '1' } } }, sent(k8s.PatchStrategy.MergePatch));
    await core.deleteNamespacedConfigMap({ name: 'seen', namespace });
    await ended;
    assert.deepEqual(events, [['MODIFIED', 'seen', '1'], ['DELETED', 'seen', '1']]);
    // It ends by itself, without an error, at the time that was asked for.
    const error = await new Promise((done) => watcher.watch(path, { timeoutSeconds: 1, labelSelector: 'of=none' }, () => {}, done));
    assert.equal(error, null);
}

async function informing() {
    const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: 'of=informer' });
    const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list, 'of=informer');
    const events = [];
    for (const verb of ['add', 'update', 'delete']) informer.on(verb, (object) => events.push(`${verb} ${object.metadata.name}`));
    // Its own stop is an error to it.
    informer.on('error', (error) => error.name === 'AbortError' || events.push(`error ${error}`));
    const saw = (event) => eventually(event, () => events.includes(event));
    const make = (name) => core.createNamespacedConfigMap({ namespace, body: settings(name, {}, { of: 'informer' }) });
    const change = (name, a) => core.patchNamespacedConfigMap({ name, namespace, body: { data: { a } } }, sent(k8s.PatchStrategy.MergePatch));
    await make('before');
    await informer.start();
    await saw('add before');
    await make('during');
    await saw('add during');
    await change('during', '1');
    await saw('update during');
    await informer.stop();
    // What happens while it is stopped it learns when it starts again, from the version it knows.
    await core.deleteNamespacedConfigMap({ name: 'before', namespace });
    await make('between');
    await informer.start();
    await saw('delete before');
    await saw('add between');
    assert.deepEqual(informer.list(namespace).map((object) => object.metadata.name).sort(), ['between', 'during']);
    assert.equal(informer.get('during', namespace).data.a, '1');
    assert.deepEqual(events.filter((event) => event.startsWith('error')), []);
    await informer.stop();
}

async function pods() {
    await core.createNamespacedPod({ namespace, body: pod('box', 'echo begun; exec httpd -f -p 8080 -h /etc') });
    await core.createNamespacedPod({ namespace, body: pod('talk', 'for i in 1 2 3; do echo line $i; sleep 0.3; done') });
    await eventually('the pod', async () => {
        const { status } = await core.readNamespacedPod({ name: 'box', namespace });
        return status.conditions?.some((c) => c.type === 'Ready' && c.status === 'True');
    });
    const execute = new k8s.Exec(config);
    const run = async (command, input, tty = false) => {
        const [out, err] = [sink(), sink()];
        const status = await new Promise((done, failed) =>
            execute.exec(namespace, 'box', 'main', command, out.stream, err.stream, input, tty, done).catch(failed));
        return { status, out: out.text(), err: err.text() };
    };
    const told = await run(['sh', '-c', 'echo out; echo err >&2; exit 3'], null);
    assert.deepEqual([told.out, told.err], ['out\n', 'err\n']);
    assert.deepEqual([told.status.status, told.status.reason], ['Failure', 'NonZeroExitCode']);
    assert.deepEqual(told.status.details.causes, [{ reason: 'ExitCode', message: '3' }]);
    const input = new PassThrough();
    input.write('this\n');
    const read = await run(['sh', '-c', 'read word; echo got $word'], input);
    assert.deepEqual([read.out, read.status.status], ['got this\n', 'Success']);
    const terminal = await run(['sh', '-c', 'test -t 1 && echo terminal'], null, true);
    assert.equal(terminal.out, 'terminal\r\n');

    const logs = new k8s.Log(config);
    const followed = sink();
    await eventually('the first line', async () => (await core.readNamespacedPodLog({ name: 'talk', namespace }).catch(() => '')).includes('line'));
    await logs.log(namespace, 'talk', 'main', followed.stream, { follow: true });
    await new Promise((done) => followed.stream.on('finish', done));
    assert.equal(followed.text(), 'line 1\nline 2\nline 3\n');
    assert.equal(await core.readNamespacedPodLog({ name: 'talk', namespace, tailLines: 1 }), 'line 3\n');
    const none = await logs.log(namespace, 'nobody', 'main', sink().stream, {}).catch((error) => error);
    assert.equal(none.code, 404);

    const forward = new k8s.PortForward(config);
    const through = async (port, request) => {
        const [out, err, input] = [sink(), sink(), new PassThrough()];
        const socket = await forward.portForward(namespace, 'box', [port], out.stream, err.stream, input);
        input.write(request);
        return { out, err, socket };
    };
    const open = await through(8080, 'GET /passwd HTTP/1.0\r\n\r\n');
    await eventually('the answer', () => open.out.text().includes('root:x:0:0'));
    assert.match(open.out.text(), /^HTTP\/1\.[01] 200 OK/);
    open.socket.close();
    const shut = await through(8081, 'x');
    await eventually('word of the closed port', () => shut.err.text().includes('8081'));
    shut.socket.close();
}

async function deleting() {
    const status = await core.deleteNamespacedConfigMap({ name: 'typed', namespace });
    assert.deepEqual([status.status, status.details.name], ['Success', 'typed']);
    await refused(404, 'NotFound', core.deleteNamespacedConfigMap({ name: 'typed', namespace }));
    await core.createNamespacedConfigMap({ namespace, body: settings('guarded') });
    const body = { preconditions: { uid: 'another' } };
    await refused(409, 'Conflict', core.deleteNamespacedConfigMap({ name: 'guarded', namespace, body }));
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'of=pages' });
    assert.deepEqual((await core.listNamespacedConfigMap({ namespace, labelSelector: 'of=pages' })).items, []);
    await apps.deleteNamespacedDeployment({ name: 'patched', namespace, propagationPolicy: 'Foreground' });
    await eventually('the deployment to go', async () => !(await apps.listNamespacedDeployment({ namespace })).items.length);
    assert.deepEqual((await apps.listNamespacedReplicaSet({ namespace })).items, []);
}

assert.ok(config.getCurrentCluster().server.startsWith('https://'));
await core.createNamespace({ body: { metadata: { name: namespace } } });
try {
    await eventually('the default account', () => core.readNamespacedServiceAccount({ name: 'default', namespace }).catch(() => null));
    for (const idiom of [typed, pages, patches, watching, informing, pods, deleting]) {
        const begun = Date.now();
        await idiom();
        console.log(`${idiom.name}: ${Date.now() - begun} ms`);
    }
} finally {
    await core.deleteNamespace({ name: namespace, propagationPolicy: 'Background' });
}
// The client keeps connections open for a while.
process.exit();
