//! How keyed operators turn the keys of batches and tables back into the user's type.

use tidemill_engine::model::source::BoxError;
use tidemill_storage::{key::Key, state::KeyView};

/// The user's key: from the hash if it is narrow, else from its bytes.
///
/// # Errors
/// When the bytes are no such key: the batch or the state was damaged.
#[inline]
pub(crate) fn restore_key<K: Key>(key: KeyView<'_>) -> Result<K, BoxError> {
    match K::of_hash(key.hash) {
        Some(key) => Ok(key),
        None => Ok(K::decode(key.bytes)?),
    }
}
