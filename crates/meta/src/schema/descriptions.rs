//! Descriptions of types and fields for `kubectl explain`, kept packed: they are unpacked for each document that is generated.
//!
//! The texts are those of the k8s-openapi crate, which has them from Kubernetes' OpenAPI document (both Apache-2.0).

use std::collections::HashMap;
use std::io::Read;

use flate2::read::DeflateDecoder;

/// Sections `\u{1}definition`, in each a line a field: name (empty for the type itself), tab, text with `\n` and `\\` escaped.
static PACKED: &[u8] = include_bytes!("descriptions.txt.deflate");

/// The unpacked texts, about one megabyte; drop it when the document is done.
#[derive(Debug)]
pub struct Descriptions {
    text: String,
    sections: HashMap<String, (usize, usize)>,
}

impl Descriptions {
    /// Unpacks the texts.
    pub fn unpack() -> Self {
        let mut text = String::new();
        // The blob is part of the program, and a test reads it to its end.
        let _ = DeflateDecoder::new(PACKED).read_to_string(&mut text);
        let mut sections = HashMap::new();
        let mut start = 0;
        for section in text.split('\u{1}') {
            if let Some(name) = section.lines().next() {
                sections.insert(name.to_owned(), (start + name.len() + 1, start + section.len()));
            }
            start += section.len() + 1;
        }
        Self { text, sections }
    }

    /// The text of a field, or of the type itself when `field` is empty.
    pub fn get(&self, definition: &str, field: &str) -> Option<String> {
        let (start, end) = *self.sections.get(definition)?;
        let line = self.text.get(start..end)?.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix('\t'))?;
        let mut out = String::with_capacity(line.len());
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => out.push(if chars.next() == Some('n') { '\n' } else { '\\' }),
                c => out.push(c),
            }
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_unpack() {
        let texts = Descriptions::unpack();
        assert!(texts.get("io.k8s.api.core.v1.PodSpec", "containers").unwrap().starts_with("List of containers"));
        assert!(texts.get("io.k8s.api.core.v1.Pod", "").unwrap().starts_with("Pod is a collection"));
        assert!(texts.get("io.k8s.api.core.v1.Pod", "nothing").is_none());
        assert!(texts.get("io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService", "spec").is_some());
        assert!(texts.get("io.k8s.api.core.v1.ContainerPort", "containerPort").unwrap().contains("0 < x < 65536"));
    }
}
