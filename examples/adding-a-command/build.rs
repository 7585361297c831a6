//! Nothing here changes when a command is added.

fn main() {
    qapi_codegen::Build::new("lamp.json").run();
}
