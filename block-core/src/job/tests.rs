use super::table::{Effect, Input, JobSerial, JobSpec, Table, Verb};
use crate::error::{BlockError, ErrorKind};
use crate::event::{ErrorAction, Event, JobKind, JobStatus};

/// A table with a worker that does what it is told: it parks when paused, ends when cancelled.
#[derive(Default)]
struct Bench {
    table: Table,
    log: Vec<String>,
    running: Vec<JobSerial>,
    pending: Vec<Input>,
}

impl Bench {
    fn create(&mut self, id: &str, group: Option<u64>, change: impl FnOnce(&mut JobSpec)) -> JobSerial {
        let mut spec = JobSpec {
            id: id.into(),
            kind: JobKind::Backup,
            auto_finalize: true,
            auto_dismiss: true,
            speed: 0,
            group,
        };
        change(&mut spec);
        let mut effects = Vec::new();
        let serial = self.table.create(&spec, &mut effects).unwrap();
        self.perform(effects);
        serial
    }

    fn input(&mut self, input: Input) {
        self.try_input(input).unwrap();
    }

    fn try_input(&mut self, input: Input) -> Result<(), BlockError> {
        let mut effects = Vec::new();
        let result = self.table.apply(input, &mut effects);
        self.perform(effects);
        while !self.pending.is_empty() {
            let next = self.pending.remove(0);
            self.input(next);
        }
        result
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Emit(_, event) => self.log.push(text(&event)),
                Effect::Run(serial) => self.running.push(serial),
                Effect::Wake(serial) => {
                    let Some(job) = self.table.get(serial).filter(|_| self.running.contains(&serial)) else {
                        continue;
                    };
                    if job.cancelled {
                        self.running.retain(|other| *other != serial);
                        self.pending.push(Input::Done(serial, Ok(())));
                    } else if job.pause_count > 0 {
                        self.pending.push(Input::Parked(serial));
                    }
                }
                Effect::Prepare(group, _) => self.pending.push(Input::Prepared(group, None)),
                Effect::Finalize(serial, _) | Effect::Discard(serial) => {
                    self.pending.push(Input::Finalized(serial))
                }
                Effect::Forget(_) => {}
            }
        }
    }

    fn done(&mut self, serial: JobSerial) {
        self.running.retain(|other| *other != serial);
        self.input(Input::Done(serial, Ok(())));
    }

    fn fail(&mut self, serial: JobSerial) {
        self.running.retain(|other| *other != serial);
        self.input(Input::Failed {
            job: serial,
            is_read: false,
            action: ErrorAction::Report,
            no_space: false,
        });
        self.input(Input::Done(
            serial,
            Err(BlockError::from_errno(5, "Input/output error")),
        ));
    }

    fn verb(&mut self, serial: JobSerial, verb: Verb) -> Result<(), String> {
        self.try_input(Input::Verb(serial, verb))
            .map_err(|error| error.to_string())
    }

    fn take(&mut self) -> String {
        std::mem::take(&mut self.log).join(" ")
    }
}

fn text(event: &Event) -> String {
    match event {
        Event::JobStatusChange { id, status } => format!("{id}:{}", super::status_name(*status)),
        Event::BlockJobCompleted { job, error: None, .. } => format!("{}:COMPLETED", job.id),
        Event::BlockJobCompleted {
            job,
            error: Some(error),
            ..
        } => format!("{}:COMPLETED({error})", job.id),
        Event::BlockJobCancelled { job } => format!("{}:CANCELLED", job.id),
        Event::BlockJobReady { job } => format!("{}:READY", job.id),
        Event::BlockJobPending { id, .. } => format!("{id}:PENDING"),
        Event::BlockJobError { id, is_read, action } => {
            let operation = if *is_read { "read" } else { "write" };
            format!("{id}:ERROR({operation},{action:?})")
        }
        other => format!("{other:?}"),
    }
}

const FORCE: Verb = Verb::Cancel { force: true };

#[test]
fn success() {
    let mut bench = Bench::default();
    let a = bench.create("a", None, |_| {});
    bench.input(Input::Start(a));
    bench.done(a);
    assert_eq!(
        bench.take(),
        "a:created a:running a:waiting a:pending a:COMPLETED a:concluded a:null"
    );
    assert!(bench.table.find("a").is_none());
}

#[test]
fn failure_is_reported() {
    let mut bench = Bench::default();
    let a = bench.create("a", None, |_| {});
    bench.input(Input::Start(a));
    bench.fail(a);
    let expected = "a:created a:running a:ERROR(write,Report) a:aborting a:COMPLETED(Input/output error) a:concluded a:null";
    assert_eq!(bench.take(), expected);
}

#[test]
fn a_create_job_sends_no_block_job_events() {
    let mut bench = Bench::default();
    let a = bench.create("a", None, |spec| {
        spec.kind = JobKind::Create;
        spec.auto_dismiss = false;
    });
    bench.input(Input::Start(a));
    bench.done(a);
    assert_eq!(
        bench.take(),
        "a:created a:running a:waiting a:pending a:concluded"
    );
    bench.verb(a, Verb::Dismiss).unwrap();
    assert_eq!(bench.take(), "a:null");
}

#[test]
fn a_paused_job_runs_before_it_aborts() {
    let mut bench = Bench::default();
    let a = bench.create("a", None, |_| {});
    bench.input(Input::Start(a));
    bench.verb(a, Verb::Pause).unwrap();
    assert_eq!(bench.verb(a, Verb::Pause).unwrap_err(), "Job is already paused");
    assert_eq!(bench.take(), "a:created a:running a:paused");
    bench.verb(a, FORCE).unwrap();
    assert_eq!(
        bench.take(),
        "a:running a:aborting a:CANCELLED a:concluded a:null"
    );
}

#[test]
fn stop_on_error_waits_for_resume() {
    let mut bench = Bench::default();
    let a = bench.create("a", None, |_| {});
    bench.input(Input::Start(a));
    bench.take();
    bench.input(Input::Failed {
        job: a,
        is_read: true,
        action: ErrorAction::Stop,
        no_space: true,
    });
    assert_eq!(bench.take(), "a:ERROR(read,Stop) a:paused");
    assert_eq!(bench.table.get(a).unwrap().io_status, super::IoStatus::NoSpace);
    assert_eq!(bench.verb(a, Verb::Pause).unwrap_err(), "Job is already paused");
    bench.verb(a, Verb::Resume).unwrap();
    assert_eq!(bench.take(), "a:running");
    assert_eq!(bench.table.get(a).unwrap().io_status, super::IoStatus::Ok);
    assert_eq!(
        bench.verb(a, Verb::Resume).unwrap_err(),
        "Can't resume a job that was not paused"
    );
}

#[test]
fn a_job_that_never_started_is_dismissed_without_block_job_events() {
    let mut bench = Bench::default();
    let a = bench.create("a", None, |spec| spec.auto_dismiss = false);
    bench.verb(a, FORCE).unwrap();
    assert_eq!(bench.take(), "a:created a:aborting a:concluded a:null");
}

#[test]
fn a_negative_speed_is_seen_after_creation() {
    let mut table = Table::default();
    let spec = JobSpec {
        id: "a".into(),
        kind: JobKind::Backup,
        auto_finalize: true,
        auto_dismiss: true,
        speed: -1,
        group: None,
    };
    let mut effects = Vec::new();
    let error = table.create(&spec, &mut effects).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Parameter 'speed' expects a non-negative value"
    );
    assert!(table.find("a").is_none());
    assert_eq!(effects.len(), 3);
}

fn grouped(ids: &[&str], change: impl Fn(&mut JobSpec)) -> (Bench, Vec<JobSerial>) {
    let mut bench = Bench::default();
    let group = bench.table.new_group();
    let jobs: Vec<_> = ids
        .iter()
        .map(|id| bench.create(id, Some(group), &change))
        .collect();
    for job in jobs.iter().rev() {
        bench.input(Input::Start(*job));
    }
    bench.take();
    (bench, jobs)
}

/// QEMU's 7eaa8fb57d: groups were of block jobs only; a job of another kind stood outside of all of them.
#[test]
fn jobs_of_different_kinds_share_the_fate_of_their_group() {
    for fails in [false, true] {
        let mut bench = Bench::default();
        let group = bench.table.new_group();
        let backup = bench.create("a", Some(group), |_| {});
        let create = bench.create("b", Some(group), |spec| spec.kind = JobKind::Create);
        for job in [create, backup] {
            bench.input(Input::Start(job));
        }
        bench.done(backup);
        assert_eq!(bench.table.get(backup).unwrap().status, JobStatus::Waiting);
        if fails {
            bench.fail(create);
        } else {
            bench.done(create);
        }
        assert!(bench.table.get(backup).is_none() && bench.table.get(create).is_none());
        let log = bench.take();
        assert_eq!(log.contains("a:CANCELLED"), fails, "{log}");
        assert_eq!(log.contains("a:COMPLETED"), !fails, "{log}");
    }
}

#[test]
fn a_group_takes_effect_together() {
    let (mut bench, jobs) = grouped(&["a", "b", "c"], |_| {});
    bench.done(jobs[0]);
    bench.done(jobs[2]);
    assert_eq!(bench.take(), "a:waiting c:waiting");
    bench.done(jobs[1]);
    assert_eq!(
        bench.take(),
        "b:waiting c:pending b:pending a:pending c:COMPLETED c:concluded c:null b:COMPLETED b:concluded b:null \
         a:COMPLETED a:concluded a:null"
    );
}

/// Abort handlers run newest first, also when an older member is the one that failed.
#[test]
fn a_failing_member_takes_its_group_with_it() {
    let (mut bench, jobs) = grouped(&["a", "b", "c"], |_| {});
    bench.fail(jobs[1]);
    assert_eq!(
        bench.take(),
        "b:ERROR(write,Report) b:aborting c:aborting a:aborting c:CANCELLED c:concluded c:null \
         b:COMPLETED(Input/output error) b:concluded b:null a:CANCELLED a:concluded a:null"
    );
}

#[test]
fn a_cancelled_member_takes_waiting_members_with_it() {
    let (mut bench, jobs) = grouped(&["a", "b"], |_| {});
    bench.done(jobs[1]);
    bench.take();
    bench.verb(jobs[0], FORCE).unwrap();
    assert_eq!(
        bench.take(),
        "a:aborting b:aborting b:CANCELLED b:concluded b:null a:CANCELLED a:concluded a:null"
    );
}

#[test]
fn one_manual_finalize_holds_the_whole_group() {
    let mut bench = Bench::default();
    let group = bench.table.new_group();
    let a = bench.create("a", Some(group), |_| {});
    let b = bench.create("b", Some(group), |spec| spec.auto_finalize = false);
    bench.input(Input::Start(b));
    bench.input(Input::Start(a));
    bench.done(a);
    bench.take();
    bench.done(b);
    assert_eq!(bench.take(), "b:waiting b:pending b:PENDING a:pending");
    bench.verb(a, Verb::Finalize).unwrap();
    assert_eq!(
        bench.take(),
        "b:COMPLETED b:concluded b:null a:COMPLETED a:concluded a:null"
    );
}

#[test]
fn cancel_in_pending_aborts_the_group() {
    let (mut bench, jobs) = grouped(&["a", "b"], |spec| spec.auto_finalize = false);
    bench.done(jobs[0]);
    bench.done(jobs[1]);
    bench.take();
    bench.verb(jobs[0], Verb::Cancel { force: false }).unwrap();
    assert_eq!(
        bench.take(),
        "b:aborting b:CANCELLED b:concluded b:null a:aborting a:CANCELLED a:concluded a:null"
    );
}

/// A finalize that comes while a group is being finalized must not begin it again.
#[test]
fn finalize_twice() {
    let mut bench = Bench::default();
    let group = bench.table.new_group();
    let a = bench.create("a", Some(group), |spec| spec.auto_finalize = false);
    bench.input(Input::Start(a));
    bench.done(a);
    let mut effects = Vec::new();
    bench
        .table
        .apply(Input::Verb(a, Verb::Finalize), &mut effects)
        .unwrap();
    assert!(matches!(effects.as_slice(), [Effect::Prepare(..)]));
    let mut again = Vec::new();
    bench
        .table
        .apply(Input::Verb(a, Verb::Finalize), &mut again)
        .unwrap();
    assert!(again.is_empty());
    let mut effects = Vec::new();
    bench
        .table
        .apply(Input::Prepared(group, None), &mut effects)
        .unwrap();
    assert!(matches!(effects.as_slice(), [Effect::Finalize(_, true)]));
    let error = bench
        .table
        .apply(Input::Verb(a, FORCE), &mut Vec::new())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Job 'a' in state 'pending' cannot accept command verb 'cancel'"
    );
}

#[test]
fn a_failed_prepare_aborts_all() {
    let mut bench = Bench::default();
    let group = bench.table.new_group();
    let a = bench.create("a", Some(group), |spec| spec.auto_finalize = false);
    let b = bench.create("b", Some(group), |_| {});
    bench.input(Input::Start(b));
    bench.input(Input::Start(a));
    bench.done(a);
    bench.done(b);
    bench.take();
    let mut effects = Vec::new();
    bench
        .table
        .apply(Input::Verb(a, Verb::Finalize), &mut effects)
        .unwrap();
    bench.input(Input::Prepared(
        group,
        Some((a, BlockError::new(ErrorKind::Io, "no"))),
    ));
    assert_eq!(
        bench.take(),
        "b:aborting b:CANCELLED b:concluded b:null a:aborting a:COMPLETED(no) a:concluded a:null"
    );
}

#[test]
fn every_verb_in_every_state() {
    let states = |verb: Verb| -> Vec<&'static str> {
        let mut allowed = Vec::new();
        for (name, prepare) in cases() {
            let mut bench = Bench::default();
            let a = bench.create("a", None, |spec| {
                spec.auto_finalize = false;
                spec.auto_dismiss = false;
            });
            prepare(&mut bench, a);
            let before = bench.table.get(a).unwrap().status;
            assert_eq!(super::status_name(before), name);
            match bench.verb(a, verb) {
                Ok(()) => allowed.push(name),
                Err(text) if text.contains("cannot accept") => {
                    assert_eq!(
                        text,
                        format!(
                            "Job 'a' in state '{name}' cannot accept command verb '{}'",
                            verb.name()
                        )
                    );
                }
                Err(_) => {}
            }
        }
        allowed
    };
    assert_eq!(
        states(FORCE),
        ["created", "running", "paused", "ready", "standby", "pending"]
    );
    assert_eq!(states(Verb::Pause), ["created", "running", "ready"]);
    assert_eq!(states(Verb::Resume), ["paused", "standby"]);
    assert_eq!(
        states(Verb::SetSpeed(1)),
        ["created", "running", "paused", "ready", "standby"]
    );
    assert_eq!(states(Verb::Complete), ["ready"]);
    assert_eq!(states(Verb::Finalize), ["pending"]);
    assert_eq!(states(Verb::Dismiss), ["concluded"]);
}

type Prepare = fn(&mut Bench, JobSerial);

fn cases() -> Vec<(&'static str, Prepare)> {
    vec![
        ("created", |_, _| {}),
        ("running", |bench, a| bench.input(Input::Start(a))),
        ("paused", |bench, a| {
            bench.input(Input::Start(a));
            bench.verb(a, Verb::Pause).unwrap();
        }),
        ("ready", |bench, a| {
            bench.input(Input::Start(a));
            bench.input(Input::Ready(a));
        }),
        ("standby", |bench, a| {
            bench.input(Input::Start(a));
            bench.input(Input::Ready(a));
            bench.verb(a, Verb::Pause).unwrap();
        }),
        ("pending", |bench, a| {
            bench.input(Input::Start(a));
            bench.done(a);
        }),
        ("concluded", |bench, a| {
            bench.input(Input::Start(a));
            bench.done(a);
            bench.verb(a, Verb::Finalize).unwrap();
        }),
    ]
}

#[test]
fn ids() {
    let mut bench = Bench::default();
    bench.create("a", None, |_| {});
    assert_eq!(
        bench.table.check_id("1 x").unwrap_err().to_string(),
        "Invalid job ID '1 x'"
    );
    assert_eq!(
        bench.table.check_id("").unwrap_err().to_string(),
        "Invalid job ID ''"
    );
    assert_eq!(
        bench.table.check_id("a").unwrap_err().to_string(),
        "Job ID 'a' already in use"
    );
    bench.create("b", None, |_| {});
    let order: Vec<_> = bench
        .table
        .iter()
        .map(|(_, job)| job.id.as_str().to_owned())
        .collect();
    assert_eq!(order, ["b", "a"]);
    assert_eq!(
        bench.table.iter().next().map(|(_, job)| job.status),
        Some(JobStatus::Created)
    );
}

#[test]
fn a_job_that_starts_under_a_drain_is_paused_until_it_is_released() {
    let mut bench = Bench::default();
    let a = bench.create("a", None, |_| {});
    bench.take();
    bench.input(Input::StartHeld(a));
    assert_eq!(bench.take(), "a:running a:paused");
    bench.input(Input::Release(a));
    assert_eq!(bench.take(), "a:running");
}
