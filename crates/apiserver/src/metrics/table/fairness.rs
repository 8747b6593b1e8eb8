//! Priority and fairness.

use crate::metrics::family::families;

const SECONDS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const SEATS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
const LENGTHS: [f64; 8] = [0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const WATCHES: [f64; 6] = [0.0, 1.0, 10.0, 100.0, 1000.0, 10_000.0];

families! {
    /// Whose turn it is.
    Fairness {
        dispatched: Counter, Beta, "apiserver_flowcontrol_dispatched_requests_total",
            ["flow_schema", "priority_level"],
            "Number of requests executed by API Priority and Fairness subsystem";
        rejected: Counter, Beta, "apiserver_flowcontrol_rejected_requests_total",
            ["flow_schema", "priority_level", "reason"],
            "Number of requests rejected by API Priority and Fairness subsystem";
        in_queue_requests: Gauge, Beta, "apiserver_flowcontrol_current_inqueue_requests",
            ["flow_schema", "priority_level"],
            "Number of requests currently pending in queues of the API Priority and Fairness subsystem";
        in_queue_seats: Gauge, Alpha, "apiserver_flowcontrol_current_inqueue_seats",
            ["flow_schema", "priority_level"],
            "Number of seats currently pending in queues of the API Priority and Fairness subsystem";
        executing_requests: Gauge, Beta, "apiserver_flowcontrol_current_executing_requests",
            ["flow_schema", "priority_level"],
            "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem";
        executing_seats: Gauge, Beta, "apiserver_flowcontrol_current_executing_seats",
            ["flow_schema", "priority_level"],
            "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem";
        wait: Histogram(SECONDS), Beta, "apiserver_flowcontrol_request_wait_duration_seconds",
            ["execute", "flow_schema", "priority_level"],
            "Length of time a request spent waiting in its queue";
        execution: Histogram(SECONDS), Alpha, "apiserver_flowcontrol_request_execution_seconds",
            ["flow_schema", "priority_level", "type"],
            "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem";
        queue_length: Histogram(LENGTHS), Alpha, "apiserver_flowcontrol_request_queue_length_after_enqueue",
            ["flow_schema", "priority_level"],
            "Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is enqueued";
        seats: Histogram(SEATS), Alpha, "apiserver_flowcontrol_work_estimated_seats",
            ["flow_schema", "priority_level"],
            "Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness";
        watchers: Histogram(WATCHES), Alpha, "apiserver_flowcontrol_watch_count_samples",
            ["flow_schema", "priority_level"],
            "count of watchers for mutating requests in API Priority and Fairness";
        nominal_limit: Gauge, Beta, "apiserver_flowcontrol_nominal_limit_seats",
            ["priority_level"],
            "Nominal number of execution seats configured for each priority level";
        lower_limit: Gauge, Alpha, "apiserver_flowcontrol_lower_limit_seats",
            ["priority_level"],
            "Configured lower bound on number of execution seats available to each priority level";
        upper_limit: Gauge, Alpha, "apiserver_flowcontrol_upper_limit_seats",
            ["priority_level"],
            "Configured upper bound on number of execution seats available to each priority level";
        current_limit: Gauge, Alpha, "apiserver_flowcontrol_current_limit_seats",
            ["priority_level"],
            "current derived number of execution seats available to each priority level";
        high_watermark: Gauge, Alpha, "apiserver_flowcontrol_demand_seats_high_watermark",
            ["priority_level"],
            "High watermark, over last adjustment period, of demand_seats";
        average: Gauge, Alpha, "apiserver_flowcontrol_demand_seats_average",
            ["priority_level"],
            "Time-weighted average, over last adjustment period, of demand_seats";
        deviation: Gauge, Alpha, "apiserver_flowcontrol_demand_seats_stdev",
            ["priority_level"],
            "Time-weighted standard deviation, over last adjustment period, of demand_seats";
        smoothed: Gauge, Alpha, "apiserver_flowcontrol_demand_seats_smoothed",
            ["priority_level"],
            "Smoothed seat demands";
        target: Gauge, Alpha, "apiserver_flowcontrol_target_seats",
            ["priority_level"],
            "Seat allocation targets";
        fair_fraction: Gauge, Alpha, "apiserver_flowcontrol_seat_fair_frac",
            [],
            "Fair fraction of server's concurrency to allocate to each priority level that can use it";
    }
}
