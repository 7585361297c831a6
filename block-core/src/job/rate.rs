//! The speed limit of a job: a budget for each slice of 100 ms.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock;

/// How long a slice is.
pub const SLICE: Duration = Duration::from_millis(100);

/// A budget of bytes for each slice. A request may overrun it; the next one then waits until the debt is paid.
#[derive(Debug)]
pub struct RateLimit {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Bytes a second; 0 is no limit.
    speed: u64,
    slice_start: Instant,
    used: u64,
}

impl RateLimit {
    /// A limit in bytes a second; 0 is none.
    pub fn new(speed: u64) -> Self {
        Self {
            state: Mutex::new(State {
                speed,
                slice_start: Instant::now(),
                used: 0,
            }),
        }
    }

    /// Changes the limit; what was used before is forgiven.
    pub fn set_speed(&self, speed: u64) {
        let mut state = lock(&self.state);
        if state.speed != speed {
            *state = State {
                speed,
                slice_start: Instant::now(),
                used: 0,
            };
        }
    }

    /// Counts bytes that are about to be copied.
    pub fn take(&self, bytes: u64) {
        let mut state = lock(&self.state);
        if state.speed > 0 {
            state.settle();
            state.used = state.used.saturating_add(bytes);
        }
    }

    /// How long to wait before the next request.
    pub fn delay(&self) -> Option<Duration> {
        let mut state = lock(&self.state);
        if state.speed == 0 {
            return None;
        }
        state.settle();
        let quota = state.quota();
        if state.used < quota {
            return None;
        }
        // The debt is paid slice by slice.
        let slices = u32::try_from(state.used / quota).unwrap_or(u32::MAX);
        let due = SLICE.checked_mul(slices).unwrap_or(Duration::from_secs(3600));
        Some(
            due.saturating_sub(state.slice_start.elapsed())
                .max(Duration::from_millis(1)),
        )
    }
}

impl State {
    fn quota(&self) -> u64 {
        (self.speed / 10).max(1)
    }

    /// Moves on to the current slice.
    fn settle(&mut self) {
        let passed = self.slice_start.elapsed().as_nanos() / SLICE.as_nanos();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        if passed > 0 {
            let paid = self.quota().saturating_mul(passed);
            self.used = self.used.saturating_sub(paid);
            self.slice_start = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn keeps_to_the_speed() {
        let limit = RateLimit::new(1 << 20);
        let start = Instant::now();
        let mut copied = 0u64;
        while start.elapsed() < Duration::from_secs(10) {
            match limit.delay() {
                Some(delay) => tokio::time::sleep(delay).await,
                None => {
                    limit.take(65536);
                    copied += 65536;
                }
            }
        }
        let ratio = copied as f64 / f64::from(10 << 20);
        assert!((0.9..1.1).contains(&ratio), "{ratio}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_overrun_is_paid_and_a_new_speed_forgives() {
        let limit = RateLimit::new(65536);
        assert_eq!(limit.delay(), None);
        limit.take(1 << 20);
        assert!(limit.delay().unwrap() > Duration::from_secs(15));
        limit.set_speed(0);
        assert_eq!(limit.delay(), None);
    }
}
