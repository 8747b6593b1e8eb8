//! Where an addon's page is.

use std::time::Duration;

use super::{catalogue, find};
use crate::home::Home;
use crate::ops::client;
use crate::ops::service::{self, Form};
use crate::profile::Profile;
use crate::reason::{Failure, MK_USAGE, Outcome, SVC_NO_NODE_PORT, SVC_NOT_FOUND};

/// The URL of the addon's page; its Service is waited for.
///
/// # Errors
/// `MK_USAGE` for an addon that is not enabled, `SVC_NOT_FOUND` for one without a page, `SVC_NO_NODE_PORT` for a page that is
/// reached from inside of the cluster only, and whatever [`service::find`] fails with.
pub async fn url(home: &Home, profile: &str, name: &str, mut form: Form, wait: Duration) -> Outcome<String> {
    let profile = Profile::load(home, profile)?;
    let catalogue = catalogue(home)?;
    let addon = find(&catalogue, name)?;
    if !addon.is_enabled(profile.addons.get(name)) {
        return Err(Failure::new(&MK_USAGE, format!("addon '{name}' is currently not enabled"))
            .advise(format!("To enable this addon run: kminik addons enable {name}")));
    }
    let Some(endpoint) = &addon.definition.open else {
        return Err(Failure::new(&SVC_NOT_FOUND, format!("the addon {name} has no page to open")));
    };
    form.https |= endpoint.https;
    let client = client::ready(home, &profile).await?;
    let exposed = service::find(&client, &endpoint.namespace, &endpoint.service, wait, &form).await?;
    let named = |label: &str| match &endpoint.port {
        Some(port) => label.split('/').next() == Some(port),
        None => true,
    };
    let urls = exposed.urls.into_iter().zip(&exposed.port_names);
    let url = urls.into_iter().find(|(_, label)| named(label)).map(|(url, _)| url);
    url.ok_or_else(|| {
        let (namespace, service) = (&endpoint.namespace, &endpoint.service);
        Failure::new(&SVC_NO_NODE_PORT, format!("service {namespace}/{service} has no node port"))
            .advise(format!("Forward a port: kubectl -n {namespace} port-forward service/{service} 8080:PORT"))
    })
}
