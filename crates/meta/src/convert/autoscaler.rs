//! HorizontalPodAutoscaler between its versions. The first one knows only the processor's utilization; what else the second one
//! says stands in annotations of the first, so that nothing is lost on the way and back.

use serde_json::{Map, Value, json};

use crate::Object;
use crate::path;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

type Pair = (&'static [&'static str], &'static [&'static str]);

/// A source of metrics, with the members of its two forms: first version, second version.
struct Source {
    name: &'static str,
    wanted: &'static [Pair],
    found: &'static [Pair],
}

const SOURCES: &[Source] = &[
    Source {
        name: "resource",
        wanted: &[
            (&["name"], &["name"]),
            (&["targetAverageUtilization"], &["target", "averageUtilization"]),
            (&["targetAverageValue"], &["target", "averageValue"]),
        ],
        found: &[
            (&["name"], &["name"]),
            (&["currentAverageUtilization"], &["current", "averageUtilization"]),
            (&["currentAverageValue"], &["current", "averageValue"]),
        ],
    },
    Source {
        name: "containerResource",
        wanted: &[
            (&["name"], &["name"]),
            (&["container"], &["container"]),
            (&["targetAverageUtilization"], &["target", "averageUtilization"]),
            (&["targetAverageValue"], &["target", "averageValue"]),
        ],
        found: &[
            (&["name"], &["name"]),
            (&["container"], &["container"]),
            (&["currentAverageUtilization"], &["current", "averageUtilization"]),
            (&["currentAverageValue"], &["current", "averageValue"]),
        ],
    },
    Source {
        name: "pods",
        wanted: &[
            (&["metricName"], &["metric", "name"]),
            (&["selector"], &["metric", "selector"]),
            (&["targetAverageValue"], &["target", "averageValue"]),
        ],
        found: &[
            (&["metricName"], &["metric", "name"]),
            (&["selector"], &["metric", "selector"]),
            (&["currentAverageValue"], &["current", "averageValue"]),
        ],
    },
    Source {
        name: "object",
        wanted: &[
            (&["target"], &["describedObject"]),
            (&["metricName"], &["metric", "name"]),
            (&["selector"], &["metric", "selector"]),
            (&["targetValue"], &["target", "value"]),
            (&["averageValue"], &["target", "averageValue"]),
        ],
        found: &[
            (&["target"], &["describedObject"]),
            (&["metricName"], &["metric", "name"]),
            (&["selector"], &["metric", "selector"]),
            (&["currentValue"], &["current", "value"]),
            (&["averageValue"], &["current", "averageValue"]),
        ],
    },
    Source {
        name: "external",
        wanted: &[
            (&["metricName"], &["metric", "name"]),
            (&["metricSelector"], &["metric", "selector"]),
            (&["targetValue"], &["target", "value"]),
            (&["targetAverageValue"], &["target", "averageValue"]),
        ],
        found: &[
            (&["metricName"], &["metric", "name"]),
            (&["metricSelector"], &["metric", "selector"]),
            (&["currentValue"], &["current", "value"]),
            (&["currentAverageValue"], &["current", "averageValue"]),
        ],
    },
];

/// From the first version to the second.
pub fn to_v2(hpa: &mut Object) {
    let processor = |amounts: Value| json!({"type": "Resource", "resource": amounts});
    let utilization = hpa.remove(&["spec", "targetCPUUtilizationPercentage"]).filter(|value| !value.is_null());
    let mut metrics = translated(annotated(hpa, METRICS), false, Direction::Up);
    metrics.extend(utilization.map(|share| {
        processor(json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": share}}))
    }));
    if !metrics.is_empty() {
        hpa.set(&["spec", "metrics"], metrics);
    }
    if let Some(behavior) = annotated(hpa, BEHAVIOR).filter(Value::is_object) {
        hpa.set(&["spec", "behavior"], recased(behavior, char::to_ascii_lowercase));
    }
    let utilization = hpa.remove(&["status", "currentCPUUtilizationPercentage"]).filter(|value| !value.is_null());
    let mut current = translated(annotated(hpa, CURRENT_METRICS), true, Direction::Up);
    if current.is_empty() {
        // The annotation says more, where there is one.
        current.extend(
            utilization.map(|share| processor(json!({"name": "cpu", "current": {"averageUtilization": share}}))),
        );
    }
    if !current.is_empty() {
        hpa.set(&["status", "currentMetrics"], current);
    }
    if let Some(conditions) = annotated(hpa, CONDITIONS).filter(Value::is_array) {
        hpa.set(&["status", "conditions"], conditions);
    }
    drop_annotations(hpa);
}

/// From the second version to the first.
pub fn to_v1(hpa: &mut Object) {
    drop_annotations(hpa);
    let metrics = taken(hpa, &["spec", "metrics"]);
    let current = taken(hpa, &["status", "currentMetrics"]);
    let conditions = taken(hpa, &["status", "conditions"]);
    if let Some(share) = metrics.iter().find_map(|metric| processor_share(metric, "target")) {
        hpa.set(&["spec", "targetCPUUtilizationPercentage"], share);
    }
    if let Some(share) = current.iter().find_map(|metric| processor_share(metric, "current")) {
        hpa.set(&["status", "currentCPUUtilizationPercentage"], share);
    }
    let others = metrics.into_iter().filter(|metric| processor_share(metric, "target").is_none()).collect();
    annotate(hpa, METRICS, translated(Some(others), false, Direction::Down).into());
    // All of them: the raw amount stands only here.
    annotate(hpa, CURRENT_METRICS, translated(Some(current.into()), true, Direction::Down).into());
    annotate(hpa, CONDITIONS, conditions.into());
    if let Some(behavior) = hpa.remove(&["spec", "behavior"]) {
        annotate(hpa, BEHAVIOR, recased(behavior, char::to_ascii_uppercase));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// To the second version.
    Up,
    Down,
}

fn taken(hpa: &mut Object, path: &[&str]) -> Vec<Value> {
    match hpa.remove(path) {
        Some(Value::Array(elements)) => elements,
        _ => Vec::new(),
    }
}

/// The share of the processor that a metric wants or has, if that is all it is about.
fn processor_share(metric: &Value, what: &str) -> Option<Value> {
    let resource = metric.get("resource").filter(|_| metric.get("type").is_some_and(|kind| kind == "Resource"))?;
    let share = resource.get(what)?.get("averageUtilization")?;
    (resource.get("name")? == "cpu").then(|| share.clone())
}

/// Metrics in the other version's form; what is none is left out.
fn translated(metrics: Option<Value>, found: bool, direction: Direction) -> Vec<Value> {
    let Some(Value::Array(metrics)) = metrics else { return Vec::new() };
    metrics.into_iter().filter_map(|metric| metric_as(metric, found, direction)).collect()
}

fn metric_as(metric: Value, found: bool, direction: Direction) -> Option<Value> {
    let Value::Object(metric) = metric else { return None };
    let mut out = Map::new();
    out.insert("type".into(), metric.get("type")?.clone());
    for source in SOURCES {
        let Some(Value::Object(from)) = metric.get(source.name) else { continue };
        let mut to = Map::new();
        for (first, second) in if found { source.found } else { source.wanted } {
            let (read, write) = if direction == Direction::Up { (first, second) } else { (second, first) };
            if let Some(value) = path::get(from, read) {
                path::set(&mut to, write, value.clone());
            }
        }
        if direction == Direction::Up && !found {
            set_target_type(&mut to);
        }
        out.insert(source.name.into(), to.into());
    }
    Some(out.into())
}

/// The first version says by the member that is given what the second says in so many words.
fn set_target_type(source: &mut Map<String, Value>) {
    let target = path::object_at(source, "target");
    let kind = if target.contains_key("averageUtilization") {
        "Utilization"
    } else if target.contains_key("averageValue") {
        // Where an average is wanted, the first version still writes a value, of zero.
        if target.get("value").is_some_and(|value| value == "0") {
            target.remove("value");
        }
        "AverageValue"
    } else {
        "Value"
    };
    target.insert("type".into(), kind.into());
}

/// The behavior's annotation has always held upstream's internal form, whose members begin with capitals.
fn recased(value: Value, case: fn(&char) -> char) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| {
                let mut letters = name.chars();
                let name = letters.next().iter().map(case).chain(letters).collect::<String>();
                (name, recased(value, case))
            })
            .filter(|(_, value)| !value.is_null())
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(elements) => elements.into_iter().map(|element| recased(element, case)).collect(),
        other => other,
    }
}

fn annotated(hpa: &Object, key: &str) -> Option<Value> {
    serde_json::from_str(hpa.annotation(key)?).ok()
}

fn annotate(hpa: &mut Object, key: &str, value: Value) {
    if value.as_array().is_none_or(|elements| !elements.is_empty()) {
        hpa.set_annotation(key, &value.to_string());
    }
}

fn drop_annotations(hpa: &mut Object) {
    for key in [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR] {
        hpa.remove(&["metadata", "annotations", key]);
    }
    if hpa.get(&["metadata", "annotations"]).and_then(Value::as_object).is_some_and(Map::is_empty) {
        hpa.remove(&["metadata", "annotations"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        Object::try_from(value).unwrap()
    }

    #[test]
    fn nothing_is_lost_through_the_first_version() {
        let second = json!({
            "metadata": {"name": "h", "annotations": {"a": "b"}},
            "spec": {
                "maxReplicas": 3,
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "m", "selector": {"matchLabels": {"x": "y"}}},
                        "target": {"type": "AverageValue", "averageValue": "1k"}}},
                    {"type": "Object", "object": {"describedObject": {"kind": "Ingress", "name": "i"}, "metric": {"name": "r"},
                        "target": {"type": "Value", "value": "2k"}}},
                    {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "30"}}},
                    {"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c",
                        "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                ],
                "behavior": {"scaleUp": {"selectPolicy": "Max", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}},
            },
            "status": {
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 7, "averageValue": "70m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True"}],
            },
        });
        let mut hpa = object(second.clone());
        to_v1(&mut hpa);
        assert_eq!(hpa.i64(&["spec", "targetCPUUtilizationPercentage"]), Some(50));
        assert_eq!(hpa.i64(&["status", "currentCPUUtilizationPercentage"]), Some(7));
        assert_eq!((hpa.get(&["spec", "metrics"]), hpa.get(&["spec", "behavior"])), (None, None));
        assert_eq!(hpa.get(&["status", "conditions"]), None);
        let behavior = hpa.annotation(BEHAVIOR).unwrap();
        assert!(behavior.starts_with("{\"ScaleUp\":{") && behavior.contains("\"PeriodSeconds\":15"), "{behavior}");
        let metrics: Value = serde_json::from_str(hpa.annotation(METRICS).unwrap()).unwrap();
        assert_eq!(
            metrics[0],
            json!({"type": "Pods", "pods": {"metricName": "m", "selector": {"matchLabels": {"x": "y"}}, "targetAverageValue": "1k"}})
        );
        to_v2(&mut hpa);
        assert_eq!(hpa.to_value(), second);
    }

    #[test]
    fn the_first_version_alone() {
        let mut hpa = object(json!({
            "metadata": {"annotations": {METRICS: "no JSON", CONDITIONS: "{}"}},
            "spec": {"targetCPUUtilizationPercentage": 80}, "status": {"currentCPUUtilizationPercentage": 3},
        }));
        to_v2(&mut hpa);
        assert_eq!(
            hpa.to_value(),
            json!({
                "metadata": {},
                "spec": {"metrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 80}}}]},
                "status": {"currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 3}}}]},
            })
        );
        let mut averaged = object(json!({"spec": {}, "metadata": {"annotations": {METRICS: json!([{"type": "Object",
            "object": {"target": {"kind": "K", "name": "n"}, "metricName": "m", "targetValue": "0", "averageValue": "5"}}]).to_string()}}}));
        to_v2(&mut averaged);
        assert_eq!(
            averaged.pointer("/spec/metrics/0/object/target"),
            Some(&json!({"averageValue": "5", "type": "AverageValue"}))
        );
    }
}
