//! All output goes through here: data to stdout, progress and errors to stderr, or JSON events to stdout.
//!
//! Steps are one line each with an emoji on a terminal, with a plain prefix elsewhere. With `-o json` each step, notice
//! and failure is a CloudEvent on one line of stdout, of minikube's types and keys.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;

use serde_json::json;
use unicode_width::UnicodeWidthStr;

use crate::env;
use crate::messages::Language;
use crate::reason::{Failure, Outcome};

/// What is printed before a line: (emoji, plain).
#[derive(Clone, Copy, Debug)]
pub struct Style(&'static str, &'static str);

pub const HAPPY: Style = Style("😄  ", "* ");
pub const SPARKLE: Style = Style("✨  ", "* ");
pub const THUMB: Style = Style("👍  ", "* ");
pub const IMAGE: Style = Style("🚜  ", "* ");
pub const FIRE: Style = Style("🔥  ", "* ");
pub const PREPARE: Style = Style("📦  ", "* ");
pub const VERIFY: Style = Style("🔎  ", "* ");
pub const ADDONS: Style = Style("🌟  ", "* ");
pub const NEW_MOON: Style = Style("🌑  ", "* ");
pub const DONE: Style = Style("🏄  ", "* ");
pub const STOP: Style = Style("🛑  ", "* ");
pub const RESTART: Style = Style("🔄  ", "* ");
pub const RUNNING: Style = Style("🏃  ", "* ");
pub const DELETE: Style = Style("🔥  ", "* ");
pub const CRUSHED: Style = Style("💀  ", "* ");
pub const SHRUG: Style = Style("🙄  ", "* ");
pub const DRY: Style = Style("🌵  ", "* ");
pub const DOWNLOAD: Style = Style("💾  ", "* ");
pub const CHECK: Style = Style("✅  ", "* ");
pub const TIP: Style = Style("💡  ", "* ");
pub const PAUSE: Style = Style("⏸️  ", "* ");
pub const UNPAUSE: Style = Style("⏯️  ", "* ");
pub const MOUNT: Style = Style("📁  ", "* ");
pub const NOTE: Style = Style("📌  ", "* ");
pub const CLOCK: Style = Style("⏰  ", "* ");
pub const CELEBRATE: Style = Style("🎉  ", "* ");
pub const OPTION: Style = Style("    ▪ ", "  - ");
const WARN: Style = Style("❗  ", "! ");
const FATAL: Style = Style("❌  ", "X ");

/// Where output goes and in which dress.
pub struct Printer {
    emoji: bool,
    events: Option<Mutex<Events>>,
    /// `[name] ` for a profile that is not the default.
    prefix: String,
    /// Of what people read.
    language: Language,
    /// Gets every message too, with its time.
    kept: Option<Mutex<File>>,
}

/// The failures of several that are worked on one after the other: the first is the command's, others are told as they come.
#[derive(Default)]
pub struct Failures(Option<Failure>);

impl Failures {
    /// What one has come to, if to anything.
    pub fn note<T>(&mut self, outcome: Outcome<T>, printer: &Printer) -> Option<T> {
        match (outcome, &self.0) {
            (Ok(done), _) => Some(done),
            (Err(failure), None) => {
                self.0 = Some(failure);
                None
            }
            (Err(failure), Some(_)) => {
                printer.warning(&failure.to_string());
                None
            }
        }
    }

    /// The first of them.
    ///
    /// # Errors
    /// If there is one.
    pub fn first(self) -> Outcome<()> {
        self.0.map_or(Ok(()), Err)
    }
}

struct Events {
    total: usize,
    current: usize,
}

impl Printer {
    /// Text for people.
    pub fn text(profile: &str) -> Self {
        let emoji = match env::get(env::IN_STYLE).as_deref() {
            Some("1" | "true") => true,
            Some(_) => false,
            None => std::io::stderr().is_terminal() && env::get("TERM").is_some_and(|t| t != "dumb"),
        };
        let prefix = if profile == crate::profile::DEFAULT { String::new() } else { format!("[{profile}] ") };
        Self { emoji, events: None, prefix, language: Language::of_environment(), kept: None }
    }

    /// One JSON event a line; `total` steps are announced.
    pub fn json(profile: &str, total: usize) -> Self {
        Self { events: Some(Mutex::new(Events { total, current: 0 })), ..Self::text(profile) }
    }

    /// The messages are written to this file too, instead of those of before.
    pub fn keep(self, file: File) -> Self {
        Self { kept: Some(Mutex::new(file)), ..self }
    }

    fn record(&self, message: &str) {
        if let Some(file) = &self.kept {
            let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // What cannot be kept is only missed by who looks for it later.
            let _ = writeln!(file, "{:.3} {message}", jiff::Timestamp::now());
        }
    }

    /// Keeps a text with the messages, without showing it.
    pub fn aside(&self, text: &str) {
        if let Some(file) = &self.kept {
            let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let _ = writeln!(file, "{}", text.trim_end());
        }
    }

    pub fn is_json(&self) -> bool {
        self.events.is_some()
    }

    fn line(&self, style: Style, message: &str) {
        self.record(message);
        self.write(style, &self.language.say(message));
    }

    /// As [`Printer::line`], of a form with values that are messages themselves.
    fn composed(&self, style: Style, form: &str, values: &[&str]) {
        self.record(&Language::English.compose(form, values));
        self.write(style, &self.language.compose(form, values));
    }

    fn write(&self, style: Style, text: &str) {
        let prefix = if self.emoji { style.0 } else { style.1 };
        // A closed stderr is no reason to fail.
        let _ = writeln!(std::io::stderr().lock(), "{}{prefix}{text}", self.prefix);
    }

    fn event(&self, kind: &str, data: &serde_json::Value) {
        self.record(data["message"].as_str().unwrap_or_default());
        let event = json!({
            "specversion": "1.0",
            "id": uuid::Uuid::new_v4().to_string(),
            "source": "https://kminik.dev/",
            "type": format!("io.k8s.sigs.minikube.{kind}"),
            "datacontenttype": "application/json",
            "data": data,
        });
        self.data(&event.to_string());
    }

    /// A step of the command, named as minikube names its steps.
    pub fn step(&self, style: Style, name: &str, message: &str) {
        let Some(events) = &self.events else { return self.line(style, message) };
        let (current, total) = {
            let mut events = events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            events.current += 1;
            (events.current - 1, events.total)
        };
        self.event(
            "step",
            &json!({
                "currentstep": current.to_string(), "totalsteps": total.to_string(), "name": name, "message": message,
            }),
        );
    }

    /// Something worth knowing that is no step.
    pub fn info(&self, style: Style, message: &str) {
        if self.is_json() { self.event("info", &json!({ "message": message })) } else { self.line(style, message) }
    }

    pub fn warning(&self, message: &str) {
        if self.is_json() { self.event("warning", &json!({ "message": message })) } else { self.line(WARN, message) }
    }

    /// A message as people are to read it.
    pub fn say(&self, message: &str) -> String {
        self.language.say(message)
    }

    /// Data, to stdout.
    pub fn data(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // A reader that has gone (`| head`) is no reason to fail.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// The one renderer of failures.
    pub fn failure(&self, failure: &Failure) {
        if self.is_json() {
            self.event(
                "error",
                &json!({
                    "name": failure.reason.id, "message": failure.message, "advice": failure.advice(),
                    "exitcode": failure.reason.exit_code.to_string(), "url": "", "issues": "",
                }),
            );
            return;
        }
        self.composed(FATAL, "Exiting due to {}: {}", &[failure.reason.id, &failure.message]);
        if !failure.advice().is_empty() {
            self.composed(TIP, "Suggestion: {}", &[failure.advice()]);
        }
    }
}

/// A table in minikube's box; cells may have several lines.
pub fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    let width = |text: &str| text.lines().map(UnicodeWidthStr::width).max().unwrap_or(0);
    let widths: Vec<usize> = headers
        .iter()
        .enumerate()
        .map(|(i, header)| {
            let cells = rows.iter().filter_map(|row| row.get(i)).map(|cell| width(cell));
            cells.chain([width(header)]).max().unwrap_or(0)
        })
        .collect();
    let rule = |left: &str, middle: &str, right: &str| {
        let bars: Vec<String> = widths.iter().map(|w| "─".repeat(w + 2)).collect();
        format!("{left}{}{right}", bars.join(middle))
    };
    let line = |cells: &[&str]| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, w)| format!(" {cell}{} ", " ".repeat(w - cell.width()))).collect();
        format!("│{}│", padded.join("│"))
    };
    let mut lines = vec![rule("┌", "┬", "┐"), line(headers), rule("├", "┼", "┤")];
    for row in rows {
        let height = row.iter().map(|cell| cell.lines().count()).max().unwrap_or(0).max(1);
        let part = |i: usize| row.iter().map(|cell| cell.lines().nth(i).unwrap_or_default()).collect::<Vec<_>>();
        lines.extend((0..height).map(|i| line(&part(i))));
    }
    lines.push(rule("└", "┴", "┘"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_a_box() {
        let text = table(&["A", "NAME"], &[vec!["x".into(), "y".into()]]);
        assert_eq!(text, "┌───┬──────┐\n│ A │ NAME │\n├───┼──────┤\n│ x │ y    │\n└───┴──────┘");
        let text = table(&["A"], &[vec!["✅".into()], vec!["x".into()]]);
        assert_eq!(text, "┌────┐\n│ A  │\n├────┤\n│ ✅ │\n│ x  │\n└────┘", "some characters are two wide");
        let text = table(&["A"], &[vec!["x\nyy".into()]]);
        assert_eq!(text, "┌────┐\n│ A  │\n├────┤\n│ x  │\n│ yy │\n└────┘");
    }
}
