//! The API server as its clients meet it: over HTTPS, in process, each test on a server of its own. One program, so that the
//! server is linked into it once.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests; a test that cannot go on panics and says so"
)]

mod access;
mod access_matrix;
mod admission_classes;
mod admission_mutating_policies;
mod admission_pod_security;
mod admission_policies;
mod admission_quota;
mod admission_webhooks;
mod aggregation;
mod audit;
mod cluster_kinds;
mod common;
mod connect;
mod conversion_webhooks;
mod coverage;
mod custom_definitions;
mod custom_projects;
mod custom_schemas;
mod custom_twins;
#[path = "../../../store/tests/support/etcd.rs"]
mod etcd;
mod fairness;
mod identities;
mod matrix;
mod metrics;
mod negotiation;
mod outbound;
mod owners;
mod slow_clients;
mod stays_up;
mod strategies;
mod two_servers;
mod verbs;
mod watch;
mod workloads;
mod writes;
