//! Making a new image: the smallest one that is valid, opened and grown to its size.

use std::sync::Arc;

use super::header::{Compression, Header, NewHeader};
use super::storage::Storage;
use super::{BlockError, ErrorKind, OpenOptions, Qcow2, Result, refcount};
use crate::driver::{Driver, Preallocation, WriteFlags};
use crate::types::MAX_LENGTH_BYTES;

/// What a new image is to be.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// Length of the disk in bytes.
    pub size: u64,
    /// Format version, 2 or 3.
    pub version: u32,
    /// Cluster size in bytes.
    pub cluster_bytes: u64,
    /// Width of a refcount in bits.
    pub refcount_bits: u64,
    /// Name of the backing file.
    pub backing_file: Option<String>,
    /// Format of the backing file.
    pub backing_format: Option<String>,
    /// What is allocated up front.
    pub preallocation: Preallocation,
    /// Refcounts are written late.
    pub lazy_refcounts: bool,
    /// How compressed clusters are compressed.
    pub compression: Compression,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            size: 0,
            version: 3,
            cluster_bytes: 65536,
            refcount_bits: 16,
            backing_file: None,
            backing_format: None,
            preallocation: Preallocation::Off,
            lazy_refcounts: false,
            compression: Compression::Zlib,
        }
    }
}

fn invalid(message: impl Into<String>) -> BlockError {
    BlockError::new(ErrorKind::Invalid, message)
}

impl CreateOptions {
    /// Whether the options go together.
    pub fn check(&self) -> Result<()> {
        let v3 = self.version >= 3;
        if !self.size.is_multiple_of(512) {
            return Err(invalid("Image size must be a multiple of 512 bytes"));
        }
        if !self.cluster_bytes.is_power_of_two() || !(512..=2 << 20).contains(&self.cluster_bytes) {
            return Err(invalid(
                "Cluster size must be a power of two between 512 and 2048k",
            ));
        }
        if self.preallocation != Preallocation::Off && self.backing_file.is_some() {
            return Err(invalid(
                "Backing file and preallocation can only be used at the same time if extended_l2 is on",
            ));
        }
        if self.backing_format.is_some() && self.backing_file.is_none() {
            return Err(invalid("Backing format cannot be used without backing file"));
        }
        if self.lazy_refcounts && !v3 {
            return Err(invalid(
                "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)",
            ));
        }
        if !self.refcount_bits.is_power_of_two() || self.refcount_bits > 64 {
            return Err(invalid(
                "Refcount width must be a power of two and may not exceed 64 bits",
            ));
        }
        if self.refcount_bits != 16 && !v3 {
            return Err(invalid(
                "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or \
                 greater)",
            ));
        }
        if self.compression != Compression::Zlib && !v3 {
            return Err(invalid(
                "Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 \
                 or greater)",
            ));
        }
        if self.backing_file.as_ref().is_some_and(|name| name.len() > 1023) {
            return Err(invalid("Backing file name too long"));
        }
        Ok(())
    }
}

/// Makes an image in `file`, whatever was there before.
pub async fn create(file: Arc<dyn Storage>, options: &CreateOptions) -> Result<()> {
    options.check()?;
    let cluster_bits = options.cluster_bytes.trailing_zeros();
    let mut header = Header::new(NewHeader {
        version: options.version,
        cluster_bits,
        size: 0,
        refcount_order: options.refcount_bits.trailing_zeros(),
        compression: options.compression,
        lazy_refcounts: options.lazy_refcounts,
        backing_file: options.backing_file.clone(),
        backing_format: options.backing_format.clone(),
    });
    // Cluster 0 is the header's, 1 the refcount table's, 2 the first refcount block's.
    header.reftable_offset = options.cluster_bytes;
    header.reftable_clusters = 1;
    let cluster = 1usize << cluster_bits;
    let mut start = header.encode()?;
    start.resize(cluster, 0);
    let mut table = vec![0u8; cluster];
    for (place, byte) in table.iter_mut().zip((2 * options.cluster_bytes).to_be_bytes()) {
        *place = byte;
    }
    let mut block = vec![0u8; cluster];
    for index in 0..3 {
        refcount::set(&mut block, index, header.refcount_order, 1);
    }
    start.extend_from_slice(&table);
    start.extend_from_slice(&block);
    // Old content must not show through in what is taken to be new space.
    file.truncate(0, Preallocation::Off).await.or_else(|error| {
        // A device keeps its length.
        if file.grows_zeroed() { Err(error) } else { Ok(()) }
    })?;
    file.write(0, &start, WriteFlags::default())
        .await
        .map_err(|error| error.context("Could not write qcow2 header"))?;
    file.flush().await?;
    let image = Qcow2::open(file, OpenOptions::default()).await?;
    let grown = if options.size > MAX_LENGTH_BYTES {
        Err(invalid(format!(
            "offset({}) exceeds maximum({MAX_LENGTH_BYTES})",
            options.size
        )))
    } else {
        image.truncate(options.size, options.preallocation).await
    };
    let closed = image.close().await;
    grown
        .map_err(|error| error.context("Could not resize image"))
        .and(closed)
}
