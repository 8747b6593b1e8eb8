//! The command line's client of a cluster's API.

use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::{pause, pki};
use crate::drivers;
use crate::home::Home;
use crate::profile::Profile;
use crate::reason::{Failure, K8S_NOT_RESPONDING, MK_INTERNAL, OrFail, Outcome};

/// A client with the admin's certificate. Nothing is sent yet.
pub async fn connect(home: &Home, profile: &Profile) -> Outcome<Client> {
    let path = pki::write_kubeconfig(home, profile)?;
    let kubeconfig = Kubeconfig::read_from(&path).or_fail(&MK_INTERNAL, "cannot read the profile's kubeconfig")?;
    let options = KubeConfigOptions { context: Some(profile.name.clone()), ..Default::default() };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .or_fail(&MK_INTERNAL, "cannot use the profile's kubeconfig")?;
    // The API is on this machine: a proxy can only be in the way.
    config.proxy_url = None;
    config.connect_timeout = Some(Duration::from_secs(3));
    Client::try_from(config).or_fail(&K8S_NOT_RESPONDING, "cannot make a client")
}

/// A client of a cluster that answers.
///
/// # Errors
/// As [`silence`] says.
pub async fn ready(home: &Home, profile: &Profile) -> Outcome<Client> {
    let client = connect(home, profile).await?;
    if is_ready(&client).await {
        return Ok(client);
    }
    let unknown = || format!("the API of the cluster {:?} does not answer", profile.name);
    Err(silence(home, profile).await.unwrap_or_else(|| Failure::new(&K8S_NOT_RESPONDING, unknown())))
}

/// Bound on asking a node whose API does not answer.
const ASKED_WITHIN: Duration = Duration::from_secs(5);

/// Why a cluster that does not answer does not, if that is its user's own doing: it is stopped (`GUEST_NOT_RUNNING`) or paused
/// (`K8S_NOT_RESPONDING`).
pub async fn silence(home: &Home, profile: &Profile) -> Option<Failure> {
    let machine = profile.control_plane();
    let driver = match drivers::of_running(home, machine).await {
        Ok(driver) => driver,
        Err(failure) => return Some(failure),
    };
    let state = tokio::time::timeout(ASKED_WITHIN, pause::state(driver.as_ref(), machine)).await.ok()?.ok()?;
    state.control_plane.then(|| {
        Failure::new(&K8S_NOT_RESPONDING, format!("the cluster {:?} is paused", profile.name))
            .advise(format!("Run: kminik unpause -p {}", profile.name))
    })
}

/// A plain HTTPS client with the admin's certificate, for bodies that are streamed. Nothing is sent yet.
pub fn https(home: &Home, profile: &Profile) -> Outcome<reqwest::Client> {
    let fail = "cannot make a client";
    let dir = profile.pki_dir(home);
    let ca = reqwest::Certificate::from_pem(pki::read(&dir, "ca.crt")?.as_bytes()).or_fail(&MK_INTERNAL, fail)?;
    let identity = format!("{}\n{}", pki::read(&dir, "client.crt")?, pki::read(&dir, "client.key")?);
    let identity = reqwest::Identity::from_pem(identity.as_bytes()).or_fail(&MK_INTERNAL, fail)?;
    reqwest::Client::builder()
        .tls_certs_only([ca])
        .identity(identity)
        .no_proxy()
        .connect_timeout(Duration::from_secs(5))
        // A node that is gone without a word is noticed, however long a transfer may take.
        .tcp_keepalive(Duration::from_secs(10))
        .tcp_keepalive_interval(Duration::from_secs(5))
        .tcp_keepalive_retries(4)
        .tcp_user_timeout(Duration::from_secs(30))
        .build()
        .or_fail(&MK_INTERNAL, fail)
}

/// Whether the API says it is ready, within two seconds.
pub async fn is_ready(client: &Client) -> bool {
    let request = http::Request::get("/readyz").body(Vec::new());
    let Ok(request) = request else { return false };
    matches!(tokio::time::timeout(Duration::from_secs(2), client.request_text(request)).await, Ok(Ok(_)))
}
