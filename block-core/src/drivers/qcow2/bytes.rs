//! Big-endian numbers in byte buffers, without a panic on short ones.

use super::{BlockError, ErrorKind, Result};

fn short() -> BlockError {
    BlockError::new(ErrorKind::Corrupt, "Image metadata ends too early")
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let end = at.checked_add(N).ok_or_else(short)?;
    bytes
        .get(at..end)
        .and_then(|part| part.try_into().ok())
        .ok_or_else(short)
}

pub(super) fn be16(bytes: &[u8], at: usize) -> Result<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

pub(super) fn be32(bytes: &[u8], at: usize) -> Result<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

pub(super) fn be64(bytes: &[u8], at: usize) -> Result<u64> {
    array(bytes, at).map(u64::from_be_bytes)
}

pub(super) fn part(bytes: &[u8], at: usize, len: usize) -> Result<&[u8]> {
    let end = at.checked_add(len).ok_or_else(short)?;
    bytes.get(at..end).ok_or_else(short)
}

/// A table of 64-bit entries as numbers.
pub(super) fn decode_table(bytes: &[u8]) -> Vec<u64> {
    let (entries, _) = bytes.as_chunks::<8>();
    entries.iter().map(|entry| u64::from_be_bytes(*entry)).collect()
}

/// A table of 64-bit entries as bytes.
pub(super) fn encode_table(entries: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * 8);
    for entry in entries {
        bytes.extend_from_slice(&entry.to_be_bytes());
    }
    bytes
}

/// A length or index from the image as one of this machine.
pub(super) fn to_usize(value: u64) -> Result<usize> {
    usize::try_from(value).map_err(|_| BlockError::new(ErrorKind::Corrupt, "Image metadata is too large"))
}

/// A length of this machine as one for the image; lossless on every machine that this runs on.
pub(super) fn to_u64(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
