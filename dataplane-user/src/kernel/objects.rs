//! The objects that this build embeds; empty where it was built without kernel programs.

use super::KernelError;

/// The socket programs.
pub(super) static SOCKET: &[u8] = aya::include_bytes_aligned!(env!("TIDEGATE_OBJECT_SOCKET"));
/// The packet programs of pod interfaces.
pub(super) static POD: &[u8] = aya::include_bytes_aligned!(env!("TIDEGATE_OBJECT_POD"));

/// Fails clearly where there is nothing to load.
pub(super) fn check() -> Result<(), KernelError> {
    if SOCKET.is_empty() || POD.is_empty() { Err(KernelError::NoPrograms) } else { Ok(()) }
}
