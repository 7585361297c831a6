//! The same tests for both engines.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{Buffer, Engine, Engines, Op};

/// Both engines, where both are to be had.
fn engines() -> Vec<Arc<dyn Engine>> {
    let engines = Engines::default();
    let mut both = vec![engines.threads()];
    match engines.uring() {
        Some(ring) => both.push(ring),
        None => eprintln!("SKIPPED: io_uring is not available here"),
    }
    both
}

fn file(content: &[u8]) -> Arc<OwnedFd> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    Arc::new(OwnedFd::from(file))
}

#[tokio::test]
async fn what_was_written_is_read() {
    for engine in engines() {
        let file = file(b"");
        let data: Vec<u8> = (0..100_000u32)
            .map(|at| u8::try_from(at % 251).unwrap())
            .collect();
        let op = Op::Write {
            file: Arc::clone(&file),
            offset: 1000,
            buffer: Buffer::copy_of(&data),
        };
        engine.run(op).await.result.unwrap();
        engine
            .run(Op::Sync {
                file: Arc::clone(&file),
            })
            .await
            .result
            .unwrap();
        let op = Op::Read {
            file: Arc::clone(&file),
            offset: 0,
            buffer: Buffer::new(102_000),
        };
        let buffer = engine.run(op).await.buffer.unwrap();
        assert_eq!(buffer[..1000], [0; 1000]);
        assert_eq!(buffer[1000..101_000], data[..]);
        // Beyond the end there are zeroes.
        assert_eq!(buffer[101_000..], [0; 1000]);
    }
}

#[tokio::test]
async fn errors_come_back_with_the_buffer() {
    for engine in engines() {
        let file = Arc::new(OwnedFd::from(File::open("/dev/null").unwrap()));
        let op = Op::Write {
            file,
            offset: 0,
            buffer: Buffer::copy_of(b"x"),
        };
        let outcome = engine.run(op).await;
        assert_eq!(outcome.result.unwrap_err().raw_os_error(), Some(9));
        assert_eq!(&outcome.buffer.unwrap()[..], b"x");
    }
}

#[tokio::test]
async fn more_requests_than_the_ring_holds() {
    for engine in engines() {
        let file = file(&vec![5; 1 << 20]);
        let mut receivers = Vec::new();
        for at in 0..1000u64 {
            let (reply, outcome) = tokio::sync::oneshot::channel();
            engine.submit(
                Op::Read {
                    file: Arc::clone(&file),
                    offset: at * 512,
                    buffer: Buffer::new(512),
                },
                reply,
            );
            receivers.push(outcome);
        }
        for outcome in receivers {
            let outcome = outcome.await.unwrap();
            outcome.result.unwrap();
            assert_eq!(outcome.buffer.unwrap()[..], [5; 512]);
        }
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_nothing_open() {
    for engine in engines() {
        let file = file(b"abc");
        for _ in 0..100 {
            let (reply, outcome) = tokio::sync::oneshot::channel();
            engine.submit(
                Op::Read {
                    file: Arc::clone(&file),
                    offset: 0,
                    buffer: Buffer::new(4096),
                },
                reply,
            );
            drop(outcome);
        }
        // Requests that were given up are done all the same: afterwards nobody but us holds the file.
        for _ in 0..200 {
            if Arc::strong_count(&file) == 1 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(Arc::strong_count(&file), 1, "{}", engine.name());
    }
}

#[tokio::test]
async fn calls_give_their_value_or_their_error() {
    for engine in engines() {
        assert_eq!(engine.call(|| Ok(7)).await.unwrap(), 7);
        let error = engine
            .call(|| Err::<(), _>(io::Error::from_raw_os_error(28)))
            .await
            .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(28));
    }
}

#[test]
fn buffers_suit_direct_io() {
    for len in [0, 1, 511, 4096, 70_000] {
        let buffer = Buffer::new(len);
        assert_eq!(buffer.len(), len);
        assert!(len == 0 || buffer.as_ptr().addr().is_multiple_of(4096));
    }
}
