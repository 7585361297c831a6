//! Any message into the types that schemas are made of: a value or an error, never a panic, and what is encoded decodes again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qapi_runtime::scanner::Scanner;
use qapi_runtime::{Branches, Cursor, Decode, DecodeError, Encode, Map, Members, Object, Writer};

/// A struct of each kind of field, in short names that inputs hit upon.
struct Whole {
    base: Base,
    size: u64,
    list: Vec<Base>,
    branch: Branch,
    deep: Option<Box<Whole>>,
}

struct Base {
    a: String,
    b: Option<bool>,
    c: Option<i8>,
}

enum Branch {
    True(Kept),
    False,
}

struct Kept {
    d: Option<String>,
    rest: Map,
}

qapi_runtime::strict!(Base {
    a: required("a"),
    b: optional("b"),
    c: optional("c"),
});
qapi_runtime::keeping!(Kept {
    d: optional("d"),
    rest: unknown(),
});
qapi_runtime::strict!(Whole {
    base: members(),
    size: required("s").size(),
    branch: branch("k"),
    list: list("l"),
    deep: optional("w"),
});

impl Branches for Branch {
    type Kind = bool;

    fn kind(&self) -> bool {
        matches!(self, Branch::True(_))
    }

    fn take_branch(kind: bool, object: &mut Object<'_>) -> Result<Self, DecodeError> {
        Ok(if kind {
            Branch::True(Members::take(object)?)
        } else {
            Branch::False
        })
    }

    fn put_branch(&self, out: &mut Writer) {
        if let Branch::True(kept) = self {
            Members::put(kept, out);
        }
    }
}

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
        try_decode::<Base>(root);
        try_decode::<Kept>(root);
        try_decode::<Vec<Whole>>(root);
    }
});
