//! Block layer events as QMP events.

use std::sync::Arc;

use block_core::event::{ErrorAction, Event, EventSink};
use qapi_runtime::EventHub;

use super::jobs::{auto_mode, job_status, job_type};
use super::nodes::signed;

/// Tells the block layer's events to QMP clients.
pub struct QmpEvents(pub Arc<EventHub>);

impl EventSink for QmpEvents {
    fn emit(&self, event: Event) {
        let hub = &self.0;
        match event {
            Event::JobStatusChange { id, status } => {
                hub.emit(&schema::JobStatusChange {
                    id: id.as_str().to_owned(),
                    status: job_status(status),
                });
            }
            Event::BlockJobCompleted { job, error, auto } => {
                let (sync_taken, sync_reason) = auto.unzip();
                hub.emit(&schema::BlockJobCompleted {
                    r#type: job_type(job.kind),
                    device: job.id.as_str().to_owned(),
                    len: signed(job.len),
                    offset: signed(job.offset),
                    speed: signed(job.speed),
                    error,
                    sync_taken: sync_taken.map(auto_mode),
                    sync_reason,
                });
            }
            Event::BlockJobCancelled { job } => {
                hub.emit(&schema::BlockJobCancelled {
                    r#type: job_type(job.kind),
                    device: job.id.as_str().to_owned(),
                    len: signed(job.len),
                    offset: signed(job.offset),
                    speed: signed(job.speed),
                });
            }
            Event::BlockJobReady { job } => {
                hub.emit(&schema::BlockJobReady {
                    r#type: job_type(job.kind),
                    device: job.id.as_str().to_owned(),
                    len: signed(job.len),
                    offset: signed(job.offset),
                    speed: signed(job.speed),
                });
            }
            Event::BlockJobPending { id, kind } => {
                hub.emit(&schema::BlockJobPending {
                    r#type: job_type(kind),
                    id: id.as_str().to_owned(),
                });
            }
            Event::BlockJobError { id, is_read, action } => {
                hub.emit(&schema::BlockJobError {
                    device: id.as_str().to_owned(),
                    operation: if is_read {
                        schema::IoOperationType::Read
                    } else {
                        schema::IoOperationType::Write
                    },
                    action: match action {
                        ErrorAction::Report => schema::BlockErrorAction::Report,
                        ErrorAction::Ignore => schema::BlockErrorAction::Ignore,
                        ErrorAction::Stop => schema::BlockErrorAction::Stop,
                    },
                });
            }
            Event::BlockExportDeleted { id } => {
                hub.emit(&schema::BlockExportDeleted {
                    id: id.as_str().to_owned(),
                });
            }
            Event::BlockImageCorrupted {
                node,
                message,
                place,
                fatal,
            } => {
                let (offset, size) = place.unzip();
                hub.emit(&schema::BlockImageCorrupted {
                    // There are no guest devices here, and the member is not optional.
                    device: String::new(),
                    node_name: Some(node.as_str().to_owned()),
                    msg: message,
                    offset: offset.map(signed),
                    size: size.map(signed),
                    fatal,
                });
            }
            Event::BlockWriteThreshold {
                node,
                threshold,
                exceeded,
            } => {
                hub.emit(&schema::BlockWriteThreshold {
                    node_name: node.as_str().to_owned(),
                    amount_exceeded: exceeded,
                    write_threshold: threshold,
                });
            }
        }
    }
}
