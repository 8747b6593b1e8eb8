//! A container runtime in memory that records what it is asked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use kminik_runtime::*;
use parking_lot::Mutex;
use tokio::sync::broadcast;

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, SandboxStatus>,
    containers: BTreeMap<String, (ContainerConfig, ContainerStatus)>,
    next_ip: u8,
    calls: Vec<String>,
    /// Answers of exec_sync by command.
    exec: BTreeMap<String, i32>,
}

pub(crate) struct FakeRuntime {
    state: Mutex<State>,
    events: broadcast::Sender<ContainerEvent>,
}

impl FakeRuntime {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), events: broadcast::channel(256).0 }
    }

    /// The process of the running container of that name ends.
    pub(crate) fn exit(&self, name: &str, code: i32) {
        let mut state = self.state.lock();
        let running = state.containers.values_mut().find(|(c, s)| c.name == name && s.state == ContainerState::Running);
        let (_, status) = running.unwrap_or_else(|| panic!("{name} does not run"));
        end(status, code);
        let event = ContainerEvent::Exited { sandbox: status.sandbox.clone(), id: status.id.clone() };
        drop(state);
        let _ = self.events.send(event);
    }

    /// What the kubelet asked for, in order: `run_sandbox`, `create name`, `start name`, `stop name grace` …
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().calls.clone()
    }

    /// The newest configuration of a container.
    pub(crate) fn config(&self, name: &str) -> ContainerConfig {
        let state = self.state.lock();
        let mut found: Vec<_> = state.containers.values().filter(|(c, _)| c.name == name).collect();
        found.sort_by_key(|(_, status)| status.created_at);
        found.last().unwrap_or_else(|| panic!("no container {name}")).0.clone()
    }

    pub(crate) fn running(&self) -> Vec<String> {
        let state = self.state.lock();
        state
            .containers
            .values()
            .filter(|(_, s)| s.state == ContainerState::Running)
            .map(|(c, _)| c.name.clone())
            .collect()
    }

    pub(crate) fn set_exec(&self, command: &str, code: i32) {
        self.state.lock().exec.insert(command.into(), code);
    }

    pub(crate) fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.sandboxes.is_empty() && state.containers.is_empty()
    }
}

fn end(status: &mut ContainerStatus, code: i32) {
    status.state = ContainerState::Exited;
    status.exit_code = Some(code);
    status.pid = None;
    status.finished_at = Some(SystemTime::now());
    status.reason = Some(if code == 0 { "Completed" } else { "Error" }.into());
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxStatus, RuntimeError> {
        let mut state = self.state.lock();
        state.calls.push("run_sandbox".into());
        state.next_ip += 1;
        let ip = IpAddr::from([10, 244, 0, state.next_ip]);
        let status = SandboxStatus {
            id: config.id.clone(),
            state: SandboxState::Ready,
            created_at: SystemTime::now(),
            ips: if config.network == NamespaceMode::Node { vec![] } else { vec![ip] },
            netns: None,
            labels: config.labels,
            annotations: config.annotations,
        };
        state.sandboxes.insert(config.id, status.clone());
        Ok(status)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        state.calls.push("stop_sandbox".into());
        if let Some(sandbox) = state.sandboxes.get_mut(id) {
            sandbox.state = SandboxState::NotReady;
        }
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        state.calls.push("remove_sandbox".into());
        state.sandboxes.remove(id);
        state.containers.retain(|_, (_, status)| status.sandbox != id);
        Ok(())
    }

    async fn list_sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        Ok(self.state.lock().sandboxes.values().cloned().collect())
    }

    async fn create_container(&self, sandbox: &str, config: ContainerConfig) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        state.calls.push(format!("create {}", config.name));
        for mount in &config.mounts {
            assert!(mount.source.exists(), "{} does not exist", mount.source.display());
        }
        if config.args.first().is_some_and(|a| a == "/missing") {
            return Err(RuntimeError::Create { detail: "exec: \"/missing\": no such file or directory".into() });
        }
        let status = ContainerStatus {
            id: config.id.clone(),
            sandbox: sandbox.into(),
            name: config.name.clone(),
            state: ContainerState::Created,
            pid: None,
            created_at: SystemTime::now(),
            started_at: None,
            finished_at: None,
            exit_code: None,
            reason: None,
            message: None,
            log_path: config.log_path.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        };
        state.containers.insert(config.id.clone(), (config, status));
        Ok(())
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        let (config, status) = state.containers.get_mut(id).ok_or_else(|| RuntimeError::NoContainer(id.into()))?;
        status.state = ContainerState::Running;
        status.pid = Some(42);
        status.started_at = Some(SystemTime::now());
        let call = format!("start {}", config.name);
        let event = ContainerEvent::Started { sandbox: status.sandbox.clone(), id: id.into() };
        state.calls.push(call);
        drop(state);
        let _ = self.events.send(event);
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        let Some((config, status)) = state.containers.get_mut(id) else { return Ok(()) };
        let call = format!("stop {} {}", config.name, grace.as_secs_f64().round());
        if status.state == ContainerState::Running {
            end(status, 143);
        }
        let event = ContainerEvent::Exited { sandbox: status.sandbox.clone(), id: id.into() };
        state.calls.push(call);
        drop(state);
        let _ = self.events.send(event);
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        self.state.lock().containers.remove(id);
        Ok(())
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        Ok(self.state.lock().containers.values().map(|(_, status)| status.clone()).collect())
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError> {
        let state = self.state.lock();
        state.containers.get(id).map(|(_, s)| s.clone()).ok_or_else(|| RuntimeError::NoContainer(id.into()))
    }

    async fn update_resources(&self, _: &str, _: Resources) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn stats(&self) -> Result<Vec<ContainerStats>, RuntimeError> {
        Ok(vec![])
    }

    async fn exec_sync(&self, id: &str, args: Vec<String>, _: Duration) -> Result<ExecOutput, RuntimeError> {
        let mut state = self.state.lock();
        let name = state.containers.get(id).map(|(c, _)| c.name.clone()).unwrap_or_default();
        let command = args.join(" ");
        state.calls.push(format!("exec {name} {command}"));
        let exit_code = state.exec.get(&command).copied().unwrap_or(0);
        Ok(ExecOutput { stdout: b"said".to_vec(), stderr: vec![], exit_code })
    }

    async fn exec(&self, _: &str, _: ExecRequest, _: Streams) -> Result<i32, RuntimeError> {
        Ok(0)
    }

    async fn attach(&self, _: &str, _: Streams) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn dial(&self, sandbox: &str, _: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        Err(RuntimeError::NoSandbox(sandbox.into()))
    }

    async fn ensure_layer(&self, _: LayerSource) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn prune_layers(&self, _: &[LayerId]) -> Result<u64, RuntimeError> {
        Ok(0)
    }

    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.events.subscribe()
    }
}
