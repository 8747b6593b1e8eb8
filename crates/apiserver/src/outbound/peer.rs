//! Whom to call.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::Value;
use url::Url;

use crate::config::CertificateAndKey;

/// The port of a service that names none.
const DEFAULT_PORT: u16 = 443;

/// Another server, and how it is known. Equal peers share their connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    pub place: Place,
    pub security: Security,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A name or an address, the latter without brackets.
    Host { host: String, port: u16 },
    /// A port of a service, by its number there.
    Service { namespace: String, name: String, port: u16 },
}

impl Place {
    /// The host as a certificate of the server names it.
    pub fn host(&self) -> String {
        match self {
            Place::Host { host, .. } => host.clone(),
            Place::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        }
    }

    /// Host and port as they stand in a URL and in a `Host` header.
    pub fn authority(&self) -> String {
        join(&self.host(), self.port())
    }

    pub fn port(&self) -> u16 {
        let (Place::Host { port, .. } | Place::Service { port, .. }) = self;
        *port
    }
}

/// How a connection is secured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// Not at all: plain text.
    Plain,
    Tls(Trust),
}

/// Both sides of a TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Trust {
    pub verify: Verify,
    /// The certificate by which this server is known there.
    pub identity: Option<CertificateAndKey>,
}

/// What a server's certificate is checked against.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verify {
    /// The roots of the public web.
    Public,
    /// A bundle of PEM certificates.
    Bundle(Bytes),
    /// Nothing: its address says who it is, or its owner asks for it.
    Nothing,
}

/// A peer with the URL below which it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub peer: Peer,
    /// Absolute, without query: `https://svc.ns.svc:443/path`.
    pub url: String,
}

/// Why a configuration leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("webhook configuration must have either service or URL")]
    Nowhere,
    #[error("Unparsable URL: {0}")]
    Url(String),
    #[error("unable to load root certificates: {0}")]
    Bundle(base64::DecodeError),
}

impl Target {
    /// Reads a WebhookClientConfig, of admission or conversion: `url` or `service`, and `caBundle`.
    ///
    /// # Errors
    /// When it names no server.
    pub fn of_client_config(config: &Value) -> Result<Target, TargetError> {
        let bundle = config.get("caBundle").and_then(Value::as_str).unwrap_or_default();
        let bundle = BASE64_STANDARD.decode(bundle).map_err(TargetError::Bundle)?;
        let verify = if bundle.is_empty() { Verify::Public } else { Verify::Bundle(bundle.into()) };
        let trust = Trust { verify, identity: None };
        if let Some(service) = config.get("service").filter(|service| service.is_object()) {
            let text = |key: &str| service.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let port = service.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
            return Ok(Target::of_service(text("namespace"), text("name"), port, &text("path"), trust));
        }
        match config.get("url").and_then(Value::as_str) {
            Some(url) if !url.is_empty() => Target::of_url(url, trust),
            _ => Err(TargetError::Nowhere),
        }
    }

    /// A path of a service; without a port, 443 is meant.
    pub fn of_service(namespace: String, name: String, port: Option<u16>, path: &str, trust: Trust) -> Target {
        let port = port.filter(|port| *port != 0).unwrap_or(DEFAULT_PORT);
        let place = Place::Service { namespace, name, port };
        let slash = if path.starts_with('/') { "" } else { "/" };
        let url = format!("https://{}{slash}{path}", place.authority());
        Target { peer: Peer { place, security: Security::Tls(trust) }, url }
    }

    fn of_url(text: &str, trust: Trust) -> Result<Target, TargetError> {
        let url = Url::parse(text).map_err(|error| TargetError::Url(error.to_string()))?;
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(TargetError::Url(format!("{text:?} names no host")));
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        let security = if url.scheme() == "https" { Security::Tls(trust) } else { Security::Plain };
        let mut base = url;
        base.set_query(None);
        base.set_fragment(None);
        Ok(Target { peer: Peer { place: Place::Host { host, port }, security }, url: base.into() })
    }
}

/// Host and port, with brackets where an address needs them.
pub(super) fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn target(config: Value) -> Result<(String, String), TargetError> {
        Target::of_client_config(&config).map(|target| (target.peer.place.authority(), target.url))
    }

    #[test]
    fn configurations_name_a_service_or_a_url() {
        let found = |authority: &str, url: &str| Ok((authority.to_owned(), url.to_owned()));
        assert_eq!(
            target(json!({"service": {"namespace": "n", "name": "s", "path": "/p", "port": 8443}})),
            found("s.n.svc:8443", "https://s.n.svc:8443/p")
        );
        assert_eq!(
            target(json!({"service": {"namespace": "n", "name": "s"}})),
            found("s.n.svc:443", "https://s.n.svc:443/")
        );
        assert_eq!(target(json!({"url": "https://h.example/p"})), found("h.example:443", "https://h.example/p"));
        assert_eq!(target(json!({"url": "https://[::1]:9/p"})), found("[::1]:9", "https://[::1]:9/p"));
        assert_eq!(target(json!({})), Err(TargetError::Nowhere));
        assert!(matches!(target(json!({"url": "no url"})), Err(TargetError::Url(_))));
    }

    #[test]
    fn a_bundle_replaces_the_public_roots() {
        let verify = |bundle: &str| {
            let config = json!({"url": "https://h/", "caBundle": bundle});
            match Target::of_client_config(&config).map(|target| target.peer.security) {
                Ok(Security::Tls(trust)) => Some(trust.verify),
                _ => None,
            }
        };
        assert_eq!(verify(""), Some(Verify::Public));
        assert_eq!(verify("eA=="), Some(Verify::Bundle(Bytes::from_static(b"x"))));
        assert_eq!(verify("*"), None);
    }
}
