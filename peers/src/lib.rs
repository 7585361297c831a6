//! What the comparisons share: the schema's place, and time.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// QEMU's full schema, if there is one; says that it skips otherwise.
pub fn schema() -> Option<PathBuf> {
    let path = std::env::var_os("QAPI_CORPUS")
        .map(|corpus| PathBuf::from(corpus).join("schemas/qapi/qapi-schema.json"));
    let path = path.filter(|path| path.exists());
    if path.is_none() {
        println!("skipped: QAPI_CORPUS names no folder with schemas/qapi/qapi-schema.json");
    }
    path
}

/// The shortest of some rounds.
pub fn best<T>(rounds: usize, mut run: impl FnMut() -> T) -> Duration {
    let once = |run: &mut dyn FnMut() -> T| {
        let began = Instant::now();
        std::hint::black_box(run());
        began.elapsed()
    };
    (0..rounds.max(1))
        .map(|_| once(&mut run))
        .min()
        .unwrap_or_default()
}
