//! The same tests for both engines, and for what is chosen where a sandbox forbids one.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{Buffer, Engine, Engines, Op};
use crate::options::AioBackend;

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

/// All that an engine must do.
async fn everything(engine: &dyn Engine) {
    what_was_written_is_read(engine).await;
    errors_come_back_with_the_buffer(engine).await;
    more_requests_than_the_ring_holds(engine).await;
    a_caller_that_goes_away_leaves_nothing_open(engine).await;
    calls_give_their_value_or_their_error(engine).await;
}

fn file(content: &[u8]) -> Arc<OwnedFd> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    Arc::new(OwnedFd::from(file))
}

async fn what_was_written_is_read(engine: &dyn Engine) {
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

async fn errors_come_back_with_the_buffer(engine: &dyn Engine) {
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

async fn more_requests_than_the_ring_holds(engine: &dyn Engine) {
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

async fn a_caller_that_goes_away_leaves_nothing_open(engine: &dyn Engine) {
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

async fn calls_give_their_value_or_their_error(engine: &dyn Engine) {
    assert_eq!(engine.call(|| Ok(7)).await.unwrap(), 7);
    let error = engine
        .call(|| Err::<(), _>(io::Error::from_raw_os_error(28)))
        .await
        .unwrap_err();
    assert_eq!(error.raw_os_error(), Some(28));
}

/// From now on this thread, and those that it starts, are refused a ring, as containers do it.
fn forbid_io_uring(errno: i32) {
    let step = |code: u32, if_not: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf: if_not,
        k,
    };
    let ring = u32::try_from(libc::SYS_io_uring_setup).unwrap();
    let errno = u32::try_from(errno).unwrap();
    let mut filter = [
        // The number of the system call is the first word of what a filter sees.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, ring),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | errno),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: both calls change this thread only; the filter is read during the call and has the length that is told.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ) == 0
    };
    assert!(done, "{}", io::Error::last_os_error());
}

#[test]
fn where_rings_are_forbidden_the_pool_does_the_work() {
    for errno in [libc::EPERM, libc::ENOSYS, libc::ENOMEM] {
        let sandbox = std::thread::spawn(move || {
            forbid_io_uring(errno);
            let refused = io_uring::IoUring::new(4)
                .err()
                .and_then(|error| error.raw_os_error());
            assert_eq!(refused, Some(errno));
            let engines = Engines::default();
            assert!(engines.uring().is_none());
            for wanted in [
                None,
                Some(AioBackend::Threads),
                Some(AioBackend::Native),
                Some(AioBackend::IoUring),
            ] {
                let engine = engines.choose(wanted);
                assert_eq!(engine.name(), "threads", "{wanted:?}");
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(everything(&*engine));
            }
        });
        sandbox.join().unwrap();
    }
}

#[tokio::test]
async fn each_engine_does_everything() {
    for engine in engines() {
        everything(&*engine).await;
    }
}

#[tokio::test]
async fn a_ring_is_taken_where_there_is_one() {
    let engines = Engines::default();
    if engines.uring().is_some() {
        assert_eq!(engines.choose(None).name(), "io_uring");
        assert_eq!(engines.choose(Some(AioBackend::IoUring)).name(), "io_uring");
        assert_eq!(engines.choose(Some(AioBackend::Threads)).name(), "threads");
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
