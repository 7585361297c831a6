//! Decoding from bytes to typed values and encoding back: ours beside `serde_json`, in alternating rounds.
//!
//! Each side starts from the same bytes and ends with values that it would hand to a handler; ours refuses
//! unknown and duplicate members on the way, the peer does not.

mod messages;

#[cfg(schema)]
mod run;

#[cfg(schema)]
#[allow(dead_code, unused, clippy::all, reason = "a comparison, not code of ours")]
mod theirs {
    include!(concat!(env!("OUT_DIR"), "/serde_types.rs"));
}

#[cfg(schema)]
#[allow(dead_code, unused, deprecated, reason = "a program uses little of it")]
mod ours {
    include!(concat!(env!("OUT_DIR"), "/ours.rs"));
}

fn main() {
    #[cfg(schema)]
    run::all();
    #[cfg(not(schema))]
    println!("skipped: QAPI_CORPUS named no folder with schemas/qapi/qapi-schema.json when this was built");
}
