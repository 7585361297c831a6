//! The stable codes of all rules. What each rule is about is told by [`crate::explain`].
//!
//! The hundreds say which part of the language a rule belongs to: 1 files and syntax, 2 the shape of
//! definitions, 3 names, 4 clashes, 5 types, 6 features and conditions, 7 documentation.

use std::fmt;

/// The code of a rule: `QAPI0102`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(u16);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QAPI{:04}", self.0)
    }
}

impl Code {
    /// The code that a person wrote: `QAPI0102`, `qapi0102`, `0102` or `102`.
    pub fn parse(text: &str) -> Option<Code> {
        let digits = match text.get(..4) {
            Some(prefix) if prefix.eq_ignore_ascii_case("qapi") => text.get(4..)?,
            _ => text,
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let code = Code(digits.parse().ok()?);
        ALL.contains(&code).then_some(code)
    }
}

macro_rules! codes {
    ($($(#[$meta:meta])* $name:ident = $number:literal;)*) => {
        $($(#[$meta])* pub const $name: Code = Code($number);)*

        /// Every code, in ascending order.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    /// A character or word that is no part of the language.
    STRAY = 101;
    /// A string that is not closed on its line.
    UNTERMINATED_STRING = 102;
    /// A character that no string may hold.
    FUNNY_CHARACTER = 103;
    /// A backslash before anything but a backslash.
    UNKNOWN_ESCAPE = 104;
    /// A token that does not fit where it stands.
    UNEXPECTED_TOKEN = 105;
    /// A key that its object has already.
    DUPLICATE_KEY = 106;
    /// Brackets within brackets without end.
    NESTED_TOO_DEEP = 107;
    /// Something at the top that is no object.
    NOT_AN_OBJECT = 108;
    /// A file that is not UTF-8.
    NOT_UTF8 = 109;
    /// A file that cannot be read.
    CANNOT_READ = 110;
    /// A file, or all together, longer than the limit.
    TOO_LARGE = 111;
    /// A file that includes itself, possibly by way of others.
    INCLUDE_CYCLE = 112;
    /// An include directive of a wrong shape.
    BAD_INCLUDE = 113;
    /// A pragma directive of a wrong shape.
    BAD_PRAGMA = 114;
    /// A pragma that does not exist.
    UNKNOWN_PRAGMA = 115;
    /// A pragma with a value of a wrong kind.
    PRAGMA_VALUE = 116;
    /// A documentation comment inside a definition.
    DOC_INSIDE = 117;

    /// A definition without a keyword that says what it is.
    NO_KEYWORD = 201;
    /// A definition with several such keywords.
    SEVERAL_KEYWORDS = 202;
    /// A name that is no string.
    NAME_NOT_STRING = 203;
    /// A key that must be there and is not.
    MISSING_KEY = 204;
    /// A key that does not belong there.
    UNKNOWN_KEY = 205;
    /// A value of a kind that does not fit its key.
    WRONG_KIND = 206;
    /// Something in the place of a type that is no type.
    NOT_A_TYPE = 207;
    /// An array type that is not one name in brackets.
    BAD_ARRAY = 208;
    /// A flag with the value that it cannot have.
    FLAG_VALUE = 209;
    /// Two flags that exclude each other.
    FLAGS_CONFLICT = 210;
    /// `boxed` without a type to box.
    BOXED_WITHOUT_TYPE = 211;
    /// An alternate without alternatives.
    EMPTY_ALTERNATE = 212;
    /// An object in the place of a type.
    ANONYMOUS_TYPE = 213;

    /// A name that is no name at all.
    INVALID_NAME = 301;
    /// A command or event or type whose name has the wrong case.
    NAME_CASE = 302;
    /// A member, value or feature whose name has the wrong case.
    MEMBER_CASE = 303;
    /// A name that the generator keeps for itself.
    RESERVED_NAME = 304;
    /// A name of a type that nothing defines.
    UNKNOWN_TYPE = 305;
    /// A type's generated array name, used as if it were a type.
    ARRAY_NAME_AS_TYPE = 306;

    /// A second definition of a name.
    REDEFINED = 401;
    /// A definition that takes the name of a built-in type.
    REDEFINED_BUILTIN = 402;
    /// Two members of one object that generated code cannot tell apart.
    MEMBER_CLASH = 403;
    /// Two values of one enum that generated code cannot tell apart.
    VALUE_CLASH = 404;
    /// Two definitions whose names differ but become one in generated code.
    MANGLED_CLASH = 405;
    /// Two alternatives of one name.
    ALTERNATIVE_CLASH = 406;

    /// A base that is no struct.
    BAD_BASE = 501;
    /// A struct or union that holds itself.
    CONTAINS_ITSELF = 502;
    /// A discriminator that is no member of the base.
    NO_DISCRIMINATOR = 503;
    /// A discriminator that is no enum.
    DISCRIMINATOR_TYPE = 504;
    /// A discriminator that may be absent.
    DISCRIMINATOR_ABSENT = 505;
    /// A union without branches.
    NO_BRANCHES = 506;
    /// A branch that is no value of the discriminator.
    UNKNOWN_BRANCH = 507;
    /// A branch of a type that no branch can have.
    BRANCH_TYPE = 508;
    /// An alternative of a type that no alternative can have.
    ALTERNATIVE_TYPE = 509;
    /// Two alternatives that a reader cannot tell apart.
    ALTERNATIVES_ALIKE = 510;
    /// Arguments or event data of a type that they cannot have.
    ARGUMENTS_TYPE = 511;
    /// A union as arguments that is not boxed.
    UNION_NOT_BOXED = 512;
    /// Conditional arguments that are not boxed.
    CONDITIONAL_NOT_BOXED = 513;
    /// A result that cannot be extended later.
    RETURN_TYPE = 514;

    /// The same feature twice.
    DUPLICATE_FEATURE = 601;
    /// More features than fit.
    TOO_MANY_FEATURES = 602;
    /// A special feature where it has no meaning.
    SPECIAL_FEATURE = 603;
    /// A condition of a wrong shape.
    BAD_CONDITION = 604;
    /// A condition that is no name of a symbol.
    BAD_SYMBOL = 605;

    /// A documentation comment that is opened with more than `##`.
    DOC_OPENING_JUNK = 701;
    /// A documentation comment that is closed with more than `##`.
    DOC_CLOSING_JUNK = 702;
    /// A documentation comment that is not closed.
    DOC_NOT_CLOSED = 703;
    /// No space behind the `#`.
    DOC_MISSING_SPACE = 704;
    /// A line that is too long.
    DOC_LONG_LINE = 705;
    /// One space between sentences.
    DOC_SENTENCE_SPACE = 706;
    /// A symbol line without its colon.
    DOC_MISSING_COLON = 707;
    /// A symbol line without its symbol.
    DOC_EMPTY_SYMBOL = 708;
    /// A line that is indented less than its section.
    DOC_INDENT = 709;
    /// A description of a member behind a section.
    DOC_LATE_MEMBER = 710;
    /// A section that may stand once only.
    DOC_DUPLICATE_SECTION = 711;
    /// A description without a name.
    DOC_EMPTY_NAME = 712;
    /// A member or feature that is described twice.
    DOC_DUPLICATE_MEMBER = 713;
    /// `Features:` without features.
    DOC_NO_FEATURES = 714;
    /// A section of a kind that is no longer there.
    DOC_OLD_SECTION = 715;
    /// A section without text.
    DOC_EMPTY_SECTION = 716;
    /// A description of a member in free-form documentation.
    DOC_FREE_MEMBER = 717;
    /// Documentation without the definition that it is for.
    DOC_NO_DEFINITION = 718;
    /// Documentation for something else.
    DOC_WRONG_SYMBOL = 719;
    /// A definition without documentation, which is required.
    DOC_REQUIRED = 720;
    /// A definition that follows free-form documentation.
    DOC_FREE_BEFORE_DEFINITION = 721;
    /// A member or value without documentation.
    DOC_UNDOCUMENTED_MEMBER = 722;
    /// A feature without documentation.
    DOC_UNDOCUMENTED_FEATURE = 723;
    /// Documentation of a member that is not there.
    DOC_UNKNOWN_MEMBER = 724;
    /// Documentation of a feature that is not there.
    DOC_UNKNOWN_FEATURE = 725;
    /// `Returns:` where nothing is returned.
    DOC_NO_RETURNS = 726;
    /// A section that only commands have.
    DOC_COMMAND_SECTION = 727;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_are_read_as_people_write_them() {
        assert!(ALL.is_sorted_by(|a, b| a < b));
        for text in ["QAPI0305", "qapi0305", "0305", "305"] {
            assert_eq!(Code::parse(text), Some(UNKNOWN_TYPE), "{text}");
        }
        for text in ["QAPI", "999", "", "QAPI03x5", "\u{e9}\u{e9}\u{e9}"] {
            assert_eq!(Code::parse(text), None, "{text}");
        }
        assert_eq!(UNKNOWN_TYPE.to_string(), "QAPI0305");
    }
}
