//! The store.

use crate::metrics::family::families;

const SECONDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

families! {
    /// The store, and what is stored.
    Storages {
        duration: Histogram(SECONDS), Alpha, "etcd_request_duration_seconds",
            ["group", "operation", "resource"],
            "Etcd request latency in seconds for each operation and object type.";
        requests: Counter, Alpha, "etcd_requests_total",
            ["group", "operation", "resource"],
            "Etcd request counts for each operation and object type.";
        errors: Counter, Alpha, "etcd_request_errors_total",
            ["group", "operation", "resource"],
            "Etcd failed request counts for each operation and object type.";
        events: Counter, Alpha, "apiserver_storage_events_received_total",
            ["group", "resource"],
            "Number of etcd events received split by kind.";
        objects_by_name: Gauge, Stable, "apiserver_storage_objects",
            ["resource"],
            "(Deprecated since 1.34.0) [DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.";
        objects: Gauge, Alpha, "apiserver_resource_objects",
            ["group", "resource"],
            "Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.";
        sizes: Gauge, Alpha, "apiserver_resource_size_estimate_bytes",
            ["group", "resource"],
            "Estimated size of stored objects in database. Estimate is based on sum of last observed sizes of serialized objects. In case of a fetching error, the value will be -1.";
        lists: Counter, Alpha, "apiserver_storage_list_total",
            ["group", "resource"],
            "Number of LIST requests served from storage";
        lists_fetched: Counter, Alpha, "apiserver_storage_list_fetched_objects_total",
            ["group", "resource"],
            "Number of objects read from storage in the course of serving a LIST request";
        lists_evaluated: Counter, Alpha, "apiserver_storage_list_evaluated_objects_total",
            ["group", "resource"],
            "Number of objects tested in the course of serving a LIST request from storage";
        lists_returned: Counter, Alpha, "apiserver_storage_list_returned_objects_total",
            ["group", "resource"],
            "Number of objects returned for a LIST request from storage";
    }
}
