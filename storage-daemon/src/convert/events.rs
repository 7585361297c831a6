//! Block layer events as QMP events.

use std::sync::Arc;

use block_core::event::{BlockJobPoint, Event, EventSink};
use qapi_runtime::EventHub;

use super::jobs::{job_status, job_type, sync_mode_name};
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
                let BlockJobPoint {
                    id,
                    kind,
                    len,
                    offset,
                    speed,
                } = job;
                let (sync_taken, sync_reason) = auto.unzip();
                hub.emit(&schema::BlockJobCompleted {
                    r#type: job_type(kind),
                    device: id.as_str().to_owned(),
                    len: signed(len),
                    offset: signed(offset),
                    speed: signed(speed),
                    error,
                    sync_taken: sync_taken.as_deref().map(sync_mode_name),
                    sync_reason,
                });
            }
            Event::BlockJobCancelled { job } => {
                let BlockJobPoint {
                    id,
                    kind,
                    len,
                    offset,
                    speed,
                } = job;
                hub.emit(&schema::BlockJobCancelled {
                    r#type: job_type(kind),
                    device: id.as_str().to_owned(),
                    len: signed(len),
                    offset: signed(offset),
                    speed: signed(speed),
                });
            }
            Event::BlockJobReady { job } => {
                let BlockJobPoint {
                    id,
                    kind,
                    len,
                    offset,
                    speed,
                } = job;
                hub.emit(&schema::BlockJobReady {
                    r#type: job_type(kind),
                    device: id.as_str().to_owned(),
                    len: signed(len),
                    offset: signed(offset),
                    speed: signed(speed),
                });
            }
            Event::BlockJobPending { id, kind } => {
                hub.emit(&schema::BlockJobPending {
                    r#type: job_type(kind),
                    id: id.as_str().to_owned(),
                });
            }
            Event::BlockJobError {
                id,
                operation,
                action,
            } => {
                hub.emit(&schema::BlockJobError {
                    device: id.as_str().to_owned(),
                    operation: if operation == "read" {
                        schema::IoOperationType::Read
                    } else {
                        schema::IoOperationType::Write
                    },
                    action: match action {
                        "ignore" => schema::BlockErrorAction::Ignore,
                        "stop" => schema::BlockErrorAction::Stop,
                        _ => schema::BlockErrorAction::Report,
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
