//! OpenAPI documents, made on first use and kept for as long as their resources stay the same.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use control_api::openapi;
use control_api::registry::{Registry, Resource};
use parking_lot::Mutex;

#[derive(Default)]
pub(crate) struct OpenApi {
    /// By path below `/openapi/v3/`.
    documents: Mutex<HashMap<String, Document>>,
    swagger: Mutex<Option<Arc<Swagger>>>,
}

/// One group and version as OpenAPI v3.
struct Document {
    resources: Vec<Arc<Resource>>,
    bytes: Bytes,
    /// What the index names it by.
    hash: String,
}

/// All of a registry as Swagger 2.0.
pub(crate) struct Swagger {
    registry: Arc<Registry>,
    pub(crate) json: Bytes,
    pub(crate) protobuf: Bytes,
}

impl OpenApi {
    /// The document of this registry: another one, such as after a new kind, gets a new document.
    pub(crate) fn swagger(&self, registry: &Arc<Registry>) -> Arc<Swagger> {
        let mut kept = self.swagger.lock();
        if let Some(swagger) = kept.as_ref().filter(|swagger| Arc::ptr_eq(&swagger.registry, registry)) {
            return Arc::clone(swagger);
        }
        let document = openapi::swagger::document(registry);
        let swagger = Arc::new(Swagger {
            registry: Arc::clone(registry),
            json: document.to_string().into(),
            protobuf: openapi::swagger::encode(&document).into(),
        });
        *kept = Some(Arc::clone(&swagger));
        swagger
    }

    /// The index (empty path), or the document of one group and version.
    pub(crate) fn document(&self, registry: &Registry, path: &str) -> Option<Bytes> {
        let mut documents = self.documents.lock();
        if path.is_empty() {
            let paths: Vec<(String, String, String)> = registry
                .groups()
                .into_iter()
                .flat_map(|group| registry.versions(group).into_iter().map(move |version| (group, version)))
                .map(|(group, version)| (openapi::path(group, version), group.to_owned(), version.to_owned()))
                .collect();
            let _unpacked = openapi::Descriptions::get();
            documents.retain(|path, _| paths.iter().any(|(served, ..)| served == path));
            for (path, group, version) in &paths {
                make(&mut documents, registry, path, group, version);
            }
            let entries =
                paths.iter().filter_map(|(path, ..)| Some((path.as_str(), documents.get(path)?.hash.as_str())));
            return Some(openapi::index(entries).to_string().into());
        }
        let (group, version) = match path.split('/').collect::<Vec<_>>().as_slice() {
            ["api", version] => (String::new(), (*version).to_owned()),
            ["apis", group, version] => ((*group).to_owned(), (*version).to_owned()),
            _ => return None,
        };
        if !registry.versions(&group).contains(&version.as_str()) {
            return None;
        }
        make(&mut documents, registry, path, &group, &version);
        documents.get(path).map(|document| document.bytes.clone())
    }
}

fn make(documents: &mut HashMap<String, Document>, registry: &Registry, path: &str, group: &str, version: &str) {
    let members = registry.iter().filter(|resource| resource.group == group && resource.version == version);
    let resources: Vec<Arc<Resource>> = members.cloned().collect();
    let is_same = |document: &Document| {
        document.resources.len() == resources.len()
            && document.resources.iter().zip(&resources).all(|(a, b)| Arc::ptr_eq(a, b))
    };
    if !documents.get(path).is_some_and(is_same) {
        let bytes = Bytes::from(openapi::document(registry, group, version).to_string());
        let hash = openapi::hash(&bytes);
        documents.insert(path.to_owned(), Document { resources, bytes, hash });
    }
}
