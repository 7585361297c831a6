//! The speed limit of a job: a budget for each slice of 100 ms, spent evenly where it is more than one request.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock;

/// How long a slice is.
pub const SLICE: Duration = Duration::from_millis(100);
/// The shortest request that an even pace asks for.
const EVEN_LEAST_BYTES: u64 = 128 << 10;
/// Requests a second at an even pace, about: a timer's tick is a millisecond.
const EVEN_REQUESTS: u64 = 256;
/// How far ahead of an even pace is still even.
const EVEN_AHEAD: Duration = Duration::from_millis(1);

/// A budget of bytes for each slice. A request may overrun it; the next one then waits until the debt is paid.
///
/// A budget of several requests is not spent at once: a guest beside the job would wait for the whole burst.
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
    /// The budget holds several requests, which come one after the other.
    even: bool,
}

impl RateLimit {
    /// A limit in bytes a second; 0 is none.
    pub fn new(speed: u64) -> Self {
        Self {
            state: Mutex::new(State {
                speed,
                slice_start: Instant::now(),
                used: 0,
                even: false,
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
                even: false,
            };
        }
    }

    /// How long a request may be, when it could be this long.
    pub fn request_bytes(&self, longest: u64) -> u64 {
        let mut state = lock(&self.state);
        state.even = state.speed > 0 && state.quota() > longest;
        if state.even {
            let even = (state.speed / EVEN_REQUESTS).max(1).next_power_of_two();
            even.max(EVEN_LEAST_BYTES).min(longest)
        } else {
            longest
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
            let (elapsed, used) = (state.slice_start.elapsed(), state.used);
            let due = Duration::from_nanos(
                u64::try_from(SLICE.as_nanos() * u128::from(used) / u128::from(quota)).unwrap_or(u64::MAX),
            );
            return due
                .checked_sub(elapsed + EVEN_AHEAD)
                .filter(|_| state.even)
                .map(|early| early + EVEN_AHEAD);
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
            let slices = u32::try_from(passed)
                .ok()
                .and_then(|passed| SLICE.checked_mul(passed));
            self.slice_start = slices
                .and_then(|slices| self.slice_start.checked_add(slices))
                .unwrap_or_else(Instant::now);
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
    async fn a_large_budget_is_spent_evenly() {
        let limit = RateLimit::new(32 << 20);
        let start = Instant::now();
        let (mut copied, mut most) = (0u64, 0u64);
        for tick in 1..=2000u32 {
            // What is copied between two ticks of 5 ms.
            let before = copied;
            while start.elapsed() < Duration::from_millis(5) * tick {
                match limit.delay() {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => {
                        let bytes = limit.request_bytes(1 << 20);
                        limit.take(bytes);
                        copied += bytes;
                    }
                }
            }
            most = most.max(copied - before);
        }
        let ratio = copied as f64 / f64::from(320 << 20);
        assert!((0.95..1.05).contains(&ratio), "{ratio}");
        assert!(most <= 512 << 10, "{most}");
        // A budget of less than one request is one request and then a wait, as ever.
        limit.set_speed(1 << 20);
        assert_eq!(limit.request_bytes(1 << 20), 1 << 20);
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
