//! The rounds.

use crate::{messages, ours, theirs};
use qapi_runtime::scanner::Scanner;
use qapi_runtime::{Decode, Encode, Writer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const ROUNDS: u32 = 15;

/// Counts allocations.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls go to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(at, layout, size) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

pub fn all() {
    // A number as argument divides the rounds, for tools that make everything slow.
    let divide: u32 = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    println!(
        "{:<28} {:>22} {:>22} {:>7} {:>15}",
        "", "ours", "serde_json", "ratio", "allocations"
    );
    both::<ours::BlockdevOptions, theirs::TBlockdevOptions>(
        "blockdev-add, five layers",
        &messages::blockdev_add(),
        (2_000 / divide).max(1),
    );
    both::<Vec<ours::TransactionAction>, Vec<theirs::TTransactionAction>>(
        "transaction, 20 actions",
        &messages::transaction(),
        (1_000 / divide).max(1),
    );
    both::<Vec<ours::BlockDeviceInfo>, Vec<theirs::TBlockDeviceInfo>>(
        "named nodes, 1,000",
        &messages::named_block_nodes(),
        (10 / divide).max(1),
    );
}

fn both<O: Decode + Encode, T: DeserializeOwned + Serialize>(name: &str, message: &str, times: u32) {
    let bytes = message.as_bytes();
    let ours = || decode::<O>(bytes);
    let theirs = || serde_json::from_slice::<T>(bytes).expect("the peer reads it");
    let (our_value, their_value) = (ours(), theirs());
    // One scanner lives as long as a connection.
    let mut scanner = Scanner::default();
    let mut lasting = || {
        let mut input = bytes;
        let document = scanner
            .next(&mut input)
            .expect("it is whole")
            .expect("it is JSON");
        O::decode(document.root().expect("it has a value")).expect("it fits")
    };
    report(name, "decode", times, &mut lasting, &mut { theirs });
    let mut ours = || encode(&our_value);
    let mut theirs = || serde_json::to_vec(&their_value).expect("the peer writes it");
    report(name, "encode", times, &mut ours, &mut theirs);
}

fn decode<T: Decode>(bytes: &[u8]) -> T {
    let mut scanner = Scanner::default();
    let mut input = bytes;
    let document = scanner
        .next(&mut input)
        .expect("it is whole")
        .expect("it is JSON");
    T::decode(document.root().expect("it has a value")).expect("it fits")
}

fn encode<T: Encode>(value: &T) -> Vec<u8> {
    let mut out = Writer::default();
    value.encode(&mut out);
    out.into_bytes()
}

fn report<A, B>(
    name: &str,
    what: &str,
    times: u32,
    ours: &mut dyn FnMut() -> A,
    theirs: &mut dyn FnMut() -> B,
) {
    let (mut best_ours, mut best_theirs) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        best_ours = best_ours.min(time(times, ours));
        best_theirs = best_theirs.min(time(times, theirs));
    }
    let (our_allocations, their_allocations) = (count(ours), count(theirs));
    println!(
        "{:<28} {:>22} {:>22} {:>7.2} {:>15}",
        format!("{name}: {what}"),
        format!("{:.2?}", best_ours / times),
        format!("{:.2?}", best_theirs / times),
        best_theirs.as_secs_f64() / best_ours.as_secs_f64(),
        format!("{our_allocations} / {their_allocations}"),
    );
}

fn time<T>(times: u32, run: &mut dyn FnMut() -> T) -> Duration {
    let began = Instant::now();
    for _ in 0..times {
        black_box(run());
    }
    began.elapsed()
}

fn count<T>(run: &mut dyn FnMut() -> T) -> usize {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    black_box(run());
    ALLOCATIONS.load(Ordering::Relaxed) - before
}
