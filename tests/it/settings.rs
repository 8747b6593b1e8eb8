//! Settings: what is kept, refused, shown, and taken by `start`.

use crate::Test;
use crate::support::{Cluster, Output, run};

pub const TESTS: &[Test] = &[
    ("what_is_set_is_shown_and_can_be_unset", set_get_unset),
    ("what_is_no_property_or_no_value_is_refused", refused),
    ("start_takes_settings_then_the_environment_then_flags", precedence),
    ("a_profile_is_switched_to_and_the_unknown_is_no_failure", switch),
    ("a_broken_file_stops_no_other_command", broken),
    ("changes_at_once_are_all_kept", at_once),
];

/// A cluster's commands without `-p`.
fn plain(cluster: &Cluster, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = crate::support::command(crate::support::kminik_binary(), arguments);
    command.env("KMINIK_HOME", cluster.home().join("home")).env("KUBECONFIG", cluster.kubeconfig());
    run(command.envs(environment.iter().copied()), None)
}

fn set_get_unset() {
    let cluster = Cluster::prepare("config");
    let told = cluster.kminik(&["config", "get", "cpus"]).fails(14);
    assert!(told.contains("specified key could not be found in config"), "{told}");
    let told = cluster.kminik(&["config", "set", "cpus", "1"]);
    assert!(told.stderr.contains("These changes will take effect"), "{}", told.stderr);
    assert_eq!(told.ok(), "");
    assert_eq!(cluster.kminik(&["config", "get", "cpus"]).ok(), "1\n");
    cluster.kminik(&["config", "set", "embed-certs", "true"]).ok();
    assert_eq!(cluster.kminik(&["config", "view"]).ok(), "- cpus: 1\n- embed-certs: true\n");
    let format = "{{.ConfigValue}}={{.ConfigKey}}";
    assert_eq!(cluster.kminik(&["config", "view", "--format", format]).ok(), "1=cpus\ntrue=embed-certs\n");
    assert_eq!(cluster.kminik(&["config", "unset", "cpus"]).ok(), "");
    cluster.kminik(&["config", "unset", "cpus"]).ok();
    cluster.kminik(&["config", "get", "cpus"]).fails(14);
    assert_eq!(cluster.kminik(&["config", "defaults", "driver"]).ok(), "* docker\n* native\n");
    let listed = cluster.kminik(&["config", "defaults", "driver", "-o", "json"]).ok();
    assert_eq!(listed, "[\"docker\",\"native\"]\n");
    assert!(cluster.kminik(&["config", "defaults"]).ok().contains("* registry-mirror\n"));
}

fn refused() {
    let cluster = Cluster::prepare("refused");
    for (property, value) in [
        ("nonsense", "1"),
        ("dry-run", "true"),
        ("cpus", "many"),
        ("memory", "900t"),
        ("driver", "vmwere"),
        ("embed-certs", "perhaps"),
        ("kubernetes-version", "v1.23.8"),
        ("registry-mirror", "ftp://x"),
    ] {
        let told = cluster.kminik(&["config", "set", property, value]).fails(10);
        assert!(told.contains("Exiting due to MK_CONFIG_SET: Set failed"), "{property}: {told}");
    }
    assert!(!cluster.home().join("home/config/config.json").exists());
}

fn precedence() {
    let cluster = Cluster::prepare("precedence");
    cluster.kminik(&["config", "set", "driver", "native"]).ok();
    let start = ["start", "--dry-run"];
    let told = plain(&cluster, &start, &[]);
    assert!(told.stderr.contains("Using the native driver based on user configuration"), "{}", told.stderr);
    told.ok();
    assert!(
        plain(&cluster, &start, &[("KMINIK_DRIVER", "of-the-environment")]).fails(55).contains("of-the-environment")
    );
    let typed = ["start", "--dry-run", "--driver=typed"];
    assert!(plain(&cluster, &typed, &[("KMINIK_DRIVER", "of-the-environment")]).fails(55).contains("\"typed\""));
    let older = ["start", "--dry-run", "--vm-driver=older"];
    assert!(plain(&cluster, &older, &[]).fails(55).contains("\"older\""));
    cluster.kminik(&["config", "set", "image-mirror-country", "cn"]).ok();
    plain(&cluster, &["start", "--dry-run=true"], &[]).ok();
    let both = ["start", "--dry-run", "--image-mirror-country=xx"];
    plain(&cluster, &both, &[]).fails(40);
}

fn switch() {
    let cluster = Cluster::prepare("switch");
    assert_eq!(plain(&cluster, &["profile"], &[]).ok(), "kminik\n");
    let told = plain(&cluster, &["profile", "unknown"], &[]);
    assert!(told.stderr.contains("kminik start -p unknown"), "{}", told.stderr);
    told.ok();
    assert_eq!(plain(&cluster, &["profile"], &[]).ok(), "kminik\n");
    cluster.kminik(&["config", "set", "profile", "other"]).ok();
    assert_eq!(plain(&cluster, &["profile"], &[]).ok(), "other\n");
    assert_eq!(plain(&cluster, &["profile"], &[("KMINIK_PROFILE", "third")]).ok(), "third\n");
    plain(&cluster, &["profile", "default"], &[]).ok();
    assert_eq!(plain(&cluster, &["profile"], &[]).ok(), "kminik\n");
    assert!(!cluster.home().join("home/profiles").exists(), "switching makes no cluster");
}

fn broken() {
    let cluster = Cluster::prepare("brokenconfig");
    let file = cluster.home().join("home/config/config.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "{ not").unwrap();
    let told = cluster.kminik(&["version", "--short"]);
    assert!(told.stderr.contains("going on without settings"), "{}", told.stderr);
    told.ok();
    cluster.kminik(&["config", "set", "cpus", "1"]).fails(18);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{ not", "what cannot be read is not replaced");
}

fn at_once() {
    let cluster = Cluster::prepare("manysets");
    let properties =
        [("cpus", "1"), ("memory", "2g"), ("embed-certs", "true"), ("driver", "native"), ("cache-limit", "2g")];
    let mirrors: Vec<String> = (0..6).map(|i| format!("https://m{i}.example")).collect();
    let sets = properties.map(|(name, value)| vec!["config", "set", name, value]);
    let adds = mirrors.iter().map(|mirror| vec!["mirror", "add", mirror]);
    let running: Vec<_> = sets
        .into_iter()
        .chain(adds)
        .map(|arguments| {
            let mut command = cluster.command(&arguments);
            std::thread::spawn(move || run(&mut command, None))
        })
        .collect();
    for one in running {
        one.join().unwrap().ok();
    }
    let view = cluster.kminik(&["config", "view"]).ok();
    for (name, value) in properties {
        assert!(view.contains(&format!("- {name}: {value}\n")), "{name}: {view}");
    }
    let kept = std::fs::read_to_string(cluster.home().join("home/mirrors.toml")).unwrap();
    for mirror in mirrors {
        assert!(kept.contains(&mirror), "{mirror}: {kept}");
    }
}
