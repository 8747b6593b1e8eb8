//! A container engine that speaks Docker's API: which one is meant, and connections to it, here or on another machine.
//!
//! ```text
//! DOCKER_HOST, else DOCKER_CONTEXT, else the configuration's currentContext, else the first socket that answers
//!    └─► Endpoint (can be kept) ─► Engine: unix socket │ TCP, with TLS where it is asked for │ ssh HOST docker system dial-stdio
//! ```

mod dial;
mod endpoint;

use std::io;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::SystemVersion;

pub use self::dial::Duplex;
pub use self::endpoint::Endpoint;
use crate::reason::{
    DRV_ENGINE_ADDRESS, DRV_NOT_HEALTHY, Failure, GUEST_ARCHITECTURE, OrFail, Outcome, PROVIDER_DOCKER_NEWGRP,
    PROVIDER_DOCKER_NOT_FOUND, PROVIDER_DOCKER_NOT_RUNNING, PROVIDER_DOCKER_VERSION_LOW,
    PROVIDER_DOCKER_WINDOWS_CONTAINERS,
};

/// Bound on an engine's first answer.
const HELLO: Duration = Duration::from_secs(6);
/// Of Docker 20.10: the first with private cgroup namespaces on both versions of cgroups.
const LEAST_API: (u32, u32) = (1, 41);
/// This binary's, as engines call it.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// An engine that can be asked; nothing is sent before it is.
#[derive(Clone)]
pub struct Engine {
    pub docker: Docker,
    pub endpoint: Endpoint,
}

impl Engine {
    /// The engine kept in `endpoint`, or the one that the environment means.
    ///
    /// # Errors
    /// `DRV_ENGINE_ADDRESS` for an address, a context or certificates that cannot be used.
    pub async fn connect(endpoint: Option<&Endpoint>) -> Outcome<Self> {
        let endpoint = match endpoint {
            Some(endpoint) => endpoint.clone(),
            None => endpoint::find().await.map_err(|error| unusable(&error))?,
        };
        let address = endpoint.address().map_err(|error| unusable(&error))?;
        let docker = dial::client(&address, endpoint.tls.as_ref())
            .or_fail(&DRV_ENGINE_ADDRESS, format_args!("the engine at {} cannot be used", endpoint.host))?;
        Ok(Self { docker, endpoint })
    }

    /// Asks it what it is: `Docker 20.10.24 at unix:///var/run/docker.sock`.
    ///
    /// # Errors
    /// One of `PROVIDER_DOCKER_…` for what does not answer or cannot run nodes.
    pub async fn check(&self) -> Outcome<String> {
        let host = &self.endpoint.host;
        match tokio::time::timeout(HELLO, self.docker.version()).await {
            Ok(Ok(version)) => suitable(&version).map(|about| format!("{about} at {host}")),
            Ok(Err(error)) => Err(silent(host, &error)),
            Err(_) => Err(Failure::new(
                &PROVIDER_DOCKER_NOT_RUNNING,
                format!("the engine at {host} did not answer within {} s", HELLO.as_secs()),
            )),
        }
    }
}

fn unusable(error: &endpoint::EndpointError) -> Failure {
    Failure::because(&DRV_ENGINE_ADDRESS, "it cannot be told which container engine is meant", error)
}

/// Why an engine does not answer.
fn silent(host: &str, error: &Error) -> Failure {
    let mut kind = if let Error::IOError { err } = error { Some(err.kind()) } else { None };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        kind = cause.downcast_ref::<io::Error>().map(io::Error::kind).or(kind);
        source = cause.source();
    }
    match kind {
        Some(io::ErrorKind::PermissionDenied) => {
            Failure::new(&PROVIDER_DOCKER_NEWGRP, format!("the engine at {host} refuses this user"))
        }
        Some(io::ErrorKind::NotFound) if host.starts_with("unix:") => {
            Failure::new(&PROVIDER_DOCKER_NOT_FOUND, format!("there is no engine at {host}"))
        }
        Some(_) => {
            Failure::because(&PROVIDER_DOCKER_NOT_RUNNING, format_args!("the engine at {host} does not answer"), error)
        }
        None => {
            Failure::because(&DRV_NOT_HEALTHY, format_args!("what answers at {host} is no engine that works"), error)
        }
    }
}

/// What it is, if nodes can run there.
fn suitable(version: &SystemVersion) -> Outcome<String> {
    let number = version.version.as_deref().unwrap_or("of an unknown version");
    let is_podman = version.components.iter().flatten().any(|component| component.name.starts_with("Podman"));
    let about = format!("{} {number}", if is_podman { "Podman" } else { "Docker" });
    if version.os.as_deref().is_some_and(|os| os != "linux") {
        return Err(Failure::new(
            &PROVIDER_DOCKER_WINDOWS_CONTAINERS,
            format!("the engine ({about}) runs Windows containers"),
        ));
    }
    let api = version.api_version.as_deref().and_then(|api| {
        let (major, minor) = api.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    });
    if api.is_some_and(|api| api < LEAST_API) {
        return Err(Failure::new(&PROVIDER_DOCKER_VERSION_LOW, format!("the engine ({about}) is too old")));
    }
    match version.arch.as_deref() {
        Some(theirs) if theirs != ARCHITECTURE => Err(Failure::new(
            &GUEST_ARCHITECTURE,
            format!("the engine's machine is of {theirs}, this kminik of {ARCHITECTURE}"),
        )
        .advise("Use the kminik for that architecture.")),
        _ => Ok(about),
    }
}

/// `None` for what is not there.
pub fn found<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(api: &str, os: &str, arch: &str) -> SystemVersion {
        let text = |text: &str| Some(text.to_owned());
        SystemVersion {
            version: text("1.2.3"),
            api_version: text(api),
            os: text(os),
            arch: text(arch),
            ..Default::default()
        }
    }

    #[test]
    fn engines_that_can_run_nodes() {
        assert_eq!(suitable(&version("1.41", "linux", ARCHITECTURE)).unwrap(), "Docker 1.2.3");
        assert_eq!(suitable(&SystemVersion::default()).unwrap(), "Docker of an unknown version");
        for (version, reason) in [
            (version("1.40", "linux", ARCHITECTURE), "PROVIDER_DOCKER_VERSION_LOW"),
            (version("1.41", "windows", ARCHITECTURE), "PROVIDER_DOCKER_WINDOWS_CONTAINERS"),
            (version("1.41", "linux", "s390x"), "GUEST_ARCHITECTURE"),
        ] {
            assert_eq!(suitable(&version).unwrap_err().reason.id, reason);
        }
    }

    #[test]
    fn why_an_engine_is_silent() {
        let of = |kind: io::ErrorKind| silent("unix:///x", &Error::from(io::Error::from(kind))).reason.id;
        assert_eq!(of(io::ErrorKind::PermissionDenied), "PROVIDER_DOCKER_NEWGRP");
        assert_eq!(of(io::ErrorKind::NotFound), "PROVIDER_DOCKER_NOT_FOUND");
        assert_eq!(of(io::ErrorKind::ConnectionRefused), "PROVIDER_DOCKER_NOT_RUNNING");
        let far = silent("ssh://h", &Error::from(io::Error::from(io::ErrorKind::NotFound)));
        assert_eq!(far.reason.id, "PROVIDER_DOCKER_NOT_RUNNING", "it is ssh that is not found");
    }
}
