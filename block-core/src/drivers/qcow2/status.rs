//! What lies where: block status.

use super::meta::Source;
use super::{Qcow2, Result};
use crate::driver::BlockStatus;
use crate::sync::lock;

impl Qcow2 {
    pub(super) async fn status_at(&self, offset: u64, len: u64, want_host: bool) -> Result<BlockStatus> {
        let _busy = self.begin().await?;
        let first = self.step(|meta| meta.find(offset, len)).await?;
        let mut covered = first.len;
        // Runs that look alike go on over the edges of what one step sees. Bounded: every step covers something, and
        // an empty or zero area of a huge disk is cut short after this many steps.
        for _ in 0..64 {
            if covered >= len {
                break;
            }
            let at = offset + covered;
            let next = self.step(|meta| meta.find(at, len - covered)).await?;
            let alike = match (first.source, next.source) {
                (Source::Data(a), Source::Data(b)) => !want_host || a + covered == b,
                (Source::Zero(a), Source::Zero(b)) => a.is_some() == b.is_some(),
                (Source::Backing, Source::Backing) => true,
                (Source::Compressed(_), Source::Compressed(_)) => true,
                _ => false,
            };
            if !alike {
                break;
            }
            covered += next.len;
        }
        let status = BlockStatus {
            len: covered,
            allocated: true,
            ..BlockStatus::default()
        };
        Ok(match first.source {
            Source::Data(at) if want_host => {
                // The file knows which of it is a hole, and where the rest lies.
                let below = self.file.block_status(at, covered, true).await?;
                let len = covered.min(below.len.max(1));
                BlockStatus {
                    data: true,
                    zero: below.zero && self.is_preallocated().await,
                    host: below.host,
                    len,
                    ..status
                }
            }
            Source::Data(_) => BlockStatus { data: true, ..status },
            Source::Zero(_) => BlockStatus { zero: true, ..status },
            Source::Compressed(_) => BlockStatus {
                data: true,
                compressed: true,
                ..status
            },
            Source::Backing => {
                let backing_len = self.backing_len();
                if offset >= backing_len {
                    BlockStatus {
                        allocated: false,
                        zero: true,
                        ..status
                    }
                } else {
                    BlockStatus {
                        allocated: false,
                        len: covered.min(backing_len - offset),
                        ..status
                    }
                }
            }
        })
    }

    /// Whether many more clusters are allocated than the file takes space for: only then is it worth asking whether an
    /// allocated cluster is a hole in the file. Found out once.
    async fn is_preallocated(&self) -> bool {
        *self
            .preallocated
            .get_or_init(|| async {
                let cluster = lock(&self.meta).geometry.cluster();
                let clusters = self.file.length().div_ceil(cluster);
                let Some(taken) = self.file.info().allocated_bytes else {
                    return false;
                };
                let real = taken / cluster;
                let threshold = (real.saturating_mul(10) / 9).max(real.saturating_add(2));
                let mut allocated = 0;
                for at in 0..clusters {
                    // Even if all the rest were allocated.
                    if allocated + (clusters - at) < threshold {
                        return false;
                    }
                    match self.step(|meta| meta.refcount(at)).await {
                        Ok(0) => {}
                        Ok(_) => allocated += 1,
                        Err(_) => return false,
                    }
                    if allocated >= threshold {
                        return true;
                    }
                }
                false
            })
            .await
    }
}
