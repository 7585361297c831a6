//! Dirty-bitmap operations beside `roaring` and a flat bit vector.

#![expect(
    clippy::expect_used,
    reason = "a bench that cannot set itself up has nothing to say"
)]

use std::hint::black_box;

use block_core::bitmap::{BitmapSet, BitmapSpec, HBitmap};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use fixedbitset::FixedBitSet;
use roaring::RoaringBitmap;

/// 1 TiB at 64 KiB.
const BITS: u32 = 1 << 24;
const SETS: u32 = 10_000;

/// The same pseudo-random offsets for everybody.
fn offsets() -> Vec<u32> {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state % BITS
    };
    (0..SETS).map(|_| next()).collect()
}

fn filled(offsets: &[u32]) -> (HBitmap, RoaringBitmap, FixedBitSet) {
    let mut own = HBitmap::new(BITS.into());
    let mut roaring = RoaringBitmap::new();
    let mut flat = FixedBitSet::with_capacity(BITS as usize);
    for at in offsets {
        own.set((*at).into(), u64::from(*at) + 1);
        roaring.insert(*at);
        flat.insert(*at as usize);
    }
    (own, roaring, flat)
}

fn set(criterion: &mut Criterion) {
    let offsets = offsets();
    let mut group = criterion.benchmark_group("set 10,000 random bits of 2^24");
    group.bench_function("own", |bencher| {
        bencher.iter_batched_ref(
            || HBitmap::new(BITS.into()),
            |bitmap| {
                for at in &offsets {
                    bitmap.set((*at).into(), u64::from(*at) + 1);
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("roaring", |bencher| {
        bencher.iter_batched_ref(
            RoaringBitmap::new,
            |bitmap| {
                for at in &offsets {
                    bitmap.insert(*at);
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("flat", |bencher| {
        bencher.iter_batched_ref(
            || FixedBitSet::with_capacity(BITS as usize),
            |bitmap| {
                for at in &offsets {
                    bitmap.insert(*at as usize);
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn set_run(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("set a run of 2^22 bits");
    group.bench_function("own", |bencher| {
        bencher.iter_batched_ref(
            || HBitmap::new(BITS.into()),
            |bitmap| bitmap.set(1000, 1000 + (1 << 22)),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("roaring", |bencher| {
        bencher.iter_batched_ref(
            RoaringBitmap::new,
            |bitmap| bitmap.insert_range(1000..1000 + (1 << 22)),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("flat", |bencher| {
        bencher.iter_batched_ref(
            || FixedBitSet::with_capacity(BITS as usize),
            |bitmap| bitmap.insert_range(1000..1000 + (1 << 22)),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn walk(criterion: &mut Criterion) {
    let (own, roaring, flat) = filled(&offsets());
    let mut group = criterion.benchmark_group("walk the dirty areas");
    group.bench_function("own", |bencher| {
        bencher.iter(|| {
            let mut sum = 0;
            black_box(&own).for_each_run(|start, _| sum += start);
            sum
        });
    });
    group.bench_function("roaring", |bencher| {
        bencher.iter(|| black_box(&roaring).iter().map(u64::from).sum::<u64>());
    });
    group.bench_function("flat", |bencher| {
        bencher.iter(|| black_box(&flat).ones().sum::<usize>())
    });
    group.finish();
}

fn merge(criterion: &mut Criterion) {
    let offsets = offsets();
    let (own, roaring, flat) = filled(&offsets[..5000]);
    let (own2, roaring2, flat2) = filled(&offsets[5000..]);
    let mut group = criterion.benchmark_group("merge 5,000 bits into 5,000");
    group.bench_function("own", |bencher| {
        bencher.iter_batched_ref(
            || own.clone(),
            |bitmap| bitmap.merge(&own2),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("roaring", |bencher| {
        bencher.iter_batched_ref(
            || roaring.clone(),
            |bitmap| *bitmap |= &roaring2,
            BatchSize::LargeInput,
        );
    });
    group.bench_function("flat", |bencher| {
        bencher.iter_batched_ref(
            || flat.clone(),
            |bitmap| bitmap.union_with(&flat2),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn count(criterion: &mut Criterion) {
    let (own, roaring, flat) = filled(&offsets());
    let mut group = criterion.benchmark_group("count");
    group.bench_function("own", |bencher| bencher.iter(|| black_box(&own).count()));
    group.bench_function("roaring", |bencher| bencher.iter(|| black_box(&roaring).len()));
    group.bench_function("flat", |bencher| bencher.iter(|| black_box(&flat).count_ones(..)));
    group.finish();
}

/// What each guest write pays for a node's bitmaps.
fn mark(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mark one write");
    for bitmaps in [0, 1, 10, 1000] {
        let set = BitmapSet::default();
        for index in 0..bitmaps {
            let spec = BitmapSpec {
                name: format!("b{index}").into(),
                granularity_bytes: 65536,
                persistent: false,
                disabled: false,
            };
            set.add(1 << 40, &spec).expect("a fresh name");
        }
        let mut at = 0u64;
        group.bench_function(format!("{bitmaps} bitmaps"), |bencher| {
            bencher.iter(|| {
                at = (at + 7_654_321 * 4096) % (1 << 40);
                black_box(&set).mark_dirty(at, 4096);
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(1)).warm_up_time(std::time::Duration::from_millis(300));
    targets = set, set_run, walk, merge, count, mark
}
criterion_main!(benches);
