//! The worker of one pod: looks, plans, starts operations, reports; woken by letters, ended operations and the clock.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kminik_base::backoff::Backoff;
use kminik_client::{EventType, is_conflict, is_not_found};
use kminik_runtime::{ContainerState, RuntimeError, SandboxStatus};
use kube::api::{Api, DeleteParams, Preconditions};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::{between, plus};
use super::events::about;
use super::memory::{Failure, Memory, Operation, Rejection, Volumes as VolumeState};
use super::observed::{Observed, annotation};
use super::plan::{Action, Plan, crash_key, plan, started};
use super::starter::{self, Start, StartError};
use super::status;
use super::status_writer::StatusWriter;
use super::stopper::{self, Stop};
use super::table::Entry;
use super::view::{Kind, PodView};
use crate::container::{sandbox, termination};
use crate::node_context::NodeContext;
use crate::probes::{Probes, Subject};
use crate::volumes::{Paths, VolumeError, Volumes};

/// Pause before the runtime is asked again after it failed to answer.
const LOOK_RETRY: Duration = Duration::from_secs(1);

/// Pause before content of volumes that could not be brought up to date is tried again.
const REFRESH_RETRY: Duration = Duration::from_secs(10);

/// How an operation ended.
enum Done {
    Volumes(Result<Paths, VolumeError>),
    Refreshed(Result<Paths, VolumeError>),
    Unmounted(Result<(), VolumeError>),
    SandboxRun(Result<(), SandboxError>),
    SandboxEnded(Result<(), RuntimeError>),
    Started { name: String, id: String, result: Result<(), StartError> },
    Stopped { name: String },
    ContainerRemoved { id: String },
    Finished(Result<(), FinishError>),
}

#[derive(Debug, thiserror::Error)]
enum SandboxError {
    #[error("{0}")]
    Run(#[from] RuntimeError),
    #[error("user namespaces (hostUsers: false) are not supported by this node")]
    UserNamespace,
    #[error("cannot write the pod's files: {0}")]
    Files(#[from] std::io::Error),
}

#[derive(Debug, thiserror::Error)]
enum FinishError {
    #[error("{0}")]
    Runtime(#[from] RuntimeError),
    #[error("{0}")]
    Volumes(#[from] VolumeError),
    #[error("pod not deleted: {0}")]
    Api(#[from] kube::Error),
}

/// See the module.
pub(crate) struct Worker {
    node: Arc<NodeContext>,
    entry: Arc<Entry>,
    view: Arc<PodView>,
    memory: Memory,
    paths: Arc<Paths>,
    operations: JoinSet<Done>,
    starts: HashMap<String, CancellationToken>,
    stops: HashMap<String, watch::Sender<Instant>>,
    running: watch::Sender<BTreeSet<String>>,
    probes: Probes,
    writer: StatusWriter,
    reported: u64,
    /// Waiting reasons that an event told of, by container.
    told: HashMap<String, String>,
    making_volumes: Option<AbortHandle>,
    /// Dead containers that are being removed, by id.
    removing: HashSet<String>,
    /// The last attempt to take the pod away failed.
    finish_failed: bool,
    refresh_wanted: bool,
    refreshing: bool,
    refresh_not_before: Option<Timestamp>,
    retry: Backoff,
    stop: CancellationToken,
}

impl Worker {
    /// `rejected`: the node's admission refused the pod.
    pub(crate) fn new(
        node: Arc<NodeContext>,
        entry: Arc<Entry>,
        rejected: Option<Rejection>,
        stop: CancellationToken,
    ) -> Self {
        let view = entry.view.load_full();
        let over = view.pod.status.as_ref().is_some_and(|s| matches!(s.phase.as_deref(), Some("Failed" | "Succeeded")));
        let leftover = over && node.volumes.pod_dir(&view.uid).join("volumes").exists();
        let memory = Memory {
            first_seen: Some(Timestamp::now()),
            rejected,
            reported: view.pod.status.clone().unwrap_or_default(),
            // Volumes of a pod that ended before this kubelet started are still to be taken away.
            volumes: if leftover { VolumeState::Mounted } else { VolumeState::Unmounted },
            ..Memory::default()
        };
        let writer = StatusWriter::start(node.client.clone(), &view, stop.clone());
        Self {
            node,
            entry,
            view,
            memory,
            paths: Arc::default(),
            operations: JoinSet::new(),
            starts: HashMap::new(),
            stops: HashMap::new(),
            running: watch::Sender::default(),
            probes: Probes::default(),
            writer,
            reported: 0,
            told: HashMap::new(),
            making_volumes: None,
            removing: HashSet::new(),
            finish_failed: false,
            refresh_wanted: false,
            refreshing: false,
            refresh_not_before: None,
            retry: Backoff::new(Duration::from_millis(500), Duration::from_secs(30)),
            stop,
        }
    }

    /// Runs until the pod is gone from node and API, or until told to stop; containers are left running then.
    pub(crate) async fn run(mut self) {
        loop {
            self.read_letters();
            let now = Timestamp::now();
            let wake_at = match self.look().await {
                Ok(seen) => {
                    let wake_at = self.step(&seen, now);
                    if self.memory.cleaned {
                        return;
                    }
                    wake_at
                }
                Err(error) => {
                    tracing::error!(pod = self.view.formatted(), %error, "runtime did not answer");
                    Some(plus(now, LOOK_RETRY))
                }
            };
            if !self.wait(wake_at).await {
                return;
            }
        }
    }

    async fn look(&self) -> Result<Observed, RuntimeError> {
        let sandboxes = self.node.runtime.list_sandboxes().await?;
        let containers = self.node.runtime.list_containers().await?;
        Ok(Observed::of(&self.view.uid, sandboxes, containers))
    }

    /// One round; returns when to look again at the latest.
    fn step(&mut self, seen: &Observed, now: Timestamp) -> Option<Timestamp> {
        self.learn(seen);
        let plan = plan(&self.view, seen, &self.memory, now);
        if plan.ending {
            self.memory.ending_since.get_or_insert(now);
            if let Some(making) = self.making_volumes.take() {
                making.abort();
            }
        }
        self.report(seen, &plan, now);
        self.tell_waiting(&plan);
        for action in &plan.actions {
            self.act(action, seen, now);
        }
        self.probe(seen, plan.ending);
        let renewal = self.refresh(&plan, now);
        [plan.wake_at, renewal].into_iter().flatten().min()
    }

    /// False when the worker is to end.
    async fn wait(&mut self, wake_at: Option<Timestamp>) -> bool {
        let pause = wake_at.map_or(Duration::from_secs(3600), |at| between(Timestamp::now(), at));
        tokio::select! {
            biased;
            () = self.stop.cancelled() => return false,
            Some(done) = self.operations.join_next(), if !self.operations.is_empty() => self.joined(done),
            () = self.entry.inbox.rung() => {}
            () = tokio::time::sleep(pause) => {}
        }
        while let Some(done) = self.operations.try_join_next() {
            self.joined(done);
        }
        true
    }

    fn joined(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(done) => self.finish_operation(done),
            // Only the making of volumes is ever cut short, by the end of the pod.
            Err(error) if error.is_cancelled() => {
                self.memory.volumes = VolumeState::Unmounted;
                self.refreshing = false;
            }
            Err(error) => {
                tracing::error!(pod = self.view.formatted(), "operation panicked");
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }

    fn read_letters(&mut self) {
        let letters = self.entry.inbox.take();
        if let Some(pod) = letters.pod {
            self.writer.observe(&pod);
            let (new, old) = (&pod.metadata, &self.view.pod.metadata);
            if new.labels != old.labels || new.annotations != old.annotations {
                self.sources_changed();
            }
            let view = PodView::new(pod);
            // What failed with another image says nothing of this one.
            let changed = |name: &String| {
                let hash = |view: &PodView| view.container(name).map(|c| c.hash.clone());
                hash(&view) != hash(&self.view)
            };
            self.memory.failures.retain(|name, _| !changed(name));
            self.view = Arc::new(view);
            self.entry.view.store(self.view.clone());
        }
        self.memory.gone |= letters.gone;
        if letters.objects_changed {
            self.sources_changed();
        }
        for (id, news) in letters.verdicts {
            let verdicts = self.memory.verdicts.entry(id).or_default();
            verdicts.started = news.started.or(verdicts.started);
            verdicts.ready = news.ready.or(verdicts.ready);
            verdicts.kill = news.kill.or(verdicts.kill.take());
        }
    }

    /// What volumes and environments are made from is not what it was: what failed for it is tried again at once.
    fn sources_changed(&mut self) {
        self.refresh_wanted = true;
        self.refresh_not_before = None;
        self.memory.failures.retain(|_, failure| failure.reason != "CreateContainerConfigError");
        if matches!(self.memory.volumes, VolumeState::Failed { .. }) {
            self.memory.volumes = VolumeState::Unmounted;
        }
    }

    /// Reads what ended containers left, forgets what is no longer there.
    fn learn(&mut self, seen: &Observed) {
        for record in seen.containers.iter().filter(|c| c.exited()) {
            let status = &record.status;
            if self.memory.messages.contains_key(&status.id) {
                continue;
            }
            let file = status.annotations.get(annotation::TERMINATION_FILE).map(PathBuf::from);
            let policy = status.annotations.get(annotation::TERMINATION_POLICY);
            let from_log = policy.is_some_and(|p| p == "FallbackToLogsOnError") && record.exit_code() != 0;
            let message = termination::read(file.as_deref(), &status.log_path, from_log);
            self.memory.messages.insert(status.id.clone(), message);
        }
        let known = |id: &String| seen.containers.iter().any(|c| c.status.id == *id);
        self.memory.messages.retain(|id, _| known(id));
        self.memory.verdicts.retain(|id, _| known(id));
        let names = seen.containers.iter().filter(|c| c.running()).map(|c| c.status.name.clone()).collect();
        self.running.send_if_modified(|running| std::mem::replace(running, names) != *running);
    }

    fn report(&mut self, seen: &Observed, plan: &Plan, now: Timestamp) {
        let status = status::compute(&self.view, seen, &self.memory, plan, &self.node.host_ips(), now);
        if !self.memory.gone {
            self.reported = self.writer.set(&status);
        }
        if self.memory.reported != status {
            self.entry.status.store(Arc::new(status.clone()));
            self.memory.reported = status;
        }
    }

    fn tell_waiting(&mut self, plan: &Plan) {
        for (name, (reason, _)) in &plan.waiting {
            if self.told.get(name) == Some(reason) {
                continue;
            }
            self.told.insert(name.clone(), reason.clone());
            let Some(container) = self.view.container(name) else { continue };
            let (event_type, message) = match reason.as_str() {
                "CrashLoopBackOff" => {
                    let pod = self.view.formatted();
                    (EventType::Warning, format!("Back-off restarting failed container {name} in pod {pod}"))
                }
                "ImagePullBackOff" => (EventType::Normal, format!("Back-off pulling image \"{}\"", container.image())),
                _ => continue,
            };
            self.node.recorder.event(about(&self.view, Some(container)), event_type, "BackOff", message);
        }
        self.told.retain(|name, _| plan.waiting.contains_key(name));
    }

    fn act(&mut self, action: &Action, seen: &Observed, now: Timestamp) {
        let node = self.node.clone();
        let view = self.view.clone();
        match action {
            Action::MountVolumes => {
                self.memory.volumes = VolumeState::Changing;
                let making = self.operations.spawn(async move { Done::Volumes(set_up_volumes(&node, &view).await) });
                self.making_volumes = Some(making);
            }
            Action::UnmountVolumes => {
                self.memory.volumes = VolumeState::Changing;
                node.objects.release(&view.uid);
                self.operations
                    .spawn(async move { Done::Unmounted(blocking(move || node.volumes.tear_down(&view.uid)).await) });
            }
            Action::RunSandbox { attempt } => {
                self.memory.sandbox_operations += 1;
                let id = new_id();
                node.table.note_sandbox(&id, &view.uid);
                let config = sandbox::config(&view, id, *attempt, &node.config.cluster_domain);
                self.operations.spawn(async move { Done::SandboxRun(run_sandbox(&node, &view, config).await) });
            }
            Action::StopSandbox { id } => {
                self.memory.sandbox_operations += 1;
                let id = id.clone();
                self.operations.spawn(async move { Done::SandboxEnded(paced(node.runtime.stop_sandbox(&id)).await) });
            }
            Action::RemoveSandbox { id } => {
                self.memory.sandbox_operations += 1;
                let id = id.clone();
                self.operations.spawn(async move { Done::SandboxEnded(paced(node.runtime.remove_sandbox(&id)).await) });
            }
            Action::StartContainer { name, restart_count, ended } => {
                let Some(sandbox) = seen.ready_sandbox().cloned() else { return };
                self.start_container(name, *restart_count, *ended, sandbox, seen, now);
            }
            Action::CancelStart { name } => {
                if let Some(token) = self.starts.get(name) {
                    token.cancel();
                }
            }
            Action::StopContainer { name, id, message, grace, after } => {
                let (deadline, watched) = watch::channel(Instant::now() + *grace);
                self.stops.insert(name.clone(), deadline);
                self.memory.operations.insert(name.clone(), Operation::Stopping);
                let stop = Stop {
                    container: view.container(name).cloned(),
                    id: id.clone(),
                    message: message.clone(),
                    deadline: watched,
                    after: after.clone(),
                    running: self.running.subscribe(),
                    pod_ip: self.pod_ip(seen),
                    view,
                };
                let name = name.clone();
                self.operations.spawn(async move {
                    stopper::stop(&node, stop).await;
                    Done::Stopped { name }
                });
            }
            Action::HastenStop { name, grace } => {
                let nearer = Instant::now() + *grace;
                if let Some(deadline) = self.stops.get(name) {
                    // A second of slack, so that the same grace computed twice is not news.
                    deadline.send_if_modified(|at| {
                        let news = nearer + Duration::from_secs(1) < *at;
                        if news {
                            *at = nearer;
                        }
                        news
                    });
                }
            }
            Action::RemoveContainer { id } => {
                if !self.removing.insert(id.clone()) {
                    return;
                }
                let id = id.clone();
                self.operations.spawn(async move {
                    if let Err(error) = paced(node.runtime.remove_container(&id)).await {
                        tracing::warn!(container = id, %error, "dead container not removed");
                    }
                    Done::ContainerRemoved { id }
                });
            }
            Action::Finish => {
                self.memory.sandbox_operations += 1;
                let gone = self.memory.gone;
                let flushed = self.writer.flushed(self.reported);
                let sandboxes: Vec<String> = seen.sandboxes.iter().map(|s| s.id.clone()).collect();
                let pause = if self.finish_failed { self.retry.next_delay() } else { Duration::ZERO };
                self.operations.spawn(async move {
                    tokio::time::sleep(pause).await;
                    if !gone {
                        flushed.await;
                    }
                    Done::Finished(finish(&node, &view, &sandboxes, gone).await)
                });
            }
        }
    }

    fn start_container(
        &mut self,
        name: &str,
        restart_count: u32,
        ended: Option<Timestamp>,
        sandbox: SandboxStatus,
        seen: &Observed,
        now: Timestamp,
    ) {
        let Some(container) = self.view.container(name).cloned() else { return };
        if let Some(ended) = ended {
            self.memory.crashes.advance(&crash_key(&container), ended, now);
        }
        let id = new_id();
        let cancel = CancellationToken::new();
        self.starts.insert(name.to_string(), cancel.clone());
        self.memory.operations.insert(name.to_string(), Operation::Starting);
        if container.spec.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some()) {
            self.memory.hooks.insert(id.clone());
        }
        let target = container.target.as_deref().and_then(|t| seen.latest(t)).map(|r| r.status.id.clone());
        let start = Start {
            view: self.view.clone(),
            container,
            id: id.clone(),
            sandbox,
            restart_count,
            volumes: self.paths.clone(),
            cancel,
            target,
        };
        let (node, name) = (self.node.clone(), name.to_string());
        self.operations.spawn(async move {
            let result = starter::start(&node, start).await;
            if let Err(StartError::Run(_) | StartError::Create(_)) = &result {
                // What was created but never ran must not be taken for a container; one that ended tells why itself.
                let status = node.runtime.container_status(&id).await;
                if status.is_ok_and(|s| s.state != ContainerState::Exited)
                    && let Err(error) = node.runtime.remove_container(&id).await
                {
                    tracing::warn!(container = id, %error, "container that did not start not removed");
                }
            }
            Done::Started { name, id, result }
        });
    }

    fn finish_operation(&mut self, done: Done) {
        let now = Timestamp::now();
        match done {
            Done::Volumes(Ok(paths)) => {
                self.paths = Arc::new(paths);
                self.memory.volumes = VolumeState::Mounted;
                self.retry.reset();
            }
            Done::Volumes(Err(error)) => {
                let message = error.to_string();
                self.node.recorder.event(about(&self.view, None), EventType::Warning, "FailedMount", message.clone());
                let retry_at = plus(now, self.retry.next_delay());
                self.memory.volumes = VolumeState::Failed { message, retry_at };
            }
            Done::Refreshed(result) => {
                self.refreshing = false;
                if let Err(error) = result {
                    self.refresh_wanted = true;
                    self.refresh_not_before = Some(plus(now, REFRESH_RETRY));
                    self.node.recorder.event(
                        about(&self.view, None),
                        EventType::Warning,
                        "FailedMount",
                        error.to_string(),
                    );
                }
            }
            Done::Unmounted(Ok(())) => self.memory.volumes = VolumeState::Unmounted,
            Done::Unmounted(Err(error)) => {
                tracing::error!(pod = self.view.formatted(), %error, "volumes not taken away");
                self.memory.volumes = VolumeState::Unmounted;
            }
            Done::SandboxRun(result) => {
                self.memory.sandbox_operations -= 1;
                self.memory.sandbox_failure = result.err().map(|error| {
                    let message = format!("Failed to create pod sandbox: {error}");
                    let about = about(&self.view, None);
                    self.node.recorder.event(about, EventType::Warning, "FailedCreatePodSandBox", message.clone());
                    let retry_at = plus(now, self.retry.next_delay());
                    Failure { reason: "ContainerCreating".into(), message, later: None, retry_at }
                });
            }
            Done::SandboxEnded(result) => {
                self.memory.sandbox_operations -= 1;
                if let Err(error) = result {
                    tracing::error!(pod = self.view.formatted(), %error, "sandbox not ended");
                }
            }
            Done::Started { name, id, result } => self.finish_start(&name, &id, result, now),
            Done::Stopped { name } => {
                self.memory.operations.remove(&name);
                self.stops.remove(&name);
            }
            Done::ContainerRemoved { id } => drop(self.removing.remove(&id)),
            Done::Finished(Ok(())) => {
                self.memory.sandbox_operations -= 1;
                self.memory.cleaned = true;
            }
            Done::Finished(Err(error)) => {
                self.memory.sandbox_operations -= 1;
                self.finish_failed = true;
                tracing::error!(pod = self.view.formatted(), %error, "pod not taken away");
            }
        }
    }

    fn finish_start(&mut self, name: &str, id: &str, result: Result<(), StartError>, now: Timestamp) {
        self.memory.operations.remove(name);
        self.starts.remove(name);
        self.memory.hooks.remove(id);
        let Err(error) = result else {
            self.memory.failures.remove(name);
            return;
        };
        let Some(container) = self.view.container(name) else { return };
        let mut failure = error.failure(container.image(), now);
        match error {
            StartError::Cancelled => return,
            // It ran and ended: the back-off of restarts counts.
            StartError::Hook(_) => return,
            StartError::Create(_) | StartError::Run(_) => {
                let key = crash_key(container);
                self.memory.crashes.advance(&key, now, now);
                if let Some((until, delay)) = self.memory.crashes.until(&key, now, now) {
                    let delay = super::backoff::go_duration(delay);
                    let pod = self.view.formatted();
                    let message = format!("back-off {delay} restarting failed container={name} pod={pod}");
                    failure.later = Some((plus(now, Duration::from_secs(2)), "CrashLoopBackOff".into(), message));
                    failure.retry_at = until;
                }
            }
            StartError::Image(_)
            | StartError::Config(_)
            | StartError::Unanswered(_)
            | StartError::Subpath { .. }
            | StartError::NoVolume(_)
            | StartError::NoVariable { .. }
            | StartError::Io { .. } => {}
        }
        self.memory.failures.insert(name.to_string(), failure);
    }

    fn probe(&mut self, seen: &Observed, ending: bool) {
        let mut subjects = Vec::new();
        for container in self.view.containers.iter().filter(|c| matches!(c.kind, Kind::App | Kind::Sidecar)) {
            let Some(record) = seen.current(container).filter(|r| r.running()) else { continue };
            if self.memory.hooks.contains(&record.status.id) {
                continue;
            }
            subjects.push(Subject {
                container,
                id: &record.status.id,
                pod_ip: self.pod_ip(seen),
                started: started(container, record, &self.memory),
                started_at: record.status.started_at,
                ending: ending || self.memory.operations.get(container.name()) == Some(&Operation::Stopping),
            });
        }
        self.probes.reconcile(&self.node, &self.entry.inbox, &self.view, &subjects);
    }

    /// Brings content of volumes up to date; returns when the next token is due.
    fn refresh(&mut self, plan: &Plan, now: Timestamp) -> Option<Timestamp> {
        if self.memory.volumes != VolumeState::Mounted || plan.terminal || !Volumes::live(&self.view) {
            return None;
        }
        if self.refreshing {
            return None;
        }
        let renewal = self.node.volumes.renew_at(&self.view.uid);
        let due = if self.refresh_wanted { Some(now) } else { renewal }?;
        let due = self.refresh_not_before.map_or(due, |not_before| due.max(not_before));
        if due > now {
            return Some(due);
        }
        self.refresh_wanted = false;
        self.refreshing = true;
        let (node, view) = (self.node.clone(), self.view.clone());
        let making = self.operations.spawn(async move { Done::Refreshed(set_up_volumes(&node, &view).await) });
        self.making_volumes = Some(making);
        None
    }

    fn pod_ip(&self, seen: &Observed) -> Option<std::net::IpAddr> {
        if self.view.host_network() {
            return self.node.config.node_ips.first().copied();
        }
        seen.sandbox().and_then(|s| s.ips.first().copied())
    }
}

/// The result of a call; a failure comes late, so that a loop of attempts is a slow one.
async fn paced<T, E>(call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let result = call.await;
    if result.is_err() {
        tokio::time::sleep(LOOK_RETRY).await;
    }
    result
}

/// Unique for ever.
fn new_id() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn set_up_volumes(node: &NodeContext, view: &PodView) -> Result<Paths, VolumeError> {
    let nowhere = SandboxStatus {
        id: String::new(),
        state: kminik_runtime::SandboxState::NotReady,
        created_at: std::time::SystemTime::UNIX_EPOCH,
        ips: Vec::new(),
        netns: None,
        labels: Default::default(),
        annotations: Default::default(),
    };
    // Volumes see no addresses: the API refuses such references.
    node.volumes.set_up(view, &starter::surroundings(node, &nowhere, view), &node.objects).await
}

async fn run_sandbox(
    node: &NodeContext,
    view: &PodView,
    config: kminik_runtime::SandboxConfig,
) -> Result<(), SandboxError> {
    if view.spec().host_users == Some(false) {
        return Err(SandboxError::UserNamespace);
    }
    let id = config.id.clone();
    let status = match node.runtime.run_sandbox(config).await {
        Ok(status) => status,
        Err(error) => {
            if let Err(error) = node.runtime.remove_sandbox(&id).await {
                tracing::warn!(sandbox = id, %error, "failed sandbox not removed");
            }
            return Err(error.into());
        }
    };
    Ok(starter::write_pod_files(node, view, &status)?)
}

/// Nothing of the pod runs: takes everything away, the API's object last.
async fn finish(
    node: &Arc<NodeContext>,
    view: &Arc<PodView>,
    sandboxes: &[String],
    gone: bool,
) -> Result<(), FinishError> {
    for id in sandboxes {
        node.runtime.remove_sandbox(id).await?;
    }
    node.objects.release(&view.uid);
    let (keeper, uid, logs) = (node.clone(), view.uid.clone(), node.log_dir(view));
    blocking(move || {
        if let Err(error) = std::fs::remove_dir_all(&logs)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %logs.display(), %error, "logs not removed");
        }
        keeper.volumes.remove_pod_dir(&uid)
    })
    .await?;
    if gone {
        return Ok(());
    }
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(node.client.clone(), &view.namespace);
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(view.uid.clone()), resource_version: None }),
        ..DeleteParams::default()
    };
    match pods.delete(&view.name, &params).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
