//! What patches of containerd's configuration, in kind's files, say of registries.

use toml::{Table, Value};

use super::Declared;

/// Tables of the plugin that pulls, of containerd 1 and 2.
const PLUGINS: [&str; 2] = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"];

/// Reads one patch; `field` is where it stands.
pub(super) fn read(patch: &str, field: &str, declared: &mut Declared) -> Result<(), String> {
    let patch: Table = patch.parse().map_err(|error| format!("{field} is no TOML: {error}"))?;
    for (key, value) in &patch {
        match (key.as_str(), value) {
            ("version", _) => {}
            ("plugins", Value::Table(plugins)) => {
                for (name, plugin) in plugins {
                    match plugin {
                        Value::Table(plugin) if PLUGINS.contains(&name.as_str()) => of_plugin(plugin, field, declared),
                        _ => declared.refuse(field, &format!("plugins.{name:?} {NO_CONTAINERD}")),
                    }
                }
            }
            (other, _) => declared.refuse(field, &format!("{other} {NO_CONTAINERD}")),
        }
    }
    Ok(())
}

const NO_CONTAINERD: &str =
    "has no meaning, for there is no containerd in a node; only what it says of registries is read";

fn of_plugin(plugin: &Table, field: &str, declared: &mut Declared) {
    for (key, value) in plugin {
        match (key.as_str(), value) {
            ("registry", Value::Table(registry)) => of_registry(registry, field, declared),
            (other, _) => declared.refuse(field, &format!("{other} {NO_CONTAINERD}")),
        }
    }
}

fn of_registry(registry: &Table, field: &str, declared: &mut Declared) {
    for (key, value) in registry {
        match (key.as_str(), value) {
            ("config_path", Value::String(path)) => declared.notes.push(format!(
                "{field}: hosts.toml files in {path} of a node are not read; kminik mirror add names mirrors instead"
            )),
            ("mirrors", Value::Table(mirrors)) => {
                for (name, mirror) in mirrors {
                    let endpoints = mirror.get("endpoint").and_then(Value::as_array).into_iter().flatten();
                    let mirrors = endpoints.filter_map(Value::as_str).map(|endpoint| format!("{name}={endpoint}"));
                    declared.wish("registry-mirror", format!("{field} registry.mirrors.{name:?}"), mirrors.collect());
                }
            }
            ("configs", Value::Table(configs)) => {
                for (host, config) in configs {
                    of_host(host, config, field, declared);
                }
            }
            (other, _) => declared.refuse(field, &format!("registry.{other} cannot be followed")),
        }
    }
}

fn of_host(host: &str, config: &Value, field: &str, declared: &mut Declared) {
    let at = format!("{field} registry.configs.{host:?}");
    for (key, value) in config.as_table().into_iter().flatten() {
        let insecure = value.get("insecure_skip_verify").and_then(Value::as_bool);
        match (key.as_str(), insecure, value.as_table().map(Table::len)) {
            ("tls", Some(true), Some(1)) => declared.wish("insecure-registry", &at, vec![host.to_owned()]),
            ("tls", Some(false), Some(1)) => {}
            (other, ..) => declared
                .refuse(&at, &format!("{other} cannot be followed: logins are docker's, authorities --ca-cert's")),
        }
    }
}
