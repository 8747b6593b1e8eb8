//! Kinds that select nodes by labels warn of the labels' old names.

use kminik_meta::warnings::deprecated_node_label;
use kminik_meta::{Object, Path};
use serde_json::Value;

use crate::registry::strategy::{Strategy, StrategyContext};

fn warning(path: &Path, label: &str) -> Option<String> {
    deprecated_node_label(label).map(|message| format!("{path}: {message}"))
}

/// Runtime classes.
pub(crate) struct RuntimeClasses;

impl Strategy for RuntimeClasses {
    fn warnings(&self, _ctx: &StrategyContext<'_>, _old: Option<&Object>, class: &Object) -> Vec<String> {
        let path = Path::new("scheduling").child("nodeSelector");
        let selector = class.get(&["scheduling", "nodeSelector"]).and_then(Value::as_object);
        selector.into_iter().flatten().filter_map(|(label, _)| warning(&path.key(label), label)).collect()
    }
}

/// Storage classes.
pub(crate) struct StorageClasses;

impl Strategy for StorageClasses {
    fn warnings(&self, _ctx: &StrategyContext<'_>, _old: Option<&Object>, class: &Object) -> Vec<String> {
        let mut warnings = Vec::new();
        for (i, term) in class.array(&["allowedTopologies"]).iter().enumerate() {
            for (j, expression) in term["matchLabelExpressions"].as_array().into_iter().flatten().enumerate() {
                let path = Path::new("allowedTopologies").index(i).child("matchLabelExpressions").index(j).child("key");
                warnings.extend(warning(&path, expression["key"].as_str().unwrap_or_default()));
            }
        }
        warnings
    }
}
