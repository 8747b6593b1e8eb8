//! Into the containers of a pod: exec, attach, port-forward and log, each a request to the pod's kubelet.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use http::header::{CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyStream;
use kminik_meta::{ErrorList, FieldError, Object, Path, StatusError, field};
use kminik_streaming::oneway;
use url::form_urlencoded;

use super::forward::{Target, send, text};
use super::kubelet::Kubelet;
use crate::auth::{self, Decision};
use crate::http::body::{RequestBody, ResponseBody};
use crate::http::info::Query;
use crate::registry::action::{ActionContext, Connect};
use crate::registry::def::Verb;

/// Names the container that is meant when a request names none.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Longest error text taken from a kubelet.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// Options of a log, as the API and the kubelet both call them.
const LOG_OPTIONS: [&str; 8] =
    ["follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"];
/// Streams as the API calls them, and as the kubelet does.
const STREAMS: [(&str, &str); 4] = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
const STREAM_METHODS: &[(&str, Verb)] = &[("GET", Verb::Get), ("POST", Verb::Create)];

/// `pods/exec`.
pub(crate) struct Exec;
/// `pods/attach`.
pub(crate) struct Attach;
/// `pods/portforward`.
pub(crate) struct PortForward;
/// `pods/log`.
pub(crate) struct Log;

#[async_trait]
impl Connect for Exec {
    fn methods(&self) -> &'static [(&'static str, Verb)] {
        STREAM_METHODS
    }

    fn options_kind(&self) -> &'static str {
        "PodExecOptions"
    }

    async fn connect(
        &self,
        ctx: ActionContext<'_>,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, StatusError> {
        let query = query(&request);
        if query.all("command").next().is_none() {
            return Err(StatusError::bad_request("you must specify at least one command for the container"));
        }
        let target = remote_command(&ctx, &query, "exec").await?;
        authorize_create(&ctx, request.method() == Method::GET).await?;
        Ok(send(ctx.server.outbound(), &target, request).await?)
    }
}

#[async_trait]
impl Connect for Attach {
    fn methods(&self) -> &'static [(&'static str, Verb)] {
        STREAM_METHODS
    }

    fn options_kind(&self) -> &'static str {
        "PodAttachOptions"
    }

    async fn connect(
        &self,
        ctx: ActionContext<'_>,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, StatusError> {
        let target = remote_command(&ctx, &query(&request), "attach").await?;
        authorize_create(&ctx, request.method() == Method::GET).await?;
        Ok(send(ctx.server.outbound(), &target, request).await?)
    }
}

#[async_trait]
impl Connect for PortForward {
    fn methods(&self) -> &'static [(&'static str, Verb)] {
        STREAM_METHODS
    }

    fn options_kind(&self) -> &'static str {
        "PodPortForwardOptions"
    }

    async fn connect(
        &self,
        ctx: ActionContext<'_>,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, StatusError> {
        authorize_create(&ctx, request.method() == Method::GET).await?;
        let pod = pod(&ctx).await?;
        let kubelet = kubelet_of(&ctx, &pod).await?;
        let query = query(&request);
        let ports = encode(query.all("ports").map(|port| ("port", port)));
        let path = format!("/portForward/{}/{}?{ports}", ctx.namespace, ctx.name);
        Ok(send(ctx.server.outbound(), &kubelet.target(ctx.server.config(), path), request).await?)
    }
}

/// The numbers among a log's options.
fn check_log_options(ctx: &ActionContext<'_>, query: &Query) -> Result<(), StatusError> {
    let mut errors = ErrorList::new();
    for (name, least, detail) in [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ] {
        let Some(text) = query.get(name) else { continue };
        let number: i64 = text.parse().map_err(|_| {
            StatusError::bad_request(format!("strconv.ParseInt: parsing {}: invalid syntax", field::quote(text)))
        })?;
        if number < least {
            errors.push(FieldError::invalid(&Path::new(name), number, detail));
        }
    }
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(FieldError::forbidden(&Path::root(), detail));
    }
    if errors.is_empty() { Ok(()) } else { Err(StatusError::invalid("", "PodLogOptions", ctx.name, &errors)) }
}

#[async_trait]
impl Connect for Log {
    fn methods(&self) -> &'static [(&'static str, Verb)] {
        &[("GET", Verb::Get)]
    }

    fn options_kind(&self) -> &'static str {
        "Pod"
    }

    async fn connect(
        &self,
        ctx: ActionContext<'_>,
        mut request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, StatusError> {
        let query = query(&request);
        let pod = pod(&ctx).await?;
        check_log_options(&ctx, &query)?;
        let container = container(&pod, query.get("container"))?;
        if pod.str(&["spec", "nodeName"]).unwrap_or_default().is_empty() {
            let mut nothing = Response::new(ResponseBody::empty());
            *nothing.status_mut() = StatusCode::NO_CONTENT;
            return Ok(nothing);
        }
        let kubelet = kubelet_of(&ctx, &pod).await?;
        let socket = oneway::wanted(request.headers()).then(|| oneway::upgrade(&mut request)).transpose();
        let socket = socket.map_err(|error| StatusError::bad_request(error.to_string()))?;
        for header in [CONNECTION, UPGRADE, SEC_WEBSOCKET_PROTOCOL] {
            request.headers_mut().remove(header);
        }
        let options = encode(LOG_OPTIONS.iter().filter_map(|name| Some((*name, query.get(name)?))));
        let path = format!("/containerLogs/{}/{}/{container}?{options}", ctx.namespace, ctx.name);
        let response = send(ctx.server.outbound(), &kubelet.target(ctx.server.config(), path), request).await?;
        let status = response.status();
        if status.is_success() {
            let Some((switching, receiver)) = socket else { return Ok(response) };
            let body = BodyStream::new(response.into_body()).filter_map(async |frame| match frame {
                Ok(frame) => frame.into_data().ok().map(Ok),
                Err(error) => Some(Err(error)),
            });
            tokio::spawn(async move {
                let sent = async { receiver.await?.send(body).await };
                if let Err(error) = sent.await {
                    tracing::debug!(error = &error as &dyn std::error::Error, "a log's reader is gone");
                }
            });
            return Ok(switching.map(|()| ResponseBody::empty()));
        }
        let why = text(response.into_body(), MAX_ERROR_BYTES).await;
        Err(match status {
            StatusCode::BAD_REQUEST => StatusError::bad_request(why),
            StatusCode::NOT_FOUND => StatusError::not_found("", "pods", ctx.name),
            _ => StatusError::internal(why),
        })
    }
}

fn query(request: &Request<RequestBody>) -> Query {
    Query::parse(request.uri().query().unwrap_or_default())
}

fn encode<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// Streams into a pod are a create, though a WebSocket can only begin with GET.
async fn authorize_create(ctx: &ActionContext<'_>, by_get: bool) -> Result<(), StatusError> {
    if !by_get {
        return Ok(());
    }
    let attributes = auth::Attributes {
        user: ctx.user.clone(),
        verb: "create".to_owned(),
        resource_request: true,
        group: ctx.row.group.to_string(),
        version: ctx.version.name.to_string(),
        resource: ctx.row.plural.to_string(),
        subresource: ctx.subresource.to_owned(),
        namespace: ctx.namespace.to_owned(),
        name: ctx.name.to_owned(),
        path: String::new(),
        field_selector: String::new(),
        label_selector: String::new(),
    };
    match ctx.server.authorizer().authorize(&attributes).await {
        Decision::Allow { .. } => Ok(()),
        Decision::NoOpinion { reason } | Decision::Deny { reason } => Err(auth::forbidden(&attributes, &reason)),
    }
}

async fn pod(ctx: &ActionContext<'_>) -> Result<Arc<Object>, StatusError> {
    let found = ctx.registry().object("", "pods", ctx.namespace, ctx.name).await?;
    found.ok_or_else(|| StatusError::not_found("", "pods", ctx.name))
}

async fn kubelet_of(ctx: &ActionContext<'_>, pod: &Object) -> Result<Kubelet, StatusError> {
    let node = pod.str(&["spec", "nodeName"]).unwrap_or_default();
    if node.is_empty() {
        return Err(StatusError::bad_request(format!("pod {} does not have a host assigned", ctx.name)));
    }
    Kubelet::of_node(ctx.registry(), node).await
}

/// Exec and attach: the same question to the kubelet but for its path and the command.
async fn remote_command(ctx: &ActionContext<'_>, query: &Query, verb: &str) -> Result<Target, StatusError> {
    let pod = pod(ctx).await?;
    let container = container(&pod, query.get("container"))?;
    let kubelet = kubelet_of(ctx, &pod).await?;
    let streams = STREAMS.iter().filter(|(ours, _)| query.flag(ours)).map(|(_, kubelets)| (*kubelets, "1"));
    let question = encode(streams.chain(query.all("command").map(|argument| ("command", argument))));
    let path = format!("/{verb}/{}/{}/{container}?{question}", ctx.namespace, ctx.name);
    Ok(kubelet.target(ctx.server.config(), path))
}

/// The container that is meant, in upstream's words when it is none.
fn container(pod: &Object, wanted: Option<&str>) -> Result<String, StatusError> {
    let name = pod.name();
    let of = |field: &str| -> Vec<String> {
        let containers = pod.array(&["spec", field]).iter();
        containers.filter_map(|container| container.get("name")?.as_str().map(str::to_owned)).collect()
    };
    let (containers, init, ephemeral) = (of("containers"), of("initContainers"), of("ephemeralContainers"));
    if let Some(wanted) = wanted {
        let known = containers.iter().chain(&init).chain(&ephemeral).any(|container| container == wanted);
        let unknown = || StatusError::bad_request(format!("container {wanted} is not valid for pod {name}"));
        return if known { Ok(wanted.to_owned()) } else { Err(unknown()) };
    }
    let default = pod.annotation(DEFAULT_CONTAINER).filter(|default| containers.iter().any(|name| name == default));
    match (default, containers.as_slice(), init.is_empty()) {
        (Some(default), ..) => Ok(default.to_owned()),
        (None, [only], true) => Ok(only.clone()),
        (None, [], _) => Err(StatusError::bad_request(format!("a container name must be specified for pod {name}"))),
        _ => {
            let mut text =
                format!("a container name must be specified for pod {name}, choose one of: {}", list(&containers));
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: {}", list(&init)));
            }
            Err(StatusError::bad_request(text))
        }
    }
}

fn list(names: &[String]) -> String {
    format!("[{}]", names.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(containers: &[&str], init: &[&str], default: Option<&str>) -> Object {
        let named = |names: &[&str]| names.iter().map(|name| serde_json::json!({ "name": name })).collect::<Vec<_>>();
        let annotations = default.map(|name| serde_json::json!({ DEFAULT_CONTAINER: name }));
        Object::try_from(serde_json::json!({
            "metadata": { "name": "p", "annotations": annotations },
            "spec": { "containers": named(containers), "initContainers": named(init) },
        }))
        .unwrap()
    }

    #[test]
    fn the_container_is_found_or_asked_for() {
        assert_eq!(container(&pod(&["a"], &[], None), None).unwrap(), "a");
        assert_eq!(container(&pod(&["a", "b"], &["i"], None), Some("i")).unwrap(), "i");
        assert_eq!(container(&pod(&["a", "b"], &[], Some("b")), None).unwrap(), "b");
        let text = container(&pod(&["a", "b"], &["i"], Some("x")), None).unwrap_err().to_string();
        let wanted =
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]";
        assert_eq!(text, wanted);
        let text = container(&pod(&["a"], &[], None), Some("z")).unwrap_err().to_string();
        assert_eq!(text, "container z is not valid for pod p");
    }
}
