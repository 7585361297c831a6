//! `throttle`: I/O limits that nodes share by group.
//!
//! Each limit is a bucket that requests fill and time drains. A request waits while a bucket that it fills is over
//! its brim; the nodes of a group take turns, and requests of one node and direction go in the order in which they came.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::driver::{
    BlockStatus, Driver, DriverInfo, IoFuture, Limits, Preallocation, WriteFlags, ZeroFlags,
};
use crate::error::{BlockError, ErrorKind, Result};
use crate::graph::{Child, ChildRole, Graph, OpenContext};
use crate::options::{DriverOptions, NodeOptions, NodeRef};
use crate::sync::lock;

/// The largest rate.
const MAX_RATE: u64 = 1_000_000_000_000_000;

/// One limit, in bytes or operations a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run; 0 is no limit.
    pub average: u64,
    /// In a burst; 0 is no burst beyond a tenth of a second's worth.
    pub max: u64,
    /// Longest burst in seconds.
    pub max_length_seconds: u64,
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            average: 0,
            max: 0,
            max_length_seconds: 1,
        }
    }
}

/// The limits of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ThrottleLimits {
    /// Bytes, both ways.
    pub bps_total: Rate,
    /// Bytes read.
    pub bps_read: Rate,
    /// Bytes written.
    pub bps_write: Rate,
    /// Operations, both ways.
    pub iops_total: Rate,
    /// Reads.
    pub iops_read: Rate,
    /// Writes.
    pub iops_write: Rate,
    /// A request counts as one operation for each so many bytes; 0 is one for each request.
    pub iops_size: u64,
}

impl ThrottleLimits {
    fn rates(&self) -> [Rate; 6] {
        [
            self.bps_total,
            self.bps_read,
            self.bps_write,
            self.iops_total,
            self.iops_read,
            self.iops_write,
        ]
    }

    /// Whether the limits make sense together.
    pub fn check(&self) -> Result<()> {
        let refuse = |text: &str| Err(BlockError::new(ErrorKind::Invalid, text));
        for (total, read, write) in [
            (self.bps_total, self.bps_read, self.bps_write),
            (self.iops_total, self.iops_read, self.iops_write),
        ] {
            if (total.average != 0 && (read.average != 0 || write.average != 0))
                || (total.max != 0 && (read.max != 0 || write.max != 0))
            {
                return refuse(
                    "bps/iops/max total values and read/write values cannot be used at the same time",
                );
            }
        }
        if self.iops_size != 0
            && [self.iops_total, self.iops_read, self.iops_write]
                .iter()
                .all(|rate| rate.average == 0)
        {
            return refuse("iops size requires an iops value to be set");
        }
        for rate in self.rates() {
            if rate.average > MAX_RATE || rate.max > MAX_RATE {
                return refuse("bps/iops/max values must be within [0, 1000000000000000]");
            }
            if rate.max_length_seconds == 0 {
                return refuse("the burst length cannot be 0");
            }
            if rate.max_length_seconds > 1 && rate.max == 0 {
                return refuse("burst length set without burst rate");
            }
            if rate.max != 0 && rate.max_length_seconds > MAX_RATE / rate.max {
                return refuse("burst length too high for this burst rate");
            }
            if rate.max != 0 && rate.average == 0 {
                return refuse("bps_max/iops_max require corresponding bps/iops values");
            }
            if rate.max != 0 && rate.max < rate.average {
                return refuse("bps_max/iops_max cannot be lower than bps/iops");
            }
        }
        Ok(())
    }
}

/// How full one limit is. Floating point suits: this is a matter of rates, and an error of a byte means nothing.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    level: f64,
    burst_level: f64,
}

impl Bucket {
    fn drain(&mut self, rate: Rate, seconds: f64) {
        self.level = (self.level - number(rate.average) * seconds).max(0.0);
        self.burst_level = (self.burst_level - number(rate.max) * seconds).max(0.0);
    }

    /// How long until the next request may go.
    fn delay(&self, rate: Rate) -> f64 {
        let average = number(rate.average);
        if rate.average == 0 {
            return 0.0;
        }
        // Without a burst rate a tenth of a second's worth may go at once.
        if rate.max == 0 {
            return ((self.level - average / 10.0) / average).max(0.0);
        }
        let max = number(rate.max);
        let long = (self.level - max * number(rate.max_length_seconds)) / average;
        // A burst that may last is itself limited to its rate.
        let short = if rate.max_length_seconds > 1 {
            (self.burst_level - max / 10.0) / max
        } else {
            0.0
        };
        long.max(short).max(0.0)
    }

    fn fill(&mut self, rate: Rate, units: f64) {
        if rate.average != 0 {
            self.level += units;
            if rate.max_length_seconds > 1 {
                self.burst_level += units;
            }
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "rates are at most 10^15 and need no exact arithmetic"
)]
fn number(value: u64) -> f64 {
    value as f64
}

#[derive(Debug)]
struct State {
    limits: ThrottleLimits,
    buckets: [Bucket; 6],
    drained: Instant,
}

/// Whose buckets a request fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

impl Direction {
    /// Indices of the buckets for bytes and for operations, in the order of [`ThrottleLimits::rates`].
    fn buckets(self) -> ([usize; 2], [usize; 2]) {
        match self {
            Self::Read => ([0, 1], [3, 4]),
            Self::Write => ([0, 2], [3, 5]),
        }
    }
}

impl State {
    /// Lets a request go now, or says how long it must wait.
    fn admit(&mut self, direction: Direction, len: u64, now: Instant) -> Option<Duration> {
        let rates = self.limits.rates();
        let seconds = now.saturating_duration_since(self.drained).as_secs_f64();
        self.drained = now;
        for (bucket, rate) in self.buckets.iter_mut().zip(rates) {
            bucket.drain(rate, seconds);
        }
        let (bytes, operations) = direction.buckets();
        let delay = bytes
            .iter()
            .chain(&operations)
            .map(|index| self.buckets[*index].delay(rates[*index]))
            .fold(0.0, f64::max);
        if delay > 0.0 {
            // At least a little, so that rounding cannot make a busy loop; at most a while, to be sure to look again.
            return Some(Duration::from_secs_f64(delay.clamp(0.000_05, 10.0)));
        }
        let count = if self.limits.iops_size == 0 {
            1
        } else {
            len.div_ceil(self.limits.iops_size).max(1)
        };
        for index in bytes {
            self.buckets[index].fill(rates[index], number(len));
        }
        for index in operations {
            self.buckets[index].fill(rates[index], number(count));
        }
        None
    }
}

/// A queue for each direction: tokio's locks are fair.
type Turns = [tokio::sync::Mutex<()>; 2];

/// A node's part in its group.
#[derive(Debug, Default)]
struct Member {
    /// Its own requests in order. Only the first of them stands in the group's queue, so that a node with many in
    /// flight gets no more turns than one with few.
    turns: Turns,
    /// Drains in force: what is in flight must not wait for its turn then.
    bypass: AtomicUsize,
}

impl Member {
    fn is_bypassed(&self) -> bool {
        self.bypass.load(Ordering::SeqCst) != 0
    }
}

/// A group: nodes that share limits.
#[derive(Debug)]
pub struct ThrottleGroup {
    name: String,
    state: Mutex<State>,
    /// The members that wait, in order: the first of each direction sleeps with the lock held, the others wait for it.
    queues: Turns,
    /// Limits or drains have changed.
    changed: Notify,
}

impl ThrottleGroup {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The limits in force.
    pub fn limits(&self) -> ThrottleLimits {
        lock(&self.state).limits
    }

    /// Puts other limits in force at once.
    pub fn set_limits(&self, limits: ThrottleLimits) -> Result<()> {
        limits.check()?;
        {
            let mut state = lock(&self.state);
            state.limits = limits;
            state.buckets = Default::default();
        }
        self.changed.notify_waiters();
        Ok(())
    }

    /// Waits until a request of the member may go. The locks are held across the sleep on purpose: they are the queues.
    async fn wait(&self, direction: Direction, len: u64, member: &Member) {
        if member.is_bypassed() {
            return;
        }
        let index = match direction {
            Direction::Read => 0,
            Direction::Write => 1,
        };
        // Whoever is ahead in it leaves at once when the member is drained.
        let _own_turn = member.turns[index].lock().await;
        let mut group_turn = None;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if member.is_bypassed() {
                return;
            }
            if group_turn.is_none() {
                tokio::select! {
                    turn = self.queues[index].lock() => group_turn = Some(turn),
                    // The turn is another member's, who may sleep for long.
                    () = changed => {}
                }
                continue;
            }
            let delay = lock(&self.state).admit(direction, len, Instant::now());
            let Some(delay) = delay else { return };
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = changed => {}
            }
        }
    }
}

/// All groups of a graph, by name.
#[derive(Debug, Default)]
pub struct ThrottleGroups {
    groups: Mutex<BTreeMap<String, Arc<ThrottleGroup>>>,
}

impl ThrottleGroups {
    /// Makes a group (`object-add`).
    pub fn create(&self, name: &str, limits: ThrottleLimits) -> Result<Arc<ThrottleGroup>> {
        limits.check()?;
        let mut groups = lock(&self.groups);
        if groups.contains_key(name) {
            return Err(BlockError::new(
                ErrorKind::Exists,
                format!("attempt to add duplicate property '{name}' to object (type 'container')"),
            ));
        }
        let group = Arc::new(ThrottleGroup {
            name: name.to_owned(),
            state: Mutex::new(State {
                limits,
                buckets: Default::default(),
                drained: Instant::now(),
            }),
            queues: Default::default(),
            changed: Notify::new(),
        });
        groups.insert(name.to_owned(), Arc::clone(&group));
        Ok(group)
    }

    /// The group of this name.
    pub fn get(&self, name: &str) -> Option<Arc<ThrottleGroup>> {
        lock(&self.groups).get(name).cloned()
    }

    /// The names of all groups.
    pub fn names(&self) -> Vec<String> {
        lock(&self.groups).keys().cloned().collect()
    }

    /// Removes a group that no node uses (`object-del`).
    pub fn remove(&self, name: &str) -> Result<()> {
        let mut groups = lock(&self.groups);
        match groups.get(name) {
            None => Err(BlockError::new(
                ErrorKind::NotFound,
                format!("object '{name}' not found"),
            )),
            Some(group) if Arc::strong_count(group) > 1 => Err(BlockError::new(
                ErrorKind::Busy,
                format!("object '{name}' is in use, can not be deleted"),
            )),
            Some(_) => {
                groups.remove(name);
                Ok(())
            }
        }
    }
}

/// Opens a node.
pub async fn open(context: &OpenContext<'_>, file: &NodeRef, group: &str) -> Result<Arc<dyn Driver>> {
    let child = context.child("file", ChildRole::Filtered, file).await?;
    let group = find_group(context.graph(), group)?;
    Ok(Arc::new(Throttle {
        graph: Arc::downgrade(context.graph()),
        child,
        group: Mutex::new(Some(group)),
        member: Member::default(),
    }))
}

fn find_group(graph: &Graph, name: &str) -> Result<Arc<ThrottleGroup>> {
    graph.throttle_groups().get(name).ok_or_else(|| {
        BlockError::new(
            ErrorKind::NotFound,
            format!("Throttle group '{name}' does not exist"),
        )
    })
}

#[derive(Debug)]
struct Throttle {
    /// Knows the groups.
    graph: Weak<Graph>,
    child: Arc<Child>,
    /// Given up at close, so that the group can be removed.
    group: Mutex<Option<Arc<ThrottleGroup>>>,
    member: Member,
}

impl Throttle {
    async fn wait(&self, direction: Direction, len: u64) {
        let group = lock(&self.group).clone();
        if let Some(group) = group {
            group.wait(direction, len, &self.member).await;
        }
    }
}

impl Driver for Throttle {
    fn name(&self) -> &'static str {
        "throttle"
    }

    fn length(&self) -> u64 {
        self.child.length()
    }

    fn limits(&self) -> Limits {
        Limits {
            request_alignment: 1,
            ..self.child.limits()
        }
    }

    fn is_filter(&self) -> bool {
        true
    }

    fn read<'a>(&'a self, offset: u64, buf: &'a mut [u8]) -> IoFuture<'a> {
        Box::pin(async move {
            self.wait(Direction::Read, buf.len() as u64).await;
            self.child.read(offset, buf).await
        })
    }

    fn write<'a>(&'a self, offset: u64, buf: &'a [u8], flags: WriteFlags) -> IoFuture<'a> {
        Box::pin(async move {
            self.wait(Direction::Write, buf.len() as u64).await;
            self.child.write(offset, buf, flags).await
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> IoFuture<'_> {
        Box::pin(async move {
            self.wait(Direction::Write, len).await;
            self.child.write_zeroes(offset, len, flags).await
        })
    }

    fn discard(&self, offset: u64, len: u64) -> IoFuture<'_> {
        Box::pin(async move {
            self.wait(Direction::Write, len).await;
            self.child.discard(offset, len).await
        })
    }

    fn flush(&self) -> IoFuture<'_> {
        Box::pin(self.child.flush())
    }

    fn block_status(&self, offset: u64, len: u64, want_host: bool) -> IoFuture<'_, BlockStatus> {
        Box::pin(async move {
            let mut status = self.child.block_status(offset, len, want_host).await?;
            // A copy past this node, file to file, would pass its limits by.
            status.host = None;
            Ok(status)
        })
    }

    fn truncate(&self, length: u64, preallocation: Preallocation) -> IoFuture<'_> {
        Box::pin(self.child.truncate(length, preallocation))
    }

    fn drain_begin(&self) {
        self.member.bypass.fetch_add(1, Ordering::SeqCst);
        let group = lock(&self.group).clone();
        if let Some(group) = group {
            group.changed.notify_waiters();
        }
    }

    fn drain_end(&self) {
        self.member.bypass.fetch_sub(1, Ordering::SeqCst);
    }

    fn debug_event(&self, event: &str) {
        self.child.event(event);
    }

    fn reopen<'a>(&'a self, options: &'a NodeOptions) -> IoFuture<'a> {
        Box::pin(async move {
            let (DriverOptions::Throttle { throttle_group, .. }, Some(graph)) =
                (&options.driver, self.graph.upgrade())
            else {
                return Err(BlockError::new(
                    ErrorKind::Invalid,
                    "Cannot change the option 'driver'",
                ));
            };
            let group = find_group(&graph, throttle_group)?;
            *lock(&self.group) = Some(group);
            Ok(())
        })
    }

    fn close(&self) -> IoFuture<'_> {
        *lock(&self.group) = None;
        Box::pin(async { Ok(()) })
    }

    fn info(&self) -> DriverInfo {
        let below = self.child.info();
        DriverInfo {
            filename: below.filename,
            cluster_bytes: below.cluster_bytes,
            dirty: below.dirty,
            ..DriverInfo::default()
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(limits: ThrottleLimits) -> Arc<ThrottleGroup> {
        ThrottleGroups::default().create("g", limits).unwrap()
    }

    fn rate(average: u64) -> Rate {
        Rate {
            average,
            ..Rate::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_average_holds_in_the_long_run() {
        let group = group(ThrottleLimits {
            iops_total: rate(100),
            ..ThrottleLimits::default()
        });
        let start = Instant::now();
        let free = Member::default();
        for at in 0..500 {
            let direction = if at % 2 == 0 {
                Direction::Read
            } else {
                Direction::Write
            };
            group.wait(direction, 4096, &free).await;
        }
        let seconds = start.elapsed().as_secs_f64();
        assert!((4.7..5.2).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_its_own_rate() {
        let burst = Rate {
            average: 100,
            max: 1000,
            max_length_seconds: 2,
        };
        let group = group(ThrottleLimits {
            bps_write: burst,
            ..ThrottleLimits::default()
        });
        let start = Instant::now();
        let free = Member::default();
        for _ in 0..20 {
            group.wait(Direction::Write, 100, &free).await;
        }
        // 2000 bytes at 1000 a second.
        let seconds = start.elapsed().as_secs_f64();
        assert!((1.6..2.2).contains(&seconds), "{seconds}");
        for _ in 0..10 {
            group.wait(Direction::Write, 100, &free).await;
        }
        // The burst is spent: 100 bytes a second.
        assert!(start.elapsed().as_secs_f64() > 8.0);
        // Reads have no limit.
        group.wait(Direction::Read, 1 << 30, &free).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_lets_waiters_go() {
        let group = group(ThrottleLimits {
            bps_total: rate(1),
            ..ThrottleLimits::default()
        });
        let (drained, other) = (Arc::new(Member::default()), Arc::new(Member::default()));
        group.wait(Direction::Read, 1 << 20, &drained).await;
        let ask = |member: &Arc<Member>| {
            let (group, member) = (Arc::clone(&group), Arc::clone(member));
            tokio::spawn(async move { group.wait(Direction::Read, 1, &member).await })
        };
        // Another member is first in the queue of the group, and stays there.
        let stays = ask(&other);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let waiters = [ask(&drained), ask(&drained)];
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
        drained.bypass.store(1, Ordering::SeqCst);
        group.changed.notify_waiters();
        for waiter in waiters {
            tokio::time::timeout(Duration::from_millis(10), waiter)
                .await
                .unwrap()
                .unwrap();
        }
        assert!(!stays.is_finished());
        stays.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn members_take_turns_whatever_they_have_in_flight() {
        let group = group(ThrottleLimits {
            iops_total: rate(100),
            ..ThrottleLimits::default()
        });
        let (many, few) = (Arc::new(Member::default()), Arc::new(Member::default()));
        let done = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
        for (member, count, in_flight) in [(&many, &done[0], 32), (&few, &done[1], 2)] {
            for _ in 0..in_flight {
                let (group, member, count) = (Arc::clone(&group), Arc::clone(member), Arc::clone(count));
                tokio::spawn(async move {
                    loop {
                        group.wait(Direction::Read, 4096, &member).await;
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        let [many, few] = done.map(|count| count.load(Ordering::SeqCst));
        assert!((980..1030).contains(&(many + few)), "{many} {few}");
        assert!(few * 10 > many * 9, "{many} {few}");
    }

    #[test]
    fn limits_that_contradict_are_refused() {
        let text = |limits: ThrottleLimits| limits.check().unwrap_err().to_string();
        let none = ThrottleLimits::default();
        assert_eq!(
            text(ThrottleLimits {
                iops_total: rate(100),
                iops_read: rate(5),
                ..none
            }),
            "bps/iops/max total values and read/write values cannot be used at the same time"
        );
        let burst = |average, max, length| ThrottleLimits {
            iops_total: Rate {
                average,
                max,
                max_length_seconds: length,
            },
            ..none
        };
        assert_eq!(
            text(burst(0, 100, 1)),
            "bps_max/iops_max require corresponding bps/iops values"
        );
        assert_eq!(
            text(burst(100, 10, 1)),
            "bps_max/iops_max cannot be lower than bps/iops"
        );
        assert_eq!(text(burst(100, 1000, 0)), "the burst length cannot be 0");
        assert_eq!(text(burst(100, 0, 2)), "burst length set without burst rate");
        assert_eq!(
            text(burst(u64::MAX, 0, 1)),
            "bps/iops/max values must be within [0, 1000000000000000]"
        );
        assert_eq!(
            text(ThrottleLimits { iops_size: 9, ..none }),
            "iops size requires an iops value to be set"
        );
    }

    #[test]
    fn a_group_in_use_stays() {
        let groups = ThrottleGroups::default();
        let group = groups.create("g", ThrottleLimits::default()).unwrap();
        assert_eq!(
            groups.remove("g").unwrap_err().to_string(),
            "object 'g' is in use, can not be deleted"
        );
        drop(group);
        groups.remove("g").unwrap();
        assert_eq!(
            groups.remove("g").unwrap_err().to_string(),
            "object 'g' not found"
        );
    }
}
