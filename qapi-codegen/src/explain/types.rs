//! Rules about types.

use super::Rule;
use crate::codes;

/// The rules, by their codes.
pub(super) const RULES: &[Rule] = &[
    Rule {
        code: codes::BAD_BASE,
        text: "The base of a struct or union is a struct: no union, no enum, no built-in type.",
        wrong: "{ 'struct': 'Disk', 'base': 'str', 'data': {} }",
        right: "{ 'struct': 'Disk', 'base': 'Node', 'data': {} }
{ 'struct': 'Node', 'data': { 'name': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::CONTAINS_ITSELF,
        text: "A struct or union cannot be its own base or branch, also by way of others: its members would have no end. A member may be of the type that it belongs to, provided that it can be absent on the wire.",
        wrong: "{ 'struct': 'Disk', 'base': 'Disk', 'data': {} }",
        right: "{ 'struct': 'Disk', 'data': { '*backing': 'Disk' } }",
        is_schema: true,
    },
    Rule {
        code: codes::NO_DISCRIMINATOR,
        text: "The discriminator of a union names a member of its base, exactly as it is written there.",
        wrong: "{ 'enum': 'Format', 'data': [ 'raw', 'qcow2' ] }
{ 'struct': 'Qcow2', 'data': { '*lazy': 'bool' } }
{ 'union': 'Disk', 'base': { 'format': 'Format' },
  'discriminator': 'type', 'data': { 'qcow2': 'Qcow2' } }",
        right: "{ 'enum': 'Format', 'data': [ 'raw', 'qcow2' ] }
{ 'struct': 'Qcow2', 'data': { '*lazy': 'bool' } }
{ 'union': 'Disk', 'base': { 'format': 'Format' },
  'discriminator': 'format', 'data': { 'qcow2': 'Qcow2' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DISCRIMINATOR_TYPE,
        text: "The discriminator's values choose the branch, so its type is an enum.",
        wrong: "{ 'enum': 'Format', 'data': [ 'raw', 'qcow2' ] }
{ 'struct': 'Qcow2', 'data': { '*lazy': 'bool' } }
{ 'union': 'Disk', 'base': { 'format': 'str' },
  'discriminator': 'format', 'data': { 'qcow2': 'Qcow2' } }",
        right: "{ 'enum': 'Format', 'data': [ 'raw', 'qcow2' ] }
{ 'struct': 'Qcow2', 'data': { '*lazy': 'bool' } }
{ 'union': 'Disk', 'base': { 'format': 'Format' },
  'discriminator': 'format', 'data': { 'qcow2': 'Qcow2' } }",
        is_schema: true,
    },
    Rule {
        code: codes::DISCRIMINATOR_ABSENT,
        text: "Without its discriminator a union cannot be read, so that it can be neither optional nor conditional.",
        wrong: "{ 'enum': 'Format', 'data': [ 'raw', 'qcow2' ] }
{ 'struct': 'Qcow2', 'data': { '*lazy': 'bool' } }
{ 'union': 'Disk', 'base': { '*format': 'Format' },
  'discriminator': 'format', 'data': { 'qcow2': 'Qcow2' } }",
        right: "{ 'enum': 'Format', 'data': [ 'raw', 'qcow2' ] }
{ 'struct': 'Qcow2', 'data': { '*lazy': 'bool' } }
{ 'union': 'Disk', 'base': { 'format': 'Format' },
  'discriminator': 'format', 'data': { 'qcow2': 'Qcow2' } }",
        is_schema: true,
    },
    Rule {
        code: codes::NO_BRANCHES,
        text: "A union has a branch for each value of its discriminator, so that the enum must have values. Branches that are not written add no members.",
        wrong: "{ 'enum': 'Format', 'data': [] }
{ 'union': 'Disk', 'base': { 'format': 'Format' },
  'discriminator': 'format', 'data': {} }",
        right: "{ 'enum': 'Format', 'data': [ 'raw' ] }
{ 'union': 'Disk', 'base': { 'format': 'Format' },
  'discriminator': 'format', 'data': {} }",
        is_schema: true,
    },
    Rule {
        code: codes::UNKNOWN_BRANCH,
        text: "The name of a branch is a value of the discriminator's enum.",
        wrong: "{ 'enum': 'Format', 'data': [ 'raw', 'qcow2' ] }
{ 'struct': 'Qcow2', 'data': { '*lazy': 'bool' } }
{ 'union': 'Disk', 'base': { 'format': 'Format' },
  'discriminator': 'format', 'data': { 'qcow': 'Qcow2' } }",
        right: "{ 'enum': 'Format', 'data': [ 'raw', 'qcow2' ] }
{ 'struct': 'Qcow2', 'data': { '*lazy': 'bool' } }
{ 'union': 'Disk', 'base': { 'format': 'Format' },
  'discriminator': 'format', 'data': { 'qcow2': 'Qcow2' } }",
        is_schema: true,
    },
    Rule {
        code: codes::BRANCH_TYPE,
        text: "A branch adds members to the object, so it is a struct or a union.",
        wrong: "{ 'enum': 'Format', 'data': [ 'raw', 'qcow2' ] }
{ 'struct': 'Qcow2', 'data': { '*lazy': 'bool' } }
{ 'union': 'Disk', 'base': { 'format': 'Format' },
  'discriminator': 'format', 'data': { 'qcow2': 'str' } }",
        right: "{ 'enum': 'Format', 'data': [ 'raw', 'qcow2' ] }
{ 'struct': 'Qcow2', 'data': { '*lazy': 'bool' } }
{ 'union': 'Disk', 'base': { 'format': 'Format' },
  'discriminator': 'format', 'data': { 'qcow2': 'Qcow2' } }",
        is_schema: true,
    },
    Rule {
        code: codes::ALTERNATIVE_TYPE,
        text: "A reader chooses the alternative by the kind of JSON value. 'any' may be any kind, and so may another alternate.",
        wrong: "{ 'alternate': 'Value', 'data': { 'flag': 'bool', 'other': 'any' } }",
        right: "{ 'alternate': 'Value', 'data': { 'flag': 'bool', 'other': 'null' } }",
        is_schema: true,
    },
    Rule {
        code: codes::ALTERNATIVES_ALIKE,
        text: "No two alternatives may be the same kind of JSON value: null, boolean, number, string, array or object. A string excludes numbers and booleans as well, because on a command line they are written as strings. An enum excludes booleans only if it has the value 'on' or 'off', and numbers only if a value looks like the start of one.",
        wrong: "{ 'alternate': 'Size', 'data': { 'bytes': 'int', 'text': 'str' } }",
        right: "{ 'alternate': 'Size', 'data': { 'bytes': 'int', 'preset': 'Preset' } }
{ 'enum': 'Preset', 'data': [ 'small', 'large' ] }",
        is_schema: true,
    },
    Rule {
        code: codes::ARGUMENTS_TYPE,
        text: "The arguments of a command and the data of an event are an object: members in place, a struct, or with 'boxed' a union.",
        wrong: "{ 'command': 'open', 'data': 'str' }",
        right: "{ 'command': 'open', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::UNION_NOT_BOXED,
        text: "Arguments that are passed one by one must be the same every time, which those of a union are not.",
        wrong: "{ 'enum': 'Format', 'data': [ 'raw', 'qcow2' ] }
{ 'struct': 'Qcow2', 'data': { '*lazy': 'bool' } }
{ 'union': 'Disk', 'base': { 'format': 'Format' },
  'discriminator': 'format', 'data': { 'qcow2': 'Qcow2' } }
{ 'command': 'open', 'data': 'Disk' }",
        right: "{ 'enum': 'Format', 'data': [ 'raw', 'qcow2' ] }
{ 'struct': 'Qcow2', 'data': { '*lazy': 'bool' } }
{ 'union': 'Disk', 'base': { 'format': 'Format' },
  'discriminator': 'format', 'data': { 'qcow2': 'Qcow2' } }
{ 'command': 'open', 'data': 'Disk', 'boxed': true }",
        is_schema: true,
    },
    Rule {
        code: codes::CONDITIONAL_NOT_BOXED,
        text: "Arguments that are passed one by one must be the same in every build, so that those with a condition need 'boxed'.",
        wrong: "{ 'command': 'open',
  'data': { 'path': 'str', 'ring': { 'type': 'bool', 'if': 'CONFIG_RING' } } }",
        right: "{ 'struct': 'OpenArguments',
  'data': { 'path': 'str', 'ring': { 'type': 'bool', 'if': 'CONFIG_RING' } } }
{ 'command': 'open', 'data': 'OpenArguments', 'boxed': true }",
        is_schema: true,
    },
    Rule {
        code: codes::RETURN_TYPE,
        text: "A command returns a struct, a union or an array of these: they can grow members without breaking clients. Old commands that do not can be listed in pragma 'command-returns-exceptions'.",
        wrong: "{ 'command': 'query-size', 'returns': 'int' }",
        right: "{ 'command': 'query-size', 'returns': 'SizeInfo' }
{ 'struct': 'SizeInfo', 'data': { 'size': 'int' } }",
        is_schema: true,
    },
];
