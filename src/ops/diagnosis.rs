//! What the API says of nodes and containers, for whoever reads the logs; nothing where it does not answer.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerState, Node, Pod};
use kube::api::ListParams;
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use super::client;
use crate::home::Home;
use crate::printer::table;
use crate::profile::Profile;

/// Bound on a list.
const LIST: Duration = Duration::from_secs(5);

/// Name and text of each section.
pub async fn sections(home: &Home, profile: &Profile) -> Vec<(&'static str, String)> {
    let Ok(client) = client::ready(home, profile).await else { return Vec::new() };
    let (pods, nodes) = tokio::join!(list::<Pod>(&client), list::<Node>(&client));
    vec![("container status", containers(&pods)), ("describe nodes", nodes.iter().map(described).collect())]
}

async fn list<K>(client: &Client) -> Vec<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    let listed = tokio::time::timeout(LIST, api.list(&ListParams::default())).await;
    listed.ok().and_then(Result::ok).map(|list| list.items).unwrap_or_default()
}

fn containers(pods: &[Pod]) -> String {
    let rows = pods.iter().flat_map(|pod| {
        let statuses = pod.status.iter().filter_map(|status| status.container_statuses.as_ref()).flatten();
        statuses.map(|status| {
            let name = |name: &Option<String>| name.clone().unwrap_or_default();
            let id = status.container_id.as_deref().unwrap_or_default();
            let id = id.rsplit('/').next().unwrap_or_default();
            vec![
                id.chars().take(13).collect(),
                status.image.clone(),
                state(status.state.as_ref()).to_owned(),
                status.name.clone(),
                status.restart_count.to_string(),
                name(&pod.metadata.name),
                name(&pod.metadata.namespace),
            ]
        })
    });
    table(&["CONTAINER", "IMAGE", "STATE", "NAME", "ATTEMPT", "POD", "NAMESPACE"], &rows.collect::<Vec<_>>())
}

fn state(state: Option<&ContainerState>) -> &'static str {
    match state {
        Some(state) if state.running.is_some() => "Running",
        Some(state) if state.terminated.is_some() => "Exited",
        _ => "Waiting",
    }
}

fn described(node: &Node) -> String {
    let mut text = format!("Name: {}\n", node.metadata.name.as_deref().unwrap_or_default());
    let status = node.status.clone().unwrap_or_default();
    for (what, quantities) in [("Capacity", status.capacity), ("Allocatable", status.allocatable)] {
        let listed = quantities.unwrap_or_default();
        let listed: Vec<String> = listed.into_iter().map(|(name, quantity)| format!("{name}={}", quantity.0)).collect();
        text.push_str(&format!("{what}: {}\n", listed.join(" ")));
    }
    let conditions = status.conditions.unwrap_or_default().into_iter().map(|condition| {
        vec![
            condition.type_,
            condition.status,
            condition.reason.unwrap_or_default(),
            condition.message.unwrap_or_default(),
        ]
    });
    text.push_str(&table(&["TYPE", "STATUS", "REASON", "MESSAGE"], &conditions.collect::<Vec<_>>()));
    text.push('\n');
    text
}
