//! The image header and its extensions: reading, refusing what is not supported, writing back.
//!
//! Knows the bytes of the first cluster only; it reads and writes no file.

use super::bytes::{be32, be64, part, to_u64, to_usize};
use super::{BlockError, ErrorKind, Result};

const MAGIC: u32 = 0x5146_49fb;
/// Most bytes of an L1 table.
pub(super) const MAX_L1_BYTES: u64 = 32 << 20;
/// Most bytes of the refcount table.
pub(super) const MAX_REFTABLE_BYTES: u64 = 8 << 20;
/// Most internal snapshots.
pub(super) const MAX_SNAPSHOTS: u32 = 65536;
/// Most stored bitmaps.
pub(super) const MAX_BITMAPS: u32 = 65535;
/// Most bytes of the bitmap directory.
pub(super) const MAX_BITMAP_DIRECTORY_BYTES: u64 = 65535 * 1024;
/// Most bytes of the backing file's name.
const MAX_BACKING_NAME: u32 = 1023;
/// No format's name is as long as this.
const MAX_FORMAT_NAME: usize = 16;
/// The header and its extensions stay inside this if they can: one sector is written as a whole or not at all.
const SECTOR: usize = 512;

pub(super) const INCOMPATIBLE_DIRTY: u64 = 1;
pub(super) const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
pub(super) const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
pub(super) const COMPATIBLE_LAZY_REFCOUNTS: u64 = 1;
pub(super) const AUTOCLEAR_BITMAPS: u64 = 1;
pub(super) const AUTOCLEAR_RAW_DATA: u64 = 1 << 1;

const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;
const EXTENSION_CRYPTO: u32 = 0x0537_be77;
const EXTENSION_BITMAPS: u32 = 0x2385_2875;

/// Features as (set, bit, name): set 0 incompatible, 1 compatible, 2 autoclear.
const FEATURE_NAMES: [(u8, u8, &str); 8] = [
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
];

/// How compressed clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Raw deflate with a window of 4 KiB.
    #[default]
    Zlib,
    /// Zstandard frames.
    Zstd,
}

impl Compression {
    /// The schema's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Compression::Zlib => "zlib",
            Compression::Zstd => "zstd",
        }
    }
}

/// Where the bitmap directory lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BitmapsExtension {
    pub(super) count: u32,
    pub(super) directory_bytes: u64,
    pub(super) directory_offset: u64,
}

/// The header's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) backing_file: Option<String>,
    pub(super) backing_format: Option<String>,
    /// Where the backing file's name lies; chosen anew when it does not fit any more.
    backing_offset: u64,
    pub(super) cluster_bits: u32,
    pub(super) size: u64,
    pub(super) l1_size: u32,
    pub(super) l1_offset: u64,
    pub(super) reftable_offset: u64,
    pub(super) reftable_clusters: u32,
    pub(super) snapshot_count: u32,
    pub(super) snapshots_offset: u64,
    pub(super) incompatible: u64,
    pub(super) compatible: u64,
    pub(super) autoclear: u64,
    pub(super) refcount_order: u32,
    pub(super) compression: Compression,
    /// Header fields that we do not know, kept as they are: from byte 105 on.
    more_fields: Vec<u8>,
    pub(super) bitmaps: Option<BitmapsExtension>,
    /// Extensions that we do not know, kept as they are.
    unknown_extensions: Vec<(u32, Vec<u8>)>,
}

/// What a new image's header starts from.
pub(super) struct NewHeader {
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    pub(super) size: u64,
    pub(super) refcount_order: u32,
    pub(super) compression: Compression,
    pub(super) lazy_refcounts: bool,
    pub(super) backing_file: Option<String>,
    pub(super) backing_format: Option<String>,
}

fn refuse(kind: ErrorKind, message: impl Into<String>) -> BlockError {
    BlockError::new(kind, message)
}

fn invalid(message: impl Into<String>) -> BlockError {
    refuse(ErrorKind::Invalid, message)
}

/// Checks that a table may lie where the header says.
fn check_table(name: &str, cluster_bits: u32, offset: u64, bytes: u64, max_bytes: u64) -> Result<()> {
    if bytes > max_bytes {
        return Err(refuse(ErrorKind::Invalid, format!("{name} too large")));
    }
    let aligned = offset & ((1 << cluster_bits) - 1) == 0;
    if aligned && offset.checked_add(bytes).is_some_and(|end| end <= 1 << 62) {
        Ok(())
    } else {
        Err(invalid(format!("{name} offset invalid")))
    }
}

impl Header {
    pub(super) fn new(options: NewHeader) -> Self {
        let zstd = options.compression == Compression::Zstd;
        Self {
            version: options.version,
            backing_file: options.backing_file,
            backing_format: options.backing_format,
            backing_offset: 0,
            cluster_bits: options.cluster_bits,
            size: options.size,
            l1_size: 0,
            l1_offset: 0,
            reftable_offset: 0,
            reftable_clusters: 0,
            snapshot_count: 0,
            snapshots_offset: 0,
            incompatible: if zstd { INCOMPATIBLE_COMPRESSION } else { 0 },
            compatible: if options.lazy_refcounts {
                COMPATIBLE_LAZY_REFCOUNTS
            } else {
                0
            },
            autoclear: 0,
            refcount_order: options.refcount_order,
            compression: options.compression,
            more_fields: vec![0; if options.version >= 3 { 7 } else { 0 }],
            bitmaps: None,
            unknown_extensions: Vec::new(),
        }
    }

    /// Reads the header. `bytes` is the start of the file, up to a whole cluster of the largest size.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() < 72 || be32(bytes, 0)? != MAGIC {
            return Err(invalid("Image is not in qcow2 format"));
        }
        let version = be32(bytes, 4)?;
        if !(2..=3).contains(&version) {
            return Err(refuse(
                ErrorKind::Unsupported,
                format!("Unsupported qcow2 version {version}"),
            ));
        }
        let cluster_bits = be32(bytes, 20)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(invalid(format!("Unsupported cluster size: 2^{cluster_bits}")));
        }
        let cluster = 1u64 << cluster_bits;
        let header_length = if version == 2 {
            72
        } else {
            be32(bytes, 100).unwrap_or(0)
        };
        if version >= 3 && header_length < 104 {
            return Err(invalid("qcow2 header too short"));
        }
        if u64::from(header_length) > cluster {
            return Err(invalid("qcow2 header exceeds cluster size"));
        }
        let header_end = to_usize(u64::from(header_length))?;
        let backing_offset = be64(bytes, 8)?;
        let backing_bytes = be32(bytes, 16)?;
        if backing_offset > cluster {
            return Err(invalid("Invalid backing file offset"));
        }
        let v3 = version >= 3;
        let field = |at| if v3 { be64(bytes, at) } else { Ok(0) };
        let (incompatible, compatible, autoclear) = (field(72)?, field(80)?, field(88)?);
        let mut header = Self {
            version,
            backing_file: None,
            backing_format: None,
            backing_offset,
            cluster_bits,
            size: be64(bytes, 24)?,
            l1_size: be32(bytes, 36)?,
            l1_offset: be64(bytes, 40)?,
            reftable_offset: be64(bytes, 48)?,
            reftable_clusters: be32(bytes, 56)?,
            snapshot_count: be32(bytes, 60)?,
            snapshots_offset: be64(bytes, 64)?,
            incompatible,
            compatible,
            autoclear,
            refcount_order: if v3 { be32(bytes, 96)? } else { 4 },
            compression: Compression::Zlib,
            more_fields: part(bytes, 105.min(header_end), header_end.saturating_sub(105))?.to_vec(),
            bitmaps: None,
            unknown_extensions: Vec::new(),
        };
        let extensions_end = if backing_offset == 0 {
            cluster
        } else {
            backing_offset
        };
        let names = header.parse_extensions(bytes, header_end, to_usize(extensions_end)?)?;
        header.refuse_features(&names)?;
        header.parse_compression(if header_end > 104 {
            bytes.get(104).copied()
        } else {
            None
        })?;
        if header.refcount_order > 6 {
            return Err(invalid(
                "Reference count entry width too large; may not exceed 64 bits",
            ));
        }
        match be32(bytes, 32)? {
            0 => {}
            1 => {
                return Err(refuse(
                    ErrorKind::Unsupported,
                    "Use of AES-CBC encrypted qcow2 images is no longer supported in system emulators",
                ));
            }
            2 if !header
                .unknown_extensions
                .iter()
                .any(|(kind, _)| *kind == EXTENSION_CRYPTO) =>
            {
                return Err(invalid("Missing CRYPTO header for crypt method 2"));
            }
            2 => {
                return Err(refuse(
                    ErrorKind::Unsupported,
                    "Unsupported qcow2 feature(s): LUKS encryption",
                ));
            }
            other => {
                return Err(invalid(format!(
                    "Unsupported encryption method {}",
                    other.cast_signed()
                )));
            }
        }
        header.check_tables()?;
        if backing_offset != 0 {
            let room = cluster.saturating_sub(backing_offset);
            if u64::from(backing_bytes) > room || backing_bytes > MAX_BACKING_NAME {
                return Err(invalid("Backing file name too long"));
            }
            let name = part(
                bytes,
                to_usize(backing_offset)?,
                to_usize(u64::from(backing_bytes))?,
            )
            .map_err(|_| invalid("Could not read backing file name"))?;
            // It ends with its first zero; one that is nothing is none.
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            header.backing_file = (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned());
        }
        Ok(header)
    }

    fn check_tables(&self) -> Result<()> {
        let bits = self.cluster_bits;
        if self.reftable_clusters == 0 {
            return Err(invalid("Image does not contain a reference count table"));
        }
        check_table(
            "Reference count table",
            bits,
            self.reftable_offset,
            u64::from(self.reftable_clusters) << bits,
            MAX_REFTABLE_BYTES,
        )?;
        // An entry of the snapshot table takes at least 40 bytes.
        if self.snapshot_count > MAX_SNAPSHOTS {
            return Err(refuse(ErrorKind::Invalid, "Snapshot table too large"));
        }
        check_table(
            "Snapshot table",
            bits,
            self.snapshots_offset,
            u64::from(self.snapshot_count) * 40,
            u64::MAX,
        )?;
        check_table(
            "Active L1 table",
            bits,
            self.l1_offset,
            u64::from(self.l1_size) * 8,
            MAX_L1_BYTES,
        )?;
        let coverage_bits = bits + bits - 3;
        let needed = self.size.div_ceil(1 << coverage_bits);
        if self.size > (i64::MAX as u64) || needed > MAX_L1_BYTES / 8 {
            return Err(refuse(ErrorKind::Invalid, "Image is too big"));
        }
        if u64::from(self.l1_size) < needed {
            return Err(invalid("L1 table is too small"));
        }
        if self.l1_size > 0 && self.l1_offset == 0 {
            return Err(invalid("Active L1 table offset invalid"));
        }
        if self.reftable_offset == 0 {
            return Err(invalid("Reference count table offset invalid"));
        }
        Ok(())
    }

    /// Reads the extensions; returns the feature name table's bytes.
    fn parse_extensions(&mut self, bytes: &[u8], start: usize, end: usize) -> Result<Vec<u8>> {
        let mut at = start;
        let mut names = Vec::new();
        let method = be32(bytes, 32)?;
        // Each round moves on by at least the 8 bytes of an extension's own header.
        while at < end {
            let Ok(kind) = be32(bytes, at) else { break };
            let Ok(len) = be32(bytes, at + 4) else { break };
            at += 8;
            let len = to_usize(u64::from(len))?;
            if len > end.saturating_sub(at) {
                return Err(invalid("Header extension too large"));
            }
            if kind == 0 {
                break;
            }
            let body = part(bytes, at, len)?;
            match kind {
                EXTENSION_BACKING_FORMAT if len >= MAX_FORMAT_NAME => {
                    return Err(invalid(format!(
                        "ERROR: ext_backing_format: len={len} too large (>={MAX_FORMAT_NAME})"
                    )));
                }
                EXTENSION_BACKING_FORMAT => {
                    self.backing_format = Some(String::from_utf8_lossy(body).into_owned());
                }
                EXTENSION_FEATURE_NAMES => names = body.to_vec(),
                EXTENSION_BITMAPS => self.parse_bitmaps(body)?,
                EXTENSION_CRYPTO if method != 2 => {
                    return Err(invalid(
                        "CRYPTO header extension only expected with LUKS encryption method",
                    ));
                }
                _ => self.unknown_extensions.push((kind, body.to_vec())),
            }
            at += len.next_multiple_of(8);
        }
        if self.bitmaps.is_none() {
            self.autoclear &= !AUTOCLEAR_BITMAPS;
        }
        Ok(names)
    }

    fn parse_bitmaps(&mut self, body: &[u8]) -> Result<()> {
        if body.len() != 24 {
            return Err(invalid("bitmaps_ext: Invalid extension length"));
        }
        if self.version < 3 || self.autoclear & AUTOCLEAR_BITMAPS == 0 {
            // Written by a program that does not know bitmaps since they were stored: nothing in them can be trusted,
            // and their clusters may be leaked.
            return Ok(());
        }
        let extension = BitmapsExtension {
            count: be32(body, 0)?,
            directory_bytes: be64(body, 8)?,
            directory_offset: be64(body, 16)?,
        };
        if be32(body, 4)? != 0 {
            return Err(invalid("bitmaps_ext: Reserved field is not zero"));
        }
        if extension.count > MAX_BITMAPS {
            return Err(invalid(format!(
                "bitmaps_ext: Image has {} bitmaps, exceeding the QEMU supported maximum of {MAX_BITMAPS}",
                extension.count
            )));
        }
        if extension.count == 0 {
            return Err(invalid("found bitmaps extension with zero bitmaps"));
        }
        let aligned = extension.directory_offset & ((1 << self.cluster_bits) - 1) == 0;
        if !aligned || extension.directory_offset == 0 || extension.directory_offset > 1 << 62 {
            return Err(invalid("bitmaps_ext: invalid bitmap directory offset"));
        }
        if extension.directory_bytes > MAX_BITMAP_DIRECTORY_BYTES {
            return Err(invalid(format!(
                "bitmaps_ext: bitmap directory size ({}) exceeds the maximum supported size ({MAX_BITMAP_DIRECTORY_BYTES})",
                extension.directory_bytes
            )));
        }
        self.bitmaps = Some(extension);
        Ok(())
    }

    /// Refuses incompatible features that we do not have, by their names.
    fn refuse_features(&self, names: &[u8]) -> Result<()> {
        let mut left =
            self.incompatible & !(INCOMPATIBLE_DIRTY | INCOMPATIBLE_CORRUPT | INCOMPATIBLE_COMPRESSION);
        if left == 0 {
            return Ok(());
        }
        let mut found = Vec::new();
        let (entries, _) = names.as_chunks::<48>();
        for entry in entries {
            let [kind, bit, name @ ..] = entry;
            let mask = 1u64.checked_shl(u32::from(*bit)).unwrap_or(0);
            if *kind == 0 && left & mask != 0 {
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                found.push(String::from_utf8_lossy(name).into_owned());
                left &= !mask;
            }
        }
        for (mask, name) in [
            (INCOMPATIBLE_DATA_FILE, "external data file"),
            (INCOMPATIBLE_EXTENDED_L2, "extended L2 entries"),
        ] {
            if left & mask != 0 {
                found.push(name.to_owned());
                left &= !mask;
            }
        }
        if left != 0 {
            found.push(format!("Unknown incompatible feature: {left:x}"));
        }
        Err(refuse(
            ErrorKind::Unsupported,
            format!("Unsupported qcow2 feature(s): {}", found.join(", ")),
        ))
    }

    fn parse_compression(&mut self, field: Option<u8>) -> Result<()> {
        let bit = self.incompatible & INCOMPATIBLE_COMPRESSION != 0;
        self.compression = match field.unwrap_or(0) {
            0 => Compression::Zlib,
            1 => Compression::Zstd,
            other => {
                return Err(refuse(
                    ErrorKind::Unsupported,
                    format!("qcow2: unknown compression type: {other}"),
                ));
            }
        };
        match (self.compression, bit) {
            (Compression::Zlib, true) => Err(invalid(
                "qcow2: Compression type incompatible feature bit must not be set",
            )),
            (Compression::Zstd, false) => Err(invalid(
                "qcow2: Compression type incompatible feature bit must be set",
            )),
            _ => Ok(()),
        }
    }

    /// The bytes of the header with all that belongs to it, at most a cluster.
    ///
    /// Whatever changes in an image's life (feature bits, tables, bitmaps) stands before what is optional, so that it
    /// lies in the first sector, which is written whole or not at all.
    pub(super) fn encode(&mut self) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(SECTOR);
        let put32 = |out: &mut Vec<u8>, value: u32| out.extend_from_slice(&value.to_be_bytes());
        let put64 = |out: &mut Vec<u8>, value: u64| out.extend_from_slice(&value.to_be_bytes());
        put32(&mut out, MAGIC);
        put32(&mut out, self.version);
        put64(&mut out, 0);
        put32(&mut out, 0);
        put32(&mut out, self.cluster_bits);
        put64(&mut out, self.size);
        put32(&mut out, 0);
        put32(&mut out, self.l1_size);
        put64(&mut out, self.l1_offset);
        put64(&mut out, self.reftable_offset);
        put32(&mut out, self.reftable_clusters);
        put32(&mut out, self.snapshot_count);
        put64(&mut out, self.snapshots_offset);
        if self.version >= 3 {
            put64(&mut out, self.incompatible);
            put64(&mut out, self.compatible);
            put64(&mut out, self.autoclear);
            put32(&mut out, self.refcount_order);
            let with_more = self.compression != Compression::Zlib || !self.more_fields.is_empty();
            let fields = if with_more {
                105 + self.more_fields.len()
            } else {
                104
            };
            let header_length = fields.next_multiple_of(8);
            put32(
                &mut out,
                u32::try_from(header_length).map_err(|_| invalid("qcow2 header exceeds cluster size"))?,
            );
            if with_more {
                out.push(if self.compression == Compression::Zstd {
                    1
                } else {
                    0
                });
                out.extend_from_slice(&self.more_fields);
            }
            out.resize(header_length, 0);
        }
        if let Some(format) = &self.backing_format {
            extension(&mut out, EXTENSION_BACKING_FORMAT, format.as_bytes())?;
        }
        if let Some(bitmaps) = &self.bitmaps {
            let mut body = Vec::with_capacity(24);
            put32(&mut body, bitmaps.count);
            put32(&mut body, 0);
            put64(&mut body, bitmaps.directory_bytes);
            put64(&mut body, bitmaps.directory_offset);
            extension(&mut out, EXTENSION_BITMAPS, &body)?;
        }
        for (kind, body) in &self.unknown_extensions {
            extension(&mut out, *kind, body)?;
        }
        let cluster = 1usize << self.cluster_bits;
        let name = self.backing_file.as_deref().unwrap_or_default().as_bytes();
        if self.version >= 3 {
            // The name table is optional: it gets the room that is left in the first sector.
            let taken = out.len() + 16 + if cluster == SECTOR { name.len() } else { 0 };
            self.feature_names(&mut out, SECTOR.saturating_sub(taken) / 48)?;
        }
        out.extend_from_slice(&[0; 8]);
        if out.len() > cluster {
            return Err(refuse(ErrorKind::Invalid, "Header extension too large"));
        }
        if self.backing_file.is_some() {
            let fits = |at: usize| at >= out.len() && at + name.len() <= cluster;
            let old = to_usize(self.backing_offset)?;
            // Until the first sector switches over, the old place must keep the name.
            let beside_old = (old + name.len()).next_multiple_of(8).max(SECTOR);
            let at = if self.backing_offset != 0 && fits(old) {
                old
            } else if self.backing_offset != 0 && fits(beside_old) {
                beside_old
            } else if fits(SECTOR) {
                SECTOR
            } else {
                out.len()
            };
            if !fits(at) || name.len() > to_usize(u64::from(MAX_BACKING_NAME))? {
                return Err(invalid("Backing file name too long"));
            }
            out.resize(at, 0);
            out.extend_from_slice(name);
            self.backing_offset = to_u64(at);
            let (offset, len) = (
                self.backing_offset.to_be_bytes(),
                to_u64(name.len()).to_be_bytes(),
            );
            for (place, byte) in out
                .iter_mut()
                .skip(8)
                .zip(offset.iter().chain(len.iter().skip(4)))
            {
                *place = *byte;
            }
        } else {
            self.backing_offset = 0;
        }
        Ok(out)
    }

    fn feature_names(&self, out: &mut Vec<u8>, room: usize) -> Result<()> {
        let sets = [self.incompatible, self.compatible, self.autoclear];
        let in_use = |(set, bit, _): &(u8, u8, &str)| {
            sets.get(usize::from(*set))
                .is_some_and(|bits| bits & (1 << *bit) != 0)
        };
        let (used, unused): (Vec<_>, Vec<_>) = FEATURE_NAMES.iter().partition(|feature| in_use(feature));
        let mut body = Vec::new();
        for (set, bit, name) in used.into_iter().chain(unused).take(room) {
            let start = body.len();
            body.extend_from_slice(&[set, bit]);
            body.extend_from_slice(name.as_bytes());
            body.resize(start + 48, 0);
        }
        if body.is_empty() {
            Ok(())
        } else {
            extension(out, EXTENSION_FEATURE_NAMES, &body)
        }
    }

    pub(super) fn has(&self, incompatible: u64) -> bool {
        self.incompatible & incompatible != 0
    }
}

fn extension(out: &mut Vec<u8>, kind: u32, body: &[u8]) -> Result<()> {
    let len = u32::try_from(body.len()).map_err(|_| invalid("Header extension too large"))?;
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(body);
    out.resize(out.len().next_multiple_of(8), 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        let mut header = Header::new(NewHeader {
            version: 3,
            cluster_bits: 16,
            size: 10 << 20,
            refcount_order: 4,
            compression: Compression::Zstd,
            lazy_refcounts: true,
            backing_file: Some("base.qcow2".into()),
            backing_format: Some("qcow2".into()),
        });
        header.l1_size = 1;
        header.l1_offset = 0x3_0000;
        header.reftable_offset = 0x1_0000;
        header.reftable_clusters = 1;
        header
    }

    #[test]
    fn survives_a_round_trip() {
        let mut header = sample();
        header.bitmaps = Some(BitmapsExtension {
            count: 2,
            directory_bytes: 64,
            directory_offset: 0x5_0000,
        });
        header.autoclear = AUTOCLEAR_BITMAPS;
        header.unknown_extensions.push((0x1234, b"keep me".to_vec()));
        let bytes = header.encode().unwrap();
        assert_eq!(Header::parse(&bytes).unwrap(), header);
    }

    #[test]
    fn what_changes_stays_in_the_first_sector() {
        let mut header = sample();
        let without = header.encode().unwrap();
        header.bitmaps = Some(BitmapsExtension {
            count: 1,
            directory_bytes: 32,
            directory_offset: 0x5_0000,
        });
        let with = header.encode().unwrap();
        assert_eq!(without[SECTOR..], with[SECTOR..]);
    }

    #[test]
    fn unsupported_features_are_refused_by_name() {
        let text = |incompatible| {
            let mut header = sample();
            header.incompatible |= incompatible;
            Header::parse(&header.encode().unwrap()).unwrap_err().to_string()
        };
        assert_eq!(text(1 << 2), "Unsupported qcow2 feature(s): external data file");
        assert_eq!(text(1 << 4), "Unsupported qcow2 feature(s): extended L2 entries");
        assert_eq!(
            text(1 << 40),
            "Unsupported qcow2 feature(s): Unknown incompatible feature: 10000000000"
        );
    }

    #[test]
    fn any_prefix_is_an_error_or_a_header() {
        let bytes = sample().encode().unwrap();
        for len in 0..bytes.len() {
            let _ = Header::parse(&bytes[..len]);
        }
    }
}
