//! The node's own certificates, issued from the cluster's authorities whenever the node process starts and one is missing,
//! near its end or for other addresses. When it is time for one the process ends, is started again by PID 1 and issues it;
//! containers go on meanwhile. So they are renewed before they expire and never by hand.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kminik_base::atomic_file::{self, FileError, PUBLIC, SECRET};
use kminik_base::pki::{Authority, Identity, PkiError, Subject, Usage, Validity};

use super::config::NodeConfig;
use crate::ops::pki::is_fresh;

/// What the node's processes authenticate with.
pub struct Identities {
    pub ca_pem: String,
    /// Signs what the cluster's users ask for by CertificateSigningRequest.
    pub authority: Arc<Authority>,
    /// PKCS#8 PEM of the key that signs service-account tokens.
    pub account_key_pem: String,
    /// HTTPS of the API.
    pub api: Identity,
    /// HTTPS of the kubelet.
    pub kubelet: Identity,
    /// By which the API server knocks at kubelets.
    pub kubelet_client: Identity,
    /// PEM of the authority that extension servers trust in.
    pub front_proxy_ca_pem: String,
    /// By which the API server knocks at extension servers.
    pub front_proxy_client: Identity,
    /// When the first of them is to be issued anew, in seconds since the epoch.
    pub renew_at: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot read {file}")]
    Read {
        file: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot issue the certificate of {what}")]
    Issue {
        what: &'static str,
        #[source]
        source: PkiError,
    },
    #[error(transparent)]
    Write(#[from] FileError),
}

/// Reads the authority from `dir`, makes what is missing there.
pub fn ensure(dir: &Path, config: &NodeConfig) -> Result<Identities, IdentityError> {
    let read = |name: &str| {
        std::fs::read_to_string(dir.join(name)).map_err(|source| IdentityError::Read { file: name.to_owned(), source })
    };
    let ca_pem = read("ca.crt")?;
    let authority = |pem: &str, key: &str| {
        Authority::from_pem(pem, key).map_err(|source| IdentityError::Issue { what: "the authority", source })
    };
    let front_proxy_ca_pem = read("front-proxy-ca.crt")?;
    let front_proxies = authority(&front_proxy_ca_pem, &read("front-proxy-ca.key")?)?;
    let authority = authority(&ca_pem, &read("ca.key")?)?;
    let node = IpAddr::V4(config.node_address);
    let life = Duration::from_secs(config.cert_expiration_seconds);
    let api_service = first_service_address(&config.service_cidr);
    let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
    let is_address = |name: &&String| name.parse::<IpAddr>().is_ok();
    let (further_addresses, further_names): (Vec<&String>, Vec<&String>) =
        config.api_names.iter().partition(is_address);
    let api_names = names
        .into_iter()
        .chain([format!("kubernetes.default.svc.{}", config.cluster_domain), config.node_name.clone()])
        .chain(further_names.into_iter().cloned());
    let further_addresses = further_addresses.into_iter().filter_map(|address| address.parse().ok());
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)];
    let issue_by = |authority: &Authority,
                    name: &'static str,
                    subject: Subject,
                    usage: Usage|
     -> Result<Identity, IdentityError> {
        let (cert, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        // The addresses a certificate is for are kept beside it: a node that moved gets a new one.
        let wanted = format!("{usage:?}");
        let marker = dir.join(format!("{name}.for"));
        let same = std::fs::read_to_string(&marker).is_ok_and(|kept| kept == wanted);
        let kept = || {
            let read = |path| std::fs::read_to_string(path).ok();
            Some(Identity { cert_pem: read(&cert)?, key_pem: read(&key)? })
        };
        if let Some(kept) = kept().filter(|kept| same && is_fresh(&kept.cert_pem, life)) {
            return Ok(kept);
        }
        let identity =
            authority.issue(&subject, &usage, life).map_err(|source| IdentityError::Issue { what: name, source })?;
        atomic_file::write(&key, identity.key_pem.as_bytes(), SECRET)?;
        atomic_file::write(&cert, identity.cert_pem.as_bytes(), PUBLIC)?;
        atomic_file::write(&marker, wanted.as_bytes(), PUBLIC)?;
        Ok(identity)
    };
    let issue = |name, subject, usage| issue_by(&authority, name, subject, usage);
    let api = issue(
        "apiserver",
        Subject::new("kube-apiserver", None),
        Usage::Server {
            names: api_names.collect(),
            addresses: unique([node, IpAddr::V4(api_service)].into_iter().chain(loopback).chain(further_addresses)),
        },
    )?;
    let kubelet = issue(
        "kubelet",
        Subject::new(&format!("system:node:{}", config.node_name), Some("system:nodes")),
        Usage::Both {
            names: vec![config.node_name.clone(), "localhost".into()],
            addresses: [node].into_iter().chain(loopback).collect(),
        },
    )?;
    let kubelet_client = issue(
        "apiserver-kubelet-client",
        Subject::new("kube-apiserver-kubelet-client", Some("kubeadm:cluster-admins")),
        Usage::Client,
    )?;
    let front_proxy_client =
        issue_by(&front_proxies, "front-proxy-client", Subject::new("front-proxy-client", None), Usage::Client)?;
    let account_key_pem = read("sa.key")?;
    let issued = [&api, &kubelet, &kubelet_client, &front_proxy_client];
    let ends = issued.into_iter().filter_map(|identity| Validity::of(&identity.cert_pem).ok());
    let renew_at = ends.map(|validity| validity.renew_at()).min().unwrap_or(i64::MAX);
    Ok(Identities {
        account_key_pem,
        ca_pem,
        authority: Arc::new(authority),
        api,
        kubelet,
        kubelet_client,
        front_proxy_ca_pem,
        front_proxy_client,
        renew_at,
    })
}

/// Each once, in their order.
fn unique(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for address in addresses {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

/// The API's own service address: the first host of the services' network.
fn first_service_address(cidr: &str) -> Ipv4Addr {
    let network =
        cidr.split('/').next().and_then(|a| a.parse::<Ipv4Addr>().ok()).unwrap_or(Ipv4Addr::new(10, 96, 0, 0));
    Ipv4Addr::from(u32::from(network) + 1)
}
