//! Members of an object as nearly all are: a short key and a short value, always with one blank behind the colon and the comma or always
//! with none. Each is taken as a whole, from as many bytes as none of them exceeds.
//!
//! Where one is longer or otherwise, the loop over single tokens goes on at what this has left.

use super::run::Input;
use super::scalar::beginning;
use super::{Expect, Frame, Like};
use crate::document::{LONGEST_AGAIN, Tape};

/// So many bytes are looked at together. All of a member is among them, with what follows it: a key has at most [`LONGEST_AGAIN`] bytes and a
/// value 20, and then there are quotes, a colon, a comma and blanks.
const AHEAD: usize = 64;

/// Takes members from where a key of `top` may be. Then one may be there still, or what follows a key, or what follows
/// a value.
#[inline(always)]
pub(super) fn members(top: &mut Frame, input: &mut Input<'_>, tape: &mut Tape<'_>) {
    match input.bytes.get(input.at..).and_then(<[u8]>::first_chunk) {
        Some([b' ', b'"']) => {
            input.at += 1;
            input.blanks += 1;
        }
        Some([b'"', _]) => {}
        _ => return,
    }
    if input.spaced {
        take::<1>(top, input, tape);
    } else {
        take::<0>(top, input, tape);
    }
}

/// The same where a double quote is at hand, for members with so many blanks, one or none.
// On its own, as it needs all registers. Where a place follows from a length it is added without asking for blanks first: the
// next member could not be looked at before that was answered.
#[inline(never)]
fn take<const BLANKS: usize>(top: &mut Frame, input: &mut Input<'_>, tape: &mut Tape<'_>) {
    let bytes = input.bytes;
    let (mut at, mut count) = (input.at, 0);
    let (mut seen, mut doubtful) = (top.seen, top.doubtful);
    let mut like = top.like;
    let mut members = tape.short_members();
    let expect = loop {
        let Some(ahead) = bytes.get(at..).and_then(<[u8]>::first_chunk::<AHEAD>) else {
            break Expect::Key;
        };
        let (b'"', Some([key, value])) = (ahead[0], members.room()) else {
            break Expect::Key;
        };
        let key_len = match members.take_key_again(like.next, first(ahead), key) {
            Some(len) => {
                let (value, next) = members.behind_key(like.next);
                like.value = value;
                like.next = if next < like.end { next } else { Like::END };
                len
            }
            None => {
                let Some((len, hash)) = members.take_key(block(ahead, 1), key) else {
                    break Expect::Key;
                };
                let bit = 1 << (hash % u64::BITS);
                doubtful |= seen & bit != 0 || like.next > 0;
                seen |= bit;
                like = Like::default();
                len
            }
        };
        let colon = key_len + 2;
        let begin = colon + 1 + BLANKS;
        if byte(ahead, colon) != b':' || BLANKS > 0 && byte(ahead, colon + 1) != b' ' {
            at += colon;
            break Expect::Colon;
        }
        let len = match byte(ahead, begin) {
            b'"' => match members.take_value(block(ahead, begin + 1), value) {
                Some(len) => len + 2,
                None => {
                    at += colon;
                    break Expect::Colon;
                }
            },
            first => match beginning(ahead, begin, first, value) {
                Some(len) if matches!(byte(ahead, begin + len), b',' | b'}') => len,
                _ => {
                    at += colon;
                    break Expect::Colon;
                }
            },
        };
        count += 1;
        let end = begin + len;
        if byte(ahead, end) != b',' || BLANKS > 0 && byte(ahead, end + 1) != b' ' {
            at += end;
            break Expect::MemberComma;
        }
        at += end + 1 + BLANKS;
    };
    let members_len = usize::try_from(count).unwrap_or(0);
    members.finish(2 * members_len + usize::from(expect == Expect::Colon));
    input.at = at;
    // A key, a colon, a value and a comma, with blanks behind the second and the last; but there may be a key more or a comma less.
    input.tokens += 4 * members_len;
    input.blanks += 2 * BLANKS * members_len;
    match expect {
        Expect::Colon => input.tokens += 1,
        Expect::MemberComma => {
            input.tokens -= 1;
            input.blanks -= BLANKS;
        }
        _ => {}
    }
    if expect != Expect::Key || count > 0 {
        top.expect = expect;
    }
    top.len += count;
    top.like = like;
    top.seen = seen;
    top.doubtful = doubtful;
}

/// The byte at a place, which is below [`AHEAD`].
#[inline(always)]
fn byte(ahead: &[u8; AHEAD], at: usize) -> u8 {
    ahead[at % AHEAD]
}

/// The bytes behind a double quote at the first place.
#[inline(always)]
fn first(ahead: &[u8; AHEAD]) -> &[u8; 32] {
    ahead[1..].first_chunk().unwrap_or(&[0; 32])
}

/// The bytes from a place on that is below 32.
#[inline(always)]
fn block(ahead: &[u8; AHEAD], at: usize) -> &[u8; 16] {
    const { assert!(LONGEST_AGAIN + 6 <= 32, "that is where a value begins") }
    ahead[at % 32..].first_chunk().unwrap_or(&[0; 16])
}
