//! `nodes/proxy`, `pods/proxy`, `services/proxy`: any HTTP request to what the name stands for.

use std::net::IpAddr;

use async_trait::async_trait;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::{Request, Response, StatusCode};
use kminik_meta::{Object, StatusError};
use serde_json::Value;

use super::forward::{ForwardError, Target, send};
use super::html;
use super::kubelet::Kubelet;
use crate::http::body::{RequestBody, ResponseBody};
use crate::outbound::{Peer, Place, Security, Trust, Verify};
use crate::registry::action::{ActionContext, Connect};
use crate::registry::def::Verb;

const METHODS: &[(&str, Verb)] = &[
    ("GET", Verb::Get),
    ("HEAD", Verb::Get),
    ("POST", Verb::Create),
    ("PUT", Verb::Update),
    ("PATCH", Verb::Patch),
    ("DELETE", Verb::Delete),
    ("OPTIONS", Verb::Get),
];

/// `nodes/proxy`.
pub(crate) struct NodeProxy;
/// `pods/proxy`.
pub(crate) struct PodProxy;
/// `services/proxy`.
pub(crate) struct ServiceProxy;

#[async_trait]
impl Connect for NodeProxy {
    fn methods(&self) -> &'static [(&'static str, Verb)] {
        METHODS
    }

    fn options_kind(&self) -> &'static str {
        "NodeProxyOptions"
    }

    async fn connect(
        &self,
        ctx: ActionContext<'_>,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, StatusError> {
        let named = Named::parse("node", ctx.name)?;
        let kubelet = Kubelet::of_node(ctx.registry(), named.name).await?;
        let port = named.port_number("node")?;
        if port.is_none_or(|port| port == kubelet.port) {
            return forward(&ctx, kubelet.peer(ctx.server.config()), request).await;
        }
        proxyable(&kubelet.host)?;
        forward(&ctx, named.peer(kubelet.host, port.unwrap_or(kubelet.port)), request).await
    }
}

#[async_trait]
impl Connect for PodProxy {
    fn methods(&self) -> &'static [(&'static str, Verb)] {
        METHODS
    }

    fn options_kind(&self) -> &'static str {
        "PodProxyOptions"
    }

    async fn connect(
        &self,
        ctx: ActionContext<'_>,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, StatusError> {
        let named = Named::parse("pod", ctx.name)?;
        let pod = ctx.registry().object("", "pods", ctx.namespace, named.name).await?;
        let pod = pod.ok_or_else(|| StatusError::not_found("", "pods", named.name))?;
        let host = pod.str(&["status", "podIP"]).unwrap_or_default().to_owned();
        if host.is_empty() {
            return Err(StatusError::bad_request("address not allowed: the pod has no address"));
        }
        proxyable(&host)?;
        let first = || {
            let containers = pod.array(&["spec", "containers"]).iter();
            let ports =
                containers.filter_map(|container| container.get("ports")?.get(0)?.get("containerPort")?.as_u64());
            ports.filter_map(|port| u16::try_from(port).ok()).next()
        };
        let default = if named.scheme == "https" { 443 } else { 80 };
        let port = named.port_number("pod")?.or_else(first).unwrap_or(default);
        forward(&ctx, named.peer(host, port), request).await
    }
}

#[async_trait]
impl Connect for ServiceProxy {
    fn methods(&self) -> &'static [(&'static str, Verb)] {
        METHODS
    }

    fn options_kind(&self) -> &'static str {
        "ServiceProxyOptions"
    }

    async fn connect(
        &self,
        ctx: ActionContext<'_>,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, StatusError> {
        let named = Named::parse("service", ctx.name)?;
        let service = ctx.registry().object("", "services", ctx.namespace, named.name).await?;
        let service = service.ok_or_else(|| StatusError::not_found("", "services", named.name))?;
        let port = service_port(&service, &named)?;
        let endpoint = ctx.server.outbound().ready_endpoint(ctx.namespace, service.name(), &port);
        let (host, number) = endpoint.map_err(|error| StatusError::service_unavailable(error.to_string()))?;
        proxyable(&host)?;
        forward(&ctx, named.peer(host, number), request).await
    }
}

/// `name`, `name:port`, `scheme:name:port`; a port that is empty counts as none.
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Named<'a> {
    fn parse(kind: &str, text: &'a str) -> Result<Named<'a>, StatusError> {
        let parts: Vec<&str> = text.split(':').collect();
        let named = match parts.as_slice() {
            [name] => Named { scheme: "", name, port: "" },
            [name, port] => Named { scheme: "", name, port },
            [scheme @ ("" | "http" | "https"), name, port] => Named { scheme, name, port },
            _ => return Err(StatusError::bad_request(format!("invalid {kind} request {text:?}"))),
        };
        if named.name.is_empty() {
            return Err(StatusError::bad_request(format!("invalid {kind} request {text:?}")));
        }
        Ok(named)
    }

    /// The server at an address inside the cluster, whose certificate nobody verifies, as upstream does it.
    fn peer(&self, host: String, port: u16) -> Peer {
        let security = match self.scheme {
            "https" => Security::Tls(Trust { verify: Verify::Nothing, identity: None }),
            _ => Security::Plain,
        };
        Peer { place: Place::Host { host, port }, security }
    }

    fn port_number(&self, kind: &str) -> Result<Option<u16>, StatusError> {
        if self.port.is_empty() {
            return Ok(None);
        }
        let bad = || StatusError::bad_request(format!("invalid {kind} request \"{}:{}\"", self.name, self.port));
        self.port.parse().ok().filter(|port| *port != 0).map(Some).ok_or_else(bad)
    }
}

/// The port of a service that a request names by name or number: its name in the endpoints.
fn service_port(service: &Object, named: &Named<'_>) -> Result<String, StatusError> {
    let ports = service.array(&["spec", "ports"]);
    let name_of = |port: &Value| port.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let found = match named.port {
        // A service of one port needs none named; of several, the one without a name is meant.
        "" => match ports {
            [only] => Some(only),
            several => several.iter().find(|port| name_of(port).is_empty()),
        },
        wanted => {
            let number: Option<u64> = wanted.parse().ok();
            ports.iter().find(|port| {
                name_of(port) == wanted || (number.is_some() && port.get("port").and_then(Value::as_u64) == number)
            })
        }
    };
    let missing = || {
        StatusError::service_unavailable(format!("no service port {:?} found for service {:?}", named.port, named.name))
    };
    found.map(name_of).ok_or_else(missing)
}

/// Objects are written by users: an address that leads to this machine itself is not followed.
fn proxyable(host: &str) -> Result<(), StatusError> {
    let Ok(address) = host.parse::<IpAddr>() else {
        return if host == "localhost" { Err(StatusError::bad_request("address not allowed")) } else { Ok(()) };
    };
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_loopback() || link_local || address.is_unspecified() || address.is_multicast() {
        return Err(StatusError::bad_request("address not allowed"));
    }
    Ok(())
}

async fn forward(
    ctx: &ActionContext<'_>,
    peer: Peer,
    mut request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, StatusError> {
    let uri = request.uri().clone();
    let (prefix, rest) = split(uri.path(), ctx.namespace.is_empty());
    if rest.is_empty() {
        // Relative links of the answer need the slash.
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        return redirect(&format!("{prefix}/{query}"));
    }
    let path = match uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    let (prefix, outer_host) = (prefix.to_owned(), request.headers().get(HOST).cloned());
    let forwarded = [("x-forwarded-uri", uri.path()), ("x-forwarded-proto", "https")];
    for (name, value) in forwarded {
        if let Ok(value) = HeaderValue::from_str(value) {
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    if let Some(host) = outer_host {
        request.headers_mut().insert(HeaderName::from_static("x-forwarded-host"), host);
    }
    let (host, port) = (peer.place.host(), peer.place.port());
    let target = Target { peer, path, claims: HeaderMap::new() };
    // A page whose links are rewritten cannot be compressed.
    request.headers_mut().remove(http::header::ACCEPT_ENCODING);
    let mut response = send(ctx.server.outbound(), &target, request).await.map_err(ForwardError::of_proxy)?;
    if let Some(location) = response.headers().get(LOCATION).and_then(|value| value.to_str().ok())
        && let Some(rewritten) = html::rewrite_url(location, &prefix, &host, port)
        && let Ok(rewritten) = HeaderValue::from_str(&rewritten)
    {
        response.headers_mut().insert(LOCATION, rewritten);
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().is_some_and(|kind| kind.trim() == "text/html")
        && !response.headers().contains_key(http::header::CONTENT_ENCODING)
    {
        return Ok(html::rewrite_response(response, prefix, host, port).await);
    }
    Ok(response)
}

fn redirect(to: &str) -> Result<Response<ResponseBody>, StatusError> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location =
        HeaderValue::from_str(to).map_err(|_| StatusError::bad_request("the path cannot be redirected to"))?;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// The URL's path up to `proxy`, and what follows, both escaped as sent.
fn split(path: &str, cluster_scoped: bool) -> (&str, &str) {
    // /api/v1/nodes/<name>/proxy, or with namespaces/<namespace> before the resource.
    let segments = if cluster_scoped { 5 } else { 7 };
    let end = path.match_indices('/').nth(segments).map_or(path.len(), |(at, _)| at);
    path.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_scheme_and_port() {
        let parse = |text| Named::parse("pod", text).map(|named| (named.scheme, named.name, named.port)).ok();
        assert_eq!(parse("p"), Some(("", "p", "")));
        assert_eq!(parse("p:80"), Some(("", "p", "80")));
        assert_eq!(parse("https:p:web"), Some(("https", "p", "web")));
        assert_eq!(parse(":p:80"), Some(("", "p", "80")));
        for bad in ["", ":", "ftp:p:1", "a:b:c:d"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn paths_are_split_as_sent() {
        let pods = "/api/v1/namespaces/a/pods/p/proxy";
        assert_eq!(split(&format!("{pods}/x%2Fy/"), false), (pods, "/x%2Fy/"));
        assert_eq!(split(pods, false), (pods, ""));
        assert_eq!(split("/api/v1/nodes/n/proxy/", true), ("/api/v1/nodes/n/proxy", "/"));
    }

    #[test]
    fn this_machine_is_not_proxied_to() {
        for bad in ["127.0.0.1", "::1", "169.254.169.254", "0.0.0.0", "fe80::1", "localhost"] {
            assert!(proxyable(bad).is_err(), "{bad}");
        }
        assert!(proxyable("10.244.0.5").is_ok() && proxyable("node-1").is_ok());
    }

    #[test]
    fn service_ports_by_name_number_or_alone() {
        let service = |ports: Value| Object::try_from(serde_json::json!({ "spec": { "ports": ports } })).unwrap();
        let two = service(serde_json::json!([{ "name": "web", "port": 80 }, { "name": "tls", "port": 443 }]));
        let one = service(serde_json::json!([{ "port": 8080 }]));
        let find = |service: &Object, text| service_port(service, &Named::parse("service", text).unwrap()).ok();
        assert_eq!(find(&two, "s:443").as_deref(), Some("tls"));
        assert_eq!(find(&two, "s:web").as_deref(), Some("web"));
        assert_eq!(find(&two, "s"), None);
        assert_eq!(find(&one, "s").as_deref(), Some(""));
        assert_eq!(find(&one, "s:9"), None);
    }
}
