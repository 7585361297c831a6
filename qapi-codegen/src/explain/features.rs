//! Rules about features and conditions.

use super::Rule;
use crate::codes;

/// The rules, by their codes.
pub(super) const RULES: &[Rule] = &[
    Rule {
        code: codes::DUPLICATE_FEATURE,
        text: "A list of features names each once. On enum values it is a warning.",
        wrong: "{ 'command': 'open', 'features': [ 'fast', 'fast' ] }",
        right: "{ 'command': 'open', 'features': [ 'fast' ] }",
        is_schema: true,
    },
    Rule {
        code: codes::TOO_MANY_FEATURES,
        text: "Servers keep the features of a schema in a set of 64 bits, two of which belong to 'deprecated' and 'unstable'.",
        wrong: "(a schema with 63 features of its own)",
        right: "(a schema with 62 features of its own)",
        is_schema: false,
    },
    Rule {
        code: codes::SPECIAL_FEATURE,
        text: "'deprecated' and 'unstable' tell clients what not to rely on: commands, events, members, values. A type by itself is nothing that clients see.",
        wrong: "{ 'struct': 'Disk', 'data': {}, 'features': [ 'deprecated' ] }",
        right: "{ 'struct': 'Disk',
  'data': { '*path': { 'type': 'str', 'features': [ 'deprecated' ] } } }",
        is_schema: true,
    },
    Rule {
        code: codes::BAD_CONDITION,
        text: "A condition is the name of a symbol, or an object with one of the operators 'all' and 'any', which take lists of conditions, and 'not', which takes one.",
        wrong: "{ 'command': 'open', 'if': [ 'CONFIG_A', 'CONFIG_B' ] }",
        right: "{ 'command': 'open', 'if': { 'all': [ 'CONFIG_A', { 'not': 'CONFIG_B' } ] } }",
        is_schema: true,
    },
    Rule {
        code: codes::BAD_SYMBOL,
        text: "Symbols in conditions are upper case letters, digits and `_`, and start with a letter.",
        wrong: "{ 'command': 'open', 'if': 'defined(CONFIG_A)' }",
        right: "{ 'command': 'open', 'if': 'CONFIG_A' }",
        is_schema: true,
    },
];
