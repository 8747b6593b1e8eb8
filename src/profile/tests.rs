use super::*;

#[test]
fn names() {
    for good in ["kminik", "a1", "A-b.c2", "x-y"] {
        assert!(check_name(good).is_ok(), "{good}");
    }
    for bad in ["", "a", "-a", "a-", "a..b", "a/b", "../x", "a b", "ä1", &"x".repeat(51)] {
        assert_eq!(check_name(bad).unwrap_err().reason.id, "MK_BAD_PROFILE_NAME", "{bad}");
    }
}

/// Every form in which a profile was ever written, oldest first; a change of the format adds one and keeps the others.
const GOLDEN: &[(&str, &str)] = &[
    ("before the cache", include_str!("../../tests/formats/profile-1-a.json")),
    ("before certificates had a life", include_str!("../../tests/formats/profile-1-b.json")),
    ("before engines and exposure", include_str!("../../tests/formats/profile-1-c.json")),
    ("of one node", include_str!("../../tests/formats/profile-1-d.json")),
    ("before networking", include_str!("../../tests/formats/profile-2-a.json")),
    ("now", include_str!("../../tests/formats/profile-3-a.json")),
];

fn home_with(text: &str) -> (tempfile::TempDir, Home) {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::at(directory.path());
    let profile = home.profile("dev");
    std::fs::create_dir_all(&profile).unwrap();
    std::fs::write(profile.join("config.json"), text).unwrap();
    (directory, home)
}

#[test]
fn profiles_of_older_versions_open_and_are_written_as_now() {
    let newest = GOLDEN.last().unwrap().1;
    for (when, text) in GOLDEN {
        let (_directory, home) = home_with(text);
        let mut profile = Profile::load(&home, "dev").unwrap_or_else(|failure| panic!("{when}: {failure}"));
        assert_eq!(
            (profile.name.as_str(), profile.subnet.as_str(), profile.cpus),
            ("dev", "192.168.49.0/24", 2),
            "{when}"
        );
        assert_eq!(profile.cert_expiration_seconds, 26_280 * 3600, "{when}");
        assert_eq!(profile.cache().is_some(), text.contains("cacheToken") && !profile.tunnel, "{when}");
        // What older ones do not say start fills in.
        profile.cache_token = "t".into();
        profile.kminik_version = "0.1.0".into();
        profile.loopback = [(5000, 25_000)].into();
        profile.audit_log = Some(AuditLog::default());
        profile.datastore = Some(Datastore { endpoints: vec!["https://10.0.0.5:2379".into()] });
        let engine = r#"{"host": "tcp://engine.example:2376", "tls": {"directory": "/certs", "unverified": false}}"#;
        profile.engine = Some(serde_json::from_str(engine).unwrap());
        (profile.tunnel, profile.was_up) = (true, true);
        profile.exposure.listen = "0.0.0.0".parse().ok();
        profile.exposure.api_names = vec!["dev.example".into()];
        profile.exposure.publish(&crate::exposure::parse("127.0.0.1:8080:30080/udp").unwrap(), &[]).unwrap();
        profile.mounts = vec![Share { source: "/src".into(), target: "/mnt".into(), read_only: true }];
        let path = home.profile("dev").join("config.json");
        profile.workers.clear();
        profile.networking = Networking::default();
        profile.save(&home).unwrap();
        let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(written["format"], 1, "{when}: a cluster of one node is also for older versions");
        let worker = |number, last, stopped| Worker { number, address: Ipv4Addr::new(192, 168, 49, last), stopped };
        profile.workers = vec![worker(2, 3, false), worker(4, 5, true)];
        profile.save(&home).unwrap();
        let several: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(several["format"], 2, "{when}: nor is one of several that has nothing else");
        profile.networking = Networking {
            services: "10.43.0.0/16".parse().unwrap(),
            domain: "dev.example".into(),
            api_port: 6443,
            api_name: Some("api.example".into()),
            network: Some("shared".into()),
        };
        profile.save(&home).unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(written.trim(), newest.trim(), "{when}: a change of the file is a new golden file");
    }
}

#[test]
fn a_newer_profile_is_refused_with_the_remedy() {
    let (_directory, home) = home_with("{\"format\": 4, \"somethingNew\": {}}");
    let failure = Profile::load(&home, "dev").unwrap_err();
    assert_eq!((failure.reason.id, failure.reason.exit_code), ("MK_PROFILE_NEWER", 18));
    assert!(failure.advice().contains("newer kminik"), "{}", failure.advice());
}

#[test]
fn machines_are_called_by_two_names() {
    let (_directory, home) = home_with(GOLDEN.last().unwrap().1);
    let profile = Profile::load(&home, "dev").unwrap();
    let found =
        |name| profile.machine(name).map(|machine| (machine.name().into_owned(), machine.address().octets()[3]));
    let names: Vec<_> = profile.machines().map(|machine| machine.name().into_owned()).collect();
    assert_eq!(names, ["dev", "dev-m02", "dev-m04"]);
    for (name, expected) in
        [(None, "dev"), (Some("m01"), "dev"), (Some("m02"), "dev-m02"), (Some("dev-m04"), "dev-m04")]
    {
        assert_eq!(found(name).unwrap().0, expected);
    }
    assert_eq!(found(Some("m04")).unwrap().1, 5);
    for name in ["m03", "dev-m03", "dev-m01", "", "m2"] {
        assert_eq!(profile.machine(Some(name)).unwrap_err().reason.id, "GUEST_NODE_NOT_FOUND", "{name}");
    }
    assert!(profile.workers[1].stopped);
}

#[tokio::test]
async fn of_a_cluster_and_a_node_that_come_at_once_one_gets_the_name() {
    let (_directory, home) = home_with(GOLDEN.last().unwrap().1);
    let mut dev = Profile::load(&home, "dev").unwrap();
    let other = Profile { name: "dev-m05".into(), workers: Vec::new(), ..dev.clone() };
    assert_eq!(dev.add_worker(&home, &[]).unwrap(), 5, "nobody has the name yet");
    Profile::check_unique(&home, "dev-m05").unwrap();
    other.claim(&home).await.unwrap();
    assert_eq!(dev.claim(&home).await.unwrap_err().reason.id, "GUEST_NODE_ADD");
    Profile::remove(&home, "dev-m05").unwrap();
    dev.claim(&home).await.unwrap();
    assert_eq!(other.claim(&home).await.unwrap_err().reason.id, "MK_USAGE");
    assert!(!Profile::exists(&home, "dev-m05"));
}

#[test]
fn a_worker_gets_an_address_that_nobody_has() {
    let (_directory, home) = home_with(GOLDEN.last().unwrap().1);
    let mut profile = Profile::load(&home, "dev").unwrap();
    let used = [Ipv4Addr::new(192, 168, 49, 4), Ipv4Addr::new(192, 168, 49, 6)];
    assert_eq!(profile.add_worker(&home, &used).unwrap(), 5);
    assert_eq!(profile.workers.last().unwrap().address, Ipv4Addr::new(192, 168, 49, 7));
}

#[test]
fn logins_are_not_shown() {
    let (_directory, home) = home_with(GOLDEN.last().unwrap().1);
    let mut profile = Profile::load(&home, "dev").unwrap();
    profile.registries.mirrors = vec!["docker.io=https://me:s3cret@m.example/p".into(), "https://plain.example".into()];
    profile.registries.repository = Some("https://me:s3cret@r.example".into());
    profile.cache_token = "s3cret".into();
    let shown = profile.shown().unwrap();
    assert!(!shown.to_string().contains("s3cret"), "{shown}");
    assert_eq!(shown["registries"]["mirrors"][0], "docker.io=https://***@m.example/p");
    assert_eq!(shown["registries"]["mirrors"][1], "https://plain.example");
}

#[test]
fn what_is_a_word_of_a_command_is_no_name_for_a_new_cluster() {
    for reserved in ["list", "config", "start"] {
        assert!(check_name(reserved).is_ok(), "one that is there stays");
        assert_eq!(check_new_name(reserved).unwrap_err().reason.id, "MK_BAD_PROFILE_NAME", "{reserved}");
    }
    assert!(check_new_name("lists").is_ok());
}
