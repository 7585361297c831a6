//! Rules about documentation comments.

use super::Rule;
use crate::codes;

/// The rules, by their codes.
pub(super) const RULES: &[Rule] = &[
    Rule {
        code: codes::DOC_OPENING_JUNK,
        text: "A documentation comment opens with a line `##` and nothing else. Ordinary comments start with one `#`.",
        wrong: "## Opens a disk.
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "# Opens a disk.
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_CLOSING_JUNK,
        text: "A line that starts with `##` ends a documentation comment, and nothing else may be on it.",
        wrong: "##
# @open:
#
# @path: where it is
## the end
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_NOT_CLOSED,
        text: "A documentation comment goes up to a line `##`. Every line before it starts with `#`.",
        wrong: "##
# @open:
#
# @path: where it is
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_MISSING_SPACE,
        text: "In a documentation comment a space stands between `#` and the text. An empty line is `#` alone.",
        wrong: "##
# @open:
#
#Opens a disk.
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# Opens a disk.
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_LONG_LINE,
        text: "Lines of documentation have at most 70 characters, the leading `# ` included. A URL alone on its line and text in a literal block (`::`) may be longer.",
        wrong: "##
# @open:
#
# Opens a disk, whatever its format may be, and says so when there is none.
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# Opens a disk, whatever its format may be, and says so when there is
# none.
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_SENTENCE_SPACE,
        text: "Two spaces stand between sentences.",
        wrong: "##
# @open:
#
# Opens a disk. Fails if there is none.
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# Opens a disk.  Fails if there is none.
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_MISSING_COLON,
        text: "The first line of a definition's documentation is its name alone: `@`, the name, and a colon.",
        wrong: "##
# @open
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# Opens a disk.
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_EMPTY_SYMBOL,
        text: "The first line of a definition's documentation names the definition.",
        wrong: "##
# @:
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# Opens a disk.
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_INDENT,
        text: "The lines below a description's first line are indented alike. What does not belong to it comes after an empty line. \
The second of these lines must not be indented less than the first; a later one ends the text there.",
        wrong: "##
# @open:
#
# @path: where it is,
#     from the root
#   of the file system
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# @path: where it is,
#     from the root
#     of the file system
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_LATE_MEMBER,
        text: "Members are described together, above sections like `Returns:` and `Features:` and above further text.",
        wrong: "##
# @open:
#
# Since: 1.0
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# @path: where it is
#
# Since: 1.0
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_DUPLICATE_SECTION,
        text: "`Returns:`, `Errors:`, `Since:` and `Features:` stand once.",
        wrong: "##
# @open:
#
# @path: where it is
#
# Since: 1.0
#
# Since: 1.1
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# @path: where it is (since 1.1)
#
# Since: 1.0
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_EMPTY_NAME,
        text: "A description starts with `@`, a name and a colon.",
        wrong: "##
# @open:
#
# @: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# Opens a disk.
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_DUPLICATE_MEMBER,
        text: "Each member and each feature is described once.",
        wrong: "##
# @open:
#
# @path: where it is
#
# @path: and what it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# Opens a disk.
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_NO_FEATURES,
        text: "Below a line `Features:` features are described, as `@name: text`.",
        wrong: "##
# @open:
#
# @path: where it is
#
# Features:
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# @path: where it is
#
# Features:
#
# @fast: it is
##
{ 'command': 'open', 'data': { 'path': 'str' }, 'features': [ 'fast' ] }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_OLD_SECTION,
        text: "Notes and examples are rST now: `.. note::` and `.. qmp-example::`, with their text indented below. A misspelt section like `returns:` is ordinary text, of which we warn.",
        wrong: "##
# @open:
#
# @path: where it is
#
# Note: it may take a while
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# @path: where it is
#
# .. note:: it may take a while
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_EMPTY_SECTION,
        text: "A section like `Returns:` or `Since:` has text, and so has every description of a member or feature.",
        wrong: "##
# @open:
#
# @path: where it is
#
# Since:
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# @path: where it is
#
# Since: 1.0
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_FREE_MEMBER,
        text: "Documentation that does not start with `@Name:` belongs to no definition, so that there are no members to describe.",
        wrong: "##
# About disks.
#
# @path: where it is
##",
        right: "##
# About disks: the path says where it is.
##",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_NO_DEFINITION,
        text: "Documentation of a definition stands right before it. No directive and no other documentation comes between.",
        wrong: "##
# @open:
##

##
# About closing.
##",
        right: "##
# About closing.
##",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_WRONG_SYMBOL,
        text: "Documentation names the definition that follows it.",
        wrong: "##
# @close:
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# Opens a disk.
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_REQUIRED,
        text: "With pragma 'doc-required' every definition has documentation.",
        wrong: "{ 'pragma': { 'doc-required': true } }
{ 'command': 'stop' }",
        right: "{ 'pragma': { 'doc-required': true } }
##
# @stop:
#
# Stops it.
##
{ 'command': 'stop' }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_FREE_BEFORE_DEFINITION,
        text: "Free-form documentation cannot stand right before a definition, where it would be taken for the definition's own.",
        wrong: "##
# Opens a disk.
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# Opens a disk.
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_UNDOCUMENTED_MEMBER,
        text: "Where there is documentation, it describes every member, value or alternative that the definition itself has. Old definitions that do not can be listed in pragma 'documentation-exceptions'.",
        wrong: "##
# @open:
#
# Opens a disk.
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# Opens a disk.
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_UNDOCUMENTED_FEATURE,
        text: "Where there is documentation, it describes every feature of the definition, its members and values, below a line `Features:`.",
        wrong: "##
# @stop:
#
# Stops it.
##
{ 'command': 'stop', 'features': [ 'fast' ] }",
        right: "##
# @stop:
#
# Stops it.
#
# Features:
#
# @fast: it does not wait
##
{ 'command': 'stop', 'features': [ 'fast' ] }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_UNKNOWN_MEMBER,
        text: "Documentation describes only what the definition itself has. Members of a base, of a type that 'data' names and of branches are described where they are defined.",
        wrong: "##
# @open:
#
# @path: where it is
#
# @mode: how to open it
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        right: "##
# @open:
#
# Opens a disk.
#
# @path: where it is
##
{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_UNKNOWN_FEATURE,
        text: "Documentation describes only features that the definition, its members or its values have.",
        wrong: "##
# @stop:
#
# Features:
#
# @fast: it does not wait
##
{ 'command': 'stop' }",
        right: "##
# @stop:
#
# Features:
#
# @fast: it does not wait
##
{ 'command': 'stop', 'features': [ 'fast' ] }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_NO_RETURNS,
        text: "`Returns:` says what a command returns, so the command must return something.",
        wrong: "##
# @stop:
#
# Returns: nothing
##
{ 'command': 'stop' }",
        right: "##
# @stop:
#
# Stops it.
##
{ 'command': 'stop' }",
        is_schema: true,
    },
    Rule {
        code: codes::DOC_COMMAND_SECTION,
        text: "`Returns:` and `Errors:` are sections of commands.",
        wrong: "##
# @STOPPED:
#
# Errors: none
##
{ 'event': 'STOPPED' }",
        right: "##
# @STOPPED:
#
# It has stopped.
##
{ 'event': 'STOPPED' }",
        is_schema: true,
    },
];
