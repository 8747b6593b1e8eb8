//! What all requests share.

use crate::admission::AdmissionChain;
use crate::auth::{Auth, Authenticator, Authorizer};
use crate::config::Config;
use crate::registry::Registry;

/// The parts of a running server, shared by all requests.
pub struct Server {
    pub(crate) config: Config,
    pub(crate) registry: Registry,
    pub(crate) auth: Auth,
    pub(crate) admission: AdmissionChain,
}

impl Server {
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    pub fn authenticator(&self) -> &dyn Authenticator {
        self.auth.authenticator.as_ref()
    }

    pub fn authorizer(&self) -> &dyn Authorizer {
        self.auth.authorizer.as_ref()
    }

    pub fn admission(&self) -> &AdmissionChain {
        &self.admission
    }
}
