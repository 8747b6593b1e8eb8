//! Watches and the cache.

use crate::metrics::family::families;
use crate::metrics::table::exponential;

const SECONDS: [f64; 17] = [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
const WAITS: [f64; 13] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0];
const EVENTS: [f64; 8] = exponential(1024.0, 2.0);

families! {
    /// Watches, and the cache that they and lists are served from.
    Watches {
        events: Counter, Alpha, "apiserver_watch_events_total",
            ["group", "resource", "version"],
            "Number of events sent in watch clients";
        event_sizes: Histogram(EVENTS), Alpha, "apiserver_watch_events_sizes",
            ["group", "resource", "version"],
            "Watch event size distribution in bytes";
        list_duration: Histogram(SECONDS), Alpha, "apiserver_watch_list_duration_seconds",
            ["group", "resource", "scope", "version"],
            "Response latency distribution in seconds for watch list requests broken by group, version, resource and scope.";
        terminated: Counter, Alpha, "apiserver_terminated_watchers_total",
            ["group", "resource"],
            "Counter of watchers closed due to unresponsiveness broken by resource type.";
        initial_events: Counter, Alpha, "apiserver_init_events_total",
            ["group", "resource"],
            "Counter of init events processed in watch cache broken by resource type.";
        received: Counter, Alpha, "apiserver_watch_cache_events_received_total",
            ["group", "resource"],
            "Counter of events received in watch cache broken by resource type.";
        dispatched: Counter, Alpha, "apiserver_watch_cache_events_dispatched_total",
            ["group", "resource"],
            "Counter of events dispatched in watch cache broken by resource type.";
        initializations: Counter, Alpha, "apiserver_watch_cache_initializations_total",
            ["group", "resource"],
            "Counter of watch cache initializations broken by resource type.";
        revision: Gauge, Alpha, "apiserver_watch_cache_resource_version",
            ["group", "resource"],
            "Current resource version of watch cache broken by resource type.";
        read_wait: Histogram(WAITS), Alpha, "apiserver_watch_cache_read_wait_seconds",
            ["group", "resource"],
            "Histogram of time spent waiting for a watch cache to become fresh.";
        consistent_reads: Counter, Alpha, "apiserver_watch_cache_consistent_read_total",
            ["fallback", "group", "resource", "success"],
            "Counter for consistent reads from cache.";
        lists: Counter, Alpha, "apiserver_cache_list_total",
            ["group", "index", "resource"],
            "Number of LIST requests served from watch cache";
        lists_fetched: Counter, Alpha, "apiserver_cache_list_fetched_objects_total",
            ["group", "index", "resource"],
            "Number of objects read from watch cache in the course of serving a LIST request";
        lists_returned: Counter, Alpha, "apiserver_cache_list_returned_objects_total",
            ["group", "resource"],
            "Number of objects returned for a LIST request from watch cache";
    }
}
