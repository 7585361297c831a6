//! Entries of L1 and L2 tables: what the 64 bits say.
//!
//! Knows the bits and the geometry they depend on; nothing of caches or files.

/// The entry's cluster has a refcount of exactly one, so that it may be written in place.
pub(super) const COPIED: u64 = 1 << 63;
/// The L2 entry describes a compressed cluster.
const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeroes.
pub(super) const ZERO: u64 = 1;
/// Bits 9 to 55: a host offset.
pub(super) const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// Host offsets end here: what 56 bits hold.
pub(super) const MAX_HOST_OFFSET: u64 = 1 << 56;

/// The sizes that an image is built of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Log2 of the cluster size.
    pub(super) cluster_bits: u32,
    /// Log2 of the refcount width in bits.
    pub(super) refcount_order: u32,
    /// 2 or 3.
    pub(super) version: u32,
    /// Log2 of the entries in one cached part of an L2 table.
    pub(super) slice_bits: u32,
}

impl Geometry {
    /// Cluster size in bytes.
    pub(super) fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Cluster size as a length of buffers.
    pub(super) fn cluster_len(&self) -> usize {
        1 << self.cluster_bits
    }

    /// Log2 of the entries of an L2 table.
    pub(super) fn l2_bits(&self) -> u32 {
        self.cluster_bits - 3
    }

    /// Entries of one cached part of an L2 table.
    pub(super) fn slice_entries(&self) -> u64 {
        1 << self.slice_bits
    }

    /// Bytes of one cached part of an L2 table.
    pub(super) fn slice_bytes(&self) -> usize {
        8 << self.slice_bits
    }

    /// Guest bytes that one L2 table maps.
    pub(super) fn l2_coverage(&self) -> u64 {
        1 << (self.cluster_bits + self.l2_bits())
    }

    /// The largest refcount.
    pub(super) fn refcount_max(&self) -> u64 {
        if self.refcount_order >= 6 {
            u64::MAX >> 1
        } else {
            (1 << (1 << self.refcount_order)) - 1
        }
    }

    /// Log2 of the refcounts in one refcount block.
    pub(super) fn refblock_bits(&self) -> u32 {
        self.cluster_bits + 3 - self.refcount_order
    }

    /// Offset inside a cluster.
    pub(super) fn in_cluster(&self, offset: u64) -> u64 {
        offset & (self.cluster() - 1)
    }

    /// Whole clusters that `bytes` take.
    pub(super) fn clusters(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster())
    }

    /// L1 entries that a disk of `size` bytes needs.
    pub(super) fn l1_entries(&self, size: u64) -> u64 {
        size.div_ceil(self.l2_coverage())
    }

    fn compressed_shift(&self) -> u32 {
        62 - (self.cluster_bits - 8)
    }

    /// One more than the largest host offset that a compressed entry can hold.
    pub(super) fn compressed_limit(&self) -> u64 {
        (1u64 << self.compressed_shift()).min(MAX_HOST_OFFSET)
    }
}

/// What an L2 entry says of its guest cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mapping {
    /// Nothing here: the backing node's content, or zeroes.
    Unallocated,
    /// Reads as zeroes; a host cluster may be kept for it.
    Zero {
        /// The kept host cluster.
        host: Option<u64>,
        /// It belongs to this table alone.
        copied: bool,
    },
    /// A plain cluster.
    Data {
        /// Where.
        host: u64,
        /// It belongs to this table alone.
        copied: bool,
    },
    /// A compressed cluster.
    Compressed(Compressed),
}

/// Where a compressed cluster lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Compressed {
    /// Its first byte.
    pub(super) host: u64,
    /// How many bytes it may take: up to the end of its last sector.
    pub(super) len: u64,
}

/// An entry that cannot be: why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadEntry {
    /// The host offset is not aligned to a cluster.
    Unaligned(u64),
    /// The zero bit in a version 2 image.
    ZeroInV2,
}

impl Mapping {
    /// Reads an entry.
    pub(super) fn decode(geometry: &Geometry, raw: u64) -> Result<Self, BadEntry> {
        if raw & COMPRESSED != 0 {
            let shift = geometry.compressed_shift();
            let host = raw & ((1 << shift) - 1) & (MAX_HOST_OFFSET - 1);
            let sectors = ((raw & (COMPRESSED - 1)) >> shift) + 1;
            return Ok(Mapping::Compressed(Compressed {
                host,
                len: sectors * 512 - (host & 511),
            }));
        }
        let host = raw & OFFSET_MASK;
        let copied = raw & COPIED != 0;
        if geometry.in_cluster(host) != 0 {
            return Err(BadEntry::Unaligned(host));
        }
        if raw & ZERO != 0 {
            if geometry.version < 3 {
                return Err(BadEntry::ZeroInV2);
            }
            Ok(Mapping::Zero {
                host: (host != 0).then_some(host),
                copied: copied && host != 0,
            })
        } else if host != 0 {
            Ok(Mapping::Data { host, copied })
        } else {
            Ok(Mapping::Unallocated)
        }
    }

    /// The entry's bits.
    pub(super) fn encode(self, geometry: &Geometry) -> u64 {
        let flag = |copied| if copied { COPIED } else { 0 };
        match self {
            Mapping::Unallocated => 0,
            Mapping::Zero { host, copied } => ZERO | host.map_or(0, |host| host | flag(copied)),
            Mapping::Data { host, copied } => host | flag(copied),
            Mapping::Compressed(at) => {
                let sectors = (at.host & 511).saturating_add(at.len).div_ceil(512).max(1) - 1;
                COMPRESSED | sectors << geometry.compressed_shift() | at.host
            }
        }
    }
}

impl Compressed {
    /// The host clusters that it touches: the first and how many.
    pub(super) fn host_clusters(&self, geometry: &Geometry) -> (u64, u64) {
        let first = self.host >> geometry.cluster_bits;
        let last = (self.host + self.len - 1) >> geometry.cluster_bits;
        (first, last - first + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(cluster_bits: u32) -> Geometry {
        Geometry {
            cluster_bits,
            refcount_order: 4,
            version: 3,
            slice_bits: cluster_bits.min(12) - 3,
        }
    }

    #[test]
    fn entries_survive_a_round_trip() {
        for bits in [9, 12, 16, 21] {
            let g = geometry(bits);
            let host = 5 << bits;
            for mapping in [
                Mapping::Unallocated,
                Mapping::Zero {
                    host: None,
                    copied: false,
                },
                Mapping::Zero {
                    host: Some(host),
                    copied: true,
                },
                Mapping::Data { host, copied: false },
                Mapping::Data { host, copied: true },
                Mapping::Compressed(Compressed {
                    host: host + 77,
                    len: 512 - 77,
                }),
                Mapping::Compressed(Compressed {
                    host,
                    len: g.cluster(),
                }),
            ] {
                assert_eq!(
                    Mapping::decode(&g, mapping.encode(&g)),
                    Ok(mapping),
                    "cluster bits {bits}"
                );
            }
        }
    }

    #[test]
    fn bad_entries_are_named() {
        let mut g = geometry(16);
        assert_eq!(Mapping::decode(&g, 0x1_0200), Err(BadEntry::Unaligned(0x1_0200)));
        g.version = 2;
        assert_eq!(Mapping::decode(&g, 1), Err(BadEntry::ZeroInV2));
    }
}
