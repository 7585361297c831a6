//! Any message into the types that schemas are made of: a value or an error, never a panic, and what is encoded decodes again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qapi_runtime::scanner::Scanner;
use qapi_runtime::{Cursor, Decode, Encode, Writer};

fn try_decode<T: Decode + Encode>(value: Cursor<'_>) {
    let Ok(decoded) = T::decode(value) else { return };
    let mut out = Writer::default();
    decoded.encode(&mut out);
    let bytes = [out.as_bytes(), b"\n"].concat();
    let mut input = bytes.as_slice();
    let mut scanner = Scanner::default();
    let document = scanner.next(&mut input).unwrap().unwrap();
    assert!(T::decode(document.root().unwrap()).is_ok());
}

fuzz_target!(|data: &[u8]| {
    let mut scanner = Scanner::default();
    let mut input = data;
    while let Some(outcome) = scanner.next(&mut input) {
        let Ok(document) = outcome else { continue };
        let Some(root) = document.root() else { continue };
        try_decode::<i8>(root);
        try_decode::<u64>(root);
        try_decode::<i64>(root);
        try_decode::<bool>(root);
        try_decode::<String>(root);
        try_decode::<Vec<String>>(root);
        try_decode::<qapi_runtime::Value>(root);
    }
});
