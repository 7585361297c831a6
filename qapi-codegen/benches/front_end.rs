//! How long the front end takes: on real schemas when `QAPI_CORPUS` is set, and on synthetic ones of 1, 10
//! and 100 times a size, whose times per byte should be the same.

use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qapi_codegen::introspect::{Options, introspect};
use qapi_codegen::source::SourceMap;
use qapi_codegen::{check, compile, fs};

/// A schema of so many groups of definitions, each documented, each using those of the group before.
fn synthetic(groups: usize) -> String {
    let mut text = String::from("{ 'pragma': { 'doc-required': true } }\n");
    for group in 0..groups {
        let before = group.saturating_sub(1);
        let _ = write!(
            text,
            "\n##\n# @Kind{group}:\n#\n# What kind of thing number {group} is.\n#\n# @file: a file, which is somewhere in the\n#     file system\n#\n# @net: \
             something on the network\n#\n# Since: 1.{group}\n##\n{{ 'enum': 'Kind{group}', 'data': [ 'file', 'net' ] }}\n\n##\n# @File{group}:\n#\n# @path: \
             where it is\n#\n# @old: what was there before\n#\n# Features:\n#\n# @deprecated: Member @old is of no use.\n##\n{{ 'struct': 'File{group}',\n  'data': {{ \
             'path': 'str',\n            '*old': {{ 'type': [ 'File{before}' ], 'features': [ 'deprecated' ] }} }} }}\n\n##\n# @Thing{group}:\n#\n# @kind: what \
             it is\n#\n# @id: its name\n##\n{{ 'union': 'Thing{group}',\n  'base': {{ 'kind': 'Kind{group}', '*id': 'str' }},\n  'discriminator': 'kind',\n  \
             'data': {{ 'file': {{ 'type': 'File{group}', 'if': 'CONFIG_FILE' }} }} }}\n\n##\n# @open-{group}:\n#\n# Opens it.  And keeps it open.\n#\n# @thing: \
             what to open\n#\n# @count: how often\n#\n# Returns: what was there\n#\n# .. qmp-example::\n#\n#     -> {{ \"execute\": \"open-{group}\" }}\n#     <- \
             {{ \"return\": [] }}\n##\n{{ 'command': 'open-{group}',\n  'data': {{ 'thing': 'Thing{group}', '*count': 'uint32' }},\n  'returns': [ 'File{group}' ] }}\n"
        );
    }
    text
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("synthetic");
    group.sample_size(10);
    for groups in [100, 1_000, 10_000] {
        let text = synthetic(groups);
        group.throughput(Throughput::Bytes(text.len() as u64));
        let sources = SourceMap::single("synthetic.json", text);
        assert!(check(&sources).is_empty());
        group.bench_with_input(
            BenchmarkId::from_parameter(groups),
            &sources,
            |bencher, sources| {
                bencher.iter(|| check(black_box(sources)));
            },
        );
    }
    group.finish();

    let Some(corpus) = std::env::var_os("QAPI_CORPUS") else {
        println!("QAPI_CORPUS is not set: real schemas are skipped");
        return;
    };
    let root = Path::new(&corpus).join("schemas/qapi/qapi-schema.json");
    let mut group = criterion.benchmark_group("qapi");
    group.bench_function("read", |bencher| bencher.iter(|| fs::load(black_box(&root))));
    group.bench_function("read-and-compile", |bencher| {
        bencher.iter(|| compile(&fs::load(black_box(&root))));
    });
    group.bench_function("read-and-check", |bencher| {
        bencher.iter(|| check(&fs::load(black_box(&root))));
    });
    let sources = fs::load(&root);
    group.bench_function("compile", |bencher| bencher.iter(|| compile(black_box(&sources))));
    if let Some(schema) = compile(&sources).schema {
        group.bench_function("introspect", |bencher| {
            bencher.iter(|| introspect(black_box(&schema), Options::EVERYTHING));
        });
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
