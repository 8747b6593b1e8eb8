//! A worker's clients of the API: HTTPS to the control plane, which is verified by the cluster's authority.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kminik_base::pki::Identity;
use kube::client::{Body, ConfigExt};
use kube::config::AuthInfo;
use kube::{Client, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tower::{BoxError, ServiceBuilder};

use super::config::Join;

const CONNECT: Duration = Duration::from_secs(5);
/// A control plane that is gone without a word is noticed within half a minute: a watch by itself would wait for ever.
const SILENCE: Duration = Duration::from_secs(10);
const PROBES: (Duration, u32) = (Duration::from_secs(5), 4);
const UNANSWERED: Duration = Duration::from_secs(30);

/// Who the client is.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// A bootstrap token.
    Token(&'a str),
    Certificate(&'a Identity),
    /// Another user, by the right to act as them.
    As(&'a str, &'a Identity),
}

#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("{0:?} is not an address of a server")]
    Address(String),
    #[error("the cluster's authority cannot be read")]
    Authority(#[source] rustls::pki_types::pem::Error),
    #[error("cannot make a client of the API")]
    Client(#[source] Box<kube::Error>),
}

/// A client of the control plane's API. Nothing is sent yet. Must be called within a tokio runtime, which then carries it.
///
/// # Errors
/// When the address, the authority or the credential cannot be used.
pub fn client(join: &Join, credential: Credential<'_>) -> Result<Client, RemoteError> {
    let address = join.server.parse().map_err(|_| RemoteError::Address(join.server.clone()))?;
    let mut config = Config::new(address);
    let authorities: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(join.ca_pem.as_bytes()).collect();
    let authorities = authorities.map_err(RemoteError::Authority)?;
    config.root_cert = Some(authorities.iter().map(|authority| authority.to_vec()).collect());
    config.auth_info = match credential {
        Credential::Token(token) => AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() },
        Credential::Certificate(identity) => by_certificate(identity),
        Credential::As(user, identity) => AuthInfo { impersonate: Some(user.to_owned()), ..by_certificate(identity) },
    };
    let failed = |error| RemoteError::Client(Box::new(error));
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_keepalive(Some(SILENCE));
    connector.set_keepalive_interval(Some(PROBES.0));
    connector.set_keepalive_retries(Some(PROBES.1));
    connector.set_tcp_user_timeout(Some(UNANSWERED));
    let https = config.rustls_https_connector_with_connector(connector).map_err(failed)?;
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(https);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(failed)?)
        .layer(config.extra_headers_layer().map_err(failed)?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}

fn by_certificate(identity: &Identity) -> AuthInfo {
    AuthInfo {
        client_certificate_data: Some(BASE64_STANDARD.encode(&identity.cert_pem)),
        client_key_data: Some(BASE64_STANDARD.encode(&identity.key_pem).into()),
        ..AuthInfo::default()
    }
}
