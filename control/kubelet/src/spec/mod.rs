//! From a Pod of the API to what the runtime is told: pure translations, one subject a file.

pub(crate) mod container;
pub(crate) mod dns;
pub(crate) mod env;
pub(crate) mod env_file;
pub(crate) mod fields;
pub(crate) mod hosts;
pub(crate) mod pod_ref;
pub(crate) mod quantity;
pub(crate) mod resources;
pub(crate) mod restart;
pub(crate) mod security;
pub(crate) mod service_env;
pub(crate) mod sysctl;
