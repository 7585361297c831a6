//! Time to take in QEMU's full schema: ours reads, parses and checks; the peer `qapi-parser` reads and parses
//! what is not documentation; QEMU's own front end in Python, when `PEERS_PYTHON_FRONT_END` holds a command
//! that takes the schema's path as its last argument, reads, parses and checks in a process of its own, beside
//! our program `qapi`, whose path is in `PEERS_QAPI`. All take turns.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use qapi_parser::{Parser, spec::Spec};

const ROUNDS: usize = 40;

fn main() {
    let Some(schema) = peers::schema() else { return };
    let mut takers: Vec<(&str, Box<dyn FnMut()>)> = vec![
        ("ours, read, parse and check", Box::new(|| ours(&schema))),
        ("qapi-parser 0.11.0, read and parse", Box::new(|| peer(&schema))),
    ];
    report(ROUNDS, &mut takers);

    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(python), Some(qapi)) = (variable("PEERS_PYTHON_FRONT_END"), variable("PEERS_QAPI")) else {
        println!("processes skipped: PEERS_PYTHON_FRONT_END or PEERS_QAPI is not set");
        return;
    };
    let process = |command: String, schema: PathBuf| -> Box<dyn FnMut()> {
        Box::new(move || {
            let mut words = command.split(' ');
            let status = Command::new(words.next().expect("a program"))
                .args(words)
                .arg(&schema)
                .stdout(Stdio::null())
                .status()
                .expect("the program starts");
            assert!(status.success(), "{command} refuses the schema");
        })
    };
    let mut takers: Vec<(&str, Box<dyn FnMut()>)> = vec![
        ("process: qapi check", process(format!("{qapi} check"), schema.clone())),
        ("process: QEMU's front end in Python", process(python, schema.clone())),
    ];
    report(10, &mut takers);
}

/// Lets all take turns and prints the shortest and the middle time of each, and ratios to the first.
fn report(rounds: usize, takers: &mut [(&str, Box<dyn FnMut() + '_>)]) {
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); takers.len()];
    for _ in 0..rounds {
        for ((_, run), times) in takers.iter_mut().zip(&mut times) {
            let began = Instant::now();
            run();
            times.push(began.elapsed());
        }
    }
    let mut first: Option<(f64, f64)> = None;
    for ((name, _), times) in takers.iter().zip(&mut times) {
        times.sort();
        let (best, middle) = (times[0].as_secs_f64(), times[times.len() / 2].as_secs_f64());
        let (first_best, first_middle) = *first.get_or_insert((best, middle));
        println!(
            "{name}: best {:.1} ms, median {:.1} ms; the first takes {:.2} and {:.2} of it",
            best * 1e3,
            middle * 1e3,
            first_best / best,
            first_middle / middle,
        );
    }
}

fn ours(schema: &Path) {
    let diagnostics = codegen::check(&codegen::fs::load(schema));
    assert!(diagnostics.iter().all(|diagnostic| !diagnostic.is_error()));
}

/// The peer follows includes as a user of it must: each file once.
fn peer(schema: &Path) {
    let mut open = vec![schema.to_owned()];
    let mut seen = HashSet::new();
    let mut specs = Vec::new();
    while let Some(path) = open.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("the schema's file");
        for spec in Parser::from_string(Parser::strip_comments(&text)) {
            match spec.expect("the peer reads it") {
                Spec::Include(found) => open.push(path.parent().expect("a folder").join(found.include)),
                spec => specs.push(spec),
            }
        }
    }
    assert!(specs.len() > 1_000, "only {} definitions", specs.len());
    std::hint::black_box(specs);
}
