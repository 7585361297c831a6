//! Rules about the shape of definitions.

use super::Rule;
use crate::codes;

/// The rules, by their codes.
pub(super) const RULES: &[Rule] = &[
    Rule {
        code: codes::NO_KEYWORD,
        text: "A definition says by one of its keys what it defines: 'enum', 'struct', 'union', 'alternate', 'command' or 'event'. The value of that key is the name.",
        wrong: "{ 'name': 'Disk', 'data': { 'path': 'str' } }",
        right: "{ 'struct': 'Disk', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::SEVERAL_KEYWORDS,
        text: "A definition defines one thing.",
        wrong: "{ 'struct': 'Disk', 'enum': 'Format', 'data': {} }",
        right: "{ 'struct': 'Disk', 'data': {} }
{ 'enum': 'Format', 'data': [ 'raw' ] }",
        is_schema: true,
    },
    Rule {
        code: codes::NAME_NOT_STRING,
        text: "Names of definitions, enum values and features are strings.",
        wrong: "{ 'command': true }",
        right: "{ 'command': 'stop' }",
        is_schema: true,
    },
    Rule {
        code: codes::MISSING_KEY,
        text: "Each kind of definition has keys that it cannot do without: an enum and a struct 'data', a union 'base', 'discriminator' and 'data', an alternate 'data'. The long form of a member has 'type', that of a value or a feature 'name'.",
        wrong: "{ 'struct': 'Disk' }",
        right: "{ 'struct': 'Disk', 'data': {} }",
        is_schema: true,
    },
    Rule {
        code: codes::UNKNOWN_KEY,
        text: "Each kind of definition, member, value, feature and condition has a fixed set of keys.",
        wrong: "{ 'command': 'stop', 'return': 'Disk' }
{ 'struct': 'Disk', 'data': {} }",
        right: "{ 'command': 'stop', 'returns': 'Disk' }
{ 'struct': 'Disk', 'data': {} }",
        is_schema: true,
    },
    Rule {
        code: codes::WRONG_KIND,
        text: "Each key has a value of one kind: 'data' of an enum is a list of values, of a struct an object of members; 'features' is a list; 'prefix' is a string.",
        wrong: "{ 'command': 'stop', 'features': 'unstable' }",
        right: "{ 'command': 'stop', 'features': [ 'unstable' ] }",
        is_schema: true,
    },
    Rule {
        code: codes::NOT_A_TYPE,
        text: "A type is written as its name in quotes, and an array as a name in brackets. Where only structs or unions fit, only a name does.",
        wrong: "{ 'struct': 'Disk', 'data': { 'read-only': true } }",
        right: "{ 'struct': 'Disk', 'data': { 'read-only': 'bool' } }",
        is_schema: true,
    },
    Rule {
        code: codes::BAD_ARRAY,
        text: "An array type is the name of its element in brackets. There are no arrays of arrays and no tuples.",
        wrong: "{ 'struct': 'Disk', 'data': { 'sizes': [ 'int', 'int' ] } }",
        right: "{ 'struct': 'Disk', 'data': { 'sizes': [ 'int' ] } }",
        is_schema: true,
    },
    Rule {
        code: codes::FLAG_VALUE,
        text: "A flag has one value only, since the other is what its absence means: 'boxed', 'allow-oob', 'allow-preconfig' and 'coroutine' are true, 'gen' and 'success-response' are false.",
        wrong: "{ 'command': 'stop', 'allow-oob': false }",
        right: "{ 'command': 'stop' }",
        is_schema: true,
    },
    Rule {
        code: codes::FLAGS_CONFLICT,
        text: "A command that runs out of band must not wait, and a coroutine is there to wait: 'allow-oob' and 'coroutine' exclude each other.",
        wrong: "{ 'command': 'stop', 'allow-oob': true, 'coroutine': true }",
        right: "{ 'command': 'stop', 'coroutine': true }",
        is_schema: true,
    },
    Rule {
        code: codes::BOXED_WITHOUT_TYPE,
        text: "With 'boxed' the arguments come as one value of the type that 'data' names. Members in place have no such type.",
        wrong: "{ 'command': 'open', 'boxed': true, 'data': { 'path': 'str' } }",
        right: "{ 'command': 'open', 'boxed': true, 'data': 'Disk' }
{ 'struct': 'Disk', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::EMPTY_ALTERNATE,
        text: "An alternate chooses between types, so it has at least one.",
        wrong: "{ 'alternate': 'Reference', 'data': {} }",
        right: "{ 'alternate': 'Reference', 'data': { 'name': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::ANONYMOUS_TYPE,
        text: "A member, branch or result has a type with a name. An object in its place is the long form of a member, `{ 'type': ..., 'if': ..., 'features': ... }`, and not a struct without a name.",
        wrong: "{ 'struct': 'Disk', 'data': { 'place': { 'host': 'str', 'port': 'int' } } }",
        right: "{ 'struct': 'Disk', 'data': { 'place': 'Place' } }
{ 'struct': 'Place', 'data': { 'host': 'str', 'port': 'int' } }",
        is_schema: true,
    },
];
