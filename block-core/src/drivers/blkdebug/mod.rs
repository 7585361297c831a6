//! `blkdebug`: faults on purpose.
//!
//! Rules wait for an event (fired by the format above, or `none`, which comes once when the node is opened). A
//! `set-state` rule changes a number when its event comes; an `inject-error` rule, once armed by its event, fails
//! the next requests of its kind. Rules may ask for a state, a sector and a kind of request.

mod config;

use std::any::Any;
use std::sync::{Arc, Mutex};

use crate::driver::{
    BlockStatus, Driver, DriverInfo, HostExtent, IoFuture, Limits, Preallocation, WriteFlags, ZeroFlags,
};
use crate::error::{BlockError, ErrorKind, Result};
use crate::graph::{Child, ChildRole, Needs, OpenContext, Perm, default_child_permissions};
use crate::options::{BlkdebugOptions, InjectError, SetState};
use crate::sync::lock;
use crate::types::SECTOR_BYTES;

/// Opens one.
pub async fn open(context: &OpenContext<'_>, options: &BlkdebugOptions) -> Result<Arc<dyn Driver>> {
    let mut rules = Vec::new();
    if let Some(path) = &options.config {
        let path = path.clone();
        let read = tokio::task::spawn_blocking(move || config::read(&path)).await;
        let config::Rules {
            inject_error,
            set_state,
        } = read.unwrap_or_else(|error| Err(BlockError::new(ErrorKind::Io, error.to_string())))?;
        add_rules(&inject_error, &set_state, &mut rules)?;
    }
    add_rules(&options.inject_error, &options.set_state, &mut rules)?;
    let align = u32::try_from(options.align)
        .ok()
        .filter(|align| *align == 0 || (align.is_power_of_two() && *align < i32::MAX.unsigned_abs()));
    let Some(align) = align else {
        return Err(unmet("align", options.align));
    };
    let child = context
        .child("image", ChildRole::Filtered, &options.image)
        .await?;
    let below = child.limits();
    let unit = align.max(below.request_alignment).max(1);
    let check = |name: &str, value: u32, unit: u32| {
        if value.is_multiple_of(unit) {
            Ok(())
        } else {
            Err(unmet(name, u64::from(value)))
        }
    };
    check("max-transfer", options.max_transfer, unit)?;
    check("opt-write-zero", options.opt_write_zero, unit)?;
    check(
        "max-write-zero",
        options.max_write_zero,
        unit.max(options.opt_write_zero),
    )?;
    check("opt-discard", options.opt_discard, unit)?;
    check("max-discard", options.max_discard, unit.max(options.opt_discard))?;
    let limits = Limits {
        request_alignment: align.max(1),
        max_transfer: if options.max_transfer == 0 {
            below.max_transfer
        } else {
            options.max_transfer
        },
        discard_alignment: if options.opt_discard == 0 {
            below.discard_alignment
        } else {
            options.opt_discard
        },
        ..below
    };
    let mut rules = Rules { state: 1, rules };
    rules.event(NO_EVENT);
    Ok(Arc::new(Blkdebug {
        child,
        limits,
        plain: rules.rules.is_empty(),
        rules: Mutex::new(rules),
        max_write_zero: options.max_write_zero,
        max_discard: options.max_discard,
        takes: options.take_child_perms,
        unshares: options.unshare_child_perms,
    }))
}

fn unmet(name: &str, value: u64) -> BlockError {
    BlockError::new(
        ErrorKind::Invalid,
        format!("Cannot meet constraints with {name} {value}"),
    )
}

/// Appends rules as they are given to those that work.
fn add_rules(faults: &[InjectError], states: &[SetState], rules: &mut Vec<Rule>) -> Result<()> {
    for rule in faults {
        let kinds = match rule.iotype.as_deref() {
            None => Kind::DEFAULT.to_vec(),
            Some(name) => vec![Kind::from_name(name)?],
        };
        rules.push(Rule {
            event: rule.event.clone(),
            state: rule.state,
            action: Action::Fail {
                kinds,
                errno: if rule.errno == 0 { 5 } else { rule.errno },
                sector: rule.sector,
                once: rule.once,
                armed: false,
            },
        });
    }
    for rule in states {
        rules.push(Rule {
            event: rule.event.clone(),
            state: rule.state,
            action: Action::SetState(rule.new_state),
        });
    }
    Ok(())
}

/// Events in the schema's words.
const EVENTS: [&str; 48] = [
    "l1_update",
    "l1_grow_alloc_table",
    "l1_grow_write_table",
    "l1_grow_activate_table",
    "l2_load",
    "l2_update",
    "l2_update_compressed",
    "l2_alloc_cow_read",
    "l2_alloc_write",
    "read_aio",
    "read_backing_aio",
    "read_compressed",
    "write_aio",
    "write_compressed",
    "vmstate_load",
    "vmstate_save",
    "cow_read",
    "cow_write",
    "reftable_load",
    "reftable_grow",
    "reftable_update",
    "refblock_load",
    "refblock_update",
    "refblock_update_part",
    "refblock_alloc",
    "refblock_alloc_hookup",
    "refblock_alloc_write",
    "refblock_alloc_write_blocks",
    "refblock_alloc_write_table",
    "refblock_alloc_switch_table",
    "cluster_alloc",
    "cluster_alloc_bytes",
    "cluster_free",
    "flush_to_os",
    "flush_to_disk",
    "pwritev_rmw_head",
    "pwritev_rmw_after_head",
    "pwritev_rmw_tail",
    "pwritev_rmw_after_tail",
    "pwritev",
    "pwritev_zero",
    "pwritev_done",
    "empty_image_prepare",
    "l1_shrink_write_table",
    "l1_shrink_free_l2_clusters",
    "cor_write",
    "cluster_alloc_space",
    "none",
];

/// Comes once, when the node is opened.
const NO_EVENT: &str = "none";

/// Kinds of requests, in the schema's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    WriteZeroes,
    Discard,
    Flush,
    BlockStatus,
}

impl Kind {
    /// Kinds that a rule without `iotype` means: block status only fails when it is named.
    const DEFAULT: [Self; 5] = [
        Self::Read,
        Self::Write,
        Self::WriteZeroes,
        Self::Discard,
        Self::Flush,
    ];

    fn from_name(name: &str) -> Result<Self> {
        Ok(match name {
            "read" => Self::Read,
            "write" => Self::Write,
            "write-zeroes" => Self::WriteZeroes,
            "discard" => Self::Discard,
            "flush" => Self::Flush,
            "block-status" => Self::BlockStatus,
            _ => {
                return Err(BlockError::new(
                    ErrorKind::Invalid,
                    format!("invalid parameter value: {name}"),
                ));
            }
        })
    }
}

#[derive(Debug)]
struct Rule {
    event: String,
    /// Only in this state; 0 is any.
    state: u64,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Fail {
        kinds: Vec<Kind>,
        errno: i32,
        sector: Option<u64>,
        once: bool,
        armed: bool,
    },
    SetState(u64),
}

#[derive(Debug)]
struct Rules {
    state: u64,
    rules: Vec<Rule>,
}

impl Rules {
    /// An event happens. Rules of another state than the one at this moment sleep. If it arms any error rule, then
    /// those that earlier events armed are disarmed.
    fn event(&mut self, event: &str) {
        let state = self.state;
        let awake = |rule: &Rule| rule.event == event && (rule.state == 0 || rule.state == state);
        if self
            .rules
            .iter()
            .any(|rule| awake(rule) && matches!(rule.action, Action::Fail { .. }))
        {
            for rule in &mut self.rules {
                let awake = awake(rule);
                if let Action::Fail { armed, .. } = &mut rule.action {
                    *armed = awake;
                }
            }
        }
        for rule in self.rules.iter().filter(|rule| awake(rule)) {
            if let Action::SetState(new) = rule.action {
                self.state = new;
            }
        }
    }

    /// The errno with which a request fails, if it does.
    fn fault(&mut self, kind: Kind, offset: u64, len: u64) -> Option<i32> {
        // The newest rule wins.
        let hit = self.rules.iter().rposition(|rule| match &rule.action {
            Action::Fail {
                kinds, sector, armed, ..
            } => {
                *armed
                    && kinds.contains(&kind)
                    && sector.is_none_or(|sector| {
                        let at = sector.saturating_mul(SECTOR_BYTES);
                        at >= offset && at < offset.saturating_add(len)
                    })
            }
            Action::SetState(_) => false,
        })?;
        match self.rules[hit].action {
            Action::Fail { errno, once, .. } => {
                if once {
                    self.rules.remove(hit);
                }
                Some(errno)
            }
            Action::SetState(_) => None,
        }
    }
}

#[derive(Debug)]
struct Blkdebug {
    child: Arc<Child>,
    limits: Limits,
    /// No rules at all.
    plain: bool,
    rules: Mutex<Rules>,
    max_write_zero: u32,
    max_discard: u32,
    /// Permissions on the child beyond those that the users above need, and those not left to others.
    takes: Perm,
    unshares: Perm,
}

impl Blkdebug {
    fn check(&self, kind: Kind, offset: u64, len: u64) -> Result<()> {
        if self.plain {
            return Ok(());
        }
        match lock(&self.rules).fault(kind, offset, len) {
            None => Ok(()),
            Some(errno) => Err(std::io::Error::from_raw_os_error(errno).into()),
        }
    }
}

impl Driver for Blkdebug {
    fn name(&self) -> &'static str {
        "blkdebug"
    }

    fn length(&self) -> u64 {
        self.child.length()
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn is_filter(&self) -> bool {
        true
    }

    fn child_permissions(&self, _name: &str, role: ChildRole, needs: &Needs) -> (Perm, Perm) {
        let (perm, shared) = default_child_permissions(role, needs);
        (perm | self.takes, shared.without(self.unshares))
    }

    fn read<'a>(&'a self, offset: u64, buf: &'a mut [u8]) -> IoFuture<'a> {
        Box::pin(async move {
            self.check(Kind::Read, offset, buf.len() as u64)?;
            self.child.read(offset, buf).await
        })
    }

    fn write<'a>(&'a self, offset: u64, buf: &'a [u8], flags: WriteFlags) -> IoFuture<'a> {
        Box::pin(async move {
            self.check(Kind::Write, offset, buf.len() as u64)?;
            self.child.write(offset, buf, flags).await
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> IoFuture<'_> {
        Box::pin(async move {
            let step = if self.max_write_zero == 0 {
                len
            } else {
                u64::from(self.max_write_zero)
            };
            let mut done = 0;
            while done < len {
                let part = step.min(len - done);
                self.check(Kind::WriteZeroes, offset + done, part)?;
                self.child.write_zeroes(offset + done, part, flags).await?;
                done += part;
            }
            Ok(())
        })
    }

    fn discard(&self, offset: u64, len: u64) -> IoFuture<'_> {
        Box::pin(async move {
            let step = if self.max_discard == 0 {
                len
            } else {
                u64::from(self.max_discard)
            };
            let mut done = 0;
            while done < len {
                let part = step.min(len - done);
                self.check(Kind::Discard, offset + done, part)?;
                self.child.discard(offset + done, part).await?;
                done += part;
            }
            Ok(())
        })
    }

    fn flush(&self) -> IoFuture<'_> {
        Box::pin(async move {
            self.check(Kind::Flush, 0, 0)?;
            self.child.flush().await
        })
    }

    fn block_status(&self, offset: u64, len: u64, want_host: bool) -> IoFuture<'_, BlockStatus> {
        Box::pin(async move {
            self.check(Kind::BlockStatus, offset, len)?;
            let mut status = self.child.block_status(offset, len, want_host).await?;
            // A copy past this node, file to file, would pass its rules by.
            status.host = None;
            Ok(status)
        })
    }

    fn host_extent(&self, _offset: u64) -> Option<HostExtent> {
        None
    }

    fn truncate(&self, length: u64, preallocation: Preallocation) -> IoFuture<'_> {
        Box::pin(self.child.truncate(length, preallocation))
    }

    fn watches_status(&self) -> bool {
        !self.plain
    }

    fn debug_event(&self, event: &str) {
        if !self.plain {
            lock(&self.rules).event(event);
        }
    }

    fn close(&self) -> IoFuture<'_> {
        Box::pin(async { Ok(()) })
    }

    fn info(&self) -> DriverInfo {
        let below = self.child.info();
        DriverInfo {
            filename: format!("blkdebug::{}", below.filename),
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

    fn fail(event: &str, state: u64, sector: Option<u64>, once: bool) -> Rule {
        let action = Action::Fail {
            kinds: vec![Kind::Write],
            errno: 28,
            sector,
            once,
            armed: false,
        };
        Rule {
            event: event.to_owned(),
            state,
            action,
        }
    }

    #[test]
    fn a_rule_waits_for_its_event_and_goes_when_it_is_once() {
        let mut rules = Rules {
            state: 1,
            rules: vec![fail("l2_update", 0, None, true)],
        };
        assert_eq!(rules.fault(Kind::Write, 0, 512), None);
        rules.event("l2_load");
        assert_eq!(rules.fault(Kind::Write, 0, 512), None);
        rules.event("l2_update");
        assert_eq!(rules.fault(Kind::Read, 0, 512), None);
        assert_eq!(rules.fault(Kind::Write, 0, 512), Some(28));
        assert_eq!(rules.fault(Kind::Write, 0, 512), None);
    }

    #[test]
    fn states_and_sectors_narrow_a_rule() {
        let set = Rule {
            event: "flush_to_os".to_owned(),
            state: 1,
            action: Action::SetState(2),
        };
        let mut rules = Rules {
            state: 1,
            rules: vec![set, fail("l2_load", 2, Some(3), false)],
        };
        rules.event("l2_load");
        assert_eq!(rules.fault(Kind::Write, 0, 4096), None);
        rules.event("flush_to_os");
        rules.event("l2_load");
        assert_eq!(rules.fault(Kind::Write, 0, 1536), None);
        assert_eq!(rules.fault(Kind::Write, 1024, 1024), Some(28));
        assert_eq!(rules.fault(Kind::Write, 1536, 512), Some(28));
        assert_eq!(rules.fault(Kind::Write, 2048, 512), None);
    }

    #[test]
    fn arming_a_rule_disarms_those_of_earlier_events() {
        let mut rules = Rules {
            state: 1,
            rules: vec![
                fail("l2_load", 0, Some(0), false),
                fail("l2_update", 0, Some(9), false),
            ],
        };
        rules.event("l2_load");
        assert_eq!(rules.fault(Kind::Write, 0, 512), Some(28));
        rules.event("l2_update");
        assert_eq!(rules.fault(Kind::Write, 0, 512), None);
    }
}
