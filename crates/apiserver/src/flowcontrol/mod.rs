//! API priority and fairness: each request belongs to a flow, each flow to a priority level, and a level has seats. What
//! finds none waits in fair queues or is turned away with 429, so that no client keeps the others out.
//!
//! The configuration is the cluster's FlowSchemas and PriorityLevelConfigurations, followed in the cache. The decision
//! ([`level`], [`rules`], [`shares`]) is pure; here are its clock, locks and waiting requests.

mod dump;
mod estimate;
mod level;
mod meters;
mod retry;
mod rules;
mod shares;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use http::HeaderValue;
use kminik_meta::{Object, StatusError};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub(crate) use self::estimate::work;
use self::level::{Arrival, Level, Reason, Slot, Work};
use self::meters::{FlowMeters, LevelMeters, Seats};
use self::retry::RetryAfter;
use self::rules::{LevelSpec, SchemaSpec};
use self::shares::{Bounds, Claim, Smoothed};
use crate::auth::UserInfo;
use crate::health::Step;
use crate::http::info::RequestInfo;
use crate::metrics::{Metrics, requests};
use crate::registry::{Registry, storage_prefix};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// How often seats are lent and taken back.
const BORROWING_PERIOD: Duration = Duration::from_secs(10);
/// Share of the request timeout that a request may wait for seats.
const WAIT_PART: u32 = 4;
/// Objects that are missing from every cluster's configuration until somebody writes them; upstream's mandatory ones.
const MANDATORY_LEVELS: [&str; 2] = ["exempt", "catch-all"];

/// A request that has its seats, until dropped.
pub(crate) struct Admitted {
    level: Arc<PriorityLevel>,
    request: Arc<Waiter>,
    slot: Option<Slot>,
    began: Duration,
}

/// The widest that a request of a level is taken for, in seats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Widest(u32);

/// What the answer's headers say of a request's flow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flow {
    pub(crate) schema_uid: Option<HeaderValue>,
    pub(crate) level_uid: Option<HeaderValue>,
}

/// A request, from its arrival to its end.
struct Waiter {
    id: u64,
    wake: Mutex<Option<oneshot::Sender<Admitted>>>,
    meters: Arc<FlowMeters>,
    schema: Arc<str>,
    distinguisher: String,
    user: String,
    info: RequestInfo,
    arrived: SystemTime,
    work: Work,
    arrived_at: Duration,
}

/// A ticket of the level's queues.
#[derive(Clone)]
struct Ticket(Arc<Waiter>);

impl PartialEq for Ticket {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

struct PriorityLevel {
    name: String,
    clock: Instant,
    meters: LevelMeters,
    state: Mutex<State>,
}

struct State {
    level: Level<Ticket>,
    spec: LevelSpec,
    bounds: Bounds,
    smoothed: Smoothed,
    retry: RetryAfter,
    /// Requests under way, for the dump.
    executing: BTreeMap<u64, Arc<Waiter>>,
}

struct Schema {
    name: Arc<str>,
    spec: SchemaSpec,
    flow: Flow,
    level: Arc<PriorityLevel>,
    meters: Arc<FlowMeters>,
    /// Widest that a request of it is taken for.
    most_seats: Widest,
}

#[derive(Default)]
struct Plan {
    /// In the order in which they are asked; the last one matches everybody.
    schemas: Vec<Schema>,
    levels: BTreeMap<String, Arc<PriorityLevel>>,
}

/// The server's seats and who may have them.
pub(crate) struct FlowControl {
    seats: u32,
    patience: Duration,
    clock: Instant,
    next_id: AtomicU64,
    plan: ArcSwap<Plan>,
    metrics: Arc<Metrics>,
}

impl FlowControl {
    /// With so many seats, shared out by the mandatory configuration until [`FlowControl::follow`] has read the cluster's.
    pub(crate) fn new(seats: usize, request_timeout: Duration, metrics: Arc<Metrics>) -> Self {
        let control = FlowControl {
            seats: u32::try_from(seats).unwrap_or(u32::MAX).max(1),
            patience: request_timeout / WAIT_PART,
            clock: Instant::now(),
            next_id: AtomicU64::new(0),
            plan: ArcSwap::default(),
            metrics,
        };
        control.configure(&[], &[]);
        control
    }

    /// Waits for the request's turn. `estimate` says what it takes, once its flow is known.
    ///
    /// # Errors
    /// 429 if its level has neither seat nor place to wait, or the wait is too long.
    pub(crate) async fn admit(
        &self,
        info: &RequestInfo,
        user: &UserInfo,
        flow: &mut Flow,
        estimate: impl FnOnce(Widest, &FlowMeters) -> Work,
    ) -> Result<Option<Admitted>, StatusError> {
        let plan = self.plan.load();
        let Some(schema) = plan.schemas.iter().find(|schema| schema.spec.matches(info, user)).or(plan.schemas.last())
        else {
            return Ok(None);
        };
        flow.clone_from(&schema.flow);
        let work = estimate(schema.most_seats, &schema.meters);
        let distinguisher = schema.spec.distinguisher(info, user);
        let hash = rules::flow_hash(&schema.name, distinguisher);
        let now = self.clock.elapsed();
        let request = Arc::new(Waiter {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            wake: Mutex::new(None),
            meters: schema.meters.clone(),
            schema: schema.name.clone(),
            distinguisher: distinguisher.to_owned(),
            user: user.name.clone(),
            info: info.clone(),
            arrived: SystemTime::now(),
            work,
            arrived_at: now,
        });
        schema.meters.seats.observe(f64::from(work.seats()));
        let level = schema.level.clone();
        drop(plan);
        let (queue, woken) = {
            let mut state = level.state.lock();
            match state.level.arrive(now, hash, work, || Ticket(request.clone())) {
                Arrival::Execute(slot) => {
                    state.executing.insert(request.id, request.clone());
                    drop(state);
                    return Ok(Some(level.begin(now, request, slot)));
                }
                Arrival::Reject(reason) => return Err(level.reject(&mut state, now, &request, reason)),
                Arrival::Wait(queue) => {
                    let (wake, woken) = oneshot::channel();
                    *request.wake.lock() = Some(wake);
                    request.meters.waiting.enter(work.seats());
                    request.meters.queue_length.observe(state.level.queues()[queue].waiting.len() as f64);
                    (queue, woken)
                }
            }
        };
        let waiting = match requests::reads(&info.verb) || info.verb == "watch" {
            true => &self.metrics.waiting_reads,
            false => &self.metrics.waiting_writes,
        };
        let _waiting = waiting.during();
        level.wait(request, queue, woken, self.patience).await.map(Some)
    }

    /// Reads the cluster's configuration, follows its changes, and lends seats, until cancelled.
    pub(crate) async fn follow(self: Arc<Self>, server: std::sync::Weak<crate::Server>, stop: CancellationToken) {
        let mut changes = Vec::new();
        if let Some(server) = server.upgrade() {
            for plural in ["flowschemas", "prioritylevelconfigurations"] {
                let registry = server.registry();
                if let Ok(row) = registry.row(GROUP, plural)
                    && let Ok(prefix) = storage_prefix(&row)
                {
                    changes.push(registry.cache().resource(prefix).subscribe());
                }
            }
        }
        let mut borrowing = tokio::time::interval(BORROWING_PERIOD);
        borrowing.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let Some(server) = server.upgrade() else { return };
            self.read(server.registry());
            server.health().reached(Step::TurnsConfigured);
            drop(server);
            loop {
                let mut any: futures::stream::FuturesUnordered<_> =
                    changes.iter_mut().map(tokio::sync::watch::Receiver::changed).collect();
                tokio::select! {
                    () = stop.cancelled() => return,
                    Some(changed) = futures::StreamExt::next(&mut any) => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    _ = borrowing.tick() => self.divide(&self.plan.load(), true),
                }
            }
        }
    }

    fn read(&self, registry: &Registry) {
        let all = |plural: &str| -> Vec<Arc<Object>> {
            registry.cached(GROUP, plural).entries.values().filter_map(|entry| entry.object().ok()).collect()
        };
        self.configure(&all("prioritylevelconfigurations"), &all("flowschemas"));
    }

    /// Takes over a configuration: levels keep their state, levels that are gone serve what they have.
    fn configure(&self, levels: &[Arc<Object>], schemas: &[Arc<Object>]) {
        let now = self.clock.elapsed();
        let before = self.plan.load();
        let mandatory_levels = mandatory_levels();
        let mandatory_schemas = mandatory_schemas();
        let named = |objects: &[Arc<Object>], name: &str| objects.iter().any(|object| object.name() == name);
        let missing = |objects: &[Arc<Object>], mandatory: &[Arc<Object>]| -> Vec<Arc<Object>> {
            mandatory.iter().filter(|object| !named(objects, object.name())).cloned().collect()
        };
        let (mut levels, mut schemas) = (levels.to_vec(), schemas.to_vec());
        levels.extend(missing(&levels, &mandatory_levels));
        schemas.extend(missing(&schemas, &mandatory_schemas));
        let levels: Vec<(&Arc<Object>, LevelSpec)> =
            levels.iter().filter_map(|object| Some((object, LevelSpec::of(object)?))).collect();
        let specs: Vec<&LevelSpec> = levels.iter().map(|(_, spec)| spec).collect();
        let bounds = shares::bounds(self.seats, &specs);
        let mut plan = Plan::default();
        for ((object, spec), bounds) in levels.iter().zip(bounds) {
            let name = object.name();
            let level = match before.levels.get(name) {
                Some(level) => {
                    let begun = {
                        let mut state = level.state.lock();
                        let unchanged = state.bounds == bounds;
                        let seats = state.level.limits().seats.filter(|_| unchanged).unwrap_or(bounds.nominal);
                        state.spec = spec.clone();
                        state.bounds = bounds;
                        state.level.resize(now, spec.limits(seats))
                    };
                    level.wake(now, begun);
                    level.clone()
                }
                None => Arc::new(PriorityLevel::new(name, self.clock, spec.clone(), bounds)),
            };
            plan.levels.insert(name.to_owned(), level);
        }
        for object in &schemas {
            let Some(spec) = SchemaSpec::of(object) else { continue };
            // A schema whose level is missing is passed over, as upstream does with dangling ones.
            let Some(level) = plan.levels.get(&spec.priority_level_configuration.name).cloned() else { continue };
            let meters = Arc::new(FlowMeters::new(self.metrics.clone(), &level.name, object.name()));
            let uid_of = |object: &Object| HeaderValue::from_str(object.uid()).ok().filter(|uid| !uid.is_empty());
            let level_uid = levels.iter().find(|(object, _)| object.name() == level.name);
            let most_seats = Widest(level.state.lock().most_seats());
            plan.schemas.push(Schema {
                name: object.name().into(),
                flow: Flow { schema_uid: uid_of(object), level_uid: level_uid.and_then(|(object, _)| uid_of(object)) },
                spec,
                level,
                meters,
                most_seats,
            });
        }
        plan.schemas.sort_by(|a, b| (a.spec.matching_precedence, &a.name).cmp(&(b.spec.matching_precedence, &b.name)));
        self.divide(&plan, false);
        self.plan.store(Arc::new(plan));
    }

    /// Divides the seats among the levels by what was wanted; a new period begins if `period`.
    fn divide(&self, plan: &Plan, period: bool) {
        let now = self.clock.elapsed();
        let (mut claims, mut demands) = (Vec::new(), Vec::new());
        let mut left = 0;
        let mut taken = 0;
        for level in plan.levels.values() {
            let mut state = level.state.lock();
            let demand = state.level.take_demand(now);
            if period {
                state.smoothed.update(demand);
            }
            left += state.bounds.nominal;
            let claim =
                Claim { bounds: state.bounds, high_watermark: demand.high_watermark, smoothed: state.smoothed.0 };
            demands.push((demand, claim));
            if state.spec.is_exempt() {
                taken += state.bounds.lower.max(demand.high_watermark);
            } else {
                claims.push(claim);
            }
        }
        let (seats, fraction) = shares::divide(left.saturating_sub(taken), &claims);
        let mut seats = seats.into_iter();
        let mut divided = Vec::new();
        for (level, (demand, claim)) in plan.levels.values().zip(demands) {
            let (begun, current) = {
                let mut state = level.state.lock();
                let current = match state.spec.is_exempt() {
                    true => claim.bounds.lower.max(demand.high_watermark),
                    false => seats.next().unwrap_or(claim.bounds.nominal),
                };
                let limits = state.spec.limits(current);
                (state.level.resize(now, limits), current)
            };
            level.wake(now, begun);
            divided.push(Seats {
                level: level.name.clone(),
                nominal: claim.bounds.nominal.into(),
                lower: claim.bounds.lower.into(),
                upper: claim.bounds.upper.into(),
                current: current.into(),
                high_watermark: demand.high_watermark.into(),
                average: demand.average,
                deviation: demand.deviation,
                smoothed: claim.smoothed,
                target: claim.target(),
            });
        }
        meters::divided(&self.metrics, &divided, fraction);
    }

    /// One of the tables under `/debug/api_priority_and_fairness/`; `None` for a name that is none.
    pub(crate) fn dump(&self, name: &str, details: bool) -> Option<String> {
        dump::table(&self.plan.load(), name, details)
    }
}

impl State {
    fn most_seats(&self) -> u32 {
        let limits = self.level.limits();
        let by_part = (self.bounds.nominal * 15).div_ceil(100);
        match u32::try_from(limits.hand) {
            Ok(hand @ 1..) => by_part.min(self.bounds.nominal / hand).max(1),
            _ => by_part.max(1),
        }
    }
}

impl PriorityLevel {
    fn new(name: &str, clock: Instant, spec: LevelSpec, bounds: Bounds) -> Self {
        let level = Level::new(spec.limits(bounds.nominal));
        let state = State {
            level,
            spec,
            bounds,
            smoothed: Smoothed::default(),
            retry: RetryAfter::default(),
            executing: BTreeMap::new(),
        };
        PriorityLevel { name: name.to_owned(), clock, meters: LevelMeters::default(), state: Mutex::new(state) }
    }

    fn begin(self: &Arc<Self>, now: Duration, request: Arc<Waiter>, slot: Slot) -> Admitted {
        self.meters.dispatched.fetch_add(1, Ordering::Relaxed);
        request.meters.dispatched(now.saturating_sub(request.arrived_at));
        request.meters.executing.enter(request.work.seats());
        Admitted { level: self.clone(), request, slot: Some(slot), began: now }
    }

    fn reject(&self, state: &mut State, now: Duration, request: &Waiter, reason: Reason) -> StatusError {
        request.meters.rejected(reason, now.saturating_sub(request.arrived_at));
        self.meters.note(reason);
        let seconds = state.retry.rejected(now.as_secs());
        StatusError::too_many_requests("Too many requests, please try again later.", seconds)
    }

    async fn wait(
        self: Arc<Self>,
        request: Arc<Waiter>,
        queue: usize,
        mut woken: oneshot::Receiver<Admitted>,
        patience: Duration,
    ) -> Result<Admitted, StatusError> {
        let mut leaving = Leaving { level: self, request, queue, done: false };
        if let Ok(Ok(admitted)) = tokio::time::timeout(patience, &mut woken).await {
            leaving.done = true;
            return Ok(admitted);
        }
        if leaving.leave() {
            let mut state = leaving.level.state.lock();
            return Err(leaving.level.reject(
                &mut state,
                leaving.level.clock.elapsed(),
                &leaving.request,
                Reason::TimeOut,
            ));
        }
        // Its turn came at the same moment.
        woken.await.map_err(|_| StatusError::internal("a request lost its turn"))
    }

    /// Hands their seats to requests that waited.
    fn wake(self: &Arc<Self>, now: Duration, begun: Vec<(Ticket, Slot)>) {
        for (Ticket(request), slot) in begun {
            request.meters.waiting.leave(request.work.seats());
            self.state.lock().executing.insert(request.id, request.clone());
            let wake = request.wake.lock().take();
            let admitted = self.begin(now, request, slot);
            if let Some(wake) = wake {
                // Who has gone in the meantime gives the seats back by dropping what comes back here.
                drop(wake.send(admitted));
            }
        }
    }

    fn release(self: &Arc<Self>, request: &Waiter, mut slot: Slot) {
        let now = self.clock.elapsed();
        let (again, begun) = {
            let mut state = self.state.lock();
            let (again, begun) = state.level.release(now, &mut slot);
            if again.is_none() {
                state.executing.remove(&request.id);
            }
            (again, begun)
        };
        self.wake(now, begun);
        let Some(after) = again else { return };
        let level = self.clone();
        let id = request.id;
        let later = async move {
            tokio::time::sleep(after).await;
            let now = level.clock.elapsed();
            let begun = {
                let mut state = level.state.lock();
                state.executing.remove(&id);
                state.level.release(now, &mut slot).1
            };
            level.wake(now, begun);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(later)),
            Err(_) => tracing::error!(request = id, "a request ended outside of the runtime; its seats stay taken"),
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.request.meters.executing.leave(self.request.work.seats());
            let took = self.level.clock.elapsed().saturating_sub(self.began);
            self.request.meters.executed(self.request.info.verb == "watch", took);
            self.level.release(&self.request, slot);
        }
    }
}

/// Takes a request out of its queue if whoever asked goes away.
struct Leaving {
    level: Arc<PriorityLevel>,
    request: Arc<Waiter>,
    queue: usize,
    done: bool,
}

impl Leaving {
    /// False if its turn has come.
    fn leave(&mut self) -> bool {
        self.done = true;
        let now = self.level.clock.elapsed();
        let left = self.level.state.lock().level.withdraw(now, self.queue, &Ticket(self.request.clone()));
        if left {
            self.request.meters.waiting.leave(self.request.work.seats());
        }
        left
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if !self.done && self.leave() {
            let now = self.level.clock.elapsed();
            self.request.meters.rejected(Reason::Cancelled, now.saturating_sub(self.request.arrived_at));
            self.level.meters.note(Reason::Cancelled);
        }
    }
}

fn objects(values: Value) -> Vec<Arc<Object>> {
    let values = if let Value::Array(values) = values { values } else { Vec::new() };
    values.into_iter().filter_map(|value| Object::try_from(value).ok().map(Arc::new)).collect()
}

fn mandatory_levels() -> Vec<Arc<Object>> {
    let [exempt, catch_all] = MANDATORY_LEVELS;
    objects(json!([
        {"metadata": {"name": exempt}, "spec": {"type": "Exempt",
            "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}},
        {"metadata": {"name": catch_all}, "spec": {"type": "Limited",
            "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}}}},
    ]))
}

fn mandatory_schemas() -> Vec<Arc<Object>> {
    let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
    let rule = |subjects: Value| {
        json!({"subjects": subjects,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true,
                "namespaces": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]})
    };
    let [exempt, catch_all] = MANDATORY_LEVELS;
    objects(json!([
        {"metadata": {"name": exempt}, "spec": {"matchingPrecedence": 1,
            "priorityLevelConfiguration": {"name": exempt}, "rules": [rule(json!([group("system:masters")]))]}},
        {"metadata": {"name": catch_all}, "spec": {"matchingPrecedence": 10000,
            "priorityLevelConfiguration": {"name": catch_all}, "distinguisherMethod": {"type": "ByUser"},
            "rules": [rule(json!([group("system:unauthenticated"), group("system:authenticated")]))]}},
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(seats: usize, patience: Duration, response: &Value) -> FlowControl {
        let control = FlowControl::new(seats, patience * WAIT_PART, Arc::default());
        let levels = objects(json!([{"metadata": {"name": "l", "uid": "level-uid"}, "spec": {"type": "Limited",
            "limited": {"nominalConcurrencyShares": 1000, "limitResponse": response}}}]));
        let rule = json!({"subjects": [{"kind": "Group", "group": {"name": "dev"}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]});
        let schemas = objects(json!([{"metadata": {"name": "s", "uid": "schema-uid"}, "spec": {
            "matchingPrecedence": 100, "priorityLevelConfiguration": {"name": "l"},
            "distinguisherMethod": {"type": "ByUser"}, "rules": [rule]}}]));
        control.configure(&levels, &schemas);
        control
    }

    async fn admit(control: &FlowControl, user: &str) -> Result<Option<Admitted>, StatusError> {
        let info = RequestInfo { verb: "get".into(), path: "/x".into(), ..RequestInfo::default() };
        let mut flow = Flow::default();
        let admitted = control.admit(&info, &UserInfo::new(user, &["dev"]), &mut flow, |_, _| Work::ONE).await;
        assert_eq!(flow.schema_uid.unwrap(), "schema-uid");
        assert_eq!(flow.level_uid.unwrap(), "level-uid");
        admitted
    }

    fn queue() -> Value {
        json!({"type": "Queue", "queuing": {"queues": 4, "handSize": 1, "queueLengthLimit": 2}})
    }

    #[tokio::test]
    async fn a_level_without_queues_turns_away_and_says_when_to_come_back() {
        let control = control(1, Duration::from_secs(5), &json!({"type": "Reject"}));
        let held = admit(&control, "a").await.unwrap();
        let refused = admit(&control, "b").await.err().unwrap();
        assert_eq!((refused.code(), refused.retry_after_seconds()), (429, Some(1)));
        drop(held);
        assert!(admit(&control, "b").await.is_ok());
    }

    #[tokio::test]
    async fn who_waits_gets_the_seat_that_is_given_back() {
        let control = Arc::new(control(1, Duration::from_secs(5), &queue()));
        let held = admit(&control, "a").await.unwrap();
        let waiting = tokio::spawn({
            let control = control.clone();
            async move { admit(&control, "a").await.map(drop) }
        });
        tokio::task::yield_now().await;
        let table = control.dump("dump_requests", true).unwrap();
        assert!(table.lines().any(|line| line.starts_with("l,") && line.contains("0001-01-01")), "{table}");
        assert!(!waiting.is_finished());
        drop(held);
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap().unwrap();
        let mut text = String::new();
        control.metrics.table.fairness.all().iter().for_each(|family| family.write(&mut text));
        let labels = "flow_schema=\"s\",priority_level=\"l\"";
        assert!(text.contains(&format!("apiserver_flowcontrol_dispatched_requests_total{{{labels}}} 2")), "{text}");
        assert!(text.contains(&format!("apiserver_flowcontrol_current_executing_seats{{{labels}}} 0")), "{text}");
    }

    #[tokio::test]
    async fn who_waits_too_long_or_goes_away_leaves_its_place() {
        let control = Arc::new(control(1, Duration::from_millis(50), &queue()));
        let held = admit(&control, "a").await.unwrap();
        let late = admit(&control, "a").await.err().unwrap();
        assert_eq!(late.code(), 429);
        let gone = tokio::time::timeout(Duration::from_millis(5), admit(&control, "a")).await;
        assert!(gone.is_err());
        let mut text = String::new();
        control.metrics.table.fairness.all().iter().for_each(|family| family.write(&mut text));
        for reason in ["time-out", "cancelled"] {
            let labels = format!("flow_schema=\"s\",priority_level=\"l\",reason=\"{reason}\"");
            assert!(text.contains(&format!("apiserver_flowcontrol_rejected_requests_total{{{labels}}} 1")), "{text}");
        }
        drop(held);
        assert!(admit(&control, "a").await.is_ok(), "nothing is left behind");
    }

    #[tokio::test]
    async fn another_configuration_takes_over_from_the_first() {
        let control = control(4, Duration::from_secs(5), &json!({"type": "Reject"}));
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(admit(&control, "a").await.unwrap());
        }
        control.configure(&[], &[]);
        let info = RequestInfo { verb: "get".into(), path: "/x".into(), ..RequestInfo::default() };
        let mut flow = Flow::default();
        let admitted = control.admit(&info, &UserInfo::new("a", &["dev"]), &mut flow, |_, _| Work::ONE).await;
        assert!(admitted.unwrap().is_some() && flow.schema_uid.is_none(), "the catch-all has no object here");
        drop(held);
    }
}
