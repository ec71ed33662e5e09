//! Images as pods want them: pull policies, credentials, pulls that wait for their turn.

pub(crate) mod ensure;
pub(crate) mod keyring;
