//! Any bytes, cut anywhere, say the same; what is written of a message reads back as the same message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qapi_runtime::scanner::{Limits, Scanner};
use qapi_runtime::text;

fn said(pieces: &[&[u8]]) -> Vec<String> {
    let limits = Limits { message_bytes: 4096, tokens: 512, depth: 64 };
    let mut scanner = Scanner::new(limits);
    let mut said = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        while let Some(outcome) = scanner.next(&mut input) {
            said.push(match outcome {
                Ok(document) => {
                    let mut text = Vec::new();
                    if let Some(root) = document.root() {
                        text::write_value(&mut text, root);
                    }
                    assert!(text.is_ascii());
                    String::from_utf8(text).unwrap()
                }
                Err(error) => format!("! {error}"),
            });
        }
        assert!(input.is_empty());
    }
    said
}

fuzz_target!(|data: &[u8]| {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let (one, two) = bytes.split_at(usize::from(cut).min(bytes.len()));
    let whole = said(&[bytes]);
    // Only the size limit may be noticed at different places, since an unfinished token counts at the end of a read.
    if bytes.len() < 4096 {
        assert_eq!(whole, said(&[one, two]));
        // Whole tokens, members and objects have ways of their own; bytes that come one by one know none of them.
        assert_eq!(whole, said(&bytes.chunks(1).collect::<Vec<_>>()));
    }
    for message in whole.iter().filter(|message| !message.starts_with('!')) {
        // The double `-0` is read as an integer the next time; after that nothing changes any more.
        let again = said(&[message.as_bytes(), b"\n"]).concat();
        assert!(again == *message || message.contains("-0"));
        assert_eq!(said(&[again.as_bytes(), b"\n"]).concat(), again);
        serde_json::from_str::<serde_json::Value>(message).unwrap();
    }
});
