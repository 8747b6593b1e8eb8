//! The events.k8s.io group: the core group's events under other field names.

use kminik_meta::Object;

use super::core;
use crate::registry::def::{Conversion, ResourceDef};
use crate::strategies::events::Events;

/// Names of root members: in events.k8s.io, in the core group.
const RENAMED: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

pub(super) fn rows() -> Vec<ResourceDef> {
    let mut row = ResourceDef::new("events.k8s.io", "v1", "events", "Event")
        .short(&["ev"])
        .view_of(&core::events(), Conversion { to_stored, from_stored })
        .strategy(Events)
        .selectable(&["reason", "type"])
        .policy(|policy| policy.create_on_update = true);
    for (label, path) in [
        ("regarding.kind", "involvedObject.kind"),
        ("regarding.namespace", "involvedObject.namespace"),
        ("regarding.name", "involvedObject.name"),
        ("regarding.uid", "involvedObject.uid"),
        ("regarding.apiVersion", "involvedObject.apiVersion"),
        ("regarding.resourceVersion", "involvedObject.resourceVersion"),
        ("regarding.fieldPath", "involvedObject.fieldPath"),
        ("reportingController", "reportingComponent"),
    ] {
        row = row.selectable_as(label, path, "");
    }
    vec![row]
}

fn to_stored(event: &mut Object) {
    for (from, to) in RENAMED {
        rename(event, from, to);
    }
}

fn from_stored(event: &mut Object) {
    for (to, from) in RENAMED {
        rename(event, from, to);
    }
}

fn rename(event: &mut Object, from: &str, to: &str) {
    if let Some(value) = event.map_mut().remove(from) {
        event.map_mut().insert(to.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_keeps_all_in_both_views() {
        let core = json!({
            "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "reason": "r", "count": 3,
            "source": {"component": "kubelet"}, "reportingComponent": "kubelet", "eventTime": null,
        });
        let mut event = Object::try_from(core.clone()).unwrap();
        from_stored(&mut event);
        assert_eq!(event.str(&["regarding", "name"]), Some("p"));
        assert_eq!(event.str(&["note"]), Some("m"));
        assert_eq!(event.i64(&["deprecatedCount"]), Some(3));
        to_stored(&mut event);
        assert_eq!(event.to_value(), core);
    }
}
