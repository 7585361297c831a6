//! The whole front end on any bytes: it neither panics nor runs away, and what it accepts it prints as
//! something that it accepts again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qapi_codegen::diagnostic::has_errors;
use qapi_codegen::introspect::{Options, introspect};
use qapi_codegen::render::{Style, human, json, short};
use qapi_codegen::source::SourceMap;
use qapi_codegen::{compile, print};

fuzz_target!(|bytes: &[u8]| {
    let mut sources = SourceMap::new();
    sources.insert("input.json", "input.json".to_owned(), Ok(bytes.to_vec()));
    let compiled = compile(&sources);
    assert_eq!(compiled.schema.is_none(), has_errors(&compiled.diagnostics));
    let _ = human(&sources, &compiled.diagnostics, Style::Plain);
    let _ = short(&sources, &compiled.diagnostics);
    let _ = json(&sources, &compiled.diagnostics);
    if let Some(schema) = compiled.schema {
        let printed = compile(&SourceMap::single("printed.json", print::print(&schema)));
        let again = printed.schema.expect("what is printed is accepted");
        assert_eq!(introspect(&schema, Options::EVERYTHING), introspect(&again, Options::EVERYTHING));
    }
});
