//! Lifecycle hooks: exec, httpGet, tcpSocket, sleep.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;

use crate::node_context::NodeContext;
use crate::pods::view::ContainerView;
use crate::probes::http;

/// Longest time one hook may take; the pod's grace usually ends it earlier.
const LONGEST: Duration = Duration::from_secs(3600);
/// Longest output of a failed hook that is told.
const SHOWN: usize = 1024;

/// A hook that failed; the text is what users read in the event.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HookError {
    #[error(
        "Exec lifecycle hook ({command:?}) for Container \"{container}\" failed - error: command exited with {code}, message: {output:?}"
    )]
    Exit { command: Vec<String>, container: String, code: i32, output: String },
    #[error("Exec lifecycle hook ({command:?}) for Container \"{container}\" failed - error: {source}")]
    Exec {
        command: Vec<String>,
        container: String,
        #[source]
        source: kminik_runtime::RuntimeError,
    },
    #[error("HTTP lifecycle hook ({path}) for Container \"{container}\" failed - error: {detail}")]
    Http { path: String, container: String, detail: String },
    #[error("TCP lifecycle hook for Container \"{container}\" failed - error: {detail}")]
    Tcp { container: String, detail: String },
}

/// Runs a hook to its end.
pub(crate) async fn run(
    node: &NodeContext,
    hook: &LifecycleHandler,
    container: &ContainerView,
    id: &str,
    pod_ip: Option<IpAddr>,
) -> Result<(), HookError> {
    let name = container.name().to_string();
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let output = node.runtime.exec_sync(id, command.clone(), LONGEST).await;
        let output =
            output.map_err(|source| HookError::Exec { command: command.clone(), container: name.clone(), source })?;
        if output.exit_code != 0 {
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text[..text.len().min(SHOWN)]).into_owned();
            return Err(HookError::Exit { command, container: name, code: output.exit_code, output: text });
        }
    } else if let Some(action) = &hook.http_get {
        let path = action.path.clone().unwrap_or_else(|| "/".into());
        let fail = |detail: String| HookError::Http { path: path.clone(), container: name.clone(), detail };
        let target = http::Target::of(action, container, pod_ip).ok_or_else(|| fail("no address".into()))?;
        let answer = http::get(&target, Duration::from_secs(30)).await.map_err(|e| fail(e.to_string()))?;
        if answer.status >= 400 {
            return Err(fail(format!("HTTP hook failed with statuscode: {}", answer.status)));
        }
    } else if let Some(action) = &hook.tcp_socket {
        let fail = |detail: String| HookError::Tcp { container: name.clone(), detail };
        let port = http::port(&action.port, container).ok_or_else(|| fail("no such port".into()))?;
        let host =
            action.host.as_deref().and_then(|h| h.parse().ok()).or(pod_ip).ok_or_else(|| fail("no address".into()))?;
        let dial = tokio::net::TcpStream::connect((host, port));
        let dial = tokio::time::timeout(Duration::from_secs(30), dial).await;
        dial.map_err(|_| fail("timed out".into()))?.map_err(|e| fail(e.to_string()))?;
    } else if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
    }
    Ok(())
}
