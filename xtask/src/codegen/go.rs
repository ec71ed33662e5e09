//! The facts that only the Go types hold: struct fields with their tags, read line by line.
//!
//! This is no Go parser. It relies on how gofmt lays out the API packages, and the generator fails when what it read does
//! not match the OpenAPI definitions field for field.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context as _;

/// Module folder, folder of the packages in it, prefix of their OpenAPI names.
const PACKAGES: [(&str, &str, &str); 6] = [
    ("api", "", "io.k8s.api"),
    ("apimachinery", "pkg/apis/meta/v1", "io.k8s.apimachinery.pkg.apis.meta.v1"),
    ("apimachinery", "pkg/version", "io.k8s.apimachinery.pkg.version"),
    ("apimachinery", "pkg/runtime", "io.k8s.apimachinery.pkg.runtime"),
    (
        "apiextensions-apiserver",
        "pkg/apis/apiextensions/v1",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
    ),
    ("kube-aggregator", "pkg/apis/apiregistration/v1", "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1"),
];

#[derive(Debug, Clone, Default)]
pub(super) struct GoField {
    pub json: String,
    /// As written, with its leading `*`.
    pub go_type: String,
    /// The struct's package, which unqualified type names belong to.
    pub package: String,
    pub tag: Option<u32>,
    pub inline: bool,
    pub omit_empty: bool,
    pub default: Option<String>,
    /// A named list that protobuf carries as a message with one repeated field.
    pub list_in_message: bool,
    pub map_of_lists: bool,
    pub repeated_tag: bool,
}

pub(super) struct GoTypes {
    structs: HashMap<String, Vec<GoField>>,
    named: HashMap<String, String>,
}

impl GoTypes {
    pub(super) fn load(root: &Path) -> anyhow::Result<Self> {
        let mut types = Self { structs: HashMap::new(), named: HashMap::new() };
        for (module, folder, prefix) in PACKAGES {
            let base = root.join(module).join(folder);
            types
                .read_folder(&base, prefix, folder.is_empty())
                .with_context(|| format!("reading {}", base.display()))?;
        }
        types.mark_wrapped_lists();
        Ok(types)
    }

    pub(super) fn fields(&self, name: &str) -> Option<&[GoField]> {
        if let Some(fields) = self.structs.get(name) {
            return Some(fields);
        }
        self.named.get(name).and_then(|target| self.structs.get(&self.absolute(name, target))).map(Vec::as_slice)
    }

    /// The full name of a type that a struct called `near` mentions.
    pub(super) fn absolute(&self, near: &str, go_type: &str) -> String {
        let go_type = go_type.trim_start_matches('*');
        let home = near.rsplit_once('.').map_or(near, |(package, _)| package);
        match go_type.split_once('.') {
            None => format!("{home}.{go_type}"),
            Some(("metav1", name)) => format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"),
            Some(("v1" | "corev1", name)) => {
                let sibling = format!("{}.v1.{name}", home.rsplit_once('.').map_or(home, |(group, _)| group));
                if self.structs.contains_key(&sibling) { sibling } else { format!("io.k8s.api.core.v1.{name}") }
            }
            Some((package, name)) => format!("{package}.{name}"),
        }
    }

    /// The type as decoding errors print it: `v1.DNSPolicy`, `[]v1.Container`.
    pub(super) fn printed(&self, field: &GoField) -> String {
        let bare = field.go_type.trim_start_matches('*');
        let split = bare.rfind(']').map_or(0, |at| at + 1);
        let (outer, element) = bare.split_at(split);
        let element = element.trim_start_matches('*');
        let package = field.package.rsplit('.').next().unwrap_or_default();
        let qualify = |name: &str| match name.split_once('.') {
            Some(("metav1" | "corev1", name)) => format!("v1.{name}"),
            Some(_) => name.to_owned(),
            None if name == "byte" => "uint8".to_owned(),
            None if name.starts_with(|first: char| first.is_ascii_uppercase()) => format!("{package}.{name}"),
            None => name.to_owned(),
        };
        let outer = match outer.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
            Some((key, rest)) => format!("map[{}]{rest}", qualify(key)),
            None => outer.to_owned(),
        };
        format!("{outer}{}", qualify(element))
    }

    fn read_folder(&mut self, folder: &Path, package: &str, deep: bool) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() {
                if deep && name != "testdata" && !name.starts_with('.') {
                    self.read_folder(&path, &format!("{package}.{name}"), deep)?;
                }
                continue;
            }
            let generated = name.starts_with("zz_") || name.starts_with("generated");
            if name.ends_with(".go") && !name.ends_with("_test.go") && !generated {
                self.read_file(&std::fs::read_to_string(&path)?, package);
            }
        }
        Ok(())
    }

    fn read_file(&mut self, source: &str, package: &str) {
        let mut current: Option<String> = None;
        let mut default = None;
        for line in source.lines() {
            if let Some(declaration) = line.strip_prefix("type ") {
                let mut words = declaration.splitn(2, ' ');
                let (Some(name), Some(rest)) = (words.next(), words.next()) else { continue };
                let name = format!("{package}.{name}");
                if rest.starts_with("struct") {
                    self.structs.insert(name.clone(), Vec::new());
                    current = (!rest.ends_with('}')).then_some(name);
                } else {
                    self.named.insert(name, rest.trim_start_matches("= ").to_owned());
                }
            } else if line.starts_with('}') {
                current = None;
            } else if let Some(value) = line.trim_start().strip_prefix("// +default=") {
                default = Some(value.trim().to_owned());
            } else if let (Some(owner), Some(mut field)) = (&current, read_field(line, package)) {
                field.default = default.take().filter(|value| !value.starts_with("ref("));
                self.structs.entry(owner.clone()).or_default().push(field);
            }
        }
    }

    /// Protobuf has no map of lists, so named list types become messages where a map or a single field holds one.
    fn mark_wrapped_lists(&mut self) {
        let lists: Vec<String> =
            self.named.iter().filter(|(_, to)| to.starts_with("[]")).map(|(name, _)| name.clone()).collect();
        for (owner, fields) in &mut self.structs {
            let home = owner.rsplit_once('.').map_or("", |(package, _)| package);
            let is_list = |name: &str| lists.contains(&format!("{home}.{name}"));
            for field in fields {
                field.map_of_lists = field.go_type.rsplit_once(']').is_some_and(|(_, value)| is_list(value));
                field.list_in_message = is_list(&field.go_type) && !field.repeated_tag;
            }
        }
    }
}

/// One struct field, when the line holds one with a JSON tag.
fn read_field(line: &str, package: &str) -> Option<GoField> {
    let (before, tags) = line.split_once('`').filter(|(before, _)| !before.contains("//"))?;
    let (tags, _) = tags.split_once('`')?;
    let words: Vec<&str> = before.split_whitespace().collect();
    let (embedded, go_type) = match words.as_slice() {
        [go_type] => (true, *go_type),
        [_, go_type] => (false, *go_type),
        _ => return None,
    };
    let mut json = tag_value(tags, "json")?.split(',');
    let name = json.next().unwrap_or_default();
    let options: Vec<&str> = json.collect();
    if name == "-" {
        return None;
    }
    let protobuf = tag_value(tags, "protobuf").unwrap_or_default();
    Some(GoField {
        json: name.to_owned(),
        go_type: go_type.to_owned(),
        package: package.to_owned(),
        tag: protobuf.split(',').nth(1).and_then(|tag| tag.parse().ok()),
        inline: options.contains(&"inline") || (embedded && name.is_empty()),
        omit_empty: options.contains(&"omitempty") || options.contains(&"omitzero"),
        repeated_tag: protobuf.split(',').nth(2) == Some("rep"),
        ..GoField::default()
    })
}

fn tag_value<'a>(tags: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = tags.split_once(&format!("{key}:\""))?;
    rest.split_once('"').map(|(value, _)| value)
}
