//! Block layer errors as QMP errors.

use block_core::BlockError;
use qapi_runtime::Error;

/// A block layer error in the class that nearly all of them have; its text is what clients see.
#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
pub fn generic(error: BlockError) -> Error {
    Error::generic(error.to_string())
}
