//! Selecting objects by labels and by fields.

mod field;
mod label;

pub use field::FieldSelector;
pub use label::{LabelSelector, Operator, Requirement};

/// Why a selector cannot be read; the text is the whole message of the 400 it leads to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

impl From<SelectorError> for crate::status::Status {
    fn from(error: SelectorError) -> Self {
        Self::bad_request(error.0)
    }
}
