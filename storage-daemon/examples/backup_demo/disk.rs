//! A disk as the guest knows it: written through NBD, with a model of what it must hold.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Result, ensure};

use crate::nbd::Nbd;

/// Largest write of the writer.
const MAX_WRITE_BYTES: usize = 64 << 10;
/// Unit of the first fill and of reading back.
const CHUNK_BYTES: usize = 1 << 20;

/// A disk.
pub struct Disk {
    name: &'static str,
    socket: PathBuf,
    /// What the disk holds. A write holds it until the server has acknowledged.
    model: Arc<Mutex<Vec<u8>>>,
    /// What it held when the last backup was started.
    moment: Mutex<Vec<u8>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk {
    /// The disk behind the export of that name, empty.
    pub fn new(name: &'static str, socket: &Path, bytes: usize) -> Result<Self> {
        Ok(Self {
            name,
            socket: socket.to_owned(),
            model: Arc::new(Mutex::new(vec![0; bytes])),
            moment: Mutex::default(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Writes most of it; every fourth part stays a hole.
    pub fn fill(&self) -> Result<()> {
        let mut nbd = Nbd::connect(&self.socket, self.name)?;
        let mut random = Random::new(self.name);
        let mut model = lock(&self.model);
        let mut offset = 0;
        for (index, chunk) in model.chunks_mut(CHUNK_BYTES).enumerate() {
            if index % 4 != 3 {
                random.fill(chunk);
                nbd.write(offset, chunk)?;
            }
            offset += u64::try_from(chunk.len())?;
        }
        Ok(())
    }

    /// Keeps everybody from writing.
    pub fn hold(&self) -> MutexGuard<'_, Vec<u8>> {
        lock(&self.model)
    }

    /// Remembers what the disk holds, and lets writers go on.
    #[expect(clippy::needless_pass_by_value, reason = "the lock ends here")]
    pub fn remember(&self, held: MutexGuard<'_, Vec<u8>>) {
        lock(&self.moment).clone_from(&held);
    }

    /// What it held when the last backup was started.
    pub fn take_moment(&self) -> Vec<u8> {
        lock(&self.moment).clone()
    }

    /// Reads an export and compares it with the remembered moment; how many bytes were compared.
    pub fn compare(&self, socket: &Path, export: &str) -> Result<usize> {
        let mut nbd = Nbd::connect(socket, export)?;
        let moment = lock(&self.moment);
        let mut found = vec![0; CHUNK_BYTES];
        let mut offset = 0;
        for expected in moment.chunks(CHUNK_BYTES) {
            let Some(found) = found.get_mut(..expected.len()) else {
                continue;
            };
            nbd.read(offset, found)?;
            if found != expected {
                let at = found
                    .iter()
                    .zip(expected)
                    .take_while(|(found, expected)| found == expected)
                    .count();
                ensure!(
                    false,
                    "{export} differs from its disk at byte {}",
                    offset + u64::try_from(at)?
                );
            }
            offset += u64::try_from(expected.len())?;
        }
        Ok(moment.len())
    }
}

/// Writes to a disk until it is stopped.
pub struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Writer {
    /// Begins to write random data at random places.
    pub fn start(disk: &Disk) -> Result<Self> {
        let mut nbd = Nbd::connect(&disk.socket, disk.name)?;
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let (stopped, count, model) = (Arc::clone(&stop), Arc::clone(&written), Arc::clone(&disk.model));
        let mut random = Random::new(disk.name);
        let thread = std::thread::spawn(move || {
            let mut data = vec![0; MAX_WRITE_BYTES];
            while !stopped.load(Ordering::Relaxed) {
                let mut model = lock(&model);
                let length = random.below(MAX_WRITE_BYTES) + 1;
                // The first half only: what is written there is dirty, the rest must come from the full backup.
                let at = random.below(model.len() / 2 - length);
                if let (Some(place), Some(data)) = (model.get_mut(at..at + length), data.get_mut(..length)) {
                    random.fill(data);
                    nbd.write(u64::try_from(at)?, data)?;
                    place.copy_from_slice(data);
                }
                drop(model);
                count.fetch_add(u64::try_from(length)?, Ordering::Relaxed);
                // Lets whoever waits to hold the disk have it.
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
            Ok(())
        });
        Ok(Self {
            stop,
            written,
            thread,
        })
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Stops; how many bytes were written.
    pub fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(result) => result?,
            Err(_) => anyhow::bail!("a writer panicked"),
        }
        Ok(self.written.load(Ordering::Relaxed))
    }
}

/// A small generator of numbers that look random (xorshift); the same for each run.
struct Random(u64);

impl Random {
    fn new(seed: &str) -> Self {
        Self(seed.bytes().fold(0x9E37_79B9_7F4A_7C15, |state, byte| {
            state.rotate_left(8) ^ u64::from(byte)
        }))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap_or(0) % limit.max(1)
    }

    fn fill(&mut self, data: &mut [u8]) {
        for place in data.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            for (to, from) in place.iter_mut().zip(bytes) {
                *to = from;
            }
        }
    }
}
