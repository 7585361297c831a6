//! The tokens of a document, one behind the other.

use super::Token;

/// Tokens, and room behind them: what is added is written to it, without a call for each.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// Up to `used` these are the document's; behind it is room with anything in it.
    slots: Vec<Token>,
    used: usize,
}

impl Clone for Tokens {
    fn clone(&self) -> Self {
        let slots = self.as_slice().to_vec();
        Tokens {
            used: slots.len(),
            slots,
        }
    }
}

impl Tokens {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.used
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[Token] {
        self.slots.get(..self.used).unwrap_or_default()
    }

    /// The token at an index that came from these tokens: it is below `used`, which is not asked again.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&Token> {
        self.slots.get(index)
    }

    /// The same to change it.
    #[inline]
    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Token> {
        self.slots.get_mut(index)
    }

    #[inline(always)]
    pub(super) fn push(&mut self, token: Token) {
        *self.next() = token;
        self.keep_next();
    }

    /// Room for one more, which it is when [`Tokens::keep_next`] says so.
    #[inline(always)]
    pub(super) fn next(&mut self) -> &mut Token {
        if self.used == self.slots.len() {
            self.grow();
        }
        &mut self.slots[self.used]
    }

    /// The next one is there.
    #[inline(always)]
    pub(super) fn keep_next(&mut self) {
        self.used += 1;
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        self.slots.resize((2 * self.slots.len()).max(16), Token::Null);
    }

    /// The tokens that there are, what is behind them, and how many they are.
    #[inline(always)]
    pub(super) fn split(&mut self) -> (&[Token], &mut [Token], &mut usize) {
        match self.slots.split_at_mut_checked(self.used) {
            Some((done, room)) => (done, room, &mut self.used),
            None => (&[], &mut [], &mut self.used),
        }
    }

    /// Forgets all tokens; room for more than `keep` of them is given back.
    pub(super) fn clear(&mut self, keep: usize) {
        self.used = 0;
        if self.slots.len() > keep {
            self.slots.truncate(keep);
            self.slots.shrink_to_fit();
        }
    }
}
