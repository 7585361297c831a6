//! Time to generate code from QEMU's full schema: everything by ours, client types by the peer.

use std::path::Path;

fn main() {
    let Some(path) = peers::schema() else { return };
    let ours = peers::best(10, || ours(&path));
    let folder = std::env::temp_dir().join(format!("peers-generate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    let peer = peers::best(10, || peer(&path, &folder));
    let _ = std::fs::remove_dir_all(&folder);
    println!("ours, server, everything: {ours:.1?}");
    println!("qapi-codegen 0.11.3, client types: {peer:.1?}");
}

fn ours(path: &Path) -> usize {
    let compiled = codegen::compile(&codegen::fs::load(path));
    let schema = compiled.schema.expect("QEMU's schema compiles");
    let outputs = codegen::emit::generate(&schema, &Default::default(), codegen::emit::Layout::Folder);
    outputs
        .expect("it is Rust")
        .iter()
        .map(|output| output.text.len())
        .sum()
}

fn peer(path: &Path, folder: &Path) -> u64 {
    let out = folder.join("peer.rs");
    // It takes the folder that `qapi-schema.json` is in.
    let schemas = path.parent().expect("a file is in a folder");
    peer_codegen::codegen(schemas, &out, "peer".to_owned()).expect("the peer reads the schema");
    std::fs::metadata(&out).map(|meta| meta.len()).unwrap_or_default()
}
