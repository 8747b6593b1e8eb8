//! Names of hosts that may be insecure by the range their address is in; what is written as an address needs no question.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use url::Host;

use crate::mirrors::{Place, Resolver};

/// Bound on the question; a name without an answer stays as it is.
const LOOKUP: Duration = Duration::from_secs(3);

/// The places, in place of each whose host's address is in a range of insecure ones that by unverified TLS and by plain text.
pub(super) async fn secured(resolver: &Resolver, places: Vec<Place>) -> Vec<Place> {
    if !resolver.has_insecure_ranges() {
        return places;
    }
    let dns = TokioResolver::builder_tokio().and_then(|mut builder| {
        // Who has an address of one kind is not waited for to have one of the other.
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
        builder.build()
    });
    let Ok(dns) = dns else { return places };
    let looked_up = places.into_iter().map(|place| {
        let dns = &dns;
        async move {
            let name = match place.base.host() {
                Some(Host::Domain(name)) if place.base.scheme() == "https" && !place.unverified => name.to_owned(),
                _ => return vec![place],
            };
            let addresses: Vec<IpAddr> = match tokio::time::timeout(LOOKUP, dns.lookup_ip(name)).await {
                Ok(Ok(found)) => found.iter().collect(),
                Ok(Err(_)) | Err(_) => Vec::new(),
            };
            if resolver.is_insecure(&addresses) { place.insecure() } else { vec![place] }
        }
    });
    futures::future::join_all(looked_up).await.into_iter().flatten().collect()
}
