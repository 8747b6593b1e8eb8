//! The user's settings, `~/.kminik/config/config.json`: one flat object, as minikube's.
//!
//! A property is a flag of `start` that says how a cluster is to be, `profile` or `cache-limit`. What is typed counts before the
//! environment's `KMINIK_<FLAG>`, that before the setting, that before the flag's own default.

use std::collections::BTreeMap;

use clap::builder::ArgPredicate;
use clap::{Arg, ArgAction, Command, CommandFactory};
use kminik_base::atomic_file;
use serde_json::Value;

use crate::cli::Cli;
use crate::drivers;
use crate::home::Home;
use crate::ops::{registries, start, units};
use crate::profile;
use crate::reason::{Failure, MK_CONFIG_LOAD, MK_CONFIG_SET, OrFail, Outcome};
use crate::version;

/// The property that names the cluster that is meant.
pub const PROFILE: &str = "profile";
/// The property that bounds the cache of images, which is no cluster's.
pub const CACHE_LIMIT: &str = "cache-limit";
const DEFAULT_CACHE_LIMIT: &str = "32g";
const LIMIT_BYTES: u64 = 1 << 20;

/// Flags of `start` that are of one start only: neither settings nor files have them.
pub const ONCE: &[&str] = &["delete-on-failure", "download-only", "dry-run", "file", "force", "output"];

/// Lists that a cluster keeps: a start without the flag leaves what it has, one with it replaces that, and an empty value clears it.
pub const KEPT: &[&str] = &[
    "apiserver-ips",
    "apiserver-names",
    "ca-cert",
    "extra-config",
    "insecure-registry",
    "mount-string",
    "ports",
    "registry-mirror",
];

/// What is known of a property beside what its flag says.
struct Known {
    name: &'static str,
    /// Refuses what the flag's own parser lets through.
    check: fn(&str) -> Outcome<()>,
    /// Values that `config defaults` lists.
    choices: fn(&Home) -> Vec<String>,
    /// Told when it is set: from when on it counts.
    note: &'static str,
}

const AT_START: &str = "These changes will take effect upon a kminik stop and then a kminik start";
const AT_CREATION: &str = "These changes will take effect upon a kminik delete and then a kminik start";

const KNOWN: &[Known] = &[
    Known { name: "base-image", check: any, choices: none, note: AT_CREATION },
    Known { name: CACHE_LIMIT, check: |text| units::limit_bytes(text).map(drop), choices: cache_limits, note: "" },
    Known { name: "cpus", check: |text| units::cpus(text).map(drop), choices: limits, note: AT_START },
    Known {
        name: "driver",
        check: |text| drivers::find(text).map(drop),
        choices: |_| drivers::TABLE.iter().map(|row| row.name.to_owned()).collect(),
        note: AT_CREATION,
    },
    Known { name: "image-mirror-country", check: any, choices: registries::countries, note: "" },
    Known {
        name: "kubernetes-version",
        check: |text| version::check(text, "kminik start"),
        choices: |_| ["stable", "latest", version::KUBERNETES].map(str::to_owned).to_vec(),
        note: "",
    },
    Known { name: "memory", check: |text| units::memory_mib(text).map(drop), choices: limits, note: AT_START },
    Known { name: PROFILE, check: profile::check_name, choices: |home| profile::Profile::names(home), note: "" },
    Known {
        name: "registry-mirror",
        check: |text| text.split(',').try_for_each(registries::check_mirror),
        choices: none,
        note: "",
    },
    Known {
        name: "wait",
        check: |text| start::Wait::parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>()).map(drop),
        choices: none,
        note: "",
    },
];

fn any(_: &str) -> Outcome<()> {
    Ok(())
}

fn none(_: &Home) -> Vec<String> {
    Vec::new()
}

fn limits(_: &Home) -> Vec<String> {
    vec!["max".to_owned(), "no-limit".to_owned()]
}

fn cache_limits(_: &Home) -> Vec<String> {
    vec![DEFAULT_CACHE_LIMIT.to_owned(), "no-limit".to_owned()]
}

fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// The settings of a home.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<String, String>,
}

impl Settings {
    /// None if there is no file.
    ///
    /// # Errors
    /// `MK_CONFIG_LOAD` for a file that cannot be read.
    pub fn load(home: &Home) -> Outcome<Self> {
        let path = home.settings_file();
        let what = format!("cannot read {}", path.display());
        let bytes = atomic_file::read_optional(&path, LIMIT_BYTES).or_fail(&MK_CONFIG_LOAD, &what)?;
        let Some(bytes) = bytes else { return Ok(Self::default()) };
        let values: BTreeMap<String, Value> = serde_json::from_slice(&bytes).or_fail(&MK_CONFIG_LOAD, &what)?;
        let text = |value: Value| match value {
            Value::String(text) => Some(text),
            Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
            Value::Array(list) => Some(list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")),
            Value::Null | Value::Object(_) => None,
        };
        Ok(Self { values: values.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect() })
    }

    pub fn save(&self, home: &Home) -> Outcome<()> {
        let bytes = serde_json::to_vec_pretty(&self.values).or_fail(&MK_CONFIG_SET, "cannot write the settings")?;
        home.write(&home.settings_file(), &bytes, atomic_file::SECRET)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Most bytes of the cache of images; `None` is no limit.
    pub fn cache_limit(&self) -> Option<u64> {
        let text = self.get(CACHE_LIMIT).unwrap_or(DEFAULT_CACHE_LIMIT);
        // A value that was written by hand and is none leaves the default.
        units::limit_bytes(text).or_else(|_| units::limit_bytes(DEFAULT_CACHE_LIMIT)).unwrap_or_default()
    }

    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Sets a property; what the user should know of when it counts.
    ///
    /// # Errors
    /// `MK_CONFIG_SET` for what is no property or no value of it.
    pub fn set(&mut self, name: &str, value: &str) -> Outcome<&'static str> {
        check(name, value).map_err(|why| {
            let failed = format!("Set failed: find settings for {name:?} value of {value:?}: {}", why.message);
            Failure { message: failed, reason: &MK_CONFIG_SET, advice: why.advice }
        })?;
        self.values.insert(name.to_owned(), value.to_owned());
        Ok(known(name).map_or("", |known| known.note))
    }

    /// # Errors
    /// `MK_CONFIG_SET` for what is no property; one that was not set is none.
    pub fn unset(&mut self, name: &str) -> Outcome<()> {
        if self.values.remove(name).is_none() {
            property(name)?;
        }
        Ok(())
    }
}

/// Names of all properties, in order.
pub fn properties() -> Vec<String> {
    let cli = Cli::command();
    let flags = cli.find_subcommand("start").into_iter().flat_map(Command::get_arguments);
    let mut names: Vec<String> = flags.filter(|flag| is_property(flag)).filter_map(name_of).collect();
    names.extend([PROFILE, CACHE_LIMIT].map(str::to_owned));
    names.sort();
    names
}

/// Values a property may have, as far as they can be listed.
///
/// # Errors
/// `MK_CONFIG_SET` for what is no property.
pub fn choices(home: &Home, name: &str) -> Outcome<Vec<String>> {
    let flag = property(name)?;
    let known = known(name).map(|known| (known.choices)(home)).unwrap_or_default();
    if !known.is_empty() {
        return Ok(known);
    }
    let typed = flag.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect::<Vec<_>>();
    let default = || flag.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    Ok(if typed.is_empty() { default() } else { typed })
}

fn name_of(flag: &Arg) -> Option<String> {
    flag.get_long().map(str::to_owned)
}

fn is_property(flag: &Arg) -> bool {
    flag.get_long().is_some_and(|name| !ONCE.contains(&name)) && !flag.is_hide_set()
}

fn property(name: &str) -> Outcome<Arg> {
    let cli = Cli::command();
    let found = match cli.find_subcommand("start") {
        Some(_) if name == CACHE_LIMIT => return Ok(Arg::new(CACHE_LIMIT).default_value(DEFAULT_CACHE_LIMIT)),
        Some(_) if name == PROFILE => cli.get_arguments().find(|flag| flag.get_long() == Some(PROFILE)),
        Some(start) => start.get_arguments().find(|flag| flag.get_long() == Some(name) && is_property(flag)),
        None => None,
    };
    found.cloned().ok_or_else(|| {
        Failure::new(&MK_CONFIG_SET, format!("property name {name:?} not found"))
            .advise(format!("Properties: {}", properties().join(", ")))
    })
}

fn check(name: &str, value: &str) -> Outcome<()> {
    property(name)?;
    if name == CACHE_LIMIT {
        // No flag of any command.
        return known(name).map_or(Ok(()), |known| (known.check)(value));
    }
    let line = ["kminik".to_owned(), "start".to_owned(), format!("--{name}={value}")];
    with_bool_values(Cli::command()).try_get_matches_from(line).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Failure::new(&MK_CONFIG_SET, first)
    })?;
    known(name).map_or(Ok(()), |known| (known.check)(value))
}

/// The command line with the environment's and the settings' values as defaults.
pub fn apply(command: Command, settings: &Settings) -> Command {
    command
        .mut_arg(PROFILE, |flag| match settings.get(PROFILE) {
            Some(profile) => flag.default_value(profile.to_owned()),
            None => flag,
        })
        .mut_subcommand("start", |start| start.mut_args(|flag| with_default(flag, settings)))
}

fn with_default(flag: Arg, settings: &Settings) -> Arg {
    let Some(name) = name_of(&flag) else { return flag };
    let flag = match flag.get_env() {
        None => flag.env(format!("KMINIK_{}", name.to_uppercase().replace('-', "_"))).hide_env(true),
        Some(_) => flag,
    };
    let Some(value) = settings.get(&name).filter(|_| is_property(&flag)) else { return flag };
    let flag = match flag.get_value_delimiter() {
        Some(delimiter) => {
            let values: Vec<String> = value.split(delimiter).map(str::to_owned).collect();
            flag.default_values(values)
        }
        None => flag.default_value(value.to_owned()),
    };
    // Its older name, typed, counts before the setting.
    if name == "driver" { flag.default_value_if("vm_driver", ArgPredicate::IsPresent, None) } else { flag }
}

/// Go's flags may be written `--flag=false`: the command line with flags that take that.
pub fn with_bool_values(command: Command) -> Command {
    let flag = |flag: Arg| {
        if !matches!(flag.get_action(), ArgAction::SetTrue) {
            return flag;
        }
        let default = flag.get_default_values().first().cloned().unwrap_or_else(|| "false".into());
        flag.action(ArgAction::Set)
            .value_parser(clap::value_parser!(bool))
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value(default)
    };
    command.mut_args(flag).mut_subcommands(with_bool_values)
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    fn parse(settings: &Settings, line: &[&str]) -> String {
        let command = with_bool_values(apply(Cli::command(), settings));
        let matches = command.try_get_matches_from(line).unwrap();
        format!("{:?}", Cli::from_arg_matches(&matches).unwrap())
    }

    #[test]
    fn every_known_property_is_one() {
        for known in KNOWN {
            assert!(property(known.name).is_ok(), "{}", known.name);
        }
        for once in ONCE {
            assert!(property(once).is_err(), "{once}");
        }
        assert!(KNOWN.is_sorted_by_key(|known| known.name));
    }

    #[test]
    fn values_are_checked_before_they_are_kept() {
        let mut settings = Settings::default();
        for (name, value) in [
            ("cpus", "x"),
            ("cache-limit", "x"),
            ("driver", "vmwere"),
            ("nope", "1"),
            ("embed-certs", "x"),
            ("dry-run", "true"),
        ] {
            assert_eq!(settings.set(name, value).unwrap_err().reason.id, "MK_CONFIG_SET", "{name}");
        }
        assert_eq!(settings.set("cpus", "1").unwrap(), AT_START);
        assert_eq!(settings.set("embed-certs", "true").unwrap(), "");
        assert_eq!(settings.all().collect::<Vec<_>>(), [("cpus", "1"), ("embed-certs", "true")]);
        settings.unset("cpus").unwrap();
        settings.unset("cpus").unwrap();
        assert_eq!(settings.get("cpus"), None);
        assert_eq!(settings.cache_limit(), Some(32 << 30));
        settings.set("cache-limit", "500m").unwrap();
        assert_eq!(settings.cache_limit(), Some(500 << 20));
        settings.set("cache-limit", "no-limit").unwrap();
        assert_eq!(settings.cache_limit(), None);
    }

    #[test]
    fn settings_are_defaults_and_what_is_typed_counts() {
        let mut settings = Settings::default();
        settings.set("driver", "native").unwrap();
        settings.set("profile", "other").unwrap();
        settings.set("embed-certs", "true").unwrap();
        settings.set("insecure-registry", "a.example,b.example").unwrap();
        let parsed = parse(&settings, &["kminik", "start"]);
        for expected in [
            "profile: \"other\"",
            "driver: Some(\"native\")",
            "embed_certs: true",
            "insecure_registry: [\"a.example\", \"b.example\"]",
        ] {
            assert!(parsed.contains(expected), "{expected}: {parsed}");
        }
        let parsed = parse(&settings, &["kminik", "-p", "mine", "start", "--vm-driver=docker", "--embed-certs=false"]);
        for expected in ["profile: \"mine\"", "driver: None", "vm_driver: Some(\"docker\")", "embed_certs: false"] {
            assert!(parsed.contains(expected), "{expected}: {parsed}");
        }
    }
}
