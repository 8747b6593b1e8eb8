//! Identities, rights and the audit log.

use crate::metrics::family::families;
use crate::metrics::table::DOUBLING;

const LIFETIMES: [f64; 14] = [
    0.0,
    1800.0,
    3600.0,
    7200.0,
    21600.0,
    43200.0,
    86400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
];

families! {
    /// Who asked, and whether they might.
    Auths {
        attempts: Counter, Alpha, "authentication_attempts",
            ["result"],
            "Counter of authenticated attempts.";
        duration: Histogram(DOUBLING), Alpha, "authentication_duration_seconds",
            ["result"],
            "Authentication duration in seconds broken out by result.";
        users: Counter, Alpha, "authenticated_user_requests",
            ["username"],
            "Counter of authenticated requests broken out by username.";
        certificates: Histogram(LIFETIMES), Alpha, "apiserver_client_certificate_expiration_seconds",
            [],
            "Distribution of the remaining lifetime on the certificate used to authenticate a request.";
        authorizations: Counter, Alpha, "authorization_attempts_total",
            ["result"],
            "Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.";
        authorization_duration: Histogram(DOUBLING), Alpha, "authorization_duration_seconds",
            ["result"],
            "Authorization duration in seconds broken out by result.";
        decisions: Counter, Alpha, "apiserver_authorization_decisions_total",
            ["decision", "name", "type"],
            "Total number of terminal decisions made by an authorizer split by authorizer type, name, and decision.";
        valid_tokens: Counter, Alpha, "serviceaccount_valid_tokens_total",
            [],
            "Cumulative valid projected service account tokens used";
        stale_tokens: Counter, Alpha, "serviceaccount_stale_tokens_total",
            [],
            "Cumulative stale projected service account tokens used";
        legacy_tokens: Counter, Alpha, "serviceaccount_legacy_tokens_total",
            [],
            "Cumulative legacy service account tokens used";
        generated_tokens: Counter, Alpha, "serviceaccount_legacy_auto_token_uses_total",
            [],
            "Cumulative auto-generated legacy tokens used";
        manual_tokens: Counter, Alpha, "serviceaccount_legacy_manual_token_uses_total",
            [],
            "Cumulative manually created legacy tokens used";
    }
}

families! {
    /// The audit log.
    Audits {
        events: Counter, Alpha, "apiserver_audit_event_total",
            [],
            "Counter of audit events generated and sent to the audit backend.";
        errors: Counter, Alpha, "apiserver_audit_error_total",
            ["plugin"],
            "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.";
        levels: Counter, Alpha, "apiserver_audit_level_total",
            ["level"],
            "Counter of policy levels for audit events (1 per request).";
        rejected: Counter, Alpha, "apiserver_audit_requests_rejected_total",
            [],
            "Counter of apiserver requests rejected due to an error in audit logging backend.";
    }
}
