//! The incremental scanner: bytes in, whole JSON values out, whatever way the bytes were cut.
//!
//! It speaks the dialect of QMP monitors: strings in single or double quotes, no interpolation, a
//! value ends when its braces and brackets balance (no newline is needed), and after a bad byte a
//! client gets a fresh start with a structural character, a control character, `0xFE` or `0xFF`.
//! A value split over many reads is continued, not scanned anew. No byte is looked at more than twice: first by a loop that
//! takes whole tokens in their place, then, where that is not what it finds, by a machine that goes byte by byte.
//!
//! It knows nothing of commands, replies or sockets.

mod grammar;
mod lexeme;

use crate::document::Document;
use grammar::Grammar;
use std::fmt;

/// What a client may send at most. Figures above 2^31 - 1 count as that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the tokens of one message.
    pub message_bytes: usize,
    /// Tokens of one message.
    pub tokens: usize,
    /// Objects and arrays open at once.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            message_bytes: 64 << 20,
            tokens: 2 << 20,
            depth: 1024,
        }
    }
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyntaxError {
    /// A byte that starts or continues no token; the token up to that byte.
    Stray(String),
    /// A token where a value had to be, or no token.
    ExpectingValue,
    /// An array's elements without a comma between them.
    ListSeparator,
    /// An object's members without a comma between them.
    DictSeparator,
    /// A key without a colon.
    MissingColon,
    /// A key that is not a string.
    KeyNotString,
    /// An object has the same key twice.
    DuplicateKey,
    /// A word other than `true`, `false` and `null`.
    Keyword(String),
    /// A backslash with a character that means nothing after it.
    Escape,
    /// `\u` with what follows it, when that is no character.
    Unicode(String),
    /// Bytes in a string that are not UTF-8.
    Utf8,
    /// A number beyond what a double can hold.
    NumberRange(String),
    /// [`Limits::depth`] exceeded.
    Depth,
    /// [`Limits::tokens`] exceeded.
    Tokens,
    /// [`Limits::message_bytes`] exceeded.
    Size,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyntaxError::Depth => return f.write_str("JSON nesting depth limit exceeded"),
            SyntaxError::Tokens => return f.write_str("JSON token count limit exceeded"),
            SyntaxError::Size => return f.write_str("JSON token size limit exceeded"),
            _ => f.write_str("JSON parse error, ")?,
        }
        match self {
            SyntaxError::Stray(text) => write!(f, "stray '{text}'"),
            SyntaxError::ExpectingValue => f.write_str("expecting value"),
            SyntaxError::ListSeparator => f.write_str("expected separator in list"),
            SyntaxError::DictSeparator => f.write_str("expected separator in dict"),
            SyntaxError::MissingColon => f.write_str("missing : in object pair"),
            SyntaxError::KeyNotString => f.write_str("key is not a string in object"),
            SyntaxError::DuplicateKey => f.write_str("duplicate key"),
            SyntaxError::Keyword(word) => write!(f, "invalid keyword '{word}'"),
            SyntaxError::Escape => f.write_str("invalid escape sequence in string"),
            SyntaxError::Unicode(text) => write!(f, "\\u{text} is not a valid Unicode character"),
            SyntaxError::Utf8 => f.write_str("invalid UTF-8 sequence in string"),
            SyntaxError::NumberRange(text) => write!(f, "number '{text}' is out of range"),
            SyntaxError::Depth | SyntaxError::Tokens | SyntaxError::Size => Ok(()),
        }
    }
}

impl std::error::Error for SyntaxError {}

/// Where the scanner is inside a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between tokens.
    Start,
    /// After a bad byte, looking for a place to begin again.
    Recovery,
    String {
        quote: u8,
        /// The last byte was a backslash.
        escaped: bool,
        /// A backslash or a byte beyond ASCII was met: the token needs decoding.
        plain: bool,
    },
    Keyword,
    Number(Number),
}

/// Where the scanner is inside a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    /// `-`
    Minus,
    /// A leading `0`.
    Zero,
    /// Digits of the integer part.
    Integer,
    /// `.` with no digit yet.
    Point,
    /// Digits after the point.
    Fraction,
    /// `e` with nothing after it.
    E,
    /// `e+` or `e-`.
    Sign,
    /// Digits of the exponent.
    Exponent,
}

/// What one byte does to a number.
enum Step {
    Goto(Number),
    /// The number ended before this byte.
    End,
    /// The byte makes it no number.
    Bad,
}

impl Number {
    fn step(self, byte: u8) -> Step {
        use Number::{E, Exponent, Fraction, Integer, Minus, Point, Sign, Zero};
        match (self, byte) {
            (Minus, b'0') => Step::Goto(Zero),
            (Minus, b'1'..=b'9') | (Integer, b'0'..=b'9') => Step::Goto(Integer),
            (Zero, b'0'..=b'9') => Step::Bad,
            (Zero | Integer, b'.') => Step::Goto(Point),
            (Zero | Integer | Fraction, b'e' | b'E') => Step::Goto(E),
            (Point | Fraction, b'0'..=b'9') => Step::Goto(Fraction),
            (E, b'+' | b'-') => Step::Goto(Sign),
            (E | Sign | Exponent, b'0'..=b'9') => Step::Goto(Exponent),
            (Zero | Integer | Fraction | Exponent, _) => Step::End,
            (Minus | Point | E | Sign, _) => Step::Bad,
        }
    }
}

/// Turns a stream of bytes into whole JSON values.
#[derive(Debug)]
pub struct Scanner {
    limits: Limits,
    state: State,
    /// The bytes of an unfinished token that earlier reads brought.
    partial: Vec<u8>,
    grammar: Grammar,
    /// The last call handed its document out: begin a fresh one.
    handed_out: bool,
    /// Room above this is given back once a message is done.
    keep_bytes: usize,
}

/// What a scanner keeps unless it is told another figure: enough for the replies that a client asks for over and over.
const KEEP_BYTES: usize = 4 << 20;

impl Default for Scanner {
    fn default() -> Self {
        Scanner::new(Limits::default())
    }
}

impl Scanner {
    /// A scanner at the start of its input.
    pub fn new(limits: Limits) -> Self {
        // A document counts in 32 bits.
        const MOST: usize = i32::MAX as usize;
        Scanner {
            limits: Limits {
                message_bytes: limits.message_bytes.min(MOST),
                tokens: limits.tokens.min(MOST),
                depth: limits.depth.min(MOST),
            },
            state: State::Start,
            partial: Vec::new(),
            grammar: Grammar::default(),
            handed_out: false,
            keep_bytes: KEEP_BYTES,
        }
    }

    /// The same, but each buffer that grows beyond so many bytes for a message is given back behind it. Without this
    /// they are kept up to 4 MiB; a server of many clients, most of which say little, wants to keep less.
    #[must_use]
    pub fn keeping(mut self, bytes: usize) -> Self {
        self.keep_bytes = bytes;
        self
    }

    /// Reads on in `input`, from its start up to the end of the next message, and cuts off what it read.
    ///
    /// `None`: all of `input` is read, and more is needed.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Result<&Document, SyntaxError>> {
        if self.handed_out {
            self.handed_out = false;
            self.grammar.reset(self.keep_bytes);
        }
        let bytes: &[u8] = input;
        let (read, outcome) = self.run(bytes);
        *input = bytes.get(read..).unwrap_or_default();
        match outcome {
            None => None,
            Some(Err(error)) => {
                self.partial.clear();
                self.partial.shrink_to(self.keep_bytes);
                self.grammar.reset(self.keep_bytes);
                Some(Err(error))
            }
            Some(Ok(())) => {
                self.partial.shrink_to(self.keep_bytes);
                self.handed_out = true;
                Some(Ok(self.grammar.document()))
            }
        }
    }

    /// Bytes held for a message that is not finished, for budgets over many clients.
    pub fn held_bytes(&self) -> usize {
        if self.handed_out {
            0
        } else {
            self.partial.len() + self.grammar.held_bytes()
        }
    }

    /// Forgets a half-read message, as if a bad byte had come.
    pub fn abandon(&mut self) {
        self.partial = Vec::new();
        self.grammar.reset(0);
        self.handed_out = false;
        self.state = State::Recovery;
    }

    /// Reads up to the end of a message; says how many bytes it took.
    fn run(&mut self, bytes: &[u8]) -> (usize, Option<Result<(), SyntaxError>>) {
        let mut at = 0;
        // Where the current token starts in `bytes`; what came before is in `partial`.
        let mut from = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Start => {
                    // Nearly all tokens are whole and as they should be.
                    let (read, ended) = self
                        .grammar
                        .run(bytes.get(at..).unwrap_or_default(), &self.limits);
                    at += read;
                    if ended {
                        return (at, Some(Ok(())));
                    }
                    let Some(&byte) = bytes.get(at) else { break };
                    from = at;
                    at += 1;
                    match byte {
                        b' ' | b'\t' | b'\r' | b'\n' => {}
                        b'{' | b'}' | b'[' | b']' | b',' | b':' => {
                            if let Some(outcome) = self.grammar.punctuation(byte, &self.limits) {
                                return (at, Some(outcome));
                            }
                        }
                        b'"' | b'\'' => {
                            self.state = State::String {
                                quote: byte,
                                escaped: false,
                                plain: true,
                            };
                        }
                        b'-' => self.state = State::Number(Number::Minus),
                        b'0' => self.state = State::Number(Number::Zero),
                        b'1'..=b'9' => self.state = State::Number(Number::Integer),
                        b'a'..=b'z' => self.state = State::Keyword,
                        _ => return (at, Some(Err(self.stray(bytes, from, at - 1)))),
                    }
                }
                State::Recovery => {
                    if is_promising(byte) {
                        self.state = State::Start;
                    } else {
                        at += 1;
                    }
                }
                State::String {
                    quote,
                    mut escaped,
                    mut plain,
                } => {
                    let mut ended = false;
                    while let Some(&byte) = bytes.get(at) {
                        if escaped {
                            if is_never_in_strings(byte) {
                                return (at + 1, Some(Err(self.stray(bytes, from, at))));
                            }
                            escaped = false;
                            at += 1;
                            continue;
                        }
                        // Most of a string is neither quote nor escape: that is passed over in one go.
                        let rest = bytes.get(at..).unwrap_or_default();
                        let special = if plain {
                            &SPECIAL_IN_ASCII
                        } else {
                            &SPECIAL_IN_TEXT
                        };
                        let run = rest.iter().position(|&byte| special[usize::from(byte)]);
                        let Some(run) = run else {
                            at = bytes.len();
                            break;
                        };
                        at += run;
                        let Some(&byte) = bytes.get(at) else { break };
                        if is_never_in_strings(byte) {
                            return (at + 1, Some(Err(self.stray(bytes, from, at))));
                        }
                        at += 1;
                        if byte == quote {
                            ended = true;
                            break;
                        } else if byte == b'\\' {
                            escaped = true;
                            plain = false;
                        } else if byte >= 0x80 {
                            plain = false;
                        }
                    }
                    if ended {
                        let outcome = self.token(bytes, from, at, |grammar, token, limits| {
                            grammar.string(token, plain, limits)
                        });
                        if outcome.is_some() {
                            return (at, outcome);
                        }
                    } else {
                        self.state = State::String {
                            quote,
                            escaped,
                            plain,
                        };
                    }
                }
                State::Keyword => {
                    let rest = bytes.get(at..).unwrap_or_default();
                    let run = rest.iter().position(|byte| !byte.is_ascii_lowercase());
                    at += run.unwrap_or(rest.len());
                    if run.is_some()
                        && let Some(outcome) = self.token(bytes, from, at, |grammar, token, limits| {
                            grammar.keyword(token, limits)
                        })
                    {
                        return (at, Some(outcome));
                    }
                }
                State::Number(mut number) => {
                    let mut step = Step::Goto(number);
                    while let Some(&byte) = bytes.get(at) {
                        step = number.step(byte);
                        let Step::Goto(next) = step else { break };
                        number = next;
                        at += 1;
                    }
                    match step {
                        Step::Goto(_) => self.state = State::Number(number),
                        Step::Bad => return (at + 1, Some(Err(self.stray(bytes, from, at)))),
                        Step::End => {
                            let integral = matches!(number, Number::Zero | Number::Integer);
                            let outcome = self.token(bytes, from, at, |grammar, token, limits| {
                                grammar.number(token, integral, limits)
                            });
                            if outcome.is_some() {
                                return (at, outcome);
                            }
                        }
                    }
                }
            }
        }
        if !matches!(self.state, State::Start | State::Recovery) {
            self.partial
                .extend_from_slice(bytes.get(from..).unwrap_or_default());
            if self.partial.len() + self.grammar.size() > self.limits.message_bytes {
                self.state = State::Recovery;
                return (bytes.len(), Some(Err(SyntaxError::Size)));
            }
        }
        (bytes.len(), None)
    }

    /// Hands a finished token to the grammar, gathering it first when it came in pieces.
    fn token(
        &mut self,
        bytes: &[u8],
        from: usize,
        to: usize,
        take: impl FnOnce(&mut Grammar, &[u8], &Limits) -> Option<Result<(), SyntaxError>>,
    ) -> Option<Result<(), SyntaxError>> {
        self.state = State::Start;
        let piece = bytes.get(from..to).unwrap_or_default();
        if self.partial.is_empty() {
            take(&mut self.grammar, piece, &self.limits)
        } else {
            self.partial.extend_from_slice(piece);
            let outcome = take(&mut self.grammar, &self.partial, &self.limits);
            self.partial.clear();
            outcome
        }
    }

    /// The error for a token that ends with a byte it cannot have, at `at`.
    fn stray(&mut self, bytes: &[u8], from: usize, at: usize) -> SyntaxError {
        self.state = State::Recovery;
        let mut token = std::mem::take(&mut self.partial);
        token.extend_from_slice(bytes.get(from..=at).unwrap_or_default());
        SyntaxError::Stray(lexeme::for_message(&token))
    }
}

/// Bytes that end a string as bad.
fn is_never_in_strings(byte: u8) -> bool {
    !(0x20..0xFE).contains(&byte)
}

/// Bytes of a string that need a look.
const SPECIAL_IN_TEXT: [bool; 256] = special_bytes(false);
/// The same as long as the string is ASCII, which the first byte beyond it ends.
const SPECIAL_IN_ASCII: [bool; 256] = special_bytes(true);

const fn special_bytes(beyond_ascii: bool) -> [bool; 256] {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < special.len() {
        special[byte] = byte < 0x20
            || byte >= 0xFE
            || byte == b'"' as usize
            || byte == b'\'' as usize
            || byte == b'\\' as usize
            || (beyond_ascii && byte >= 0x80);
        byte += 1;
    }
    special
}

/// Bytes at which scanning begins again after a bad one: structural characters, control characters
/// (but for the tab), and the two bytes that no UTF-8 text has.
fn is_promising(byte: u8) -> bool {
    matches!(byte, b'{' | b'}' | b'[' | b']' | b',' | b':' | 0xFE..=0xFF) || (byte < 0x20 && byte != b'\t')
}

#[cfg(test)]
mod tests;
