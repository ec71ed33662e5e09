//! `tidegate image`: import, list and remove images of a data directory, whether a node is running or not.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;

use crate::image::{ImageRecord, ImageStore, Reference};
use crate::registry::{Dialer, Registries};

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Import OCI layouts, OCI archives or docker archives.
    Import {
        #[command(flatten)]
        data: Data,
        /// Directories or tar files, which may be compressed with gzip or zstd.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Fetch images from their registries.
    Pull {
        #[command(flatten)]
        data: Data,
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// List images.
    Ls {
        #[command(flatten)]
        data: Data,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove names or, given an identifier, whole images.
    Rm {
        #[command(flatten)]
        data: Data,
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
}

#[derive(Debug, Clone, clap::Args)]
pub struct Data {
    /// Where the cluster keeps its state.
    #[arg(long, default_value = "/var/lib/tidegate")]
    data_dir: PathBuf,
}

impl Data {
    fn open(&self) -> anyhow::Result<ImageStore> {
        let dir = self.data_dir.join("images");
        ImageStore::open(&dir).with_context(|| format!("cannot open the image store {}", dir.display()))
    }
}

pub fn run(command: Command) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?
        .block_on(run_command(command))
}

async fn run_command(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Import { data, paths } => {
            let store = data.open()?;
            for path in paths {
                let images = store.import(&path).await.with_context(|| format!("cannot import {}", path.display()))?;
                for image in images {
                    println!("imported {} ({})", image.references.join(", "), short(&image.id));
                }
            }
        }
        Command::Pull { data, images } => {
            let store = data.open()?;
            let registries = Registries::new(Dialer::Direct);
            for image in images {
                let reference = Reference::parse(&image)?;
                let pulled = store.pull(&registries, &reference, &[]).await;
                let pulled = pulled.with_context(|| format!("cannot pull {image}"))?;
                println!("pulled {reference} ({})", short(&pulled.id));
            }
        }
        Command::Ls { data, json } => {
            let images = data.open()?.list().await?;
            if json {
                println!("{}", serde_json::to_string_pretty(&images)?);
            } else {
                print!("{}", table(&images));
            }
        }
        Command::Rm { data, images } => {
            let store = data.open()?;
            for image in images {
                store.remove(&image).await.with_context(|| format!("cannot remove {image}"))?;
                println!("removed {image}");
            }
        }
    }
    Ok(())
}

fn table(images: &[ImageRecord]) -> String {
    let rows: Vec<[String; 3]> = images
        .iter()
        .flat_map(|image| {
            let names = if image.references.is_empty() { &image.pulled } else { &image.references };
            names.iter().map(|name| [name.clone(), short(&image.id).to_owned(), megabytes(image.size_bytes)])
        })
        .collect();
    let width = rows.iter().map(|row| row[0].len()).chain(["IMAGE".len()]).max().unwrap_or_default();
    let mut text = format!("{:width$}  {:12}  {:>9}\n", "IMAGE", "ID", "SIZE");
    for [name, id, size] in rows {
        text.push_str(&format!("{name:width$}  {id:12}  {size:>9}\n"));
    }
    text
}

fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_gets_a_row() {
        let image = ImageRecord {
            id: format!("sha256:{}", "ab".repeat(32)),
            digest: String::new(),
            references: vec!["docker.io/library/a:1".to_owned(), "docker.io/library/a:latest".to_owned()],
            pulled: vec![format!("docker.io/library/a@sha256:{}", "cd".repeat(32))],
            size_bytes: 1_250_000,
        };
        assert_eq!(
            table(&[image]),
            "IMAGE                       ID                 SIZE\n\
             docker.io/library/a:1       abababababab     1.2 MB\n\
             docker.io/library/a:latest  abababababab     1.2 MB\n"
        );
    }
}
