//! The same five lines, with the role of a client.

fn main() {
    qapi_codegen::Build::new("qemu.json")
        .role(qapi_codegen::Role::Client)
        .run();
}
