//! This is all that a build script needs.

fn main() {
    qapi_codegen::Build::new("notes.json").run();
}
