//! Flow schemas and priority levels: the mandatory ones are as the server needs them.

use kminik_meta::{ErrorList, FieldError, Object, Path};
use serde_json::Value;

use crate::bootstrap::flow_control::{EXEMPT, mandatory_spec};
use crate::registry::strategy::{Strategy, StrategyContext};

/// The specification of a mandatory object does not change, but for the shares of the exempt level.
pub(crate) struct Mandatory;

impl Strategy for Mandatory {
    fn validate(&self, ctx: &StrategyContext<'_>, object: &Object) -> ErrorList {
        let name = object.name();
        let Some(mut wanted) = mandatory_spec(&ctx.row.plural, name) else { return ErrorList::new() };
        let given = object.get(&["spec"]).cloned().unwrap_or_default();
        let mut found = given.clone();
        let mut exception = "";
        if name == EXEMPT && ctx.row.plural == "prioritylevelconfigurations" {
            exception = " except the 'spec.exempt' field";
            for spec in [&mut wanted, &mut found].into_iter().filter_map(Value::as_object_mut) {
                spec.remove("exempt");
            }
        }
        if found == wanted {
            return ErrorList::new();
        }
        let detail = format!("spec of '{name}'{exception} must equal the fixed value");
        FieldError::invalid(&Path::new("spec"), given, detail).into()
    }
}
