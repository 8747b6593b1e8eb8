//! The JSON schema of our own format, from the table of its fields and the help of the flags; docs/schema/ has it for
//! editors. `KMINIK_BLESS=1 cargo test -p kminik declared::schema` writes it.

use clap::CommandFactory;
use serde_json::{Map, Value, json};

use super::cluster::{API_VERSION, FIELDS, Field, Form};
use super::flag;
use crate::cli::Cli;
use crate::settings::ONCE;

/// Flags without a meaning, and older names: no file says them.
const NO_FIELD: &[&str] = &["ha", "mount", "no-vtx-check", "vm-driver"];

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/schema/cluster-v1alpha1.json");

fn schema() -> Value {
    let mut root = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": format!("https://kminik.dev/schema/{}.json", API_VERSION.replace("kminik.io/", "cluster-")),
        "title": "Cluster",
        "description": "A cluster as kminik start -f makes it. Each field is the flag of start that its description begins with.",
        "type": "object",
        "additionalProperties": false,
        "required": ["apiVersion", "kind"],
        "properties": {
            "apiVersion": { "const": API_VERSION },
            "kind": { "const": "Cluster" },
        },
    });
    for field in FIELDS {
        let mut place = &mut root["properties"];
        let mut names = field.path.split('.').peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                place[name] = property(field);
                break;
            }
            if place[name].is_null() {
                place[name] = json!({ "type": ["object", "null"], "additionalProperties": false, "properties": {} });
            }
            place = &mut place[name]["properties"];
        }
    }
    root
}

fn property(field: &Field) -> Value {
    let text = json!({ "type": "string" });
    let form = match field.form {
        Form::Text | Form::Path => json!({ "type": ["string", "null"] }),
        Form::Whole => json!({ "type": ["integer", "null"], "minimum": 1 }),
        Form::Size => json!({ "type": ["string", "integer", "null"] }),
        Form::Switch => json!({ "type": ["boolean", "null"] }),
        Form::Texts | Form::Paths => json!({ "type": ["array", "null"], "items": text }),
        Form::Settings => json!({
            "type": ["object", "null"],
            "additionalProperties": { "type": ["string", "integer", "boolean"] },
        }),
    };
    let Value::Object(form) = form else { unreachable!("each of them is one") };
    let command = Cli::command();
    let help = flag(&command, field.flag).and_then(|flag| flag.get_help()).map(ToString::to_string);
    let mut property = Map::new();
    let help = help.map(|help| format!(": {help}")).unwrap_or_default();
    property.insert("description".into(), format!("--{}{help}", field.flag).into());
    property.extend(form);
    Value::Object(property)
}

#[test]
fn the_published_schema_is_of_the_table() {
    let wanted = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    if std::env::var_os("KMINIK_BLESS").is_some() {
        std::fs::write(PATH, &wanted).unwrap();
    }
    let present = std::fs::read_to_string(PATH).unwrap_or_default();
    assert!(present == wanted, "{PATH} is not of the table: KMINIK_BLESS=1 cargo test declared::schema");
}

#[test]
fn every_flag_of_start_is_a_field_and_every_field_a_flag() {
    let command = Cli::command();
    for field in FIELDS {
        assert!(flag(&command, field.flag).is_some(), "{} is --{}", field.path, field.flag);
        assert_eq!(FIELDS.iter().filter(|other| other.flag == field.flag).count(), 1, "{}", field.flag);
        let below = format!("{}.", field.path);
        assert!(!FIELDS.iter().any(|other| other.path.starts_with(&below)), "{} is both value and mapping", field.path);
    }
    let start = command.find_subcommand("start").unwrap();
    for name in start.get_arguments().filter_map(clap::Arg::get_long) {
        let known = FIELDS.iter().any(|field| field.flag == name);
        let without = ONCE.contains(&name) || NO_FIELD.contains(&name);
        assert!(known != without, "--{name} needs a row in declared::cluster, or is settings::ONCE's");
    }
}
