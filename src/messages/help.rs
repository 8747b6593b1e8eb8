//! The command line's help and what is said of mistakes in it, in the user's language: clap has both in English, and the texts of
//! the declaration are no messages of the code.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use clap::builder::StyledStr;
use clap::{Arg, Command};
use serde::Deserialize;

use super::{DEPTH, Language, Row, rows_of, translate};

const CHINESE: &str = include_str!("help.toml");
/// What stands behind an argument's help, where the value is the user's.
const BEHIND: &[(&str, &str)] = &[
    ("[default:", "[默认值："),
    ("[env:", "[环境变量："),
    ("[aliases:", "[别名："),
    ("[possible values:", "[可用值："),
];

#[derive(Default, Deserialize)]
struct File {
    /// Whole texts of the declaration.
    texts: BTreeMap<String, String>,
    /// Forms of clap's lines and of why a value is none.
    forms: BTreeMap<String, String>,
}

struct Tables {
    texts: BTreeMap<String, String>,
    forms: Vec<Row>,
}

fn tables() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(|| {
        let file: File = toml::from_str(CHINESE).unwrap_or_default();
        Tables { texts: file.texts, forms: rows_of(&file.forms) }
    })
}

/// The same command line with the texts of its help in this language.
pub fn in_language(mut command: Command, language: Language) -> Command {
    if language == Language::English {
        return command;
    }
    // clap's own flags and its help command are there from then on.
    command.build();
    in_chinese(command)
}

fn in_chinese(mut command: Command) -> Command {
    if let Some(about) = command.get_about().map(text_of) {
        command = command.about(about);
    }
    if let Some(about) = command.get_long_about().map(text_of) {
        command = command.long_about(about);
    }
    command.mut_args(argument).mut_subcommands(in_chinese)
}

fn argument(mut argument: Arg) -> Arg {
    if let Some(help) = argument.get_help().map(text_of) {
        argument = argument.help(help);
    }
    if let Some(help) = argument.get_long_help().map(text_of) {
        argument = argument.long_help(help);
    }
    argument
}

fn text_of(english: &StyledStr) -> String {
    let english = english.to_string();
    tables().texts.get(&english).cloned().unwrap_or(english)
}

/// What clap tells, help or a mistake, in Chinese.
pub fn chinese(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.split('\n').map(|line| {
        let said = line.trim_start();
        let indent = &line[..line.len() - said.len()];
        match translate(&tables().forms, said, DEPTH) {
            Some((_, translated)) => format!("{indent}{translated}"),
            None => BEHIND.iter().fold(line.to_owned(), |line, (english, chinese)| {
                // Without the space, unless the line ends there.
                line.replace(&format!("{english} "), chinese).replace(english, chinese)
            }),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn is_chinese(text: &str) -> bool {
        text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
    }

    /// Every text of help that is shown.
    fn texts(command: &Command, found: &mut BTreeSet<String>) {
        let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
        let helps = shown.flat_map(|argument| [argument.get_help(), argument.get_long_help()]);
        let abouts = [command.get_about(), command.get_long_about()];
        found.extend(helps.chain(abouts).flatten().map(ToString::to_string).filter(|text| !text.is_empty()));
        for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
            texts(child, found);
        }
    }

    #[test]
    fn every_text_of_help_has_both_languages_and_no_row_is_unused() {
        let mut command = Cli::command();
        command.build();
        let mut said = BTreeSet::new();
        texts(&command, &mut said);
        let rows = &tables().texts;
        let missing: Vec<&String> = said.iter().filter(|text| !rows.contains_key(*text)).collect();
        assert!(missing.is_empty(), "src/messages/help.toml lacks {}: {missing:#?}", missing.len());
        for (english, chinese) in rows {
            assert!(said.contains(english), "nobody says {english:?}");
            assert!(is_chinese(chinese), "{english:?}: {chinese:?}");
        }
        let mut shown = BTreeSet::new();
        texts(&in_language(Cli::command(), Language::Chinese), &mut shown);
        assert_eq!(shown.iter().find(|text| !is_chinese(text)), None);
    }

    fn told(line: &str) -> String {
        let command = in_language(Cli::command(), Language::Chinese);
        chinese(&command.try_get_matches_from(line.split(' ')).unwrap_err())
    }

    #[test]
    fn mistakes_and_help_are_told_in_chinese() {
        for (line, first) in [
            ("kminik start --cpuz=1", "错误：不认识的参数 '--cpuz'"),
            ("kminik strat", "错误：不认识的子命令 'strat'"),
            ("kminik start --driver", "错误：'--driver <DRIVER>' 需要一个值"),
            ("kminik start --cpus=1 --cpus=2", "错误：参数 '--cpus <N>' 不能多次使用"),
            ("kminik start --output=x", "错误：'--output <OUTPUT>' 的值 'x' 无效"),
            (
                "kminik start --apiserver-port=x",
                "错误：'--apiserver-port <PORT>' 的值 'x' 无效：不是 1 到 65535 的端口",
            ),
            (
                "kminik start --wait-timeout=soon",
                "错误：'--wait-timeout <DURATION>' 的值 'soon' 无效：\"soon\" 不是如 30s 或 6m 的时长",
            ),
            ("kminik start --nodes=many", "错误：'--nodes <N>' 的值 'many' 无效：不是数字"),
            ("kminik cp", "错误：缺少以下必需的参数："),
            ("kminik cache delete --all x", "错误：参数 '--all' 不能与 '[IMAGE]...' 一起使用"),
        ] {
            let told = told(line);
            assert_eq!(told.lines().next(), Some(first), "{line}: {told}");
            let left = told.lines().filter(|line| !line.is_empty() && !line.starts_with("  ") && !is_chinese(line));
            assert_eq!(left.collect::<Vec<_>>(), Vec::<&str>::new(), "{line}");
        }
        let help = told("kminik mirror list --help");
        for word in
            ["按优先顺序列出", "用法：kminik mirror list [OPTIONS]", "\n选项：\n", "[默认值：table]", "显示帮助"]
        {
            assert!(help.contains(word), "{word}: {help}");
        }
    }
}
