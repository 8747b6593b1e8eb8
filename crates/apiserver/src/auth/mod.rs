//! Who is asking, and may they: authentication and authorisation.
//!
//! Identities come from a front proxy ([`request_header`]), client certificates ([`x509`]) and tokens ([`bearer`]) of
//! service accounts and of machines that want to join; whoever shows none of them is anonymous, and only for health, version
//! and what a joining machine must know. Rights come from the group `system:masters`, the node
//! authorizer ([`node`]) and role-based access control ([`rbac`]), asked in this order.

pub mod bearer;
pub mod bootstrap_token;
mod impersonate;
pub mod issuer;
pub(crate) mod meters;
pub mod node;
pub mod rbac;
pub mod request_header;
pub mod reviews;
pub(crate) mod secret_token;
pub mod service_account;
pub mod token;
pub mod token_request;
pub mod x509;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use http::request::Parts;
use jiff::Timestamp;
use kminik_meta::StatusError;
use parking_lot::Mutex;

use self::bearer::BearerTokens;
use self::bootstrap_token::BootstrapTokens;
pub use self::impersonate::impersonate;
use self::meters::Counted;
use self::node::NodeAuthorizer;
use self::rbac::Rbac;
pub use self::rbac::bootstrap;
use self::request_header::RequestHeaders;
use self::service_account::ServiceAccountTokens;
use self::token::{KeyError, TokenKey};
use self::x509::ClientCertificates;
use crate::config::Config;
use crate::storage::cache::Cache;

/// Group of every request whose identity was proven.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of requests without credentials.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Name of requests without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group that may do anything.
pub const MASTERS: &str = "system:masters";

/// An identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    /// May be empty.
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A proven identity with these groups and `system:authenticated`.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        groups.push(AUTHENTICATED.to_owned());
        UserInfo { name: name.into(), groups, ..Default::default() }
    }

    /// The identity of a request without credentials.
    pub fn anonymous() -> Self {
        UserInfo { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..Default::default() }
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}

/// What the transport knows of the peer: whom its certificate names, and whom the handshake has verified it to be.
#[derive(Clone, Debug)]
pub struct PeerCertificates {
    /// `None` where the client sent none that can be read.
    pub named: Option<Arc<x509::Named>>,
    /// The client CA has signed it.
    pub client: bool,
    /// The front proxy's CA has signed it.
    pub front_proxy: bool,
}

impl PeerCertificates {
    /// Whom the certificate names now.
    fn user(&self) -> Option<&UserInfo> {
        self.named.as_ref()?.user_at(Timestamp::now())
    }

    /// Whether it is a node of the cluster.
    pub(crate) fn is_node(&self) -> bool {
        self.client && self.user().is_some_and(|user| user.in_group(node::NODES_GROUP))
    }
}

/// Something that an authenticator has found besides whom a request is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Key and value of an audit annotation.
    Audit(&'static str, String),
    /// For the client.
    Warning(&'static str),
}

/// What authenticators have found of a request, until it is known whom it is from. An extension of the request where somebody
/// wants it.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Mutex<Vec<Note>>>);

impl Notes {
    fn add(&self, notes: impl IntoIterator<Item = Note>) {
        self.0.lock().extend(notes);
    }

    pub(crate) fn take(&self) -> Vec<Note> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Finds out who a request is from.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// `None`: this authenticator sees no credentials of its kind.
    ///
    /// # Errors
    /// Credentials are there but wrong; the request is answered with 401.
    async fn authenticate(&self, request: &Parts, peer: &PeerCertificates) -> Result<Option<UserInfo>, StatusError>;
}

/// What is asked of an [`Authorizer`].
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    pub user: UserInfo,
    /// RBAC verb: `get`, `deletecollection`, `impersonate`, `approve` … or the lower-case HTTP method for non-resource paths.
    pub verb: String,
    /// Set for requests of resources; then `path` is not looked at.
    pub resource_request: bool,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// The URL's path.
    pub path: String,
    /// The request's selectors as sent; the node authorizer looks for `spec.nodeName=`.
    pub field_selector: String,
    pub label_selector: String,
}

/// An authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed; the reason is for logs and access reviews.
    Allow { reason: String },
    /// Not known to this authorizer; the next one is asked. Nobody's allowing means forbidden.
    NoOpinion { reason: String },
    /// Forbidden, whatever others say.
    Deny { reason: String },
}

impl Decision {
    pub fn reason(&self) -> &str {
        match self {
            Decision::Allow { reason } | Decision::NoOpinion { reason } | Decision::Deny { reason } => reason,
        }
    }

    pub fn allowed(&self) -> bool {
        matches!(self, Decision::Allow { .. })
    }
}

/// A rule as SelfSubjectRulesReview reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSummary {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    pub resource_names: Vec<String>,
    pub non_resource_urls: Vec<String>,
}

/// Decides whether an identity may do something.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    async fn authorize(&self, attributes: &Attributes) -> Decision;
    /// All rules this authorizer knows for the user in a namespace.
    async fn rules(&self, _user: &UserInfo, _namespace: &str) -> Vec<RuleSummary> {
        Vec::new()
    }
}

/// Asks authenticators in order; the first that knows the credentials decides.
pub struct AuthenticatorChain(pub Vec<Arc<dyn Authenticator>>);

#[async_trait]
impl Authenticator for AuthenticatorChain {
    async fn authenticate(&self, request: &Parts, peer: &PeerCertificates) -> Result<Option<UserInfo>, StatusError> {
        for authenticator in &self.0 {
            if let Some(user) = authenticator.authenticate(request, peer).await? {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }
}

/// Asks authorizers in order; the first with an opinion decides.
pub struct AuthorizerChain(pub Vec<Arc<dyn Authorizer>>);

#[async_trait]
impl Authorizer for AuthorizerChain {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        let mut reasons = Vec::new();
        for authorizer in &self.0 {
            match authorizer.authorize(attributes).await {
                Decision::NoOpinion { reason } if reason.is_empty() => {}
                Decision::NoOpinion { reason } => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion { reason: reasons.join("\n") }
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Vec<RuleSummary> {
        let mut rules = Vec::new();
        for authorizer in &self.0 {
            rules.extend(authorizer.rules(user, namespace).await);
        }
        rules
    }
}

/// `system:masters` may do everything, before anything else is asked.
pub struct MastersAuthorizer;

#[async_trait]
impl Authorizer for MastersAuthorizer {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.in_group(MASTERS) {
            Decision::Allow { reason: String::new() }
        } else {
            Decision::NoOpinion { reason: String::new() }
        }
    }
}

/// Everything about identities and rights, made once a server.
pub struct Auth {
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    /// Issues the tokens of service accounts.
    pub tokens: Arc<ServiceAccountTokens>,
    /// Accepts bearer tokens of all kinds.
    pub bearer: Arc<BearerTokens>,
    pub rbac: Arc<Rbac>,
}

impl Auth {
    /// Over the objects in the cache.
    ///
    /// # Errors
    /// When the key of the service accounts cannot be used.
    pub fn new(config: &Config, cache: Arc<Cache>) -> Result<Self, KeyError> {
        let key = TokenKey::from_pem(&config.service_account_key_pem)?;
        let tokens = Arc::new(ServiceAccountTokens::new(key, config.service_account_issuer.clone(), cache.clone()));
        let metrics = cache.metrics().clone();
        let rbac = Arc::new(Rbac::new(cache.clone()));
        let bearer = Arc::new(BearerTokens::new(
            vec![Arc::new(BootstrapTokens(cache.clone())), tokens.clone()],
            tokens.audiences(),
        ));
        let authenticators: Vec<Arc<dyn Authenticator>> = vec![
            Arc::new(RequestHeaders),
            Arc::new(ClientCertificates(metrics.clone())),
            bearer.clone(),
            Arc::new(AnonymousReader),
        ];
        let counted = |authorizer, labels| Arc::new(Counted::new(authorizer, metrics.clone(), labels));
        let authorizers: Vec<Arc<dyn Authorizer>> = vec![
            Arc::new(MastersAuthorizer),
            counted(Arc::new(NodeAuthorizer::new(cache)), ["Node", "node"]),
            counted(rbac.clone(), ["RBAC", "rbac"]),
        ];
        Ok(Auth {
            authenticator: Arc::new(AuthenticatorChain(authenticators)),
            authorizer: Arc::new(AuthorizerChain(authorizers)),
            tokens,
            bearer,
            rbac,
        })
    }
}

/// Whoever shows no credentials may ask for a few things, as nobody in particular.
pub struct AnonymousReader;

/// Paths that anybody may ask for: health, version, and what a machine must know before it can prove who it is.
const OPEN_PATHS: [&str; 5] =
    ["/healthz", "/livez", "/readyz", "/version", "/api/v1/namespaces/kube-public/configmaps/cluster-info"];

#[async_trait]
impl Authenticator for AnonymousReader {
    async fn authenticate(&self, request: &Parts, _peer: &PeerCertificates) -> Result<Option<UserInfo>, StatusError> {
        Ok(OPEN_PATHS.contains(&request.uri.path().trim_end_matches('/')).then(UserInfo::anonymous))
    }
}

/// The 403 for a request that no authorizer allowed, in upstream's words.
pub fn forbidden(attributes: &Attributes, reason: &str) -> StatusError {
    let user = &attributes.user.name;
    let mut why = if attributes.resource_request {
        let resource = match attributes.subresource.as_str() {
            "" => attributes.resource.clone(),
            subresource => format!("{}/{subresource}", attributes.resource),
        };
        let scope = match attributes.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let (verb, group) = (&attributes.verb, &attributes.group);
        format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}")
    } else {
        format!("User {user:?} cannot {} path {:?}", attributes.verb, attributes.path)
    };
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    StatusError::forbidden(&attributes.group, &attributes.resource, &attributes.name, why)
}
