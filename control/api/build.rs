//! Collects what the API's types and fields mean from the sources of k8s-openapi, which carry upstream's texts, into one
//! compressed table. Where these sources cannot be found the table is empty, and only descriptions are missing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::DeflateEncoder;

/// The release whose API is served.
const RELEASE: &str = "v1_36";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let mut table = Table::default();
    match sources() {
        Some(folder) => {
            println!("cargo::rerun-if-changed={}", folder.display());
            table.read(&folder)?;
        }
        None => println!("cargo::warning=the sources of k8s-openapi were not found: types will have no descriptions"),
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let mut encoder = DeflateEncoder::new(fs::File::create(out.join("descriptions.deflate"))?, Compression::best());
    encoder.write_all(table.text().as_bytes())?;
    encoder.finish()?;
    Ok(())
}

/// Where cargo keeps the sources of k8s-openapi.
fn sources() -> Option<PathBuf> {
    let cargo = std::env::var_os("CARGO")?;
    let output = Command::new(cargo).args(["metadata", "--format-version=1", "--offline", "--locked"]).output().ok()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let package = metadata["packages"].as_array()?.iter().find(|package| package["name"] == "k8s-openapi")?;
    let folder = Path::new(package["manifest_path"].as_str()?).parent()?.join("src").join(RELEASE);
    folder.is_dir().then_some(folder)
}

/// Texts by type; the type's own text has an empty field name.
#[derive(Default)]
struct Table(BTreeMap<String, Vec<(String, String)>>);

impl Table {
    fn read(&mut self, folder: &Path) -> std::io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                self.read(&path)?;
            } else {
                self.scan(&fs::read_to_string(&path)?);
            }
        }
        Ok(())
    }

    /// Finds the JSON schemas in generated code: `"NAME".into()` after `fn schema_name`, then descriptions, each below the
    /// property that it belongs to.
    fn scan(&mut self, code: &str) {
        const PROPERTY_INDENT: usize = 16;
        let (mut lines, mut name, mut field) = (code.lines(), None, String::new());
        while let Some(line) = lines.next() {
            let text = line.trim_start();
            if text.starts_with("fn schema_name") {
                name = lines.next().and_then(literal);
                field.clear();
                continue;
            }
            let Some(name) = &name else { continue };
            if line.len() - text.len() == PROPERTY_INDENT && text.ends_with('{') {
                field = literal(text).unwrap_or_default();
            }
            let said = text
                .strip_prefix("\"description\": ")
                .or_else(|| text.split_once("insert(\"description\".into(), ").map(|(_, rest)| rest));
            if let Some(said) = said.and_then(literal) {
                self.0.entry(name.clone()).or_default().push((field.clone(), said));
            }
        }
    }

    /// `NAME`, then a line `FIELD<tab>TEXT` for each text, with `\n` and `\\` escaped.
    fn text(&self) -> String {
        let mut out = String::new();
        for (name, texts) in &self.0 {
            let _ = writeln!(out, "{name}");
            for (field, text) in texts {
                let _ = writeln!(out, "{field}\t{}", text.replace('\\', "\\\\").replace('\n', "\\n"));
            }
        }
        out
    }
}

/// The first string literal of a line.
fn literal(line: &str) -> Option<String> {
    let mut chars = line.split_once('"')?.1.chars();
    let mut out = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(out),
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => {}
                other => out.push(other),
            },
            c => out.push(c),
        }
    }
}
