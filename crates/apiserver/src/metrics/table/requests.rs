//! Requests.

use crate::metrics::family::families;
use crate::metrics::table::exponential;

/// Upper bounds of the durations of requests.
const SECONDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
/// The same without the shortest two.
const OBJECTIVES: [f64; 21] =
    [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
const FILTERS: [f64; 13] = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0, 10.0, 15.0, 30.0];
const ANSWERS: [f64; 7] = exponential(1000.0, 10.0);
const BODIES: [f64; 31] = super::linear(50_000.0, 100_000.0);

families! {
    /// Requests, from their arrival to their end.
    Requests {
        total: Counter, Stable, "apiserver_request_total",
            ["code", "component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"],
            "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.";
        duration: Histogram(SECONDS), Stable, "apiserver_request_duration_seconds",
            ["component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"],
            "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.";
        objective: Histogram(OBJECTIVES), Alpha, "apiserver_request_sli_duration_seconds",
            ["component", "group", "resource", "scope", "subresource", "verb", "version"],
            "Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.";
        long_running: Gauge, Stable, "apiserver_longrunning_requests",
            ["component", "group", "resource", "scope", "subresource", "verb", "version"],
            "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.";
        response_sizes: Histogram(ANSWERS), Stable, "apiserver_response_sizes",
            ["component", "group", "resource", "scope", "subresource", "verb", "version"],
            "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.";
        body_size: Histogram(BODIES), Alpha, "apiserver_request_body_size_bytes",
            ["group", "resource", "verb"],
            "Apiserver request body size in bytes broken out by resource and verb.";
        field_validation: Histogram(OBJECTIVES), Alpha, "field_validation_request_duration_seconds",
            ["field_validation"],
            "Response latency distribution in seconds for each field validation value";
        filter_duration: Histogram(FILTERS), Alpha, "apiserver_request_filter_duration_seconds",
            ["filter"],
            "Request filter latency distribution in seconds, for each filter type";
        terminations: Counter, Alpha, "apiserver_request_terminations_total",
            ["code", "component", "group", "resource", "scope", "subresource", "verb", "version"],
            "Number of requests which apiserver terminated in self-defense.";
        aborts: Counter, Alpha, "apiserver_request_aborts_total",
            ["group", "resource", "scope", "subresource", "verb", "version"],
            "Number of requests which apiserver aborted possibly due to a timeout, for each group, version, verb, resource, subresource and scope";
        deprecated: Gauge, Stable, "apiserver_requested_deprecated_apis",
            ["group", "removed_release", "resource", "subresource", "version"],
            "Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.";
        own: Counter, Alpha, "apiserver_selfrequest_total",
            ["group", "resource", "subresource", "verb"],
            "Counter of apiserver self-requests broken out for each verb, API resource and subresource.";
        in_flight: Gauge, Stable, "apiserver_current_inflight_requests",
            ["request_kind"],
            "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.";
        in_queue: Gauge, Alpha, "apiserver_current_inqueue_requests",
            ["request_kind"],
            "Maximal number of queued requests in this apiserver per request kind in last second.";
        handshake_errors: Counter, Alpha, "apiserver_tls_handshake_errors_total",
            [],
            "Number of requests dropped with 'TLS handshake error from' error";
    }
}
