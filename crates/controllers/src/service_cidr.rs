//! A ServiceCIDR is ready once it is protected by a finalizer, and outlives its deletion while an address of its range is in use that no
//! other ServiceCIDR holds.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kminik_client::{Informer, Next, ObjectKey, WorkQueue};
use kminik_meta::names;

use crate::context::Context;
use crate::error::Error;

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// As upstream's `deletionGracePeriod`.
const GRACE: Duration = Duration::from_secs(10);
const READY: &str = "Ready";
const TERMINATING: &str = "Terminating";
const STILL_USED: &str =
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";

struct Controller {
    context: Context,
    ranges: Informer<ServiceCIDR>,
    addresses: Informer<IPAddress>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        ranges: context.informers.get(),
        addresses: context.informers.get(),
        context: context.clone(),
    });
    let queue = WorkQueue::new();
    let (waiting, known) = (controller.ranges.clone(), controller.ranges.clone());
    let deleted = |ranges: &Informer<ServiceCIDR>, keys: &mut Vec<ObjectKey>| {
        let ranges = ranges.list();
        let waiting = ranges.iter().filter(|range| range.metadata.deletion_timestamp.is_some());
        keys.extend(waiting.map(|range| ObjectKey::of(&**range)));
    };
    let _subscriptions = [
        // Another range may hold what keeps a deleted one.
        controller.ranges.enqueue_with(&queue, move |range, keys| {
            keys.push(ObjectKey::of(range));
            deleted(&known, keys);
        }),
        controller.addresses.enqueue_with(&queue, move |_, keys| deleted(&waiting, keys)),
    ];
    let synced = [controller.ranges.wait_synced().boxed(), controller.addresses.wait_synced().boxed()];
    let worker = controller.clone();
    context.work(queue, 1, synced, move |key| reconcile(worker.clone(), key)).await
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Some(range) = controller.ranges.get(&key) else { return Ok(Next::Done) };
    let Controller { context, ranges, .. } = controller.as_ref();
    let held = range.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER);
    let mut updated = range.as_ref().clone();
    let finalizers = updated.metadata.finalizers.get_or_insert_default();
    if range.metadata.deletion_timestamp.is_none() {
        if !held {
            finalizers.push(FINALIZER.to_string());
            context.update(&key, ranges, range.as_ref(), &updated).await?;
        }
        let message = "Kubernetes Service CIDR is ready";
        controller.set_ready(&key, &range, "True", "", message).await?;
    } else if held && controller.is_needed(&range) {
        if controller.set_ready(&key, &range, "False", TERMINATING, STILL_USED).await? {
            context.recorder.warning(&*range, "ServiceCIDRTerminating", STILL_USED);
        }
    } else if held {
        // An address that was taken a moment ago may be on its way to here, and allocators may not know yet that the range goes.
        let since = range.metadata.deletion_timestamp.as_ref().map(|time| Timestamp::now().duration_since(time.0));
        let elapsed = since.and_then(|since| Duration::try_from(since).ok()).unwrap_or_default();
        if let Some(rest) = GRACE.checked_sub(elapsed).filter(|rest| !rest.is_zero()) {
            return Ok(Next::After(rest));
        }
        finalizers.retain(|name| name != FINALIZER);
        match context.update(&key, ranges, range.as_ref(), &updated).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(Next::Done)
}

impl Controller {
    /// Whether an address in use is in this range and in no other that stays.
    fn is_needed(&self, range: &ServiceCIDR) -> bool {
        let own = networks(range);
        let others = self.ranges.list();
        let others: Vec<Network> = others
            .iter()
            .filter(|other| other.metadata.uid != range.metadata.uid && other.metadata.deletion_timestamp.is_none())
            .flat_map(|other| networks(other))
            .collect();
        let inside = |address: IpAddr, networks: &[Network]| networks.iter().any(|network| contains(*network, address));
        let used = self.addresses.list();
        let mut used = used.iter().filter_map(|used| used.metadata.name.as_deref()?.parse::<IpAddr>().ok());
        used.any(|address| inside(address, &own) && !inside(address, &others))
    }

    /// Whether the condition had to be changed.
    async fn set_ready(
        &self,
        key: &ObjectKey,
        range: &ServiceCIDR,
        status: &str,
        reason: &str,
        message: &str,
    ) -> Result<bool, Error> {
        let mut updated = range.clone();
        let conditions = updated.status.get_or_insert_default().conditions.get_or_insert_default();
        if conditions.iter().any(|condition| condition.type_ == READY && condition.status == status) {
            return Ok(false);
        }
        conditions.retain(|condition| condition.type_ != READY);
        conditions.push(Condition {
            type_: READY.to_string(),
            status: status.to_string(),
            reason: reason.to_string(),
            message: message.to_string(),
            last_transition_time: Time(k8s_openapi::jiff::Timestamp::now()),
            observed_generation: None,
        });
        match self.context.update_status(key, &self.ranges, range, &updated).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(true),
        }
    }
}

/// First address and length of the prefix.
type Network = (IpAddr, u8);

fn networks(range: &ServiceCIDR) -> Vec<Network> {
    let cidrs = range.spec.as_ref().and_then(|spec| spec.cidrs.as_ref());
    cidrs.into_iter().flatten().filter_map(|cidr| names::parse_cidr(cidr)).collect()
}

fn contains((first, prefix): Network, address: IpAddr) -> bool {
    first.is_ipv4() == address.is_ipv4() && names::network(address, prefix) == first
}
