//! A worker's identities. By the bootstrap token that its configuration has it asks for a certificate to reach the API with, by
//! that for one to serve its kubelet with; the control plane approves both and signs them. The token is not needed again: near
//! their end, certificates are asked for by those that there are. The keys never leave the node.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kminik_base::atomic_file::{self, FileError, SECRET};
use kminik_base::component::chain;
use kminik_base::pki::{Identity, NewRequest, PkiError, Subject, Validity};
use kminik_client::{Selection, until};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

use super::config::{Join, NodeConfig};
use super::remote::{self, Credential, RemoteError};

/// Bound on the way from a request to its certificate.
const ISSUE: Duration = Duration::from_secs(60);
/// When to ask again for what could not be renewed in time, in seconds: the control plane may be stopped for long.
const AGAIN: i64 = 600;
/// What the API allows to ask for, and what the signer gives at most, in seconds.
const LIFE: (u64, u64) = (600, 365 * 86_400);
const LIMIT_BYTES: u64 = 64 << 10;
const KEY: &str = "-----BEGIN PRIVATE KEY-----";

/// What a worker authenticates with.
#[derive(Debug)]
pub struct Joined {
    /// To the API, as the node.
    pub client: Identity,
    /// HTTPS of the kubelet.
    pub serving: Identity,
    /// When the first of them is to be issued anew, in seconds since the epoch.
    pub renew_at: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("cannot reach the control plane")]
    Remote(#[from] RemoteError),
    #[error("cannot ask for the certificate of {what}")]
    Ask {
        what: &'static str,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("cannot make the request for the certificate of {what}")]
    Make {
        what: &'static str,
        #[source]
        source: PkiError,
    },
    #[error("the control plane gives no certificate of {what}: {why}")]
    Refused { what: &'static str, why: String },
    #[error("the control plane gave no certificate of {what} within {} s", ISSUE.as_secs())]
    Late { what: &'static str },
    #[error("cannot keep a certificate")]
    Keep(#[from] FileError),
}

/// One certificate to have.
struct Wanted<'a> {
    what: &'static str,
    /// Below the directory of keys; what it is for is part of it.
    file: String,
    signer: &'static str,
    usage: &'static str,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    config: &'a NodeConfig,
}

impl<'a> Wanted<'a> {
    fn client(config: &'a NodeConfig) -> Self {
        Wanted {
            what: "the node",
            file: "kubelet-client.pem".into(),
            signer: "kubernetes.io/kube-apiserver-client-kubelet",
            usage: "client auth",
            names: Vec::new(),
            addresses: Vec::new(),
            config,
        }
    }

    fn serving(config: &'a NodeConfig) -> Self {
        let address: Ipv4Addr = config.node_address;
        Wanted {
            what: "the kubelet's server",
            file: format!("kubelet-serving-{address}.pem"),
            signer: "kubernetes.io/kubelet-serving",
            usage: "server auth",
            names: vec![config.node_name.clone()],
            addresses: vec![IpAddr::V4(address)],
            config,
        }
    }

    fn spec(&self, request_pem: String) -> CertificateSigningRequestSpec {
        let seconds = self.config.cert_expiration_seconds.clamp(LIFE.0, LIFE.1);
        CertificateSigningRequestSpec {
            request: ByteString(request_pem.into_bytes()),
            signer_name: self.signer.into(),
            usages: Some(vec!["digital signature".into(), self.usage.into()]),
            expiration_seconds: i32::try_from(seconds).ok(),
            ..CertificateSigningRequestSpec::default()
        }
    }
}

/// Reads the certificates of `dir`, asks for those that are missing or near their end at `now` (seconds since the epoch).
///
/// # Errors
/// When one that is needed cannot be had; PID 1 starts the process, and so this, again.
pub async fn ensure(dir: &Path, config: &NodeConfig, join: &Join, now: i64) -> Result<Joined, JoinError> {
    let (wanted, token) = (Wanted::client(config), Credential::Token(&join.token));
    let kept = read(&dir.join(&wanted.file))?;
    // The token may have passed since: what is still valid asks for its own successor.
    let valid = kept.as_ref().filter(|kept| ends_at(kept) > now);
    let credential = valid.map_or(token, Credential::Certificate);
    let client = have(dir, wanted, now, kept.clone(), || remote::client(join, credential)).await?;
    let wanted = Wanted::serving(config);
    let kept = read(&dir.join(&wanted.file))?;
    let serving = have(dir, wanted, now, kept, || remote::client(join, Credential::Certificate(&client))).await?;
    let due = |identity: &Identity| Validity::of(&identity.cert_pem).map_or(i64::MAX, |validity| validity.renew_at());
    let renew_at = due(&client).min(due(&serving));
    // Due already: it was asked for just now, in vain.
    let renew_at = if renew_at > now { renew_at } else { now + AGAIN };
    Ok(Joined { client, serving, renew_at })
}

/// The certificate that is kept if it is fresh, else a new one; else the kept one as long as it is valid.
async fn have(
    dir: &Path,
    wanted: Wanted<'_>,
    now: i64,
    kept: Option<Identity>,
    connect: impl FnOnce() -> Result<Client, RemoteError>,
) -> Result<Identity, JoinError> {
    let is_fresh = |kept: &Identity| Validity::of(&kept.cert_pem).is_ok_and(|validity| validity.is_fresh(now));
    if let Some(kept) = kept.as_ref().filter(|kept| is_fresh(kept)) {
        return Ok(kept.clone());
    }
    let asked = async {
        let client = connect()?;
        tokio::time::timeout(ISSUE, ask(&client, &wanted)).await.unwrap_or(Err(JoinError::Late { what: wanted.what }))
    };
    match (asked.await, kept.filter(|kept| ends_at(kept) > now)) {
        (Ok(issued), _) => {
            let text = format!("{}{}", issued.cert_pem, issued.key_pem);
            atomic_file::write(&dir.join(&wanted.file), text.as_bytes(), SECRET)?;
            tracing::info!(what = wanted.what, "certificate issued");
            Ok(issued)
        }
        (Err(error), Some(kept)) => {
            tracing::warn!(error = %chain(&error), "a certificate is not renewed yet");
            Ok(kept)
        }
        (Err(error), None) => Err(error),
    }
}

async fn ask(client: &Client, wanted: &Wanted<'_>) -> Result<Identity, JoinError> {
    let what = wanted.what;
    let failed = |source| JoinError::Ask { what, source: Box::new(source) };
    let subject = Subject::new(&format!("system:node:{}", wanted.config.node_name), Some("system:nodes"));
    let made = NewRequest::make(&subject, &wanted.names, &wanted.addresses)
        .map_err(|source| JoinError::Make { what, source })?;
    let request = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("csr-".into()), ..ObjectMeta::default() },
        spec: wanted.spec(made.request_pem),
        status: None,
    };
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let name = requests.create(&PostParams::default(), &request).await.map_err(failed)?.name_any();
    let is_answered = |request: &CertificateSigningRequest| answer(request).is_some();
    until::<CertificateSigningRequest>(client, &(), &Selection::object(&name), |found| {
        found.iter().any(|request| is_answered(request))
    })
    .await;
    let answered = requests.get(&name).await.map_err(failed)?;
    match answer(&answered) {
        Some(Ok(cert_pem)) => Ok(Identity { cert_pem, key_pem: made.key_pem }),
        Some(Err(why)) => Err(JoinError::Refused { what, why }),
        None => Err(JoinError::Late { what }),
    }
}

/// The certificate, or why there is none; `None` while that is open.
fn answer(request: &CertificateSigningRequest) -> Option<Result<String, String>> {
    let status = request.status.as_ref()?;
    let refusal =
        status.conditions.iter().flatten().find(|condition| matches!(condition.type_.as_str(), "Denied" | "Failed"));
    if let Some(refusal) = refusal {
        return Some(Err(refusal.message.clone().unwrap_or_else(|| refusal.type_.clone())));
    }
    let certificate = status.certificate.as_ref().filter(|certificate| !certificate.0.is_empty())?;
    Some(String::from_utf8(certificate.0.clone()).map_err(|_| "it is not PEM".to_owned()))
}

/// Certificate and key of one file, so that one never stands there without the other; `None` for what is no such file.
fn read(path: &Path) -> Result<Option<Identity>, FileError> {
    let text = atomic_file::read_optional(path, LIMIT_BYTES)?.and_then(|bytes| String::from_utf8(bytes).ok());
    Ok(text.and_then(|text| {
        let (cert_pem, key_pem) = text.split_at_checked(text.find(KEY)?)?;
        Some(Identity { cert_pem: cert_pem.to_owned(), key_pem: key_pem.to_owned() })
    }))
}

fn ends_at(identity: &Identity) -> i64 {
    Validity::of(&identity.cert_pem).map_or(i64::MIN, |validity| validity.not_after)
}

#[cfg(test)]
mod tests;
