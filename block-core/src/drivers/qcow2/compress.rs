//! Compressed clusters: the two methods, reading and writing.

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress};
use zstd::stream::raw::{InBuffer, Operation, OutBuffer};

use super::bytes::{to_u64, to_usize};
use super::entry::Compressed;
use super::header::Compression;
use super::io::Hold;
use super::{BlockError, Qcow2, Result};
use crate::driver::WriteFlags;
use crate::sync::lock;

/// The deflate window that every reader of the format has.
const WINDOW_BITS: u8 = 12;

fn broken() -> BlockError {
    BlockError::from_errno(5, "Input/output error")
}

/// Unpacks one cluster; `packed` may go on behind its end.
pub(super) fn unpack(method: Compression, packed: &[u8], cluster: &mut [u8]) -> Result<()> {
    match method {
        Compression::Zlib => {
            let mut inflate = Decompress::new(false);
            // The stream may end exactly with the cluster or have been cut by it: only the bytes count.
            let _ = inflate.decompress(packed, cluster, FlushDecompress::Finish);
            if inflate.total_out() == to_u64(cluster.len()) {
                Ok(())
            } else {
                Err(broken())
            }
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::raw::Decoder::new().map_err(|_| broken())?;
            let mut input = InBuffer::around(packed);
            let len = cluster.len();
            let mut output = OutBuffer::around(cluster);
            while output.pos() < len {
                let before = (input.pos(), output.pos());
                decoder.run(&mut input, &mut output).map_err(|_| broken())?;
                if before == (input.pos(), output.pos()) {
                    return Err(broken());
                }
            }
            Ok(())
        }
    }
}

/// Packs one cluster; `None`: it does not become smaller.
pub(super) fn pack(method: Compression, cluster: &[u8]) -> Option<Vec<u8>> {
    let mut packed = vec![0u8; cluster.len() - 1];
    let len = match method {
        Compression::Zlib => {
            let mut deflate =
                Compress::new_with_window_bits(flate2::Compression::default(), false, WINDOW_BITS);
            let status = deflate
                .compress(cluster, &mut packed, FlushCompress::Finish)
                .ok()?;
            if status != flate2::Status::StreamEnd {
                return None;
            }
            usize::try_from(deflate.total_out()).ok()?
        }
        Compression::Zstd => zstd::bulk::compress_to_buffer(cluster, &mut packed, 0).ok()?,
    };
    packed.truncate(len);
    Some(packed)
}

/// Runs work that keeps a processor busy where it does not hold up others.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(handle) => handle
            .spawn_blocking(work)
            .await
            .map_err(|_| BlockError::from_errno(125, "Operation canceled")),
        Err(_) => Ok(work()),
    }
}

impl Qcow2 {
    /// Reads part of a compressed cluster.
    pub(super) async fn read_compressed(&self, at: Compressed, offset: u64, buf: &mut [u8]) -> Result<()> {
        let (geometry, method) = {
            let meta = lock(&self.meta);
            (meta.geometry, meta.header.compression)
        };
        // The entry's sectors may say more than can be needed.
        let mut packed = vec![0u8; to_usize(at.len.min(2 * geometry.cluster()))?];
        self.file.event("read_compressed");
        self.read_file(at.host, &mut packed).await?;
        let len = geometry.cluster_len();
        let cluster = aside(move || {
            let mut cluster = vec![0u8; len];
            unpack(method, &packed, &mut cluster).map(|()| cluster)
        })
        .await??;
        let start = to_usize(geometry.in_cluster(offset))?;
        let part = cluster.get(start..start + buf.len()).ok_or_else(broken)?;
        buf.copy_from_slice(part);
        Ok(())
    }

    /// Writes whole clusters compressed; the last one may end with the disk.
    pub(super) async fn write_compressed(&self, offset: u64, buf: &[u8], flags: WriteFlags) -> Result<()> {
        self.check_writable()?;
        let (cluster, cluster_len, method) = {
            let meta = lock(&self.meta);
            (
                meta.geometry.cluster(),
                meta.geometry.cluster_len(),
                meta.header.compression,
            )
        };
        let end = offset + to_u64(buf.len());
        let disk_end = self.length.load(std::sync::atomic::Ordering::Acquire);
        if !offset.is_multiple_of(cluster) || (!end.is_multiple_of(cluster) && end != disk_end) {
            return Err(BlockError::from_errno(22, "Invalid argument"));
        }
        let _busy = self.begin().await?;
        let mut at = offset;
        for part in buf.chunks(cluster_len) {
            let mut plain = part.to_vec();
            plain.resize(cluster_len, 0);
            let packed = aside(move || pack(method, &plain)).await?;
            match packed {
                None => self.write_inside(at, part, flags).await?,
                Some(mut packed) => {
                    let bytes = to_u64(packed.len());
                    self.file.event("write_compressed");
                    let allocation = self
                        .step(|meta| meta.plan_compressed(at / cluster, bytes))
                        .await?;
                    let host = allocation.host;
                    let hold = Hold::new(self, allocation);
                    // Whole sectors, so that no other compressed cluster shares one with this write.
                    packed.resize(packed.len().next_multiple_of(512), 0);
                    self.file.write(host, &packed, WriteFlags::default()).await?;
                    hold.commit().await?;
                }
            }
            at += cluster;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_unpacks() {
        let cluster: Vec<u8> = (0..65536u32).map(|i| (i / 100).to_le_bytes()[0]).collect();
        for method in [Compression::Zlib, Compression::Zstd] {
            let mut packed = pack(method, &cluster).unwrap();
            assert!(packed.len() < cluster.len() / 2);
            packed.extend_from_slice(&[7; 300]);
            let mut out = vec![0u8; cluster.len()];
            unpack(method, &packed, &mut out).unwrap();
            assert_eq!(out, cluster);
            packed.truncate(20);
            assert!(unpack(method, &packed, &mut out).is_err());
        }
    }

    #[test]
    fn noise_is_not_packed() {
        let mut state = 1u64;
        let cluster: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .take(4096)
        .collect();
        for method in [Compression::Zlib, Compression::Zstd] {
            assert!(pack(method, &cluster).is_none());
        }
    }
}
