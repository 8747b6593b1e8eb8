//! Probes: a task for each probe of each running container; its verdicts go to the pod's worker at once.

pub(crate) mod grpc;
pub(crate) mod http;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use kminik_client::EventType;
use kminik_runtime::RuntimeError;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::node_context::NodeContext;
use crate::pods::events::about;
use crate::pods::table::Inbox;
use crate::pods::view::{ContainerView, PodView};

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What one attempt found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    Good,
    /// Good, but with something to tell.
    Warning(String),
    Bad(String),
    /// Nothing listens on the port: its server has not come up yet, or is gone.
    Refused(String),
}

/// How soon a container that has just started, and whose port nothing listens on yet, is asked again; doubled each time.
/// Its process sees nothing of these attempts, and a failure among them is not counted: upstream's rules hold for the due ones.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

impl Finding {
    fn unconnected(error: &std::io::Error, text: String) -> Self {
        if error.kind() == std::io::ErrorKind::ConnectionRefused { Self::Refused(text) } else { Self::Bad(text) }
    }
}

/// The probe tasks of one pod.
#[derive(Default)]
pub(crate) struct Probes {
    running: HashMap<(String, ProbeKind), AbortHandle>,
}

/// A container that is to be probed.
pub(crate) struct Subject<'a> {
    pub container: &'a ContainerView,
    pub id: &'a str,
    pub pod_ip: Option<IpAddr>,
    /// Its startup probe is through.
    pub started: bool,
    pub started_at: Option<std::time::SystemTime>,
    /// It is being stopped: only its readiness still matters.
    pub ending: bool,
}

impl Probes {
    /// Starts what should run for these containers and ends what should not.
    pub(crate) fn reconcile(
        &mut self,
        node: &Arc<NodeContext>,
        inbox: &Arc<Inbox>,
        view: &Arc<PodView>,
        subjects: &[Subject<'_>],
    ) {
        let mut wanted = Vec::new();
        for subject in subjects {
            let spec = &subject.container.spec;
            if !subject.started {
                wanted.push((subject, ProbeKind::Startup, spec.startup_probe.as_ref().filter(|_| !subject.ending)));
            } else {
                wanted.push((subject, ProbeKind::Liveness, spec.liveness_probe.as_ref().filter(|_| !subject.ending)));
                wanted.push((subject, ProbeKind::Readiness, spec.readiness_probe.as_ref()));
            }
        }
        let keep: Vec<(String, ProbeKind)> = wanted
            .iter()
            .filter(|(_, _, probe)| probe.is_some())
            .map(|(subject, kind, _)| (subject.id.to_string(), *kind))
            .collect();
        self.running.retain(|key, task| {
            let kept = keep.contains(key);
            if !kept {
                task.abort();
            }
            kept
        });
        for (subject, kind, probe) in wanted {
            let Some(probe) = probe else { continue };
            let key = (subject.id.to_string(), kind);
            if self.running.contains_key(&key) {
                continue;
            }
            let ran = subject.started_at.and_then(|at| at.elapsed().ok()).unwrap_or_default();
            let delay = seconds(probe.initial_delay_seconds, 0).saturating_sub(ran);
            let task = Task {
                node: node.clone(),
                inbox: inbox.clone(),
                view: view.clone(),
                container: subject.container.clone(),
                id: subject.id.to_string(),
                pod_ip: subject.pod_ip,
                kind,
                probe: probe.clone(),
            };
            self.running.insert(key, tokio::spawn(task.run(delay)).abort_handle());
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.running.values().for_each(AbortHandle::abort);
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default))
}

struct Task {
    node: Arc<NodeContext>,
    inbox: Arc<Inbox>,
    view: Arc<PodView>,
    container: ContainerView,
    id: String,
    pod_ip: Option<IpAddr>,
    kind: ProbeKind,
    probe: Probe,
}

impl Task {
    async fn run(self, delay: Duration) {
        let period = seconds(self.probe.period_seconds, 10).max(Duration::from_secs(1));
        let successes = self.probe.success_threshold.unwrap_or(1).max(1);
        let failures = self.probe.failure_threshold.unwrap_or(3).max(1);
        let (mut good_in_row, mut bad_in_row) = (0, 0);
        let mut verdict = None;
        let mut due = Instant::now() + delay;
        let (mut early, mut pause) = (None, FIRST_PAUSE);
        loop {
            tokio::time::sleep_until(early.map_or(due, |early| due.min(early))).await;
            let counts = Instant::now() >= due;
            if counts {
                // Due times lie on a grid, so that slow answers do not stretch the period.
                due = (due + period).max(Instant::now());
            }
            if self.node.runtime.is_frozen(&self.id) {
                continue;
            }
            let finding = self.attempt().await;
            let absent = matches!(finding, Finding::Refused(_));
            early = None;
            if absent && verdict.is_none() && self.kind != ProbeKind::Liveness {
                early = Some(Instant::now() + pause);
                pause = (pause * 2).min(period);
            }
            if absent && !counts {
                continue;
            }
            self.tell(&finding);
            let new = match finding {
                Finding::Good | Finding::Warning(_) => {
                    (good_in_row, bad_in_row) = (good_in_row + 1, 0);
                    (good_in_row >= successes).then_some(true)
                }
                Finding::Bad(_) | Finding::Refused(_) => {
                    (good_in_row, bad_in_row) = (0, bad_in_row + 1);
                    (bad_in_row >= failures).then_some(false)
                }
            };
            if new.is_some() && new != verdict {
                verdict = new;
                self.report(verdict == Some(true));
                // The container is killed, or the other probes take over.
                if self.kind == ProbeKind::Startup || (self.kind == ProbeKind::Liveness && verdict == Some(false)) {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    fn report(&self, good: bool) {
        let name = self.container.name();
        self.inbox.put(|letters| {
            let verdicts = letters.verdicts.entry(self.id.clone()).or_default();
            match self.kind {
                ProbeKind::Readiness => verdicts.ready = Some(good),
                ProbeKind::Startup if good => verdicts.started = Some(true),
                ProbeKind::Startup => {
                    verdicts.kill = Some(format!("Container {name} failed startup probe, will be restarted"))
                }
                ProbeKind::Liveness if good => {}
                ProbeKind::Liveness => {
                    verdicts.kill = Some(format!("Container {name} failed liveness probe, will be restarted"))
                }
            }
        });
    }

    fn tell(&self, finding: &Finding) {
        let kind = self.kind.as_str();
        let (reason, message) = match finding {
            Finding::Good => return,
            Finding::Warning(text) => ("ProbeWarning", format!("{kind} probe warning: {text}")),
            Finding::Bad(text) | Finding::Refused(text) => ("Unhealthy", format!("{kind} probe failed: {text}")),
        };
        self.node.recorder.event(about(&self.view, Some(&self.container)), EventType::Warning, reason, message);
    }

    async fn attempt(&self) -> Finding {
        let timeout = seconds(self.probe.timeout_seconds, 1).max(Duration::from_secs(1));
        if let Some(exec) = &self.probe.exec {
            return self.exec(exec.command.clone().unwrap_or_default(), timeout).await;
        }
        if let Some(action) = &self.probe.http_get {
            let Some(target) = http::Target::of(action, &self.container, self.pod_ip) else {
                return Finding::Bad("couldn't find port".into());
            };
            return match http::get(&target, timeout).await {
                Ok(answer) if answer.elsewhere => Finding::Warning("Probe terminated redirects".into()),
                Ok(answer) if (200..400).contains(&answer.status) => Finding::Good,
                Ok(answer) => Finding::Bad(format!("HTTP probe failed with statuscode: {}", answer.status)),
                Err(error) => {
                    let scheme = if target.tls { "https" } else { "http" };
                    let text = format!("Get \"{scheme}://{}:{}{}\": {error}", target.host, target.port, target.path);
                    match error {
                        http::HttpError::Connect { source, .. } => Finding::unconnected(&source, text),
                        _ => Finding::Bad(text),
                    }
                }
            };
        }
        if let Some(action) = &self.probe.tcp_socket {
            let host = action.host.as_deref().and_then(|h| h.parse().ok()).or(self.pod_ip);
            let (Some(host), Some(port)) = (host, http::port(&action.port, &self.container)) else {
                return Finding::Bad("couldn't find port".into());
            };
            let target = std::net::SocketAddr::new(host, port);
            return match tokio::time::timeout(timeout, tokio::net::TcpStream::connect(target)).await {
                Ok(Ok(_)) => Finding::Good,
                Ok(Err(error)) => {
                    Finding::unconnected(&error, format!("dial tcp {target}: connect: {}", http::cause(&error)))
                }
                Err(_) => Finding::Bad(format!("dial tcp {target}: i/o timeout")),
            };
        }
        if let Some(action) = &self.probe.grpc {
            let (Some(host), Ok(port)) = (self.pod_ip, u16::try_from(action.port)) else {
                return Finding::Bad("couldn't find port".into());
            };
            let service = action.service.clone().unwrap_or_default();
            return match grpc::check(host, port, &service, timeout).await {
                Ok(()) => Finding::Good,
                Err(error) => {
                    let text = error.to_string();
                    match error {
                        grpc::GrpcError::Connect { source, .. } => Finding::unconnected(&source, text),
                        _ => Finding::Bad(text),
                    }
                }
            };
        }
        Finding::Bad("missing probe handler".into())
    }

    async fn exec(&self, command: Vec<String>, timeout: Duration) -> Finding {
        match self.node.runtime.exec_sync(&self.id, command.clone(), timeout).await {
            Ok(output) if output.exit_code == 0 => Finding::Good,
            Ok(output) => {
                let text = [output.stdout, output.stderr].concat();
                Finding::Bad(String::from_utf8_lossy(&text[..text.len().min(10 * 1024)]).into_owned())
            }
            Err(RuntimeError::Timeout(after)) => {
                Finding::Bad(format!("command timed out: {command:?} timed out after {}s", after.as_secs()))
            }
            Err(error) => Finding::Bad(error.to_string()),
        }
    }
}
