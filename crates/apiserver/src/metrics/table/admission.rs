//! Admission: plugins, webhooks and policies.

use crate::metrics::family::families;

const PLUGINS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const WEBHOOKS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
const CONDITIONS: [f64; 7] = [0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25];
const EXPRESSIONS: [f64; 5] = [0.000_000_5, 0.001, 0.01, 0.1, 1.0];

families! {
    /// Admission: plugins, webhooks and policies.
    Admissions {
        plugins: Histogram(PLUGINS), Stable, "apiserver_admission_controller_admission_duration_seconds",
            ["name", "operation", "rejected", "type"],
            "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).";
        steps: Histogram(PLUGINS), Stable, "apiserver_admission_step_admission_duration_seconds",
            ["operation", "rejected", "type"],
            "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).";
        webhooks: Histogram(WEBHOOKS), Stable, "apiserver_admission_webhook_admission_duration_seconds",
            ["name", "operation", "rejected", "type"],
            "Admission webhook latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).";
        webhook_requests: Counter, Alpha, "apiserver_admission_webhook_request_total",
            ["code", "name", "operation", "rejected", "type"],
            "Admission webhook request total, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify whether the request was rejected or not and an HTTP status code. Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.";
        webhook_rejections: Counter, Alpha, "apiserver_admission_webhook_rejection_count",
            ["error_type", "name", "operation", "rejection_code", "type"],
            "Admission webhook rejection count, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify an error type (calling_webhook_error or apiserver_internal_error if an error occurred; no_error otherwise) and optionally a non-zero rejection code if the webhook rejects the request with an HTTP status code (honored by the apiserver when the code is greater or equal to 400). Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.";
        webhooks_failed_open: Counter, Alpha, "apiserver_admission_webhook_fail_open_count",
            ["name", "type"],
            "Admission webhook fail open count, identified by name and broken out for each admission type (validating or admit).";
        condition_errors: Counter, Alpha, "apiserver_admission_match_condition_evaluation_errors_total",
            ["kind", "name", "operation", "type"],
            "Admission match condition evaluation errors count, identified by name of resource containing the match condition and broken out for each kind containing matchConditions (webhook or policy), operation and admission type (validate or admit).";
        condition_exclusions: Counter, Alpha, "apiserver_admission_match_condition_exclusions_total",
            ["kind", "name", "operation", "type"],
            "Admission match condition evaluation exclusions count, identified by name of resource containing the match condition and broken out for each kind containing matchConditions (webhook or policy), operation and admission type (validate or admit).";
        conditions: Histogram(CONDITIONS), Alpha, "apiserver_admission_match_condition_evaluation_seconds",
            ["kind", "name", "operation", "type"],
            "Admission match condition evaluation time in seconds, identified by name and broken out for each kind containing matchConditions (webhook or policy), operation and type (validate or admit).";
        validating_policies: Counter, Beta, "apiserver_validating_admission_policy_check_total",
            ["enforcement_action", "error_type", "policy", "policy_binding"],
            "Validation admission policy check total, labeled by policy and further identified by binding and enforcement action taken.";
        validating_policy_duration: Histogram(EXPRESSIONS), Beta, "apiserver_validating_admission_policy_check_duration_seconds",
            ["enforcement_action", "error_type", "policy", "policy_binding"],
            "Validation admission latency for individual validation expressions in seconds, labeled by policy and further including binding and enforcement action taken.";
        mutating_policies: Counter, Alpha, "apiserver_mutating_admission_policy_check_total",
            ["error_type", "policy", "policy_binding"],
            "Mutation admission policy check total, labeled by policy and further identified by binding.";
        mutating_policy_duration: Histogram(EXPRESSIONS), Alpha, "apiserver_mutating_admission_policy_check_duration_seconds",
            ["error_type", "policy", "policy_binding"],
            "Mutation admission latency for individual mutation expressions in seconds, labeled by policy and binding.";
    }
}
