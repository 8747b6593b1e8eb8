//! Secrets: what is written as text is stored with the rest, and never read back as text.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kminik_meta::Object;
use serde_json::Value;

use crate::registry::strategy::{Strategy, StrategyContext};

pub(crate) struct Secrets;

impl Strategy for Secrets {
    fn prepare_create(&self, _ctx: &StrategyContext<'_>, secret: &mut Object) {
        merge_text(secret);
    }

    fn prepare_update(&self, _ctx: &StrategyContext<'_>, _old: &Object, new: &mut Object) {
        merge_text(new);
    }
}

/// Moves `stringData` into `data`, over what is there.
fn merge_text(secret: &mut Object) {
    let Some(Value::Object(texts)) = secret.remove(&["stringData"]) else { return };
    for (key, text) in texts {
        // What is no text is the schema's to refuse.
        if let Value::String(text) = text {
            secret.set(&["data", &key], BASE64_STANDARD.encode(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_wins_over_data() {
        let secret = json!({"data": {"a": "eA==", "b": "eA=="}, "stringData": {"b": "y", "c.d": ""}});
        let mut secret = Object::try_from(secret).unwrap();
        merge_text(&mut secret);
        assert_eq!(secret.to_value(), json!({"data": {"a": "eA==", "b": "eQ==", "c.d": ""}}));
    }
}
