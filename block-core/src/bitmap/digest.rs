//! A bitmap's bits as bytes: what a checksum over a bitmap covers.

use super::hbitmap::HBitmap;

/// Words that are handed out together.
const PIECE_WORDS: usize = 8192;

/// Hands out the bits as words of 64 bits (bit 0 is the least bit of word 0) in the host's byte order, at least one
/// word, piece by piece: all words together may not fit into memory.
pub fn for_each_piece(bits: &HBitmap, mut sink: impl FnMut(&[u8])) {
    let mut pieces = Pieces {
        buffer: Vec::with_capacity(PIECE_WORDS * size_of::<u64>()),
        sink: &mut sink,
        words: 0,
    };
    let mut word = 0;
    bits.for_each_run(|from, to| {
        let mut at = from;
        while at < to {
            let index = at / 64;
            if pieces.words < index {
                pieces.push(std::mem::take(&mut word));
                pieces.repeat(0, index);
            }
            if at % 64 == 0 && to - at >= 128 {
                // Whole words.
                pieces.repeat(u64::MAX, to / 64);
                at = to / 64 * 64;
                continue;
            }
            let stop = to.min((index + 1) * 64);
            word |= (u64::MAX << (at % 64)) & (u64::MAX >> (64 - (stop - index * 64)));
            at = stop;
        }
    });
    let count = bits.len().div_ceil(64).max(1);
    if pieces.words < count {
        pieces.push(word);
        pieces.repeat(0, count);
    }
    pieces.flush();
}

struct Pieces<'a> {
    buffer: Vec<u8>,
    sink: &'a mut dyn FnMut(&[u8]),
    /// Words so far.
    words: u64,
}

impl Pieces<'_> {
    fn push(&mut self, word: u64) {
        self.buffer.extend_from_slice(&word.to_ne_bytes());
        self.words += 1;
        if self.buffer.len() >= PIECE_WORDS * size_of::<u64>() {
            self.flush();
        }
    }

    /// The same word until there are `end`.
    fn repeat(&mut self, word: u64, end: u64) {
        while self.words < end {
            self.push(word);
        }
    }

    fn flush(&mut self) {
        (self.sink)(&self.buffer);
        self.buffer.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(bits: &HBitmap) -> Vec<u64> {
        let mut bytes = Vec::new();
        for_each_piece(bits, |piece| bytes.extend_from_slice(piece));
        bytes
            .chunks_exact(8)
            .map(|word| u64::from_ne_bytes(word.try_into().unwrap()))
            .collect()
    }

    #[test]
    fn bits_are_where_they_belong() {
        assert_eq!(words(&HBitmap::new(0)), [0]);
        assert_eq!(words(&HBitmap::new(65)), [0, 0]);
        let runs = [
            (0, 1),
            (3, 64),
            (65, 66),
            (127, 130),
            (192, 500),
            (511, 512),
            (600_000, 700_003),
        ];
        let mut bits = HBitmap::new(700_100);
        let mut expected = vec![0u64; 700_100usize.div_ceil(64)];
        for (from, to) in runs {
            bits.set(from, to);
            for bit in from..to {
                expected[usize::try_from(bit / 64).unwrap()] |= 1 << (bit % 64);
            }
        }
        assert!(words(&bits) == expected);
    }
}
