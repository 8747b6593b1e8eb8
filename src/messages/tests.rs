use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex::Regex;

use super::*;

/// A string literal, its content in group 1.
const LITERAL: &str = r#""((?:[^"\\]|\\.)*)""#;

/// Where messages stand: each is followed by a literal, or by a format of one.
const PLACES: &[&str] = &[
    r#"\.step\(\s*[\w:]+,\s*"[^"]*",\s*"#,
    r"\.(?:info|step)\(\s*[\w:]+,\s*",
    r"\.warning\(\s*",
    r"\bline\(\s*\w+,\s*",
    r"Failure::new\(\s*&?\w+,\s*",
    r"Failure::because\(\s*&?\w+,\s*",
    r"\.or_fail\(\s*&?\w+,\s*",
    r"\.advise\(\s*",
    r"Health::bad\(\s*&?\w+,\s*",
    r"Verdict::(?:warning|failed)\(\s*&?\w+,\s*",
    // A catalogue's advice.
    r"^    [A-Z0-9_]+ = \d+, ",
];

fn rows() -> BTreeMap<String, String> {
    toml::from_str(CHINESE).unwrap()
}

/// The program's own code, without tests and comments.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut pending = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && path.file_name().is_some_and(|n| n != "tests.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
                let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                found.push((path, lines.collect::<Vec<_>>().join("\n")));
            }
        }
    }
    found
}

/// A literal's text: lines that are continued joined, quotes without their backslash.
fn unescaped(literal: &str) -> String {
    let joined = Regex::new(r"\\\n\s*").unwrap().replace_all(literal, "").into_owned();
    joined.replace("\\\"", "\"").replace("\\\\", "\\").replace("\\n", "\n")
}

/// Every message in the code.
fn said() -> BTreeMap<String, PathBuf> {
    let mut all = BTreeMap::new();
    for place in PLACES {
        let form = format!(r"(?m){place}&?(?:format!\(\s*|format_args!\(\s*)?{LITERAL}");
        let form = Regex::new(&form).unwrap();
        for (path, code) in sources() {
            for found in form.captures_iter(&code) {
                let text = unescaped(&found[1]);
                // A name of a step is none, nor what is nothing but values.
                let is_text =
                    parts(&text).iter().any(|part| matches!(part, Part::Text(t) if t.contains(char::is_alphabetic)));
                let is_step = place.contains("info|step") && found[0].contains(".step(");
                if is_text && !is_step {
                    all.insert(text, path.clone());
                }
            }
        }
    }
    all
}

#[test]
fn every_message_has_both_languages() {
    let rows = rows();
    let missing: Vec<String> = said()
        .into_iter()
        .filter(|(message, _)| !rows.contains_key(message))
        .map(|(message, path)| format!("{}: {message:?}", path.display()))
        .collect();
    assert!(missing.is_empty(), "src/messages/zh.toml lacks {}:\n{}", missing.len(), missing.join("\n"));
}

#[test]
fn no_row_is_unused_and_placeholders_are_equal() {
    let literals: BTreeSet<String> = {
        let literal = Regex::new(LITERAL).unwrap();
        let all = sources();
        all.iter()
            .flat_map(|(_, code)| literal.captures_iter(code).map(|l| unescaped(&l[1])).collect::<Vec<_>>())
            .collect()
    };
    let said = said();
    for (key, text) in rows() {
        assert!(said.contains_key(&key) || literals.contains(&key), "nobody says {key:?}");
        let names = |format: &str| {
            let values = parts(format).into_iter().filter_map(|part| match part {
                Part::Value(name) => Some(name),
                Part::Text(_) => None,
            });
            values.collect::<BTreeSet<_>>()
        };
        assert_eq!(names(&key), names(&text), "{key:?}: {text:?}");
        assert!(text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c)) || text.is_ascii(), "{text:?}");
    }
}

#[test]
fn messages_are_found_by_their_form() {
    let say = |message: &str| Language::Chinese.say(message);
    assert_eq!(say("dry-run validation complete!"), "试运行检查完成！");
    assert_eq!(say("cannot read /a: b"), "无法读取 /a: b");
    assert_eq!(
        say("the disk of /home: x has 12 MiB free, a cluster needs 1024 MiB"),
        "/home: x 所在磁盘剩余 12 MiB，集群需要 1024 MiB"
    );
    assert_eq!(say("kminik v1.0.0 on Debian"), "Debian 上的 kminik v1.0.0", "values may change places");
    assert_eq!(
        say("Starting \"a\" primary control-plane node in \"a\" cluster"),
        "正在集群 \"a\" 中启动主控制平面节点 \"a\""
    );
    assert_eq!(
        Language::Chinese.compose("Exiting due to {}: {}", &["ID", "1 MiB were asked for, a node needs 256 MiB"]),
        "因 ID 退出：要求 1 MiB，节点至少需要 256 MiB",
        "a message that begins with a value does not take in what it stands in"
    );
    assert_eq!(Language::English.compose("Suggestion: {}", &["Do {it}."]), "Suggestion: Do {it}.");
    // A cause of another program's stays; a message within a message does not.
    assert_eq!(say("cannot write the profile: No space left on device"), "无法写入配置文件：No space left on device");
    assert_eq!(say("cannot read the profile; going on without settings"), "无法读取配置文件；将忽略设置继续");
    assert_eq!(say("what nobody says"), "what nobody says");
    assert_eq!(Language::English.say("dry-run validation complete!"), "dry-run validation complete!");
}

#[test]
fn the_language_is_the_locale_s() {
    for chinese in ["zh_CN.UTF-8", "zh_TW.utf8", "zh", "zh-Hans", "zh_CN", "zh_CN.UTF-8@x"] {
        assert_eq!(Language::of(chinese), Language::Chinese, "{chinese}");
    }
    for english in ["C", "POSIX", "en_US.UTF-8", "zh_CN.GB18030", "zha", "C.UTF-8", "fr_FR.UTF-8"] {
        assert_eq!(Language::of(english), Language::English, "{english}");
    }
}

#[test]
fn formats_are_taken_apart() {
    let text = |t: &str| Part::Text(t.to_owned());
    let value = |v: &str| Part::Value(v.to_owned());
    assert_eq!(parts("a {} b {name:?}{}"), [text("a "), value("0"), text(" b "), value("name"), value("1")]);
    assert_eq!(parts("{{x}} {0}"), [text("{x} "), value("0")]);
    assert_eq!(values(&parts("{}: {}"), "a: b: c").unwrap(), BTreeMap::from([("0", "a"), ("1", "b: c")]));
    assert!(values(&parts("{a} and {a}"), "x and y").is_none());
    assert_eq!(values(&parts("{a} and {a}"), "x and x").unwrap(), BTreeMap::from([("a", "x")]));
}
