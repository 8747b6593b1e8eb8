//! What all requests share.

use std::sync::Arc;

use crate::admission::AdmissionChain;
use crate::auth::{Authenticator, Authorizer};
use crate::config::Config;
use crate::registry::Registry;

/// The parts of a running server, shared by all requests.
pub struct Server {
    pub(crate) config: Config,
    pub(crate) registry: Registry,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) admission: AdmissionChain,
}

impl Server {
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn authenticator(&self) -> &dyn Authenticator {
        self.authenticator.as_ref()
    }

    pub fn authorizer(&self) -> &dyn Authorizer {
        self.authorizer.as_ref()
    }

    pub fn admission(&self) -> &AdmissionChain {
        &self.admission
    }
}
