//! Whatever stands on the command line is taken or refused; what is taken as `key=value` is a document that can be
//! asked for every kind of option.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qapi_runtime::{Decode, Policy};
use schema::{BlockExportOptions, BlockdevOptions, NbdServerOptions, ObjectOptions};
use storage_daemon::cli::keyval::Keyval;
use storage_daemon::cli::{chardev, options, policy, trace};

fuzz_target!(|text: &str| {
    for implied in [None, Some("driver"), Some("qom-type")] {
        let Ok(keyval) = Keyval::parse(text, implied) else {
            continue;
        };
        let _ = keyval.get("driver");
        let _ = keyval.only(&["driver", "id"]);
        let Ok(document) = keyval.document() else {
            continue;
        };
        if let Some(root) = document.root() {
            let _ = BlockdevOptions::decode(root);
            let _ = BlockExportOptions::decode(root);
            let _ = NbdServerOptions::decode(root);
            let _ = ObjectOptions::decode(root);
        }
    }
    // Of two that say the same one must not be refused.
    if chardev::Chardev::parse(text).is_ok() {
        assert!(chardev::deprecations(text).is_ok());
    }
    let _ = trace::parse(text);
    let _ = policy::apply(&mut Policy::default(), text);
    let arguments: Vec<String> = text.split('\n').map(str::to_owned).collect();
    if let Ok(given) = options::parse(&arguments) {
        // One argument may hold several short options.
        assert!(given.len() <= text.len() + 1);
    }
});
