//! Extension servers and custom resources.

use crate::metrics::family::families;
use crate::metrics::table::{DEFAULT, DOUBLING};

const CONVERSIONS: [f64; 15] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0];

families! {
    /// What other servers serve.
    Aggregations {
        unavailable: Gauge, Alpha, "aggregator_unavailable_apiservice",
            ["name"],
            "Gauge of APIServices which are marked as unavailable broken down by APIService name.";
        became_unavailable: Counter, Alpha, "aggregator_unavailable_apiservice_total",
            ["name", "reason"],
            "Counter of APIServices which are marked as unavailable broken down by APIService name and reason.";
        discoveries: Counter, Alpha, "aggregator_discovery_aggregation_count_total",
            [],
            "Counter of number of times discovery was aggregated";
    }
}

families! {
    /// Custom resources: their versions and their rules.
    Customs {
        conversions: Histogram(DOUBLING), Alpha, "apiserver_crd_conversion_webhook_duration_seconds",
            ["crd_name", "from_version", "succeeded", "to_version"],
            "CRD webhook conversion duration in seconds";
        conversion_requests: Counter, Alpha, "apiserver_conversion_webhook_request_total",
            ["failure_type", "result"],
            "Counter for conversion webhook requests with success/failure and failure error type";
        conversion_duration: Histogram(CONVERSIONS), Alpha, "apiserver_conversion_webhook_duration_seconds",
            ["failure_type", "result"],
            "Conversion webhook request latency";
        compilations: Histogram(DEFAULT), Beta, "apiserver_cel_compilation_duration_seconds",
            [],
            "CEL compilation time in seconds.";
        evaluations: Histogram(DEFAULT), Beta, "apiserver_cel_evaluation_duration_seconds",
            [],
            "CEL evaluation time in seconds.";
    }
}
