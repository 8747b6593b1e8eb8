//! The process, what it is, and its health.

use crate::metrics::family::families;

families! {
    /// The process, and what it is.
    Process {
        cpu: Total, Unmarked, "process_cpu_seconds_total", [], "Total user and system CPU time spent in seconds.";
        max_files: Gauge, Unmarked, "process_max_fds", [], "Maximum number of open file descriptors.";
        open_files: Gauge, Unmarked, "process_open_fds", [], "Number of open file descriptors.";
        resident: Gauge, Unmarked, "process_resident_memory_bytes", [], "Resident memory size in bytes.";
        started: Gauge, Alpha, "process_start_time_seconds", [], "Start time of the process since unix epoch in seconds.";
        size: Gauge, Unmarked, "process_virtual_memory_bytes", [], "Virtual memory size in bytes.";
        max_size: Gauge, Unmarked, "process_virtual_memory_max_bytes", [], "Maximum amount of virtual memory available in bytes.";
        network_received: Total, Unmarked, "process_network_receive_bytes_total", [], "Number of bytes received by the process over the network.";
        network_sent: Total, Unmarked, "process_network_transmit_bytes_total", [], "Number of bytes sent by the process over the network.";
        build: Gauge, Alpha, "kubernetes_build_info",
            ["build_date", "compiler", "git_commit", "git_tree_state", "git_version", "go_version", "major", "minor", "platform"],
            "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.";
        version: Gauge, Alpha, "version_info",
            ["binary", "component", "emulation", "min_compat"],
            "Provides the compatibility version info of the component. The component label is the name of the component, usually kube, but is relevant for aggregated-apiservers.";
        features: Gauge, Beta, "kubernetes_feature_enabled",
            ["name", "stage"],
            "This metric records the data about the stage and enablement of a k8s feature.";
        registered: Total, Beta, "registered_metrics_total",
            ["deprecated_version", "stability_level"],
            "The count of registered metrics broken by stability level and deprecation version.";
        unexpected: Total, Alpha, "cardinality_enforcement_unexpected_categorizations_total",
            [],
            "The count of unexpected categorizations during cardinality enforcement.";
    }
}

families! {
    /// What came of checks of health, at `/metrics/slis`.
    Checks {
        last: Gauge, Stable, "kubernetes_healthcheck",
            ["name", "type"],
            "This metric records the result of a single healthcheck.";
        results: Counter, Stable, "kubernetes_healthchecks_total",
            ["name", "status", "type"],
            "This metric records the results of all healthcheck.";
    }
}
