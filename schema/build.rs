//! Compiles the schema.

fn main() {
    qapi_codegen::Build::new("schema.json")
        .answered_by_runtime(["qmp_capabilities", "query-commands", "query-qmp-schema"])
        .run();
}
