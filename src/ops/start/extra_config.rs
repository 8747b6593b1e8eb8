//! `--extra-config=COMPONENT.KEY=VALUE`, as minikube has it: the settings of upstream's components that mean something here.

use crate::drivers::NodeFile;
use crate::home::Home;
use crate::node::config::{AUDIT_POLICY, AuditLog};
use crate::profile::Profile;
use crate::reason::{Failure, MK_BAD_EXTRA_CONFIG, MK_PROFILE_BROKEN, OrFail, Outcome};

/// What was given, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtraConfig {
    /// Nothing of what the cluster has is to stay.
    is_cleared: bool,
    /// Content of the audit policy.
    audit_policy: Option<String>,
    audit_log: AuditLog,
    /// Whether admissionregistration.k8s.io/v1beta1 is to be served; `None` where nothing was said.
    mutating_version: Option<bool>,
    /// The gate MutatingAdmissionPolicy, likewise.
    mutating_gate: Option<bool>,
}

type Setting = (&'static str, fn(&mut ExtraConfig, &str) -> Outcome<()>);

/// Every setting there is.
const SETTINGS: [Setting; 7] = [
    ("apiserver.audit-policy-file", |config, value| {
        let text = std::fs::read_to_string(value)
            .or_fail(&MK_BAD_EXTRA_CONFIG, format_args!("cannot read the audit policy {value}"))?;
        kminik_apiserver::audit::Policy::parse(&text)
            .or_fail(&MK_BAD_EXTRA_CONFIG, format_args!("the audit policy {value} cannot be used"))?;
        config.audit_policy = Some(text);
        Ok(())
    }),
    ("apiserver.audit-log-path", |config, value| {
        if value != "-" && !value.starts_with('/') {
            return Err(refuse(format!("apiserver.audit-log-path is a path in the node, or -, not {value:?}")));
        }
        value.clone_into(&mut config.audit_log.path);
        Ok(())
    }),
    ("apiserver.audit-log-maxsize", |config, value| set(&mut config.audit_log.max_size_mb, value)),
    ("apiserver.audit-log-maxbackup", |config, value| set(&mut config.audit_log.max_backups, value)),
    ("apiserver.audit-log-maxage", |config, value| set(&mut config.audit_log.max_age_days, value)),
    ("apiserver.runtime-config", |config, value| {
        config.mutating_version =
            Some(switch("apiserver.runtime-config", "admissionregistration.k8s.io/v1beta1", value)?);
        Ok(())
    }),
    ("apiserver.feature-gates", |config, value| {
        config.mutating_gate = Some(switch("apiserver.feature-gates", "MutatingAdmissionPolicy", value)?);
        Ok(())
    }),
];

fn refuse(message: String) -> Failure {
    Failure::new(&MK_BAD_EXTRA_CONFIG, message)
}

fn set(field: &mut u32, value: &str) -> Outcome<()> {
    *field = value.parse().map_err(|_| refuse(format!("{value:?} is no number")))?;
    Ok(())
}

/// Reads `NAME=true` or `NAME=false` of the one name that a setting knows.
fn switch(setting: &str, known: &str, value: &str) -> Outcome<bool> {
    match value.split_once('=') {
        Some((name, "true")) if name == known => Ok(true),
        Some((name, "false")) if name == known => Ok(false),
        _ => Err(refuse(format!("{setting} takes {known}=true or {known}=false, not {value:?}"))),
    }
}

impl ExtraConfig {
    /// Reads what was given, and the files that it names.
    ///
    /// # Errors
    /// `MK_BAD_EXTRA_CONFIG`, naming what is wrong, or the settings there are.
    pub fn parse(given: &[String]) -> Outcome<Self> {
        let mut config = ExtraConfig::default();
        for setting in given {
            if setting.is_empty() {
                config.is_cleared = true;
                continue;
            }
            let Some((key, value)) = setting.split_once('=') else {
                return Err(refuse(format!("--extra-config {setting:?} is not COMPONENT.KEY=VALUE")));
            };
            let Some((_, apply)) = SETTINGS.iter().find(|(known, _)| *known == key) else {
                let known: Vec<&str> = SETTINGS.iter().map(|(known, _)| *known).collect();
                return Err(refuse(format!("--extra-config has no setting {key:?}"))
                    .advise(format!("The settings are: {}", known.join(", "))));
            };
            apply(&mut config, value)?;
        }
        if config.audit_policy.is_none() && config.audit_log != AuditLog::default() {
            return Err(refuse("an audit log needs apiserver.audit-policy-file".to_owned()));
        }
        if config.mutating_version.unwrap_or_default() != config.mutating_gate.unwrap_or_default() {
            let both = "apiserver.runtime-config=admissionregistration.k8s.io/v1beta1=true and \
                        apiserver.feature-gates=MutatingAdmissionPolicy=true";
            return Err(refuse(format!("MutatingAdmissionPolicy needs both {both}")));
        }
        Ok(config)
    }

    /// What the profile keeps of it; nothing given changes nothing.
    pub fn update(&self, profile: &mut Profile) {
        if self.is_cleared {
            (profile.audit_log, profile.mutating_policies) = (None, false);
        }
        if self.audit_policy.is_some() {
            profile.audit_log = Some(self.audit_log.clone());
        }
        if let Some(wanted) = self.mutating_version.or(self.mutating_gate) {
            profile.mutating_policies = wanted;
        }
    }

    /// Keeps the files in the profile, so that later starts need them no more.
    pub fn keep_files(&self, home: &Home, profile: &Profile) -> Outcome<()> {
        let path = home.profile(&profile.name).join(AUDIT_POLICY);
        match &self.audit_policy {
            Some(policy) => home.write(&path, policy.as_bytes(), kminik_base::atomic_file::SECRET),
            None if self.is_cleared => home.remove(&path),
            None => Ok(()),
        }
    }
}

/// The files that the node gets.
pub fn node_files(home: &Home, profile: &Profile) -> Outcome<Option<NodeFile>> {
    if profile.audit_log.is_none() {
        return Ok(None);
    }
    let path = home.profile(&profile.name).join(AUDIT_POLICY);
    let content = std::fs::read(&path).or_fail(&MK_PROFILE_BROKEN, format_args!("cannot read {}", path.display()))?;
    Ok(Some(NodeFile { path: AUDIT_POLICY.into(), content, mode: kminik_base::atomic_file::SECRET }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(given: &[&str]) -> Outcome<ExtraConfig> {
        ExtraConfig::parse(&given.iter().map(|&one| one.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn settings_are_known_and_checked() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            format!("apiserver.audit-policy-file={}", path.display())
        };
        let good = write("good", "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}");
        let bad = write("bad", "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: All}]}");
        let config =
            parse(&[good.as_str(), "apiserver.audit-log-path=/var/log/a.log", "apiserver.audit-log-maxsize=5"])
                .unwrap();
        assert_eq!((config.audit_log.path.as_str(), config.audit_log.max_size_mb), ("/var/log/a.log", 5));
        assert_eq!(parse(&[]).unwrap(), ExtraConfig::default());
        let (version, gate) = (
            "apiserver.runtime-config=admissionregistration.k8s.io/v1beta1=true",
            "apiserver.feature-gates=MutatingAdmissionPolicy=true",
        );
        assert_eq!(parse(&[version, gate]).unwrap().mutating_gate, Some(true));
        let mut profile: Profile =
            serde_json::from_str(include_str!("../../../tests/formats/profile-3-a.json")).unwrap();
        parse(&[good.as_str(), version, gate]).unwrap().update(&mut profile);
        assert!(profile.audit_log.is_some() && profile.mutating_policies);
        parse(&[]).unwrap().update(&mut profile);
        assert!(profile.audit_log.is_some() && profile.mutating_policies);
        parse(&["", good.as_str()]).unwrap().update(&mut profile);
        assert!(profile.audit_log.is_some() && !profile.mutating_policies, "what is given beside it counts");
        parse(&[""]).unwrap().update(&mut profile);
        assert!(profile.audit_log.is_none());
        for given in [
            vec![bad.as_str()],
            vec!["apiserver.audit-policy-file=/no/such/file"],
            vec!["apiserver.audit-log-maxsize=5"],
            vec![good.as_str(), "apiserver.audit-log-path=a.log"],
            vec![good.as_str(), "apiserver.audit-log-maxage=old"],
            vec![version],
            vec![gate],
            vec![version, "apiserver.feature-gates=Other=true"],
            vec!["apiserver.v=10"],
            vec!["nonsense"],
        ] {
            assert_eq!(parse(&given).unwrap_err().reason.id, "MK_BAD_EXTRA_CONFIG", "{given:?}");
        }
    }
}
