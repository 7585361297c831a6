//! Rules about files and syntax.

use super::Rule;
use crate::codes;

/// The rules, by their codes.
pub(super) const RULES: &[Rule] = &[
    Rule {
        code: codes::STRAY,
        text: "Outside of strings and comments a schema has only the marks `{ } [ ] : ,` and the words `true` and `false`. There are no numbers, there is no null, and strings are written in single quotes.",
        wrong: r#"{ "struct": 'Disk', 'data': { 'path': 'str' } }"#,
        right: "{ 'struct': 'Disk', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::UNTERMINATED_STRING,
        text: "A string ends on the line on which it starts, with a single quote.",
        wrong: "{ 'enum': 'Format', 'data': [ 'raw ] }",
        right: "{ 'enum': 'Format', 'data': [ 'raw' ] }",
        is_schema: true,
    },
    Rule {
        code: codes::FUNNY_CHARACTER,
        text: "Strings hold printable ASCII and nothing else: no tabs, no accents, no control characters. Comments may hold anything.",
        wrong: "{ 'enum': 'Drink', 'data': [ 'café' ] }",
        right: "{ 'enum': 'Drink', 'data': [ 'cafe' ] }",
        is_schema: true,
    },
    Rule {
        code: codes::UNKNOWN_ESCAPE,
        text: "A backslash in a string is written twice. No other escape exists, and names need none.",
        wrong: r#"{ 'command': 'open\u002dfile' }"#,
        right: "{ 'command': 'open-file' }",
        is_schema: true,
    },
    Rule {
        code: codes::UNEXPECTED_TOKEN,
        text: "Objects are `{ 'key': value, ... }` and lists are `[ value, ... ]`. A comma stands between two elements, never before the first and never behind the last.",
        wrong: "{ 'enum': 'Format', 'data': [ 'raw', 'qcow2', ] }",
        right: "{ 'enum': 'Format', 'data': [ 'raw', 'qcow2' ] }",
        is_schema: true,
    },
    Rule {
        code: codes::DUPLICATE_KEY,
        text: "An object has each key once.",
        wrong: "{ 'struct': 'Disk', 'data': { 'path': 'str', 'path': 'str' } }",
        right: "{ 'struct': 'Disk', 'data': { 'path': 'str', 'format': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::NESTED_TOO_DEEP,
        text: "Brackets may be nested some hundred levels deep. No schema written by a person comes near that limit.",
        wrong: "[[[[[[ ... ]]]]]]",
        right: "{ 'enum': 'Format', 'data': [ 'raw' ] }",
        is_schema: false,
    },
    Rule {
        code: codes::NOT_AN_OBJECT,
        text: "At the top of a file stand directives and definitions, which are objects, and comments.",
        wrong: "'Disk'",
        right: "{ 'struct': 'Disk', 'data': {} }",
        is_schema: true,
    },
    Rule {
        code: codes::NOT_UTF8,
        text: "Schema files are UTF-8. The place is that of the first byte that is not.",
        wrong: "(a file in Latin-1)",
        right: "(the same file in UTF-8)",
        is_schema: false,
    },
    Rule {
        code: codes::CANNOT_READ,
        text: "A schema file, or a file that it includes, could not be read. Paths in include directives start from the folder of the file that holds the directive.",
        wrong: "{ 'include': 'no-such-file.json' }",
        right: "# (no directive for a file that is not there)",
        is_schema: true,
    },
    Rule {
        code: codes::TOO_LARGE,
        text: "There are limits on the size of a file, on the number of files and on includes within includes. They are far beyond any schema in use.",
        wrong: "(a file of a gigabyte)",
        right: "(several files of a sane size)",
        is_schema: false,
    },
    Rule {
        code: codes::INCLUDE_CYCLE,
        text: "A file may be included any number of times, and counts once. But it cannot include itself, neither directly nor by way of other files.",
        wrong: "{ 'include': 'example.json' }",
        right: "# (no directive that leads back here)",
        is_schema: true,
    },
    Rule {
        code: codes::BAD_INCLUDE,
        text: "An include directive is an object with the one key 'include', whose value is a path.",
        wrong: "{ 'include': [ 'common.json' ] }",
        right: "# { 'include': 'common.json' }",
        is_schema: true,
    },
    Rule {
        code: codes::BAD_PRAGMA,
        text: "A pragma directive is an object with the one key 'pragma', whose value is an object of pragmas.",
        wrong: "{ 'pragma': 'doc-required' }",
        right: "{ 'pragma': { 'doc-required': false } }",
        is_schema: true,
    },
    Rule {
        code: codes::UNKNOWN_PRAGMA,
        text: "The pragmas are 'doc-required', 'command-name-exceptions', 'command-returns-exceptions', 'documentation-exceptions' and 'member-name-exceptions'.",
        wrong: "{ 'pragma': { 'docs-required': true } }",
        right: "{ 'pragma': { 'doc-required': false } }",
        is_schema: true,
    },
    Rule {
        code: codes::PRAGMA_VALUE,
        text: "Pragma 'doc-required' is true or false. Each of the other pragmas is a list of names.",
        wrong: "{ 'pragma': { 'command-name-exceptions': 'old_command' } }",
        right: "{ 'pragma': { 'command-name-exceptions': [ 'old_command' ] } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_INSIDE,
        text: "A line that starts with `##` opens a documentation comment, which can only stand between definitions. Inside a definition write ordinary comments with one `#`.",
        wrong: "{ 'struct': 'Disk',
  'data': {
    ##
    # where it is
    ##
    'path': 'str' } }",
        right: "{ 'struct': 'Disk',
  'data': {
    # where it is
    'path': 'str' } }",
        is_schema: true,
    },
];
