//! Five lines are all that a build script needs.

fn main() {
    qapi_codegen::Build::new("notes.json")
        .answered_by_runtime(["qmp_capabilities", "query-commands", "query-qmp-schema"])
        .run();
}
