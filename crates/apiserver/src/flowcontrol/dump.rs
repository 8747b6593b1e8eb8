//! The tables under `/debug/api_priority_and_fairness/`, in upstream's columns.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::{Plan, PriorityLevel, Waiter};

/// `details` adds what each request asks for.
pub(super) fn table(plan: &Plan, name: &str, details: bool) -> Option<String> {
    let levels = plan.levels.values();
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut headers: Vec<&str> = match name {
        "dump_priority_levels" => {
            rows.extend(levels.map(|level| level_row(level)));
            vec![
                "PriorityLevelName",
                "ActiveQueues",
                "IsIdle",
                "IsQuiescing",
                "WaitingRequests",
                "ExecutingRequests",
                "DispatchedRequests",
                "RejectedRequests",
                "TimedoutRequests",
                "CancelledRequests",
            ]
        }
        "dump_queues" => {
            levels.for_each(|level| queue_rows(level, &mut rows));
            vec![
                "PriorityLevelName",
                "Index",
                "PendingRequests",
                "ExecutingRequests",
                "SeatsInUse",
                "NextDispatchR",
                "InitialSeatsSum",
                "MaxSeatsSum",
                "TotalWorkSum",
            ]
        }
        "dump_requests" => {
            levels.for_each(|level| request_rows(level, details, &mut rows));
            vec![
                "PriorityLevelName",
                "FlowSchemaName",
                "QueueIndex",
                "RequestIndexInQueue",
                "FlowDistingsher",
                "ArriveTime",
                "InitialSeats",
                "FinalSeats",
                "AdditionalLatency",
                "StartTime",
            ]
        }
        _ => return None,
    };
    if name == "dump_requests" && details {
        headers.extend(["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"]);
    }
    let headers = headers.into_iter().map(str::to_owned).collect();
    rows.insert(0, headers);
    Some(aligned(&rows))
}

fn level_row(level: &PriorityLevel) -> Vec<String> {
    let state = level.state.lock();
    let active = state.level.queues().iter().filter(|queue| !queue.waiting.is_empty()).count();
    let idle = state.level.executing() == 0 && state.level.waiting() == 0;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed).to_string();
    vec![
        level.name.clone(),
        active.to_string(),
        idle.to_string(),
        // A level that is removed leaves the table at once.
        "false".to_owned(),
        state.level.waiting().to_string(),
        state.level.executing().to_string(),
        count(&level.meters.dispatched),
        count(&level.meters.rejected),
        count(&level.meters.timed_out),
        count(&level.meters.cancelled),
    ]
}

fn queue_rows(level: &PriorityLevel, rows: &mut Vec<Vec<String>>) {
    let state = level.state.lock();
    for (index, queue) in state.level.queues().iter().enumerate() {
        let sum = |seats: fn(&super::Work) -> u32| queue.waiting.iter().map(|w| seats(&w.work)).sum::<u32>();
        rows.push(vec![
            level.name.clone(),
            index.to_string(),
            queue.waiting.len().to_string(),
            queue.executing.to_string(),
            queue.seats.to_string(),
            format!("{:.8}ss", queue.next),
            sum(|work| work.initial).to_string(),
            sum(super::Work::seats).to_string(),
            format!("{:.8}ss", queue.waiting_work()),
        ]);
    }
}

fn request_rows(level: &PriorityLevel, details: bool, rows: &mut Vec<Vec<String>>) {
    let state = level.state.lock();
    for (index, queue) in state.level.queues().iter().enumerate() {
        for (place, waiting) in queue.waiting.iter().enumerate() {
            let request = &waiting.ticket.0;
            rows.push(request_row(level, request, &index.to_string(), &place.to_string(), details));
        }
    }
    for request in state.executing.values() {
        rows.push(request_row(level, request, "-1", "-1", details));
    }
}

fn request_row(level: &PriorityLevel, request: &Waiter, queue: &str, place: &str, details: bool) -> Vec<String> {
    let began = match place {
        "-1" => time(request.arrived),
        // It has not begun: Go's zero time.
        _ => "0001-01-01T00:00:00Z".to_owned(),
    };
    let mut row = vec![
        level.name.clone(),
        request.schema.to_string(),
        queue.to_owned(),
        place.to_owned(),
        request.distinguisher.clone(),
        time(request.arrived),
        request.work.initial.to_string(),
        request.work.last.to_string(),
        format!("{:?}", request.work.after),
        began,
    ];
    if details {
        let info = &request.info;
        let version = match info.group.as_str() {
            "" => info.version.clone(),
            group => format!("{group}/{}", info.version),
        };
        row.extend([
            request.user.clone(),
            info.verb.clone(),
            info.path.clone(),
            info.namespace.clone(),
            info.name.clone(),
            version,
            info.resource.clone(),
            info.subresource.clone(),
        ]);
    }
    row
}

fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map(|at| at.to_string()).unwrap_or_default()
}

/// Columns end in a comma and are as wide as their widest cell, at least eight characters.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.len() + 2).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default().max(8)).collect();
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            if column + 1 == row.len() {
                out.push_str(cell);
            } else {
                let cell = format!("{cell},");
                out.push_str(&format!("{cell:<width$}", width = widths[column]));
            }
        }
        out.push('\n');
    }
    out
}
