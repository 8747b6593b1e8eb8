//! What a node is told: its configuration, and the keys that it may have.

use super::{datastore, extra_config, plan};
use kminik_net::hostnet::PODS;

use crate::drivers::{Machine, NodeFile};
use crate::home::Home;
use crate::node::config::{CONFIG_FILE, Join, NodeConfig};
use crate::ops::{addons, pki, registries};
use crate::profile::Profile;
use crate::reason::{MK_INTERNAL, OrFail, Outcome};

/// Of the control plane's node: with the keys of the cluster.
pub fn of_control_plane(home: &Home, profile: &Profile) -> Outcome<Vec<NodeFile>> {
    let mut files = pki::ensure(home, profile)?;
    files.extend(datastore::node_files(home, profile)?);
    files.extend(extra_config::node_files(home, profile)?);
    let config = NodeConfig {
        api_names: plan::api_names(profile),
        audit_log: profile.audit_log.clone(),
        mutating_policies: profile.mutating_policies,
        datastore_endpoints: profile.datastore.as_ref().map(|store| store.endpoints.clone()).unwrap_or_default(),
        addons: addons::of_the_node(profile)?,
        addon_choices: profile.addons.clone(),
        ..common(home, profile.control_plane())?
    };
    files.push(file(&config)?);
    Ok(files)
}

/// Of a worker: it gets the authority's certificate and a token, and no key.
pub fn of_worker(home: &Home, machine: Machine<'_>, token: String) -> Outcome<Vec<NodeFile>> {
    let profile = machine.profile();
    let join = Join {
        server: format!("https://{}:{}", profile.node_address, profile.networking.api_port),
        ca_pem: pki::read(&profile.pki_dir(home), "ca.crt")?,
        token,
    };
    Ok(vec![file(&NodeConfig { join: Some(join), ..common(home, machine)? })?])
}

/// What is so on every node.
fn common(home: &Home, machine: Machine<'_>) -> Outcome<NodeConfig> {
    let profile = machine.profile();
    let networking = &profile.networking;
    Ok(NodeConfig {
        profile: profile.name.clone(),
        node_name: machine.node_name(),
        node_address: machine.address(),
        host_resolver: (!profile.tunnel).then_some(profile.gateway),
        api_names: Vec::new(),
        service_cidr: networking.services.to_string(),
        cluster_cidr: PODS.to_string(),
        cluster_dns: networking.dns(),
        cluster_domain: networking.domain.clone(),
        api_port: networking.api_port,
        audit_log: None,
        cert_expiration_seconds: profile.cert_expiration_seconds,
        mutating_policies: false,
        datastore_endpoints: Vec::new(),
        cpus: machine.cpus().unwrap_or(0),
        memory_bytes: machine.memory_bytes().unwrap_or(0),
        images: registries::on_node(home, profile)?,
        addons: Vec::new(),
        addon_choices: Default::default(),
        join: None,
    })
}

fn file(config: &NodeConfig) -> Outcome<NodeFile> {
    let content = serde_json::to_vec_pretty(config).or_fail(&MK_INTERNAL, "cannot write the node's configuration")?;
    Ok(NodeFile { path: CONFIG_FILE.into(), content, mode: 0o600 })
}
