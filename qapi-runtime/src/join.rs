//! Puts JSON together at compile time, from pieces of which conditions took some away.
//!
//! A piece that is an element of an array begins with its comma, unless it is the first. When the first
//! is missing, the comma of the next has nothing before it but the bracket, and is left out with its blank.

/// How many bytes [`join`] gives.
pub const fn length(pieces: &[&[u8]]) -> usize {
    let mut length = 0;
    let mut last = 0;
    let mut at = 0;
    while at < pieces.len() {
        let piece = pieces[at];
        if !piece.is_empty() {
            length += piece.len() - skipped(last, piece);
            last = piece[piece.len() - 1];
        }
        at += 1;
    }
    length
}

/// The pieces as one text.
///
/// # Panics
/// At compile time, when `LENGTH` is not what [`length`] gives.
pub const fn join<const LENGTH: usize>(pieces: &[&[u8]]) -> [u8; LENGTH] {
    let mut joined = [0; LENGTH];
    let mut length = 0;
    let mut last = 0;
    let mut at = 0;
    while at < pieces.len() {
        let piece = pieces[at];
        if !piece.is_empty() {
            let (_, piece) = piece.split_at(skipped(last, piece));
            let (_, rest) = joined.split_at_mut(length);
            let (place, _) = rest.split_at_mut(piece.len());
            place.copy_from_slice(piece);
            length += piece.len();
            last = piece[piece.len() - 1];
        }
        at += 1;
    }
    assert!(length == LENGTH, "the length is that of the same pieces");
    joined
}

const fn skipped(last: u8, piece: &[u8]) -> usize {
    match piece {
        [b',', b' ', ..] if last == b'[' => 2,
        [b',', ..] if last == b'[' => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_needs_something_before_it() {
        const PIECES: &[&[u8]] = &[b"[[", b", a", b", b", b"], [", b"]", b", c]"];
        const JOINED: [u8; length(PIECES)] = join(PIECES);
        assert_eq!(&JOINED, b"[[a, b], [], c]");
    }
}
