//! Lines of the small shell: words with quotes and `$NAME`, `|`, `;`, `&&`, `||`.

/// Commands whose output feeds the next; each is its words, at least one.
pub type Pipeline = Vec<Vec<String>>;

/// When a pipeline runs, given the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connector {
    Always,
    And,
    Or,
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Pipe,
    Join(Connector),
}

/// The pipelines of a line; `last` is the value of `$?`.
pub fn line(text: &str, last: i32) -> Result<Vec<(Connector, Pipeline)>, String> {
    let mut result = Vec::new();
    let (mut connector, mut pipeline, mut words) = (Connector::Always, Pipeline::new(), Vec::new());
    for token in tokens(text, last)? {
        match token {
            Token::Word(word) => words.push(word),
            Token::Pipe if words.is_empty() => return Err("syntax error near '|'".into()),
            Token::Pipe => pipeline.push(std::mem::take(&mut words)),
            Token::Join(next) => {
                finish(&mut result, connector, &mut pipeline, &mut words)?;
                connector = next;
            }
        }
    }
    finish(&mut result, connector, &mut pipeline, &mut words)?;
    Ok(result)
}

fn finish(
    result: &mut Vec<(Connector, Pipeline)>,
    connector: Connector,
    pipeline: &mut Pipeline,
    words: &mut Vec<String>,
) -> Result<(), String> {
    if !words.is_empty() {
        pipeline.push(std::mem::take(words));
    } else if !pipeline.is_empty() || connector != Connector::Always {
        return Err("syntax error: a command is missing".into());
    }
    if !pipeline.is_empty() {
        result.push((connector, std::mem::take(pipeline)));
    }
    Ok(())
}

fn tokens(text: &str, last: i32) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' => tokens.extend(word.take().map(Token::Word)),
            '#' if word.is_none() => break,
            ';' | '|' | '&' => {
                tokens.extend(word.take().map(Token::Word));
                let doubled = chars.next_if_eq(&c).is_some();
                tokens.push(match (c, doubled) {
                    (';', _) => Token::Join(Connector::Always),
                    ('|', false) => Token::Pipe,
                    ('|', true) => Token::Join(Connector::Or),
                    (_, true) => Token::Join(Connector::And),
                    (_, false) => return Err("commands in the background are not known here".into()),
                });
            }
            '\'' => {
                let into = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => into.push(c),
                        None => return Err("a quote is not closed".into()),
                    }
                }
            }
            '"' => {
                word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => word.get_or_insert_default().extend(chars.next()),
                        Some('$') => word.get_or_insert_default().push_str(&variable(&mut chars, last)),
                        Some(c) => word.get_or_insert_default().push(c),
                        None => return Err("a quote is not closed".into()),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            '$' => word.get_or_insert_default().push_str(&variable(&mut chars, last)),
            '>' | '<' | '`' | '(' | ')' => {
                return Err(format!("'{c}' is not known here; quote it if it is meant as text"));
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    tokens.extend(word.map(Token::Word));
    Ok(tokens)
}

fn variable(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, last: i32) -> String {
    if chars.next_if_eq(&'?').is_some() {
        return last.to_string();
    }
    let braced = chars.next_if_eq(&'{').is_some();
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    if braced {
        chars.next_if_eq(&'}');
    }
    if name.is_empty() { "$".into() } else { std::env::var(name).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<(Connector, Pipeline)> {
        line(text, 3).unwrap()
    }

    #[test]
    fn words_quotes_and_joins() {
        assert_eq!(
            words("echo 'a  b' \"c$?\" d\\ e"),
            [(Connector::Always, vec![vec!["echo".into(), "a  b".into(), "c3".into(), "d e".into()]])]
        );
        let joined = words("a | b && c || d ; e # f");
        assert_eq!(
            joined.iter().map(|(c, p)| (*c, p.len())).collect::<Vec<_>>(),
            [(Connector::Always, 2), (Connector::And, 1), (Connector::Or, 1), (Connector::Always, 1)]
        );
        assert!(words("").is_empty());
        for bad in ["a |", "| a", "'a", "a > b", "a &", "a &&"] {
            assert!(line(bad, 0).is_err(), "{bad}");
        }
    }
}
