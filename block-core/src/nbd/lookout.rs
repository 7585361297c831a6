//! When to look out for a client's next request instead of going to sleep.
//!
//! A client that sends one request at a time waits for two wake-ups with each: its own and ours. On an otherwise idle
//! machine either takes longer than all the work of a request, so that looking at the socket for a moment longer is
//! much faster. On a busy machine it is slower: the processor is wanted elsewhere, perhaps by that very client. There
//! is no telling from here which it is, so that both are tried in turn and the faster one is kept for a while.
//!
//! This module only counts and compares; it knows no socket and no clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long to look out before going to sleep after all.
pub(super) const LONGEST: Duration = Duration::from_micros(100);
/// A client that takes longer than this had nothing to ask; that says nothing of either way.
const IDLE: Duration = Duration::from_millis(5);
/// Requests of a trial.
const TRIAL: u32 = 256;
/// The first requests of a trial, which do not count: the scheduler still moves client and server about.
const WARM_UP: u32 = 32;
/// Requests that go by until both ways are tried again.
const SETTLED: u32 = 8192;
/// After so many vain attempts in a row looking out is given up until the next trial.
const MOST_VAIN: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    TrySleeping,
    TryLooking,
    Sleeping,
    Looking,
}

/// Requests came in: what is to be known of that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// How many requests have been served since the last arrival.
    pub(super) served: u32,
    /// How long ago that was.
    pub(super) cycle: Duration,
    /// How long of that was waited.
    pub(super) wait: Duration,
    /// Whether looking out was tried, and whether it saw them.
    pub(super) looked: Option<bool>,
}

/// What is known of one client's pace.
#[derive(Debug)]
pub(super) struct Lookout {
    stage: Stage,
    /// Requests left in this stage.
    left: u32,
    /// Time and requests of the trials: asleep, looking.
    trials: [(Duration, u32); 2],
    /// Vain attempts in a row.
    vain: u32,
}

impl Lookout {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::TrySleeping,
            left: TRIAL,
            trials: [(Duration::ZERO, 0); 2],
            vain: 0,
        }
    }

    /// Whether to look out for the next request.
    pub(super) fn is_on(&self) -> bool {
        matches!(self.stage, Stage::TryLooking | Stage::Looking)
    }

    /// Takes an arrival in.
    pub(super) fn came(&mut self, arrival: Arrival) {
        match arrival.looked {
            Some(true) => self.vain = 0,
            Some(false) => self.vain += 1,
            None => {}
        }
        if self.vain >= MOST_VAIN {
            self.enter(Stage::Sleeping);
            return;
        }
        if arrival.wait > IDLE {
            return;
        }
        if self.left <= TRIAL - WARM_UP {
            let trial = match self.stage {
                Stage::TrySleeping => Some(&mut self.trials[0]),
                Stage::TryLooking => Some(&mut self.trials[1]),
                Stage::Sleeping | Stage::Looking => None,
            };
            if let Some((time, requests)) = trial {
                *time += arrival.cycle;
                *requests += arrival.served;
            }
        }
        self.left = self.left.saturating_sub(arrival.served);
        if self.left == 0 {
            self.enter(match self.stage {
                Stage::TrySleeping => Stage::TryLooking,
                Stage::TryLooking if self.looking_pays() => Stage::Looking,
                Stage::TryLooking => Stage::Sleeping,
                Stage::Sleeping | Stage::Looking => Stage::TrySleeping,
            });
        }
    }

    /// Whether a request took at most seven eighths of the time: looking out costs processor time, so that it must be
    /// worth it.
    fn looking_pays(&self) -> bool {
        let [(asleep, slept), (looking, looked)] = self.trials;
        looked > 0 && slept > 0 && looking * slept * 8 <= asleep * looked * 7
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.vain = 0;
        self.left = match stage {
            Stage::TrySleeping | Stage::TryLooking => TRIAL,
            Stage::Sleeping | Stage::Looking => SETTLED,
        };
        if stage == Stage::TrySleeping {
            self.trials = [(Duration::ZERO, 0); 2];
        }
    }
}

/// How many sessions may look out at once: one processor is left to everybody else.
#[derive(Debug)]
pub(super) struct Lookouts {
    now: AtomicUsize,
    most: usize,
}

impl Lookouts {
    pub(super) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            now: AtomicUsize::new(0),
            most: workers.saturating_sub(1),
        })
    }

    /// A permit, if there is one left.
    pub(super) fn take(&self) -> Option<Permit<'_>> {
        // Made before the test, so that its drop takes the count back in either case.
        let permit = Permit { of: self };
        let before = self.now.fetch_add(1, Ordering::Relaxed);
        (before < self.most).then_some(permit)
    }
}

/// One session looks out while this lives.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    of: &'a Lookouts,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.of.now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client whose requests come after so long, by either way; gives how many of them were looked out for.
    fn run(lookout: &mut Lookout, requests: u32, asleep: u64, looking: u64) -> u32 {
        const SERVICE: Duration = Duration::from_micros(5);
        let mut looked = 0;
        for _ in 0..requests {
            let is_on = lookout.is_on();
            looked += u32::from(is_on);
            let wait = Duration::from_micros(if is_on { looking } else { asleep });
            lookout.came(Arrival {
                served: 1,
                cycle: wait + SERVICE,
                wait,
                looked: is_on.then_some(wait <= LONGEST),
            });
        }
        looked
    }

    #[test]
    fn the_faster_way_is_kept() {
        let mut lookout = Lookout::new();
        assert!(run(&mut lookout, 20_000, 40, 20) > 19_000);
        let mut lookout = Lookout::new();
        assert!(run(&mut lookout, 20_000, 15, 20) < 1000);
        // A little faster is not worth the processor's time.
        let mut lookout = Lookout::new();
        assert!(run(&mut lookout, 20_000, 20, 19) < 1000);
    }

    #[test]
    fn one_processor_is_left_to_others() {
        assert!(Lookouts::new(1).take().is_none());
        let lookouts = Lookouts::new(3);
        let first = lookouts.take();
        let second = lookouts.take();
        assert!(first.is_some() && second.is_some() && lookouts.take().is_none());
        drop(first);
        assert!(lookouts.take().is_some());
    }

    #[test]
    fn a_change_is_noticed() {
        let mut lookout = Lookout::new();
        run(&mut lookout, 2 * TRIAL, 40, 20);
        assert!(lookout.is_on());
        run(&mut lookout, SETTLED + 2 * TRIAL, 15, 20);
        assert!(!lookout.is_on());
        run(&mut lookout, SETTLED + 2 * TRIAL, 40, 20);
        assert!(lookout.is_on());
    }

    #[test]
    fn many_in_flight_are_not_looked_out_for_when_they_come_no_faster() {
        let mut lookout = Lookout::new();
        let mut looked = 0;
        for _ in 0..10_000 {
            let is_on = lookout.is_on();
            looked += u32::from(is_on);
            // Ten requests in 100 us, found by looking without any wait.
            lookout.came(Arrival {
                served: 10,
                cycle: Duration::from_micros(100),
                wait: Duration::from_micros(if is_on { 0 } else { 20 }),
                looked: is_on.then_some(true),
            });
        }
        assert!(looked < 500, "{looked}");
    }

    #[test]
    fn a_slow_client_is_hardly_ever_looked_out_for() {
        let mut lookout = Lookout::new();
        assert!(run(&mut lookout, 20_000, 2000, 2000) < 20);
        // A client that falls idle ends it, too.
        let mut lookout = Lookout::new();
        run(&mut lookout, 2 * TRIAL, 40, 20);
        assert!(lookout.is_on());
        assert_eq!(run(&mut lookout, 100, 50_000, 50_000), MOST_VAIN);
    }
}
