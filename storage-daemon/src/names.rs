//! Which names are allowed for ids of jobs, exports, objects and channels.

/// Whether `id` is well formed: a letter first, then letters, digits, `-`, `.` and `_`.
pub fn is_id(id: &str) -> bool {
    let bytes = id.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

/// What the command line says of an id that is not.
pub fn id_expected(parameter: &str) -> String {
    format!(
        "Parameter '{parameter}' expects an identifier\n\
         Identifiers consist of letters, digits, '-', '.', '_', starting with a letter."
    )
}
