//! From Rust values to JSON.
//!
//! [`Encode`] writes into one buffer and never fails. What is written is what QEMU writes: ASCII, a
//! blank after `:` and `,`.

use crate::decode::Members;
use crate::policy::{Policy, Special};
use crate::text;
pub use crate::text::{write_double, write_string};

/// A value that can be written as JSON.
pub trait Encode {
    /// Writes the value.
    fn encode(&self, out: &mut Writer);
}

/// Room for a text at first.
const FIRST_BYTES: usize = 1024;

/// A member's name as it is written before the value: `, "name": `.
#[derive(Debug)]
pub(crate) struct Key {
    name: &'static str,
    /// The same, if it is short; it is copied with what is behind it.
    text: [u8; Key::SHORT + 2],
    /// How long it is.
    len: u8,
}

impl Key {
    /// So many bytes are copied at once.
    const SHORT: usize = 32;

    pub(crate) fn new(name: &'static str) -> Self {
        let mut text = [0; Key::SHORT + 2];
        let whole = format!(", \"{name}\": ");
        let len = match text.get_mut(..whole.len()) {
            Some(room) if whole.len() <= Key::SHORT => {
                room.copy_from_slice(whole.as_bytes());
                u8::try_from(whole.len()).unwrap_or(0)
            }
            _ => 0,
        };
        Key { name, text, len }
    }
}

/// A JSON text being written, under the output half of a policy.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: Vec<u8>,
    policy: Policy,
    /// The innermost object or array has a member or element already.
    continued: bool,
}

impl Writer {
    /// An empty text.
    pub fn new(policy: Policy) -> Self {
        Writer {
            buffer: Vec::new(),
            policy,
            continued: false,
        }
    }

    /// An empty text that has room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Writer {
            buffer: Vec::with_capacity(bytes),
            policy: Policy::default(),
            continued: false,
        }
    }

    /// What has been written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// What has been written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.buffer
    }

    /// Writes an object whose members `members` writes.
    #[inline]
    pub fn object(&mut self, members: impl FnOnce(&mut Writer)) {
        self.open(b'{');
        members(self);
        self.close(b'}');
    }

    /// Begins an object; generated code calls it, as a closure for every type would be compiled anew.
    pub fn begin_object(&mut self) {
        self.open(b'{');
    }

    /// Ends an object.
    pub fn end_object(&mut self) {
        self.close(b'}');
    }

    /// Writes an array.
    #[inline]
    pub fn array<'a, T: Encode + 'a>(&mut self, elements: impl IntoIterator<Item = &'a T>) {
        self.open(b'[');
        for element in elements {
            self.separate();
            element.encode(self);
        }
        self.close(b']');
    }

    /// Writes a member.
    #[inline]
    pub fn member<T: Encode>(&mut self, name: &'static str, value: &T) {
        self.key(name);
        value.encode(self);
    }

    /// Writes a member if it is there.
    #[inline]
    pub fn optional<T: Encode>(&mut self, name: &'static str, value: &Option<T>) {
        if let Some(value) = value {
            self.key(name);
            value.encode(self);
        }
    }

    /// Writes a member whose value is a text that the caller knows to be plain: an enumeration's value.
    pub fn tag(&mut self, name: &'static str, value: &str) {
        self.key(name);
        self.string(value);
    }

    /// Whether the policy leaves out what has these features.
    #[inline]
    pub fn hides(&self, special: Special) -> bool {
        self.policy.hides(special)
    }

    /// Writes members that came with a value and have no place in its type.
    pub fn rest(&mut self, members: &crate::Map) {
        for (name, value) in members {
            self.separate();
            write_string(&mut self.buffer, name);
            self.buffer.extend_from_slice(b": ");
            value.encode(self);
        }
    }

    /// Writes a text.
    pub fn string(&mut self, text: &str) {
        write_string(&mut self.buffer, text);
    }

    /// Writes JSON that was made elsewhere.
    pub fn raw(&mut self, json: &[u8]) {
        self.buffer.extend_from_slice(json);
    }

    fn open(&mut self, bracket: u8) {
        if self.buffer.capacity() == 0 {
            // Most messages fit; the others grow from here, not from nothing.
            self.buffer.reserve(FIRST_BYTES);
        }
        self.buffer.push(bracket);
        self.continued = false;
    }

    fn close(&mut self, bracket: u8) {
        self.buffer.push(bracket);
        self.continued = true;
    }

    #[inline]
    fn separate(&mut self) {
        if self.continued {
            self.buffer.extend_from_slice(b", ");
        }
        self.continued = true;
    }

    /// As [`Writer::key`].
    #[inline]
    pub(crate) fn put_key(&mut self, key: &Key) {
        if key.len == 0 {
            self.key(key.name);
            return;
        }
        let skipped = if self.continued { 0 } else { 2 };
        self.continued = true;
        self.buffer.reserve(Key::SHORT);
        // SAFETY: the text is two bytes longer than what is copied, and there is room for that. The key is no longer than
        // what was copied.
        unsafe {
            let len = self.buffer.len();
            let text = key.text.as_ptr().add(skipped);
            text.copy_to_nonoverlapping(self.buffer.as_mut_ptr().add(len), Key::SHORT);
            self.buffer.set_len(len + usize::from(key.len) - skipped);
        }
    }

    /// Names of a schema have neither quotes nor control characters: they are written as they are.
    #[inline]
    fn key(&mut self, name: &'static str) {
        let before: &[u8] = if self.continued { b", \"" } else { b"\"" };
        self.continued = true;
        self.buffer.reserve(before.len() + name.len() + 3);
        self.buffer.extend_from_slice(before);
        self.buffer.extend_from_slice(name.as_bytes());
        self.buffer.extend_from_slice(b"\": ");
    }
}

/// Writes an object with the members of its type; generated code calls it.
#[inline]
pub fn object<T: Members>(value: &T, out: &mut Writer) {
    out.begin_object();
    value.put(out);
    out.end_object();
}

impl Encode for bool {
    fn encode(&self, out: &mut Writer) {
        out.raw(if *self { b"true" } else { b"false" });
    }
}

macro_rules! integers {
    ($write:path, $wide:ty: $($narrow:ty),*) => {
        $(impl Encode for $narrow {
            fn encode(&self, out: &mut Writer) {
                $write(&mut out.buffer, <$wide>::from(*self));
            }
        })*
    };
}
integers!(text::write_int, i64: i8, i16, i32, i64);
integers!(text::write_uint, u64: u8, u16, u32, u64);

impl Encode for f64 {
    fn encode(&self, out: &mut Writer) {
        write_double(&mut out.buffer, *self);
    }
}

impl Encode for str {
    fn encode(&self, out: &mut Writer) {
        out.string(self);
    }
}

impl Encode for String {
    fn encode(&self, out: &mut Writer) {
        out.string(self);
    }
}

impl<T: Encode> Encode for Box<T> {
    fn encode(&self, out: &mut Writer) {
        (**self).encode(out);
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, out: &mut Writer) {
        out.array(self);
    }
}

/// What a command without a return value answers.
impl Encode for () {
    fn encode(&self, out: &mut Writer) {
        out.raw(b"{}");
    }
}

impl Encode for crate::Null {
    fn encode(&self, out: &mut Writer) {
        out.raw(b"null");
    }
}

impl Encode for crate::Map {
    fn encode(&self, out: &mut Writer) {
        out.object(|out| out.rest(self));
    }
}

impl Encode for crate::Value {
    fn encode(&self, out: &mut Writer) {
        match self {
            crate::Value::Null => out.raw(b"null"),
            crate::Value::Bool(value) => value.encode(out),
            crate::Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(value), _, _) => value.encode(out),
                (_, Some(value), _) => value.encode(out),
                (_, _, Some(value)) => value.encode(out),
                _ => out.raw(b"null"),
            },
            crate::Value::String(text) => out.string(text),
            crate::Value::Array(elements) => out.array(elements),
            crate::Value::Object(members) => members.encode(out),
        }
    }
}

#[cfg(test)]
mod tests;
