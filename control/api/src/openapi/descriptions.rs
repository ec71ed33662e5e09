//! What types and fields mean, in upstream's words: a table that the build script makes.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use flate2::read::DeflateDecoder;

static COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.deflate"));
/// More than any release has.
const TABLE_BYTES_MAX: u64 = 16 << 20;

/// The table, unpacked for as long as somebody holds it: whoever makes several documents should.
#[derive(Debug)]
pub struct Descriptions(HashMap<String, HashMap<String, String>>);

impl Descriptions {
    #[must_use]
    pub fn get() -> Arc<Self> {
        static UNPACKED: Mutex<Weak<Descriptions>> = Mutex::new(Weak::new());
        let mut unpacked = UNPACKED.lock().unwrap_or_else(PoisonError::into_inner);
        unpacked.upgrade().unwrap_or_else(|| {
            let table = Arc::new(Self::unpack());
            *unpacked = Arc::downgrade(&table);
            table
        })
    }

    fn unpack() -> Self {
        let mut text = String::new();
        // The table is part of the program: if it were broken, descriptions would be missing, and a test would fail.
        let _ = DeflateDecoder::new(COMPRESSED).take(TABLE_BYTES_MAX).read_to_string(&mut text);
        let (mut types, mut name) = (HashMap::new(), String::new());
        for line in text.lines() {
            match line.split_once('\t') {
                None => line.clone_into(&mut name),
                Some((field, text)) => {
                    let fields: &mut HashMap<String, String> = types.entry(name.clone()).or_default();
                    fields.insert(field.to_owned(), unescape(text));
                }
            }
        }
        Self(types)
    }

    /// Of a type, or of one of its fields.
    pub(super) fn of(&self, name: &str, field: Option<&str>) -> Option<&str> {
        self.0.get(name)?.get(field.unwrap_or_default()).map(String::as_str)
    }
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => {}
            },
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    #[test]
    fn lines_survive() {
        assert_eq!(unescape(r"a\nb \\ c\\n"), "a\nb \\ c\\n");
    }

    #[test]
    fn nearly_every_type_and_field_is_described() {
        let descriptions = Descriptions::unpack();
        let (mut said, mut all) = (0, 0);
        // k8s-openapi has one generic type for all lists.
        let types = schema::messages().iter().filter(|message| message.name.starts_with("io.k8s.api."));
        for message in types.filter(|message| !message.name.ends_with("List")) {
            for field in message.fields() {
                all += 1;
                said += usize::from(descriptions.of(&message.name, Some(&field.name)).is_some());
            }
        }
        assert!(said * 100 > all * 98, "{said} of {all}");
        let port = "io.k8s.api.core.v1.ServicePort";
        assert!(descriptions.of(port, None).is_some_and(|text| text.starts_with("ServicePort contains")));
        assert!(descriptions.of(port, Some("targetPort")).is_some_and(|text| text.starts_with("Number or name")));
    }
}
